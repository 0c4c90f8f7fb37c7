//! What a server leaves to the next one, in memory that somebody else holds: the saved handshake,
//! the nodes and handles that the kernel knows, and which requests were in hand.
//!
//! Nothing in it is a secret: names, numbers and positions. Whatever is stored is whole at any
//! instant, for a server may be killed between any two instructions. One server at a time uses it.

mod events;
mod handles;
mod nodes;
mod work;

use std::ffi::CStr;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

pub(super) use events::{EventMark, EventMarks};
pub(super) use handles::{Fate, HandleSlots, Kept, KeptKind, Traits};
pub(super) use nodes::NodeLog;
pub(super) use work::{InHand, Queued, Work};

use crate::system::{SharedMap, shared_memory};

const NAME: &CStr = c"secretfs-journal";

/// Changes with the layout: a server that does not know it cannot take over.
const FORMAT: u64 = 0x7365_6372_6574_0001;

// The header, in words.
const AT_FORMAT: usize = 0;
const AT_GENERATION: usize = 8;
const AT_MOUNT: usize = 16;
/// The last line of the audit log that a request may have written.
const AT_SEQ: usize = 24;
const AT_INIT_LEN: usize = 32;
const AT_INIT_ANSWERED: usize = 40;
const AT_INIT: usize = 64;
const MAX_INIT: usize = 1024;

// The parts, page by page.
const EVENTS: usize = 4096;
const WORK: usize = 2 * 4096;
const HANDLES: usize = WORK + work::BYTES;
const NODES: usize = HANDLES + handles::BYTES;
const BYTES: usize = NODES + nodes::BYTES;

/// The memory with its parts.
pub struct Journal {
    memory: OwnedFd,
    map: Arc<SharedMap>,
}

impl Journal {
    /// Makes an empty one, for a mount that is made now.
    pub fn new() -> io::Result<Self> {
        let memory = shared_memory(NAME, BYTES as u64)?;
        let map = SharedMap::of(&memory, BYTES)?;
        let mut mount = [0; 8];
        getrandom::fill(&mut mount).map_err(io::Error::other)?;
        map.store(AT_MOUNT, u64::from_le_bytes(mount));
        map.store(AT_FORMAT, FORMAT);
        Ok(Self { memory, map: Arc::new(map) })
    }

    /// Takes one over. Errors: `InvalidData` for one of another layout.
    pub fn from_memory(memory: OwnedFd) -> io::Result<Self> {
        let map = SharedMap::of(&memory, BYTES)?;
        if map.load(AT_FORMAT) != FORMAT {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(Self { memory, map: Arc::new(map) })
    }

    /// Returns the descriptor, for whoever is to keep it.
    pub fn memory(&self) -> &impl AsFd {
        &self.memory
    }

    /// Counts one more server. Returns its number, from 1.
    pub fn begin_generation(&self) -> u64 {
        let generation = self.generation() + 1;
        self.map.store(AT_GENERATION, generation);
        generation
    }

    /// Returns the number of the server that uses it.
    pub fn generation(&self) -> u64 {
        self.map.load(AT_GENERATION)
    }

    /// Returns the mount's own number, which no other mount has.
    pub fn mount(&self) -> u64 {
        self.map.load(AT_MOUNT)
    }

    /// Returns what notes the place of each audit line; to be called in the order of the lines.
    pub fn seq_note(&self) -> impl Fn(u64) + Send + Sync + 'static {
        let map = Arc::clone(&self.map);
        move |seq| map.store(AT_SEQ, seq)
    }

    /// Returns the kernel's first request, if there was one.
    pub(super) fn init(&self) -> Option<Vec<u8>> {
        let len = usize::try_from(self.map.load(AT_INIT_LEN)).ok()?;
        let mut init = vec![0; len.min(MAX_INIT)];
        self.map.read(AT_INIT, &mut init);
        (len > 0).then_some(init)
    }

    /// Keeps the kernel's first request. Errors: `InvalidData` for one that is too long.
    pub(super) fn save_init(&self, init: &[u8]) -> io::Result<()> {
        if init.len() > MAX_INIT {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.map.write(AT_INIT, init);
        self.map.store(AT_INIT_LEN, init.len() as u64);
        Ok(())
    }

    /// Tells whether the kernel has got the answer to its first request.
    pub fn is_mounted(&self) -> bool {
        self.map.load(AT_INIT_ANSWERED) != 0
    }

    pub(super) fn init_answered(&self) {
        self.map.store(AT_INIT_ANSWERED, 1);
    }

    pub(super) fn work(&self) -> Work {
        Work::new(Arc::clone(&self.map))
    }

    pub(super) fn handles(&self) -> HandleSlots {
        HandleSlots::new(Arc::clone(&self.map), self.generation())
    }

    pub(super) fn nodes(&self) -> NodeLog {
        NodeLog::new(Arc::clone(&self.map))
    }

    pub(super) fn events(&self) -> EventMarks {
        EventMarks::new(Arc::clone(&self.map))
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("generation", &self.generation()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_server_finds_the_mount_and_the_handshake_and_gets_a_number_of_its_own() {
        let first = Journal::new().unwrap();
        assert_eq!((first.begin_generation(), first.init()), (1, None));
        first.save_init(b"hello").unwrap();
        assert!(first.save_init(&[0; MAX_INIT + 1]).is_err());
        let next =
            Journal::from_memory(first.memory().as_fd().try_clone_to_owned().unwrap()).unwrap();
        assert_eq!(next.init().unwrap(), b"hello");
        assert_eq!((next.mount(), next.begin_generation()), (first.mount(), 2));
        assert!(!next.is_mounted());
        next.init_answered();
        assert!(first.is_mounted());
    }

    #[test]
    fn memory_of_another_layout_is_not_taken_over() {
        let memory = shared_memory(NAME, BYTES as u64).unwrap();
        assert!(Journal::from_memory(memory).is_err());
    }
}
