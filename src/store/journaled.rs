//! The store as a daemon uses it: redb with a journal in front.
//!
//! A commit is one frame in the journal and one fdatasync; readers see it in memory, over what redb
//! has. A thread puts many commits at once into redb, with the number of the last one, so that after
//! a crash the frames behind that number are all that is left to do. A transaction that clears the
//! store, or is too large for the journal, is one of redb's own.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard, RwLock};
use redb::StorageBackend;

use super::backend::{self, Reopen, SharedBackend};
use super::checkpoint::{Checkpoint, Piece};
use super::journal::{Journal, Progress};
use super::overlay::{Layer, Layers, Overlaid};
use super::redb::{RedbStore, RedbTxn};
use super::{Snapshot, Store, StoreError, Table, Txn};

/// How a journal is kept.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Each of the two halves of the journal's file; bounds, too, what is kept in memory of it.
    pub half_bytes: usize,
    /// How long commits stay in a journal that is not full.
    pub period: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { half_bytes: 4 << 20, period: Duration::from_millis(200) }
    }
}

/// Returns the path of the journal beside a store's file.
pub fn journal_of(store: &Path) -> PathBuf {
    store.with_extension("journal")
}

/// A store in a file and its journal, open for writing by this handle alone. Dropping it leaves an
/// empty journal, and everything in the file.
pub struct JournaledStore {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// Makes durable what was found.
    sync: Mutex<Option<JoinHandle<Result<(), StoreError>>>>,
}

impl JournaledStore {
    /// Opens a store that [`RedbStore::create`] has made, and makes a journal where there is none.
    ///
    /// `Damaged` if either file is, or if the journal is another store's; `Locked` if it is open
    /// elsewhere.
    pub fn open(path: &Path, options: Options) -> Result<Self, StoreError> {
        // First, since its lock is the journal's as well.
        let base = RedbStore::open(path)?;
        let (first, reopen) = backend::over_file(backend::open_or_create(&journal_of(path))?)?;
        Self::assemble(base, first, reopen, options)
    }

    /// Opens a store over `base`, with the journal in the backend that `make` returns. A recovery
    /// calls `make` again.
    pub fn open_with_backend<B: StorageBackend>(
        base: RedbStore,
        make: impl Fn() -> io::Result<B> + Send + Sync + 'static,
        options: Options,
    ) -> Result<Self, StoreError> {
        let reopen = Box::new(move || make().map(SharedBackend::new));
        Self::assemble(base, reopen()?, reopen, options)
    }

    fn assemble(
        base: RedbStore,
        first: SharedBackend,
        reopen: Box<Reopen>,
        options: Options,
    ) -> Result<Self, StoreError> {
        let found = Found::read(&base, first.clone(), options.half_bytes)?;
        let (is_new, base_is_safe) = (found.is_new, found.base_is_safe);
        let checkpoint = Checkpoint::default();
        let (writer, layers) = found.take_up(&checkpoint);
        let shared = Arc::new(Shared {
            base,
            reopen,
            options,
            layers: RwLock::new(Some(layers)),
            writer: Mutex::new(Some(writer)),
            checkpoint,
        });
        let sync = (!is_new).then(|| {
            let shared = Arc::clone(&shared);
            let sync = move || {
                first.sync_data()?;
                if base_is_safe { Ok(()) } else { shared.base.await_durable() }
            };
            std::thread::Builder::new().name("secretfs-sync".into()).spawn(sync)
        });
        let thread = {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name("secretfs-store".into()).spawn(move || {
                let apply = |piece: &Piece| shared.apply(piece);
                shared.checkpoint.run(shared.options.period, apply, || shared.tick());
            })?
        };
        Ok(Self { shared, thread: Some(thread), sync: Mutex::new(sync.transpose()?) })
    }
}

impl Store for JournaledStore {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.shared.get(table, key)
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, StoreError> {
        let layers = self.shared.layers.read();
        let layers = layers.as_ref().ok_or(StoreError::Broken)?;
        // Under the lock, so that no layer is in neither of the two.
        let base = self.shared.base.snapshot()?;
        Ok(Box::new(Overlaid { layers: layers.clone(), base }))
    }

