//! The store in one redb file, which commits by itself or takes over what a journal holds.
//!
//! redb keeps commits whole through crashes. It does not verify checksums when it reads, and it may
//! panic on a damaged page: every call of it runs in [`contain`], which turns a panic into
//! `Damaged`. A read transaction kept open stops the reuse of pages, so the one that serves `get`
//! is replaced right after each commit and never older than the last one.

use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard, RwLock};
use redb::{
    Builder, Database, Durability, ReadOnlyTable, ReadableDatabase, ReadableTable,
    ReadableTableMetadata, StorageBackend, TableDefinition, TableError, WriteTransaction,
};

use super::backend::{self, Reopen, SharedBackend};
use super::contain::{contain, release};
use super::journal::Progress;
use super::overlay::Layer;
use super::staged::Staged;
use super::{Snapshot, Store, StoreError, Table, Txn, Visit};

/// Memory for cached pages, in bytes: about the live pages of 100,000 records of 300 bytes, and all
/// that the daemon's memory budget leaves to redb.
const CACHE_BYTES: usize = 64 << 20;

/// A store in one file, open for writing by this handle alone.
pub struct RedbStore {
    reopen: Box<Reopen>,
    /// What readers read. `None` after a recovery that failed; locked for writing while one runs,
    /// so that readers wait for it. Taken after `writer`, and dropped before the database, which
    /// can then give back its free space.
    view: RwLock<Option<Arc<View>>>,
    /// Held by the open write transaction, and by a recovery.
    writer: Mutex<Writer>,
}

struct Writer {
    database: Option<Database>,
    /// The backend of the opening, until a recovery makes another one.
    staged: Option<Staged>,
    /// Set when a write may have gone wrong; only a recovery clears it.
    broken: bool,
}

impl RedbStore {
    /// Makes a new, empty store: mode 0600, never over an existing file or through a symbolic link.
    pub fn create(path: &Path) -> Result<Self, StoreError> {
        let file = backend::create_file(path)?;
        let made = backend::over_file(file)
            .and_then(|(first, reopen)| Self::initialize(first, reopen))
            .and_then(|store| backend::sync_directory_of(path).map(|()| store));
        if made.is_err() {
            // Ours, half made and without content: left there it would stop the next attempt.
            if let Err(error) = std::fs::remove_file(path) {
                tracing::warn!(%error, "a half-made store was left behind");
            }
        }
        made
    }

