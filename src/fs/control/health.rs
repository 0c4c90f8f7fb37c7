//! `.control/health`: one word, and a poll(2) that wakes when it changes.
//!
//! The daemon is asked rather than told: a thread looks at the word while somebody polls.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;

use super::{Health, Host, Waker};

/// How often the word is looked at while somebody polls for it.
const PERIOD: Duration = Duration::from_millis(200);

/// Those who poll.
pub(in crate::fs) struct HealthWatch {
    host: Arc<dyn Host>,
    waiting: Mutex<Waiting>,
    next_reader: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    /// By reader: the word that it has seen.
    wakers: HashMap<u64, (Health, Waker)>,
    running: bool,
}

/// One handle on the file.
pub(in crate::fs) struct HealthReader {
    watch: Arc<HealthWatch>,
    number: u64,
    seen: Mutex<Option<Health>>,
}

impl HealthWatch {
    /// Returns a watch with no one waiting.
    pub(in crate::fs) fn new(host: Arc<dyn Host>) -> Arc<Self> {
        Arc::new(Self { host, waiting: Mutex::default(), next_reader: AtomicU64::new(0) })
    }

    /// Opens the file.
    pub(in crate::fs) fn open(self: &Arc<Self>) -> HealthReader {
        let number = self.next_reader.fetch_add(1, Ordering::Relaxed);
        HealthReader { watch: self.clone(), number, seen: Mutex::new(None) }
    }

    /// Wakes those who have seen another word. Returns whether anybody still waits.
    fn look(&self) -> bool {
        let now = self.host.health();
        let mut waiting = self.waiting.lock();
        let changed: Vec<_> = waiting.wakers.extract_if(|_, (seen, _)| *seen != now).collect();
        let more = !waiting.wakers.is_empty();
        waiting.running = more;
        drop(waiting);
        changed.into_iter().for_each(|(_, (_, wake))| wake());
        more
    }

    fn wait(self: &Arc<Self>, number: u64, seen: Health, waker: Waker) {
        let mut waiting = self.waiting.lock();
        waiting.wakers.insert(number, (seen, waker));
        if !std::mem::replace(&mut waiting.running, true) {
            let watch = self.clone();
            let started = thread::Builder::new().name("health".into()).stack_size(256 << 10).spawn(
                move || {
                    thread::sleep(PERIOD);
                    while watch.look() {
                        thread::sleep(PERIOD);
                    }
                },
            );
            waiting.running = started.is_ok();
        }
    }
}

impl HealthReader {
    /// Reads at most `len` bytes from `offset`; from the start, the word as it is now.
    pub(in crate::fs) fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut seen = self.seen.lock();
        let health = match *seen {
            Some(health) if offset > 0 => health,
            _ => *seen.insert(self.watch.host.health()),
        };
        let skip = usize::try_from(offset).unwrap_or(usize::MAX);
        format!("{}\n", health.as_str()).bytes().skip(skip).take(len).collect()
    }

    /// Tells whether the word differs from the one that was read; if it does not, keeps `waker`.
    pub(in crate::fs) fn poll(&self, waker: Option<Waker>) -> bool {
        let Some(seen) = *self.seen.lock() else { return true };
        if self.watch.host.health() != seen {
            return true;
        }
        if let Some(waker) = waker {
            self.watch.wait(self.number, seen, waker);
        }
        false
    }
}

impl Drop for HealthReader {
    fn drop(&mut self) {
        self.watch.waiting.lock().wakers.remove(&self.number);
    }
}

impl std::fmt::Debug for HealthWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HealthWatch").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for HealthReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HealthReader").field("number", &self.number).finish_non_exhaustive()
    }
}
