//! The store in memory: the reference that [`RedbStore`](super::RedbStore) is compared with.
//!
//! It keeps nothing across a restart. A test can make its next commit fail either way, to see what
//! the layers above make of a commit whose outcome is unknown.

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard, RwLock};

use super::{Snapshot, Store, StoreError, Table, Txn, Visit};

type Tables = BTreeMap<Table, BTreeMap<Vec<u8>, Vec<u8>>>;

/// A store that lives as long as its handle.
#[derive(Debug, Default)]
pub struct MemoryStore {
    /// What readers read. Taken after `writer`.
    current: RwLock<Arc<Tables>>,
    /// Held by the open write transaction, and by a recovery.
    writer: Mutex<Writer>,
}

/// What became of a commit that reported a failure.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FailedCommit {
    /// It is there after the recovery.
    Applied,
    /// It left no trace.
    Lost,
}

#[derive(Debug, Default)]
struct Writer {
    fail_next: Option<FailedCommit>,
    /// Set by a failed commit: what the recovery will find.
    broken: Option<Arc<Tables>>,
}

impl MemoryStore {
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the next commit fail, with that outcome. Waits for an open transaction to end.
    pub fn fail_next_commit(&self, outcome: FailedCommit) {
        self.writer.lock().fail_next = Some(outcome);
    }
}

impl Store for MemoryStore {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(get(&self.current.read(), table, key))
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, StoreError> {
        Ok(Box::new(View(Arc::clone(&self.current.read()))))
    }

    fn begin(&self) -> Result<Box<dyn Txn + '_>, StoreError> {
        let writer = self.writer.lock();
        if writer.broken.is_some() {
            return Err(StoreError::Broken);
        }
        let tables = Tables::clone(&self.current.read());
        Ok(Box::new(MemoryTxn { store: self, writer, tables }))
    }

    fn recover(&self) -> Result<(), StoreError> {
        let mut writer = self.writer.lock();
        if let Some(found) = writer.broken.take() {
            *self.current.write() = found;
        }
        Ok(())
    }
}

struct View(Arc<Tables>);

impl Snapshot for View {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(get(&self.0, table, key))
    }

    fn scan(&self, table: Table, prefix: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let Some(entries) = self.0.get(&table) else { return Ok(()) };
        for (key, value) in entries.range(prefix.to_vec()..) {
            if !key.starts_with(prefix) || visit(key, value) == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }

    fn len(&self, table: Table) -> Result<u64, StoreError> {
        Ok(self.0.get(&table).map_or(0, |entries| entries.len() as u64))
    }
}

struct MemoryTxn<'a> {
    store: &'a MemoryStore,
    writer: MutexGuard<'a, Writer>,
    tables: Tables,
}

impl Txn for MemoryTxn<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(get(&self.tables, table, key))
    }

    fn put(
        &mut self,
        table: Table,
        key: &[u8],
        value: &[u8],
    ) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.tables.entry(table).or_default().insert(key.to_vec(), value.to_vec()))
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.tables.get_mut(&table).and_then(|entries| entries.remove(key)))
    }

    fn clear(&mut self) -> Result<(), StoreError> {
        self.tables.clear();
        Ok(())
    }

    fn commit(self: Box<Self>) -> Result<(), StoreError> {
        let Self { store, mut writer, tables } = *self;
        let found = match writer.fail_next.take() {
            None => {
                *store.current.write() = Arc::new(tables);
                return Ok(());
            }
            Some(FailedCommit::Applied) => Arc::new(tables),
            Some(FailedCommit::Lost) => Arc::clone(&store.current.read()),
        };
        writer.broken = Some(found);
        Err(StoreError::Io(io::Error::other("the commit was told to fail")))
    }
}

fn get(tables: &Tables, table: Table, key: &[u8]) -> Option<Vec<u8>> {
    tables.get(&table)?.get(key).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after_a_failed_commit(outcome: FailedCommit) -> MemoryStore {
        let store = MemoryStore::new();
        store.fail_next_commit(outcome);
        let mut txn = store.begin().unwrap();
        txn.put(Table::Root, b"k", b"v").unwrap();
        assert!(matches!(txn.commit(), Err(StoreError::Io(_))));
        store
    }

    #[test]
    fn a_failed_commit_refuses_writers_and_keeps_readers_where_they_were() {
        for outcome in [FailedCommit::Applied, FailedCommit::Lost] {
            let store = after_a_failed_commit(outcome);
            assert!(matches!(store.begin().err(), Some(StoreError::Broken)));
            assert_eq!(store.get(Table::Root, b"k").unwrap(), None);
        }
    }

    #[test]
    fn recovery_keeps_what_was_applied_and_nothing_else() {
        for (outcome, found) in
            [(FailedCommit::Applied, Some(b"v".to_vec())), (FailedCommit::Lost, None)]
        {
            let store = after_a_failed_commit(outcome);
            store.recover().unwrap();
            assert_eq!(store.get(Table::Root, b"k").unwrap(), found);
        }
    }

    #[test]
    fn only_the_next_commit_fails() {
        let store = after_a_failed_commit(FailedCommit::Lost);
        store.recover().unwrap();
        store.begin().unwrap().commit().unwrap();
    }
}
