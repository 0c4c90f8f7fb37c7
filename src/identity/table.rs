//! A bounded table of threads that have called, with the process that each belongs to.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

use crate::model::{Process, Uid};
use crate::system::{PidFd, procfs};

/// What was found out about a thread, and how to tell that it is still the same one.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) process: Arc<Process>,
    pub(super) guard: Guard,
    /// When it was verified last, and what that returned.
    verified: Mutex<Option<(Instant, Uid)>>,
}

/// Tells a thread from a later one with the same number.
#[derive(Debug)]
pub(super) enum Guard {
    /// A pidfd of the thread itself, not of its group: the number of a thread that ended may be
    /// given to another process while the group lives on.
    PidFd { fd: PidFd, cgroup: u64 },
    /// For kernels before 6.13: when the thread started, in ticks since the boot.
    StartTicks(u64),
}

impl Entry {
    pub(super) fn new(process: Arc<Process>, guard: Guard) -> Self {
        Self { process, guard, verified: Mutex::default() }
    }

    /// As [`verify`](Self::verify); but that it returned `uid` less than `age` ago is enough.
    ///
    /// A caller waits, so its number is its own. That it was another thread's `age` ago would take
    /// as many new threads meanwhile as there are numbers, for they are given out in turn.
    pub(super) fn verify_lately(&self, age: Duration, uid: Uid, tid: u32) -> Option<Uid> {
        let now = Instant::now();
        let mut verified = self.verified.lock();
        match *verified {
            Some((at, known)) if known == uid && now.duration_since(at) < age => Some(uid),
            Some(_) | None => {
                let found = self.verify(tid);
                *verified = found.map(|uid| (now, uid));
                found
            }
        }
    }

    #[cfg(test)]
    pub(super) fn assume_verified(&self, uid: Uid) {
        *self.verified.lock() = Some((Instant::now(), uid));
    }

    /// Returns the thread's uid for files if it still is the one of this entry, of the same
    /// process and in the same cgroup.
    pub(super) fn verify(&self, tid: u32) -> Option<Uid> {
        match &self.guard {
            Guard::PidFd { fd, cgroup } => {
                let info = fd.info().ok()?;
                let is_same =
                    info.tid == tid && info.pid == self.process.pid && info.cgroup == *cgroup;
                is_same.then_some(info.fsuid)
            }
            Guard::StartTicks(ticks) => {
                let status = procfs::status(tid).ok()?;
                // Read after the uid, so that the uid is known to be that thread's.
                let is_same =
                    procfs::stat(tid).ok()?.start_ticks == *ticks && status.pid == self.process.pid;
                is_same.then_some(status.fsuid)
            }
        }
    }
}

/// Entries by thread id. Of those that were not asked for since the hand passed, the oldest makes
/// room for a new one (the "clock" algorithm), so that a stream of short processes does not drive
/// out the long-lived ones.
#[derive(Debug)]
pub(super) struct Table {
    capacity: usize,
    slots: RwLock<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    by_tid: HashMap<u32, Slot>,
    /// Every key of `by_tid` once.
    hand: VecDeque<u32>,
}

#[derive(Debug)]
struct Slot {
    entry: Arc<Entry>,
    was_used: AtomicBool,
}

impl Table {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self { capacity: capacity.max(1), slots: RwLock::default() }
    }

    pub(super) fn find(&self, tid: u32) -> Option<Arc<Entry>> {
        let slots = self.slots.read();
        let slot = slots.by_tid.get(&tid)?;
        slot.was_used.store(true, Ordering::Relaxed);
        Some(slot.entry.clone())
    }

    pub(super) fn insert(&self, tid: u32, entry: Arc<Entry>) {
        let slot = Slot { entry, was_used: AtomicBool::new(false) };
        let mut slots = self.slots.write();
        let replaced = slots.by_tid.insert(tid, slot);
        if replaced.is_none() {
            slots.hand.push_back(tid);
            slots.make_room(self.capacity);
        }
        // The old pidfd is closed only after the lock is released.
        drop(slots);
        drop(replaced);
    }

    pub(super) fn remove(&self, tid: u32) {
        let mut slots = self.slots.write();
        if slots.by_tid.remove(&tid).is_some() {
            slots.hand.retain(|&other| other != tid);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let slots = self.slots.read();
        assert_eq!(slots.by_tid.len(), slots.hand.len());
        slots.by_tid.len()
    }
}

impl Slots {
    fn make_room(&mut self, capacity: usize) {
        while self.by_tid.len() > capacity {
            let Some(tid) = self.hand.pop_front() else { return };
            let was_used =
                self.by_tid.get(&tid).is_some_and(|s| s.was_used.swap(false, Ordering::Relaxed));
            if was_used {
                self.hand.push_back(tid);
            } else {
                self.by_tid.remove(&tid);
            }
        }
    }
}
