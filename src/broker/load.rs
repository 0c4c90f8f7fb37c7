//! From sealed records to the index, and the check that none of them is missing.

use std::collections::BTreeMap;
use std::mem;
use std::ops::ControlFlow;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::index::{Discarded, Entry, Index, Made};
use super::lease::LeaseRecord;
use super::record::Record;
use super::root::Root;
use super::{BrokerError, Inner};
use crate::audit::CALM;
use crate::crypto::{Keyring, RecordSet};
use crate::model::{GrantId, SecretId, Timestamp};
use crate::store::{Snapshot, Store, StoreError, Table};

/// What the records say.
pub(super) struct Loaded {
    pub(super) root: Root,
    pub(super) index: Index,
    pub(super) uses: BTreeMap<Box<str>, u32>,
    pub(super) leases: BTreeMap<GrantId, LeaseRecord>,
}

/// Opens every record and builds the index. One record that does not open stops the start: what is
/// missing from the index would look like a secret that does not exist.
pub(super) fn load(store: &dyn Store, keyring: &Keyring) -> Result<Loaded, BrokerError> {
    let snapshot = store.snapshot()?;
    let root = read_root(&*snapshot, keyring)?;
    let Building { index, uses, leases, confirmed } = thread::scope(|scope| {
        let mut builder = Builder { scope, keyring, batch: Vec::new(), beside: None };
        each_record(&*snapshot, Table::Records, keyring, &mut |id, record| {
            builder.add(id, record)
        })?;
        builder.finish()
    })?;
    if !confirmed.is_empty() {
        confirm(&index, &confirmed);
    }
    Ok(Loaded { root, index, uses, leases })
}

/// Records that a second thread puts into the index at one time; for fewer in all there is none.
const BATCH: usize = 512;
/// Batches that wait for that thread, at most.
const WAITING: usize = 4;

/// Has an index built of records while the next ones are opened, since callers wait for both.
struct Builder<'scope, 'env> {
    scope: &'scope thread::Scope<'scope, 'env>,
    keyring: &'env Keyring,
    batch: Batch,
    beside: Option<(SyncSender<Batch>, thread::ScopedJoinHandle<'scope, Building>)>,
}

type Batch = Vec<(SecretId, Record)>;

impl<'scope, 'env> Builder<'scope, 'env> {
    fn add(&mut self, id: SecretId, record: Record) -> Result<(), BrokerError> {
        self.batch.push((id, record));
        if self.batch.len() < BATCH {
            return Ok(());
        }
        let batch = mem::take(&mut self.batch);
        let (batches, _) = match &mut self.beside {
            Some(beside) => beside,
            none => none.insert(start(self.scope, self.keyring).map_err(StoreError::Io)?),
        };
        batches.send(batch).map_err(|_| StoreError::Broken.into())
    }

    fn finish(self) -> Result<Building, BrokerError> {
        let mut building = match self.beside {
            None => Building::default(),
            Some((batches, thread)) => {
                drop(batches);
                thread.join().map_err(|_| StoreError::Broken)?
            }
        };
        building.add_all(self.keyring, self.batch);
        Ok(building)
    }
}

/// Starts the thread that builds an index of batches.
fn start<'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    keyring: &'scope Keyring,
) -> std::io::Result<(SyncSender<Batch>, thread::ScopedJoinHandle<'scope, Building>)> {
    let (sender, batches) = sync_channel::<Batch>(WAITING);
    let thread = thread::Builder::new().name("secretfs-load".into());
    let thread = thread.spawn_scoped(scope, move || {
        let mut building = Building::default();
        batches.into_iter().for_each(|batch| building.add_all(keyring, batch));
        building
    })?;
    Ok((sender, thread))
}

/// What is known of the records so far.
#[derive(Default)]
struct Building {
    index: Index,
    uses: BTreeMap<Box<str>, u32>,
    leases: BTreeMap<GrantId, LeaseRecord>,
    /// When copies of other services' secrets were last confirmed.
    confirmed: BTreeMap<SecretId, i64>,
}

impl Building {
    fn add_all(&mut self, keyring: &Keyring, batch: Batch) {
        batch.into_iter().for_each(|(id, record)| self.add(keyring, id, record));
    }

    fn add(&mut self, keyring: &Keyring, id: SecretId, record: Record) {
        let index = &mut self.index;
        match record {
            Record::Secret(record) if record.deleted.is_some() => {
                index.insert_trashed(id, Discarded::of(&record));
            }
            Record::Secret(record) => {
                if let Some(entry) = Entry::of(id, &record, keyring.inode(record.name.as_str())) {
                    index.insert(&record.name, entry);
                }
            }
            Record::Directory(name) => index.set_made(&name, Some(Made { id, created_by: None })),
            Record::MadeDirectory { name, created_by } => {
                index.set_made(&name, Some(Made { id, created_by: Some(created_by) }));
            }
            // Read when somebody gives a code; pages are in a table of their own.
            Record::Codes(_) | Record::Older(_) => {}
            Record::Confirmed(times) => self.confirmed = times,
            Record::Lease(record) => drop(self.leases.insert(record.lease.id, record)),
            Record::Uses(counts) => self.uses = counts,
            Record::Rotation(record) => index.set_rotation(record.secret, record.stage),
        }
    }
}

