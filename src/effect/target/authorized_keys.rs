//! Changes which public key may log in by OpenSSH.
//!
//! Other lines stay as they are, byte for byte; the new key gets the options and the comment of the old
//! one. A user's own file is changed with the user's rights: a link that the user has put in its place
//! leads to nothing that the user could not change anyway.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use super::{Address, AuthorizedKeys};
use crate::effect::run::{Printed, Run};
use crate::effect::ssh_key::PublicKey;
use crate::effect::step::{Outcome, Step, invalid};
use crate::effect::{Argv, Command, EffectError};
use crate::system::{Rights, SecretBytes, atomic_file};

/// How ssh(1) ends when it was not let in, or found nobody.
const NOT_CONNECTED: i32 = 255;

impl AuthorizedKeys {
    pub(super) fn set(&self, step: &Step<'_>) -> Outcome {
        let (current, new) = keys(step)?;
        self.change(step, |lines| lines.add(&new, current.as_ref()))
    }

    pub(super) fn finish(&self, step: &Step<'_>) -> Outcome {
        let (current, new) = keys(step)?;
        self.change(step, |lines| {
            lines.add(&new, current.as_ref());
            current.iter().filter(|key| **key != new).for_each(|key| lines.remove(key));
        })
    }

    pub(super) fn undo(&self, step: &Step<'_>) -> Outcome {
        if step.values.new.is_none() {
            return Ok("nothing was set".to_owned());
        }
        let (current, new) = keys(step)?;
        self.change(step, |lines| {
            if let Some(current) = &current {
                lines.add(current, Some(&new));
            }
            if current.as_ref() != Some(&new) {
                lines.remove(&new);
            }
        })
    }

    /// Logs in with ssh(1), and runs `true` or what the key is bound to.
    pub(super) fn login(&self, step: &Step<'_>) -> Outcome {
        let (host, port) = match &self.address {
            None => ("localhost", None),
            Some(Address::Host { name, port }) => (name.as_str(), *port),
            Some(Address::Socket(_)) => return Err(invalid("SSH is not spoken over a socket")),
        };
        let (known, checking) = match &self.known_hosts {
            Some(path) => (path.display().to_string(), "yes"),
            None => ("/dev/null".to_owned(), "no"),
        };
        let mut words =
            ["/usr/bin/ssh", "-F", "none", "-T", "-i", "/dev/stdin"].map(str::to_owned).to_vec();
        for option in [
            "BatchMode=yes",
            "IdentitiesOnly=yes",
            "IdentityAgent=none",
            "PreferredAuthentications=publickey",
            "GlobalKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
            &format!("UserKnownHostsFile={known}"),
            &format!("StrictHostKeyChecking={checking}"),
            &format!("Port={}", port.unwrap_or(22)),
        ] {
            words.extend(["-o".to_owned(), option.to_owned()]);
        }
        words.extend(["-l", &self.user, "--", host, "true"].map(str::to_owned));
        let argv = Argv::try_from(words).map_err(invalid)?;
        let command = Command { argv, user: None, timeout_seconds: None };
        let run = Run { input: Some(step.new_value()?), ..Run::of(&command) };
        let ended = run.run(step, Printed::Said)?;
        if ended.status.code().is_some_and(|code| code != NOT_CONNECTED) {
            return Ok(format!("{} has logged in at {host}", self.user));
        }
        let refusals = ["Permission denied", "verification failed", "Too many authentication"];
        if refusals.iter().any(|refusal| ended.said.contains(refusal)) {
            return Err(EffectError::Refused(ended.said));
        }
        Err(EffectError::Unreachable(ended.said))
    }

    fn change(&self, step: &Step<'_>, edit: impl FnOnce(&mut Lines)) -> Outcome {
        let file = self
            .file()
            .map_err(|error| EffectError::Refused(format!("acting as {}: {error}", self.user)))?;
        let comment = format!("secretfs:{}", step.secret());
        rewrite(&file, &comment, edit)
            .map_err(|error| EffectError::Refused(format!("{}: {error}", file.path.display())))?;
        Ok(format!("{} is changed", file.path.display()))
    }

