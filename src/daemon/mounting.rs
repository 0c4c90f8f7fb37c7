//! Making a mount and taking it away, apart from serving it.

use std::os::fd::OwnedFd;
use std::path::Path;

use super::config::Config;
use super::{DaemonError, compose};
use crate::fs;
use crate::system::binds::unbind_all;
use crate::system::{Mount, Mountpoint, Unmount, is_stale, mounts, topmost, unmount};

/// The subtype by which our mounts are known.
pub const FS_TYPE: &str = "fuse.secretfs";

/// A mount that this process has made.
#[derive(Debug)]
pub(super) struct Mounting {
    covered: Mountpoint,
}

impl Mounting {
    /// Mounts. Returns the device by which the mount is served. Errors: `Busy` where a live one is.
    pub(super) fn make(config: &Config) -> Result<(Self, OwnedFd), DaemonError> {
        let path = &config.mountpoint;
        make_way(path)?;
        let mounting = Self { covered: Mountpoint::prepare(path)? };
        match fs::open_device(path, compose::owners(config.names)) {
            Ok(device) => Ok((mounting, device)),
            Err(source) => {
                // What would have been covered is closed all the same: whoever writes there believes
                // in a mount.
                mounting.protect();
                Err(DaemonError::Mount { path: path.into(), source })
            }
        }
    }

    /// Closes what the mount covers.
    ///
    /// No look at the mount itself: a thread of this process that waits for this process's own answer
    /// cannot be killed, keeps `/dev/fuse` and the store's lock for ever, and nobody could start again.
    pub(super) fn protect(&self) {
        match self.covered.protect() {
            Ok(immutable) => tracing::debug!(immutable, "the covered directory is closed"),
            Err(error) => tracing::warn!(%error, "the covered directory could not be closed"),
        }
    }

    /// Unmounts; while files are open, takes it out of the tree.
    pub(super) fn take_away(&self) -> Result<(), DaemonError> {
        let taken = take_away(self.covered.path());
        self.protect();
        taken
    }
}

/// Unmounts, with every bind in this namespace: each would keep the session alive, and is of no use without it.
/// While files are open, takes the mount out of the tree.
pub(super) fn take_away(path: &Path) -> Result<(), DaemonError> {
    let table = mounts().unwrap_or_default();
    let device = topmost(&table, path).map(|mount| mount.device);
    let taken = unmount(path, Unmount::IfUnused)
        .or_else(|_| unmount(path, Unmount::Detach))
        .map_err(DaemonError::io(format!("unmounting {}", path.display())));
    device.iter().for_each(|device| take_binds_away(&table, *device));
    taken
}

fn take_binds_away(table: &[Mount], device: (u32, u32)) {
    for (bind, error) in unbind_all(table, device) {
        tracing::warn!(path = ?bind.mountpoint, %error, "a bind of the mount is left");
    }
}

/// Tells whether one of our mounts is what `path` leads to, served or not.
pub(super) fn is_mounted(path: &Path) -> std::io::Result<bool> {
    Ok(topmost(&mounts()?, path).is_some_and(|found| found.fs_type == FS_TYPE))
}

/// Detaches mounts that dead daemons have left; refuses where a live one serves.
fn make_way(path: &Path) -> Result<(), DaemonError> {
    // Each turn takes one stacked mount away; more than a few would be somebody else's game.
    for _ in 0..16 {
        let table = mounts().map_err(DaemonError::io("reading the mount table"))?;
        match topmost(&table, path) {
            Some(found) if found.fs_type == FS_TYPE && is_stale(path) => {
                tracing::warn!(mountpoint = ?path, "detaching the mount of a daemon that died");
                unmount(path, Unmount::Detach)
                    .map_err(DaemonError::io(format!("detaching {}", path.display())))?;
                take_binds_away(&table, found.device);
            }
            Some(found) if found.fs_type == FS_TYPE => return Err(DaemonError::Busy(path.into())),
            Some(_) | None => return Ok(()),
        }
    }
    Err(DaemonError::Busy(path.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_without_a_mount_is_free_and_foreign_mounts_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        assert!(make_way(dir.path()).is_ok());
        assert!(make_way(Path::new("/proc")).is_ok());
    }
}
