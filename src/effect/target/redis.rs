//! Changes the passwords of a user in a Redis access control list.
//!
//! The server is sent the SHA-256 of a password, which is what it keeps, and has both between set and
//! finish. What it has in memory is then saved where the server is configured to save it: otherwise its
//! next start would bring the old password back.

use std::io::{BufRead, BufReader, Read, Write};

use sha2::{Digest, Sha256};

use super::{Redis, Users};
use crate::effect::EffectError;
use crate::effect::step::{Outcome, Step, invalid};
use crate::effect::stream::{Stream, lost};
use crate::system::{SecretBuffer, SecretBytes};

const PORT: u16 = 6379;
/// Replies that are longer or deeper are not what we have asked for.
const MAX_REPLY_BYTES: u64 = 1 << 20;
const MAX_DEPTH: usize = 4;

impl Redis {
    pub(super) fn set(&self, step: &Step<'_>) -> Outcome {
        let new = self.password(step.new_value()?)?;
        let mut rules = vec![hash(&new)];
        if let Some(current) = &step.values.current {
            rules.push(hash(&self.password(current)?));
        }
        self.change(step, rules)
    }

    pub(super) fn login(&self, step: &Step<'_>) -> Outcome {
        let password = self.password(step.new_value()?)?;
        self.open(&self.user, Some(&password))?;
        Ok(format!("{} has logged in at {}", self.user, self.address))
    }

    pub(super) fn finish(&self, step: &Step<'_>) -> Outcome {
        let new = self.password(step.new_value()?)?;
        self.change(step, vec!["resetpass".to_owned(), hash(&new)])
    }

    pub(super) fn undo(&self, step: &Step<'_>) -> Outcome {
        let mut rules = vec!["resetpass".to_owned()];
        if let Some(current) = &step.values.current {
            rules.push(hash(&self.password(current)?));
        }
        self.change(step, rules)
    }

    fn password(&self, value: &SecretBytes) -> Result<SecretBytes, EffectError> {
        Users::One(self.user.clone()).credential(value).map(|(_, password)| password)
    }

    fn change(&self, step: &Step<'_>, rules: Vec<String>) -> Outcome {
        let (admin, password) = step.admin(self.admin_user.as_deref())?;
        let mut session = self.open(admin.as_deref().unwrap_or("default"), password.as_ref())?;
        // A user that is not there would be made, and could do nothing.
        if matches!(session.ask(&["ACL", "GETUSER", &self.user])?, Reply::Nothing) {
            return Err(EffectError::Refused(format!("there is no user {}", self.user)));
        }
        let mut command = vec!["ACL", "SETUSER", &self.user];
        command.extend(rules.iter().map(String::as_str));
        session.ask(&command)?;
        let user = &self.user;
        Ok(match session.save()? {
            true => format!("{user} is changed at {}", self.address),
            false => format!(
                "{user} is changed at {} until its restart: nothing to save to",
                self.address
            ),
        })
    }

    fn open(&self, user: &str, password: Option<&SecretBytes>) -> Result<Session, EffectError> {
        let mut stream = Stream::connect(&self.address, PORT)?;
        if let Some(tls) = &self.tls {
            stream = stream.secured(&self.address, tls)?;
        }
        let mut session = Session(BufReader::new(stream));
        if let Some(password) = password {
            session.log_in(user, password)?;
        }
        Ok(session)
    }
}

/// A conversation with a server.
struct Session(BufReader<Stream>);

/// As much of a reply as anybody asks for.
#[derive(Debug, Eq, PartialEq)]
enum Reply {
    Nothing,
    Something,
}

impl Session {
    fn log_in(&mut self, user: &str, password: &SecretBytes) -> Result<(), EffectError> {
        self.send(&[b"AUTH", user.as_bytes(), password.expose()])?;
        self.reply(0).map(drop)
    }

