//! Secrets where programs look for files: what `injections.toml` says of one, and how it gets there.
//!
//! Nothing is put over what somebody else has put there, and nothing of others is removed. A file that is
//! ours is known by what it is: a link to its secret on the mount, or into `..data` beside it, or a bind of
//! something on a mount of ours. No symbolic link is followed on the way: others may write in the directory.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};

use nix::unistd::{Group, User};
use serde::{Deserialize, Serialize};

use super::EffectError;
use super::step::{Outcome, invalid};
use crate::model::SecretName;
use crate::system::atomic_file::is_in_memory;
use crate::system::binds::{self, BindError};
use crate::system::{Anchor, SecretBytes};

mod copies;

pub use copies::{Copies, NoPlace};

/// One `[[file]]`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Placement {
    pub secret: SecretName,
    pub path: PathBuf,
    // Without a default: a table without it must not mean another one (see `permit::holds`).
    pub kind: PlacementKind,
    /// `USER`, or `USER:GROUP`.
    pub owner: Option<String>,
    pub mode: Option<FileMode>,
}

/// How a secret is at a path.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PlacementKind {
    /// Is the secret on the mount, or a directory there, under another path: a bind mount.
    Bind,
    /// In memory, and changed with the secret.
    Copy,
    /// Leads to the mount.
    Link,
}

/// Permission bits, written as in chmod(1).
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct FileMode(u32);

impl TryFrom<String> for FileMode {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let mode = u32::from_str_radix(&text, 8).ok().filter(|mode| *mode <= 0o777);
        mode.map(Self).ok_or("permission bits such as \"0640\" were expected")
    }
}

impl From<FileMode> for String {
    fn from(FileMode(mode): FileMode) -> Self {
        format!("{mode:04o}")
    }
}

/// Who may read a copy whose mode is not said.
const PRIVATE: u32 = 0o600;

impl Placement {
    /// Says what is wrong with it, if anything is.
    pub fn objection(&self) -> Option<&'static str> {
        let is_plain = |part| matches!(part, Component::Normal(_) | Component::RootDir);
        if !self.path.is_absolute()
            || self.path.file_name().is_none()
            || !self.path.components().all(is_plain)
        {
            return Some("the path must be absolute, without `..`, and name a file");
        }
        let bare = self.owner.is_none() && self.mode.is_none();
        (self.kind != PlacementKind::Copy && !bare)
            .then_some("only a copy has an owner and a mode: links and binds lead to the mount")
    }

    /// Makes the link or the bind, or the copy anew with this value.
    pub(super) fn place(&self, mount: &Path, value: Option<&SecretBytes>) -> Outcome {
        match self.kind {
            PlacementKind::Bind => {
                let bound = binds::bind(&mount.join(self.secret.as_str()), &self.path);
                bound.map_err(|error| self.unbound(&error))?;
                Ok("bound".into())
            }
            PlacementKind::Copy => {
                let value = value.ok_or_else(|| invalid("the order has no value"))?;
                let copies = self.copies()?;
                let owner = self.owner.as_deref().map(account).transpose()?;
                // Before the copy is made: what cannot be found there is not to lie there.
                self.check_ours(&copies.path(), &copies.target())?;
                let mode = self.mode.map_or(PRIVATE, |mode| mode.0);
                copies.put(value, mode, owner).map_err(|error| self.failed(&error))?;
                self.link(&copies.path(), &copies.target())?;
                Ok("copied".into())
            }
            PlacementKind::Link => {
                let directory = self.directory().map_err(|error| self.failed(&error))?;
                self.link(&directory.at(self.leaf()), &mount.join(self.secret.as_str()))?;
                Ok("linked".into())
            }
        }
    }

    /// Takes away what `place` has made. What is not there, or is somebody else's, stays so.
    pub fn take_away(&self, mount: &Path) -> Result<String, EffectError> {
        let is_link_to =
            |path: &Path, target: &Path| fs::read_link(path).is_ok_and(|found| found == target);
        let failed = |error: io::Error| self.failed(&error);
        match (self.kind, self.directory()) {
            (_, Err(error)) if error.kind() == io::ErrorKind::NotFound => {}
            (PlacementKind::Bind, _) => binds::unbind(&self.path, mount).map_err(failed)?,
            (PlacementKind::Copy, Ok(directory)) if !is_in_memory(&directory.path()) => {}
            (PlacementKind::Copy, _) => {
                let copies = self.copies()?;
                if is_link_to(&copies.path(), &copies.target()) {
                    // First what may be refused: with the link gone, nobody would come back for the copy.
                    copies.remove().map_err(failed)?;
                    fs::remove_file(copies.path()).map_err(failed)?;
                }
            }
            (PlacementKind::Link, directory) => {
                let directory = directory.map_err(failed)?;
                let path = directory.at(self.leaf());
                if is_link_to(&path, &mount.join(self.secret.as_str())) {
                    fs::remove_file(&path).map_err(failed)?;
                }
            }
        }
        Ok("taken away".into())
    }

    fn parent(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }

    fn leaf(&self) -> &Path {
        self.path.file_name().map_or(&self.path, Path::new)
    }

    fn directory(&self) -> io::Result<Anchor> {
        Anchor::open(self.parent())
    }

    fn copies(&self) -> Result<Copies, EffectError> {
        Copies::beside(&self.path).map_err(|error| match error {
            NoPlace::Directory(error) => self.failed(&error),
            error @ (NoPlace::NoFile | NoPlace::OnDisk(_)) => {
                EffectError::Invalid(error.to_string())
            }
        })
    }

    /// Makes a link in one step, unless it is there.
    fn link(&self, path: &Path, target: &Path) -> Result<(), EffectError> {
        if self.check_ours(path, target)? {
            return Ok(());
        }
        replace_link(path, target).map_err(|error| self.failed(&error))
    }

    /// Tells whether our link is there. Errors: something else is.
    fn check_ours(&self, path: &Path, target: &Path) -> Result<bool, EffectError> {
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(self.failed(&error)),
            Ok(_) if fs::read_link(path).is_ok_and(|found| found == target) => Ok(true),
            Ok(_) => Err(EffectError::Refused("what is there was not put there by us".into())),
        }
    }

    fn unbound(&self, error: &BindError) -> EffectError {
        match error {
            BindError::Mount(_) | BindError::NotRoot | BindError::Occupied => {
                EffectError::Refused(error.text())
            }
            BindError::NotMounted | BindError::Secret(_) => EffectError::Unreachable(error.text()),
            BindError::Place(error) => self.failed(error),
        }
    }

    fn failed(&self, error: &io::Error) -> EffectError {
        EffectError::Unreachable(format!("{}: {error}", self.parent().display()))
    }
}