    /// Opens an existing store. `Damaged` if the file is empty, truncated or no store; `Locked` if
    /// it is open elsewhere.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let (first, reopen) = backend::over_file(backend::open_file(path)?)?;
        Self::assemble(first, reopen)
    }

    /// Makes a new store in the backend that `make` returns, which must be empty. A recovery calls
    /// `make` again, once the former backend is closed.
    pub fn create_with_backend<B: StorageBackend>(
        make: impl Fn() -> io::Result<B> + Send + Sync + 'static,
    ) -> Result<Self, StoreError> {
        let reopen = Box::new(move || make().map(SharedBackend::new));
        Self::initialize(reopen()?, reopen)
    }

    /// Opens the store in the backend that `make` returns. A recovery calls `make` again, once the
    /// former backend is closed.
    pub fn open_with_backend<B: StorageBackend>(
        make: impl Fn() -> io::Result<B> + Send + Sync + 'static,
    ) -> Result<Self, StoreError> {
        let reopen = Box::new(move || make().map(SharedBackend::new));
        Self::assemble(reopen()?, reopen)
    }

    /// Starts the write transaction; waits for another one to end.
    pub(super) fn begin_write(&self) -> Result<RedbTxn<'_>, StoreError> {
        let mut writer = self.writer.lock();
        let begun = match &writer.database {
            Some(database) if !writer.broken => contain(|| begin_write(database)),
            _ => Err(StoreError::Broken),
        };
        match begun {
            Ok(txn) => Ok(RedbTxn { store: self, writer, txn: Some(txn) }),
            Err(error) => {
                writer.broken = true;
                Err(error)
            }
        }
    }

    /// Returns how far a journal was taken over; `None` before one was ever used.
    pub(super) fn progress(&self) -> Result<Option<Progress>, StoreError> {
        let writer = self.writer.lock();
        let database = writer.database.as_ref().ok_or(StoreError::Broken)?;
        let found = contain(|| {
            let table = match database.begin_read()?.open_table(PROGRESS) {
                Err(TableError::TableDoesNotExist(_)) => return Ok(None),
                table => table?,
            };
            Ok(table.get(PROGRESS_KEY)?.map(|value| value.value().to_vec()))
        })?;
        found.map(|bytes| Progress::decode(&bytes)).transpose()
    }

    /// Returns the length of the file in bytes.
    pub fn size_bytes(&self) -> Result<u64, StoreError> {
        Ok(self.view()?.backend.len()?)
    }

    fn initialize(first: SharedBackend, reopen: Box<Reopen>) -> Result<Self, StoreError> {
        if first.len()? != 0 {
            return Err(StoreError::Io(io::ErrorKind::AlreadyExists.into()));
        }
        let database = contain(|| Ok(builder().create_with_backend(first.clone())?))?;
        let made = contain(|| {
            let txn = begin_write(&database)?;
            for table in Table::ALL {
                txn.open_table(definition(table))?;
            }
            Ok(txn.commit()?)
        })
        .and_then(|()| View::open(&database, first));
        Self::with_view(database, None, made, reopen)
    }

    fn assemble(first: SharedBackend, reopen: Box<Reopen>) -> Result<Self, StoreError> {
        let staged = Staged::new(first);
        let backend = SharedBackend::new(staged.clone());
        let database = open_database(&backend)?;
        staged.opened();
        let view = add_pages(&database).and_then(|()| View::open(&database, backend));
        Self::with_view(database, Some(staged), view, reopen)
    }

    fn with_view(
        database: Database,
        staged: Option<Staged>,
        view: Result<View, StoreError>,
        reopen: Box<Reopen>,
    ) -> Result<Self, StoreError> {
        // Built first, so that closing the database is contained on failure as well.
        let writer = Writer { database: Some(database), staged, broken: false };
        let view = RwLock::new(Some(Arc::new(view?)));
        Ok(Self { reopen, view, writer: Mutex::new(writer) })
    }

    fn view(&self) -> Result<Arc<View>, StoreError> {
        self.view.read().clone().ok_or(StoreError::Broken)
    }
}

impl Store for RedbStore {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let mut view = self.view()?;
        loop {
            let found = view.get(table, key);
            // A recovery may have closed the view while it was read: then there is another one.
            let fresh = match found {
                Err(StoreError::Broken) => self.view()?,
                Ok(_) | Err(_) => return found,
            };
            if Arc::ptr_eq(&view, &fresh) {
                return found;
            }
            view = fresh;
        }
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, StoreError> {
        Ok(Box::new(self.view()?))
    }

    fn begin(&self) -> Result<Box<dyn Txn + '_>, StoreError> {
        Ok(Box::new(self.begin_write()?))
    }

    fn await_durable(&self) -> Result<(), StoreError> {
        let writer = self.writer.lock();
        Ok(writer.staged.iter().try_for_each(Staged::perform)?)
    }

    /// Snapshots that are open end with `Broken`, unless what they read is in memory.
    fn recover(&self) -> Result<(), StoreError> {
        let mut writer = self.writer.lock();
        let mut view = self.view.write();
        *view = None;
        writer.broken = true;
        writer.close();
        // What it still keeps back is older than what will be written.
        writer.staged = None;
        let backend = (self.reopen)()?;
        let database = writer.database.insert(open_database(&backend)?);
        *view = Some(Arc::new(View::open(database, backend)?));
        writer.broken = false;
        tracing::info!("the store was recovered");
        Ok(())
    }
}

impl fmt::Debug for RedbStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbStore").finish_non_exhaustive()
    }
}

