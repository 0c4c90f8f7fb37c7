//! Touches of what the daemon has changed, one after the other, by the observer.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use parking_lot::Mutex;

use crate::fs::{Touch, Touched};
use crate::identity::Observer;
use crate::model::Uid;

/// The queue in front of a thread that waits for each touch: the observer is never given more than
/// one, so a stuck mount does not fill it up.
pub(super) struct Toucher {
    observer: Arc<Observer>,
    queue: Sender<Touched>,
    /// Whose file is being touched.
    whose: Arc<Mutex<Option<Uid>>>,
}

impl Toucher {
    /// Starts the thread, which ends with the toucher.
    pub(super) fn start(observer: Arc<Observer>, mountpoint: PathBuf) -> io::Result<Self> {
        let (queue, files) = channel();
        let (toucher, whose) = (Arc::clone(&observer), Arc::default());
        let now = Arc::clone(&whose);
        thread::Builder::new()
            .name("touches".into())
            .stack_size(256 << 10)
            .spawn(move || touch_all(&files, &toucher, &mountpoint, &now))?;
        Ok(Self { observer, queue, whose })
    }
}

fn touch_all(
    files: &Receiver<Touched>,
    observer: &Observer,
    mountpoint: &Path,
    whose: &Mutex<Option<Uid>>,
) {
    for Touched { path, uid } in files {
        *whose.lock() = uid;
        match observer.touch(&mountpoint.join(&path)) {
            Ok(()) => {}
            // Removed or renamed meanwhile, which watchers are told of by the kernel.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(path, %error, "watchers were not told of a change"),
        }
    }
}

impl Touch for Toucher {
    fn touch(&self, file: Touched) {
        // The other end is gone only with the mount, and its watchers with it.
        self.queue.send(file).unwrap_or_default();
    }

    fn whose(&self) -> Option<Uid> {
        *self.whose.lock()
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
