//! Locked memory, handed out in blocks of a few sizes without a system call.
//!
//! A block that is free is all zeros: fresh pages are, and a block is wiped before it goes back. So
//! a block needs no clearing when it is taken. Slabs are never unmapped; the memory held is that of
//! the busiest moment. Blocks above 64 KiB have a mapping of their own.

use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::MemoryError;

/// Smallest block in bytes: a cache line, so that two secrets never share one.
const SMALLEST: usize = 64;
/// Sizes of blocks: 64 bytes, doubling up to 64 KiB.
const CLASSES: usize = 11;
/// Size in bytes of a slab of small blocks. All classes together fit well below the 8 MiB that
/// distributions allow an ordinary process to lock.
const SLAB_BYTES: usize = 32 * 1024;
const PAGE_BYTES: usize = 4096;

/// Holds plaintext.
static SECRETS: Arena = Arena::new(OnFork::Wipe);
/// Holds key schedules, which are not mere bytes: a forked child must not find them zeroed.
pub(super) static KEYS: Arena = Arena::new(OnFork::Keep);
static LOCK_REQUIRED: AtomicBool = AtomicBool::new(false);

/// How much of the memory for secrets is locked, in bytes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, serde::Serialize)]
pub struct LockState {
    pub locked_bytes: usize,
    /// May be written to swap, because of RLIMIT_MEMLOCK.
    pub unlocked_bytes: usize,
}

/// Returns how much of the memory for secrets is locked so far.
pub fn lock_state() -> LockState {
    let (secrets, keys) = (SECRETS.lock_state(), KEYS.lock_state());
    LockState {
        locked_bytes: secrets.locked_bytes + keys.locked_bytes,
        unlocked_bytes: secrets.unlocked_bytes + keys.unlocked_bytes,
    }
}

/// Sets whether memory that cannot be locked is an error from now on; the default is that it is
/// used. Fails with `NotLocked`, and requires it nevertheless, when some is in use already.
pub fn require_lock(required: bool) -> Result<(), MemoryError> {
    LOCK_REQUIRED.store(required, Ordering::SeqCst);
    if required && lock_state().unlocked_bytes > 0 {
        return Err(MemoryError::NotLocked);
    }
    Ok(())
}

/// What a child made by fork(2) finds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum OnFork {
    Keep,
    Wipe,
}

/// Bytes of the arena of secrets, owned by one holder and wiped when dropped.
pub(super) struct Block(RawBlock);

impl Block {
    /// A block without bytes.
    pub(super) const EMPTY: Self = Self(RawBlock { start: NonNull::dangling(), size: 0 });

    /// Returns a block of at least `len` bytes, all zero.
    pub(super) fn zeroed(len: usize) -> Result<Self, MemoryError> {
        if len == 0 { Ok(Self::EMPTY) } else { SECRETS.take(len).map(Self) }
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        // SAFETY: the block is `size` initialised bytes (or dangling with size 0) that are ours
        // alone until it is put back.
        unsafe { slice::from_raw_parts(self.0.start.as_ptr(), self.0.size) }
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, and `&mut self` excludes other borrows.
        unsafe { slice::from_raw_parts_mut(self.0.start.as_ptr(), self.0.size) }
    }

