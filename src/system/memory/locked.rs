//! A value of any type in locked memory: a place for key schedules, which are not mere bytes.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::NonNull;

use super::MemoryError;
use super::arena::{KEYS, RawBlock};

/// Owns a `T` in memory that is locked, not dumped, and wiped when dropped.
pub struct Locked<T> {
    // `None` only while dropping.
    block: Option<RawBlock>,
    value: NonNull<T>,
    owns: PhantomData<T>,
}

impl<T> Locked<T> {
    // Blocks are aligned to 64 bytes.
    const ALIGNED: () = assert!(align_of::<T>() <= 64 && size_of::<T>() > 0);

    /// Moves `value` into locked memory; a trace of it may stay on the stack of the caller.
    pub fn new(value: T) -> Result<Self, MemoryError> {
        let () = Self::ALIGNED;
        let block = KEYS.take(size_of::<T>())?;
        let place = block.start.cast::<T>();
        // SAFETY: the block has room for a `T`, is aligned for it, and is ours alone.
        unsafe { place.write(value) };
        Ok(Self { block: Some(block), value: place, owns: PhantomData })
    }
}

impl<T> Deref for Locked<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: `new` wrote a valid `T` there, which lives until `drop`.
        unsafe { self.value.as_ref() }
    }
}

impl<T> Drop for Locked<T> {
    fn drop(&mut self) {
        // SAFETY: the value is valid and is not used after this.
        unsafe { self.value.drop_in_place() };
        if let Some(block) = self.block.take() {
            KEYS.put(block);
        }
    }
}

impl<T> fmt::Debug for Locked<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Locked(..)")
    }
}

// SAFETY: a `Locked<T>` owns its `T` as a `Box<T>` does.
unsafe impl<T: Send> Send for Locked<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Locked<T> {}
