//! What systemd is told and what it keeps for us (sd_notify(3)). Without `$NOTIFY_SOCKET` nothing
//! happens.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sd_notify::NotifyState;

use crate::fs::Journal;
use crate::system::{KeyCell, duplicate_descriptor};

/// The names of the kept descriptors.
const DEVICE: &str = "secretfs-device";
const JOURNAL: &str = "secretfs-journal";
const KEY: &str = "secretfs-key";

/// What an earlier process of the service has left with systemd.
#[derive(Debug)]
pub(super) struct KeptDescriptors {
    pub(super) device: OwnedFd,
    pub(super) journal: OwnedFd,
    pub(super) key: OwnedFd,
}

/// Takes what is kept, if all of it is there. To be called once.
pub(super) fn kept_descriptors() -> Option<KeptDescriptors> {
    let named: Vec<_> = sd_notify::listen_fds_with_names().ok()?.collect();
    let find = |wanted: &str| {
        let (number, _) = named.iter().find(|(_, name)| name == wanted)?;
        // Descriptors that are passed on at a start are not closed on exec by themselves.
        duplicate_descriptor(*number).ok()
    };
    Some(KeptDescriptors { device: find(DEVICE)?, journal: find(JOURNAL)?, key: find(KEY)? })
}

/// Has systemd keep what the processes of the service need, in place of what it has kept so far, and
/// waits until it does. It drops the device by itself when the mount is gone.
pub(super) fn keep_descriptors(
    device: &OwnedFd,
    journal: &Journal,
    key: &KeyCell,
) -> io::Result<()> {
    let all = [
        (DEVICE, device.as_fd()),
        (JOURNAL, journal.memory().as_fd()),
        (KEY, key.memory().as_fd()),
    ];
    for (name, descriptor) in all {
        sd_notify::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)])?;
        let states = [NotifyState::FdStore, NotifyState::FdName(name)];
        sd_notify::notify_with_fds(&states, &[descriptor])?;
    }
    barrier()
}

/// How many descriptors there are when all are kept.
pub(super) const KEPT: u64 = 3;

/// Waits until systemd has taken all that it was sent: of a process that has ended it takes nothing.
fn barrier() -> io::Result<()> {
    let (ours, theirs) = io::pipe()?;
    sd_notify::notify_with_fds(&[NotifyState::Custom("BARRIER=1")], &[theirs.as_fd()])?;
    drop(theirs);
    let mut polled = [PollFd::new(ours.as_fd(), PollFlags::empty())];
    match poll(&mut polled, PollTimeout::from(BARRIER_MILLIS))? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}

const BARRIER_MILLIS: u16 = 5_000;

/// Returns how often systemd wants to hear that we are alive.
pub(super) fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

/// We are alive.
pub(super) fn alive() {
    send(&[NotifyState::Watchdog]);
}

/// The mount serves.
pub(super) fn ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The files are read again. systemd 253 and newer want the time of the signal beside it.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => send(&[NotifyState::Reloading, now]),
        Err(_) => send(&[NotifyState::Reloading]),
    }
}

/// The daemon ends by intent.
pub(super) fn stopping(status: &str) {
    send(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

fn send(states: &[NotifyState<'_>]) {
    // systemd being gone or slow is no reason to stop serving.
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager could not be told");
    }
}