    fn begin(&self) -> Result<Box<dyn Txn + '_>, StoreError> {
        let mut writer = self.shared.writer.lock();
        if writer.is_none() {
            return Err(StoreError::Broken);
        }
        if let Err(error) = self.shared.checkpoint.check() {
            *writer = None;
            return Err(error);
        }
        let changes = Changes::none();
        Ok(Box::new(JournaledTxn { shared: &self.shared, writer, changes }))
    }

    fn recover(&self) -> Result<(), StoreError> {
        let shared = &*self.shared;
        let mut writer = shared.writer.lock();
        *writer = None;
        shared.checkpoint.abandon();
        let mut layers = shared.layers.write();
        *layers = None;
        shared.base.recover()?;
        let found = Found::read(&shared.base, (shared.reopen)()?, shared.options.half_bytes)?;
        let (fresh_writer, fresh_layers) = found.take_up(&shared.checkpoint);
        (*writer, *layers) = (Some(fresh_writer), Some(fresh_layers));
        Ok(())
    }

    fn await_durable(&self) -> Result<(), StoreError> {
        match self.sync.lock().take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(synced)) => synced,
            Some(Err(_)) => Err(StoreError::Broken),
        }
    }

    fn settle(&self) -> Result<(), StoreError> {
        let mut held = self.shared.writer.lock();
        let writer = held.as_mut().ok_or(StoreError::Broken)?;
        self.shared.drain(writer)?;
        let emptied = writer.journal.reset();
        if emptied.is_err() {
            // Frames after this might follow a header that is not there.
            *held = None;
        }
        emptied
    }
}

impl Drop for JournaledStore {
    fn drop(&mut self) {
        if let Err(error) = self.await_durable().and_then(|()| self.settle()) {
            tracing::warn!(%error, "commits stay in the journal until the next start");
        }
        self.shared.checkpoint.close();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the store's thread had panicked");
        }
    }
}

impl fmt::Debug for JournaledStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JournaledStore").finish_non_exhaustive()
    }
}

/// Lock order: `writer`, `layers`, then those inside of `base`.
struct Shared {
    base: RedbStore,
    /// Makes the journal's backend again, for a recovery.
    reopen: Box<Reopen>,
    options: Options,
    /// What readers read over redb. `None` after a recovery that failed; locked for writing while
    /// one runs, so that readers wait for it.
    layers: RwLock<Option<Layers>>,
    /// Held by the open write transaction, and by a recovery. `None` once a write may have gone
    /// wrong, until a recovery.
    writer: Mutex<Option<Writer>>,
    checkpoint: Checkpoint,
}

struct Writer {
    journal: Journal,
    /// The number of the last commit.
    commit: u64,
    /// Whether redb, as it was found, is known to be on disk.
    base_is_durable: bool,
}

impl Writer {
    fn progress(&self) -> Progress {
        Progress { journal: self.journal.id(), commit: self.commit }
    }
}

impl Shared {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        {
            let layers = self.layers.read();
            let layers = layers.as_ref().ok_or(StoreError::Broken)?;
            if let Some(value) = layers.get(table, key) {
                return Ok(value.map(<[u8]>::to_vec));
            }
        }
        // What a layer has taken to redb meanwhile is what is asked for, or newer.
        self.base.get(table, key)
    }

    /// Writes a commit to the journal, and shows it to readers.
    fn commit(&self, writer: &mut Writer, changes: Layer) -> Result<(), StoreError> {
        if !writer.base_is_durable {
            // The frame may be written over others, which redb has; but maybe not on disk.
            self.base.await_durable()?;
            writer.base_is_durable = true;
        }
        let frame = writer.journal.frame(writer.commit + 1, &changes)?;
        if !writer.journal.has_room_for(&frame) {
            self.turn(writer)?;
        }
        writer.journal.append(&frame)?;
        writer.commit += 1;
        if let Some(layers) = &mut *self.layers.write() {
            Arc::make_mut(&mut layers.newer).absorb(changes);
        }
        Ok(())
    }

    /// Hands the half in use to the thread and goes on in the other one, once that is free.
    fn turn(&self, writer: &mut Writer) -> Result<(), StoreError> {
        self.checkpoint.wait()?;
        let Some(layers) = &mut *self.layers.write() else { return Err(StoreError::Broken) };
        let layer = std::mem::take(&mut layers.newer);
        layers.older = Some(Arc::clone(&layer));
        writer.journal.turn();
        self.checkpoint.begin(Piece { layer, progress: writer.progress() });
        Ok(())
    }

    /// Puts all that the journal has into redb, durably.
    fn drain(&self, writer: &mut Writer) -> Result<(), StoreError> {
        if !self.newer_is_empty() {
            self.turn(writer)?;
        }
        self.checkpoint.wait()?;
        self.base.await_durable()
    }

    fn newer_is_empty(&self) -> bool {
        self.layers.read().as_ref().is_none_or(|layers| layers.newer.is_empty())
    }

    /// Called by the thread now and then: what came in since is not left in the journal for long.
    fn tick(&self) {
        // Whoever holds it is writing; the next time, then.
        if let Some(mut writer) = self.writer.try_lock()
            && let Some(writer) = &mut *writer
            && !self.newer_is_empty()
            && self.checkpoint.is_idle()
            && let Err(error) = self.turn(writer)
        {
            tracing::error!(%error, "the journal cannot be taken over");
        }
    }

    fn apply(&self, piece: &Piece) -> Result<(), StoreError> {
        let applied = self.put_into_base(piece);
        // A store that has failed a write fails reads as well.
        if applied.is_err()
            && let Err(error) = self.base.recover()
        {
            tracing::error!(%error, "the store cannot be opened again");
        }
        applied
    }

    fn put_into_base(&self, piece: &Piece) -> Result<(), StoreError> {
        let mut txn = self.base.begin_write()?;
        txn.put_all(&piece.layer)?;
        txn.set_progress(piece.progress)?;
        Box::new(txn).commit()?;
        if let Some(layers) = &mut *self.layers.write() {
            layers.older = None;
        }
        Ok(())
    }
}

