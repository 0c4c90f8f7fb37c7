//! The steps of a rotation, each one commit: what becomes of the versions, and what the driver has to
//! remember, are durable together.
//!
//! The driver above decides which step comes when; here stands what it cannot do wrong. A staged value
//! is no reader's; while a rotation is between staging and its switch, nobody else changes the secret
//! (`Rotating`); and its note survives with the secret, so that a crash at any point can be taken up.

use serde::{Deserialize, Serialize};

use super::batch::{Batch, Line};
use super::gate::Asked;
use super::read::value_key;
use super::record::{Record, RotationRecord, SecretRecord, rotation_id};
use super::upstream::{Remote, RemoteVersion};
use super::write::{add_version, published};
use super::writer::Company;
use super::{Broker, BrokerError, Inner, Opened, Put, Result, Unlocked, Which};
use crate::audit::{Action, Event, Outcome};
use crate::model::{
    Attributes, Caller, Level, Metadata, SecretId, SecretName, Status, Timestamp, Version,
};
use crate::store::Table;
use crate::system::SecretBytes;

mod elsewhere;

pub use elsewhere::There;

/// A secret as its rotation sees it.
#[derive(Clone, Debug)]
pub struct Subject {
    pub id: SecretId,
    pub name: SecretName,
    pub current: Version,
    pub pending: Option<Version>,
    /// The number that the next version gets.
    pub next: Version,
    pub metadata: Metadata,
    pub stage: Stage,
    /// What the last step left to remember, in the driver's own words; empty where there was none.
    pub note: Box<str>,
}

/// How far a rotation is.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum Stage {
    /// Nothing is left to be done.
    #[default]
    Ended,
    /// Between staging and switch: nobody else changes the secret.
    Changing,
    /// Switched, and something is still to be done.
    Switched,
}

/// What becomes of the versions in one step.
#[derive(Debug)]
pub enum Change {
    /// Nothing, but a version is about to be put where another service keeps the secret, and that is on record.
    Forward(Version),
    /// The staged version is given up, and the secret is as it was before.
    GiveUp,
    /// The staged version stays staged, for an administrator to look at; the secret is as it was before.
    Leave,
    /// Nothing: only the note is kept.
    Nothing,
    /// The value counts as made at this time: the clock was ahead when it was.
    Redate(Timestamp),
    /// The value becomes the current version at once.
    Publish(SecretBytes),
    /// The staged version is given up, and the value staged in its place.
    Restage(SecretBytes),
    /// The value is staged. Until `Switch` or `GiveUp` nobody else changes the secret.
    Stage(SecretBytes),
    /// The version that is staged already is taken, as if by `Stage`.
    Adopt,
    /// The staged version becomes the current one, which is that version where another service keeps it.
    Switch(Option<RemoteVersion>),
}

/// One step: a change, with what it teaches.
#[derive(Debug)]
pub struct Step {
    pub change: Change,
    /// How far the rotation is once the step is taken.
    pub stage: Stage,
    /// What a driver has to remember from then on; never a value.
    pub note: Box<str>,
    /// When the current version expires, if the step makes one that says so.
    pub expires: Option<Timestamp>,
    /// For the audit line, in a few words.
    pub reason: Box<str>,
    /// For the audit line, of the last step: how it ended.
    pub outcome: Option<serde_json::Value>,
}

/// On whose behalf a secret is rotated.
#[derive(Clone, Copy, Debug)]
pub enum By<'a> {
    Caller(&'a Caller),
    /// The daemon itself, as it is configured.
    Daemon,
}

impl By<'_> {
    fn caller(self) -> Option<Caller> {
        match self {
            Self::Caller(caller) => Some(caller.clone()),
            Self::Daemon => None,
        }
    }
}

impl Broker {
    /// Decides whether a secret may be rotated, which takes `write`, and returns it. A refusal is
    /// recorded; a consent is by the steps that follow.
    ///
    /// Errors: `Denied`, `NotFound`, `Elsewhere`, `Upstream` (who keeps it is down), `Verifying`, `Sealed`.
    pub fn admit_rotation(&self, by: By<'_>, name: &SecretName) -> Result<Subject> {
        let inner = &*self.inner;
        let asked = Asked { action: Action::Rotate, name, version: None };
        if let By::Caller(caller) = by {
            let sight = inner.gate.sight(caller);
            let attributes = inner.attributes_for(&sight, name);
            let _granted = inner.gate.admit_by(&sight, Level::Write, attributes.as_ref(), asked)?;
        }
        let down = self.upstream_of(name).and_then(|upstream| upstream.refusal(name));
        if let Some(down) = down {
            return Err(match by {
                By::Caller(caller) => inner.gate.failed(caller, asked, down.into()),
                By::Daemon => down.into(),
            });
        }
        match self.subject(name) {
            Err(BrokerError::NotFound(absent)) => {
                inner.check_at_hand(name, None, inner.gate.now())?;
                Err(BrokerError::NotFound(absent))
            }
            found => found,
        }
    }

