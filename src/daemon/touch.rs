//! Touches of what the daemon has changed, one after the other, by the observer.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use crate::fs::Touch;
use crate::identity::Observer;
use crate::model::SecretName;

/// The queue in front of a thread that waits for each touch: the observer is never given more than
/// one, so a stuck mount does not fill it up.
pub(super) struct Toucher {
    observer: Arc<Observer>,
    queue: Sender<SecretName>,
}

impl Toucher {
    /// Starts the thread, which ends with the toucher.
    pub(super) fn start(observer: Arc<Observer>, mountpoint: PathBuf) -> io::Result<Self> {
        let (queue, names) = channel();
        let toucher = Arc::clone(&observer);
        thread::Builder::new()
            .name("touches".into())
            .stack_size(256 << 10)
            .spawn(move || touch_all(&names, &toucher, &mountpoint))?;
        Ok(Self { observer, queue })
    }
}

fn touch_all(names: &Receiver<SecretName>, observer: &Observer, mountpoint: &Path) {
    for name in names {
        match observer.touch(&mountpoint.join(name.as_str())) {
            Ok(()) => {}
            // Removed or renamed meanwhile, which watchers are told of by the kernel.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(%name, %error, "watchers were not told of a change"),
        }
    }
}

impl Touch for Toucher {
    fn touch(&self, name: &SecretName) {
        // The other end is gone only with the mount, and its watchers with it.
        self.queue.send(name.clone()).unwrap_or_default();
    }

    fn is_toucher(&self, tid: u32) -> bool {
        self.observer.is_toucher(tid)
    }
}

impl std::fmt::Debug for Toucher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Toucher").finish_non_exhaustive()
    }
}
