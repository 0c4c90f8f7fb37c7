//! Files that decide who may do what: they must be such that only root or the daemon can change them.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Why a file is not believed.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("{path} belongs to uid {owner}, and must belong to root or to the daemon's user")]
    Owner { path: PathBuf, owner: u32 },
    #[error("{path} can be written by others (mode {mode:04o}): take away their write permission")]
    Writable { path: PathBuf, mode: u32 },
    #[error("{path} cannot be read")]
    Unreadable { path: PathBuf, source: io::Error },
}

/// Reads a text file that only root or this process's user can change, by its own mode and by that of
/// the directory it lies in.
pub fn read(path: &Path) -> Result<String, TrustError> {
    let unreadable = |source| TrustError::Unreadable { path: path.into(), source };
    // O_NONBLOCK: a FIFO put there must not hold the daemon up.
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(unreadable)?;
    check(path, &file.metadata().map_err(unreadable)?)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    let opened = File::open(directory).map_err(unreadable)?;
    check(directory, &opened.metadata().map_err(unreadable)?)?;
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(unreadable)?;
    Ok(text)
}

/// Checks that only root or this process's user can change a program, by its own mode and by that of
/// the directory it lies in.
pub fn check_program(path: &Path) -> Result<(), TrustError> {
    let unreadable = |source| TrustError::Unreadable { path: path.into(), source };
    let directory = path.parent().unwrap_or(Path::new("/"));
    for place in [path, directory] {
        check(place, &std::fs::metadata(place).map_err(unreadable)?)?;
    }
    Ok(())
}

fn check(path: &Path, found: &std::fs::Metadata) -> Result<(), TrustError> {
    let owner = found.uid();
    if owner != 0 && owner != nix::unistd::geteuid().as_raw() {
        return Err(TrustError::Owner { path: path.into(), owner });
    }
    let mode = found.mode() & 0o7777;
    // In a sticky directory, as /tmp is one, others cannot replace a file that is not theirs.
    let sticky_directory = found.is_dir() && mode & 0o1000 != 0;
    if mode & 0o022 != 0 && !sticky_directory {
        return Err(TrustError::Writable { path: path.into(), mode });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::PermissionsExt;

    fn file_with_modes(directory: u32, file: u32) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy.toml");
        io::Write::write_all(&mut File::create(&path).unwrap(), b"x").unwrap();
        set_permissions(&path, Permissions::from_mode(file)).unwrap();
        set_permissions(dir.path(), Permissions::from_mode(directory)).unwrap();
        (dir, path)
    }

    #[test]
    fn a_file_that_only_its_owner_can_write_is_read() {
        for (directory, file) in [(0o700, 0o600), (0o755, 0o644), (0o1777, 0o640)] {
            let (_dir, path) = file_with_modes(directory, file);
            assert_eq!(read(&path).unwrap(), "x");
        }
    }

    #[test]
    fn a_file_that_others_can_write_or_replace_is_refused() {
        for (directory, file) in [(0o755, 0o664), (0o755, 0o646), (0o777, 0o600), (0o770, 0o600)] {
            let (_dir, path) = file_with_modes(directory, file);
            assert!(
                matches!(read(&path), Err(TrustError::Writable { .. })),
                "{directory:o}/{file:o}"
            );
        }
    }

    #[test]
    fn a_file_of_another_user_is_refused() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let (_dir, path) = file_with_modes(0o755, 0o600);
        std::os::unix::fs::chown(&path, Some(65_534), None).unwrap();
        assert!(matches!(read(&path), Err(TrustError::Owner { owner: 65_534, .. })));
    }
}
