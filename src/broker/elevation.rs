//! Elevation: a one-time code makes a login session meet the guards that ask for it, for minutes.
//!
//! Each uid has a seed of its own, sealed like a value. The last step that a code was taken for and the
//! wrong tries are durable, so that no restart brings a code or a try back; who is elevated is in memory
//! alone, so a restart ends it. A session is the kernel's audit session: a process cannot choose it.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::batch::{Batch, Effect, Line};
use super::read::value_key;
use super::record::Record;
use super::writer::Company;
use super::{Broker, BrokerError, Result};
use crate::audit::Action;
use crate::crypto::{Code, Seed, random_id};
use crate::model::{Caller, SecretId, Session, Timestamp, Uid, Uptime, Version};
use crate::policy::Term;
use crate::store::{StoreError, Table};

/// Wrong tries after which the next ones have to wait: a minute, then twice as long each time.
const TRIES: u32 = 5;
const FIRST_WAIT: Duration = Duration::from_secs(60);
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// What is kept of a uid's one-time codes, beside the seed itself, which is sealed as a value.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct CodeRecord {
    pub(super) uid: Uid,
    /// Where the seed lies, as the first version of a value.
    pub(super) seed: SecretId,
    /// No code of this step or an earlier one is taken.
    last_step: i64,
    /// Wrong ones since the last right one.
    wrong: u32,
    /// While it holds, no code is looked at.
    locked: Option<Term>,
}

/// The sessions that are elevated now.
#[derive(Debug, Default)]
pub(super) struct Elevations(Mutex<HashMap<(Uid, Session), Term>>);

impl Elevations {
    pub(super) fn until(
        &self,
        caller: &Caller,
        now: Timestamp,
        uptime: Uptime,
    ) -> Option<Timestamp> {
        let held = self.0.lock();
        let term = held.get(&(caller.uid, caller.session?))?;
        term.holds(now, uptime).then(|| term.end())
    }

    /// Elevates a session; with the commit that takes its code, so that a seed which is forgotten after that
    /// takes the elevation along.
    pub(super) fn begin(
        &self,
        session: (Uid, Session),
        term: Term,
        (now, uptime): (Timestamp, Uptime),
    ) {
        let mut held = self.0.lock();
        held.retain(|_, term| !term.is_over(now, uptime));
        held.insert(session, term);
    }

    /// Ends all of a uid's.
    pub(super) fn end(&self, uid: Uid) {
        self.0.lock().retain(|(elevated, _), _| *elevated != uid);
    }

    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }
}

/// What became of a code.
enum Tried {
    Locked,
    Right(Timestamp),
    Wrong,
}

impl Broker {
    /// Decides whether a seed would be taken for the caller: with one already, only who is elevated
    /// changes it.
    ///
    /// Errors: `Refused` (recorded).
    pub fn admit_enrolment(&self, caller: &Caller) -> Result<()> {
        let inner = &*self.inner;
        let refuse = |why| Err(inner.gate.refuse_on_store(caller, Action::MfaEnrol, None, why));
        if !inner.gate.has_rules(caller) {
            return refuse("no rule of the policy is for the caller");
        }
        let has_one = inner.store.get(Table::Records, &record_key(caller.uid).0)?.is_some();
        if has_one && self.elevated_until(caller).is_none() {
            return refuse("there is a seed already: elevate first, or have an admin forget it");
        }
        Ok(())
    }

    /// Takes a seed for the caller, proved by a code of it, where [`admit_enrolment`](Self::admit_enrolment)
    /// lets it be.
    ///
    /// Errors: `Refused` (recorded), `Invalid`.
    pub fn enrol(&self, caller: &Caller, seed: Seed, code: Code) -> Result<()> {
        self.admit_enrolment(caller)?;
        let inner = &*self.inner;
        let is_elevated = self.elevated_until(caller).is_some();
        let now = Seed::step_at(inner.gate.now());
        let step = seed.step_of(code, now - 1..=now + 1).map_err(BrokerError::Key)?;
        let Some(last_step) = step else {
            return Err(BrokerError::Invalid("the code is not of that seed and this time".into()));
        };
        let place = SecretId(random_id().map_err(BrokerError::Key)?);
        let caller = caller.clone();
        inner.submit(Company::Shared, move |batch| {
            let uid = caller.uid;
            let before = find(batch, uid)?;
            // Another one may have come first.
            if before.is_some() && !is_elevated {
                return Err(BrokerError::Invalid("there is a seed already".into()));
            }
            let sealed = batch.keyring.seal_value(place, Version::FIRST, seed.bytes());
            let sealed = sealed.map_err(BrokerError::Key)?;
            if let Some(before) = before {
                batch.delete(Table::Values, &value_key(before.seed, Version::FIRST))?;
            }
            batch.put_new_value(place, Version::FIRST, &sealed)?;
            let record = CodeRecord { uid, seed: place, last_step, wrong: 0, locked: None };
            batch.line(line(Action::MfaEnrol, &caller, None));
            put(batch, record)
        })
    }

