//! What comes from another service becomes a version here, and what is confirmed there is noted.
//!
//! Whether a value is new is decided in the commit: one that was asked for before somebody wrote here is
//! older than what is here by now, and is dropped.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::batch::{Batch, Effect, Line};
use super::record::{CONFIRMED_ID, Record, SecretRecord};
use super::rotation::check_idle;
use super::upstream::{Held, Remote, RemoteVersion};
use super::write::{add_version, new_record, published, random_id};
use super::writer::Company;
use super::{Broker, BrokerError, Put, Result};
use crate::audit::Action;
use crate::model::{SecretId, SecretName, Timestamp, Uid, Version};
use crate::system::SecretBytes;

/// A value as a service has it.
#[derive(Debug)]
pub struct Arrival {
    pub version: RemoteVersion,
    /// Whether the version's name tells it from all others: there are services without versions.
    pub told_apart: bool,
    pub value: SecretBytes,
    /// The service's version that was known here when it was asked.
    pub known: Option<RemoteVersion>,
    pub expires: Option<Timestamp>,
    /// As whose a new secret counts.
    pub created_by: Uid,
}

/// What came of an arrival.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TakenIn {
    /// It is what is here already.
    Confirmed,
    Made(Version),
    /// Somebody has written here meanwhile.
    Overtaken,
}

/// A copy that is kept here.
#[derive(Clone, Debug)]
pub struct KeptCopy {
    pub name: SecretName,
    pub confirmed: Timestamp,
}

impl Broker {
    /// Returns the service's version that is here of a secret.
    pub fn remote_version(&self, name: &SecretName) -> Option<RemoteVersion> {
        let unlocked = self.inner.unlocked().ok()?;
        let index = unlocked.index.read();
        Some(index.secret(name)?.held()?.copy().version.clone())
    }

    /// Returns the version here that is a secret's current one.
    pub fn current_version(&self, name: &SecretName) -> Option<Version> {
        let unlocked = self.inner.unlocked().ok()?;
        let index = unlocked.index.read();
        Some(index.secret(name)?.version)
    }

    /// Returns every copy of a backend's. Errors: `Sealed`.
    pub fn copies(&self, backend: &str) -> Result<Vec<KeptCopy>> {
        let mut found = Vec::new();
        self.each_held(&mut |name, _, held| {
            let copy = held.copy();
            if *copy.version.backend == *backend
                && let Ok(name) = name.parse()
            {
                found.push(KeptCopy { name, confirmed: copy.confirmed });
            }
        })?;
        Ok(found)
    }

    /// Notes that a copy was still the service's current version at some time.
    pub fn confirm_copy(&self, name: &SecretName, at: Timestamp) {
        let Ok(unlocked) = self.inner.unlocked() else { return };
        let index = unlocked.index.read();
        let held = index.secret(name).and_then(|entry| entry.held());
        // It may have been put meanwhile.
        if let Some(held) = held.filter(|held| held.copy().confirmed < at) {
            held.confirm(at);
        }
    }

    /// Keeps what a service has answered, with a line in the log where it is new.
    ///
    /// Errors: `TooBig`, `Rotating`, `NotDirectory`, `IsDirectory` (something else stands there), `Sealed`, `Store`, `Audit`.
    pub fn take_in(&self, name: &SecretName, arrival: Arrival) -> Result<TakenIn> {
        let inner = &*self.inner;
        let confirmed = {
            let unlocked = inner.unlocked()?;
            let index = unlocked.index.read();
            let entry = index.secret(name).filter(|entry| {
                arrival.told_apart
                    && (arrival.expires.is_none() || entry.expires() == arrival.expires)
            });
            let held = entry.and_then(|entry| entry.held());
            held.filter(|held| held.is_of(&arrival.version))
                .map(|held| held.confirm(inner.gate.now()))
        };
        if confirmed.is_some() {
            return Ok(TakenIn::Confirmed);
        }
        self.check_size(arrival.value.len() as u64, &Put { allow_empty: true, ..Put::default() })?;
        let at = name.clone();
        let (taken, existed) =
            inner.submit(Company::Shared, move |batch| take_in(batch, &at, arrival))?;
        if existed && matches!(taken, TakenIn::Made(_)) {
            inner.announce(name);
        }
        Ok(taken)
    }

    /// Moves a copy to the trash because the service has the secret no more. Nothing happens to one that is
    /// of another version than `known`.
    pub fn note_gone(&self, name: &SecretName, known: &RemoteVersion) -> Result<()> {
        let (name, known) = (name.clone(), known.clone());
        self.inner.submit(Company::Shared, move |batch| {
            let Some((id, mut record)) = batch.secret(&name)? else { return Ok(()) };
            if record.remote.as_ref().is_none_or(|remote| remote.version != known) {
                return Ok(());
            }
            check_idle(batch, id, &name)?;
            let version = record.history.current().map_or(Version::FIRST, |entry| entry.version);
            record.discard(batch.now, batch.next_trash_number(&name));
            let reason = format!("backend {} has it no more", known.backend);
            own_line(batch, Action::Delete, &name, version, reason);
            batch.put_secret(id, record)
        })
    }

