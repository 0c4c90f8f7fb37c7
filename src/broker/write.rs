//! Making versions: each is sealed, recorded and durable before it is acknowledged.

use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use super::allowance::Kind as Counted;
use super::batch::{Batch, Line};
use super::gate::{Asked, Grant};
use super::read::value_key;
use super::record::SecretRecord;
use super::rotation::check_idle;
use super::writer::Company;
use super::{Broker, BrokerError, Origin, Put, Result};
use crate::audit::Action;
use crate::model::{
    Attributes, Caller, Injection, Level, Metadata, SecretId, SecretName, SecretType, Status, Uid,
    Version,
};
use crate::store::{StoreError, Table};
use crate::system::SecretBytes;
use crate::versions::NewVersion;

impl Broker {
    /// Makes a new version (and the secret, where there is none). Returns once it is durable: call
    /// it from a thread that may block.
    ///
    /// Errors: `Denied`, `TooBig`, `Invalid` (no bytes and not `allow_empty`), `Exists`
    /// (`create_new`), `ExpectationFailed`, `IsDirectory`, `NotDirectory`, `Sealed`, `Store`, `Audit`.
    pub fn write(
        &self,
        caller: &Caller,
        name: &SecretName,
        value: SecretBytes,
        put: &Put,
    ) -> Result<Version> {
        let (done, outcome) = sync_channel(1);
        self.write_then(caller, name, value, put, move |result| drop(done.send(result)));
        outcome.recv().unwrap_or(Err(StoreError::Broken.into()))
    }

    /// Does as [`write`](Self::write) without waiting: calls `done`, which must not block, once the
    /// version is durable or refused.
    pub fn write_then(
        &self,
        caller: &Caller,
        name: &SecretName,
        value: SecretBytes,
        put: &Put,
        done: impl FnOnce(Result<Version>) + Send + 'static,
    ) {
        let action = if put.stage { Action::Stage } else { Action::Write };
        if let Some(version) = self.done(caller, action) {
            return done(Ok(version));
        }
        if let Err(err) = self.check_size(value.len() as u64, put) {
            let asked = Asked { action: Action::Write, name, version: None };
            return done(Err(self.inner.gate.failed(caller, asked, err)));
        }
        let announced = put.origin == Origin::Daemon && !put.stage;
        let announced = announced.then(|| (self.clone(), name.clone()));
        let done = move |outcome: Result<Version>| {
            if let (Ok(_), Some((broker, name))) = (&outcome, &announced) {
                broker.inner.announce(name);
            }
            done(outcome);
        };
        if let Some(upstream) = self.upstream_of(name) {
            return self.forward_write(upstream, (caller, name), value, put, done);
        }
        let (caller, name, put) = (caller.clone(), name.clone(), put.clone());
        let apply = move |batch: &mut Batch<'_>| write(batch, &caller, &name, &value, &put);
        self.inner.submit_then(Company::Shared, apply, done);
    }

    pub(super) fn check_size(&self, bytes: u64, put: &Put) -> Result<()> {
        let limit = self.inner.limits.max_value_bytes;
        if bytes > limit {
            return Err(BrokerError::TooBig { bytes, limit });
        }
        if bytes == 0 && !put.allow_empty {
            return Err(BrokerError::Invalid(
                "an empty value needs `secretfs put --allow-empty`".into(),
            ));
        }
        Ok(())
    }

    /// Publishes the pending version under a new number; for admins only.
    pub fn promote(&self, caller: &Caller, name: &SecretName) -> Result<Version> {
        if let Some(version) = self.done(caller, Action::Promote) {
            return Ok(version);
        }
        self.check_kept_here(caller, Level::Admin, name, "nothing is staged")?;
        let (caller, name) = (caller.clone(), name.clone());
        self.inner.submit(Company::Shared, move |batch| promote(batch, &caller, &name))
    }
}

fn write(
    batch: &mut Batch<'_>,
    caller: &Caller,
    name: &SecretName,
    value: &SecretBytes,
    put: &Put,
) -> Result<Version> {
    let existing = batch.secret(name)?;
    let level = if put.stage { Level::Admin } else { Level::Write };
    let action = if put.stage { Action::Stage } else { Action::Write };
    let attributes = existing.as_ref().map(|(_, record)| &record.metadata.attributes);
    let asked = Asked { action, name, version: None };
    let gate = &batch.inner.gate;
    let grant = gate.admit(caller, level, attributes, asked)?;
    check(batch, (caller, name), existing.as_ref(), put)
        .map_err(|err| gate.failed(caller, asked, err))?;
    let (id, mut record) = match existing {
        Some(existing) => existing,
        None => (random_id()?, new_record(batch, caller.uid, name, value)),
    };
    let version = add_version(batch, caller.uid, id, &mut record, value, put.stage)?;
    note(batch, caller, action, name, version, &grant);
    batch.put_secret(id, record)?;
    Ok(version)
}