    /// Fails with `Denied`, on record, for a caller who may not know of a name.
    pub fn admit_question(&self, caller: &Caller, name: &SecretName) -> Result<()> {
        if self.may_know(caller, name) {
            return Ok(());
        }
        self.check(caller, Level::Read, name)
    }

    /// Returns a secret as its rotation sees it. Errors: `NotFound`, `Verifying`, `Sealed`.
    pub fn subject(&self, name: &SecretName) -> Result<Subject> {
        let inner = &*self.inner;
        let unlocked = inner.unlocked()?;
        let absent = || inner.verdict.absent(BrokerError::NotFound(name.clone()));
        let id = unlocked.index.read().secret(name).map(|entry| entry.id).ok_or_else(absent)?;
        inner.subject(&unlocked, id)
    }

    /// Returns a secret by its id, whatever its name is now. Errors: `Sealed`, `Store`.
    pub fn subject_by_id(&self, id: SecretId) -> Result<Subject> {
        self.inner.subject(&*self.inner.unlocked()?, id)
    }

    /// Returns the secrets whose rotation has not come to its end, as after a crash.
    pub fn open_rotations(&self) -> Result<Vec<Subject>> {
        let unlocked = self.inner.unlocked()?;
        let open: Vec<SecretId> = unlocked.index.read().open_rotations().collect();
        open.into_iter().map(|id| self.inner.subject(&unlocked, id)).collect()
    }

    /// Takes one step. Returns the version that it is about; once it returns, the step is durable.
    ///
    /// A step that is taken already succeeds again. Errors: `Rotating` (another rotation is between
    /// staging and switch), `ExpectationFailed` (somebody has made a version since `secret` was looked
    /// at), `NotFound` (nothing is staged), `TooBig`, `Store`, `Audit`, `Sealed`.
    pub fn step_rotation(&self, by: By<'_>, secret: &Subject, step: Step) -> Result<Version> {
        if let Change::Publish(value) | Change::Stage(value) = &step.change {
            self.check_size(value.len() as u64, &Put::default())?;
        }
        let (by, secret) = (by.caller(), secret.clone());
        let announced = matches!(step.change, Change::Publish(_) | Change::Switch(_));
        let (version, name) = self
            .inner
            .submit(Company::Shared, move |batch| take(batch, by.as_ref(), &secret, step))?;
        if announced {
            self.inner.announce(&name);
        }
        Ok(version)
    }

    /// Reads a version for its rotation, which is recorded as such. Errors as [`read`](Self::read)'s,
    /// but neither revocation nor expiry is one.
    pub fn read_for_rotation(
        &self,
        by: By<'_>,
        secret: &Subject,
        which: Which,
        what: &str,
    ) -> Result<Opened> {
        let inner = &*self.inner;
        let unlocked = inner.unlocked()?;
        let version = match which {
            Which::Current => Some(secret.current),
            Which::Pending => secret.pending,
            Which::Number(version) => Some(version),
            Which::Previous => None,
        };
        let version = version.ok_or_else(|| BrokerError::NotFound(secret.name.clone()))?;
        let caller = by.caller();
        inner.gate.record(&Event {
            caller: caller.as_ref(),
            secret: Some(&secret.name),
            version: Some(version),
            reason: Some(what),
            ..Event::new(Action::Rotate, Outcome::Allowed)
        })?;
        let value = inner.open_value(&unlocked, secret.id, version)?;
        Ok(Opened { id: secret.id, value, version })
    }

    /// Calls `visit` with the name and the attributes of every secret, for who looks for those that a
    /// rule of the daemon's own is about.
    pub fn each_secret(&self, visit: &mut dyn FnMut(&SecretName, &Attributes)) -> Result<()> {
        let unlocked = self.inner.unlocked()?;
        let index = unlocked.index.read();
        let Some(root) = index.folder(None) else { return Ok(()) };
        root.each_secret(&mut String::new(), &mut |name, entry| {
            // Names in the index were parsed when they came in.
            if let Ok(name) = name.parse() {
                visit(&name, &entry.attributes());
            }
        });
        Ok(())
    }
}

impl Inner {
    fn subject(&self, unlocked: &Unlocked, id: SecretId) -> Result<Subject> {
        let record = self.secret_record(unlocked, id)?;
        let kept = self.rotation_record(unlocked, id)?;
        subject(id, record, kept)
    }

    fn rotation_record(
        &self,
        unlocked: &Unlocked,
        secret: SecretId,
    ) -> Result<Option<RotationRecord>> {
        unlocked.with_keyring(|keyring| {
            let key = rotation_id(secret).0;
            let Some(sealed) = self.store.get(Table::Records, &key)? else { return Ok(None) };
            Ok(rotation(super::load::open_record(keyring, &key, &sealed)?.1))
        })
    }
}

fn subject(id: SecretId, record: SecretRecord, kept: Option<RotationRecord>) -> Result<Subject> {
    let absent = || BrokerError::NotFound(record.name.clone());
    let current = record.history.current().map(|entry| entry.version).ok_or_else(absent)?;
    Ok(Subject {
        id,
        current,
        pending: record.history.pending().map(|entry| entry.version),
        next: record.history.next(),
        metadata: record.metadata,
        name: record.name,
        stage: kept.as_ref().map(|kept| kept.stage).unwrap_or_default(),
        note: kept.map(|kept| kept.note).unwrap_or_default(),
    })
}

