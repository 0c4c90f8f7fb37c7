//! The grants that the store has: their records, how each change is one transaction, and what they show.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Ask, Title};
use crate::audit::Action;
use crate::broker::batch::{Batch, Effect, Line};
use crate::broker::read::uses;
use crate::broker::record::{Record, USES_ID};
use crate::broker::writer::Company;
use crate::broker::{BrokerError, Inner, Result};
use crate::model::{
    Caller, GrantId, Levels, Pattern, SecretId, SecretName, Timestamp, Uid, Uptime,
};
use crate::policy::{Lease, Term, Uses};
use crate::store::Table;

/// How long a request waits for its approval.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// How many there may be at once: each is one more binding to be looked at in a request.
const MOST: usize = 1000;

/// How many of them one uid that is no admin may have asked for.
const MOST_OF_ONE: usize = 20;

/// A grant as the store has it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(in crate::broker) struct LeaseRecord {
    pub(in crate::broker) lease: Lease,
    pub(super) asked_by: Uid,
    reason: Box<str>,
    /// How long it lasts, from when it is in force.
    seconds: u64,
    /// The binding by which it was taken in an emergency.
    emergency: Option<Box<str>>,
    /// How many admins must agree before it is in force, and those who have.
    wanted: u32,
    approved_by: Vec<Uid>,
}

/// A grant as it is shown.
#[derive(Clone, Debug, Serialize)]
pub struct Granted {
    #[serde(serialize_with = "as_text")]
    pub id: GrantId,
    /// `in force` or `waiting`.
    pub state: &'static str,
    pub names: Pattern,
    pub levels: Levels,
    /// As in `uid 33, unit system.slice/nginx.service`.
    pub whom: String,
    /// When it ends; of a waiting one, until when it can be approved.
    #[serde(serialize_with = "as_text")]
    pub until: Timestamp,
    pub seconds: u64,
    pub uses: Option<u32>,
    pub used: u32,
    pub asked_by: Uid,
    pub approvers: u32,
    pub approved_by: Vec<Uid>,
    pub break_glass: Option<Box<str>>,
    pub reason: Box<str>,
}

impl LeaseRecord {
    pub(in crate::broker) fn is_waiting(&self) -> bool {
        self.approvals() < self.wanted
    }

