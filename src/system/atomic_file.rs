//! Writes whole files so that a crash leaves the old content or the new, never a mixture.

use std::fs::{File, Metadata, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::Path;

use tempfile::NamedTempFile;

use super::{RAMFS_MAGIC, TMPFS_MAGIC, filesystem_magic};

/// Puts a file with exactly these permission bits in the place of `path`, durably.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    replace_as(path, bytes, mode, None)
}

/// As [`replace`], with an owner and a group.
pub fn replace_as(
    path: &Path,
    bytes: &[u8],
    mode: u32,
    owner: Option<(u32, u32)>,
) -> io::Result<()> {
    let directory = directory_of(path);
    write_beside(directory, bytes, mode, owner)?.persist(path).map_err(|error| error.error)?;
    sync(directory)
}

/// As [`replace`], with the permission bits and the owner that the file at `path` had.
pub fn replace_keeping(path: &Path, bytes: &[u8], before: &Metadata) -> io::Result<()> {
    let owner = (before.uid(), before.gid());
    replace_as(path, bytes, before.mode() & 0o7777, Some(owner))
}

/// As [`replace`], but fails with `AlreadyExists` if there is something at `path`.
pub fn create_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let directory = directory_of(path);
    write_beside(directory, bytes, mode, None)?
        .persist_noclobber(path)
        .map_err(|error| error.error)?;
    sync(directory)
}

/// Tells whether a directory lies in a filesystem that is memory, where nothing reaches a disk but by swap.
pub fn is_in_memory(directory: &Path) -> bool {
    filesystem_magic(directory).is_ok_and(|magic| [TMPFS_MAGIC, RAMFS_MAGIC].contains(&magic))
}

/// Writes a temporary file, which is removed unless it is given its final name.
fn write_beside(
    directory: &Path,
    bytes: &[u8],
    mode: u32,
    owner: Option<(u32, u32)>,
) -> io::Result<NamedTempFile> {
    // Created with 0600 and given its own mode only when it is complete.
    let mut file =
        tempfile::Builder::new().prefix(".secretfs-").suffix(".tmp").tempfile_in(directory)?;
    file.write_all(bytes)?;
    if let Some((uid, gid)) = owner {
        // Before the mode: a change of owner takes bits away.
        fchown(file.as_file(), Some(uid), Some(gid))?;
    }
    file.as_file().set_permissions(Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    Ok(file)
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// The rename itself is durable only once its directory is (fsync(2)).
fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_file_is_replaced_with_the_mode_asked_for_and_nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        replace(&path, b"old", 0o644).unwrap();
        replace(&path, b"new", 0o400).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o400);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_replaced_file_keeps_its_mode_and_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        replace(&path, b"old", 0o4640).unwrap();
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(1), Some(2)).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o4640)).unwrap();
        }
        let before = fs::metadata(&path).unwrap();
        replace_keeping(&path, b"new", &before).unwrap();
        let after = fs::metadata(&path).unwrap();
        let kept = |metadata: &Metadata| (metadata.mode(), metadata.uid(), metadata.gid());
        assert_eq!(kept(&after), kept(&before));
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn create_new_leaves_what_is_there_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        create_new(&path, b"first", 0o400).unwrap();
        let error = create_new(&path, b"second", 0o400).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failure_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing/state");
        assert!(replace(&missing, b"new", 0o400).is_err());
        // A directory cannot be replaced by a file.
        assert!(replace(dir.path(), b"new", 0o400).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
