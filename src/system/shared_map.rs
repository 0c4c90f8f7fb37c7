//! A mapping of memory that outlives this process.
//!
//! Access is total: what lies outside of the mapping reads as zero and is not written. Numbers are
//! stored and loaded whole, so that a process that dies between two instructions never leaves half
//! of one.

use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// The mapping; its descriptor may be closed.
pub struct SharedMap {
    start: NonNull<u8>,
    len: usize,
}

impl SharedMap {
    /// Maps the first `len` bytes. Errors: the memory is smaller.
    pub fn of(memory: &impl AsFd, len: usize) -> io::Result<Self> {
        let size = nix::sys::stat::fstat(memory)?.st_size;
        let fits = usize::try_from(size).is_ok_and(|size| size >= len);
        let length = NonZeroUsize::new(len).filter(|_| fits).ok_or(io::ErrorKind::InvalidData)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no other memory.
        let start = unsafe { mmap(None, length, access, MapFlags::MAP_SHARED, memory, 0)? };
        Ok(Self { start: start.cast(), len })
    }

    /// Stores a number at `offset`, which is a multiple of 8, after all that was stored before.
    pub fn store(&self, offset: usize, number: u64) {
        if let Some(word) = self.word(offset) {
            word.store(number, Ordering::Release);
        }
    }

    /// Loads the number at `offset`.
    pub fn load(&self, offset: usize) -> u64 {
        self.word(offset).map_or(0, |word| word.load(Ordering::Acquire))
    }

    /// Copies bytes in. Nobody else may access that range meanwhile.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        if let Some(place) = self.range(offset, bytes.len()) {
            // SAFETY: the range lies inside of the mapping, and a slice of ours is not in it: the
            // mapping is never lent out as one.
            unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), place.as_ptr(), bytes.len()) };
        }
    }

    /// Copies bytes out. Nobody may write that range meanwhile.
    pub fn read(&self, offset: usize, bytes: &mut [u8]) {
        if let Some(place) = self.range(offset, bytes.len()) {
            // SAFETY: as in `write`.
            unsafe { ptr::copy_nonoverlapping(place.as_ptr(), bytes.as_mut_ptr(), bytes.len()) };
        }
    }

    fn word(&self, offset: usize) -> Option<&AtomicU64> {
        let place = self.range(offset, size_of::<u64>()).filter(|_| offset.is_multiple_of(8))?;
        // SAFETY: the place is inside of the mapping and aligned, for the mapping begins at a page.
        // Other threads and processes access it as an atomic only.
        Some(unsafe { AtomicU64::from_ptr(place.as_ptr().cast()) })
    }

    fn range(&self, offset: usize, len: usize) -> Option<NonNull<u8>> {
        let end = offset.checked_add(len)?;
        // SAFETY: the offset was checked to be inside of the mapping.
        (end <= self.len).then(|| unsafe { self.start.add(offset) })
    }
}

impl Drop for SharedMap {
    fn drop(&mut self) {
        // SAFETY: it is our mapping, and nothing that was borrowed from it outlives `self`.
        let unmapped = unsafe { munmap(self.start.cast(), self.len) };
        debug_assert!(unmapped.is_ok(), "it was mapped");
    }
}

impl fmt::Debug for SharedMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedMap").field("len", &self.len).finish_non_exhaustive()
    }
}

// SAFETY: the mapping is plain memory that belongs to no thread.
unsafe impl Send for SharedMap {}
// SAFETY: numbers are accessed as atomics, and ranges of bytes by one thread at a time, as `write`
// and `read` ask for.
unsafe impl Sync for SharedMap {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::shared_memory;

    #[test]
    fn what_lies_outside_reads_as_zero_and_is_not_written() {
        let memory = shared_memory(c"test", 4096).unwrap();
        let map = SharedMap::of(&memory, 4096).unwrap();
        map.store(4096, 1);
        map.store(4, 1);
        map.write(4090, b"too long");
        map.write(usize::MAX, b"x");
        let mut all = [1; 4096];
        map.read(0, &mut all);
        assert_eq!((all, map.load(4096), map.load(usize::MAX)), ([0; 4096], 0, 0));
    }
}
