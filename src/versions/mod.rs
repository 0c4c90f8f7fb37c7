//! The life cycle of a secret's versions, pure: pending -> current -> previous -> destroyed.
//!
//! Numbers only grow and are never used twice, also when versions are destroyed or a staged one is
//! given up. Exactly one version is current once a value was published; at most one is pending.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

use crate::model::{Timestamp, Uid, Version, micros};

/// Where a version stands in its life.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum State {
    /// What a plain read returns.
    Current,
    /// Its value is gone; the entry stays as a witness.
    Destroyed,
    /// Staged: readers do not see it.
    Pending,
    /// Was current once, and can still be read by its number.
    Previous,
}

impl State {
    /// Returns the word for it in histories.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Destroyed => "destroyed",
            Self::Pending => "pending",
            Self::Previous => "previous",
        }
    }
}

/// One version, without its value.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Entry {
    pub version: Version,
    pub state: State,
    #[serde(with = "micros")]
    pub created: Timestamp,
    pub created_by: Uid,
    /// Size of the value in bytes.
    pub size: u64,
    /// Keyed fingerprint of the value: equal for equal values of one store.
    pub fingerprint: [u8; 16],
}

/// How many versions a page has once it is full.
pub const PAGE: usize = 64;

/// How many versions are taken out of a history at once. A page is full after several times; all that a history lists is
/// sealed anew with each version, and a page that is not full only when more comes to it.
pub const STEP: usize = 16;

/// The versions of one secret, oldest first. Those of long ago are taken out to pages, so that a new version
/// costs the same however many there were.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct History {
    entries: Vec<Entry>,
    last: Version,
}

impl History {
    /// Returns how many pages there are, of which the newest may not be full.
    pub fn pages(&self) -> u64 {
        self.taken_out().div_ceil(PAGE as u64)
    }

    /// Returns how many versions were taken out: each has a number, and none is dropped.
    fn taken_out(&self) -> u64 {
        self.last.0.saturating_sub(self.entries.len() as u64)
    }

    /// Takes out the oldest [`STEP`] versions once there are twice as many. Returns them with the number of the page that
    /// they belong to. Whatever is current, pending or was current last stays.
    pub fn take_oldest(&mut self) -> Option<(u64, Vec<Entry>)> {
        if self.entries.len() < 2 * STEP {
            return None;
        }
        let page = self.taken_out() / PAGE as u64;
        let stay =
            [self.current(), self.pending(), self.previous()].map(|of| of.map(|of| of.version));
        let old = self.entries.extract_if(.., |entry| !stay.contains(&Some(entry.version)));
        Some((page, old.take(STEP).collect()))
    }

    /// Returns the number that the next version gets.
    pub fn next(&self) -> Version {
        self.last.next()
    }

    /// Returns the current version, unless nothing was published yet.
    pub fn current(&self) -> Option<&Entry> {
        self.entries.iter().rev().find(|entry| entry.state == State::Current)
    }

    /// Returns the newest version that was current before the current one.
    pub fn previous(&self) -> Option<&Entry> {
        self.entries.iter().rev().find(|entry| entry.state == State::Previous)
    }

    /// Returns the staged version.
    pub fn pending(&self) -> Option<&Entry> {
        self.entries.iter().rev().find(|entry| entry.state == State::Pending)
    }

    /// Returns the versions that were not taken out, oldest first.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Adds a version as the current one and makes the one before it `Previous`.
    pub fn publish(&mut self, new: NewVersion) -> Version {
        for entry in &mut self.entries {
            if entry.state == State::Current {
                entry.state = State::Previous;
            }
        }
        self.add(new, State::Current)
    }

    /// Adds a version as the pending one. Returns its number, and that of the pending version it
    /// takes the place of, whose value is to be removed.
    pub fn stage(&mut self, new: NewVersion) -> (Version, Option<Version>) {
        let replaced = self.discard_pending();
        (self.add(new, State::Pending), replaced)
    }

    /// Makes the pending version the current one under the number that it has. `None`: there is none,
    /// or a younger version is current by now.
    pub fn publish_pending(&mut self) -> Option<Version> {
        let pending = self.pending()?.version;
        if self.current().is_some_and(|current| current.version > pending) {
            return None;
        }
        for entry in &mut self.entries {
            match entry.state {
                State::Current => entry.state = State::Previous,
                State::Pending => entry.state = State::Current,
                State::Destroyed | State::Previous => {}
            }
        }
        Some(pending)
    }

    /// Gives the pending version up; its value is to be removed.
    pub fn discard_pending(&mut self) -> Option<Version> {
        let pending = self.entries.iter_mut().find(|entry| entry.state == State::Pending)?;
        pending.state = State::Destroyed;
        Some(pending.version)
    }

    /// Destroys at most `surplus` of the previous versions, the oldest ones. Returns those whose values are to be removed.
    pub fn destroy_previous(&mut self, surplus: u64) -> Vec<Version> {
        destroy_previous(&mut self.entries, surplus)
    }

    fn add(&mut self, new: NewVersion, state: State) -> Version {
        let version = self.next();
        self.last = version;
        let NewVersion { created, created_by, size, fingerprint } = new;
        self.entries.push(Entry { version, state, created, created_by, size, fingerprint });
        version
    }
}

