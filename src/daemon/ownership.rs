//! Whose the system's store is: the service's user, or root where root serves it by hand.
//!
//! Neither server has the capability to read what is another user's, so the files go to whoever serves
//! next. Whoever calls this holds the store's lock.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::Path;

use super::config::{Config, KeyConfig};
use super::paths::Mode;
use crate::system::{ServiceUser, service_user};

const ROOT: ServiceUser = ServiceUser { uid: 0, gid: 0 };

/// Takes the system's store for a server that root has started.
pub(super) fn claim(config: &Config) {
    if config.mode == Mode::System && nix::unistd::geteuid().is_root() {
        hand_over(config, ROOT);
    }
}

/// Gives store, log and key file to a user. What cannot be given is left for the server to fail on,
/// and say so.
pub(super) fn hand_over(config: &Config, to: ServiceUser) {
    let Some(service) = service_user() else { return };
    let mut paths = vec![config.state_dir.clone()];
    for directory in [&config.state_dir, &config.audit_dir()] {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        paths.extend(entries.map(|entry| entry.path()));
    }
    if let KeyConfig::File(key) = &config.key {
        paths.push(key.clone());
    }
    for path in paths {
        if let Err(error) = give(&path, [ROOT, service], to) {
            tracing::warn!(?path, %error, "not given to the server's user");
        }
    }
}

/// Gives a file or directory of one of `from` to a user. The server may have made what stands there: no
/// link is followed, and a file with a second name, which may be anybody's, stays as it is.
fn give(path: &Path, from: [ServiceUser; 2], to: ServiceUser) -> io::Result<()> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file: File = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    let found = file.metadata()?;
    let is_alone = found.is_dir() || (found.is_file() && found.nlink() == 1);
    let is_theirs = from.iter().any(|user| user.uid == found.uid());
    if is_alone && is_theirs && found.uid() != to.uid {
        fchown(&file, Some(to.uid), Some(to.gid))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_and_a_file_with_a_second_name_are_not_given_away() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let (other, user) =
            (ServiceUser { uid: 1, gid: 1 }, ServiceUser { uid: 65_534, gid: 65_534 });
        let dir = tempfile::tempdir().unwrap();
        let owner = |name: &str| fs::metadata(dir.path().join(name)).unwrap().uid();
        for name in ["own", "linked", "two"] {
            File::create(dir.path().join(name)).unwrap();
        }
        std::os::unix::fs::symlink("linked", dir.path().join("link")).unwrap();
        fs::hard_link(dir.path().join("two"), dir.path().join("second")).unwrap();
        for name in ["own", "link", "two", "second", "absent"] {
            let _refused_or_left = give(&dir.path().join(name), [ROOT, other], user);
        }
        assert_eq!((owner("own"), owner("linked"), owner("two")), (65_534, 0, 0));
    }
}
