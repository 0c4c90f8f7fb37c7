//! Backups: every entry of one consistent view, sealed as it lies in the store.
//!
//! The format is a magic, then entries `table u8, key length u32, value length u32, key, value`
//! (little-endian), then the byte 0xff. The root record is among the entries and authenticates the
//! rest, so a backup needs no key of its own: what was changed, cut or mixed does not verify. One
//! entry at a time is in memory, whichever way it goes.

use std::collections::{BTreeSet, HashMap};
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::ControlFlow;

use super::batch::Line;
use super::index::Entry;
use super::keys::{HEADER_KEY, KEYRING_KEY};
use super::root::Root;
use super::writer::Company;
use super::{Broker, BrokerError, Inner, Result};
use crate::audit::{Action, Event, Outcome};
use crate::crypto::{Header, Keyring, RecordSet, RootKey};
use crate::model::{Caller, SecretName, StoreId};
use crate::store::{Store, StoreError, Table};

const MAGIC: &[u8] = b"SECRETFS BACKUP 1\n";
const END: u8 = 0xff;

/// Longest key and value that are believed, so that a damaged length does not ask for all memory.
const MAX_KEY: u32 = 64;
const MAX_VALUE: u32 = 64 << 20;

impl Broker {
    /// Writes an encrypted, consistent copy of the store. The view that is copied stops the reuse of
    /// space in the store for as long as `out` takes.
    pub fn backup(&self, caller: &Caller, out: &mut dyn Write) -> Result<()> {
        let inner = &*self.inner;
        let grant = inner.gate.admit_control(caller, "backup")?;
        inner.gate.record(&Event {
            caller: Some(caller),
            rule: Some(&grant.rule),
            ..Event::new(Action::Backup, Outcome::Allowed)
        })?;
        write_backup(&*inner.store, out).inspect_err(|err| {
            let reason = err.to_string();
            // The answer is an error already, so a log that cannot take the line does not change it.
            drop(inner.gate.record(&Event {
                caller: Some(caller),
                rule: Some(&grant.rule),
                reason: Some(&reason),
                ..Event::new(Action::Backup, Outcome::Failed)
            }));
        })
    }

    /// Replaces everything in the store by a backup of the same store, after it was verified. The
    /// generation goes on from the present one, so this is no rollback to the next start. The backup
    /// is read several times, and must not change meanwhile.
    ///
    /// Errors: `Invalid` for a file that is no backup or one of another store; `Key(WrongKey)` for
    /// one from before the root key was replaced; `Damaged` for one that does not verify.
    pub fn restore_backup(
        &self,
        caller: &Caller,
        mut from: impl Read + Seek + Send + 'static,
    ) -> Result<()> {
        let inner = &*self.inner;
        let _admitted = inner.gate.admit_control(caller, "backup-restore")?;
        let unlocked = inner.unlocked()?;
        let keys = Keys::find(&mut from)?;
        let keyring = keys.open(unlocked.store_id, &unlocked.root_key.lock())?;
        let root = keys.check(&keyring, &mut from)?;
        let before = inner.entries()?;
        inner.submit(Company::Alone, move |batch| {
            batch.replace_all(keyring, root, &mut |txn| {
                let put =
                    |table, key: &[u8], value: &[u8]| Ok(txn.put(table, key, value).map(drop)?);
                again(&mut from, put).map_err(as_store_error)
            })?;
            batch.line(Line {
                action: Action::Restore,
                caller: None,
                name: None,
                version: None,
                rule: None,
                reason: Some("a backup was restored".into()),
                detail: None,
            });
            Ok(())
        })?;
        let after = inner.entries()?;
        let all: BTreeSet<&SecretName> = before.keys().chain(after.keys()).collect();
        for name in all {
            let (before, after) = (before.get(name), after.get(name));
            let version = |entry: &Entry| (entry.id, entry.version);
            if after.is_some() && before.map(version) != after.map(version) {
                inner.announce(name);
            }
            if before != after {
                inner.commit_hooks.lock().iter().for_each(|run| run(name));
            }
        }
        Ok(())
    }
}

impl Inner {
    fn entries(&self) -> Result<HashMap<SecretName, Entry>> {
        let unlocked = self.unlocked()?;
        let index = unlocked.index.read();
        let mut entries = HashMap::new();
        if let Some(root) = index.folder(None) {
            root.each_secret(&mut String::new(), &mut |name, entry| {
                entries.extend(name.parse().ok().map(|name| (name, entry.clone())));
            });
        }
        Ok(entries)
    }
}

/// What goes wrong with a backup that was whole a moment ago is the disk's fault.
fn as_store_error(err: BrokerError) -> StoreError {
    if let BrokerError::Store(err) = err {
        err
    } else {
        StoreError::Io(std::io::Error::other(err.to_string()))
    }
}

