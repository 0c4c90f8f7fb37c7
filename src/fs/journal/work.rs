//! Which requests are in hand, so that the next server knows what a dead one may have begun.
//!
//! A slot costs a request two stores. A request is noted before anything is done for it, and struck
//! out after its answer went to the kernel: what is noted when a server dies may have been done,
//! and what is not noted has not.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::{AT_SEQ, WORK};
use crate::system::SharedMap;

/// Requests in hand at one time: the threads', and the workers' with their queue.
const SLOTS: usize = 2048;
const SLOT_BYTES: usize = 32;
// A slot's words.
const NUMBER: usize = 0;
const SEQ: usize = 8;
const STATE: usize = 16;

const QUEUED: u64 = 1;
/// By a thread that takes requests.
const ANSWERING: u64 = 2;
/// By a worker.
const WORKING: u64 = 3;

/// Requests that were in hand when a server died, with how much speaks against each.
const SUSPECTS: usize = 256;
const SUSPECT_BYTES: usize = 16;
const AT_SUSPECTS: usize = WORK + SLOTS * SLOT_BYTES;

/// Size of this part in bytes.
pub(super) const BYTES: usize = SLOTS * SLOT_BYTES + SUSPECTS * SUSPECT_BYTES;

/// The slots.
#[derive(Debug)]
pub(in crate::fs) struct Work {
    shared: Arc<Slots>,
    /// Tells the slots of one journal from another's in a thread's memory.
    serial: u64,
}

#[derive(Debug)]
struct Slots {
    map: Arc<SharedMap>,
    free: Mutex<Vec<usize>>,
}

/// A request that was in hand when a server died.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::fs) struct Interrupted {
    pub(in crate::fs) request: u64,
    /// Lines that it may have written to the audit log come after this one.
    pub(in crate::fs) after: u64,
}

/// A request that is being worked on now.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(in crate::fs) struct InHand {
    slot: usize,
    request: u64,
    pub(in crate::fs) by_worker: bool,
}

/// Strikes the request of this thread out when it is dropped.
#[derive(Debug)]
pub(in crate::fs) struct AtWork<'a> {
    work: &'a Work,
    slot: Option<usize>,
    outer: u64,
}

/// A request that waits for a worker; struck out when dropped.
#[derive(Debug)]
pub(in crate::fs) struct Queued {
    slots: Arc<Slots>,
    slot: Option<usize>,
}

thread_local! {
    /// The slot of this thread, and whose it is.
    static MINE: Cell<Option<(u64, usize)>> = const { Cell::new(None) };
    /// The request that this thread has in hand; 0: none.
    static CURRENT: Cell<u64> = const { Cell::new(0) };
}

impl Work {
    pub(super) fn new(map: Arc<SharedMap>) -> Self {
        static SERIAL: AtomicU64 = AtomicU64::new(1);
        let free = Mutex::new((0..SLOTS).rev().collect());
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        Self { shared: Arc::new(Slots { map, free }), serial }
    }

