//! A key in memory that outlives the process, for the next one to take.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::memfd::{KeyMemory, key_memory, key_memory_kind};
use super::{MemoryError, SecretBytes, SharedMap};

/// One page: the least that is mapped.
const BYTES: usize = 4096;
const MAX_KEY: usize = 64;

/// Where a key is, and its length; 0: there is none.
#[derive(Clone, Copy)]
struct Place {
    len: usize,
    key: usize,
}

const FIRST: Place = Place { len: 0, key: 64 };
const SECOND: Place = Place { len: 8, key: 128 };

/// Room for a key, and for the one that is to take its place.
#[derive(Debug)]
pub struct KeyCell {
    memory: OwnedFd,
    map: SharedMap,
}

impl KeyCell {
    /// Returns an empty cell.
    pub fn new() -> io::Result<Self> {
        Self::from_memory(key_memory(BYTES as u64)?)
    }

    /// Takes a cell over from another process.
    pub fn from_memory(memory: OwnedFd) -> io::Result<Self> {
        let map = SharedMap::of(&memory, BYTES)?;
        Ok(Self { memory, map })
    }

    /// Returns the descriptor, for whoever is to keep it.
    pub fn memory(&self) -> &impl AsFd {
        &self.memory
    }

    /// Tells how well the key is kept from others.
    pub fn kind(&self) -> KeyMemory {
        key_memory_kind(&self.memory)
    }

    /// Has this key be the only one; one that is too long is left out. Whoever is killed on the way leaves this
    /// one or the one before.
    pub fn put(&self, key: &SecretBytes) {
        if !self.holds(FIRST, key) {
            self.fill(SECOND, key);
            self.fill(FIRST, key);
        }
        self.empty(SECOND);
    }

    /// Puts a key beside the one that is there, until the next [`put`](Self::put): for as long as either may be
    /// the one that is needed.
    pub fn put_beside(&self, key: &SecretBytes) {
        self.fill(SECOND, key);
    }

    /// Copies the keys out that are there: none, one, or two while one takes the place of the other.
    pub fn keys(&self) -> Result<Vec<SecretBytes>, MemoryError> {
        [FIRST, SECOND].into_iter().filter_map(|place| self.key(place).transpose()).collect()
    }

    /// Forgets the keys.
    pub fn wipe(&self) {
        self.empty(FIRST);
        self.empty(SECOND);
    }

    fn key(&self, place: Place) -> Result<Option<SecretBytes>, MemoryError> {
        let len = usize::try_from(self.map.load(place.len)).unwrap_or(0);
        if !(1..=MAX_KEY).contains(&len) {
            return Ok(None);
        }
        SecretBytes::with_len(len, |room| {
            self.map.read(place.key, room);
            Ok(room.len())
        })
        .map(Some)
    }

    fn holds(&self, place: Place, key: &SecretBytes) -> bool {
        matches!(self.key(place), Ok(Some(held)) if held.constant_time_eq(key))
    }

    fn fill(&self, place: Place, key: &SecretBytes) {
        self.empty(place);
        if key.len() <= MAX_KEY {
            self.map.write(place.key, key.expose());
            self.map.store(place.len, key.len() as u64);
        }
    }

    fn empty(&self, place: Place) {
        self.map.store(place.len, 0);
        self.map.write(place.key, &[0; MAX_KEY]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(cell: &KeyCell) -> Vec<Vec<u8>> {
        cell.keys().unwrap().iter().map(|key| key.expose().to_vec()).collect()
    }

    fn key(text: &str) -> SecretBytes {
        SecretBytes::copy_from(text.as_bytes()).unwrap()
    }

    #[test]
    fn the_next_holder_finds_the_keys_until_they_are_wiped() {
        let first = KeyCell::new().unwrap();
        assert!(keys(&first).is_empty());
        first.put(&key("canary-7f3a"));
        first.put_beside(&key("canary-8e2b"));
        let handed_over = first.memory().as_fd().try_clone_to_owned().unwrap();
        drop(first);
        let next = KeyCell::from_memory(handed_over).unwrap();
        assert_eq!(keys(&next), [b"canary-7f3a", b"canary-8e2b"]);
        next.wipe();
        assert!(keys(&next).is_empty());
        let mut bytes = [1; BYTES];
        next.map.read(0, &mut bytes);
        assert_eq!(bytes, [0; BYTES]);
    }

    #[test]
    fn a_key_takes_the_place_of_both_and_one_that_is_too_long_of_none() {
        let cell = KeyCell::new().unwrap();
        for kept in ["canary-7f3a", "canary-8e2b", "canary-8e2b"] {
            cell.put(&key(kept));
            assert_eq!(keys(&cell), [kept.as_bytes()]);
        }
        cell.put_beside(&key("canary-9d1c"));
        cell.put(&key("canary-9d1c"));
        assert_eq!(keys(&cell), [b"canary-9d1c"]);
        cell.put(&key(&"x".repeat(MAX_KEY + 1)));
        assert!(keys(&cell).is_empty(), "no other key is left for it");
    }
}
