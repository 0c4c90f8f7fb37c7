//! Which requests are in hand, so that the next server knows what a dead one may have begun.
//!
//! A slot costs a request two stores. A request is noted before anything is done for it, and struck
//! out after its answer went to the kernel: what is noted when a server dies may have been done,
//! and what is not noted has not. What was in hand then stays known until it has come again and is
//! answered, however many servers that takes; or until it must have been answered, and only not struck
//! out any more.

use std::cell::Cell;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::{AT_SEQ, WORK};
use crate::model::Request;
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

/// Requests that were in hand when a server died, and have not been answered since.
const LEFT: usize = 2 * SLOTS;
const LEFT_BYTES: usize = 32;
const AT_LEFT: usize = WORK + SLOTS * SLOT_BYTES;
/// How much speaks against the request.
const POINTS: usize = 16;

/// Size of this part in bytes. The last ones are not used any more: what lies behind stays where servers of before look.
pub(super) const BYTES: usize = SLOTS * SLOT_BYTES + LEFT * LEFT_BYTES + 64;

/// The slots.
#[derive(Debug)]
pub(in crate::fs) struct Work {
    shared: Arc<Slots>,
    /// Tells the slots of one journal from another's in a thread's memory.
    serial: u64,
    /// Threads that take requests and have not answered a new one yet.
    behind: AtomicUsize,
    /// Whether some request is left to the next server.
    leaves: AtomicBool,
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
    request: Request,
}

/// A request that waits for a worker; struck out when dropped.
#[derive(Debug)]
pub(in crate::fs) struct Queued {
    slots: Arc<Slots>,
    slot: Option<usize>,
    request: Option<Request>,
}

/// A thread that takes requests.
#[derive(Clone, Copy)]
struct Mine {
    /// Whose slot it has.
    serial: u64,
    slot: usize,
    /// Whether it has answered a request that was not sent again.
    is_past: bool,
}

thread_local! {
    /// What this thread is, if it takes requests.
    static MINE: Cell<Option<Mine>> = const { Cell::new(None) };
    /// The request that this thread has in hand, unless somebody else is to answer it.
    static CURRENT: Cell<Option<Request>> = const { Cell::new(None) };
}

impl Work {
    pub(super) fn new(map: Arc<SharedMap>) -> Self {
        static SERIAL: AtomicU64 = AtomicU64::new(1);
        let free = Mutex::new((0..SLOTS).rev().collect());
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let (behind, leaves) = (AtomicUsize::new(usize::MAX), AtomicBool::new(false));
        Self { shared: Arc::new(Slots { map, free }), serial, behind, leaves }
    }

    /// Says how many threads take requests, before they do.
    pub(in crate::fs) fn expect_threads(&self, threads: usize) {
        self.behind.store(threads, Ordering::SeqCst);
    }

