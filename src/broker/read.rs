//! Reading a value: decide, record, then decrypt.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::batch::{Batch, Effect};
use super::gate::{Asked, Grant};
use super::lease::is_held;
use super::record::{Record, SecretRecord, USES_ID};
use super::writer::Company;
use super::{Broker, BrokerError, Inner, Opened, Result, Unlocked, Which};
use crate::audit::{Action, Event, Outcome};
use crate::crypto::{CryptoError, Keyring};
use crate::model::{Caller, Level, SecretId, SecretName, Status, Timestamp, Version};
use crate::policy::Lease;
use crate::store::{StoreError, Table};
use crate::system::SecretBytes;

/// The version that a request means.
#[derive(Clone, Copy)]
pub(super) struct Chosen {
    pub(super) id: SecretId,
    pub(super) version: Version,
    pub(super) status: Status,
}

impl Broker {
    /// Reads a version: asks the policy, writes the record, decrypts.
    ///
    /// A caller without the right gets the same answer whether or not the secret exists. Errors:
    /// `Denied`, `NotFound`, `Verifying`, `Sealed`, `Revoked`, `Expired`,
    /// `Changing`, `Audit`, `Damaged`.
    pub fn read(&self, caller: &Caller, name: &SecretName, which: Which) -> Result<Opened> {
        let inner = &*self.inner;
        let begun = Instant::now();
        let level = if which == Which::Pending { Level::Admin } else { Level::Read };
        let sight = inner.gate.sight(caller);
        let attributes = inner.attributes_for(&sight, name);
        let asked = Asked { action: Action::Read, name, version: None };
        let grant = inner.gate.admit_by(&sight, level, attributes.as_ref(), asked)?;
        let unlocked = inner.unlocked()?;
        let recorded = inner.replay.version_read(caller, name);
        let which = recorded.map_or(which, Which::Number);
        let chosen = inner.choose(&unlocked, name, which, sight.now());
        let chosen = chosen.map_err(|err| inner.unfetched(caller, asked, err))?;
        let asked = Asked { version: Some(chosen.version), ..asked };
        inner.check_status(caller, asked, chosen.status)?;
        if which == Which::Current {
            inner.holds.check(chosen.id, name)?;
        }
        if recorded.is_none() {
            self.take_use(&grant)?;
        }
        // Where it is served all the same, who follows the log is warned.
        let reason = (chosen.status == Status::Expired).then_some("past its expiry");
        let opened = inner.open_recorded(&unlocked, caller, asked, (&grant, reason), chosen);
        inner.gate.counts.opens.add(begun.elapsed());
        opened
    }

    /// Reads the current values of several secrets as they were at one moment: all or none. Each is
    /// decided and recorded as a read of its own, `purpose` being the reason; `max_bytes` bounds them
    /// all together.
    ///
    /// Nothing is recorded as read unless all may be. Errors: those of [`read`](Self::read), `TooBig`.
    pub fn read_set(
        &self,
        caller: &Caller,
        names: &BTreeSet<SecretName>,
        (purpose, max_bytes): (&str, u64),
    ) -> Result<BTreeMap<SecretName, SecretBytes>> {
        let inner = &*self.inner;
        let sight = inner.gate.sight(caller);
        let mut grants = Vec::new();
        for name in names {
            let attributes = inner.attributes_for(&sight, name);
            let asked = Asked { action: Action::Read, name, version: None };
            grants.push(inner.gate.admit_by(&sight, Level::Read, attributes.as_ref(), asked)?);
        }
        let unlocked = inner.unlocked()?;
        let (chosen, bytes) = inner.choose_set(&unlocked, names, sight.now())?;
        let asked = |name, chosen: &Chosen| Asked {
            action: Action::Read,
            name,
            version: Some(chosen.version),
        };
        for (name, chosen) in names.iter().zip(&chosen) {
            inner.check_status(caller, asked(name, chosen), chosen.status)?;
            inner.holds.check(chosen.id, name)?;
        }
        if bytes > max_bytes {
            return Err(BrokerError::TooBig { bytes, limit: max_bytes });
        }
        for (name, grant) in names.iter().zip(&grants) {
            if inner.replay.version_read(caller, name).is_none() {
                self.take_use(grant)?;
            }
        }
        let expired = format!("{purpose}; past its expiry");
        for ((name, chosen), grant) in names.iter().zip(&chosen).zip(&grants) {
            let reason = if chosen.status == Status::Expired { &expired } else { purpose };
            inner.record_allowed(caller, asked(name, chosen), grant, Some(reason))?;
        }
        let mut values = BTreeMap::new();
        for (name, chosen) in names.iter().zip(&chosen) {
            let value = inner.open_value(&unlocked, chosen.id, chosen.version);
            let value = value.map_err(|err| inner.gate.failed(caller, asked(name, chosen), err))?;
            values.insert(name.clone(), value);
        }
        Ok(values)
    }

