//! Which secrets have not changed, by what the service's list says of when they did.
//!
//! That may be said in whole seconds, and a value may have been fetched between two changes of one. So a time
//! counts only once the secret was fetched again, a turn after the list first had it.

use std::collections::{BTreeMap, HashMap};

use crate::model::{SecretName, Timestamp};

/// What is known of each secret, since the start.
#[derive(Debug, Default)]
pub(super) struct Marks(HashMap<SecretName, Mark>);

#[derive(Debug)]
struct Mark {
    changed: Timestamp,
    settled: bool,
}

impl Marks {
    /// Tells whether a secret is what was fetched, for its last change was then.
    pub(super) fn is_unchanged(&self, name: &SecretName, changed: Timestamp) -> bool {
        self.0.get(name).is_some_and(|mark| mark.settled && mark.changed == changed)
    }

    /// Notes that a secret was fetched after the list had said when it was changed.
    pub(super) fn note_fetched(&mut self, name: &SecretName, changed: Timestamp) {
        let settled = self.0.get(name).is_some_and(|mark| mark.changed == changed);
        self.0.insert(name.clone(), Mark { changed, settled });
    }

    /// Forgets what the list has no more.
    pub(super) fn keep(&mut self, listed: &BTreeMap<SecretName, Timestamp>) {
        self.0.retain(|name, _| listed.contains_key(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_counts_once_the_secret_was_fetched_again() {
        let (mut marks, name) = (Marks::default(), "cloud/key".parse().unwrap());
        let [one, two] = [1, 2].map(|second| Timestamp::from_second(second).unwrap());
        for changed in [one, two, one] {
            assert!(!marks.is_unchanged(&name, changed));
            marks.note_fetched(&name, changed);
            assert!(!marks.is_unchanged(&name, changed), "another change may have the same time");
            marks.note_fetched(&name, changed);
            assert!(marks.is_unchanged(&name, changed));
        }
        marks.keep(&BTreeMap::new());
        assert!(!marks.is_unchanged(&name, one));
    }
}
