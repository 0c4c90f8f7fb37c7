//! Touches of what the daemon has changed, one after the other, by the observer.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::fs::{Touch, Touched};
use crate::identity::Observer;
use crate::model::Uid;

/// The queue in front of a thread that waits for each touch: the observer is never given more than
/// one, so a stuck mount does not fill it up.
pub(super) struct Toucher {
    observer: Arc<Observer>,
    queue: Sender<Order>,
    /// Whose file is being touched.
    whose: Arc<Mutex<Option<Uid>>>,
}

/// A file to be touched: since when that may be done, and how often it was tried already.
#[derive(Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Order {
    due: Instant,
    file: Touched,
    tries: u32,
}

/// An observer that has died is there again after a second.
const PAUSE: Duration = Duration::from_secs(1);
const MAX_TRIES: u32 = 5;

impl Toucher {
    /// Starts the thread, which ends with the toucher.
    pub(super) fn start(observer: Arc<Observer>, mountpoint: PathBuf) -> io::Result<Self> {
        let (queue, orders) = channel();
        let (toucher, whose) = (Arc::clone(&observer), Arc::default());
        let now = Arc::clone(&whose);
        thread::Builder::new()
            .name("touches".into())
            .stack_size(256 << 10)
            .spawn(move || touch_all(&orders, &toucher, &mountpoint, &now))?;
        Ok(Self { observer, queue, whose })
    }
}

fn touch_all(
    orders: &Receiver<Order>,
    observer: &Observer,
    mountpoint: &Path,
    whose: &Mutex<Option<Uid>>,
) {
    let mut waiting = BinaryHeap::new();
    while let Some(Order { file, tries, .. }) = next(orders, &mut waiting) {
        *whose.lock() = file.uid;
        match observer.touch(&mountpoint.join(&file.path)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::TimedOut && tries < MAX_TRIES => {
                let due = Instant::now() + PAUSE;
                waiting.push(Reverse(Order { due, file, tries: tries + 1 }));
            }
            // Removed or renamed meanwhile, which watchers are told of by the kernel.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(path = file.path, %error, "watchers were not told of a change")
            }
        }
    }
}

/// Waits for the next file whose time has come, the longest due first. `None`: nobody orders any more.
fn next(orders: &Receiver<Order>, waiting: &mut BinaryHeap<Reverse<Order>>) -> Option<Order> {
    loop {
        waiting.extend(orders.try_iter().map(Reverse));
        let now = Instant::now();
        let due = waiting.peek().map(|Reverse(first)| first.due);
        let ordered = match due {
            Some(due) if due <= now => return waiting.pop().map(|Reverse(first)| first),
            Some(due) => orders.recv_timeout(due - now),
            None => orders.recv().map_err(RecvTimeoutError::from),
        };
        match ordered {
            Ok(order) => waiting.push(Reverse(order)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return None,
        }
    }
}

impl Touch for Toucher {
    fn touch(&self, file: Touched, earliest: Option<Instant>) {
        let due = earliest.unwrap_or_else(Instant::now);
        // The other end is gone only with the mount, and its watchers with it.
        self.queue.send(Order { due, file, tries: 0 }).unwrap_or_default();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_touch_that_has_to_wait_holds_up_no_other_and_is_lost_only_with_the_mount() {
        let (queue, orders) = channel();
        let now = Instant::now();
        let order = |late, name: &str| {
            let file = Touched { path: name.to_owned(), uid: None };
            Order { due: now + Duration::from_millis(late), file, tries: 0 }
        };
        for (late, name) in [(60, "last"), (0, "first"), (30, "second"), (1, "first")] {
            queue.send(order(late, name)).unwrap();
        }
        let mut waiting = BinaryHeap::new();
        let names = ["first", "first", "second", "last"];
        for name in names {
            assert_eq!(next(&orders, &mut waiting).unwrap().file.path, name);
        }
        queue.send(order(600_000, "never")).unwrap();
        drop(queue);
        assert_eq!(next(&orders, &mut waiting), None);
    }
}
