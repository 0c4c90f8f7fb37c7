//! From sealed records to the index, and the check that none of them is missing.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Weak};
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
    let (mut index, mut uses, mut leases) = (Index::default(), BTreeMap::new(), BTreeMap::new());
    let mut confirmed = BTreeMap::new();
    each_record(&*snapshot, Table::Records, keyring, &mut |id, record| {
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
            Record::Confirmed(times) => confirmed = times,
            Record::Lease(record) => drop(leases.insert(record.lease.id, record)),
            Record::Uses(counts) => uses = counts,
            Record::Rotation(record) => index.set_rotation(record.secret, record.stage),
        }
        Ok(())
    })?;
    if !confirmed.is_empty() {
        confirm(&index, &confirmed);
    }
    Ok(Loaded { root, index, uses, leases })
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
    std::thread::Builder::new().name("secretfs-verify".into()).spawn(move || {
        std::thread::sleep(calm);
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
