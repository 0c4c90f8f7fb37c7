//! Backups: every entry of one consistent view, sealed as it lies in the store.
//!
//! The format is a magic, then entries `table u8, key length u32, value length u32, key, value`
//! (little-endian), then the byte 0xff. The root record is among the entries and authenticates the
//! rest, so a backup needs no key of its own: what was changed, cut or mixed does not verify.

use std::io::{Read, Write};
use std::ops::ControlFlow;

use super::commit::Company;
use super::keys::{HEADER_KEY, KEYRING_KEY};
use super::root::Root;
use super::{Broker, BrokerError, Result};
use crate::audit::{Action, Event, Outcome};
use crate::crypto::{Header, Keyring, RecordSet};
use crate::model::Caller;
use crate::store::{Store, StoreError, Table, Txn};

const MAGIC: &[u8] = b"SECRETFS BACKUP 1\n";
const END: u8 = 0xff;

/// Longest key and value that are believed, so that a damaged length does not ask for all memory.
const MAX_KEY: u32 = 64;
const MAX_VALUE: u32 = 64 << 20;

struct Entry {
    table: Table,
    key: Vec<u8>,
    value: Vec<u8>,
}

impl Broker {
    /// Writes an encrypted, consistent copy of the store.
    pub fn backup(&self, caller: &Caller, out: &mut dyn Write) -> Result<()> {
        let inner = &*self.inner;
        let grant = inner.gate.admit_control(caller, "backup")?;
        write_backup(&*inner.store, out)?;
        inner.gate.record(&Event {
            caller: Some(caller),
            rule: Some(&grant.rule),
            ..Event::new(Action::Backup, Outcome::Allowed)
        })
    }

    /// Replaces everything in the store by a backup of the same store, after it was verified. The
    /// generation goes on from the present one, so this is no rollback to the next start.
    ///
    /// Errors: `Invalid` for a file that is no backup or one of another store; `Key(WrongKey)` for
    /// one from before the root key was replaced; `Damaged` for one that does not verify.
    pub fn restore_backup(&self, caller: &Caller, from: &mut dyn Read) -> Result<()> {
        let inner = &*self.inner;
        let _admitted = inner.gate.admit_control(caller, "backup-restore")?;
        let unlocked = inner.unlocked()?;
        let entries = read_backup(from)?;
        let keyring = open_keyring(&entries, unlocked.store_id, &unlocked.root_key.lock())?;
        let set = check(&entries, &keyring)?;
        inner.submit(Company::Alone, move |batch| {
            batch.replace_all(set.clone(), &mut |txn| put_all(txn, &entries))?;
            batch.line(super::commit::Line {
                action: Action::Restore,
                caller: None,
                name: None,
                version: None,
                rule: None,
                reason: Some("a backup was restored".into()),
            });
            Ok(())
        })?;
        unlocked.keyring.store(std::sync::Arc::new(keyring));
        inner.cache.clear();
        inner.reload_index(&unlocked)
    }
}

/// Writes a backup of a store, which need not be unsealed.
pub fn write_backup(store: &dyn Store, out: &mut dyn Write) -> Result<()> {
    let snapshot = store.snapshot()?;
    let mut outcome = out.write_all(MAGIC);
    for table in Table::ALL {
        snapshot.scan(table, &[], &mut |key, value| {
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
    let entries = read_backup(from)?;
    let mut txn = store.begin()?;
    txn.clear()?;
    put_all(&mut *txn, &entries)?;
    Ok(txn.commit()?)
}

fn put_all(txn: &mut dyn Txn, entries: &[Entry]) -> std::result::Result<(), StoreError> {
    entries.iter().try_for_each(|entry| txn.put(entry.table, &entry.key, &entry.value).map(drop))
}

fn write_entry(out: &mut dyn Write, table: Table, key: &[u8], value: &[u8]) -> std::io::Result<()> {
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).map_err(std::io::Error::other);
    out.write_all(&[table as u8])?;
    out.write_all(&length(key)?.to_le_bytes())?;
    out.write_all(&length(value)?.to_le_bytes())?;
    out.write_all(key)?;
    out.write_all(value)
}

fn read_backup(from: &mut dyn Read) -> Result<Vec<Entry>> {
    let no_backup =
        |why: &str| BrokerError::Invalid(format!("this is no whole secretfs backup: {why}"));
    let mut magic = [0; MAGIC.len()];
    from.read_exact(&mut magic).map_err(|_| no_backup("it is too short"))?;
    if magic != MAGIC {
        return Err(no_backup("it begins otherwise"));
    }
    let mut entries = Vec::new();
    loop {
        let cut = |_| no_backup("it ends too early");
        let mut table = [0];
        from.read_exact(&mut table).map_err(cut)?;
        let [table] = table;
        if table == END {
            return Ok(entries);
        }
        let table = Table::ALL
            .into_iter()
            .find(|known| *known as u8 == table)
            .ok_or_else(|| no_backup("it names an unknown table"))?;
        let key_length = read_length(from, MAX_KEY).map_err(cut)?;
        let value_length = read_length(from, MAX_VALUE).map_err(cut)?;
        let (mut key, mut value) = (vec![0; key_length], vec![0; value_length]);
        from.read_exact(&mut key).map_err(cut)?;
        from.read_exact(&mut value).map_err(cut)?;
        entries.push(Entry { table, key, value });
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

fn open_keyring(
    entries: &[Entry],
    store: crate::model::StoreId,
    root_key: &crate::crypto::RootKey,
) -> Result<Keyring> {
    let header =
        Header::decode(find(entries, Table::Header, HEADER_KEY)?).map_err(BrokerError::Key)?;
    if header.store != store {
        return Err(BrokerError::Invalid("this is a backup of another store".into()));
    }
    Keyring::open(store, root_key, find(entries, Table::Keyring, KEYRING_KEY)?)
        .map_err(BrokerError::Key)
}

fn find<'a>(entries: &'a [Entry], table: Table, key: &[u8]) -> Result<&'a [u8]> {
    let found = entries.iter().find(|entry| entry.table == table && entry.key == key);
    let missing = || BrokerError::Invalid("the backup lacks its header, keyring or root".into());
    found.map(|entry| entry.value.as_slice()).ok_or_else(missing)
}

/// Checks that the entries are exactly what the root authenticates.
fn check(entries: &[Entry], keyring: &Keyring) -> Result<RecordSet> {
    let root = Root::decode(find(entries, Table::Root, Root::KEY)?, keyring)?;
    let mut set = RecordSet::default();
    for entry in entries.iter().filter(|entry| entry.table != Table::Root) {
        set.add(&keyring.element(entry.table as u8, &entry.key, &entry.value));
    }
    if set != root.set {
        return Err(StoreError::Damaged("the backup's records do not add up".into()).into());
    }
    Ok(set)
}