/// What is on disk, in both files.
struct Found {
    writer: Writer,
    older: Option<Piece>,
    newer: Layer,
    /// Whether the journal was made just now, and all is on disk.
    is_new: bool,
    /// Whether the journal has what redb has.
    base_is_safe: bool,
}

impl Found {
    fn read(
        base: &RedbStore,
        backend: SharedBackend,
        half_bytes: usize,
    ) -> Result<Self, StoreError> {
        let progress = base.progress()?;
        let journal = Journal::open(backend.clone())?;
        let (mut journal, progress) = match (journal, progress) {
            (Some(journal), Some(progress)) if journal.id() == progress.journal => {
                (journal, progress)
            }
            (Some(journal), _) if !journal.is_empty()? => {
                return Err(StoreError::Damaged("the journal beside it is another store's".into()));
            }
            (_, progress) => {
                if progress.is_some() {
                    tracing::warn!("the journal of the store is gone, and what it may have held");
                }
                return Self::with_new_journal(base, backend, half_bytes, progress);
            }
        };
        let pending = journal.replay(progress.commit)?;
        if pending.commit != progress.commit {
            tracing::info!(
                commits = pending.commit - progress.commit,
                "commits of before are taken over from the journal"
            );
        }
        let older = (!pending.older.is_empty()).then(|| Piece {
            layer: Arc::new(pending.older),
            progress: Progress { commit: pending.older_commit, ..progress },
        });
        let writer = Writer { journal, commit: pending.commit, base_is_durable: false };
        let (newer, base_is_safe) = (pending.newer, pending.holds_base);
        Ok(Self { writer, older, newer, is_new: false, base_is_safe })
    }

    /// Binds a new journal to the store. The numbers go on, so that no frame that somebody puts back
    /// is taken for a later one.
    fn with_new_journal(
        base: &RedbStore,
        backend: SharedBackend,
        half_bytes: usize,
        before: Option<Progress>,
    ) -> Result<Self, StoreError> {
        let commit = before.map_or(0, |progress| progress.commit);
        let journal = Journal::make(backend, half_bytes)?;
        let writer = Writer { journal, commit, base_is_durable: false };
        let mut txn = base.begin_write()?;
        txn.set_progress(writer.progress())?;
        Box::new(txn).commit()?;
        let (is_new, base_is_safe) = (true, true);
        Ok(Self { writer, older: None, newer: Layer::default(), is_new, base_is_safe })
    }

    fn take_up(self, checkpoint: &Checkpoint) -> (Writer, Layers) {
        let older = self.older.as_ref().map(|piece| Arc::clone(&piece.layer));
        if let Some(piece) = self.older {
            checkpoint.begin(piece);
        }
        (self.writer, Layers { newer: Arc::new(self.newer), older })
    }
}

struct JournaledTxn<'a> {
    shared: &'a Shared,
    writer: MutexGuard<'a, Option<Writer>>,
    changes: Changes<'a>,
}

