//! Grants: what an admin gives on top of the policy, for a time; see [`Lease`].
//!
//! Each is a record of its own, sealed like the others, so it is durable before it is acknowledged and
//! ends on time whatever becomes of the daemon. Whether it is in force is decided at each request, by
//! the clock; that what has ended is removed, and recorded, is housekeeping.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::batch::{Batch, Effect, Line};
use super::gate::Asked;
use super::read::uses;
use super::record::{Record, USES_ID};
use super::writer::Company;
use super::{Broker, BrokerError, Inner, Result};
use crate::audit::Action;
use crate::crypto::random_id;
use crate::model::{
    Caller, GrantId, Level, Levels, Pattern, SecretId, SecretName, Timestamp, Uid, Uptime,
};
use crate::policy::{Lease, Reason, Term, Uses, Whom};
use crate::store::Table;

/// How long a grant may last: what is needed for longer belongs in the policy.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

/// How long a request waits for its approval.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// How many there may be at once: each is one more binding to be looked at in a request.
const MOST: usize = 1000;

/// How many of them one uid that is no admin may have asked for.
const MOST_OF_ONE: usize = 20;

/// Longest reason, in bytes. It stands in an audit line.
const MAX_REASON: usize = 256;

/// A grant that somebody asks for.
#[derive(Clone, Debug)]
pub struct Ask {
    pub names: Pattern,
    pub levels: Levels,
    /// Nobody: the one who asks.
    pub whom: Whom,
    /// `None`: as long as the policy lets an emergency last.
    pub lasting: Option<Duration>,
    pub max_uses: Option<u32>,
    pub reason: Box<str>,
    /// Takes it for oneself, by a binding with `break_glass`.
    pub break_glass: bool,
}

/// A grant as the store has it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct LeaseRecord {
    pub(super) lease: Lease,
    asked_by: Uid,
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

impl Broker {
    /// Gives a grant, takes one in an emergency, or asks for one that other admins must approve. It is
    /// durable when this returns, and in force unless it waits for approval.
    ///
    /// Errors: `Refused` (recorded) for whom the policy does not let; `Invalid`.
    pub fn grant(&self, caller: &Caller, ask: Ask) -> Result<Granted> {
        let inner = &*self.inner;
        let mut ask = ask.checked()?;
        if !ask.whom.names_somebody() {
            ask.whom.uids.push(caller.uid);
        }
        let title = if ask.break_glass {
            inner.admit_emergency(caller, &mut ask)?
        } else {
            inner.admit_grant(caller, &ask)?
        };
        if title.emergency.is_some() {
            tracing::warn!(uid = caller.uid.0, names = %ask.names, reason = %ask.reason, "break-glass");
        }
        let [a, b, c, d, e, f, ..] = random_id().map_err(BrokerError::Key)?;
        let (caller, id) = (caller.clone(), GrantId([a, b, c, d, e, f]));
        inner.submit(Company::Shared, move |batch| give(batch, &caller, title, id, ask))
    }

    /// Agrees to a grant that waits. Neither who asked for it nor whom it names by uid can, and nobody
    /// twice. Returns it as it stands now.
    pub fn approve_grant(&self, caller: &Caller, id: GrantId) -> Result<Granted> {
        let rule = self.inner.admit_giver(caller, Action::GrantApprove)?;
        let caller = caller.clone();
        self.inner.submit(Company::Shared, move |batch| approve(batch, &caller, rule, id))
    }

    /// Returns the grants that have not ended: to an admin all, to others those that name their uid or
    /// that they have asked for.
    pub fn grants(&self, caller: &Caller) -> Result<Vec<Granted>> {
        let inner = &*self.inner;
        inner.unlocked()?;
        let (now, uptime) = inner.moment();
        let is_admin = inner.gate.is_admin(caller);
        let mut leases = inner.gate.leases();
        leases.retain(|record| {
            let is_shown = is_admin || record.concerns(caller.uid);
            is_shown && !record.lease.term.is_over(now, uptime)
        });
        Ok(leases.into_iter().map(|record| inner.shown(record)).collect())
    }

