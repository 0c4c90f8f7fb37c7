//! Recently read values, still sealed, so that reading one again does not ask the disk.
//!
//! Nothing here is plaintext: an entry is the store's own bytes, and is decrypted and authenticated
//! at every read. Direct-mapped: a slot holds one value and the newest wins, so memory is bounded.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::model::{SecretId, Version};

/// How many values are kept.
const SLOTS: usize = 4096;

/// The largest sealed value that is kept, in bytes: 16 MiB in all at the most.
const MAX_BYTES: usize = 4096;

type Kept = (SecretId, Version, Arc<[u8]>);

pub(super) struct Cache {
    slots: Box<[Mutex<Option<Kept>>]>,
    hasher: RandomState,
}

impl Cache {
    pub(super) fn new() -> Self {
        Self { slots: (0..SLOTS).map(|_| Mutex::new(None)).collect(), hasher: RandomState::new() }
    }

    pub(super) fn find(&self, id: SecretId, version: Version) -> Option<Arc<[u8]>> {
        let slot = self.slot(id)?.lock();
        let (kept_id, kept_version, sealed) = slot.as_ref()?;
        (*kept_id == id && *kept_version == version).then(|| Arc::clone(sealed))
    }

    pub(super) fn keep(&self, id: SecretId, version: Version, sealed: &[u8]) {
        if sealed.len() > MAX_BYTES {
            return;
        }
        if let Some(slot) = self.slot(id) {
            *slot.lock() = Some((id, version, sealed.into()));
        }
    }

    /// Forgets everything: after a re-wrap, a restore, or a seal.
    pub(super) fn clear(&self) {
        for slot in &self.slots {
            *slot.lock() = None;
        }
    }

    fn slot(&self, id: SecretId) -> Option<&Mutex<Option<Kept>>> {
        let hash = usize::try_from(self.hasher.hash_one(id) % SLOTS as u64).ok()?;
        self.slots.get(hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_version_that_was_kept_is_found() {
        let cache = Cache::new();
        let id = SecretId([3; 16]);
        cache.keep(id, Version(2), b"sealed");
        assert_eq!(cache.find(id, Version(2)).as_deref(), Some(&b"sealed"[..]));
        assert!(cache.find(id, Version(1)).is_none());
        assert!(cache.find(SecretId([4; 16]), Version(2)).is_none());
        cache.clear();
        assert!(cache.find(id, Version(2)).is_none());
    }
}