/// What the transaction has changed so far.
enum Changes<'a> {
    /// For the journal, with the most bytes that the frame can have.
    Buffered(Layer, usize),
    /// In redb; the journal is empty.
    Direct(Box<RedbTxn<'a>>),
}

impl Changes<'_> {
    fn none() -> Self {
        Self::Buffered(Layer::default(), Journal::EMPTY_FRAME_BYTES)
    }
}

impl<'a> JournaledTxn<'a> {
    /// Runs a step that changes something. Any failure breaks the store until a recovery: half of a
    /// transaction may be done.
    fn step<T>(
        &mut self,
        step: impl FnOnce(&'a Shared, &mut Writer, &mut Changes<'a>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let result = match &mut *self.writer {
            Some(writer) => step(self.shared, writer, &mut self.changes),
            None => Err(StoreError::Broken),
        };
        if result.is_err() {
            *self.writer = None;
        }
        result
    }

    /// Returns what was there before, if that is asked for.
    fn change(
        &mut self,
        table: Table,
        key: &[u8],
        value: Option<&[u8]>,
        before: Before,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.step(|shared, writer, changes| {
            if let Changes::Buffered(layer, bytes) = changes {
                *bytes += Journal::entry_bytes(key, value);
                if *bytes > writer.journal.capacity() {
                    *changes = Changes::Direct(direct(shared, writer, layer)?);
                }
            }
            match (changes, value) {
                (Changes::Buffered(layer, _), _) => {
                    let before = match before {
                        Before::Asked => read(shared, layer, table, key)?,
                        Before::Known => None,
                    };
                    layer.set(table, key, value);
                    Ok(before)
                }
                (Changes::Direct(txn), Some(value)) => txn.put(table, key, value),
                (Changes::Direct(txn), None) => txn.delete(table, key),
            }
        })
    }
}

/// Whether a change says what was there before it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Before {
    Asked,
    Known,
}

/// Empties the journal and takes what a transaction has changed to redb itself.
fn direct<'a>(
    shared: &'a Shared,
    writer: &mut Writer,
    changes: &Layer,
) -> Result<Box<RedbTxn<'a>>, StoreError> {
    shared.drain(writer)?;
    let mut txn = Box::new(shared.base.begin_write()?);
    txn.put_all(changes)?;
    Ok(txn)
}

fn read(
    shared: &Shared,
    changes: &Layer,
    table: Table,
    key: &[u8],
) -> Result<Option<Vec<u8>>, StoreError> {
    match changes.get(table, key) {
        Some(value) => Ok(value.map(<[u8]>::to_vec)),
        None => shared.get(table, key),
    }
}

impl Txn for JournaledTxn<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match &self.changes {
            _ if self.writer.is_none() => Err(StoreError::Broken),
            Changes::Buffered(layer, _) => read(self.shared, layer, table, key),
            Changes::Direct(txn) => txn.get(table, key),
        }
    }

    fn put(
        &mut self,
        table: Table,
        key: &[u8],
        value: &[u8],
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.change(table, key, Some(value), Before::Asked)
    }

    fn set(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.change(table, key, Some(value), Before::Known).map(drop)
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.change(table, key, None, Before::Asked)
    }

    fn clear(&mut self) -> Result<(), StoreError> {
        self.step(|shared, writer, changes| {
            if let Changes::Buffered(..) = changes {
                *changes = Changes::Direct(direct(shared, writer, &Layer::default())?);
            }
            match changes {
                Changes::Buffered(..) => Err(StoreError::Broken),
                Changes::Direct(txn) => txn.clear(),
            }
        })
    }

    fn commit(mut self: Box<Self>) -> Result<(), StoreError> {
        let changes = std::mem::replace(&mut self.changes, Changes::none());
        let result = self.step(|shared, writer, _| match changes {
            Changes::Buffered(layer, _) if layer.is_empty() => Ok(()),
            Changes::Buffered(layer, _) => shared.commit(writer, layer),
            Changes::Direct(mut txn) => {
                let commit = writer.commit + 1;
                txn.set_progress(Progress { commit, ..writer.progress() })?;
                txn.commit()?;
                writer.commit = commit;
                Ok(())
            }
        });
        if let Err(error) = &result {
            tracing::error!(%error, "a commit failed, and its outcome is unknown");
        }
        result
    }
}
