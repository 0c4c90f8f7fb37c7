//! The one type that holds plaintext, and the buffer in which plaintext is put together.
//!
//! Their bytes lie in memory that is locked (never swapped out), left out of core dumps, empty in a
//! forked child, and wiped at the moment it is given back. Whoever holds such bytes may lend them
//! out with `expose` and must not copy them to any other place.
//!
//! A child made by fork(2) without execve(2) finds zeros in every [`SecretBytes`]: fork first, then
//! load secrets.

use std::fmt;

use subtle::ConstantTimeEq;

mod arena;
mod locked;
mod stack;
#[cfg(test)]
mod tests;

use arena::Block;
pub use arena::{LockState, lock_state, require_lock};
pub use locked::Locked;
pub use stack::with_clean_stack;

/// Plaintext of a fixed length, wiped when dropped.
pub struct SecretBytes {
    block: Block,
    len: usize,
}

impl SecretBytes {
    /// Copies `bytes`; the caller remains answerable for wiping the original.
    pub fn copy_from(bytes: &[u8]) -> Result<Self, MemoryError> {
        Self::with_len(bytes.len(), |room| {
            room.copy_from_slice(bytes);
            Ok(bytes.len())
        })
    }

    /// Has `fill` write into `len` zero bytes and keeps as many as it says; the rest is wiped.
    pub fn with_len<E: From<MemoryError>>(
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<Self, E> {
        let mut block = Block::zeroed(len)?;
        let room = block.as_mut_slice().get_mut(..len).unwrap_or_default();
        let kept = fill(room)?.min(len);
        block.wipe(kept, len);
        Ok(Self { block, len: kept })
    }

    /// Lends out the plaintext.
    pub fn expose(&self) -> &[u8] {
        self.block.as_slice().get(..self.len).unwrap_or_default()
    }

    /// Returns the length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Tells whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Compares in a time that depends on the lengths alone.
    #[must_use]
    pub fn constant_time_eq(&self, other: &Self) -> bool {
        self.expose().ct_eq(other.expose()).into()
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretBytes(..)")
    }
}

/// Plaintext that is still being written; grows as needed and leaves no copy behind.
pub struct SecretBuffer {
    // Bytes of the block from `len` on are zero at all times, so that growing shows nothing old.
    block: Block,
    len: usize,
}

impl SecretBuffer {
    /// Returns a buffer without bytes or memory.
    pub const fn new() -> Self {
        Self { block: Block::EMPTY, len: 0 }
    }

    /// Writes `data` at `offset`, as pwrite(2) does: a hole before it reads as zeros.
    pub fn write_at(&mut self, offset: usize, data: &[u8]) -> Result<(), MemoryError> {
        let end = offset.checked_add(data.len()).ok_or(MemoryError::NoMemory)?;
        if data.is_empty() {
            return Ok(());
        }
        self.reserve(end)?;
        if let Some(room) = self.block.as_mut_slice().get_mut(offset..end) {
            room.copy_from_slice(data);
        }
        self.len = self.len.max(end);
        Ok(())
    }

    /// Sets the length, as ftruncate(2) does: what is cut off is wiped, what is added is zeros.
    pub fn truncate(&mut self, len: usize) -> Result<(), MemoryError> {
        self.reserve(len)?;
        self.block.wipe(len, self.len);
        self.len = len;
        Ok(())
    }

    /// Lends out the plaintext.
    pub fn expose(&self) -> &[u8] {
        self.block.as_slice().get(..self.len).unwrap_or_default()
    }

    /// Returns the length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Tells whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Ends the writing; nothing is copied.
    pub fn into_bytes(self) -> SecretBytes {
        SecretBytes { block: self.block, len: self.len }
    }

    fn reserve(&mut self, len: usize) -> Result<(), MemoryError> {
        if len <= self.block.as_slice().len() {
            return Ok(());
        }
        // Doubling keeps a long row of small writes from copying the whole each time.
        let mut grown = Block::zeroed(len.checked_next_power_of_two().unwrap_or(len))?;
        if let Some(room) = grown.as_mut_slice().get_mut(..self.len) {
            room.copy_from_slice(self.expose());
        }
        // The old block is wiped as it is dropped.
        self.block = grown;
        Ok(())
    }
}

impl Default for SecretBuffer {
    fn default() -> Self {
        Self::new()
    }
}

impl From<SecretBytes> for SecretBuffer {
    fn from(bytes: SecretBytes) -> Self {
        Self { block: bytes.block, len: bytes.len }
    }
}

impl fmt::Debug for SecretBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretBuffer(..)")
    }
}

/// Why there is no memory for a secret.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum MemoryError {
    #[error("there is no memory for a secret")]
    NoMemory,
    #[error(
        "memory for secrets cannot be locked: raise RLIMIT_MEMLOCK (LimitMEMLOCK= in the unit)"
    )]
    NotLocked,
}

impl From<MemoryError> for std::io::Error {
    fn from(error: MemoryError) -> Self {
        Self::new(std::io::ErrorKind::OutOfMemory, error)
    }
}