    /// Writes down when copies were last confirmed, in one commit, so that it is known after a restart for how
    /// long they may be served.
    pub fn save_confirmations(&self) -> Result<()> {
        let mut times = BTreeMap::new();
        self.each_held(&mut |_, id, held| {
            times.insert(id, held.copy().confirmed.as_microsecond());
        })?;
        self.inner.submit(Company::Shared, move |batch| {
            batch.put_record(CONFIRMED_ID, &Record::Confirmed(times))
        })
    }

    /// Makes a directory for the daemon itself, unless there is one. Errors: `NotDirectory`, `Exists`: a secret
    /// stands there, or above it.
    pub fn ensure_directory(&self, path: &SecretName) -> Result<()> {
        let path = path.clone();
        self.inner.submit(Company::Alone, move |batch| {
            match batch.kind_at(&path) {
                Some(super::Kind::Directory) => return Ok(()),
                Some(super::Kind::Secret) => return Err(BrokerError::Exists(path)),
                None => batch.check_place(&path)?,
            }
            let made = super::index::Made { id: random_id()?, created_by: None };
            batch.put_record(made.id, &made.record(path.clone()))?;
            batch.effect(Effect::SetMade(path, Some(made)));
            Ok(())
        })
    }

    fn each_held(&self, visit: &mut dyn FnMut(&str, SecretId, &Held)) -> Result<()> {
        let unlocked = self.inner.unlocked()?;
        let index = unlocked.index.read();
        let Some(root) = index.folder(None) else { return Ok(()) };
        root.each_secret(&mut String::new(), &mut |name, entry| {
            if let Some(held) = entry.held() {
                visit(name, entry.id, held);
            }
        });
        Ok(())
    }
}

/// Takes an arrival in; with whether there was such a secret before.
fn take_in(batch: &mut Batch<'_>, name: &SecretName, arrival: Arrival) -> Result<(TakenIn, bool)> {
    let Arrival { version: remote, value, known, expires, created_by, .. } = arrival;
    let (id, mut record, existed) = match batch.secret(name)? {
        Some((id, record)) => {
            let here = record.remote.as_ref().filter(|here| here.version.backend == remote.backend);
            if here.map(|here| &here.version) != known.as_ref() {
                return Ok((TakenIn::Overtaken, true));
            }
            check_idle(batch, id, name)?;
            (id, record, true)
        }
        None => {
            if known.is_some() {
                // It was removed after the service was asked.
                return Ok((TakenIn::Overtaken, false));
            }
            batch.check_place(name)?;
            match trashed_copy(batch, name)? {
                Some((id, record)) => (id, record, false),
                None => (random_id()?, new_record(batch, created_by, name, &value), false),
            }
        }
    };
    if record.bring_back() {
        batch.effect(Effect::RemoveTrashed(id));
    }
    let fingerprint = batch.keyring.fingerprint(&value);
    let current = record.history.current().filter(|entry| entry.fingerprint == fingerprint);
    let same = current.map(|entry| entry.version);
    let taken = match same {
        Some(_) => TakenIn::Confirmed,
        None => TakenIn::Made(make_version(batch, id, &mut record, &value)?),
    };
    if expires.is_some() {
        record.metadata.expires = expires;
    }
    let reason = format!("from backend {}, version {}", remote.backend, remote.id);
    record.remote = Some(Remote { version: remote, confirmed: batch.now });
    if let TakenIn::Made(version) = taken {
        own_line(batch, Action::Write, name, version, reason);
    } else if !existed && let Some(version) = same {
        own_line(batch, Action::Restore, name, version, reason);
    }
    batch.put_secret(id, record)?;
    Ok((taken, existed))
}

/// Makes what a service has the current version. It may be what a rotation has left staged, as it was told to.
fn make_version(
    batch: &mut Batch<'_>,
    id: SecretId,
    record: &mut SecretRecord,
    value: &SecretBytes,
) -> Result<Version> {
    let fingerprint = batch.keyring.fingerprint(value);
    let is_staged =
        record.history.pending().is_some_and(|staged| staged.fingerprint == fingerprint);
    if is_staged && let Some(version) = record.history.publish_pending() {
        published(batch, id, record)?;
        return Ok(version);
    }
    let creator = record.metadata.created_by;
    add_version(batch, creator, id, record, value, false)
}

/// Finds the youngest secret in the trash that was a copy under a name: with it its metadata and history
/// come back.
fn trashed_copy(batch: &Batch<'_>, name: &SecretName) -> Result<Option<(SecretId, SecretRecord)>> {
    let ids: Vec<SecretId> = {
        let index = batch.unlocked.index.read();
        index.trash().filter(|(_, trashed)| *trashed == name).map(|(id, _)| id).collect()
    };
    let mut found: Option<(SecretId, SecretRecord)> = None;
    for id in ids {
        let record = batch.secret_record(id)?;
        let younger =
            found.as_ref().is_none_or(|(_, found)| found.trash_number < record.trash_number);
        // Of another change in this transaction it may be among the names again.
        if younger && record.remote.is_some() && record.deleted.is_some() {
            found = Some((id, record));
        }
    }
    Ok(found)
}

fn own_line(
    batch: &mut Batch<'_>,
    action: Action,
    name: &SecretName,
    version: Version,
    reason: String,
) {
    batch.line(Line {
        action,
        caller: None,
        name: Some(name.clone()),
        version: Some(version),
        rule: Some(Arc::from("route")),
        reason: Some(reason),
        detail: None,
    });
}