    /// Notes that this thread begins with a request. A FUSE thread has its slot for as long as it
    /// lives.
    pub(in crate::fs) fn begin(&self, request: u64) -> AtWork<'_> {
        let slot = self.slot_of_this_thread();
        if let Some(slot) = slot {
            self.shared.note(slot, request, ANSWERING);
        }
        AtWork { work: self, slot, outer: CURRENT.replace(request) }
    }

    /// Notes the request of this thread again, for a worker that is going to take it.
    pub(in crate::fs) fn queue(&self) -> Queued {
        let request = CURRENT.get();
        let slot = (request != 0).then(|| self.shared.free.lock().pop()).flatten();
        if let Some(slot) = slot {
            self.shared.note(slot, request, QUEUED);
        }
        Queued { slots: Arc::clone(&self.shared), slot }
    }

    /// Returns all requests that are in hand.
    pub(in crate::fs) fn noted(&self) -> Vec<u64> {
        let numbers = (0..SLOTS).map(|slot| self.shared.load(slot, NUMBER));
        numbers.filter(|number| *number != 0).collect()
    }

    /// Returns the requests that are being worked on.
    pub(in crate::fs) fn in_hand(&self) -> Vec<InHand> {
        let in_hand = (0..SLOTS).filter_map(|slot| {
            let (request, state) = (self.shared.load(slot, NUMBER), self.shared.load(slot, STATE));
            let worked_on = request != 0 && state != QUEUED;
            worked_on.then_some(InHand { slot, request, by_worker: state == WORKING })
        });
        in_hand.collect()
    }

    /// Takes what a dead server had in hand, and empties the slots. Each request that was being
    /// worked on gets `weight` added to what speaks against it.
    pub(in crate::fs) fn take_over(&self, weight: u64) -> Vec<Interrupted> {
        let mut interrupted = Vec::new();
        let mut suspects = Vec::new();
        for slot in 0..SLOTS {
            let request = self.shared.load(slot, NUMBER);
            if request == 0 {
                continue;
            }
            interrupted.push(Interrupted { request, after: self.shared.load(slot, SEQ) });
            if self.shared.load(slot, STATE) != QUEUED && suspects.len() < SUSPECTS {
                suspects.push((request, self.suspicion(request) + weight));
            }
        }
        for index in 0..SUSPECTS {
            let (request, points) = suspects.get(index).copied().unwrap_or_default();
            let place = AT_SUSPECTS + index * SUSPECT_BYTES;
            self.shared.map.store(place + 8, points);
            self.shared.map.store(place, request);
        }
        (0..SLOTS).for_each(|slot| self.shared.strike_out(slot));
        interrupted
    }

    /// Returns how much speaks against a request.
    pub(in crate::fs) fn suspicion(&self, request: u64) -> u64 {
        let places = (0..SUSPECTS).map(|index| AT_SUSPECTS + index * SUSPECT_BYTES);
        let mut found = places.filter(|&place| self.shared.map.load(place) == request);
        found.next().map_or(0, |place| self.shared.map.load(place + 8))
    }

    fn slot_of_this_thread(&self) -> Option<usize> {
        match MINE.get() {
            Some((serial, slot)) if serial == self.serial => Some(slot),
            Some(_) | None => {
                let slot = self.shared.free.lock().pop()?;
                MINE.set(Some((self.serial, slot)));
                Some(slot)
            }
        }
    }
}

impl Slots {
    fn note(&self, slot: usize, request: u64, state: u64) {
        let place = WORK + slot * SLOT_BYTES;
        self.map.store(place + SEQ, self.map.load(AT_SEQ));
        self.map.store(place + STATE, state);
        self.map.store(place + NUMBER, request);
    }

    fn strike_out(&self, slot: usize) {
        self.map.store(WORK + slot * SLOT_BYTES + NUMBER, 0);
    }

    fn load(&self, slot: usize, word: usize) -> u64 {
        self.map.load(WORK + slot * SLOT_BYTES + word)
    }
}

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        CURRENT.set(self.outer);
        if let Some(slot) = self.slot {
            self.work.shared.strike_out(slot);
        }
    }
}

impl Queued {
    /// Notes that this thread works on it from now on.
    pub(in crate::fs) fn begin(&self) {
        if let Some(slot) = self.slot {
            self.slots.map.store(WORK + slot * SLOT_BYTES + STATE, WORKING);
        }
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            self.slots.strike_out(slot);
            self.slots.free.lock().push(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::journal::Journal;

    #[test]
    fn what_is_in_hand_at_a_death_is_known_with_the_place_in_the_log_and_what_was_answered_is_not()
    {
        let journal = Journal::new().unwrap();
        let (note, work) = (journal.seq_note(), journal.work());
        note(7);
        drop(work.begin(1));
        let second = work.begin(2);
        let third = work.queue();
        note(9);
        std::mem::drop(third);
        let third = work.queue();
        // The process is gone: nothing of it is dropped.
        let (_second, _third) =
            (std::mem::ManuallyDrop::new(second), std::mem::ManuallyDrop::new(third));
        let next = journal.work();
        let taken = next.take_over(1);
        let expected = [(2, 7), (2, 9)].map(|(request, after)| Interrupted { request, after });
        assert_eq!(taken.len(), 2);
        assert!(expected.iter().all(|one| taken.contains(one)), "{taken:?}");
        assert!(next.take_over(1).is_empty());
    }

    #[test]
    fn only_a_request_that_was_worked_on_each_time_is_suspected_more_and_more() {
        let journal = Journal::new().unwrap();
        for deaths in 1..4 {
            let work = journal.work();
            let _poison = std::mem::ManuallyDrop::new(work.begin(5));
            let next = journal.work();
            next.take_over(4);
            assert_eq!((next.suspicion(5), next.suspicion(6)), (deaths * 4, 0));
        }
        let work = journal.work();
        let _other = std::mem::ManuallyDrop::new(work.begin(6));
        journal.work().take_over(4);
        assert_eq!(journal.work().suspicion(5), 0, "it was answered meanwhile");
    }
}
