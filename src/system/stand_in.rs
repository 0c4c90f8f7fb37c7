//! Puts this process in the place of another one: its view of the files, its ids, and no right beyond them.
//!
//! For work that somebody asks for who must not get more by asking than by doing it: the kernel decides about every
//! file, by the very ids. What it cannot decide the same way here is refused beforehand: a caller whose ids are not
//! all one, or who was confined further than by ids (`no_new_privs`, which an unprivileged Landlock needs, or an
//! AppArmor profile).
//!
//! The view is a copy of the caller's, out of which mounts of secrets and the kernel's own files are taken: to read
//! the former would be on record as the caller's doing, and some of the latter tell of the reader and not the caller.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{
    Gid, Uid, chdir, chroot, fchdir, getcwd, getegid, geteuid, getgroups, getppid, setgroups,
    setresgid, setresuid,
};

use super::mounts::{Mount, SECRETS, mounts_of};
use super::privileges::keep_none;
use super::procfs::{self, Credentials};
use super::{PidFd, die_with_parent, harden_process};
use crate::model;

/// Files of these types are the kernel's, and say nothing that a caller has written.
const KERNELS_OWN: [&str; 12] = [
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "fusectl",
    "proc",
    "securityfs",
    "sysfs",
    "tracefs",
];

/// Why nobody can stand in for a process.
#[derive(Debug, thiserror::Error)]
pub enum StandInError {
    /// It is confined in a way that this process would not be.
    #[error("the caller is confined ({0}), which who acts for it would not be")]
    Confined(String),
    #[error("the caller is gone")]
    Gone,
    /// It runs a program with rights of others, or has changed its ids since it asked.
    #[error("the caller's real, effective and saved ids are not all {uid}:{gid}")]
    Mixed { uid: u32, gid: u32 },
    /// Only root can act for others.
    #[error(
        "the caller has another user, groups or view of the files than the daemon, which is not root"
    )]
    Other,
    /// A mount of secrets in its view cannot be taken out.
    #[error("{0} cannot be left out")]
    Secrets(PathBuf),
    #[error("entering the caller's view of the files")]
    System(#[from] io::Error),
}

/// Becomes the thread behind `caller`, which waits for us as `uid` and `gid`, for good. Returns where it stands,
/// if it stands below its root. Call it before there is a second thread, and with nothing open that it must not have.
///
/// This process's parent must be the one that is to end it: it dies with that.
pub fn stand_in_for(
    caller: PidFd,
    uid: model::Uid,
    gid: model::Gid,
) -> Result<Option<PathBuf>, StandInError> {
    let tid = caller.number().map_err(gone)?;
    let credentials = procfs::credentials(tid)?;
    let one = credentials.uids == [uid.0; 4] && credentials.gids == [gid.0; 4];
    if !one {
        return Err(StandInError::Mixed { uid: uid.0, gid: gid.0 });
    }
    if credentials.no_new_privs {
        return Err(StandInError::Confined("no_new_privs".to_owned()));
    }
    if let Some(profile) = procfs::apparmor_profile(tid)? {
        return Err(StandInError::Confined(format!("AppArmor: {profile}")));
    }
    let place = Place::of(tid)?;
    let is_elsewhere = !place.is_ours()?;
    // All of the above was the caller's, if the number still is.
    caller.number().map_err(gone)?;
    let stands = if geteuid().is_root() {
        place.enter(&caller)?
    } else if is_elsewhere || !has_our_rights(&credentials)? {
        return Err(StandInError::Other);
    } else {
        std::fs::read_link(format!("/proc/{tid}/cwd")).ok()
    };
    drop((place, caller));
    let parent = getppid().as_raw().cast_unsigned();
    if geteuid().is_root() {
        assume(&credentials)?;
    }
    keep_none()?;
    // After the change of the ids, which sets both anew.
    harden_process()?;
    die_with_parent(parent)?;
    setrlimit(Resource::RLIMIT_FSIZE, 0, 0).map_err(io::Error::from)?;
    Ok(stands)
}

