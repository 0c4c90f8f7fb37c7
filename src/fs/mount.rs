//! Joins a tree to a mountpoint.

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use fuser::{BackgroundSession, Config, INodeNo, MountOption, Notifier, Session, SessionACL};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, umount2};
use nix::unistd::{Gid, Uid};

use super::fuse::Fuse;
use super::{Identify, Owners, Tree};

/// How to mount.
#[derive(Clone, Debug)]
pub struct Options {
    pub mountpoint: PathBuf,
    /// Threads that take requests; at least one.
    pub threads: usize,
    /// How long a caller waits for anything that may block; then ETIMEDOUT.
    pub deadline: Duration,
}

/// A mounted tree. When dropped it is unmounted.
pub struct Mount {
    session: Option<BackgroundSession>,
    mountpoint: PathBuf,
}

/// Mounts a tree and serves it from threads of its own. Other users may enter wherever the kernel
/// lets them, so that the policy decides and records a refusal.
pub fn mount(tree: Arc<Tree>, identify: Arc<dyn Identify>, options: &Options) -> io::Result<Mount> {
    let mountpoint = options.mountpoint.canonicalize()?;
    let everybody = may_allow_other(Uid::effective(), Path::new("/etc/fuse.conf"));
    let mut config = Config::default();
    config.acl = if everybody { SessionACL::All } else { SessionACL::Owner };
    config.n_threads = Some(options.threads.max(1));
    // A request that was read through a cloned descriptor could not be taken over.
    config.clone_fd = false;
    let stale_pages = tree.stale_pages();
    let owners = tree.owners();
    let fuse = Fuse::new(tree, identify, options.deadline);
    let session = start(fuse, &mountpoint, config, owners)?;
    let notifier = session.notifier();
    if let Some(inodes) = stale_pages {
        thread::Builder::new()
            .name("pages".into())
            .stack_size(128 << 10)
            .spawn(move || inodes.into_iter().for_each(|inode| drop_pages(&notifier, inode)))?;
    }
    Ok(Mount { session: Some(session.spawn()?), mountpoint })
}

/// Mounts and shakes hands with the kernel. Root mounts by itself, because fuser's own call leaves
/// the subtype out, by which `findmnt -t fuse.secretfs` and `updatedb` know us; an ordinary user
/// needs the setuid helper, which sets it.
fn start(
    fuse: Fuse,
    mountpoint: &Path,
    mut config: Config,
    owners: Owners,
) -> io::Result<Session<Fuse>> {
    let checked = owners != Owners::Caller;
    if !Uid::effective().is_root() {
        config.mount_options = vec![
            MountOption::FSName("secretfs".into()),
            MountOption::Subtype("secretfs".into()),
            MountOption::NoSuid,
            MountOption::NoDev,
            MountOption::NoExec,
        ];
        config.mount_options.extend(checked.then_some(MountOption::DefaultPermissions));
        return Session::new(fuse, mountpoint, &config);
    }
    let device = fs::File::options().read(true).write(true).open("/dev/fuse")?;
    let (fd, uid, gid) = (device.as_raw_fd(), Uid::current(), Gid::current());
    let checks = if checked { ",default_permissions" } else { "" };
    let data = format!("fd={fd},rootmode=40000,user_id={uid},group_id={gid},allow_other{checks}");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    nix::mount::mount(Some("secretfs"), mountpoint, Some("fuse.secretfs"), flags, Some(&*data))?;
    Session::from_fd(fuse, device.into(), config.acl, config).inspect_err(|_| {
        if let Err(error) = detach(mountpoint) {
            tracing::warn!(%error, "not unmounted");
        }
    })
}

impl Mount {
    /// Waits until the filesystem is unmounted, by whomever.
    pub fn wait(mut self) -> io::Result<()> {
        self.session.take().map_or(Ok(()), BackgroundSession::join)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.session.take().is_some()
            && let Err(error) = detach(&self.mountpoint)
        {
            tracing::warn!(error = %error, "not unmounted");
        }
    }
}

impl fmt::Debug for Mount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mount").field("mountpoint", &self.mountpoint).finish_non_exhaustive()
    }
}

fn drop_pages(notifier: &Notifier, inode: u64) {
    // All of them, and no attributes: those are never kept.
    if let Err(error) = notifier.inval_inode(INodeNo(inode), 0, 0) {
        tracing::warn!(error = %error, "pages were not dropped");
    }
}

/// Takes the mount out of the tree of mounts, even while files on it are open.
fn detach(mountpoint: &Path) -> io::Result<()> {
    match umount2(mountpoint, MntFlags::MNT_DETACH) {
        // Not a mountpoint any more: somebody was faster.
        Ok(()) | Err(Errno::EINVAL) => Ok(()),
        Err(Errno::EPERM) => detach_by_helper(mountpoint),
        Err(error) => Err(error.into()),
    }
}

/// Asks the setuid helper, as an ordinary user has to.
fn detach_by_helper(mountpoint: &Path) -> io::Result<()> {
    let status = Command::new("fusermount3")
        .args(["-u", "-q", "-z", "--"])
        .arg(mountpoint)
        .stdin(Stdio::null())
        .status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("fusermount3: {status}"))) }
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
