//! How often each uid was refused of late, so that a flood of refusals cannot fill the disk.
//!
//! The first refusals in a second are recorded one by one. Later ones are counted, and the count is
//! recorded when the second is over. What is granted is never left out.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::model::{Timestamp, Uid};

/// Refusals a uid and second that get a line of their own.
const PER_SECOND: u32 = 50;

/// Uids that are told apart at once; more share the count of the overflow.
const MAX_UIDS: usize = 4096;

/// The uid under which refusals are counted when too many uids are refused at once.
const OVERFLOW: Uid = Uid(u32::MAX);

#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<HashMap<Uid, Window>>);

#[derive(Debug)]
struct Window {
    second: i64,
    recorded: u32,
    counted: u64,
}

/// What is to be done with a refusal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    CountOnly,
    Record,
}

impl Refusals {
    pub(super) fn note(&self, uid: Uid, now: Timestamp) -> Verdict {
        let second = now.as_second();
        let mut windows = self.0.lock();
        let uid =
            if windows.len() >= MAX_UIDS && !windows.contains_key(&uid) { OVERFLOW } else { uid };
        let window = windows.entry(uid).or_insert(Window { second, recorded: 0, counted: 0 });
        if window.second != second {
            window.second = second;
            window.recorded = 0;
        }
        if window.recorded < PER_SECOND {
            window.recorded += 1;
            return Verdict::Record;
        }
        window.counted += 1;
        Verdict::CountOnly
    }

    /// Returns what was only counted, and forgets the uids that have been quiet.
    pub(super) fn take_counted(&self, now: Timestamp) -> Vec<(Uid, u64)> {
        let second = now.as_second();
        let mut windows = self.0.lock();
        let counted = windows
            .iter_mut()
            .filter(|(_, window)| window.counted > 0)
            .map(|(uid, window)| (*uid, std::mem::take(&mut window.counted)))
            .collect();
        windows.retain(|_, window| window.second == second);
        counted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_flood_is_counted_and_no_refusal_is_lost() {
        let refusals = Refusals::default();
        let recorded =
            (0..1000).filter(|_| refusals.note(Uid(7), at(1)) == Verdict::Record).count() as u64;
        let counted = refusals.take_counted(at(1));
        assert_eq!(recorded, u64::from(PER_SECOND));
        assert_eq!(counted, [(Uid(7), 1000 - recorded)]);
        assert!(refusals.take_counted(at(1)).is_empty());
    }

    #[test]
    fn one_uids_flood_does_not_silence_another_or_a_later_second() {
        let refusals = Refusals::default();
        for _ in 0..1000 {
            refusals.note(Uid(7), at(1));
        }
        assert_eq!(refusals.note(Uid(8), at(1)), Verdict::Record);
        assert_eq!(refusals.note(Uid(7), at(2)), Verdict::Record);
    }
}