/// A thread's view of the files.
struct Place {
    tid: u32,
    root: File,
    directory: File,
    namespace: File,
    mounts: Vec<Mount>,
}

impl Place {
    fn of(tid: u32) -> Result<Self, StandInError> {
        let open = |what: &str, flags: i32| {
            let path = format!("/proc/{tid}/{what}");
            OpenOptions::new().read(true).custom_flags(flags).open(path)
        };
        let place = libc::O_PATH | libc::O_DIRECTORY;
        let opened = || -> io::Result<Self> {
            Ok(Self {
                tid,
                root: open("root", place)?,
                directory: open("cwd", place)?,
                namespace: open("ns/mnt", 0)?,
                mounts: mounts_of(tid)?,
            })
        };
        // Without the right to look at the caller there is none to act for it.
        opened().map_err(|error| {
            let is_kept_out = error.kind() == io::ErrorKind::PermissionDenied;
            if is_kept_out { StandInError::Other } else { error.into() }
        })
    }

    /// Tells whether this process sees the same files under the same names.
    fn is_ours(&self) -> io::Result<bool> {
        let same = |file: &File, ours: &str| -> io::Result<bool> {
            let (theirs, ours) = (file.metadata()?, std::fs::metadata(ours)?);
            Ok((theirs.dev(), theirs.ino()) == (ours.dev(), ours.ino()))
        };
        Ok(same(&self.namespace, "/proc/self/ns/mnt")? && same(&self.root, "/")?)
    }

    /// Makes a copy of it this process's own, for which it takes root.
    fn enter(&self, caller: &PidFd) -> Result<Option<PathBuf>, StandInError> {
        let system = |error: nix::Error| StandInError::System(error.into());
        let namespace = CloneFlags::CLONE_NEWNS;
        setns(caller, namespace).map_err(system)?;
        fchdir(&self.root).and_then(|()| chroot(".")).map_err(system)?;
        // One that is out of the root's reach is called `(unreachable)`.
        let stands = fchdir(&self.directory).and_then(|()| getcwd()).ok();
        // From the namespace's own root, so that this can be told where the caller's is in the copy.
        setns(caller, namespace).map_err(system)?;
        fchdir(&self.root).and_then(|()| unshare(namespace)).map_err(system)?;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        let nothing = None::<&str>;
        // Or else what is taken away here would be taken from everybody.
        mount(nothing, "/", nothing, private, nothing).map_err(system)?;
        chroot(".").and_then(|()| chdir("/")).map_err(system)?;
        self.take_away()?;
        Ok(stands.filter(|path| path.is_absolute()))
    }

