//! Grants: what an admin gives on top of the policy, for a time; see [`Lease`].
//!
//! Each is a record of its own, sealed like the others, so it is durable before it is acknowledged and
//! ends on time whatever becomes of the daemon. Whether it is in force is decided at each request, by
//! the clock; that what has ended is removed, and recorded, is housekeeping.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::batch::{Batch, Effect, Line};
use super::read::uses;
use super::record::{Record, USES_ID};
use super::writer::Company;
use super::{Broker, BrokerError, Inner, Result};
use crate::audit::Action;
use crate::crypto::random_id;
use crate::model::{
    Caller, GrantId, Levels, Pattern, SecretId, SecretName, Timestamp, Uid, Uptime,
};
use crate::policy::{Lease, Term, Uses, Whom};
use crate::store::Table;

/// How long a grant may last: what is needed for longer belongs in the policy.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

/// How many there may be at once: each is one more binding to be looked at in a request.
const MOST: usize = 1000;

/// Longest reason, in bytes. It stands in an audit line.
const MAX_REASON: usize = 256;

/// A grant that somebody asks for.
#[derive(Clone, Debug)]
pub struct Ask {
    pub names: Pattern,
    pub levels: Levels,
    pub whom: Whom,
    pub lasting: Duration,
    pub max_uses: Option<u32>,
    pub reason: Box<str>,
}

/// A grant as the store has it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct LeaseRecord {
    pub(super) lease: Lease,
    pub(super) given_by: Uid,
    pub(super) reason: Box<str>,
}

/// A grant as it is shown.
#[derive(Clone, Debug, Serialize)]
pub struct Granted {
    #[serde(serialize_with = "as_text")]
    pub id: GrantId,
    pub names: Pattern,
    pub levels: Levels,
    /// As in `uid 33, unit system.slice/nginx.service`.
    pub whom: String,
    #[serde(serialize_with = "as_text")]
    pub until: Timestamp,
    pub uses: Option<u32>,
    pub used: u32,
    pub given_by: Uid,
    pub reason: Box<str>,
}

impl Broker {
    /// Gives a grant. It is in force, and durable, when this returns.
    ///
    /// Errors: `Denied` (recorded) for whom the policy does not make an admin of the store; `Invalid`.
    pub fn grant(&self, caller: &Caller, ask: Ask) -> Result<Granted> {
        let inner = &*self.inner;
        let admitted = inner.gate.admit_store(caller, Action::Grant)?;
        // Else an hour as an admin could be made to last.
        if Lease::is_label(&admitted.rule) {
            let reason = "who is an admin by a grant alone gives none";
            let rule = Some(&*admitted.rule);
            return Err(inner.gate.refuse_on_store(caller, Action::Grant, rule, reason));
        }
        ask.check()?;
        let (caller, rule) = (caller.clone(), admitted.rule);
        let [a, b, c, d, e, f, ..] = random_id().map_err(BrokerError::Key)?;
        let id = GrantId([a, b, c, d, e, f]);
        self.inner.submit(Company::Shared, move |batch| give(batch, &caller, rule, id, ask))
    }

    /// Returns the grants that have not ended: to an admin all, to others those that name their uid.
    pub fn grants(&self, caller: &Caller) -> Result<Vec<Granted>> {
        let inner = &*self.inner;
        inner.unlocked()?;
        let (now, uptime) = inner.moment();
        let is_admin = inner.gate.is_admin(caller);
        let mut leases = inner.gate.leases();
        leases.retain(|record| {
            let is_shown = is_admin || record.lease.whom.uids.contains(&caller.uid);
            is_shown && !record.lease.term.is_over(now, uptime)
        });
        Ok(leases.into_iter().map(|record| inner.shown(record)).collect())
    }

