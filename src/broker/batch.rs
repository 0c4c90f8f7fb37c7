//! A transaction under way: what its changes see, put and will mean for the index and the log.
//!
//! A change checks everything before its first `put`, so that one that is refused leaves no trace in
//! the transaction of the others.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::index::{At, Discarded, Entry, Made};
use super::lease::LeaseRecord;
use super::read::value_key;
use super::record::{Record, SecretRecord};
use super::root::Root;
use super::rotation::Stage;
use super::{BrokerError, Inner, Kind, Unlocked};
use crate::audit::{Action, Event, Outcome};
use crate::crypto::{Keyring, RootKey};
use crate::model::{Caller, GrantId, SecretId, SecretName, Session, Timestamp, Uid, Version};
use crate::policy::Term;
use crate::store::{StoreError, Table, Txn};

/// A transaction with what it will mean for the index and the log.
pub(super) struct Batch<'a> {
    pub(super) txn: Box<dyn Txn + 'a>,
    pub(super) root: Root,
    puts: u64,
    /// What stands at names that this transaction has changed.
    overlay: BTreeMap<SecretName, Option<SecretId>>,
    /// How far the rotations are that this transaction has changed.
    rotations: BTreeMap<SecretId, Stage>,
    /// The record that was read last, sealed: mostly it is the next one to be put.
    last_read: RefCell<Option<(Table, SecretId, Vec<u8>)>>,
    pub(super) effects: Vec<Effect>,
    pub(super) lines: Vec<Line>,
    pub(super) inner: &'a Inner,
    pub(super) unlocked: &'a Unlocked,
    pub(super) keyring: Arc<Keyring>,
    pub(super) now: Timestamp,
}

/// What a commit changes in memory.
pub(super) enum Effect {
    Elevate((Uid, Session), Term),
    EndElevations(Uid),
    InsertSecret(SecretName, Box<Entry>),
    InsertTrashed(SecretId, Discarded),
    RemoveSecret(SecretName),
    /// Everything is another: the index is built again from the store.
    ReplaceIndex,
    RemoveTrashed(SecretId),
    ReplaceKeyring(Arc<Keyring>),
    ReplaceRootKey(RootKey),
    SetMade(SecretName, Option<Made>),
    SetLease(GrantId, Option<Box<LeaseRecord>>),
    SetRotation(SecretId, Stage),
    SetUses(BTreeMap<Box<str>, u32>),
}

/// A line of the log that is written before the commit.
pub(super) struct Line {
    pub(super) action: Action,
    pub(super) caller: Option<Caller>,
    pub(super) name: Option<SecretName>,
    pub(super) version: Option<Version>,
    pub(super) rule: Option<Arc<str>>,
    pub(super) reason: Option<String>,
    pub(super) detail: Option<serde_json::Value>,
}

impl Line {
    pub(super) fn event(&self, outcome: Outcome) -> Event<'_> {
        Event {
            caller: self.caller.as_ref(),
            secret: self.name.as_ref(),
            version: self.version,
            rule: self.rule.as_deref(),
            reason: self.reason.as_deref(),
            detail: self.detail.clone(),
            ..Event::new(self.action, outcome)
        }
    }
}

impl<'a> Batch<'a> {
    pub(super) fn new(inner: &'a Inner, unlocked: &'a Unlocked) -> Result<Self, StoreError> {
        Ok(Self {
            txn: inner.store.begin()?,
            root: unlocked.root.lock().clone(),
            puts: 0,
            overlay: BTreeMap::new(),
            rotations: BTreeMap::new(),
            last_read: RefCell::default(),
            effects: Vec::new(),
            lines: Vec::new(),
            inner,
            unlocked,
            keyring: unlocked.keyring.load_full(),
            now: inner.gate.now(),
        })
    }

    /// Returns how much has been put, deleted or replaced so far.
    pub(super) fn puts(&self) -> u64 {
        self.puts
    }

    /// Returns the secret of a name as this transaction sees it.
    pub(super) fn secret(
        &self,
        name: &SecretName,
    ) -> Result<Option<(SecretId, SecretRecord)>, BrokerError> {
        let id = match self.overlay.get(name) {
            Some(id) => *id,
            None => self.unlocked.index.read().secret(name).map(|entry| entry.id),
        };
        let Some(id) = id else { return Ok(None) };
        Ok(Some((id, self.secret_record(id)?)))
    }