    /// Has the server keep what it has, in the one file or the other; tells whether there is one.
    fn save(&mut self) -> Result<bool, EffectError> {
        for command in [["ACL", "SAVE"], ["CONFIG", "REWRITE"]] {
            match self.ask(&command) {
                Ok(_) => return Ok(true),
                // There is no such file.
                Err(EffectError::Refused(why))
                    if why.starts_with(
                        "ERR This Redis instance is not configured to use an ACL file",
                    ) => {}
                Err(EffectError::Refused(why))
                    if why.starts_with("ERR The server is running without a config file") => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    fn ask(&mut self, words: &[&str]) -> Result<Reply, EffectError> {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        self.send(&words)?;
        self.reply(0)
    }

    fn send(&mut self, words: &[&[u8]]) -> Result<(), EffectError> {
        let mut packet = SecretBuffer::new();
        let mut push = |bytes: &[u8]| packet.write_at(packet.len(), bytes);
        let mut write = || {
            push(format!("*{}\r\n", words.len()).as_bytes())?;
            for word in words {
                push(format!("${}\r\n", word.len()).as_bytes())?;
                push(word)?;
                push(b"\r\n")?;
            }
            Ok(())
        };
        write().map_err(|error: crate::system::MemoryError| invalid(&error.to_string()))?;
        let stream = self.0.get_mut();
        stream
            .write_all(packet.expose())
            .and_then(|()| stream.flush())
            .map_err(|error| lost(&error))
    }

    fn reply(&mut self, depth: usize) -> Result<Reply, EffectError> {
        let line = self.line()?;
        let (kind, rest) = line.split_at_checked(1).ok_or_else(odd)?;
        match kind {
            "-" => Err(refusal(rest)),
            "+" | ":" => Ok(Reply::Something),
            "_" => Ok(Reply::Nothing),
            "$" | "*" if rest == "-1" => Ok(Reply::Nothing),
            "$" => {
                let length: u64 = rest.parse().map_err(|_| odd())?;
                if length > MAX_REPLY_BYTES {
                    return Err(odd());
                }
                let mut text = Vec::new();
                let read = self.0.by_ref().take(length + 2).read_to_end(&mut text);
                let read = read.map_err(|error| lost(&error))?;
                if (read as u64) < length + 2 {
                    return Err(lost(&std::io::ErrorKind::UnexpectedEof.into()));
                }
                Ok(Reply::Something)
            }
            "*" if depth < MAX_DEPTH => {
                let count: u32 = rest.parse().map_err(|_| odd())?;
                for _ in 0..count {
                    self.reply(depth + 1)?;
                }
                Ok(Reply::Something)
            }
            _ => Err(odd()),
        }
    }

    fn line(&mut self) -> Result<String, EffectError> {
        let mut line = Vec::new();
        let read = self.0.by_ref().take(MAX_REPLY_BYTES).read_until(b'\n', &mut line);
        read.map_err(|error| lost(&error))?;
        let line = match line.strip_suffix(b"\r\n") {
            Some(line) => line,
            None if line.is_empty() => {
                return Err(lost(&std::io::ErrorKind::UnexpectedEof.into()));
            }
            None => return Err(odd()),
        };
        Ok(String::from_utf8_lossy(line).into_owned())
    }
}

/// Returns the rule that adds a password.
fn hash(password: &SecretBytes) -> String {
    let digest = Sha256::digest(password.expose());
    digest.iter().fold("#".to_owned(), |rule, byte| rule + &format!("{byte:02x}"))
}

/// Says what an error of the server's means, by its first word.
fn refusal(said: &str) -> EffectError {
    let is_elsewhere = ["LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN"]
        .iter()
        .any(|word| said.starts_with(word));
    if is_elsewhere || said.starts_with("ERR max number of clients") {
        return EffectError::Unreachable(said.to_owned());
    }
    EffectError::Refused(said.to_owned())
}

fn odd() -> EffectError {
    EffectError::Refused("the server speaks another protocol than expected".to_owned())
}