/// Returns how many of some versions are [`State::Previous`].
pub fn count_previous(entries: &[Entry]) -> u64 {
    entries.iter().filter(|entry| entry.state == State::Previous).count() as u64
}

/// Does so with versions that were taken out.
pub fn destroy_previous(entries: &mut [Entry], surplus: u64) -> Vec<Version> {
    let surplus = usize::try_from(surplus).unwrap_or(usize::MAX);
    let previous = entries.iter_mut().filter(|entry| entry.state == State::Previous).take(surplus);
    previous
        .map(|entry| {
            entry.state = State::Destroyed;
            entry.version
        })
        .collect()
}

/// What is known of a version before it has its number.
#[derive(Clone, Debug)]
pub struct NewVersion {
    pub created: Timestamp,
    pub created_by: Uid,
    /// Size of the value in bytes.
    pub size: u64,
    pub fingerprint: [u8; 16],
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(size: u64) -> NewVersion {
        NewVersion {
            created: Timestamp::UNIX_EPOCH,
            created_by: Uid(0),
            size,
            fingerprint: [0; 16],
        }
    }

    #[test]
    fn the_last_published_version_is_current_and_the_one_before_it_previous() {
        let mut history = History::default();
        history.publish(new(1));
        history.publish(new(2));
        history.publish(new(3));
        assert_eq!(history.current().unwrap().version, Version(3));
        assert_eq!(history.previous().unwrap().version, Version(2));
    }

    #[test]
    fn numbers_are_never_used_twice() {
        let mut history = History::default();
        assert_eq!(history.publish(new(1)), Version(1));
        assert_eq!(history.stage(new(1)), (Version(2), None));
        assert_eq!(history.stage(new(1)), (Version(3), Some(Version(2))));
        assert_eq!(history.discard_pending(), Some(Version(3)));
        assert_eq!(history.publish(new(1)), Version(4));
    }

    #[test]
    fn a_staged_version_changes_nothing_for_readers() {
        let mut history = History::default();
        history.publish(new(1));
        history.stage(new(2));
        assert_eq!(history.current().unwrap().version, Version(1));
        assert_eq!(history.pending().unwrap().version, Version(2));
    }

    #[test]
    fn a_staged_version_is_published_under_its_number_unless_a_younger_one_is_current() {
        let mut history = History::default();
        history.publish(new(1));
        history.stage(new(2));
        assert_eq!(history.publish_pending(), Some(Version(2)));
        assert_eq!(history.current().unwrap().version, Version(2));
        assert_eq!(history.previous().unwrap().version, Version(1));
        assert_eq!(history.publish_pending(), None);
        history.stage(new(3));
        history.publish(new(4));
        assert_eq!(history.publish_pending(), None);
        assert_eq!(history.current().unwrap().version, Version(4));
    }

    #[test]
    fn the_oldest_previous_versions_are_destroyed_first() {
        let mut history = History::default();
        for size in 1..=5 {
            history.publish(new(size));
        }
        assert_eq!(history.destroy_previous(2), [Version(1), Version(2)]);
        assert_eq!(count_previous(history.entries()), 2);
        assert_eq!(history.destroy_previous(9), [Version(3), Version(4)]);
        assert_eq!(history.current().unwrap().version, Version(5));
    }

    #[test]
    fn what_can_still_change_stays_when_old_versions_are_taken_out() {
        let mut history = History::default();
        let mut taken = Vec::new();
        for round in 1..=5 * PAGE as u64 {
            match round {
                // Far behind the others: the versions before them are staged and given up, over and over.
                1 | 2 => drop(history.publish(new(round))),
                _ => drop(history.stage(new(round))),
            }
            if let Some((page, oldest)) = history.take_oldest() {
                assert_eq!((page, oldest.len()), ((taken.len() / PAGE) as u64, STEP));
                taken.extend(oldest);
            }
            assert_eq!(history.pages(), taken.len().div_ceil(PAGE) as u64);
            assert!(history.entries().len() < 2 * STEP);
        }
        assert_eq!(history.current().unwrap().version, Version(2));
        assert_eq!(history.previous().unwrap().version, Version(1));
        assert_eq!(history.pending().unwrap().version, Version(5 * PAGE as u64));
        let mut all = [taken.as_slice(), history.entries()].concat();
        all.sort_by_key(|entry| entry.version);
        assert!(all.iter().map(|entry| entry.version.0).eq(1..=5 * PAGE as u64));
    }

    #[test]
    fn a_history_of_an_earlier_program_which_lists_more_gets_shorter_with_each_version() {
        // That one took out whole pages, and listed up to one version less than two of them.
        for full_pages in [0, 2] {
            let mut history =
                History { entries: Vec::new(), last: Version(full_pages * PAGE as u64) };
            for size in 1..2 * PAGE as u64 {
                history.publish(new(size));
            }
            assert_eq!(history.pages(), full_pages);
            let mut pages = Vec::new();
            while history.entries().len() >= 2 * STEP {
                history.publish(new(1));
                let (page, oldest) = history.take_oldest().unwrap();
                assert_eq!(oldest.len(), STEP);
                pages.push(page - full_pages);
            }
            assert_eq!(pages, [0, 0, 0, 0, 1, 1, 1]);
            assert_eq!(history.pages(), full_pages + 2);
        }
    }
}