    /// Returns the record of a secret that is known to exist, in the trash or not.
    pub(super) fn secret_record(&self, id: SecretId) -> Result<SecretRecord, BrokerError> {
        match self.record(id)? {
            Some(Record::Secret(record)) => Ok(record),
            Some(
                Record::Codes(_)
                | Record::Confirmed(_)
                | Record::Directory(_)
                | Record::Lease(_)
                | Record::MadeDirectory { .. }
                | Record::Older(_)
                | Record::Rotation(_)
                | Record::Uses(_),
            )
            | None => Err(StoreError::Damaged(format!("the record {id} is missing")).into()),
        }
    }

    /// Returns how far a secret's rotation is, as this transaction sees it.
    pub(super) fn rotation(&self, id: SecretId) -> Stage {
        let changed = self.rotations.get(&id).copied();
        changed.unwrap_or_else(|| self.unlocked.index.read().rotation(id))
    }

    pub(super) fn set_rotation(&mut self, id: SecretId, stage: Stage) {
        self.rotations.insert(id, stage);
        self.effects.push(Effect::SetRotation(id, stage));
    }

    /// Returns what stands at a path as this transaction sees it.
    pub(super) fn kind_at(&self, path: &SecretName) -> Option<Kind> {
        if let Some(id) = self.overlay.get(path) {
            return id.map(|_| Kind::Secret);
        }
        if self.overlay.iter().any(|(name, id)| id.is_some() && name.is_below(path)) {
            return Some(Kind::Directory);
        }
        match self.unlocked.index.read().at(path) {
            At::Nothing => None,
            At::Folder(_) => Some(Kind::Directory),
            At::Secret(_) => Some(Kind::Secret),
        }
    }

    /// Fails unless a secret can stand at `name`: no secret above it, and no directory there.
    pub(super) fn check_place(&self, name: &SecretName) -> Result<(), BrokerError> {
        if self.kind_at(name) == Some(Kind::Directory) {
            return Err(BrokerError::IsDirectory(name.clone()));
        }
        let mut above = name.parent();
        while let Some(path) = above {
            if self.kind_at(&path) == Some(Kind::Secret) {
                return Err(BrokerError::NotDirectory(path));
            }
            above = path.parent();
        }
        Ok(())
    }

    /// Writes a secret's record and takes note of what it means for the index.
    pub(super) fn put_secret(
        &mut self,
        id: SecretId,
        mut record: SecretRecord,
    ) -> Result<(), BrokerError> {
        self.move_oldest(id, &mut record.history)?;
        let name = record.name.clone();
        let record = Record::Secret(record);
        self.put_record(id, &record)?;
        let Record::Secret(record) = record else { return Ok(()) };
        if record.deleted.is_some() {
            self.overlay.insert(name.clone(), None);
            self.effects.push(Effect::RemoveSecret(name));
            self.effects.push(Effect::InsertTrashed(id, Discarded::of(&record)));
        } else if let Some(entry) = Entry::of(id, &record, self.keyring.inode(name.as_str())) {
            self.overlay.insert(name.clone(), Some(id));
            self.effects.push(Effect::InsertSecret(name, Box::new(entry)));
        }
        Ok(())
    }

    /// Returns the number that the next secret of this name gets in the trash.
    pub(super) fn next_trash_number(&self, name: &SecretName) -> u32 {
        let committed = self.unlocked.index.read().last_trash_number(name);
        let pending = self.effects.iter().filter_map(|effect| {
            let Effect::InsertTrashed(_, discarded) = effect else { return None };
            (discarded.name == *name).then_some(discarded.number)
        });
        pending.fold(committed, u32::max) + 1
    }

    /// Takes note that a name is free now, because its secret has another one.
    pub(super) fn vacate(&mut self, name: &SecretName) {
        self.overlay.insert(name.clone(), None);
        self.effects.push(Effect::RemoveSecret(name.clone()));
    }

