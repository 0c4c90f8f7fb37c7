//! Recently read values, still sealed, so that reading one again asks neither the disk nor for its data key.
//!
//! Nothing here is plaintext: an entry is the store's own bytes, and is decrypted and authenticated at
//! every read. Its data key lies beside it in locked memory, as the key that wraps it does all the time.
//! Direct-mapped: a slot holds one value and the newest wins, so memory is bounded.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::crypto::UnwrappedValue;
use crate::model::{SecretId, Version};

/// How many values are kept. Each takes a kilobyte of locked memory, of which there may be 8 MiB.
const SLOTS: usize = 1024;

/// The largest sealed value that is kept, in bytes: 4 MiB in all at the most.
const MAX_BYTES: usize = 4096;

type Kept = (SecretId, Version, Arc<UnwrappedValue>);

pub(super) struct Cache {
    slots: Box<[Mutex<Option<Kept>>]>,
    hasher: RandomState,
}

impl Cache {
    pub(super) fn new() -> Self {
        Self { slots: (0..SLOTS).map(|_| Mutex::new(None)).collect(), hasher: RandomState::new() }
    }

    pub(super) fn find(&self, id: SecretId, version: Version) -> Option<Arc<UnwrappedValue>> {
        let slot = self.slot(id)?.lock();
        let (kept_id, kept_version, value) = slot.as_ref()?;
        (*kept_id == id && *kept_version == version).then(|| Arc::clone(value))
    }

    /// Keeps a value of so many sealed bytes, unless it is too large.
    pub(super) fn keep(&self, id: SecretId, version: Version, bytes: usize, value: UnwrappedValue) {
        if bytes > MAX_BYTES {
            return;
        }
        if let Some(slot) = self.slot(id) {
            *slot.lock() = Some((id, version, Arc::new(value)));
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
    use crate::crypto::Keyring;
    use crate::model::{StoreId, Timestamp};
    use crate::system::SecretBytes;

    #[test]
    fn only_the_very_version_that_was_kept_is_found() {
        let cache = Cache::new();
        let id = SecretId([3; 16]);
        let keyring = Keyring::generate(StoreId([1; 16]), Timestamp::UNIX_EPOCH).unwrap();
        let value = SecretBytes::copy_from(b"canary-7f3a").unwrap();
        let sealed = keyring.seal_value(id, Version(2), &value).unwrap();
        let unwrap = || keyring.unwrap_value(id, Version(2), &sealed).unwrap();
        cache.keep(id, Version(2), MAX_BYTES + 1, unwrap());
        assert!(cache.find(id, Version(2)).is_none());
        cache.keep(id, Version(2), sealed.len(), unwrap());
        let found = cache.find(id, Version(2)).unwrap();
        assert_eq!(found.open().unwrap().expose(), b"canary-7f3a");
        assert!(!format!("{found:?}").contains("canary"));
        assert!(cache.find(id, Version(1)).is_none());
        assert!(cache.find(SecretId([4; 16]), Version(2)).is_none());
        cache.clear();
        assert!(cache.find(id, Version(2)).is_none());
    }
}