    /// Ends a grant before its time. Handles that were opened by it stay open, as when a policy changes.
    pub fn revoke_grant(&self, caller: &Caller, id: GrantId) -> Result<Granted> {
        let admitted = self.inner.gate.admit_store(caller, Action::GrantRevoke)?;
        let caller = caller.clone();
        self.inner.submit(Company::Shared, move |batch| {
            let record = find(batch, id)?;
            let shown = batch.inner.shown(record.clone());
            let rule = Some(admitted.rule);
            let line = line(Action::GrantRevoke, Some(&caller), rule, &record, "revoked");
            remove(batch, id, line)?;
            Ok(shown)
        })
    }

    /// Removes the grants that have ended, and records it. Returns how many.
    pub fn end_grants(&self) -> Result<usize> {
        let inner = &*self.inner;
        let ended: Vec<GrantId> = match inner.unlocked() {
            Ok(_) => inner.ended_leases().into_iter().map(|record| record.lease.id).collect(),
            // They are looked at again once the store is unsealed.
            Err(_) => return Ok(0),
        };
        for id in &ended {
            let id = *id;
            inner.submit(Company::Shared, move |batch| {
                // It may have been revoked meanwhile.
                let Ok(record) = find(batch, id) else { return Ok(()) };
                let why = batch.inner.end_of(&record).unwrap_or("it has ended");
                let line = line(Action::GrantEnd, None, None, &record, why);
                remove(batch, id, line)
            })?;
        }
        Ok(ended.len())
    }
}

impl Ask {
    fn check(&self) -> Result<()> {
        let invalid = |why: &str| Err(BrokerError::Invalid(why.to_owned()));
        if self.levels.is_empty() {
            return invalid("a grant needs levels: read, write, delete or admin");
        }
        if !self.whom.names_somebody() {
            return invalid("a grant must say whom by uid, gid, unit or container");
        }
        if self.lasting < Duration::from_secs(1) || self.lasting > LONGEST {
            return invalid("a grant lasts from a second to 30 days: say how long, as in 15m");
        }
        if self.max_uses == Some(0) {
            return invalid("a grant has at least one use");
        }
        let only_read = self.levels.iter().all(|level| level == crate::model::Level::Read);
        if self.max_uses.is_some() && !only_read {
            return invalid("uses count reads: a grant of other levels has none to count");
        }
        if self.reason.trim().is_empty() || self.reason.len() > MAX_REASON {
            return invalid("a grant needs a reason, of at most 256 bytes");
        }
        Ok(())
    }
}

impl Inner {
    pub(super) fn moment(&self) -> (Timestamp, Uptime) {
        (self.gate.now(), self.clock.uptime())
    }

    fn ended_leases(&self) -> Vec<LeaseRecord> {
        let mut leases = self.gate.leases();
        leases.retain(|record| self.end_of(record).is_some());
        leases
    }

    /// Says why a grant has ended; `None` if it has not.
    fn end_of(&self, record: &LeaseRecord) -> Option<&'static str> {
        let (now, uptime) = self.moment();
        let used_up = |max| self.used(record) >= max;
        if record.lease.term.is_over(now, uptime) {
            Some("its time is over")
        } else if record.lease.max_uses.is_some_and(used_up) {
            Some("its uses are spent")
        } else {
            None
        }
    }

    fn used(&self, record: &LeaseRecord) -> u32 {
        self.gate.uses().used(&Lease::label(record.lease.id))
    }

    fn shown(&self, record: LeaseRecord) -> Granted {
        let used = self.used(&record);
        let Lease { id, names, levels, whom, max_uses, term } = record.lease;
        Granted {
            id,
            names,
            levels,
            whom: whom.to_string(),
            until: term.end(),
            uses: max_uses,
            used,
            given_by: record.given_by,
            reason: record.reason,
        }
    }
}

/// Returns the records of grants as they count from now on, after a start.
pub(super) fn resumed(
    leases: BTreeMap<GrantId, LeaseRecord>,
    (now, uptime): (Timestamp, Uptime),
) -> BTreeMap<GrantId, LeaseRecord> {
    let resume = |(id, mut record): (GrantId, LeaseRecord)| {
        record.lease.term = record.lease.term.resumed(now, uptime);
        (id, record)
    };
    leases.into_iter().map(resume).collect()
}