    /// Reads the current value as the base of an append or a partial overwrite. Needs `write`, is
    /// recorded as `append`, and must not be shown to a caller without `read`. `None`: there is no
    /// such secret.
    pub fn base(&self, caller: &Caller, name: &SecretName) -> Result<Option<Opened>> {
        let inner = &*self.inner;
        let sight = inner.gate.sight(caller);
        let attributes = inner.attributes_for(&sight, name);
        let asked = Asked { action: Action::Append, name, version: None };
        let grant = inner.gate.admit_by(&sight, Level::Write, attributes.as_ref(), asked)?;
        let unlocked = inner.unlocked()?;
        let chosen = match inner.choose(&unlocked, name, Which::Current, sight.now()) {
            Ok(chosen) => chosen,
            Err(BrokerError::NotFound(_)) => return Ok(None),
            Err(err) => return Err(err),
        };
        let asked = Asked { version: Some(chosen.version), ..asked };
        self.take_use(&grant)?;
        inner.open_recorded(&unlocked, caller, asked, (&grant, None), chosen).map(Some)
    }

    /// Records that a handle opened by another uid is read by `caller`, who must have `read`.
    pub fn read_passed_on(
        &self,
        caller: &Caller,
        name: &SecretName,
        version: Version,
    ) -> Result<()> {
        let inner = &*self.inner;
        let sight = inner.gate.sight(caller);
        let attributes = inner.attributes_for(&sight, name);
        let asked = Asked { action: Action::Read, name, version: Some(version) };
        let grant = inner.gate.admit_by(&sight, Level::Read, attributes.as_ref(), asked)?;
        self.take_use(&grant)?;
        inner.record_allowed(caller, asked, &grant, Some("handle passed on"))
    }

    /// Tells whether [`read`](Self::read) may wait for the disk: because records are synced before
    /// the answer, or because some binding counts its uses.
    pub fn reads_may_block(&self) -> bool {
        self.inner.reads_may_block()
    }

    /// Takes one use of a binding with `max_uses`, durably, before anything is decrypted.
    fn take_use(&self, grant: &Grant) -> Result<()> {
        let Some(binding) = grant.consumes.clone() else { return Ok(()) };
        self.inner.submit(Company::Shared, move |batch| {
            let gate = &batch.inner.gate;
            // A grant whose uses are spent may be removed in this very transaction, its count with it: that
            // must not begin anew.
            let has_ended = match Lease::of_label(&binding) {
                Some(id) => !is_held(batch, id)?,
                None => false,
            };
            let mut uses = uses(batch)?;
            let used = uses.entry((*binding).into()).or_default();
            // Two readers may have been admitted to the same last use; the second is refused here.
            if gate.policy().max_uses(&binding).is_none_or(|most| *used >= most) || has_ended {
                return Err(BrokerError::Denied);
            }
            *used += 1;
            batch.put_record(USES_ID, &Record::Uses(uses.clone()))?;
            batch.effect(Effect::SetUses(uses));
            Ok(())
        })
    }
}

impl Inner {
    /// Finds the version that is meant.
    pub(super) fn choose(
        &self,
        unlocked: &Unlocked,
        name: &SecretName,
        which: Which,
        now: Timestamp,
    ) -> Result<Chosen> {
        let absent = || self.verdict.absent(BrokerError::NotFound(name.clone()));
        let (id, version, status) = {
            let index = unlocked.index.read();
            let entry = index.secret(name);
            if which == Which::Current || entry.is_none() {
                self.check_at_hand(name, entry, now)?;
            }
            let entry = entry.ok_or_else(absent)?;
            (entry.id, entry.version, entry.status_at(now))
        };
        if which == Which::Current {
            return Ok(Chosen { id, version, status });
        }
        let entry = self.find_version(unlocked, id, which)?;
        let entry = entry.ok_or_else(|| BrokerError::NotFound(name.clone()))?;
        Ok(Chosen { id, version: entry.version, status })
    }

    /// Finds the current versions of several secrets in one look, between two commits; with how many
    /// bytes they are.
    fn choose_set(
        &self,
        unlocked: &Unlocked,
        names: &BTreeSet<SecretName>,
        now: Timestamp,
    ) -> Result<(Vec<Chosen>, u64)> {
        let index = unlocked.index.read();
        let (mut all, mut bytes) = (Vec::new(), 0_u64);
        for name in names {
            let absent = || self.verdict.absent(BrokerError::NotFound(name.clone()));
            let entry = index.secret(name);
            self.check_at_hand(name, entry, now)?;
            let entry = entry.ok_or_else(absent)?;
            bytes = bytes.saturating_add(entry.size);
            let (id, version, status) = (entry.id, entry.version, entry.status_at(now));
            all.push(Chosen { id, version, status });
        }
        Ok((all, bytes))
    }

    /// Records that a secret of another service's could not be fetched.
    fn unfetched(&self, caller: &Caller, asked: Asked<'_>, err: BrokerError) -> BrokerError {
        if matches!(err, BrokerError::Upstream(_)) {
            return self.gate.failed(caller, asked, err);
        }
        err
    }