/// Makes a link in one step, in the place of what is there.
pub fn replace_link(path: &Path, target: &Path) -> io::Result<()> {
    let directory = path.parent().map(PathBuf::from).unwrap_or_default();
    let made = tempfile::Builder::new()
        .prefix(".secretfs-")
        .make_in(directory, |path| symlink(target, path))?;
    made.persist(path).map(drop).map_err(|error| error.error)
}

/// Returns the ids of an owner.
fn account(text: &str) -> Result<(u32, u32), EffectError> {
    let (user, group) =
        text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let nobody = |what: &str| EffectError::Unreachable(format!("there is no {what} for {text}"));
    let known = match user.parse() {
        Ok(uid) => Some((uid, uid)),
        Err(_) => {
            User::from_name(user).ok().flatten().map(|user| (user.uid.as_raw(), user.gid.as_raw()))
        }
    };
    let (uid, own) = known.ok_or_else(|| nobody("user"))?;
    let gid = match group.map(|group| (group, group.parse())) {
        None => own,
        Some((_, Ok(gid))) => gid,
        Some((name, Err(_))) => {
            let group = Group::from_name(name).ok().flatten();
            group.ok_or_else(|| nobody("group"))?.gid.as_raw()
        }
    };
    Ok((uid, gid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_taken_away_whole_stays_whole() {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = dir.path().join("key");
        let text = format!("secret = \"prod/key\"\npath = {path:?}\nkind = \"copy\"\n");
        let placement: Placement = toml::from_str(&text).unwrap();
        let value = SecretBytes::copy_from(b"value").unwrap();
        placement.place(dir.path(), Some(&value)).unwrap();
        // Somebody else's in the place of ours.
        let (data, aside) = (dir.path().join("..data"), dir.path().join("aside"));
        fs::rename(&data, &aside).unwrap();
        symlink("elsewhere", &data).unwrap();
        assert!(placement.take_away(dir.path()).is_err());
        assert!(fs::symlink_metadata(&path).is_ok(), "the link is left for the next try");
        fs::rename(&aside, &data).unwrap();
        placement.take_away(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
