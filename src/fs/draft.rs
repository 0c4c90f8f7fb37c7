//! Names that were created and not yet published: their creator alone sees them.
//!
//! A draft lives as long as a handle holds it, and ends with the first version that is published.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::error::{FsError, Result};
use crate::model::{SecretName, Timestamp};

/// By uid and name.
type Table = HashMap<(u32, SecretName), Arc<Draft>>;

/// The drafts of all uids.
#[derive(Debug, Default)]
pub(super) struct Drafts {
    drafts: Mutex<Table>,
    count: AtomicU64,
}

/// One draft.
#[derive(Debug)]
pub(super) struct Draft {
    uid: u32,
    pub(super) created: Timestamp,
    state: Mutex<State>,
    bytes: AtomicU64,
    unlinked: AtomicBool,
}

#[derive(Debug)]
struct State {
    name: SecretName,
    holds: u32,
}

/// A handle's hold on a draft.
#[derive(Debug)]
pub(super) struct Hold {
    drafts: Arc<Drafts>,
    draft: Arc<Draft>,
}

impl Drafts {
    /// Makes a draft. Errors: `Exists` if the uid has one of that name.
    pub(super) fn create(
        self: &Arc<Self>,
        uid: u32,
        name: &SecretName,
        now: Timestamp,
    ) -> Result<Hold> {
        let mut drafts = self.drafts.lock();
        let key = (uid, name.clone());
        if drafts.contains_key(&key) {
            return Err(FsError::Exists);
        }
        let draft = Arc::new(Draft {
            uid,
            created: now,
            state: Mutex::new(State { name: name.clone(), holds: 1 }),
            bytes: AtomicU64::new(0),
            unlinked: AtomicBool::new(false),
        });
        drafts.insert(key, draft.clone());
        self.count.fetch_add(1, Ordering::Release);
        Ok(Hold { drafts: self.clone(), draft })
    }

    /// Returns a uid's draft.
    pub(super) fn find(&self, uid: u32, name: &SecretName) -> Option<Arc<Draft>> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.drafts.lock().get(&(uid, name.clone())).cloned()
    }

    /// Takes another hold on a uid's draft.
    pub(super) fn hold(self: &Arc<Self>, uid: u32, name: &SecretName) -> Option<Hold> {
        let drafts = self.drafts.lock();
        let draft = drafts.get(&(uid, name.clone()))?.clone();
        draft.state.lock().holds += 1;
        Some(Hold { drafts: self.clone(), draft })
    }

    /// Holds the draft of a name, which is made if there is none.
    pub(super) fn open(
        self: &Arc<Self>,
        uid: u32,
        name: &SecretName,
        now: Timestamp,
    ) -> Result<Hold> {
        loop {
            if let Some(hold) = self.hold(uid, name) {
                return Ok(hold);
            }
            match self.create(uid, name, now) {
                // Another one is quicker, and may be gone again.
                Err(FsError::Exists) => {}
                made => return made,
            }
        }
    }

    /// Gives a draft another name. Returns whether there is such a draft.
    pub(super) fn rename(&self, uid: u32, from: &SecretName, to: &SecretName) -> bool {
        let mut drafts = self.drafts.lock();
        let Some(draft) = drafts.remove(&(uid, from.clone())) else { return false };
        draft.state.lock().name = to.clone();
        if let Some(replaced) = drafts.insert((uid, to.clone()), draft) {
            replaced.unlinked.store(true, Ordering::Release);
            self.count.fetch_sub(1, Ordering::Release);
        }
        true
    }

    /// Takes a draft's name away, so that it is never published. Returns whether there is one.
    pub(super) fn unlink(&self, uid: u32, name: &SecretName) -> bool {
        let draft = self.drafts.lock().remove(&(uid, name.clone()));
        let Some(draft) = draft else { return false };
        self.count.fetch_sub(1, Ordering::Release);
        draft.unlinked.store(true, Ordering::Release);
        true
    }

    /// Returns the last segments of a uid's drafts in a directory, sorted.
    pub(super) fn list(&self, uid: u32, directory: Option<&SecretName>) -> Vec<SecretName> {
        if self.count.load(Ordering::Acquire) == 0 {
            return Vec::new();
        }
        let drafts = self.drafts.lock();
        let mine = drafts.keys().filter(|(owner, _)| *owner == uid).map(|(_, name)| name);
        let inside = mine.filter(|name| name.parent().as_ref() == directory);
        let mut names: Vec<_> = inside.cloned().collect();
        names.sort();
        names
    }

    fn drop_name(&self, drafts: &mut Table, draft: &Arc<Draft>, name: &SecretName) {
        let key = (draft.uid, name.clone());
        if drafts.get(&key).is_some_and(|known| Arc::ptr_eq(known, draft)) {
            drafts.remove(&key);
            self.count.fetch_sub(1, Ordering::Release);
        }
    }
}

