//! Copies in a directory, changed by swapping a link: `..data` leads to a directory that holds them all,
//! and each change makes a new one.
//!
//! So a reader finds a file whole, the old one or the new one, and never none. The other copies are
//! carried over as further links to the same files.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use super::{failed, replace_link};
use crate::cli::error::{Failure, Kind};
use crate::system::SecretBytes;
use crate::system::atomic_file::is_in_memory;

/// What all copies are found through.
const DATA: &str = "..data";

/// The copies beside one path.
#[derive(Debug)]
pub(super) struct Data {
    directory: PathBuf,
    leaf: PathBuf,
}

impl Data {
    /// Returns the place for a copy that is to be found at `path`. Errors: a disk.
    pub(super) fn beside(path: &Path) -> Result<Self, Failure> {
        let (Some(directory), Some(leaf)) = (path.parent(), path.file_name()) else {
            return Err(Failure::new(Kind::Config, path.display().to_string(), "this is no file"));
        };
        if !is_in_memory(directory) {
            let shown = directory.display().to_string();
            return Err(Failure::new(Kind::Injection, shown, "a copy there would reach a disk")
                .hint("choose a place on a tmpfs, such as /run, or do without --copy"));
        }
        Ok(Self { directory: directory.to_path_buf(), leaf: leaf.into() })
    }

    /// Returns what the path is a link to.
    pub(super) fn target(&self) -> PathBuf {
        Path::new(DATA).join(&self.leaf)
    }

    /// Puts a value in the place of the copy that is there.
    pub(super) fn put(
        &self,
        value: &SecretBytes,
        mode: u32,
        owner: Option<(u32, u32)>,
    ) -> Result<(), Failure> {
        self.change(|file| {
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
    pub(super) fn remove(&self) -> Result<(), Failure> {
        self.change(|_| Ok(()))
    }

    /// Makes a directory with all other copies, has this one written into it, and swaps.
    fn change(&self, write: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), Failure> {
        self.swap(write).map_err(|err| failed(&self.directory, &err))
    }

    fn swap(&self, write: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
        // Two changes at once would each lose what the other has made.
        let directory = File::open(&self.directory)?;
        let _lock = Flock::lock(directory, FlockArg::LockExclusive)
            .map_err(|(_, errno)| io::Error::from(errno))?;
        let data = self.directory.join(DATA);
        let old = fs::read_link(&data).ok().map(|old| self.directory.join(old));
        let new = tempfile::Builder::new()
            .prefix("..secretfs-")
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
            fs::remove_file(&data)?;
        } else {
            let name = new.path().file_name().map(PathBuf::from).unwrap_or_default();
            replace_link(&data, &name)?;
            // It is in use now, and the next change removes it.
            drop(new.keep());
        }
        old.map_or(Ok(()), fs::remove_dir_all)
    }
}
