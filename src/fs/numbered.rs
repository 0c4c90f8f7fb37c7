//! A map from numbers, split so that threads seldom wait for each other.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use parking_lot::{Mutex, MutexGuard};

const SHARDS: usize = 32;

/// One part of a [`Numbered`].
pub(super) type Shard<V> = HashMap<u64, V, BuildHasherDefault<NumberHasher>>;

/// Keys are inode numbers (keyed hashes), handles (counted) or uids: none can be chosen by a caller
/// so as to collide. No lock is held longer than it takes to copy or change one entry.
#[derive(Debug)]
pub(super) struct Numbered<V>([Mutex<Shard<V>>; SHARDS]);

impl<V> Numbered<V> {
    /// Returns an empty map.
    pub(super) fn new() -> Self {
        Self(std::array::from_fn(|_| Mutex::default()))
    }

    /// Locks the part that holds `key`.
    #[expect(clippy::indexing_slicing, reason = "the remainder is below the number of shards")]
    pub(super) fn shard(&self, key: u64) -> MutexGuard<'_, Shard<V>> {
        let spread = key.wrapping_mul(SPREAD) >> 32;
        self.0[usize::try_from(spread).unwrap_or(0) % SHARDS].lock()
    }

    /// Calls `visit` with each entry, one part locked at a time.
    pub(super) fn for_each(&self, mut visit: impl FnMut(u64, &V)) {
        for shard in &self.0 {
            shard.lock().iter().for_each(|(key, value)| visit(*key, value));
        }
    }
}

/// 2^64 divided by the golden ratio: spreads numbers that follow each other.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Spreads one number; anything else is not hashed with it.
#[derive(Debug, Default)]
pub(super) struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        let product = (self.0 ^ number).wrapping_mul(SPREAD);
        self.0 = product ^ (product >> 29);
    }
}