    fn take_away(&self) -> Result<(), StandInError> {
        let flags = MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW;
        for mount in self.mounts.iter().rev() {
            let is_secret = mount.fs_type == SECRETS;
            if !is_secret && !KERNELS_OWN.contains(&mount.fs_type.as_str()) {
                continue;
            }
            let left = umount2(&mount.mountpoint, flags);
            // Locked together in a namespace of less rights; or gone with the one above it.
            let is_there = left.is_err() && is_at(mount);
            if is_secret && is_there {
                return Err(StandInError::Secrets(mount.mountpoint.clone()));
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Place").field("tid", &self.tid).finish_non_exhaustive()
    }
}

/// Tells whether a mount is still what its mountpoint leads to; what cannot be told counts as there.
fn is_at(mount: &Mount) -> bool {
    let path = mount.mountpoint.as_path();
    let opened =
        OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_NOFOLLOW).open(path);
    match opened.and_then(|file| file.metadata()) {
        Ok(about) => mount.is_device(about.dev()),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// Tells whether somebody has the rights of this process, which cannot change them.
fn has_our_rights(theirs: &Credentials) -> io::Result<bool> {
    let ours: BTreeSet<u32> =
        getgroups()?.into_iter().chain([getegid()]).map(Gid::as_raw).collect();
    let [uid, ..] = theirs.uids;
    let [gid, ..] = theirs.gids;
    let theirs: BTreeSet<u32> = theirs.groups.iter().map(|gid| gid.0).chain([gid]).collect();
    Ok(uid == geteuid().as_raw() && gid == getegid().as_raw() && ours == theirs)
}

fn assume(credentials: &Credentials) -> io::Result<()> {
    let groups: Vec<Gid> = credentials.groups.iter().map(|gid| Gid::from_raw(gid.0)).collect();
    let [uid, ..] = credentials.uids.map(Uid::from_raw);
    let [gid, ..] = credentials.gids.map(Gid::from_raw);
    setgroups(&groups)?;
    setresgid(gid, gid, gid)?;
    Ok(setresuid(uid, uid, uid)?)
}

fn gone(error: io::Error) -> StandInError {
    match error.raw_os_error() {
        Some(libc::ESRCH) => StandInError::Gone,
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::process::{Child, Command, Stdio};

    use super::*;
    use crate::model::{Gid, Uid};

    /// What would become of this process, were it not refused first.
    fn refusal(of: &PidFd, uid: u32, gid: u32) -> StandInError {
        let copy = PidFd::of_descriptor(of.as_fd().try_clone_to_owned().unwrap());
        stand_in_for(copy, Uid(uid), Gid(gid)).unwrap_err()
    }

    fn waiting(command: &mut Command) -> (Child, PidFd) {
        let child = command.stdin(Stdio::piped()).spawn().unwrap();
        let process = PidFd::of_process(child.id()).unwrap();
        (child, process)
    }

    #[test]
    fn nobody_stands_in_for_a_process_that_has_ended() {
        let (mut child, process) = waiting(&mut Command::new("cat"));
        assert_eq!(process.number().unwrap(), child.id());
        drop(child.stdin.take());
        child.wait().unwrap();
        // Its number may be another's by now; the descriptor does not say so.
        let refused = refusal(&process, geteuid().as_raw(), getegid().as_raw());
        assert!(matches!(refused, StandInError::Gone), "{refused:?}");
    }

    #[test]
    fn who_is_not_whom_the_kernel_has_named_is_refused() {
        let (mut child, process) = waiting(&mut Command::new("cat"));
        let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
        for (uid, gid) in [(uid + 1, gid), (uid, gid + 1)] {
            let refused = refusal(&process, uid, gid);
            assert!(matches!(refused, StandInError::Mixed { .. }), "{refused:?}");
        }
        drop(child.stdin.take());
        child.wait().unwrap();
        if !geteuid().is_root() {
            return;
        }
        // A program with the rights of its file's owner.
        let script = "import os; os.setresuid(65534, 0, 0); print(flush=True); os.read(0, 1)";
        let mut command = Command::new("python3");
        let (mut child, process) = waiting(command.args(["-c", script]).stdout(Stdio::piped()));
        io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        let refused = refusal(&process, 0, 0);
        assert!(matches!(refused, StandInError::Mixed { .. }), "{refused:?}");
        drop(child.stdin.take());
        child.wait().unwrap();
    }

    #[test]
    fn who_has_given_up_rights_for_good_is_refused() {
        let mut command = Command::new("setpriv");
        let (mut child, process) = waiting(
            command.args(["--no-new-privs", "sh", "-c", "echo; read x"]).stdout(Stdio::piped()),
        );
        io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        let refused = refusal(&process, geteuid().as_raw(), getegid().as_raw());
        assert!(matches!(refused, StandInError::Confined(_)), "{refused:?}");
        drop(child.stdin.take());
        child.wait().unwrap();
    }

    #[test]
    fn what_is_no_pidfd_names_nobody() {
        let (reader, _writer) = io::pipe().unwrap();
        let none = PidFd::of_descriptor(reader.into());
        assert_eq!(none.number().unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