impl Draft {
    /// Returns the length in bytes of what was written last.
    pub(super) fn len(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Hold {
    /// Returns the name that the draft has now.
    pub(super) fn name(&self) -> SecretName {
        self.draft.state.lock().name.clone()
    }

    /// Tells whether the draft's name was taken away, so that it must not be published.
    pub(super) fn is_unlinked(&self) -> bool {
        self.draft.unlinked.load(Ordering::Acquire)
    }

    /// Notes how long the content is.
    pub(super) fn set_len(&self, bytes: u64) {
        self.draft.bytes.store(bytes, Ordering::Relaxed);
    }

    /// Ends the draft: its name is a secret now.
    pub(super) fn published(&self) {
        let mut drafts = self.drafts.drafts.lock();
        self.drafts.drop_name(&mut drafts, &self.draft, &self.name());
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // The table is locked before a draft, never after it.
        let mut drafts = self.drafts.drafts.lock();
        let mut state = self.draft.state.lock();
        state.holds = state.holds.saturating_sub(1);
        if state.holds == 0 {
            self.drafts.drop_name(&mut drafts, &self.draft, &state.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn name(text: &str) -> SecretName {
        text.parse().unwrap()
    }

    #[test]
    fn a_draft_is_seen_by_its_creator_and_gone_with_the_last_hold() {
        let drafts = Arc::new(Drafts::default());
        let first = drafts.create(1, &name("k"), NOW).unwrap();
        let second = drafts.hold(1, &name("k")).unwrap();
        assert!(drafts.find(2, &name("k")).is_none());
        drop(first);
        assert!(drafts.find(1, &name("k")).is_some());
        drop(second);
        assert!(drafts.find(1, &name("k")).is_none());
    }

    #[test]
    fn a_renamed_draft_is_published_under_its_new_name() {
        let drafts = Arc::new(Drafts::default());
        let hold = drafts.create(1, &name("a"), NOW).unwrap();
        assert!(drafts.rename(1, &name("a"), &name("b")));
        assert_eq!(hold.name(), name("b"));
        assert!(drafts.find(1, &name("a")).is_none() && drafts.find(1, &name("b")).is_some());
    }

    #[test]
    fn opening_a_draft_that_others_are_giving_up_never_misses_it() {
        let drafts: Arc<Drafts> = Arc::default();
        let name = "prod/key".parse().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        drop(drafts.open(7, &name, Timestamp::UNIX_EPOCH).unwrap());
                    }
                });
            }
        });
        assert!(drafts.find(7, &name).is_none());
    }

    #[test]
    fn an_unlinked_draft_must_not_be_published_and_its_name_is_free() {
        let drafts = Arc::new(Drafts::default());
        let hold = drafts.create(1, &name("a"), NOW).unwrap();
        assert!(drafts.unlink(1, &name("a")));
        assert!(hold.is_unlinked());
        let again = drafts.create(1, &name("a"), NOW).unwrap();
        drop(hold);
        assert!(drafts.find(1, &name("a")).is_some());
        drop(again);
        assert!(drafts.find(1, &name("a")).is_none());
    }
}