    /// Notes that this thread begins with a request. A FUSE thread has its slot for as long as it
    /// lives.
    pub(in crate::fs) fn begin(&self, request: Request) -> AtWork<'_> {
        let slot = self.slot_of_this_thread();
        if let Some(slot) = slot {
            self.shared.note(slot, request.number, ANSWERING);
        }
        CURRENT.set(Some(request));
        AtWork { work: self, slot, request }
    }

    /// Leaves the request of this thread to the next server.
    pub(in crate::fs) fn leave(&self) {
        self.leaves.store(true, Ordering::SeqCst);
        CURRENT.set(None);
    }

    /// Notes the request of this thread again, for a worker that is going to take it.
    pub(in crate::fs) fn queue(&self) -> Queued {
        let request = CURRENT.take();
        let slot = request.and_then(|request: Request| {
            let slot = self.shared.free.lock().pop()?;
            self.shared.note(slot, request.number, QUEUED);
            Some(slot)
        });
        Queued { slots: Arc::clone(&self.shared), slot, request }
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

    /// Takes what dead servers had in hand, and empties the slots. Each request that was being worked
    /// on gets `weight` added to what speaks against it.
    pub(in crate::fs) fn take_over(&self, weight: u64) -> Vec<Interrupted> {
        for slot in 0..SLOTS {
            let request = self.shared.load(slot, NUMBER);
            if request != 0 {
                let worked_on = self.shared.load(slot, STATE) != QUEUED;
                let points = if worked_on { weight } else { 0 };
                self.shared.leave_behind(request, self.shared.load(slot, SEQ), points);
                // After it is there: a server that dies in between must not forget it.
                self.shared.strike_out(slot);
            }
        }
        let left = left_places().map(|place| Interrupted {
            request: self.shared.map.load(place + NUMBER),
            after: self.shared.map.load(place + SEQ),
        });
        left.filter(|one| one.request != 0).collect()
    }

    /// Returns how much speaks against a request.
    pub(in crate::fs) fn suspicion(&self, request: u64) -> u64 {
        self.shared.left(request).map_or(0, |place| self.shared.map.load(place + POINTS))
    }

    fn slot_of_this_thread(&self) -> Option<usize> {
        match MINE.get() {
            Some(mine) if mine.serial == self.serial => Some(mine.slot),
            Some(_) | None => {
                let slot = self.shared.free.lock().pop()?;
                MINE.set(Some(Mine { serial: self.serial, slot, is_past: false }));
                Some(slot)
            }
        }
    }

    /// Notes that this thread has answered a new request.
    ///
    /// What a dead server had in hand is sent again before anything new. So once each thread has answered something new,
    /// all of it has come: what is in no slot then was answered. Nothing is known of what somebody has left.
    fn is_past(&self, mine: Mine) {
        MINE.set(Some(Mine { is_past: true, ..mine }));
        let others = self.behind.fetch_sub(1, Ordering::SeqCst) - 1;
        if others == 0 && !self.leaves.load(Ordering::SeqCst) {
            self.shared.forget_all_but(&self.noted().into_iter().collect());
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

    /// Keeps a request of a dead server known; the first place in the log counts, which is the
    /// earliest.
    fn leave_behind(&self, request: u64, after: u64, points: u64) {
        if let Some(place) = self.left(request) {
            self.map.store(place + POINTS, self.map.load(place + POINTS) + points);
        } else if let Some(place) = self.left(0) {
            self.map.store(place + SEQ, after);
            self.map.store(place + POINTS, points);
            self.map.store(place + NUMBER, request);
        }
    }

    /// Forgets what dead servers had in hand, but for these requests.
    fn forget_all_but(&self, noted: &HashSet<u64>) {
        let left = left_places().filter(|place| !noted.contains(&self.map.load(place + NUMBER)));
        left.for_each(|place| self.map.store(place + NUMBER, 0));
    }

    /// Forgets that a dead server had a request in hand.
    fn answered(&self, request: Request) {
        if request.resent
            && let Some(place) = self.left(request.number)
        {
            self.map.store(place + NUMBER, 0);
        }
    }

    fn left(&self, request: u64) -> Option<usize> {
        left_places().find(|&place| self.map.load(place + NUMBER) == request)
    }

    fn load(&self, slot: usize, word: usize) -> u64 {
        self.map.load(WORK + slot * SLOT_BYTES + word)
    }
}

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        // Otherwise a worker answers it, or the next server.
        if CURRENT.take().is_some() {
            self.work.shared.answered(self.request);
            if let Some(mine) = MINE.get().filter(|mine| !mine.is_past && !self.request.resent) {
                self.work.is_past(mine);
            }
        }
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
        self.request.into_iter().for_each(|request| self.slots.answered(request));
        if let Some(slot) = self.slot {
            self.slots.strike_out(slot);
            self.slots.free.lock().push(slot);
        }
    }
}

fn left_places() -> impl Iterator<Item = usize> {
    (0..LEFT).map(|index| AT_LEFT + index * LEFT_BYTES)
}

#[cfg(test)]
mod tests {
    use std::mem::ManuallyDrop;

    use super::*;
    use crate::fs::journal::Journal;

    fn new(number: u64) -> Request {
        Request { number, resent: false }
    }

    fn again(number: u64) -> Request {
        Request { number, resent: true }
    }