impl Writer {
    fn close(&mut self) {
        let database = self.database.take();
        let closed = contain(|| database.map_or(Ok(()), |database| Ok(database.close()?)));
        match closed {
            // After a failed write nothing more is written, and redb says so; the next open is told.
            Ok(()) | Err(StoreError::Broken) => {}
            Err(error) => tracing::warn!(%error, "the store was not closed cleanly"),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.close();
    }
}

/// The tables as of one commit.
struct View {
    /// In the order of [`Table::ALL`].
    tables: Vec<ReadOnlyTable<&'static [u8], &'static [u8]>>,
    backend: SharedBackend,
}

impl View {
    fn open(database: &Database, backend: SharedBackend) -> Result<Self, StoreError> {
        let tables = contain(|| {
            let read = database.begin_read()?;
            Table::ALL.iter().map(|&table| Ok(read.open_table(definition(table))?)).collect()
        })?;
        Ok(Self { tables, backend })
    }

    fn table(
        &self,
        table: Table,
    ) -> Result<&ReadOnlyTable<&'static [u8], &'static [u8]>, StoreError> {
        self.tables.get(table as usize).ok_or(StoreError::Broken)
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let table = self.table(table)?;
        contain(|| Ok(table.get(key)?.map(|value| value.value().to_vec())))
    }
}

impl Drop for View {
    fn drop(&mut self) {
        let tables = std::mem::take(&mut self.tables);
        // Nothing to tell anyone: the transaction ends either way.
        release(tables).ok();
    }
}

impl Snapshot for Arc<View> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        View::get(self, table, key)
    }

    fn scan(&self, table: Table, prefix: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let table = self.table(table)?;
        let mut entries = contain(|| Ok(table.range(prefix..)?))?;
        // Copied out, so that the visitor runs outside of `contain`: its panics are its own.
        let (mut key, mut value) = (Vec::new(), Vec::new());
        loop {
            let more = contain(|| {
                let Some(entry) = entries.next() else { return Ok(false) };
                let (found_key, found_value) = entry?;
                key.clear();
                key.extend_from_slice(found_key.value());
                value.clear();
                value.extend_from_slice(found_value.value());
                Ok(true)
            })?;
            if !more || !key.starts_with(prefix) || visit(&key, &value) == ControlFlow::Break(()) {
                return release(entries);
            }
        }
    }

    fn len(&self, table: Table) -> Result<u64, StoreError> {
        let table = self.table(table)?;
        contain(|| Ok(table.len()?))
    }
}

/// The open write transaction. Any failure in it breaks the store: redb may have changed half of
/// its pages in memory.
pub(super) struct RedbTxn<'a> {
    store: &'a RedbStore,
    writer: MutexGuard<'a, Writer>,
    txn: Option<WriteTransaction>,
}

