//! Waits for secrets to change.
//!
//! The kernel tells of changes through inotify; what it cannot watch for this caller (with hidden names,
//! directories) is found by asking for versions from time to time. An event says only that it is worth
//! asking: which versions are current decides.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::client::Client;
use super::error::{Failure, Kind};
use super::snapshot::{Versions, versions};
use crate::model::SecretName;

/// How long after an event further ones are waited for, so that a set that changes is one change.
pub(crate) const CALM: Duration = Duration::from_millis(100);

/// The longest that changes in a row are taken together.
pub(crate) const AT_MOST: Duration = Duration::from_secs(1);

/// How often versions are asked for without an event.
pub(crate) const TICK: Duration = Duration::from_secs(5);

/// Watches on secrets and the directories that hold them.
#[derive(Debug)]
pub(crate) struct Changes(Inotify);

impl Changes {
    pub(crate) fn new() -> Result<Self, Failure> {
        Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)
            .map(Self)
            .map_err(|errno| Failure::new(Kind::Injection, "--watch", errno.to_string()))
    }

    /// Watches secrets from now on. To be called again after each event: a secret that was replaced by
    /// another file has lost its watch.
    pub(crate) fn watch(&self, client: &Client, names: &BTreeSet<SecretName>) {
        let of_file = AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_DELETE_SELF;
        let of_directory = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_DELETE;
        for name in names {
            let parent = name.parent();
            let directory = parent.as_ref().map_or("", SecretName::as_str);
            // What cannot be watched is asked for.
            let _ = self.0.add_watch(&client.path(name.as_str()), of_file);
            let _ = self.0.add_watch(&client.path(directory), of_directory);
        }
    }

    /// Waits until versions are others than those that are known, and for the end of a row of changes.
    /// Returns which they are then. Nothing of the mount is held meanwhile, or it could not be
    /// unmounted; while there is none, nothing has changed.
    pub(crate) fn until(
        &self,
        mountpoint: &Path,
        names: &BTreeSet<SecretName>,
        known: &Versions,
    ) -> Result<Versions, Failure> {
        let mut look_at = Instant::now();
        let mut since = None;
        loop {
            let left = look_at.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(self.as_fd(), PollFlags::POLLIN)];
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut fds, timeout) {
                Ok(0) => {
                    if let Ok(client) = Client::find(Some(mountpoint), None) {
                        self.watch(&client, names);
                        let current = versions(&client, names);
                        if current != *known {
                            return Ok(current);
                        }
                    }
                    look_at = Instant::now() + TICK;
                    since = None;
                }
                Ok(_) => {
                    self.take();
                    let now = Instant::now();
                    look_at = (now + CALM).min(*since.get_or_insert(now) + AT_MOST);
                }
                Err(Errno::EINTR) => {}
                Err(errno) => {
                    return Err(Failure::new(Kind::Injection, "--watch", errno.to_string()));
                }
            }
        }
    }

    /// Takes the events that are there.
    pub(crate) fn take(&self) {
        while self.0.read_events().is_ok_and(|events| !events.is_empty()) {}
    }
}

impl AsFd for Changes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
