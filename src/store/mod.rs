//! Encrypted records at rest: ordered tables of opaque bytes with atomic, durable commits.
//!
//! The store knows nothing of keys or secrets; what it is given is sealed already. It promises that
//! a commit is wholly there or wholly not after any crash, and nothing about bytes that an attacker
//! or a bad disk has changed: the layer above authenticates every record and the set of them.
#![forbid(unsafe_code)]

use std::ops::ControlFlow;

mod backend;
mod checkpoint;
mod contain;
mod journal;
mod journaled;
mod memory;
mod overlay;
mod redb;
mod staged;

#[cfg(test)]
#[expect(clippy::print_stdout, reason = "a campaign says what it has seen")]
pub(crate) mod tests;

pub use self::journaled::{JournaledStore, Options, journal_of};
pub use self::memory::{FailedCommit, MemoryStore};
pub use self::redb::RedbStore;

/// The tables. The numbers are stored; do not reuse one.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Table {
    /// Format, store id and key slots, under the key `header`.
    Header = 0,
    /// The sealed keyring, under the key `keyring`.
    Keyring = 1,
    /// The authenticated root of the record set, under the key `root`.
    Root = 2,
    /// One sealed record a secret or made directory, under its 16-byte id.
    Records = 3,
    /// One sealed value a version, under the secret's id and the version as 8 bytes, big-endian.
    Values = 4,
    /// Older versions of secrets, a sealed page of them an entry, under an id that is the page's own. No start reads them.
    Pages = 5,
}

impl Table {
    pub const ALL: [Self; 6] =
        [Self::Header, Self::Keyring, Self::Root, Self::Records, Self::Values, Self::Pages];
    /// Those whose entries are sealed under an epoch.
    pub const SEALED: [Self; 3] = [Self::Records, Self::Pages, Self::Values];
}

/// Called for each entry of a scan.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// A consistent view of the store.
pub trait Snapshot {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;
    /// Visits the entries whose key starts with `prefix`, in key order.
    fn scan(&self, table: Table, prefix: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError>;
    /// Returns the number of entries in a table.
    fn len(&self, table: Table) -> Result<u64, StoreError>;
}

/// The one open write transaction. Dropped without `commit`, it leaves no trace.
pub trait Txn {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;
    /// Returns the value that was there before.
    fn put(
        &mut self,
        table: Table,
        key: &[u8],
        value: &[u8],
    ) -> Result<Option<Vec<u8>>, StoreError>;
    /// As [`put`](Self::put), for whoever knows already what was there before.
    fn set(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.put(table, key, value).map(drop)
    }
    /// Returns the value that was there before.
    fn delete(&mut self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;
    /// Removes all entries of all tables.
    fn clear(&mut self) -> Result<(), StoreError>;
    /// Returns once everything is durable.
    fn commit(self: Box<Self>) -> Result<(), StoreError>;
}

/// A store. `Send + Sync`; one writer at a time, readers never wait for it.
pub trait Store: Send + Sync {
    /// Reads one entry as of the last commit.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;
    /// Opens a consistent view. Do not keep it across requests: it stops the reuse of space.
    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, StoreError>;
    /// Starts the write transaction; waits for another one to end.
    fn begin(&self) -> Result<Box<dyn Txn + '_>, StoreError>;
    /// After a failed commit: closes and opens the file anew, so that what is on disk decides
    /// whether the commit happened. Until then `begin` returns `Broken`; reads go on.
    fn recover(&self) -> Result<(), StoreError>;
    /// Returns once what was found at the opening is durable: a process that was killed may have left a commit that
    /// is not. Until then it must be shown to nobody.
    fn await_durable(&self) -> Result<(), StoreError> {
        Ok(())
    }
    /// At the end: takes to the store's own file what only its journal holds. A store without a
    /// journal has nothing to do.
    fn settle(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Why the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// An earlier read or write of the file failed. If it was a commit, its outcome is unknown
    /// until `recover`.
    #[error("the store must be recovered after a failed read or write")]
    Broken,
    /// The file is not a store, or is damaged beyond reading.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// The file cannot be read or written; of kind `StorageFull` where the disk is full. After a
    /// commit, its outcome is unknown until `recover`.
    #[error("the store cannot be read or written")]
    Io(#[from] std::io::Error),
    /// Another process, or another handle of this one, has it open.
    #[error("another process has the store open")]
    Locked,
}
