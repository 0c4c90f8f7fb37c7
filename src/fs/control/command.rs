//! A command file: one write is one command, then the same descriptor reads the reply.
//!
//! The reply stands under a lock of its own, and a second command replaces it. A failed command
//! leaves its reason as the reply, so that `cat <&3` says which line of a policy is bad.

use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use super::{File, Host, Kind};
use crate::broker::{Broker, BrokerError};
use crate::fs::error::{FsError, Result};
use crate::model::{Caller, SecretName};
use crate::system::SecretBytes;

/// Longest command in bytes. One write(2) of that size is one request.
pub(in crate::fs) const MAX_COMMAND: usize = 4096;

/// Which command a file takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::fs) enum Prompt {
    Admin,
    Elevate,
    Explain,
    Find,
    Grant,
    Holders,
    Reload,
    Revoke,
    Rotate,
    Scan,
    Seal,
    Unseal,
}

/// One handle on a command file.
#[derive(Debug)]
pub(in crate::fs) struct Command {
    file: &'static File,
    prompt: Prompt,
    reply: Mutex<Reply>,
}

#[derive(Debug, Default)]
struct Reply {
    /// `None` until a command was written.
    text: Option<Vec<u8>>,
    read: usize,
}

impl Command {
    /// Returns a handle on `file`, if it takes commands.
    pub(in crate::fs) fn on(file: &'static File) -> Option<Self> {
        let Kind::Command(prompt) = file.kind else { return None };
        Some(Self { file, prompt, reply: Mutex::default() })
    }

    /// Runs one command; may block. The text is kept in locked memory since it may be a passphrase.
    pub(in crate::fs) fn run(
        &self,
        broker: &Broker,
        host: &dyn Host,
        caller: &Caller,
        text: &SecretBytes,
    ) -> Result<()> {
        let verdict = self.prompt.run(broker, host, caller, text.expose());
        let reply = match &verdict {
            Ok(reply) => reply.clone(),
            Err(FsError::Broker(BrokerError::RotationFailed { outcome, .. })) => {
                (**outcome).clone()
            }
            Err(error) => json!({ "error": error.to_string() }),
        };
        let text = format!("{reply:#}\n").into_bytes();
        *self.reply.lock() = Reply { text: Some(text), read: 0 };
        verdict.map(drop)
    }

    /// Returns the next bytes of the reply, or of the usage where nothing was written.
    pub(in crate::fs) fn read(&self, len: usize) -> Vec<u8> {
        let mut reply = self.reply.lock();
        let text = reply.text.as_deref().unwrap_or(self.file.usage.as_bytes());
        let part: Vec<u8> = text.iter().skip(reply.read).take(len).copied().collect();
        reply.read += part.len();
        part
    }
}

impl Prompt {
    fn run(self, broker: &Broker, host: &dyn Host, caller: &Caller, text: &[u8]) -> Result<Value> {
        if text.len() > MAX_COMMAND {
            return Err(FsError::TooBig);
        }
        match self {
            Self::Admin => Ok(host.admin(caller, &parse(text, "do")?)?),
            // The seed in it stays in locked memory.
            Self::Elevate => Ok(host.elevate(caller, &SecretBytes::copy_from(text)?)?),
            Self::Explain => {
                let command = parse(text, "secret")?;
                let name = command.get("secret").and_then(Value::as_str).unwrap_or_default();
                let name: SecretName = name.parse().map_err(BrokerError::Name)?;
                Ok(broker.explain(caller, &name)?)
            }
            Self::Find => Ok(broker.audit_find(caller, &parse(text, "name")?)?),
            Self::Grant => Ok(host.grant(caller, &parse(text, "names")?)?),
            Self::Holders => Ok(host.holders(caller, &parse(text, "secret")?)?),
            Self::Reload => Ok(host.reload(caller)?),
            Self::Revoke => Ok(host.revoke_grant(caller, &parse(text, "grant")?)?),
            Self::Rotate => Ok(host.rotate(caller, &parse(text, "secret")?)?),
            Self::Scan => Ok(host.scan(caller, &parse(text, "path")?)?),
            Self::Seal => Ok(host.seal(caller)?),
            Self::Unseal => Ok(host.unseal(caller, passphrase(text)?)?),
        }
    }
}

/// Reads a passphrase: one line, of which nothing but the line's end is cut off.
fn passphrase(text: &[u8]) -> Result<Option<SecretBytes>> {
    let line = text.strip_suffix(b"\n").unwrap_or(text);
    if line.is_empty() {
        return Ok(None);
    }
    Ok(Some(SecretBytes::copy_from(line)?))
}

/// Reads a command: a JSON object, or a bare line `TARGET key=value ...` whose first word is stored
/// under the key `target`.
pub(in crate::fs) fn parse(text: &[u8], target: &str) -> Result<Value> {
    let text = std::str::from_utf8(text).map_err(|_| FsError::Invalid)?.trim();
    if text.starts_with('{') {
        return serde_json::from_str(text).map_err(|_| FsError::Invalid);
    }
    if text.is_empty() || text.contains(['\n', '\0']) {
        return Err(FsError::Invalid);
    }
    let mut words = text.split_ascii_whitespace();
    let mut object = Map::new();
    object.extend(words.next().map(|word| (target.to_owned(), Value::from(word))));
    for word in words {
        let (key, value) = word.split_once('=').ok_or(FsError::Invalid)?;
        if key.is_empty() || object.insert(key.to_owned(), Value::from(value)).is_some() {
            return Err(FsError::Invalid);
        }
    }
    Ok(Value::Object(object))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_line_and_an_object_say_the_same() {
        let line = parse(b"verify deep=yes\n", "do").unwrap();
        let object = parse(br#"{"do": "verify", "deep": "yes"}"#, "do").unwrap();
        assert_eq!(line, object);
    }

    #[test]
    fn a_value_may_hold_an_equals_sign() {
        let command = parse(b"x filter=a=b", "do").unwrap();
        assert_eq!(command.get("filter").unwrap(), "a=b");
    }

    #[test]
    fn malformed_commands_are_refused() {
        let bad: [&[u8]; 8] =
            [b"", b" \n", b"a b", b"a =b", b"a k=1 k=2", b"a do=b", b"a\nb", b"{\"do\": "];
        for text in bad {
            assert!(parse(text, "do").is_err(), "{text:?}");
        }
        assert!(parse(b"\xff", "do").is_err());
    }

    #[test]
    fn of_a_passphrase_only_the_end_of_the_line_is_cut_off() {
        let line = passphrase(b" example value \n").unwrap().unwrap();
        assert_eq!(line.expose(), b" example value ");
        assert!(passphrase(b"\n").unwrap().is_none());
        assert!(passphrase(b"").unwrap().is_none());
    }

    #[test]
    fn without_a_command_the_usage_is_read_once() {
        let file = super::super::FILES.iter().find(|file| file.name == "explain").unwrap();
        let command = Command::on(file).unwrap();
        assert_eq!(command.read(6), b"SECRET");
        assert_eq!(command.read(4096), &file.usage.as_bytes()[6..]);
        assert!(command.read(4096).is_empty());
    }
}
