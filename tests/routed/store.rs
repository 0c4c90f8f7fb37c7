//! A store that can refuse commits, as a full disk does, and be copied as a crash would leave it.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "shared by tests of which each uses a part"
)]

use std::ops::ControlFlow;
use std::path::Path;

use parking_lot::Mutex;
use secretfs::store::{FailedCommit, MemoryStore, Snapshot, Store, StoreError, Table, Txn};

/// A store that can refuse commits, as a full disk does, and is looked at after each.
pub struct Watched {
    pub inner: MemoryStore,
    /// How many commits go well before those that fail, and how many fail.
    pub full: Mutex<Option<(u32, u32, FailedCommit)>>,
}

impl Store for Watched {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.get(table, key)
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, StoreError> {
        self.inner.snapshot()
    }

    fn begin(&self) -> Result<Box<dyn Txn + '_>, StoreError> {
        if let Some((left, fails, outcome)) = &mut *self.full.lock() {
            match left.checked_sub(1) {
                Some(rest) => *left = rest,
                None if *fails > 0 => {
                    *fails -= 1;
                    self.inner.fail_next_commit(*outcome);
                }
                None => {}
            }
        }
        self.inner.begin()
    }

    fn recover(&self) -> Result<(), StoreError> {
        self.inner.recover()
    }
}

/// Returns another store with the same entries: what a crash at this moment would leave.
pub fn copy(store: &dyn Store) -> MemoryStore {
    let other = MemoryStore::new();
    let mut txn = other.begin().unwrap();
    let snapshot = store.snapshot().unwrap();
    for table in Table::ALL {
        snapshot
            .scan(table, &[], &mut |key, value| {
                txn.put(table, key, value).unwrap();
                ControlFlow::Continue(())
            })
            .unwrap();
    }
    txn.commit().unwrap();
    other
}

/// Returns a directory with what a directory's audit log has at this moment.
pub fn copy_log(directory: &Path) -> tempfile::TempDir {
    let other = tempfile::tempdir().unwrap();
    std::fs::create_dir(other.path().join("audit")).unwrap();
    for file in std::fs::read_dir(directory.join("audit")).unwrap() {
        let path = file.unwrap().path();
        std::fs::copy(&path, other.path().join("audit").join(path.file_name().unwrap())).unwrap();
    }
    other
}
