//! The tree's own end and well-being: draining before a successor takes over, and the pulse that a
//! watchdog feels.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::Tree;
use crate::fs::handle::Content;
use crate::fs::journal::InHand;
use crate::fs::workers::MAX_THREADS;

/// How much is still answered.
#[derive(Debug, Default)]
pub(super) struct Gate(AtomicU8);

const OPEN: u8 = 0;
/// What would begin to hold bytes in memory is not answered.
const DRAINING: u8 = 1;
/// Nothing is.
const SHUT: u8 = 2;

/// How often a draining tree is looked at.
const LOOK: Duration = Duration::from_millis(1);

impl Tree {
    /// Answers no more, so that a successor is asked instead: first nothing that would begin to
    /// hold bytes, until what is held is published or `at_most` has passed, and then nothing. When
    /// this returns, nothing is in hand.
    pub(crate) fn drain(&self, at_most: Duration) {
        let deadline = Instant::now() + at_most;
        self.gate.0.store(DRAINING, Ordering::SeqCst);
        let before = self.work.in_hand();
        wait_until(deadline, || {
            let now = self.work.in_hand();
            // A write that began before the gate was closed counts as held.
            !before.iter().any(|one| now.contains(one)) && !self.holds_bytes()
        });
        self.gate.0.store(SHUT, Ordering::SeqCst);
        let emptied = wait_until(deadline + at_most, || self.work.noted().is_empty());
        if !emptied || self.holds_bytes() {
            tracing::warn!("bytes that were not published are lost");
        }
    }

    /// Tells whether a request is left to the next server.
    pub(in crate::fs) fn is_shut(&self) -> bool {
        self.gate.0.load(Ordering::SeqCst) == SHUT
    }

    /// Tells whether a write that would be the first of its handle is left to the next server.
    pub(in crate::fs) fn is_draining(&self) -> bool {
        self.gate.0.load(Ordering::SeqCst) != OPEN
    }

    fn holds_bytes(&self) -> bool {
        let mut held = !self.scratch.is_empty();
        self.handles.for_each(|handle| {
            if let Content::Writer(writer) = &handle.content {
                held |= writer.has_news();
            }
        });
        held
    }

    /// Returns what tells whether requests go on, for a watchdog with so much patience.
    pub(crate) fn pulse(self: &Arc<Self>, patience: Duration) -> Pulse {
        Pulse { tree: Arc::clone(self), patience, seen: HashMap::new() }
    }
}

fn wait_until(deadline: Instant, mut holds: impl FnMut() -> bool) -> bool {
    while !holds() {
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(LOOK);
    }
    true
}

/// Feels whether requests go on.
#[derive(Debug)]
pub(crate) struct Pulse {
    tree: Arc<Tree>,
    patience: Duration,
    /// Since when each request is known to be in hand.
    seen: HashMap<InHand, Instant>,
}

impl Pulse {
    /// Tells whether no FUSE thread, and not every worker, has had one request in hand for too
    /// long. Single workers may: a long command ends its caller's wait by its deadline, and is no
    /// reason to end the server.
    pub(crate) fn is_well(&mut self) -> bool {
        let now = Instant::now();
        let in_hand = self.tree.work.in_hand();
        self.seen.retain(|one, _| in_hand.contains(one));
        let (mut threads, mut workers) = (0, 0);
        for one in in_hand {
            let since = *self.seen.entry(one).or_insert(now);
            if now.duration_since(since) >= self.patience {
                if one.by_worker { workers += 1 } else { threads += 1 }
            }
        }
        threads == 0 && workers < MAX_THREADS
    }
}