    /// Finds the file, and takes the rights with which it is changed.
    fn file(&self) -> io::Result<KeysFile> {
        if let Some(path) = &self.path {
            return Ok(KeysFile { path: path.clone(), new_mode: 0o644 });
        }
        let rights = Rights::of_user(&self.user)
            .map_err(|_| io::Error::other("this host knows no such user"))?;
        rights.assume()?;
        let directory = rights.home.join(".ssh");
        match DirBuilder::new().mode(0o700).create(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let path = directory.join("authorized_keys");
        // Some have a link there, to a file that they keep elsewhere.
        Ok(KeysFile { path: path.canonicalize().unwrap_or(path), new_mode: 0o600 })
    }
}

/// A file of keys, which need not be there.
struct KeysFile {
    path: PathBuf,
    /// For a new one. The server reads it with the rights of whoever logs in.
    new_mode: u32,
}

/// Returns the public halves of the current value, if that is a key, and of the new one.
fn keys(step: &Step<'_>) -> Result<(Option<PublicKey>, PublicKey), EffectError> {
    let read = |value: &SecretBytes| {
        PublicKey::of_private(value).map_err(|error| invalid(&error.to_string()))
    };
    Ok((step.values.current.as_ref().map(read).transpose()?, read(step.new_value()?)?))
}

/// Changes a file while nobody else of ours does.
fn rewrite(file: &KeysFile, comment: &str, edit: impl FnOnce(&mut Lines)) -> io::Result<()> {
    let directory = File::open(file.path.parent().unwrap_or(Path::new("/")))?;
    let _lock = Flock::lock(directory, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
    let (before, text) = match fs::symlink_metadata(&file.path) {
        Ok(metadata) if metadata.is_file() => (Some(metadata), fs::read_to_string(&file.path)?),
        Ok(_) => return Err(io::Error::other("it is no file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (None, String::new()),
        Err(error) => return Err(error),
    };
    let mut lines = Lines::of(&text, comment);
    edit(&mut lines);
    let made = lines.text();
    match before {
        _ if made == text => Ok(()),
        Some(before) => atomic_file::replace_keeping(&file.path, made.as_bytes(), &before),
        None => atomic_file::replace(&file.path, made.as_bytes(), file.new_mode),
    }
}

/// The lines of a file of keys.
struct Lines {
    lines: Vec<String>,
    /// For a key that takes nobody's place.
    comment: String,
}

impl Lines {
    fn of(text: &str, comment: &str) -> Self {
        Self { lines: text.lines().map(str::to_owned).collect(), comment: comment.to_owned() }
    }

    fn text(&self) -> String {
        self.lines.iter().flat_map(|line| [line, "\n"]).collect()
    }

    /// Adds a key, unless it is there, below the one whose place it is to take.
    fn add(&mut self, key: &PublicKey, old: Option<&PublicKey>) {
        if self.find(key).is_some() {
            return;
        }
        let words = format!("{} {}", key.algorithm, key.base64);
        let place = old.and_then(|old| Some((self.find(old)?, old)));
        match place.and_then(|(at, old)| Some((at, Self::around(self.lines.get(at)?, old)?))) {
            Some((at, (options, comment))) => {
                let line = format!("{options}{words}{comment}");
                self.lines.insert(at + 1, line);
            }
            None => self.lines.push(format!("{words} {}", self.comment)),
        }
    }

    fn remove(&mut self, key: &PublicKey) {
        self.lines.retain(|line| !is_of(line, key));
    }

    fn find(&self, key: &PublicKey) -> Option<usize> {
        self.lines.iter().position(|line| is_of(line, key))
    }

    /// Returns what stands before and behind a key in its line.
    fn around<'l>(line: &'l str, key: &PublicKey) -> Option<(&'l str, &'l str)> {
        let (before, comment) = line.split_once(key.base64.as_str())?;
        Some((before.trim_end().strip_suffix(key.algorithm.as_str())?, comment))
    }
}

/// Tells whether a line lets this key in.
fn is_of(line: &str, key: &PublicKey) -> bool {
    let line = line.trim_start();
    !line.starts_with('#') && line.split_ascii_whitespace().any(|word| word == key.base64)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    fn key(base64: &str) -> PublicKey {
        PublicKey { algorithm: "ssh-ed25519".to_owned(), base64: base64.to_owned() }
    }

    const BEFORE: &str =
        "# ssh-ed25519 OLD\n\nfrom=\"10.0.0.0/8, ::1\",no-pty   ssh-ed25519  OLD a b\nssh-rsa X";

    #[test]
    fn the_new_key_stands_beside_the_old_one_with_its_options_and_comment() {
        let mut lines = Lines::of(BEFORE, "c");
        lines.add(&key("NEW"), Some(&key("OLD")));
        let once = lines.text();
        let added = "\nfrom=\"10.0.0.0/8, ::1\",no-pty   ssh-ed25519 NEW a b\nssh-rsa X\n";
        assert!(once.starts_with(&BEFORE[..60]) && once.ends_with(added), "{once}");
        lines.add(&key("NEW"), Some(&key("OLD")));
        assert_eq!(lines.text(), once);
        lines.remove(&key("NEW"));
        assert_eq!(lines.text(), format!("{BEFORE}\n"));
    }

    #[test]
    fn a_key_without_a_predecessor_is_named_after_its_secret() {
        let mut lines = Lines::of("", "secretfs:ssh/deploy");
        lines.add(&key("NEW"), Some(&key("OLD")));
        assert_eq!(lines.text(), "ssh-ed25519 NEW secretfs:ssh/deploy\n");
    }

    #[test]
    fn a_file_keeps_its_mode_and_a_link_in_its_place_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        let file = KeysFile { path: path.clone(), new_mode: 0o644 };
        rewrite(&file, "c", |lines| lines.add(&key("A"), None)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o644);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        rewrite(&file, "c", |lines| lines.add(&key("B"), None)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_to_string(&path).unwrap(), "ssh-ed25519 A c\nssh-ed25519 B c\n");
        let link = KeysFile { path: dir.path().join("link"), new_mode: 0o644 };
        std::os::unix::fs::symlink(&path, &link.path).unwrap();
        assert!(rewrite(&link, "c", |lines| lines.remove(&key("A"))).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