    /// Fails, and records that, for a secret whose value nobody gets any more.
    fn check_status(&self, caller: &Caller, asked: Asked<'_>, status: Status) -> Result<()> {
        let name = || asked.name.clone();
        match status {
            Status::Revoked => Err(self.gate.failed(caller, asked, BrokerError::Revoked(name()))),
            Status::Expired if self.limits.refuse_expired => {
                Err(self.gate.failed(caller, asked, BrokerError::Expired(name())))
            }
            Status::Active | Status::Expired | Status::PendingDeletion | Status::Rotating => Ok(()),
        }
    }

    /// Records the consent, then decrypts; a failure after that is a second line.
    fn open_recorded(
        &self,
        unlocked: &Unlocked,
        caller: &Caller,
        asked: Asked<'_>,
        (grant, reason): (&Grant, Option<&str>),
        chosen: Chosen,
    ) -> Result<Opened> {
        self.record_allowed(caller, asked, grant, reason)?;
        match self.open_value(unlocked, chosen.id, chosen.version) {
            Ok(value) => Ok(Opened { id: chosen.id, value, version: chosen.version }),
            Err(err) => Err(self.gate.failed(caller, asked, err)),
        }
    }

    fn record_allowed(
        &self,
        caller: &Caller,
        asked: Asked<'_>,
        grant: &Grant,
        reason: Option<&str>,
    ) -> Result<()> {
        self.gate.counts.reads.fetch_add(1, Ordering::Relaxed);
        let event =
            Event { rule: Some(&grant.rule), reason, ..asked.event(caller, Outcome::Allowed) };
        self.gate.record(&event)
    }

    /// Decrypts a version's value.
    pub(super) fn open_value(
        &self,
        unlocked: &Unlocked,
        id: SecretId,
        version: Version,
    ) -> Result<SecretBytes> {
        if let Some(value) = self.cache.find(id, version) {
            return value.open().map_err(BrokerError::Damaged);
        }
        unlocked.with_keyring(|keyring| {
            let sealed =
                self.store.get(Table::Values, &value_key(id, version))?.ok_or_else(|| {
                    StoreError::Damaged(format!("the value of {id} version {version} is missing"))
                })?;
            let unwrapped =
                keyring.unwrap_value(id, version, &sealed).map_err(BrokerError::Damaged)?;
            let value = unwrapped.open().map_err(BrokerError::Damaged)?;
            self.cache.keep(id, version, sealed.len(), unwrapped);
            Ok(value)
        })
    }

    /// Reads a secret's record from the store.
    pub(super) fn secret_record(&self, unlocked: &Unlocked, id: SecretId) -> Result<SecretRecord> {
        unlocked.with_keyring(|keyring| {
            let sealed = self
                .store
                .get(Table::Records, &id.0)?
                .ok_or_else(|| StoreError::Damaged(format!("the record {id} is missing")))?;
            match super::load::open_record(keyring, &id.0, &sealed)? {
                (_, Record::Secret(record)) => Ok(record),
                (
                    _,
                    Record::Codes(_)
                    | Record::Confirmed(_)
                    | Record::Directory(_)
                    | Record::Lease(_)
                    | Record::MadeDirectory { .. }
                    | Record::Older(_)
                    | Record::Rotation(_)
                    | Record::Uses(_),
                ) => Err(StoreError::Damaged(format!("the record {id} is no secret")).into()),
            }
        })
    }
}

impl Unlocked {
    /// Calls `open`, which reads something and opens it; again, if the keyring was replaced in
    /// between. While epochs change, what was read may be under one that the keyring does not have
    /// yet, or not any more.
    pub(super) fn with_keyring<T>(&self, open: impl Fn(&Keyring) -> Result<T>) -> Result<T> {
        loop {
            let keyring = self.keyring.load_full();
            match open(&keyring) {
                Err(BrokerError::Damaged(CryptoError::UnknownEpoch(_)))
                    if !Arc::ptr_eq(&keyring, &self.keyring.load()) => {}
                opened => return opened,
            }
        }
    }
}

/// Returns how often each binding with `max_uses` was used, as a transaction sees it.
pub(super) fn uses(batch: &Batch<'_>) -> Result<BTreeMap<Box<str>, u32>> {
    Ok(match batch.record(USES_ID)? {
        Some(Record::Uses(uses)) => uses,
        Some(
            Record::Secret(_)
            | Record::Codes(_)
            | Record::Confirmed(_)
            | Record::Directory(_)
            | Record::Lease(_)
            | Record::MadeDirectory { .. }
            | Record::Older(_)
            | Record::Rotation(_),
        )
        | None => BTreeMap::new(),
    })
}

/// Returns the key of a version's value in the store.
pub(super) fn value_key(id: SecretId, version: Version) -> [u8; 24] {
    let mut key = [0; 24];
    let (head, tail) = key.split_at_mut(16);
    head.copy_from_slice(&id.0);
    tail.copy_from_slice(&version.0.to_be_bytes());
    key
}