    fn approvals(&self) -> u32 {
        u32::try_from(self.approved_by.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn concerns(&self, uid: Uid) -> bool {
        self.asked_by == uid || self.lease.whom.uids.contains(&uid)
    }
}

impl Inner {
    pub(in crate::broker) fn moment(&self) -> (Timestamp, Uptime) {
        (self.gate.now(), self.clock.uptime())
    }

    pub(super) fn ended_leases(&self) -> Vec<LeaseRecord> {
        let mut leases = self.gate.leases();
        leases.retain(|record| self.end_of(record).is_some());
        leases
    }

    /// Says why a grant has ended; `None` if it has not.
    pub(super) fn end_of(&self, record: &LeaseRecord) -> Option<&'static str> {
        let (now, uptime) = self.moment();
        let used_up = |max| self.used(record) >= max;
        if record.lease.term.is_over(now, uptime) {
            let waited = "nobody has approved it in time";
            Some(if record.is_waiting() { waited } else { "its time is over" })
        } else if record.lease.max_uses.is_some_and(used_up) {
            Some("its uses are spent")
        } else {
            None
        }
    }

    fn used(&self, record: &LeaseRecord) -> u32 {
        self.gate.uses().used(&Lease::label(record.lease.id))
    }

    pub(super) fn shown(&self, record: LeaseRecord) -> Granted {
        let used = self.used(&record);
        let state = if record.is_waiting() { "waiting" } else { "in force" };
        let Lease { id, names, levels, whom, max_uses, term, .. } = record.lease;
        Granted {
            id,
            state,
            names,
            levels,
            whom: whom.to_string(),
            until: term.end(),
            seconds: record.seconds,
            uses: max_uses,
            used,
            asked_by: record.asked_by,
            approvers: record.wanted,
            approved_by: record.approved_by,
            break_glass: record.emergency,
            reason: record.reason,
        }
    }
}

impl Inner {
    /// Writes down what a start has left of each grant, so that no later one asks a clock that was set back since.
    pub(in crate::broker) fn keep_terms(&self) -> Result<()> {
        let held = self.gate.leases();
        if held.is_empty() {
            return Ok(());
        }
        self.submit(Company::Shared, move |batch| {
            for record in held {
                // It may have been revoked meanwhile.
                let Ok(stored) = find(batch, record.lease.id) else { continue };
                if stored != record {
                    put(batch, record)?;
                }
            }
            Ok(())
        })
    }
}

/// Returns the records of grants as they count from now on, after a start.
pub(in crate::broker) fn resumed(
    leases: BTreeMap<GrantId, LeaseRecord>,
    (now, uptime): (Timestamp, Uptime),
) -> BTreeMap<GrantId, LeaseRecord> {
    let resume = |(id, mut record): (GrantId, LeaseRecord)| {
        record.lease.term = record.lease.term.resumed(now, uptime);
        (id, record)
    };
    leases.into_iter().map(resume).collect()
}

pub(super) fn give(
    batch: &mut Batch<'_>,
    caller: &Caller,
    title: Title,
    id: GrantId,
    ask: Ask,
) -> Result<Granted> {
    let (all, own) = counted(batch, caller.uid);
    if all >= MOST || (!title.by_admin && own >= MOST_OF_ONE) {
        return Err(BrokerError::Invalid("there are too many grants: revoke some".into()));
    }
    if batch.record(record_key(id))?.is_some() {
        return Err(BrokerError::Invalid("the grant's random id is taken: try again".into()));
    }
    let Ask { names, levels, whom, lasting, max_uses, reason, .. } = ask;
    let lasting = lasting.unwrap_or_default();
    let in_force = if title.wanted > 0 { PATIENCE } else { lasting };
    let term = Term::new(batch.now, batch.inner.clock.uptime(), in_force);
    let record = LeaseRecord {
        lease: Lease { id, names, levels, whom, max_uses, term, approvals: 0 },
        asked_by: caller.uid,
        reason,
        seconds: lasting.as_secs(),
        emergency: title.emergency,
        wanted: title.wanted,
        approved_by: Vec::new(),
    };
    batch.line(line(title.action, Some(caller), title.rule, &record, &record.reason));
    put(batch, record)
}

/// Counts the grants that there are, as this transaction sees them, and those that `uid` has asked for.
fn counted(batch: &Batch<'_>, uid: Uid) -> (usize, usize) {
    let held = batch.inner.gate.leases();
    let mut askers: BTreeMap<GrantId, Uid> =
        held.iter().map(|record| (record.lease.id, record.asked_by)).collect();
    for effect in &batch.effects {
        let Effect::SetLease(id, record) = effect else { continue };
        match record {
            Some(record) => askers.insert(*id, record.asked_by),
            None => askers.remove(id),
        };
    }
    (askers.len(), askers.values().filter(|asker| **asker == uid).count())
}

pub(super) fn approve(
    batch: &mut Batch<'_>,
    caller: &Caller,
    rule: Arc<str>,
    id: GrantId,
) -> Result<Granted> {
    let mut record = find(batch, id)?;
    if batch.inner.end_of(&record).is_some() {
        return Err(unknown(id));
    }
    if record.concerns(caller.uid) {
        let reason = "who asks for a grant, or gets it, does not approve it";
        let gate = &batch.inner.gate;
        return Err(gate.refuse_on_store(caller, Action::GrantApprove, Some(&rule), reason));
    }
    if !record.is_waiting() || record.approved_by.contains(&caller.uid) {
        return Err(BrokerError::Invalid(format!("grant {id} does not wait for your approval")));
    }
    record.approved_by.push(caller.uid);
    if !record.is_waiting() {
        let lasting = Duration::from_secs(record.seconds);
        record.lease.approvals = record.approvals();
        record.lease.term = Term::new(batch.now, batch.inner.clock.uptime(), lasting);
    }
    batch.line(line(Action::GrantApprove, Some(caller), Some(rule), &record, &record.reason));
    put(batch, record)
}

fn put(batch: &mut Batch<'_>, record: LeaseRecord) -> Result<Granted> {
    let id = record.lease.id;
    let shown = batch.inner.shown(record.clone());
    batch.put_record(record_key(id), &Record::Lease(record.clone()))?;
    batch.effect(Effect::SetLease(id, Some(Box::new(record))));
    Ok(shown)
}

pub(super) fn find(batch: &Batch<'_>, id: GrantId) -> Result<LeaseRecord> {
    match batch.record(record_key(id))? {
        Some(Record::Lease(record)) => Ok(record),
        Some(
            Record::Secret(_)
            | Record::Codes(_)
            | Record::Confirmed(_)
            | Record::Older(_)
            | Record::Directory(_)
            | Record::MadeDirectory { .. }
            | Record::Rotation(_)
            | Record::Uses(_),
        )
        | None => Err(unknown(id)),
    }
}

/// Tells whether there is such a grant, as a transaction sees it.
pub(in crate::broker) fn is_held(batch: &Batch<'_>, id: GrantId) -> Result<bool> {
    Ok(batch.get(Table::Records, &record_key(id).0)?.is_some())
}

pub(super) fn remove(batch: &mut Batch<'_>, id: GrantId, line: Line) -> Result<()> {
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

pub(super) fn line(
    action: Action,
    caller: Option<&Caller>,
    rule: Option<Arc<str>>,
    record: &LeaseRecord,
    reason: &str,
) -> Line {
    let Lease { id, names, levels, whom, max_uses, term, .. } = &record.lease;
    let approvals =
        (record.wanted > 0).then(|| format!("{} of {}", record.approvals(), record.wanted));
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
            "approvals": approvals,
            "asked_by": record.asked_by,
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