    /// Overwrites the bytes `from..to` with zeros; does nothing when the range is empty.
    pub(super) fn wipe(&mut self, from: usize, to: usize) {
        if let Some(range) = self.as_mut_slice().get_mut(from..to) {
            wipe(range);
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if self.0.size > 0 {
            SECRETS.put(RawBlock { start: self.0.start, size: self.0.size });
        }
    }
}

// SAFETY: a block is plain memory with one owner; nothing ties it to a thread.
unsafe impl Send for Block {}
// SAFETY: shared access is reading only.
unsafe impl Sync for Block {}

/// Where a block starts and its whole size in bytes. Whoever has it must `put` it back.
pub(super) struct RawBlock {
    pub(super) start: NonNull<u8>,
    size: usize,
}

/// A free block of a known size.
struct Free(NonNull<u8>);

// SAFETY: a free block is plain memory that nobody refers to.
unsafe impl Send for Free {}

#[derive(Default)]
struct Class {
    free: Vec<Free>,
    /// Free or taken.
    blocks: usize,
}

pub(super) struct Arena {
    on_fork: OnFork,
    classes: [Mutex<Class>; CLASSES],
    locked_bytes: AtomicUsize,
    unlocked_bytes: AtomicUsize,
}

impl Arena {
    pub(super) const fn new(on_fork: OnFork) -> Self {
        Self {
            on_fork,
            classes: [const { Mutex::new(Class { free: Vec::new(), blocks: 0 }) }; CLASSES],
            locked_bytes: AtomicUsize::new(0),
            unlocked_bytes: AtomicUsize::new(0),
        }
    }

    /// Takes a block of at least `len` bytes, all zero, aligned to at least [`SMALLEST`].
    pub(super) fn take(&self, len: usize) -> Result<RawBlock, MemoryError> {
        let Some((class, size)) = self.class(len) else {
            let size = len.checked_next_multiple_of(PAGE_BYTES).ok_or(MemoryError::NoMemory)?;
            return Ok(RawBlock { start: self.map(size)?, size });
        };
        let mut class = class.lock();
        if class.free.is_empty() {
            self.grow(&mut class, size)?;
        }
        let Free(start) = class.free.pop().ok_or(MemoryError::NoMemory)?;
        Ok(RawBlock { start, size })
    }

    /// Wipes a block and takes it back.
    pub(super) fn put(&self, block: RawBlock) {
        // SAFETY: the caller gives up the block, which is `size` bytes from this arena.
        wipe(unsafe { slice::from_raw_parts_mut(block.start.as_ptr(), block.size) });
        match self.class(block.size) {
            // `grow` has reserved the room, so this does not allocate.
            Some((class, _)) => class.lock().free.push(Free(block.start)),
            None => self.unmap(&block),
        }
    }

    fn lock_state(&self) -> LockState {
        LockState {
            locked_bytes: self.locked_bytes.load(Ordering::Relaxed),
            unlocked_bytes: self.unlocked_bytes.load(Ordering::Relaxed),
        }
    }

    /// Returns the class that holds blocks of `len` bytes, and their true size.
    fn class(&self, len: usize) -> Option<(&Mutex<Class>, usize)> {
        let size = len.checked_next_power_of_two()?.max(SMALLEST);
        let index = size.trailing_zeros() - SMALLEST.trailing_zeros();
        Some((self.classes.get(usize::try_from(index).ok()?)?, size))
    }

    fn grow(&self, class: &mut Class, size: usize) -> Result<(), MemoryError> {
        let count = (SLAB_BYTES / size).max(2);
        let slab = self.map(count * size)?;
        class.blocks += count;
        class.free.reserve_exact(class.blocks);
        // In reverse, so that blocks are taken from the front and pages are touched in order.
        for i in (0..count).rev() {
            // SAFETY: `i * size` lies within the slab of `count * size` bytes.
            class.free.push(Free(unsafe { slab.add(i * size) }));
        }
        Ok(())
    }

    fn map(&self, bytes: usize) -> Result<NonNull<u8>, MemoryError> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new anonymous mapping touches no memory in use.
        let start = unsafe { libc::mmap(ptr::null_mut(), bytes, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(MemoryError::NoMemory);
        }
        let block = RawBlock {
            start: NonNull::new(start.cast()).ok_or(MemoryError::NoMemory)?,
            size: bytes,
        };
        if let Err(error) = self.protect(&block) {
            // Not counted yet, so not `unmap`.
            // SAFETY: the mapping was made above and nobody else knows of it.
            unsafe { libc::munmap(start, bytes) };
            return Err(error);
        }
        Ok(block.start)
    }

