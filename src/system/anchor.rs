//! A directory that is held open: what is done through it is done there, wherever its name leads by now.
//!
//! Root puts files into directories that others may write. Whoever can change one on the way to a path could lead
//! root elsewhere between two looks, so no symbolic link is followed on the way, and nobody asks for the way again.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;

const ON_THE_WAY: &str = "a symbolic link is on the way there; name the place that it leads to";

/// A directory that is held open.
#[derive(Debug)]
pub struct Anchor(OwnedFd);

impl Anchor {
    /// Opens a directory by its absolute path. Errors: a symbolic link is on the way.
    ///
    /// Step by step, because a unit with `RestrictSUIDSGID=` has no openat2(2).
    pub fn open(path: &Path) -> io::Result<Self> {
        if !path.is_absolute() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let root = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut here = Self(open("/", root, Mode::empty())?);
        for part in path.components() {
            here = match part {
                Component::RootDir | Component::CurDir => continue,
                Component::Normal(leaf) => here.below(leaf).map_err(|error| {
                    let is_link = |file: File| file.metadata().is_ok_and(|is| is.is_symlink());
                    if here.find(leaf).is_ok_and(is_link) {
                        io::Error::other(ON_THE_WAY)
                    } else {
                        error
                    }
                })?,
                Component::ParentDir | Component::Prefix(_) => {
                    return Err(io::ErrorKind::InvalidInput.into());
                }
            };
        }
        Ok(here)
    }

    /// Opens a directory in this one.
    pub fn below(&self, leaf: &OsStr) -> io::Result<Self> {
        Ok(Self(self.opened(leaf, OFlag::O_DIRECTORY)?))
    }

    /// Finds what is there under a name, a link itself, whatever is mounted on it.
    pub(super) fn find(&self, leaf: &OsStr) -> io::Result<File> {
        self.opened(leaf, OFlag::empty()).map(File::from)
    }

    /// Returns a path to the directory, which this process alone can use, as long as this is open.
    pub fn path(&self) -> PathBuf {
        path_of(self.0.as_fd())
    }

    /// Returns such a path to something in it.
    pub fn at(&self, leaf: impl AsRef<Path>) -> PathBuf {
        self.path().join(leaf)
    }

    /// Returns what stat(2) says of it.
    pub fn metadata(&self) -> io::Result<Metadata> {
        fs::metadata(self.path())
    }

    fn opened(&self, leaf: &OsStr, more: OFlag) -> io::Result<OwnedFd> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | more;
        Ok(openat(&self.0, leaf, flags, Mode::empty())?)
    }
}

impl AsFd for Anchor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Returns a path that leads to an open file, in this process alone.
pub(super) fn path_of(file: BorrowedFd<'_>) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_is_put_in_is_there_though_the_name_leads_elsewhere_by_now() {
        let dir = tempfile::tempdir().unwrap();
        let (here, moved) = (dir.path().join("here"), dir.path().join("moved"));
        fs::create_dir(&here).unwrap();
        let anchor = Anchor::open(&here).unwrap();
        fs::rename(&here, &moved).unwrap();
        symlink("/nonexistent", &here).unwrap();
        fs::create_dir(anchor.at("below")).unwrap();
        assert!(moved.join("below").is_dir());
        anchor.below(OsStr::new("below")).unwrap();
        symlink("below", anchor.at("link")).unwrap();
        assert!(anchor.below(OsStr::new("link")).is_err());
        assert!(anchor.find(OsStr::new("link")).unwrap().metadata().unwrap().is_symlink());
    }

    #[test]
    fn a_link_on_the_way_is_an_error_that_says_so() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("real/below")).unwrap();
        symlink("real", dir.path().join("link")).unwrap();
        Anchor::open(&dir.path().join("real/below")).unwrap();
        let error = Anchor::open(&dir.path().join("link/below")).unwrap_err();
        assert!(error.to_string().contains("a symbolic link is on the way"), "{error}");
        let error = Anchor::open(&dir.path().join("none")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        for path in ["usr", "/usr/../usr"] {
            let error = Anchor::open(Path::new(path)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{path}");
        }
    }
}