/// Takes note of when copies of other services' secrets were last confirmed.
fn confirm(index: &Index, times: &BTreeMap<SecretId, i64>) {
    let Some(root) = index.folder(None) else { return };
    root.each_secret(&mut String::new(), &mut |_, entry| {
        let time =
            times.get(&entry.id).and_then(|micros| Timestamp::from_microsecond(*micros).ok());
        if let (Some(held), Some(time)) = (entry.held(), time) {
            held.confirm(time);
        }
    });
}

/// Reads and authenticates the root record.
pub(super) fn read_root(snapshot: &dyn Snapshot, keyring: &Keyring) -> Result<Root, BrokerError> {
    let bytes = snapshot
        .get(Table::Root, Root::KEY)?
        .ok_or_else(|| StoreError::Damaged("the root record is missing".into()))?;
    Root::decode(&bytes, keyring)
}

/// Opens every record of a table and hands it to `visit`; stops at the first error.
pub(super) fn each_record(
    snapshot: &dyn Snapshot,
    table: Table,
    keyring: &Keyring,
    visit: &mut dyn FnMut(SecretId, Record) -> Result<(), BrokerError>,
) -> Result<(), BrokerError> {
    let mut outcome = Ok(());
    snapshot.scan(table, &[], &mut |key, sealed| {
        outcome = open_record(keyring, key, sealed).and_then(|(id, record)| visit(id, record));
        if outcome.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    outcome
}

/// Opens one record of the table.
pub(super) fn open_record(
    keyring: &Keyring,
    key: &[u8],
    sealed: &[u8],
) -> Result<(SecretId, Record), BrokerError> {
    let id = <[u8; 16]>::try_from(key)
        .map(SecretId)
        .map_err(|_| StoreError::Damaged("a record has a malformed key".into()))?;
    let plain = keyring.open_record(id, sealed).map_err(BrokerError::Damaged)?;
    Ok((id, Record::decode(&plain)?))
}

/// Sums up what is really in the store.
pub(super) fn sum(snapshot: &dyn Snapshot, keyring: &Keyring) -> Result<RecordSet, StoreError> {
    let mut set = RecordSet::default();
    for table in Table::ALL.into_iter().filter(|table| *table != Table::Root) {
        snapshot.scan(table, &[], &mut |key, value| {
            set.add(&keyring.element(table as u8, key, value));
            ControlFlow::Continue(())
        })?;
    }
    Ok(set)
}

/// Whether the record set is known to be whole.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Integrity {
    Faulty(String),
    Pending,
    Verified,
}

/// The verdict, and who waits for it.
pub(super) struct Verdict {
    state: Mutex<Integrity>,
    known: Condvar,
}

impl Verdict {
    pub(super) fn pending() -> Self {
        Self { state: Mutex::new(Integrity::Pending), known: Condvar::new() }
    }

    pub(super) fn state(&self) -> Integrity {
        self.state.lock().clone()
    }

    pub(super) fn set(&self, state: Integrity) {
        *self.state.lock() = state;
        self.known.notify_all();
    }

    /// Returns the error to answer with for a name that is not in the index.
    pub(super) fn absent(&self, not_found: BrokerError) -> BrokerError {
        match &*self.state.lock() {
            Integrity::Verified => not_found,
            Integrity::Pending => BrokerError::Verifying,
            Integrity::Faulty(what) => StoreError::Damaged(what.clone()).into(),
        }
    }

    /// Fails as long as something may be missing from the index.
    pub(super) fn check(&self) -> Result<(), BrokerError> {
        match &*self.state.lock() {
            Integrity::Verified => Ok(()),
            Integrity::Pending => Err(BrokerError::Verifying),
            Integrity::Faulty(what) => Err(StoreError::Damaged(what.clone()).into()),
        }
    }

    /// Waits until the verdict is known; `Verifying` when it takes longer than `at_most`.
    pub(super) fn wait(&self, at_most: Duration) -> Result<(), BrokerError> {
        let mut state = self.state.lock();
        self.known.wait_while_for(&mut state, |state| *state == Integrity::Pending, at_most);
        if *state == Integrity::Pending { Err(BrokerError::Verifying) } else { Ok(()) }
    }
}

/// Verifies the record set beside the requests that are served meanwhile.
pub(super) fn verify_in_background(inner: &Arc<Inner>) -> std::io::Result<()> {
    let calm = if inner.log.options.taken_over { CALM } else { Duration::ZERO };
    let inner: Weak<Inner> = Arc::downgrade(inner);
    thread::Builder::new().name("secretfs-verify".into()).spawn(move || {
        thread::sleep(calm);
        let Some(inner) = inner.upgrade() else { return };
        let Some(unlocked) = inner.unlocked.load_full() else { return };
        let keyring = unlocked.keyring.load_full();
        let state = match compare(&*inner.store, &keyring) {
            Ok(()) => Integrity::Verified,
            Err(err) => Integrity::Faulty(err.to_string()),
        };
        if let Integrity::Faulty(what) = &state {
            tracing::error!(%what, "the record set does not verify: something is missing, added or put back");
        }
        inner.verdict.set(state);
    })?;
    Ok(())
}

/// Compares the sum of what is there with the root's.
pub(super) fn compare(store: &dyn Store, keyring: &Keyring) -> Result<(), BrokerError> {
    let snapshot = store.snapshot()?;
    let root = read_root(&*snapshot, keyring)?;
    if sum(&*snapshot, keyring)? == root.set {
        return Ok(());
    }
    Err(StoreError::Damaged("the records do not add up to what was committed".into()).into())
}