    /// Keeps a mapping out of core dumps, forked children and swap, and counts it.
    fn protect(&self, block: &RawBlock) -> Result<(), MemoryError> {
        let start = block.start.as_ptr().cast();
        let advise = |advice| {
            // SAFETY: the range is one whole mapping of ours; the advice changes no content of it.
            let result = unsafe { libc::madvise(start, block.size, advice) };
            if result == 0 { Ok(()) } else { Err(MemoryError::NoMemory) }
        };
        advise(libc::MADV_DONTDUMP)?;
        if self.on_fork == OnFork::Wipe {
            advise(libc::MADV_WIPEONFORK)?;
        }
        // SAFETY: as above; locking changes no content.
        if unsafe { libc::mlock(start, block.size) } == 0 {
            self.locked_bytes.fetch_add(block.size, Ordering::Relaxed);
            Ok(())
        } else if LOCK_REQUIRED.load(Ordering::SeqCst) {
            Err(MemoryError::NotLocked)
        } else {
            self.unlocked_bytes.fetch_add(block.size, Ordering::Relaxed);
            Ok(())
        }
    }

    fn unmap(&self, block: &RawBlock) {
        // Whether this mapping was locked is not kept: unlocked ones exist only once the limit is
        // reached, and those made last are counted as the first to go.
        let below = |n: usize| n.checked_sub(block.size);
        if self.unlocked_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, below).is_err() {
            self.locked_bytes.fetch_sub(block.size, Ordering::Relaxed);
        }
        // SAFETY: the block is a whole mapping made by `map`, and its holder gave it up.
        unsafe { libc::munmap(block.start.as_ptr().cast(), block.size) };
    }
}

/// Overwrites with zeros in a way that the compiler may not leave out.
fn wipe(bytes: &mut [u8]) {
    // SAFETY: the pointer and the length are those of a valid, exclusive slice.
    unsafe { libc::explicit_bzero(bytes.as_mut_ptr().cast(), bytes.len()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Size in bytes of the largest block that comes from a slab.
    const LARGEST: usize = SMALLEST << (CLASSES - 1);

    fn bytes(block: &RawBlock) -> &[u8] {
        // SAFETY: slabs are never unmapped, so the block is readable also after it was put back,
        // and the arena is the test's own.
        unsafe { slice::from_raw_parts(block.start.as_ptr(), block.size) }
    }

    #[test]
    fn a_block_is_zero_at_the_moment_it_is_put_back() {
        let arena = Arena::new(OnFork::Wipe);
        for len in [1, 64, 65, 500, 4096, LARGEST] {
            let block = arena.take(len).unwrap();
            let seen = RawBlock { start: block.start, size: block.size };
            // SAFETY: the block is ours and holds `size` bytes.
            unsafe { ptr::write_bytes(block.start.as_ptr(), 0xa5, block.size) };
            assert!(bytes(&seen).iter().all(|&b| b == 0xa5));
            arena.put(block);
            assert!(bytes(&seen).iter().all(|&b| b == 0), "{len}");
        }
    }

    #[test]
    fn blocks_never_overlap_and_are_used_again() {
        let arena = Arena::new(OnFork::Keep);
        for len in [64, 300, LARGEST, LARGEST + 1] {
            let mut blocks: Vec<_> = (0..100).map(|_| arena.take(len).unwrap()).collect();
            blocks.sort_by_key(|block| block.start);
            for pair in blocks.windows(2) {
                assert!(pair[0].start.addr().get() + pair[0].size <= pair[1].start.addr().get());
                assert!(pair[0].size >= len);
            }
            let held = arena.lock_state();
            blocks.drain(..).for_each(|block| arena.put(block));
            (0..100).for_each(|_| arena.put(arena.take(len).unwrap()));
            let after = arena.lock_state();
            assert!(
                after.locked_bytes + after.unlocked_bytes
                    <= held.locked_bytes + held.unlocked_bytes
            );
        }
    }
}
