//! Copies in a directory, changed by swapping a link: `..data` leads to a directory that holds them all,
//! and each change makes a new one.
//!
//! So a reader finds a file whole, the old one or the new one, and never none. The other copies are
//! carried over as further links to the same files. What a change leaves that was killed, the next one removes.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::replace_link;
use crate::system::atomic_file::is_in_memory;
use crate::system::{Anchor, SecretBytes};

/// What all copies are found through.
const DATA: &str = "..data";
/// With what the names of the directories behind it begin.
const PREFIX: &str = "..secretfs-";
/// What a change holds a lock on.
const LOCK: &str = "..secretfs-lock";
/// How long it waits for that.
const LOCK_TIME: Duration = Duration::from_secs(5);

/// The copies beside one path.
#[derive(Debug)]
pub struct Copies {
    directory: Anchor,
    leaf: PathBuf,
}

/// Why there can be no copy at a path.
#[derive(Debug, thiserror::Error)]
pub enum NoPlace {
    #[error("{0}")]
    Directory(#[source] io::Error),
    #[error("this is no file")]
    NoFile,
    #[error("a copy in {0} would reach a disk")]
    OnDisk(PathBuf),
}

impl Copies {
    /// Returns the place for a copy that is to be found at `path`. Errors: a symbolic link is on the way.
    pub fn beside(path: &Path) -> Result<Self, NoPlace> {
        let (Some(parent), Some(leaf)) = (path.parent(), path.file_name()) else {
            return Err(NoPlace::NoFile);
        };
        let directory = Anchor::open(parent).map_err(NoPlace::Directory)?;
        if !is_in_memory(&directory.path()) {
            return Err(NoPlace::OnDisk(parent.into()));
        }
        Ok(Self { directory, leaf: leaf.into() })
    }

    /// Returns what the path is a link to.
    pub fn target(&self) -> PathBuf {
        Path::new(DATA).join(&self.leaf)
    }

    /// Returns the path as this process can use it, whatever becomes of its directory.
    pub fn path(&self) -> PathBuf {
        self.directory.at(&self.leaf)
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

    /// Waits until nobody else changes the copies here. The lock is on a file of ours, which nobody else can open:
    /// whoever may read the directory could keep a lock on that for ever.
    fn lock(&self) -> io::Result<Flock<File>> {
        let end = Instant::now() + LOCK_TIME;
        let path = self.directory.at(LOCK);
        loop {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(false).mode(0o600);
            let file = options.custom_flags(libc::O_NOFOLLOW).open(&path)?;
            if file.metadata()?.uid() != nix::unistd::geteuid().as_raw() {
                return Err(io::Error::other("the lock beside it was not put there by us"));
            }
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                // Whoever took the last copy away took it with the lock on it.
                Ok(lock) if is_at(&lock, &path)? => return Ok(lock),
                Ok(_) => {}
                Err((_, Errno::EWOULDBLOCK)) if Instant::now() < end => {
                    thread::sleep(Duration::from_millis(10));
                }
                Err((_, errno)) => return Err(errno.into()),
            }
        }
    }

    /// Makes a directory with all other copies, has this one written into it, and swaps.
    fn swap(&self, write: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
        // Two changes at once would each lose what the other has made.
        let _lock = self.lock()?;
        let old = self.current()?;
        self.clear_except(old.as_ref().map(|(name, _)| name.as_path()))?;
        let made = tempfile::Builder::new()
            .prefix(PREFIX)
            .permissions(Permissions::from_mode(0o755))
            .tempdir_in(self.directory.path())?;
        let name = made.path().file_name().map(PathBuf::from).unwrap_or_default();
        let new = self.own(&name)?.ok_or(io::ErrorKind::NotFound)?;
        if let Some((_, old)) = &old {
            for entry in fs::read_dir(old.path())? {
                let leaf = entry?.file_name();
                if leaf != self.leaf {
                    fs::hard_link(old.at(&leaf), new.at(&leaf))?;
                }
            }
        }
        write(&new.at(&self.leaf))?;
        let data = self.directory.at(DATA);
        let is_last = fs::read_dir(new.path())?.next().is_none();
        if is_last {
            // Nothing is left to be found.
            match fs::remove_file(&data) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        } else {
            replace_link(&data, &name)?;
            // It is in use now, and the next change removes it.
            drop(made.keep());
        }
        if let Some((name, _)) = old {
            fs::remove_dir_all(self.directory.at(name))?;
        }
        if is_last { fs::remove_file(self.directory.at(LOCK)) } else { Ok(()) }
    }

    /// Returns what `..data` leads to. Errors: it is somebody else's; such a directory may be anywhere.
    fn current(&self) -> io::Result<Option<(PathBuf, Anchor)>> {
        let foreign = || io::Error::other("..data beside it was not put there by us");
        let name = match fs::read_link(self.directory.at(DATA)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Err(foreign()),
            name => name?,
        };
        let is_own = name.file_name() == Some(name.as_os_str())
            && name.as_os_str().as_encoded_bytes().starts_with(PREFIX.as_bytes());
        if !is_own {
            return Err(foreign());
        }
        Ok(self.own(&name)?.map(|directory| (name, directory)))
    }

    /// Opens a directory of ours, if it is there.
    fn own(&self, name: &Path) -> io::Result<Option<Anchor>> {
        let directory = match self.directory.below(name.as_os_str()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            directory => directory?,
        };
        if directory.metadata()?.uid() != nix::unistd::geteuid().as_raw() {
            return Err(io::Error::other("the directory behind ..data was not made by us"));
        }
        Ok(Some(directory))
    }

    /// Removes the directories of changes that did not come to their end. Nobody is at one: the lock is ours.
    fn clear_except(&self, used: Option<&Path>) -> io::Result<()> {
        for entry in fs::read_dir(self.directory.path())? {
            let entry = entry?;
            let name = entry.file_name();
            let is_made = name.as_encoded_bytes().starts_with(PREFIX.as_bytes());
            if is_made && Some(Path::new(&name)) != used && entry.file_type()?.is_dir() {
                fs::remove_dir_all(self.directory.at(&name))?;
            }
        }
        Ok(())
    }
}

/// Tells whether an open file is the one at a path.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let is_same = |there: fs::Metadata, here: fs::Metadata| {
        (there.dev(), there.ino()) == (here.dev(), here.ino())
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        there => Ok(is_same(there?, file.metadata()?)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

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

    #[test]
    fn a_link_that_leads_elsewhere_makes_nobody_write_or_remove_there() {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let victim = tempfile::tempdir_in("/dev/shm").unwrap();
        fs::create_dir(victim.path().join("..secretfs-x")).unwrap();
        File::create(victim.path().join("..secretfs-x/theirs")).unwrap();
        let copies = Copies::beside(&dir.path().join("key")).unwrap();
        let value = SecretBytes::copy_from(b"value").unwrap();
        let data = dir.path().join(DATA);
        for target in [victim.path().join("..secretfs-x").as_path(), Path::new(".."), dir.path()] {
            symlink(target, &data).unwrap();
            assert!(copies.put(&value, 0o400, None).is_err() && copies.remove().is_err());
            fs::remove_file(&data).unwrap();
        }
        symlink(victim.path().join("..secretfs-x"), dir.path().join("..secretfs-y")).unwrap();
        symlink("..secretfs-y", &data).unwrap();
        assert!(copies.put(&value, 0o400, None).is_err());
        assert!(victim.path().join("..secretfs-x/theirs").exists());
    }
}