/// Writes a backup of a store, which need not be unsealed.
pub fn write_backup(store: &dyn Store, out: &mut dyn Write) -> Result<()> {
    let snapshot = store.snapshot()?;
    let mut outcome = out.write_all(MAGIC);
    for table in Table::ALL {
        snapshot.scan(table, &[], &mut |key, value| {
            if table == Table::Root && key != Root::KEY {
                // Lines of a log that goes on without the backup.
                return ControlFlow::Continue(());
            }
            outcome = write_entry(out, table, key, value);
            if outcome.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        if outcome.is_err() {
            break;
        }
    }
    outcome
        .and_then(|()| out.write_all(&[END]))
        .and_then(|()| out.flush())
        .map_err(StoreError::Io)?;
    Ok(())
}

/// Fills an empty store from a backup. What is in it is verified when the store is opened with its key.
pub fn unpack_backup(from: &mut dyn Read, store: &dyn Store) -> Result<()> {
    let mut txn = store.begin()?;
    txn.clear()?;
    each_entry(from, |table, key, value| Ok(txn.put(table, key, value).map(drop)?))?;
    Ok(txn.commit()?)
}

fn write_entry(out: &mut dyn Write, table: Table, key: &[u8], value: &[u8]) -> std::io::Result<()> {
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).map_err(std::io::Error::other);
    out.write_all(&[table as u8])?;
    out.write_all(&length(key)?.to_le_bytes())?;
    out.write_all(&length(value)?.to_le_bytes())?;
    out.write_all(key)?;
    out.write_all(value)
}

/// Reads a backup from its beginning, once more.
fn again<F>(from: &mut (impl Read + Seek), visit: F) -> Result<()>
where
    F: FnMut(Table, &[u8], &[u8]) -> Result<()>,
{
    from.seek(SeekFrom::Start(0)).map_err(StoreError::Io)?;
    each_entry(from, visit)
}

/// Visits the entries of a backup in their order, to its end.
fn each_entry<F>(from: impl Read, mut visit: F) -> Result<()>
where
    F: FnMut(Table, &[u8], &[u8]) -> Result<()>,
{
    let no_backup =
        |why: &str| BrokerError::Invalid(format!("this is no whole secretfs backup: {why}"));
    let mut from = std::io::BufReader::with_capacity(128 << 10, from);
    let mut magic = [0; MAGIC.len()];
    from.read_exact(&mut magic).map_err(|_| no_backup("it is too short"))?;
    if magic != MAGIC {
        return Err(no_backup("it begins otherwise"));
    }
    let (mut key, mut value) = (Vec::new(), Vec::new());
    loop {
        let cut = |_| no_backup("it ends too early");
        let mut table = [0];
        from.read_exact(&mut table).map_err(cut)?;
        let [table] = table;
        if table == END {
            return Ok(());
        }
        let table = Table::ALL
            .into_iter()
            .find(|known| *known as u8 == table)
            .ok_or_else(|| no_backup("it names an unknown table"))?;
        key.resize(read_length(&mut from, MAX_KEY).map_err(cut)?, 0);
        value.resize(read_length(&mut from, MAX_VALUE).map_err(cut)?, 0);
        from.read_exact(&mut key).map_err(cut)?;
        from.read_exact(&mut value).map_err(cut)?;
        visit(table, &key, &value)?;
    }
}

fn read_length(from: &mut dyn Read, most: u32) -> std::io::Result<usize> {
    let mut bytes = [0; 4];
    from.read_exact(&mut bytes)?;
    let length = u32::from_le_bytes(bytes);
    if length > most {
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    usize::try_from(length).map_err(std::io::Error::other)
}

/// What in a backup opens and authenticates the rest of it.
struct Keys {
    header: Vec<u8>,
    keyring: Vec<u8>,
    root: Vec<u8>,
}

impl Keys {
    fn find(from: &mut (impl Read + Seek)) -> Result<Self> {
        let (mut header, mut keyring, mut root) = (None, None, None);
        again(from, |table, key, value| {
            let place = match (table, key) {
                (Table::Header, HEADER_KEY) => &mut header,
                (Table::Keyring, KEYRING_KEY) => &mut keyring,
                (Table::Root, Root::KEY) => &mut root,
                _ => return Ok(()),
            };
            place.get_or_insert_with(|| value.to_vec());
            Ok(())
        })?;
        match (header, keyring, root) {
            (Some(header), Some(keyring), Some(root)) => Ok(Self { header, keyring, root }),
            _ => Err(BrokerError::Invalid("the backup lacks its header, keyring or root".into())),
        }
    }

    fn open(&self, store: StoreId, root_key: &RootKey) -> Result<Keyring> {
        if Header::decode(&self.header).map_err(BrokerError::Key)?.store != store {
            return Err(BrokerError::Invalid("this is a backup of another store".into()));
        }
        Keyring::open(store, root_key, &self.keyring).map_err(BrokerError::Key)
    }

    /// Returns the backup's root, if the entries are exactly what it authenticates.
    fn check(&self, keyring: &Keyring, from: &mut (impl Read + Seek)) -> Result<Root> {
        let root = Root::decode(&self.root, keyring)?;
        let mut set = RecordSet::default();
        again(from, |table, key, value| {
            if table != Table::Root {
                set.add(&keyring.element(table as u8, key, value));
            }
            Ok(())
        })?;
        if set != root.set {
            return Err(StoreError::Damaged("the backup's records do not add up".into()).into());
        }
        Ok(root)
    }
}
