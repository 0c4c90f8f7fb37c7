//! Copies in a directory, changed by swapping a link: `..data` leads to a directory that holds them all,
//! and each change makes a new one.
//!
//! So a reader finds a file whole, the old one or the new one, and never none. The other copies are
//! carried over as further links to the same files. What a change leaves that was killed, the next one removes.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use super::replace_link;
use crate::system::SecretBytes;
use crate::system::atomic_file::is_in_memory;

/// What all copies are found through.
const DATA: &str = "..data";
/// With what the names of the directories behind it begin.
const PREFIX: &str = "..secretfs-";

/// The copies beside one path.
#[derive(Debug)]
pub struct Copies {
    directory: PathBuf,
    leaf: PathBuf,
}

/// Why there can be no copy at a path.
#[derive(Debug, thiserror::Error)]
pub enum NoPlace {
    #[error("this is no file")]
    NoFile,
    #[error("a copy in {0} would reach a disk")]
    OnDisk(PathBuf),
}

impl Copies {
    /// Returns the place for a copy that is to be found at `path`.
    pub fn beside(path: &Path) -> Result<Self, NoPlace> {
        let (Some(directory), Some(leaf)) = (path.parent(), path.file_name()) else {
            return Err(NoPlace::NoFile);
        };
        if !is_in_memory(directory) {
            return Err(NoPlace::OnDisk(directory.into()));
        }
        Ok(Self { directory: directory.to_path_buf(), leaf: leaf.into() })
    }

    /// Returns what the path is a link to.
    pub fn target(&self) -> PathBuf {
        Path::new(DATA).join(&self.leaf)
    }

    /// Puts a value in the place of the copy that is there.
    pub fn put(&self, value: &SecretBytes, mode: u32, owner: Option<(u32, u32)>) -> io::Result<()> {
        self.swap(|file| {
            let mut file =
                OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
            file.write_all(value.expose())?;
            if let Some((uid, gid)) = owner {
                std::os::unix::fs::fchown(&file, Some(uid), Some(gid))?;
            }
            file.set_permissions(Permissions::from_mode(mode))
        })
    }

    /// Takes the copy away, and with the last one everything.
    pub fn remove(&self) -> io::Result<()> {
        self.swap(|_| Ok(()))
    }

    /// Makes a directory with all other copies, has this one written into it, and swaps.
    fn swap(&self, write: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
        // Two changes at once would each lose what the other has made.
        let directory = File::open(&self.directory)?;
        let _lock = Flock::lock(directory, FlockArg::LockExclusive)
            .map_err(|(_, errno)| io::Error::from(errno))?;
        let data = self.directory.join(DATA);
        let old = fs::read_link(&data).ok().map(|old| self.directory.join(old));
        self.clear_except(old.as_deref())?;
        let new = tempfile::Builder::new()
            .prefix(PREFIX)
            .permissions(Permissions::from_mode(0o755))
            .tempdir_in(&self.directory)?;
        for entry in old.as_ref().map(fs::read_dir).transpose()?.into_iter().flatten() {
            let entry = entry?;
            if entry.file_name() != self.leaf {
                fs::hard_link(entry.path(), new.path().join(entry.file_name()))?;
            }
        }
        write(&new.path().join(&self.leaf))?;
        if fs::read_dir(new.path())?.next().is_none() {
            // Nothing is left to be found.
            match fs::remove_file(&data) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        } else {
            let name = new.path().file_name().map(PathBuf::from).unwrap_or_default();
            replace_link(&data, &name)?;
            // It is in use now, and the next change removes it.
            drop(new.keep());
        }
        old.map_or(Ok(()), fs::remove_dir_all)
    }

    /// Removes the directories of changes that did not come to their end. Nobody is at one: the lock is ours.
    fn clear_except(&self, used: Option<&Path>) -> io::Result<()> {
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().as_encoded_bytes();
            if name.starts_with(PREFIX.as_bytes()) && Some(path.as_path()) != used && path.is_dir()
            {
                fs::remove_dir_all(&path)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_change_has_left_is_gone_after_the_next_one() {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let copies = Copies::beside(&dir.path().join("key")).unwrap();
        fs::create_dir(dir.path().join("..secretfs-half")).unwrap();
        File::create(dir.path().join("..secretfs-half/key")).unwrap();
        copies.put(&SecretBytes::copy_from(b"whole").unwrap(), 0o400, None).unwrap();
        assert!(!dir.path().join("..secretfs-half").exists());
        assert_eq!(fs::read(dir.path().join("..data/key")).unwrap(), b"whole");
        copies.remove().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