    /// Leaves a request as a process does that is killed: nothing of it is dropped.
    fn die_with(work: &Work, request: Request) {
        let _at_work = ManuallyDrop::new(work.begin(request));
    }

    #[test]
    fn what_is_in_hand_at_a_death_is_known_with_the_place_in_the_log_and_what_was_answered_is_not()
    {
        let journal = Journal::new().unwrap();
        let (note, work) = (journal.seq_note(), journal.work());
        note(7);
        drop(work.begin(new(1)));
        drop(work.begin(new(2)));
        let queued = {
            let _at_work = work.begin(new(3));
            work.queue()
        };
        note(9);
        drop(queued);
        let _queued = ManuallyDrop::new({
            let _at_work = work.begin(new(4));
            work.queue()
        });
        die_with(&work, new(5));
        let next = journal.work();
        let mut taken = next.take_over(1);
        taken.sort_by_key(|one| one.request);
        assert_eq!(taken, [4, 5].map(|request| Interrupted { request, after: 9 }));
    }

    #[test]
    fn a_request_stays_known_over_several_deaths_until_it_is_answered() {
        let journal = Journal::new().unwrap();
        let note = journal.seq_note();
        note(7);
        die_with(&journal.work(), new(1));
        note(20);
        let known = [Interrupted { request: 1, after: 7 }];
        assert_eq!(journal.work().take_over(1), known);
        // Killed before it came again, then while it was in hand, then while nobody answered.
        let work = journal.work();
        assert_eq!(work.take_over(1), known);
        die_with(&work, again(1));
        let work = journal.work();
        assert_eq!(work.take_over(1), known);
        {
            let _at_work = work.begin(again(1));
            work.leave();
        }
        let work = journal.work();
        assert_eq!(work.take_over(1), known);
        drop(work.begin(again(1)));
        assert!(journal.work().take_over(1).is_empty());
    }

    #[test]
    fn a_request_that_does_not_come_again_before_new_ones_is_forgotten() {
        let journal = Journal::new().unwrap();
        die_with(&journal.work(), new(1));
        for _ in 0..10 {
            let work = journal.work();
            work.expect_threads(2);
            assert_eq!(work.take_over(1).len(), 1, "the other thread may get it yet");
            drop(work.begin(new(2)));
            drop(work.begin(new(3)));
        }
        let work = journal.work();
        work.expect_threads(2);
        let queued = {
            let _at_work = work.begin(again(1));
            work.queue()
        };
        drop(work.begin(new(2)));
        std::thread::scope(|scope| scope.spawn(|| drop(work.begin(new(3)))).join().unwrap());
        let known = journal.work().take_over(1);
        assert_eq!(known.len(), 1, "a worker has it");
        drop(queued);
        die_with(&journal.work(), new(4));
        let work = journal.work();
        work.expect_threads(2);
        assert_eq!(work.take_over(1).len(), 1);
        drop(work.begin(new(5)));
        std::thread::scope(|scope| scope.spawn(|| drop(work.begin(new(6)))).join().unwrap());
        assert!(journal.work().take_over(1).is_empty());
    }

    #[test]
    fn a_request_that_is_left_to_the_next_server_is_not_forgotten() {
        let journal = Journal::new().unwrap();
        die_with(&journal.work(), new(1));
        let work = journal.work();
        work.expect_threads(1);
        work.take_over(1);
        {
            let _at_work = work.begin(again(1));
            work.leave();
        }
        drop(work.begin(new(2)));
        assert_eq!(journal.work().take_over(1), [Interrupted { request: 1, after: 0 }]);
    }

    #[test]
    fn only_a_request_that_was_worked_on_each_time_is_suspected_more_and_more() {
        let journal = Journal::new().unwrap();
        for deaths in 1..4 {
            die_with(&journal.work(), again(5));
            let next = journal.work();
            next.take_over(4);
            assert_eq!((next.suspicion(5), next.suspicion(6)), (deaths * 4, 0));
        }
        let work = journal.work();
        drop(work.begin(again(5)));
        assert_eq!(work.suspicion(5), 0, "it was answered");
    }
}