fn rotation(record: Record) -> Option<RotationRecord> {
    match record {
        Record::Rotation(record) => Some(record),
        Record::Secret(_)
        | Record::Codes(_)
        | Record::Confirmed(_)
        | Record::Directory(_)
        | Record::Lease(_)
        | Record::MadeDirectory { .. }
        | Record::Older(_)
        | Record::Uses(_) => None,
    }
}

/// Takes a step in a transaction: checks first, then puts.
fn take(
    batch: &mut Batch<'_>,
    by: Option<&Caller>,
    secret: &Subject,
    step: Step,
) -> Result<(Version, SecretName)> {
    let Step { change, stage, note, expires, reason, outcome } = step;
    let id = secret.id;
    let mut record = batch.secret_record(id)?;
    let name = record.name.clone();
    let kept = batch.record(rotation_id(id))?.and_then(rotation);
    let changing = batch.rotation(id) == Stage::Changing;
    let begins = matches!(change, Change::Adopt | Change::Publish(_) | Change::Stage(_));
    if begins {
        // Two may have been admitted at once: who begins must have seen the end of the last one.
        let last = kept.as_ref().map(|kept| &*kept.note).unwrap_or_default();
        if changing || *last != *secret.note {
            return Err(BrokerError::Rotating(name));
        }
        if record.deleted.is_some() {
            return Err(BrokerError::NotFound(name));
        }
        if record.history.next() != secret.next {
            return Err(BrokerError::ExpectationFailed { expected: secret.current });
        }
    }
    let before = kept.filter(|_| changing).map_or(record.metadata.status, |kept| kept.before);
    let missing = || BrokerError::NotFound(name.clone());
    let current = record.history.current().map(|entry| entry.version).ok_or_else(missing)?;
    let staged = record.history.pending().map(|entry| entry.version);
    let creator = by.map_or(record.metadata.created_by, |caller| caller.uid);
    let untouched = matches!(change, Change::Forward(_) | Change::Nothing);
    let action =
        if matches!(change, Change::Forward(_)) { Action::Forward } else { Action::Rotate };
    let version = match change {
        Change::Adopt => {
            record.metadata.status = Status::Rotating;
            staged.ok_or_else(missing)?
        }
        Change::GiveUp => {
            if let Some(dropped) = record.history.discard_pending() {
                batch.delete(Table::Values, &value_key(id, dropped))?;
            }
            // It may have been revoked meanwhile.
            if record.metadata.status == Status::Rotating {
                record.metadata.status = before;
            }
            current
        }
        Change::Leave => {
            if record.metadata.status == Status::Rotating {
                record.metadata.status = before;
            }
            current
        }
        Change::Forward(version) => version,
        Change::Nothing => current,
        Change::Redate(time) => {
            record.metadata.last_rotated = Some(time);
            current
        }
        Change::Publish(value) => add_version(batch, creator, id, &mut record, &value, false)?,
        Change::Restage(value) => {
            let creator = record.metadata.created_by;
            add_version(batch, creator, id, &mut record, &value, true)?
        }
        Change::Stage(value) => {
            record.metadata.status = Status::Rotating;
            add_version(batch, creator, id, &mut record, &value, true)?
        }
        // Taken already.
        Change::Switch(_) if !changing => current,
        Change::Switch(remote) => {
            let version = record.history.publish_pending().ok_or_else(missing)?;
            published(batch, id, &mut record)?;
            let remote = remote.map(|version| Remote { version, confirmed: batch.now });
            record.remote = remote.or(record.remote);
            version
        }
    };
    record.metadata.expires = expires.or(record.metadata.expires);
    batch.line(Line {
        action,
        caller: by.cloned(),
        name: Some(name.clone()),
        version: Some(version),
        rule: None,
        reason: Some(reason.into()),
        detail: outcome,
    });
    batch.set_rotation(id, stage);
    let kept = RotationRecord { secret: id, stage, before, note };
    batch.put_record(rotation_id(id), &Record::Rotation(kept))?;
    // A secret that was removed meanwhile is not put back among the names.
    if !untouched {
        batch.put_secret(id, record)?;
    }
    Ok((version, name))
}

/// Removes what is remembered of a secret that is destroyed.
pub(super) fn forget(batch: &mut Batch<'_>, secret: SecretId) -> Result<()> {
    batch.set_rotation(secret, Stage::Ended);
    batch.delete(Table::Records, &rotation_id(secret).0)
}

/// Fails with `Rotating` while a rotation is between staging and switch: what anybody else made
/// current meanwhile would not be what the target accepts.
pub(super) fn check_idle(batch: &Batch<'_>, id: SecretId, name: &SecretName) -> Result<()> {
    match batch.rotation(id) {
        Stage::Changing => Err(BrokerError::Rotating(name.clone())),
        Stage::Ended | Stage::Switched => Ok(()),
    }
}
