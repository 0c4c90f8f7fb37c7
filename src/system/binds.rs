//! Bind mounts of what is on a mount of ours: made, found and taken away.
//!
//! What is mounted on is an empty file or directory, and is made for it with mode 0000, by which it is known and
//! removed afterwards. The way to it is walked once and without symbolic links (see [`Anchor`]): others may be able to
//! write in its directory. Nothing here looks into a bind whose daemon may be dead.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::{OFlag, openat};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};

use super::Anchor;
use super::anchor::path_of;
use super::mounts::{Mount, SECRETS, mounts};

/// Binds what is at `source`, on a mount of ours, to `path`. One that was there before is replaced, unless it is the same.
pub fn bind(source: &Path, path: &Path) -> Result<(), BindError> {
    let link_itself = libc::O_PATH | libc::O_NOFOLLOW;
    let source = fs::OpenOptions::new().read(true).custom_flags(link_itself).open(source);
    let source = source.map_err(BindError::Secret)?;
    let wanted = source.metadata().map_err(BindError::Secret)?;
    let table = mounts().map_err(BindError::Place)?;
    let is_ours = |mount: &Mount| mount.fs_type == SECRETS && mount.is_device(wanted.dev());
    if !table.iter().any(is_ours) {
        return Err(BindError::NotMounted);
    }
    let spot = Spot::of(path).map_err(BindError::Place)?;
    match spot.mounted(&table).map_err(BindError::Place)? {
        Some((there, _)) if !there.is_bind() => return Err(BindError::Occupied),
        Some((there, file)) => {
            let is_ours = there.is_device(wanted.dev());
            if !is_ours && table.iter().any(|mount| mount.is_whole_of(&there)) {
                return Err(BindError::Occupied);
            }
            let is_same =
                |found: &fs::Metadata| (found.dev(), found.ino()) == (wanted.dev(), wanted.ino());
            // One of a daemon that has died cannot be asked.
            if is_ours && file.metadata().is_ok_and(|found| is_same(&found)) {
                return Ok(());
            }
            detach(&file).map_err(BindError::of_mount)?;
        }
        None => {}
    }
    let target = spot.make(wanted.is_dir()).map_err(BindError::Place)?;
    if !is_empty(&target, wanted.is_dir()).map_err(BindError::Place)? {
        return Err(BindError::Occupied);
    }
    let (from, to) = (path_of(source.as_fd()), path_of(target.as_fd()));
    let bound = mount(Some(&from), &to, None::<&str>, MsFlags::MS_BIND, None::<&str>);
    bound.map_err(|errno| {
        // It says why by itself.
        drop(spot.remove());
        BindError::of_mount(errno.into())
    })
}

/// Takes away what [`bind`] has made of a mount, which may be gone, whether its daemon lives or not.
pub fn unbind(path: &Path, mountpoint: &Path) -> io::Result<()> {
    unbind_if(path, |bind, table| !is_of_another(bind, table, mountpoint)).map(drop)
}

/// Takes away what [`bind`] has made there, of whichever mount it is. Returns whether it was there.
pub fn unbind_any(path: &Path) -> io::Result<bool> {
    unbind_if(path, |_, _| true)
}

fn unbind_if(path: &Path, is_wanted: impl Fn(&Mount, &[Mount]) -> bool) -> io::Result<bool> {
    let spot = match Spot::of(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        spot => spot?,
    };
    let mut taken = false;
    // Each turn takes one of those away that are stacked there.
    for _ in 0..16 {
        let table = mounts()?;
        match spot.mounted(&table)? {
            Some((there, file)) if there.is_bind() && is_wanted(&there, &table) => detach(&file)?,
            // What is below may be ours, and stays until that is gone.
            Some(_) => return Ok(taken),
            None => break,
        }
        taken = true;
    }
    spot.remove()?;
    Ok(taken)
}

/// Takes away every bind of a mount. `table` is from before the mount itself was taken away. Returns what could not be.
pub fn unbind_all(table: &[Mount], device: (u32, u32)) -> Vec<(Mount, io::Error)> {
    let binds = table.iter().rev().filter(|mount| mount.is_bind() && mount.device == device);
    let unbound = |bind: &Mount| unbind_if(&bind.mountpoint, |there, _| there.device == device);
    binds.filter_map(|bind| Some((bind.clone(), unbound(bind).err()?))).collect()
}

/// Tells whether a bind is of a mount that is elsewhere. One whose mount is nowhere was left by a daemon of before.
fn is_of_another(bind: &Mount, table: &[Mount], mountpoint: &Path) -> bool {
    let mut whole = table.iter().filter(|mount| mount.is_whole_of(bind)).peekable();
    whole.peek().is_some() && whole.all(|mount| mount.mountpoint != mountpoint)
}

/// Moves the calling thread into another mount namespace, such as `/proc/1/ns/mnt`, for good.
pub fn enter_mounts(namespace: &Path) -> io::Result<()> {
    let there = File::open(namespace)?;
    let id = |about: fs::Metadata| (about.dev(), about.ino());
    if id(there.metadata()?) == id(fs::metadata("/proc/thread-self/ns/mnt")?) {
        return Ok(());
    }
    // Threads that share a root and a directory are in one namespace for ever.
    unshare(CloneFlags::CLONE_FS)?;
    Ok(setns(there, CloneFlags::CLONE_NEWNS)?)
}

