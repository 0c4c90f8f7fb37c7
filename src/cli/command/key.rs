//! `key`: where the store's keys come from, how old they are, and new ones.

use std::fs;

use serde_json::{Value, json};

use super::mount::MAX_PASSPHRASE;
use super::{Done, absolute};
use crate::cli::Context;
use crate::cli::args::{ChangeSource, Key, KeySourceKind, PassphraseFrom};
use crate::cli::client::Client;
use crate::cli::error::{Failure, Kind};
use crate::cli::plaintext;
use crate::daemon::compose::make_key_file;
use crate::system::{SecretBuffer, SecretBytes, read_line};

pub(super) fn run(context: &Context, args: &Key) -> Done {
    let client = context.client()?;
    let answer = match args {
        Key::ChangeSource(args) => change_source(&client, args)?,
        Key::RotateEpoch => client.admin(&json!({ "do": "key-rotate-epoch" }))?,
        Key::RotateRoot(from) => rotate_root(&client, from)?,
        Key::Status => client.admin(&json!({ "do": "key-status" }))?,
    };
    context.out.answer(&answer)?;
    if answer.get("config_must_change").and_then(Value::as_bool) == Some(true) {
        let file = answer.get("config").and_then(Value::as_str).unwrap_or("the configuration");
        context.out.note(format_args!(
            "now name the new source in [key] of {file}: the next start asks the one that stands there"
        ));
    }
    Ok(())
}

fn rotate_root(client: &Client, from: &PassphraseFrom) -> Result<Value, Failure> {
    let command = json!({ "do": "key-rotate-root" });
    let status = client.read_text(".control/status")?;
    if !status.lines().any(|line| line == "key_source: passphrase") {
        return client.admin(&command);
    }
    with_passphrase(client, &command, &new_passphrase(from)?)
}

fn change_source(client: &Client, args: &ChangeSource) -> Result<Value, Failure> {
    let command = "key-change-source";
    match args.source {
        KeySourceKind::Backend => {
            let (backend, name) = (&args.key_backend, &args.key_name);
            let command =
                json!({ "do": command, "source": "backend", "backend": backend, "name": name });
            client.admin(&command).map_err(|failure| {
                failure.hint("[key] of the configuration has to have this backend and name already")
            })
        }
        KeySourceKind::Credential => {
            let credential = &args.credential;
            client.admin(&json!({
                "do": command, "source": "credential", "credential": credential,
            }))
        }
        KeySourceKind::File => {
            let file = args.file.as_deref().map(absolute).transpose()?;
            // The daemon may only read where it is.
            let made = file.as_deref().map(make_key_file).transpose()?;
            let changed = client.admin(&json!({ "do": command, "source": "file", "file": file }));
            changed.map_err(|failure| {
                if let (Some(true), Some(file)) = (made, &file) {
                    drop(fs::remove_file(file));
                }
                failure.hint(
                    "the daemon reads key files in the directories of its configuration, its \
                     policy and its key",
                )
            })
        }
        KeySourceKind::Passphrase => {
            let command = json!({ "do": command, "source": "passphrase" });
            with_passphrase(client, &command, &new_passphrase(&args.from)?)
        }
    }
}

fn new_passphrase(from: &PassphraseFrom) -> Result<SecretBytes, Failure> {
    match from.passphrase_fd {
        None => plaintext::new_passphrase(),
        Some(fd) => read_line(fd, MAX_PASSPHRASE)
            .map_err(|err| Failure::new(Kind::Config, "--passphrase-fd", err.to_string())),
    }
}

/// Sends a command with a passphrase in it. The text is put together in locked memory, because a
/// JSON library would leave copies behind.
fn with_passphrase(
    client: &Client,
    command: &Value,
    phrase: &SecretBytes,
) -> Result<Value, Failure> {
    let text = command_with_passphrase(command, phrase)
        .map_err(|why| Failure::new(Kind::Config, "the passphrase", why))?;
    client.control("admin", text.expose())
}

fn command_with_passphrase(command: &Value, phrase: &SecretBytes) -> Result<SecretBytes, String> {
    let phrase = std::str::from_utf8(phrase.expose()).map_err(|_| "it is not UTF-8")?;
    let mut text = SecretBuffer::new();
    let mut push = |part: &[u8]| text.write_at(text.len(), part).map_err(|err| err.to_string());
    let head = command.to_string();
    push(head.strip_suffix('}').unwrap_or(&head).as_bytes())?;
    push(b",\"passphrase\":\"")?;
    for byte in phrase.bytes() {
        match byte {
            b'"' | b'\\' => push(&[b'\\', byte])?,
            0..0x20 => return Err("it has a control character".into()),
            _ => push(&[byte])?,
        }
    }
    push(b"\"}")?;
    Ok(text.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(phrase: &str) -> Result<Value, String> {
        let phrase = SecretBytes::copy_from(phrase.as_bytes()).unwrap();
        let text = command_with_passphrase(&json!({ "do": "x" }), &phrase)?;
        Ok(serde_json::from_slice(text.expose()).unwrap())
    }

    #[test]
    fn a_passphrase_arrives_as_it_was_typed() {
        let phrase = "canary \"7f3a\" \\ \u{e9}";
        assert_eq!(sent(phrase).unwrap(), json!({ "do": "x", "passphrase": phrase }));
        assert!(sent("a\tb").is_err());
    }
}
