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

/// The versions of one secret, oldest first.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct History {
    entries: Vec<Entry>,
    last: Version,
}

impl History {
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

    /// Returns a version whose value still exists.
    pub fn readable(&self, version: Version) -> Option<&Entry> {
        self.entries
            .iter()
            .find(|entry| entry.version == version && entry.state != State::Destroyed)
    }

    /// Returns every version, oldest first.
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

    /// Destroys the oldest previous versions until `keep` of them are left. Returns those whose
    /// values are to be removed.
    pub fn retain_previous(&mut self, keep: usize) -> Vec<Version> {
        let previous = self.entries.iter().filter(|entry| entry.state == State::Previous).count();
        let mut destroyed = Vec::new();
        for entry in &mut self.entries {
            if previous - destroyed.len() <= keep {
                break;
            }
            if entry.state == State::Previous {
                entry.state = State::Destroyed;
                destroyed.push(entry.version);
            }
        }
        destroyed
    }

    fn add(&mut self, new: NewVersion, state: State) -> Version {
        let version = self.next();
        self.last = version;
        let NewVersion { created, created_by, size, fingerprint } = new;
        self.entries.push(Entry { version, state, created, created_by, size, fingerprint });
        version
    }
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
    fn only_the_newest_previous_versions_are_kept() {
        let mut history = History::default();
        for size in 1..=5 {
            history.publish(new(size));
        }
        assert_eq!(history.retain_previous(2), [Version(1), Version(2)]);
        assert!(history.readable(Version(1)).is_none());
        assert!(history.readable(Version(3)).is_some());
        assert_eq!(history.current().unwrap().version, Version(5));
    }
}