fn give(
    batch: &mut Batch<'_>,
    caller: &Caller,
    rule: Arc<str>,
    id: GrantId,
    ask: Ask,
) -> Result<Granted> {
    let Ask { names, levels, whom, lasting, max_uses, reason } = ask;
    if batch.inner.gate.leases().len() >= MOST {
        return Err(BrokerError::Invalid(format!("there are {MOST} grants: revoke some")));
    }
    let key = record_key(id);
    if batch.record(key)?.is_some() {
        return Err(BrokerError::Invalid("the grant's random id is taken: try again".into()));
    }
    let term = Term::new(batch.now, batch.inner.clock.uptime(), lasting);
    let lease = Lease { id, names, levels, whom, max_uses, term };
    let record = LeaseRecord { lease, given_by: caller.uid, reason };
    batch.line(line(Action::Grant, Some(caller), Some(rule), &record, &record.reason));
    let stored = Record::Lease(record);
    batch.put_record(key, &stored)?;
    let Record::Lease(record) = stored else { return Err(unknown(id)) };
    let shown = batch.inner.shown(record.clone());
    batch.effect(Effect::SetLease(id, Some(Box::new(record))));
    Ok(shown)
}

fn find(batch: &Batch<'_>, id: GrantId) -> Result<LeaseRecord> {
    match batch.record(record_key(id))? {
        Some(Record::Lease(record)) => Ok(record),
        Some(
            Record::Secret(_)
            | Record::Directory(_)
            | Record::MadeDirectory { .. }
            | Record::Rotation(_)
            | Record::Uses(_),
        )
        | None => Err(unknown(id)),
    }
}

fn remove(batch: &mut Batch<'_>, id: GrantId, line: Line) -> Result<()> {
    batch.line(line);
    batch.delete(Table::Records, &record_key(id).0)?;
    let mut uses = uses(batch)?;
    if uses.remove(&*Lease::label(id)).is_some() {
        batch.put_record(USES_ID, &Record::Uses(uses.clone()))?;
        batch.effect(Effect::SetUses(uses));
    }
    batch.effect(Effect::SetLease(id, None));
    Ok(())
}

fn unknown(id: GrantId) -> BrokerError {
    BrokerError::Invalid(format!("there is no grant {id}, or not any more"))
}

/// Returns where a grant's record lies. Of a secret's, whose place is 16 random bytes, it is as good as
/// certainly another.
fn record_key(id: GrantId) -> SecretId {
    let mut key = *b"......-a-grant-.";
    for (place, byte) in key.iter_mut().zip(id.0) {
        *place = byte;
    }
    SecretId(key)
}

fn line(
    action: Action,
    caller: Option<&Caller>,
    rule: Option<Arc<str>>,
    record: &LeaseRecord,
    reason: &str,
) -> Line {
    let Lease { id, names, levels, whom, max_uses, term } = &record.lease;
    Line {
        action,
        caller: caller.cloned(),
        name: names.as_str().parse::<SecretName>().ok(),
        version: None,
        rule,
        reason: Some(reason.to_owned()),
        detail: Some(detail(json!({
            "grant": id.to_string(),
            "names": names,
            "levels": levels,
            "whom": whom.to_string(),
            "until": term.end().to_string(),
            "uses": max_uses,
        }))),
    }
}

/// Leaves out what is not so.
fn detail(mut detail: Value) -> Value {
    if let Some(object) = detail.as_object_mut() {
        object.retain(|_, value| !value.is_null());
    }
    detail
}

fn as_text<T: std::fmt::Display, S: serde::Serializer>(
    value: &T,
    out: S,
) -> std::result::Result<S::Ok, S::Error> {
    out.collect_str(value)
}