impl RedbTxn<'_> {
    fn write<T>(
        &mut self,
        change: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let result = match &self.txn {
            Some(txn) if !self.writer.broken => contain(|| change(txn)),
            _ => Err(StoreError::Broken),
        };
        self.writer.broken |= result.is_err();
        result
    }

    /// Makes all changes of a layer; nobody asks what was there before.
    pub(super) fn put_all(&mut self, changes: &Layer) -> Result<(), StoreError> {
        for table in Table::ALL {
            let mut changes = changes.of(table).peekable();
            if changes.peek().is_none() {
                continue;
            }
            self.write(|txn| {
                // Opened once: that costs about as much as an entry does.
                let mut table = txn.open_table(definition(table))?;
                for (key, value) in changes {
                    let before = match value {
                        Some(value) => table.insert(key, value)?,
                        None => table.remove(key)?,
                    };
                    drop(before);
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Records, with the rest of the transaction, how far the journal is taken over by it.
    pub(super) fn set_progress(&mut self, progress: Progress) -> Result<(), StoreError> {
        self.write(|txn| {
            txn.open_table(PROGRESS)?.insert(PROGRESS_KEY, progress.encode().as_slice())?;
            Ok(())
        })
    }

    /// Shows the readers the commit that was just made.
    fn publish(&self) -> Result<(), StoreError> {
        let backend = self.store.view()?.backend.clone();
        let database = self.writer.database.as_ref().ok_or(StoreError::Broken)?;
        let fresh = Arc::new(View::open(database, backend)?);
        let stale = self.store.view.write().replace(fresh);
        drop(stale);
        Ok(())
    }
}

impl Txn for RedbTxn<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let txn = self.txn.as_ref().filter(|_| !self.writer.broken).ok_or(StoreError::Broken)?;
        contain(|| {
            let table = txn.open_table(definition(table))?;
            let value = table.get(key)?.map(|value| value.value().to_vec());
            Ok(value)
        })
    }

    fn put(
        &mut self,
        table: Table,
        key: &[u8],
        value: &[u8],
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.write(|txn| {
            let mut table = txn.open_table(definition(table))?;
            let before = table.insert(key, value)?.map(|value| value.value().to_vec());
            Ok(before)
        })
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.write(|txn| {
            let mut table = txn.open_table(definition(table))?;
            let before = table.remove(key)?.map(|value| value.value().to_vec());
            Ok(before)
        })
    }

    fn clear(&mut self) -> Result<(), StoreError> {
        self.write(|txn| {
            for table in Table::ALL {
                txn.delete_table(definition(table))?;
                txn.open_table(definition(table))?;
            }
            Ok(())
        })
    }

    fn commit(mut self: Box<Self>) -> Result<(), StoreError> {
        let txn = self.txn.take().filter(|_| !self.writer.broken).ok_or(StoreError::Broken)?;
        // A commit that readers cannot be shown is as good as unknown: the recovery shows it.
        let result = contain(|| Ok(txn.commit()?)).and_then(|()| self.publish());
        if let Err(error) = &result {
            self.writer.broken = true;
            tracing::error!(%error, "a commit failed, and its outcome is unknown");
        }
        result
    }
}

impl Drop for RedbTxn<'_> {
    fn drop(&mut self) {
        let Some(txn) = self.txn.take() else { return };
        let aborted = if self.writer.broken || std::thread::panicking() {
            release(txn)
        } else {
            contain(|| Ok(txn.abort()?))
        };
        self.writer.broken |= aborted.is_err();
    }
}

/// Beside the tables of [`Table`], and neither in snapshots nor in backups.
const PROGRESS: TableDefinition<'static, &'static [u8], &'static [u8]> =
    TableDefinition::new("journal");
const PROGRESS_KEY: &[u8] = b"progress";

fn definition(table: Table) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    TableDefinition::new(match table {
        Table::Header => "header",
        Table::Keyring => "keyring",
        Table::Root => "root",
        Table::Records => "records",
        Table::Values => "values",
        Table::Pages => "pages",
    })
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder.set_repair_callback(|session| {
        tracing::warn!(progress = session.progress(), "the store is being repaired in full");
    });
    builder
}

fn open_database(backend: &SharedBackend) -> Result<Database, StoreError> {
    // redb would make a new, empty store of an empty file.
    if backend.len()? == 0 {
        return Err(StoreError::Damaged("the file is empty".into()));
    }
    contain(|| Ok(builder().create_with_backend(backend.clone())?))
}

/// Adds the table that a store from before there were pages does not have. Without any other one it is damaged.
fn add_pages(database: &Database) -> Result<(), StoreError> {
    contain(|| {
        let pages = definition(Table::Pages);
        match database.begin_read()?.open_table(pages) {
            Err(TableError::TableDoesNotExist(_)) => {
                let txn = begin_write(database)?;
                txn.open_table(pages)?;
                Ok(txn.commit()?)
            }
            found => Ok(found.map(drop)?),
        }
    })
}

/// Quick repair costs a commit about 0.2 ms and makes the open after a crash a matter of
/// milliseconds, however many records there are.
fn begin_write(database: &Database) -> Result<WriteTransaction, redb::Error> {
    let mut txn = database.begin_write()?;
    txn.set_durability(Durability::Immediate)?;
    txn.set_quick_repair(true);
    Ok(txn)
}