    /// Elevates the caller's login session, if the code is right. Returns until when.
    ///
    /// Errors: `Refused` (recorded) without a session or a seed, for a wrong or used code, and after too
    /// many of them; `Invalid` where no guard asks for it.
    pub fn elevate(&self, caller: &Caller, code: Code) -> Result<Timestamp> {
        let inner = &*self.inner;
        let refuse = |why| inner.gate.refuse_on_store(caller, Action::Elevate, None, why);
        if !inner.gate.policy().needs().session {
            return Err(BrokerError::Invalid("no guard of the policy asks for elevation".into()));
        }
        let Some(session) = caller.session else {
            return Err(refuse("there is no login session to elevate"));
        };
        if inner.store.get(Table::Records, &record_key(caller.uid).0)?.is_none() {
            return Err(refuse("there is no seed yet: run `secretfs elevate --enrol`"));
        }
        let by = caller.clone();
        let tried =
            inner.submit(Company::Shared, move |batch| try_code(batch, &by, session, code))?;
        match tried {
            Tried::Locked => Err(refuse("there were too many wrong codes: wait")),
            Tried::Right(until) => Ok(until),
            Tried::Wrong => Err(refuse("the code is wrong, or was used")),
        }
    }

    /// Ends the elevation of the caller's session.
    pub fn end_elevation(&self, caller: &Caller) {
        if let Some(session) = caller.session {
            self.inner.gate.elevations().0.lock().remove(&(caller.uid, session));
        }
    }

    /// Returns until when the caller's session is elevated.
    pub fn elevated_until(&self, caller: &Caller) -> Option<Timestamp> {
        self.inner.gate.elevated_until(caller)
    }

    /// Forgets the seed of a uid, so that it can enrol anew: for an admin of the store, and for one's own
    /// only while elevated, since a stolen session would otherwise bring its own seed.
    pub fn forget_seed(&self, caller: &Caller, uid: Uid) -> Result<()> {
        let inner = &*self.inner;
        let rule = inner.gate.admit_store(caller, Action::MfaForget)?.rule;
        if caller.uid == uid && self.elevated_until(caller).is_none() {
            let why = "one's own seed is forgotten only while elevated";
            return Err(inner.gate.refuse_on_store(caller, Action::MfaForget, Some(&rule), why));
        }
        let by = caller.clone();
        inner.submit(Company::Shared, move |batch| {
            let record = find(batch, uid)?
                .ok_or_else(|| BrokerError::Invalid(format!("uid {uid} has no seed")))?;
            batch.line(Line { rule: Some(rule), ..line(Action::MfaForget, &by, Some(uid)) });
            batch.delete(Table::Values, &value_key(record.seed, Version::FIRST))?;
            batch.delete(Table::Records, &record_key(uid).0)?;
            batch.effect(Effect::EndElevations(uid));
            Ok(())
        })
    }
}

fn try_code(batch: &mut Batch<'_>, caller: &Caller, session: Session, code: Code) -> Result<Tried> {
    let uptime = batch.inner.clock.uptime();
    let gone = || BrokerError::Invalid("the seed was forgotten meanwhile".into());
    let mut record = find(batch, caller.uid)?.ok_or_else(gone)?;
    if record.locked.is_some_and(|lock| !lock.is_over(batch.now, uptime)) {
        return Ok(Tried::Locked);
    }
    let sealed = batch.get(Table::Values, &value_key(record.seed, Version::FIRST))?;
    let sealed = sealed.ok_or_else(|| StoreError::Damaged("a seed is missing".into()))?;
    let seed = batch.keyring.open_value(record.seed, Version::FIRST, &sealed);
    let seed = seed.and_then(Seed::from_bytes).map_err(BrokerError::Damaged)?;
    let now = Seed::step_at(batch.now);
    let first = record.last_step.saturating_add(1).max(now - 1);
    let Some(step) = seed.step_of(code, first..=now + 1).map_err(BrokerError::Key)? else {
        record.wrong = record.wrong.saturating_add(1);
        if record.wrong.is_multiple_of(TRIES) {
            let doublings = (record.wrong / TRIES - 1).min(16);
            let wait = FIRST_WAIT.saturating_mul(1 << doublings).min(LONGEST_WAIT);
            record.locked = Some(Term::new(batch.now, uptime, wait));
        }
        put(batch, record)?;
        return Ok(Tried::Wrong);
    };
    (record.last_step, record.wrong, record.locked) = (step, 0, None);
    let term = Term::new(batch.now, uptime, batch.inner.limits.elevation);
    batch.line(Line {
        detail: Some(json!({ "session": session, "until": term.end().to_string() })),
        ..line(Action::Elevate, caller, None)
    });
    put(batch, record)?;
    batch.effect(Effect::Elevate((caller.uid, session), term));
    Ok(Tried::Right(term.end()))
}

fn find(batch: &Batch<'_>, uid: Uid) -> Result<Option<CodeRecord>> {
    Ok(match batch.record(record_key(uid))? {
        Some(Record::Codes(record)) => Some(record),
        Some(
            Record::Secret(_)
            | Record::Confirmed(_)
            | Record::Directory(_)
            | Record::Lease(_)
            | Record::MadeDirectory { .. }
            | Record::Older(_)
            | Record::Rotation(_)
            | Record::Uses(_),
        )
        | None => None,
    })
}

fn put(batch: &mut Batch<'_>, record: CodeRecord) -> Result<()> {
    batch.put_record(record_key(record.uid), &Record::Codes(record))
}

/// Returns where the record of a uid's codes lies.
fn record_key(uid: Uid) -> SecretId {
    let mut key = *b"....-s-one-time-";
    for (place, byte) in key.iter_mut().zip(uid.0.to_be_bytes()) {
        *place = byte;
    }
    SecretId(key)
}

fn line(action: Action, caller: &Caller, of: Option<Uid>) -> Line {
    Line {
        action,
        caller: Some(caller.clone()),
        name: None,
        version: None,
        rule: None,
        reason: None,
        detail: of.map(|uid| json!({ "of": uid })),
    }
}