/// Fails where a version may not be made as it is put, by somebody who is allowed to.
pub(super) fn check(
    batch: &Batch<'_>,
    (caller, name): (&Caller, &SecretName),
    existing: Option<&(SecretId, SecretRecord)>,
    put: &Put,
) -> Result<()> {
    let record = existing.map(|(_, record)| record);
    let current = record.and_then(|record| record.history.current()).map(|entry| entry.version);
    if put.create_new && existing.is_some() {
        return Err(BrokerError::Exists(name.clone()));
    }
    if let Some(expected) = put.expect
        && current != Some(expected)
    {
        return Err(BrokerError::ExpectationFailed { expected });
    }
    if put.stage && existing.is_none() {
        return Err(BrokerError::NotFound(name.clone()));
    }
    match existing {
        Some((id, _)) => check_idle(batch, *id, name),
        None => {
            batch.check_place(name)?;
            batch.check_allowance(caller, Counted::Secret)
        }
    }
}

/// Seals a value as the next version of a record, and stores it. The record itself is still to be put.
pub(super) fn add_version(
    batch: &mut Batch<'_>,
    created_by: Uid,
    id: SecretId,
    record: &mut SecretRecord,
    value: &SecretBytes,
    stage: bool,
) -> Result<Version> {
    let new = NewVersion {
        created: batch.now,
        created_by,
        size: value.len() as u64,
        fingerprint: batch.keyring.fingerprint(value),
    };
    let version = record.history.next();
    let sealed = batch.keyring.seal_value(id, version, value).map_err(BrokerError::Key)?;
    batch.put_new_value(id, version, &sealed)?;
    if stage {
        let (_, replaced) = record.history.stage(new);
        drop_value(batch, id, replaced)?;
    } else {
        record.history.publish(new);
        published(batch, id, record)?;
    }
    Ok(version)
}

/// Brings a record in line with a version that has just become its current one.
pub(super) fn published(
    batch: &mut Batch<'_>,
    id: SecretId,
    record: &mut SecretRecord,
) -> Result<()> {
    let metadata = &mut record.metadata;
    metadata.modified = batch.now;
    if record.history.previous().is_some() {
        metadata.last_rotated = Some(batch.now);
    }
    // A new value is what a revoked or expired secret waits for.
    metadata.status = Status::Active;
    metadata.expires = metadata.expires.filter(|expires| *expires > batch.now);
    if let Some(keep) = batch.inner.limits.keep_versions {
        for old in batch.retain_previous(id, &mut record.history, keep.into())? {
            drop_value(batch, id, Some(old))?;
        }
    }
    Ok(())
}

fn drop_value(batch: &mut Batch<'_>, id: SecretId, version: Option<Version>) -> Result<()> {
    match version {
        Some(version) => batch.delete(Table::Values, &value_key(id, version)),
        None => Ok(()),
    }
}

fn promote(batch: &mut Batch<'_>, caller: &Caller, name: &SecretName) -> Result<Version> {
    let asked = Asked { action: Action::Promote, name, version: None };
    let existing = batch.secret(name)?;
    let attributes = existing.as_ref().map(|(_, record)| &record.metadata.attributes);
    let gate = &batch.inner.gate;
    let grant = gate.admit(caller, Level::Admin, attributes, asked)?;
    let missing = || BrokerError::NotFound(name.clone());
    let (id, mut record) = existing.ok_or_else(missing)?;
    check_idle(batch, id, name).map_err(|err| gate.failed(caller, asked, err))?;
    let staged = record.history.pending().map(|entry| entry.version).ok_or_else(missing)?;
    let sealed = batch.get(Table::Values, &value_key(id, staged))?.ok_or_else(missing)?;
    let value = batch.keyring.open_value(id, staged, &sealed).map_err(BrokerError::Damaged)?;
    let discarded = record.history.discard_pending();
    drop_value(batch, id, discarded)?;
    let version = add_version(batch, caller.uid, id, &mut record, &value, false)?;
    note(batch, caller, Action::Promote, name, version, &grant);
    batch.put_secret(id, record)?;
    Ok(version)
}

pub(super) fn note(
    batch: &mut Batch<'_>,
    caller: &Caller,
    action: Action,
    name: &SecretName,
    version: Version,
    grant: &Grant,
) {
    batch.line(Line {
        action,
        caller: Some(caller.clone()),
        name: Some(name.clone()),
        version: Some(version),
        rule: Some(Arc::clone(&grant.rule)),
        reason: None,
        detail: None,
    });
}

pub(super) fn new_record(
    batch: &Batch<'_>,
    created_by: Uid,
    name: &SecretName,
    value: &SecretBytes,
) -> SecretRecord {
    let secret_type = SecretType::guess(name.leaf(), value.expose());
    SecretRecord {
        name: name.clone(),
        metadata: Metadata {
            attributes: Attributes { secret_type, ..Attributes::default() },
            status: Status::Active,
            created: batch.now,
            modified: batch.now,
            created_by,
            expires: None,
            last_rotated: None,
            rotation_days: None,
            description: None,
            owner_contact: None,
            owner: None,
            group: None,
            mode: None,
            injection: Injection::default(),
            decoy: false,
        },
        history: crate::versions::History::default(),
        deleted: None,
        trash_number: 0,
        remote: None,
    }
}

/// Draws an id for a new secret or directory.
pub(super) fn random_id() -> Result<SecretId> {
    crate::crypto::random_id().map(SecretId).map_err(BrokerError::Key)
}
