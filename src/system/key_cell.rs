//! A key in memory that outlives the process, for the next one to take.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::memfd::{KeyMemory, key_memory, key_memory_kind};
use super::{MemoryError, SecretBytes, SharedMap};

/// One page: the least that is mapped.
const BYTES: usize = 4096;
/// Where the key's length stands; 0: there is none.
const LEN: usize = 0;
const KEY: usize = 64;
const MAX_KEY: usize = 64;

/// Room for one key.
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

    /// Puts a key in; one that is too long is left out.
    pub fn put(&self, key: &SecretBytes) {
        self.wipe();
        if key.len() <= MAX_KEY {
            self.map.write(KEY, key.expose());
            self.map.store(LEN, key.len() as u64);
        }
    }

    /// Copies the key out, if there is one.
    pub fn get(&self) -> Result<Option<SecretBytes>, MemoryError> {
        let len = usize::try_from(self.map.load(LEN)).unwrap_or(0);
        if !(1..=MAX_KEY).contains(&len) {
            return Ok(None);
        }
        SecretBytes::with_len(len, |room| {
            self.map.read(KEY, room);
            Ok(room.len())
        })
        .map(Some)
    }

    /// Forgets the key.
    pub fn wipe(&self) {
        self.map.store(LEN, 0);
        self.map.write(KEY, &[0; MAX_KEY]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_holder_finds_the_key_until_it_is_wiped() {
        let first = KeyCell::new().unwrap();
        assert!(first.get().unwrap().is_none());
        first.put(&SecretBytes::copy_from(b"canary-7f3a").unwrap());
        let handed_over = first.memory().as_fd().try_clone_to_owned().unwrap();
        drop(first);
        let next = KeyCell::from_memory(handed_over).unwrap();
        assert_eq!(next.get().unwrap().unwrap().expose(), b"canary-7f3a");
        next.wipe();
        assert!(next.get().unwrap().is_none());
        let mut bytes = [1; MAX_KEY];
        next.map.read(KEY, &mut bytes);
        assert_eq!(bytes, [0; MAX_KEY]);
    }
}
