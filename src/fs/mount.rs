//! Joins a tree to a mountpoint.

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use fuser::{BackgroundSession, Config, INodeNo, Notifier, PollHandle, SessionACL};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::mount::MsFlags;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::{Gid, Uid};

use super::fuse::Fuse;
use super::takeover::attach;
use super::tree::Adopted;
use super::{Death, Identify, Owners, Tree};
use crate::system::{map_large_allocations, receive_descriptors};

/// How to serve a mount.
#[derive(Clone, Debug)]
pub struct Options {
    /// Threads that take requests; at least one.
    pub threads: usize,
    /// How long a caller waits for anything that may block; then ETIMEDOUT.
    pub deadline: Duration,
    /// How the server before this one ended, if there was one.
    pub predecessor: Option<Death>,
}

/// A served mount. It is not unmounted when this is dropped: another server may take it over.
pub struct Mount {
    session: BackgroundSession,
}

/// Mounts, and returns the device by which the mount is served: until its last duplicate is closed,
/// the mount lives. Other users may enter wherever the kernel lets them, so that the policy decides
/// and records a refusal.
///
/// Root mounts by itself; an ordinary user needs the setuid helper. Where owners are fixed, the
/// kernel checks permissions before the policy is asked.
pub fn open_device(mountpoint: &Path, owners: Owners) -> io::Result<OwnedFd> {
    let mountpoint = mountpoint.canonicalize()?;
    let checks = if owners == Owners::Caller { "" } else { ",default_permissions" };
    if !Uid::effective().is_root() {
        return open_by_helper(&mountpoint, checks);
    }
    let device = fs::File::options().read(true).write(true).open("/dev/fuse")?;
    let (fd, uid, gid) = (device.as_raw_fd(), Uid::current(), Gid::current());
    let data = format!("fd={fd},rootmode=40000,user_id={uid},group_id={gid},allow_other{checks}");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    nix::mount::mount(Some("secretfs"), &mountpoint, Some("fuse.secretfs"), flags, Some(&*data))?;
    Ok(device.into())
}

/// Has `fusermount3` mount; it sends the device over a socket whose number it finds in its environment.
fn open_by_helper(mountpoint: &Path, checks: &str) -> io::Result<OwnedFd> {
    let kind = (AddressFamily::Unix, SockType::Stream);
    let (ours, theirs) = socketpair(kind.0, kind.1, None, SockFlag::empty())?;
    fcntl(&ours, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    let mut options = format!("fsname=secretfs,subtype=secretfs,nosuid,nodev,noexec{checks}");
    if may_allow_other(Uid::effective(), Path::new("/etc/fuse.conf")) {
        options.push_str(",allow_other");
    }
    let output = Command::new("fusermount3")
        .args(["-o", &options, "--"])
        .arg(mountpoint)
        .env("_FUSE_COMMFD", theirs.as_raw_fd().to_string())
        .stdin(Stdio::null())
        .output()?;
    drop(theirs);
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(said.trim().to_owned()));
    }
    let device = receive_descriptors(&ours)?.into_iter().next();
    device.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Serves a mount from threads of its own, as its first server or as the next one.
pub fn serve(
    tree: Arc<Tree>,
    identify: Arc<dyn Identify>,
    options: &Options,
    device: &OwnedFd,
) -> io::Result<Mount> {
    let mut config = Config::default();
    // Who may enter is the mount's option, which the kernel looks at first.
    config.acl = SessionACL::All;
    config.n_threads = Some(options.threads.max(1));
    // A request that was read through a cloned descriptor could not be taken over.
    config.clone_fd = false;
    let stale_pages = tree.stale_pages();
    let adopted = match options.predecessor {
        Some(death) => tree.adopt(death, &*identify),
        None => Adopted::default(),
    };
    tree.work().expect_threads(options.threads.max(1));
    let journal = tree.journal().clone();
    let fuse = Fuse::new(tree, identify, options.deadline, device.try_clone()?);
    map_large_allocations()?;
    let session = attach(fuse, device, config, &journal, &adopted.requests)?;
    let notifier = session.notifier();
    if let Some(inodes) = stale_pages {
        thread::Builder::new()
            .name("pages".into())
            .stack_size(128 << 10)
            .spawn(move || inodes.into_iter().for_each(|inode| drop_pages(&notifier, inode)))?;
    }
    let waker = session.notifier();
    let session = session.spawn()?;
    for number in adopted.polls {
        // Who has closed the file meanwhile is not known any more.
        if let Err(error) = waker.poll(PollHandle(number)) {
            tracing::debug!(%error, "nobody was woken");
        }
    }
    Ok(Mount { session })
}

impl Mount {
    /// Waits until the filesystem is unmounted, by whomever.
    pub fn wait(self) -> io::Result<()> {
        self.session.join()
    }
}

impl fmt::Debug for Mount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mount").finish_non_exhaustive()
    }
}

fn drop_pages(notifier: &Notifier, inode: u64) {
    // All of them, and no attributes: those are never kept.
    if let Err(error) = notifier.inval_inode(INodeNo(inode), 0, 0) {
        tracing::warn!(error = %error, "pages were not dropped");
    }
}

/// Tells whether the kernel takes `allow_other` from this user.
fn may_allow_other(user: Uid, configuration: &Path) -> bool {
    let allowed = |text: String| text.lines().any(|line| line.trim() == "user_allow_other");
    user.is_root() || fs::read_to_string(configuration).is_ok_and(allowed)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn an_ordinary_user_lets_others_in_only_where_the_configuration_says_so() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let user = Uid::from_raw(1000);
        writeln!(file, "# user_allow_other\nmount_max = 10").unwrap();
        assert!(!may_allow_other(user, file.path()));
        writeln!(file, "user_allow_other").unwrap();
        assert!(may_allow_other(user, file.path()));
        assert!(may_allow_other(Uid::from_raw(0), Path::new("/nonexistent")));
    }
}