/// Why there is no bind.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("mounting failed")]
    Mount(#[source] io::Error),
    #[error("no secretfs is mounted there")]
    NotMounted,
    #[error("only root may mount (EPERM)")]
    NotRoot,
    #[error("what is there was not put there by us, and is not empty")]
    Occupied,
    #[error("the place cannot be mounted on")]
    Place(#[source] io::Error),
    /// The policy applies to root too.
    #[error("the secret cannot be looked up")]
    Secret(#[source] io::Error),
}

impl BindError {
    fn of_mount(error: io::Error) -> Self {
        let is_refused = error.raw_os_error() == Some(libc::EPERM);
        if is_refused { Self::NotRoot } else { Self::Mount(error) }
    }

    /// Returns the message with its cause.
    pub fn text(&self) -> String {
        let cause = std::error::Error::source(self).map(|cause| format!(": {cause}"));
        format!("{self}{}", cause.unwrap_or_default())
    }
}

/// Where something is to be mounted.
struct Spot {
    directory: Anchor,
    leaf: OsString,
}

impl Spot {
    fn of(path: &Path) -> io::Result<Self> {
        let (Some(parent), Some(leaf)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        Ok(Self { directory: Anchor::open(parent)?, leaf: leaf.to_owned() })
    }

    /// Returns the mount that is on it, with its root, if one is.
    fn mounted(&self, table: &[Mount]) -> io::Result<Option<(Mount, File)>> {
        let file = match self.directory.find(self.leaf.as_os_str()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let id = mount_id(&file)?;
        if id == mount_id(&self.directory)? {
            return Ok(None);
        }
        // A table from before it was mounted does not have it.
        let found = table.iter().find(|mount| mount.id == id).ok_or(io::ErrorKind::ResourceBusy)?;
        Ok(Some((found.clone(), file)))
    }

    /// Makes what is mounted on, unless there is something, and opens it.
    fn make(&self, is_directory: bool) -> io::Result<File> {
        let made = if is_directory {
            mkdirat(&self.directory, self.leaf.as_os_str(), Mode::empty())
        } else {
            let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
            openat(&self.directory, self.leaf.as_os_str(), flags, Mode::empty()).map(drop)
        };
        match made {
            Err(nix::Error::EEXIST) | Ok(()) => self.directory.find(self.leaf.as_os_str()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Removes what was made to be mounted on. What is anything else stays.
    fn remove(&self) -> io::Result<()> {
        let about =
            match self.directory.find(self.leaf.as_os_str()).and_then(|file| file.metadata()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                about => about?,
            };
        if about.uid() != geteuid().as_raw() || about.mode() & 0o7777 != 0 {
            return Ok(());
        }
        let removed = match (about.is_dir(), about.is_file() && about.len() == 0) {
            (true, _) => unlinkat(&self.directory, self.leaf.as_os_str(), UnlinkatFlags::RemoveDir),
            (false, true) => {
                unlinkat(&self.directory, self.leaf.as_os_str(), UnlinkatFlags::NoRemoveDir)
            }
            (false, false) => Ok(()),
        };
        Ok(removed?)
    }
}

/// Tells whether something can be mounted on without covering anything.
fn is_empty(target: &File, is_directory: bool) -> io::Result<bool> {
    let about = target.metadata()?;
    if is_directory {
        return Ok(about.is_dir() && fs::read_dir(path_of(target.as_fd()))?.next().is_none());
    }
    Ok(about.is_file() && about.len() == 0)
}

/// Takes the mount with this root out of the tree. It is open here, so it is busy.
fn detach(root: &File) -> io::Result<()> {
    Ok(umount2(&path_of(root.as_fd()), MntFlags::MNT_DETACH)?)
}

/// Returns the id of the mount that an open file is on; proc_pid_fdinfo(5).
fn mount_id(file: &impl AsFd) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_fd().as_raw_fd()))?;
    let id = text.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
    id.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::parse_mountinfo;

    #[test]
    fn a_bind_of_a_mount_elsewhere_is_another_s_and_one_of_none_is_not() {
        let line = |root: &str, at: &str, minor: u32| {
            format!("9 1 0:{minor} {root} {at} rw - fuse.secretfs secretfs rw\n")
        };
        let bind = parse_mountinfo(line("/a", "/run/a", 5).as_bytes()).remove(0);
        let ours = Path::new("/secrets");
        for (whole, of_another) in [
            (vec![], false),
            (vec![("/secrets", 5)], false),
            (vec![("/home/secrets", 5)], true),
            (vec![("/secrets", 6), ("/home/secrets", 5)], true),
            (vec![("/secrets", 5), ("/srv/all", 5)], false),
        ] {
            let text: String = whole.iter().map(|(at, minor)| line("/", at, *minor)).collect();
            let table = parse_mountinfo(text.as_bytes());
            assert_eq!(is_of_another(&bind, &table, ours), of_another, "{whole:?}");
        }
    }
}