    /// Ends a grant before its time; for admins, and for who has asked for it. Handles that were opened
    /// by it stay open, as when a policy changes.
    pub fn revoke_grant(&self, caller: &Caller, id: GrantId) -> Result<Granted> {
        let mut leases = self.inner.gate.leases().into_iter();
        let is_own = leases.any(|held| held.lease.id == id && held.asked_by == caller.uid);
        let rule = if is_own {
            None
        } else {
            Some(self.inner.gate.admit_store(caller, Action::GrantRevoke)?.rule)
        };
        let caller = caller.clone();
        self.inner.submit(Company::Shared, move |batch| {
            let record = find(batch, id)?;
            let shown = batch.inner.shown(record.clone());
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
    fn checked(self) -> Result<Self> {
        match self.fault() {
            Some(fault) => Err(BrokerError::Invalid(fault.to_owned())),
            None => Ok(self),
        }
    }

    fn fault(&self) -> Option<&'static str> {
        let second = Duration::from_secs(1);
        let is_for_oneself = self.whom == Whom::default();
        if self.levels.is_empty() {
            Some("a grant needs levels: read, write, delete or admin")
        } else if !is_for_oneself && !self.whom.names_somebody() {
            Some("a grant must say whom by uid, gid, unit or container")
        } else if self.lasting.is_none() && !self.break_glass {
            Some("a grant is for a time: say for how long, as in 15m")
        } else if self.lasting.is_some_and(|lasting| !(second..=LONGEST).contains(&lasting)) {
            Some("a grant lasts from a second to 30 days")
        } else if self.max_uses == Some(0) {
            Some("a grant has at least one use")
        } else if self.max_uses.is_some() && self.levels.iter().any(|level| level != Level::Read) {
            Some("uses count reads: a grant of other levels has none to count")
        } else if self.reason.trim().is_empty() || self.reason.len() > MAX_REASON {
            Some("a grant needs a reason, of at most 256 bytes")
        } else if self.break_glass && (!is_for_oneself || self.max_uses.is_some()) {
            Some("in an emergency a grant is for oneself and for a time alone")
        } else {
            None
        }
    }

    /// Returns the name, where it is for one alone.
    fn name(&self) -> Option<SecretName> {
        self.names.as_str().parse().ok()
    }
}

impl LeaseRecord {
    pub(super) fn is_waiting(&self) -> bool {
        self.approvals() < self.wanted
    }

    fn approvals(&self) -> u32 {
        u32::try_from(self.approved_by.len()).unwrap_or(u32::MAX)
    }

    fn concerns(&self, uid: Uid) -> bool {
        self.asked_by == uid || self.lease.whom.uids.contains(&uid)
    }
}

/// By what right somebody gets a grant.
struct Title {
    action: Action,
    rule: Option<Arc<str>>,
    emergency: Option<Box<str>>,
    /// How many other admins must agree first.
    wanted: u32,
    by_admin: bool,
}

impl Inner {
    /// Decides whether somebody may give a grant, or ask for it where other admins must approve it.
    fn admit_grant(&self, caller: &Caller, ask: &Ask) -> Result<Title> {
        let name = ask.name();
        let wanted = name.as_ref().map_or(0, |name| self.gate.approvers(ask.levels, name));
        let action = if wanted > 0 { Action::GrantRequest } else { Action::Grant };
        let title = |rule, by_admin| Title { action, rule, emergency: None, wanted, by_admin };
        let is_for_oneself = ask.whom == Whom { uids: vec![caller.uid], ..Whom::default() };
        if let Some(name) = name.filter(|_| wanted > 0 && is_for_oneself)
            && !self.gate.is_admin(caller)
        {
            // Who has a rule and lacks the approval may ask for it.
            let sight = self.gate.sight(caller);
            let attributes = self.attributes_for(&sight, &name);
            let asked = Asked { action, name: &name, version: None };
            let mut levels = ask.levels.iter();
            levels.try_for_each(|level| {
                self.gate.admit_to_ask(&sight, level, attributes.as_ref(), asked)
            })?;
            return Ok(title(None, false));
        }
        Ok(title(Some(self.admit_giver(caller, action)?), true))
    }

    /// Decides whether somebody may take a grant in an emergency, and for how long and how narrow.
    fn admit_emergency(&self, caller: &Caller, ask: &mut Ask) -> Result<Title> {
        let name = ask.name().ok_or_else(|| {
            BrokerError::Invalid("in an emergency a grant is for one name, not a pattern".into())
        })?;
        let attributes = self.attributes(&name);
        let asked = Asked { action: Action::BreakGlass, name: &name, version: None };
        let emergency = self.gate.emergency(caller, ask.levels, attributes.as_ref(), asked)?;
        if self.gate.approvers(ask.levels, &name) > 0 {
            let reason = Reason::NeedsApproval.as_str();
            return Err(self.gate.refuse(caller, asked, Some(&emergency.binding), reason));
        }
        let at_most = emergency.at_most.min(LONGEST);
        ask.lasting = Some(ask.lasting.unwrap_or(at_most).min(at_most));
        ask.whom = emergency.whom;
        Ok(Title {
            action: Action::BreakGlass,
            rule: Some(Arc::clone(&emergency.binding)),
            emergency: Some((*emergency.binding).into()),
            wanted: 0,
            by_admin: false,
        })
    }

    /// Admits an admin of the store by the policy. Else an hour as an admin could be made to last.
    fn admit_giver(&self, caller: &Caller, action: Action) -> Result<Arc<str>> {
        let rule = self.gate.admit_store(caller, action)?.rule;
        if Lease::is_label(&rule) {
            let reason = "who is an admin by a grant alone gives none";
            return Err(self.gate.refuse_on_store(caller, action, Some(&rule), reason));
        }
        Ok(rule)
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

    fn shown(&self, record: LeaseRecord) -> Granted {
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
    title: Title,
    id: GrantId,
    ask: Ask,
) -> Result<Granted> {
    let held = batch.inner.gate.leases();
    let own = held.iter().filter(|record| record.asked_by == caller.uid).count();
    if held.len() >= MOST || (!title.by_admin && own >= MOST_OF_ONE) {
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

fn approve(batch: &mut Batch<'_>, caller: &Caller, rule: Arc<str>, id: GrantId) -> Result<Granted> {
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

fn find(batch: &Batch<'_>, id: GrantId) -> Result<LeaseRecord> {
    match batch.record(record_key(id))? {
        Some(Record::Lease(record)) => Ok(record),
        Some(
            Record::Secret(_)
            | Record::Codes(_)
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
