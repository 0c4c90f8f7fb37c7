//! How far each uid's view of `.control/events` goes: so that a reader's offset keeps its meaning.
//!
//! The bytes themselves are not kept: they can be had again from the audit log.

use std::sync::Arc;

use super::EVENTS;
use crate::system::SharedMap;

/// As many as there are buffers at one time.
const SLOTS: usize = 64;
const SLOT_BYTES: usize = 64;
/// The uid, plus one.
const UID: usize = 0;
/// Which of the two marks counts.
const TURN: usize = 8;
const MARKS: usize = 16;
const MARK_BYTES: usize = 16;

/// Where a view ends.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(in crate::fs) struct EventMark {
    /// Size in bytes of the file as the uid sees it.
    pub(in crate::fs) end: u64,
    /// The last audit line that was looked at for it.
    pub(in crate::fs) seq: u64,
}

/// The marks of all uids.
#[derive(Debug)]
pub(in crate::fs) struct EventMarks {
    map: Arc<SharedMap>,
}

impl EventMarks {
    pub(super) fn new(map: Arc<SharedMap>) -> Self {
        Self { map }
    }

    /// Sets a uid's mark, whole or not at all. One thread at a time.
    pub(in crate::fs) fn set(&self, uid: u32, mark: EventMark) {
        let Some(place) = self.find(uid).or_else(|| self.free()) else { return };
        let turn = 1 - usize::from(self.map.load(place + TURN) == 1);
        let at = place + MARKS + turn * MARK_BYTES;
        self.map.store(at, mark.end);
        self.map.store(at + 8, mark.seq);
        self.map.store(place + TURN, turn as u64);
        self.map.store(place + UID, u64::from(uid) + 1);
    }

    /// Forgets a uid.
    pub(in crate::fs) fn remove(&self, uid: u32) {
        if let Some(place) = self.find(uid) {
            self.map.store(place + UID, 0);
        }
    }

    /// Returns all uids with their marks.
    pub(in crate::fs) fn all(&self) -> Vec<(u32, EventMark)> {
        let mut all = Vec::new();
        for place in places() {
            let uid = self.map.load(place + UID).checked_sub(1).map(u32::try_from);
            if let Some(Ok(uid)) = uid {
                let turn = usize::from(self.map.load(place + TURN) == 1);
                let at = place + MARKS + turn * MARK_BYTES;
                let mark = EventMark { end: self.map.load(at), seq: self.map.load(at + 8) };
                all.push((uid, mark));
            }
        }
        all
    }

    fn find(&self, uid: u32) -> Option<usize> {
        places().find(|&place| self.map.load(place + UID) == u64::from(uid) + 1)
    }

    fn free(&self) -> Option<usize> {
        places().find(|&place| self.map.load(place + UID) == 0)
    }
}

fn places() -> impl Iterator<Item = usize> {
    (0..SLOTS).map(|slot| EVENTS + slot * SLOT_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::journal::Journal;

    #[test]
    fn each_uid_has_its_last_mark() {
        let journal = Journal::new().unwrap();
        let marks = journal.events();
        for n in 1..4 {
            marks.set(0, EventMark { end: n * 10, seq: n });
            marks.set(1000, EventMark { end: n, seq: n });
        }
        marks.remove(1000);
        assert_eq!(journal.events().all(), [(0, EventMark { end: 30, seq: 3 })]);
    }
}
