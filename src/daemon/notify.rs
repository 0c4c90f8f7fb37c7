//! What systemd is told and what it keeps for us (sd_notify(3)). Without `$NOTIFY_SOCKET` nothing
//! happens.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

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

/// Has systemd keep what the next process of the service needs. It drops the device by itself when
/// the mount is gone.
pub(super) fn keep_descriptors(device: &OwnedFd, journal: &Journal, key: &KeyCell) {
    let all = [
        (DEVICE, device.as_fd()),
        (JOURNAL, journal.memory().as_fd()),
        (KEY, key.memory().as_fd()),
    ];
    for (name, descriptor) in all {
        // Memory has no end that could hang up, so systemd need not watch it.
        let states = [NotifyState::FdStore, NotifyState::FdName(name)];
        if let Err(error) = sd_notify::notify_with_fds(&states, &[descriptor]) {
            tracing::warn!(%error, name, "the service manager does not keep it");
        }
    }
}

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