    pub(super) fn effect(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    pub(super) fn line(&mut self, line: Line) {
        self.lines.push(line);
    }

    pub(super) fn record(&self, id: SecretId) -> Result<Option<Record>, BrokerError> {
        self.record_in(Table::Records, id)
    }

    /// Does so in another table that has records.
    pub(super) fn record_in(
        &self,
        table: Table,
        id: SecretId,
    ) -> Result<Option<Record>, BrokerError> {
        let Some(sealed) = self.txn.get(table, &id.0)? else { return Ok(None) };
        let plain = self.keyring.open_record(id, &sealed).map_err(BrokerError::Damaged)?;
        self.last_read.replace(Some((table, id, sealed)));
        Record::decode(&plain).map(Some)
    }

    pub(super) fn put_record(&mut self, id: SecretId, record: &Record) -> Result<(), BrokerError> {
        self.put_record_in(Table::Records, id, record)
    }

    /// Does so in another table that has records.
    pub(super) fn put_record_in(
        &mut self,
        table: Table,
        id: SecretId,
        record: &Record,
    ) -> Result<(), BrokerError> {
        let sealed = self.keyring.seal_record(id, &record.encode()?).map_err(BrokerError::Key)?;
        match self.last_read.take() {
            Some((in_table, read, before)) if (in_table, read) == (table, id) => {
                self.put_over(table, &id.0, Some(&before), &sealed)
            }
            Some(_) | None => self.put(table, &id.0, &sealed),
        }
    }

    /// Writes the value of a version that there has not been.
    pub(super) fn put_new_value(
        &mut self,
        id: SecretId,
        version: Version,
        sealed: &[u8],
    ) -> Result<(), BrokerError> {
        self.put_over(Table::Values, &value_key(id, version), None, sealed)
    }

    pub(super) fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, BrokerError> {
        Ok(self.txn.get(table, key)?)
    }

    /// Writes an entry, and keeps the record set's sum in step.
    pub(super) fn put(
        &mut self,
        table: Table,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), BrokerError> {
        self.last_read.take();
        let before = self.txn.put(table, key, value)?;
        self.note_put(table, key, before.as_deref(), value);
        Ok(())
    }

    /// Does so over what the caller knows to be there, which is not read again.
    fn put_over(
        &mut self,
        table: Table,
        key: &[u8],
        before: Option<&[u8]>,
        value: &[u8],
    ) -> Result<(), BrokerError> {
        self.txn.set(table, key, value)?;
        self.note_put(table, key, before, value);
        Ok(())
    }

    fn note_put(&mut self, table: Table, key: &[u8], before: Option<&[u8]>, value: &[u8]) {
        if let Some(before) = before {
            self.root.set.remove(&self.keyring.element(table as u8, key, before));
        }
        self.root.set.add(&self.keyring.element(table as u8, key, value));
        self.root.seals += u64::from(Table::SEALED.contains(&table));
        self.puts += 1;
    }

    /// Commits a new generation although nothing else changes.
    pub(super) fn commit_anyway(&mut self) {
        self.puts += 1;
    }

    /// Returns how often the active epoch was used.
    pub(super) fn seals(&self) -> u64 {
        self.root.seals
    }

    /// Counts from zero again, under a new epoch.
    pub(super) fn forget_seals(&mut self) {
        self.root.seals = 0;
    }

    /// Removes an entry, and keeps the record set's sum in step.
    pub(super) fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), BrokerError> {
        self.last_read.take();
        if let Some(before) = self.txn.delete(table, key)? {
            self.root.set.remove(&self.keyring.element(table as u8, key, &before));
            self.puts += 1;
        }
        Ok(())
    }

    /// Replaces everything by what `fill` puts, which adds up to `root` and opens with `keyring`.
    pub(super) fn replace_all(
        &mut self,
        keyring: Keyring,
        root: Root,
        fill: &mut FillStore<'_>,
    ) -> Result<(), BrokerError> {
        self.last_read.take();
        self.txn.clear()?;
        fill(&mut *self.txn)?;
        self.root = Root { generation: self.root.generation, ..root };
        self.keyring = Arc::new(keyring);
        self.puts += 1;
        self.effects.push(Effect::ReplaceKeyring(Arc::clone(&self.keyring)));
        self.effects.push(Effect::ReplaceIndex);
        Ok(())
    }
}

pub(super) type FillStore<'f> = dyn FnMut(&mut dyn Txn) -> Result<(), StoreError> + 'f;
