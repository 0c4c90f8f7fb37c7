//! Admission: the policy decides, the audit log remembers, and both must succeed.
//!
//! [`Grant`] has one maker, so an operation that takes one cannot run before the decision was made,
//! and takes the name from it, never from the request. What was granted is on record before its
//! result leaves: [`Gate::record`] for reads, [`Batch`](super::batch::Batch) for changes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::{ArcSwap, Guard};
use parking_lot::{Mutex, RwLock};

use super::BrokerError;
use super::elevation::Elevations;
use super::index::{Entry, Folder, Node};
use super::latency::Latency;
use super::lease::LeaseRecord;
use super::quarantine::Quarantines;
use super::refusals::{Refusals, Verdict};
use super::replay::Replay;
use crate::audit::{Action, AuditLog, Event, Outcome, Recorded};
use crate::model::{
    Attributes, Caller, Clock, GrantId, Level, Levels, SecretName, Timestamp, Uptime, Version,
};
use crate::policy::{Context, Decision, Emergency, Explanation, Policy, Reason, Target, Uses};

/// Proof that one request was allowed.
#[derive(Debug)]
#[must_use = "use it for what it was granted for, and record that"]
pub(super) struct Grant {
    pub(super) rule: Arc<str>,
    /// The binding with `max_uses` that allowed it, of which one use is to be taken.
    pub(super) consumes: Option<Arc<str>>,
}

pub(super) struct Gate {
    policy: ArcSwap<Policy>,
    /// Set once the store was unsealed for the first time: the chain's key comes from it.
    log: OnceLock<AuditLog>,
    /// Subscribers that came before there was a log.
    waiting: Mutex<Vec<Subscriber>>,
    uses: UseCounts,
    /// What is granted on top of the policy; held while `policy` is replaced.
    leases: Mutex<BTreeMap<GrantId, LeaseRecord>>,
    elevations: Elevations,
    quarantines: Quarantines,
    refusals: Refusals,
    clock: Arc<dyn Clock>,
    replay: Arc<Replay>,
    pub(super) counts: Counts,
}

/// What happened since the start, for metrics.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) failures: AtomicU64,
    pub(super) reads: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) writes: AtomicU64,
    pub(super) opens: Latency,
    /// Shared with changes that are under way.
    pub(super) commits: Arc<Latency>,
}

/// Called with each line as it is written.
pub(super) type Subscriber = Box<dyn Fn(&Recorded<'_>) + Send + Sync>;

/// What one caller may know and do, by one policy at one moment. Nothing of it is recorded.
pub(super) struct Sight<'a> {
    policy: Guard<Arc<Policy>>,
    context: Context<'a>,
    caller: &'a Caller,
    /// Whether the answers can depend on a secret's attributes.
    pub(super) by_attributes: bool,
}

impl Sight<'_> {
    /// Returns the caller's levels on a name whose secret, if there is one, is not looked at.
    pub(super) fn levels_by_name(&self, name: &SecretName) -> Levels {
        let target = Target::Secret { name, attributes: None };
        self.policy.levels(self.caller, target, &self.context)
    }

    /// Returns the caller's levels on a secret that exists.
    pub(super) fn levels(&self, name: &SecretName, entry: &Entry) -> Levels {
        if !self.by_attributes {
            return self.levels_by_name(name);
        }
        let target = Target::Secret { name, attributes: Some(&entry.attributes()) };
        self.policy.levels(self.caller, target, &self.context)
    }

    /// Tells whether the caller could have a right on some name below a directory.
    pub(super) fn may_enter(&self, directory: &SecretName) -> bool {
        self.policy.may_enter(self.caller, directory, &self.context)
    }

    /// Tells whether the caller could write some name below a directory (`None`: the root).
    pub(super) fn may_write_below(&self, directory: Option<&SecretName>) -> bool {
        self.policy.levels_below(self.caller, directory, &self.context).allow(Level::Write)
    }

    /// Tells whether the caller could have a right on some name at all.
    pub(super) fn may_know_any(&self) -> bool {
        self.by_attributes || !self.policy.levels_below(self.caller, None, &self.context).is_empty()
    }

    /// Tells whether the caller may know that a directory is there.
    pub(super) fn knows_folder(&self, path: &SecretName, folder: &Folder) -> bool {
        self.may_enter(path) || (self.by_attributes && self.knows_below(path, folder))
    }

    /// Tells whether the caller may know of some secret below a directory by its attributes.
    fn knows_below(&self, path: &SecretName, folder: &Folder) -> bool {
        folder.after(None).any(|(segment, node)| {
            let Ok(below) = SecretName::join(Some(path), segment) else { return false };
            match node {
                Node::Secret(entry) => !self.levels(&below, entry).is_empty(),
                Node::Folder(folder) => self.knows_below(&below, folder),
            }
        })
    }

    pub(super) fn now(&self) -> Timestamp {
        self.context.now
    }
}

/// How often each binding with `max_uses` was used, as the store has it.
#[derive(Debug, Default)]
pub(super) struct UseCounts(RwLock<BTreeMap<Box<str>, u32>>);

impl Uses for UseCounts {
    fn used(&self, binding: &str) -> u32 {
        self.0.read().get(binding).copied().unwrap_or(0)
    }
}

impl UseCounts {
    pub(super) fn replace(&self, counts: BTreeMap<Box<str>, u32>) {
        *self.0.write() = counts;
    }
}

/// What a request is about, for its record.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) action: Action,
    pub(super) name: &'a SecretName,
    pub(super) version: Option<Version>,
}

impl<'a> Asked<'a> {
    /// Returns the event that records it.
    pub(super) fn event(self, caller: &'a Caller, outcome: Outcome) -> Event<'a> {
        Event {
            caller: Some(caller),
            secret: Some(self.name),
            version: self.version,
            ..Event::new(self.action, outcome)
        }
    }
}

impl Gate {
    pub(super) fn new(policy: Policy, clock: Arc<dyn Clock>, replay: Arc<Replay>) -> Self {
        Self {
            policy: ArcSwap::from_pointee(policy),
            log: OnceLock::new(),
            waiting: Mutex::default(),
            uses: UseCounts::default(),
            leases: Mutex::default(),
            elevations: Elevations::default(),
            quarantines: Quarantines::default(),
            refusals: Refusals::default(),
            clock,
            replay,
            counts: Counts::default(),
        }
    }

    pub(super) fn policy(&self) -> Guard<Arc<Policy>> {
        self.policy.load()
    }

    pub(super) fn replace_policy(&self, policy: Policy) {
        self.put_in_force(&policy, &self.leases.lock());
    }

    pub(super) fn elevations(&self) -> &Elevations {
        &self.elevations
    }

    pub(super) fn quarantines(&self) -> &Quarantines {
        &self.quarantines
    }

    /// Returns until when the caller's login session is elevated.
    pub(super) fn elevated_until(&self, caller: &Caller) -> Option<Timestamp> {
        self.elevations.until(caller, self.now(), self.clock.uptime())
    }

    /// Tells whether the policy has rules that allow the caller something, guarded or not.
    pub(super) fn has_rules(&self, caller: &Caller) -> bool {
        let policy = self.policy.load();
        policy.has_rules(caller, &self.context(&policy, caller))
    }

    /// Returns what is granted, in force or not.
    pub(super) fn leases(&self) -> Vec<LeaseRecord> {
        self.leases.lock().values().cloned().collect()
    }

    pub(super) fn replace_leases(&self, leases: BTreeMap<GrantId, LeaseRecord>) {
        let mut held = self.leases.lock();
        *held = leases;
        self.put_in_force(&self.policy.load(), &held);
    }

    pub(super) fn set_lease(&self, id: GrantId, record: Option<LeaseRecord>) {
        let mut held = self.leases.lock();
        match record {
            Some(record) => drop(held.insert(id, record)),
            None => drop(held.remove(&id)),
        }
        self.put_in_force(&self.policy.load(), &held);
    }

    fn put_in_force(&self, policy: &Policy, leases: &BTreeMap<GrantId, LeaseRecord>) {
        let in_force = leases.values().filter(|record| !record.is_waiting());
        let leases = in_force.map(|record| &record.lease);
        self.policy.store(Arc::new(policy.with_leases(leases)));
    }

    /// Gives the gate its log; a second one is ignored.
    pub(super) fn start_log(&self, log: AuditLog) {
        for subscriber in self.waiting.lock().drain(..) {
            log.subscribe(subscriber);
        }
        drop(self.log.set(log));
    }

    /// Calls `subscriber` with each line of the log, from the first unseal on.
    pub(super) fn subscribe(&self, subscriber: Subscriber) {
        match self.log.get() {
            Some(log) => log.subscribe(subscriber),
            None => self.waiting.lock().push(subscriber),
        }
    }

    /// Returns the log. Before the first unseal there is none, and so nothing can be granted.
    pub(super) fn log(&self) -> Result<&AuditLog, BrokerError> {
        self.log.get().ok_or(BrokerError::Sealed)
    }

    pub(super) fn uses(&self) -> &UseCounts {
        &self.uses
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Returns what a caller may know and do as of now, for several questions about it.
    pub(super) fn sight<'a>(&'a self, caller: &'a Caller) -> Sight<'a> {
        let policy = self.policy.load();
        let context = self.context(&policy, caller);
        let by_attributes = policy.has_attribute_rules(caller, &context);
        Sight { policy, context, caller, by_attributes }
    }

    /// Returns the levels of a caller on a secret with these attributes. Not recorded.
    pub(super) fn levels(
        &self,
        caller: &Caller,
        name: &SecretName,
        attributes: &Attributes,
    ) -> Levels {
        let target = Target::Secret { name, attributes: Some(attributes) };
        let policy = self.policy.load();
        policy.levels(caller, target, &self.context(&policy, caller))
    }

    /// Says what a caller may do, and which rule says so.
    pub(super) fn explain(&self, caller: &Caller, target: Target<'_>) -> Explanation {
        let policy = self.policy.load();
        policy.explain(caller, target, &self.context(&policy, caller))
    }

    /// Tells whether a caller is an admin of the store. Not recorded.
    pub(super) fn is_admin(&self, caller: &Caller) -> bool {
        self.decide_store(caller).is_allowed()
    }

    /// Tells whether a caller is an admin of the store, or would be if its session were elevated.
    pub(super) fn is_ever_admin(&self, caller: &Caller) -> bool {
        let policy = self.policy.load();
        is_admin(&policy, caller, &Context { quarantined: false, ..self.context(&policy, caller) })
    }

    /// Decides a request for a secret. A refusal is on record when this returns; a consent is for
    /// the operation to record, which knows its version.
    pub(super) fn admit(
        &self,
        caller: &Caller,
        level: Level,
        attributes: Option<&Attributes>,
        asked: Asked<'_>,
    ) -> Result<Grant, BrokerError> {
        self.admit_by(&self.sight(caller), level, attributes, asked)
    }

    /// As [`admit`](Self::admit), by the policy that other questions about the request were asked of.
    pub(super) fn admit_by(
        &self,
        sight: &Sight<'_>,
        level: Level,
        attributes: Option<&Attributes>,
        asked: Asked<'_>,
    ) -> Result<Grant, BrokerError> {
        let target = Target::Secret { name: asked.name, attributes };
        match sight.policy.decide(sight.caller, level, target, &sight.context) {
            Decision::Allowed { rule, consumes } => Ok(Grant { rule, consumes }),
            Decision::Denied { rule, reason } => {
                Err(self.refuse(sight.caller, asked, rule.as_deref(), reason.as_str()))
            }
        }
    }

    /// Decides whether a directory may be made, moved or removed: the caller must be able to write
    /// some name below it. A refusal is on record when this returns.
    pub(super) fn admit_below(&self, caller: &Caller, asked: Asked<'_>) -> Result<(), BrokerError> {
        if self.sight(caller).may_write_below(Some(asked.name)) {
            return Ok(());
        }
        Err(self.refuse(caller, asked, None, "no rule lets the caller write below it"))
    }

    /// Returns how many admins must agree before anybody has those levels on a name.
    pub(super) fn approvers(&self, levels: Levels, name: &SecretName) -> u32 {
        self.policy.load().approvers(levels, Target::Secret { name, attributes: None })
    }

    /// Decides whether somebody may ask for an approval: nothing but that must be missing. A refusal is
    /// on record when this returns.
    pub(super) fn admit_to_ask(
        &self,
        sight: &Sight<'_>,
        level: Level,
        attributes: Option<&Attributes>,
        asked: Asked<'_>,
    ) -> Result<(), BrokerError> {
        let target = Target::Secret { name: asked.name, attributes };
        match sight.policy.decide(sight.caller, level, target, &sight.context) {
            Decision::Allowed { .. } | Decision::Denied { reason: Reason::NeedsApproval, .. } => {
                Ok(())
            }
            Decision::Denied { rule, reason } => {
                Err(self.refuse(sight.caller, asked, rule.as_deref(), reason.as_str()))
            }
        }
    }

    /// Decides whether a caller may take levels on a name in an emergency. A refusal is on record when
    /// this returns.
    pub(super) fn emergency(
        &self,
        caller: &Caller,
        levels: Levels,
        attributes: Option<&Attributes>,
        asked: Asked<'_>,
    ) -> Result<Emergency, BrokerError> {
        let target = Target::Secret { name: asked.name, attributes };
        let policy = self.policy.load();
        let found = policy.emergency(caller, levels, target, &self.context(&policy, caller));
        found.ok_or_else(|| {
            self.refuse(caller, asked, None, "no binding with break_glass lets the caller take it")
        })
    }

    /// Tells whether a secret that goes from one name to another would leave a guard behind.
    pub(super) fn leaves_guard(&self, from: &SecretName, to: &SecretName) -> bool {
        self.policy.load().leaves_guard(from, to)
    }

    /// Decides something on the store as a whole. A refusal is on record when this returns; a consent
    /// is for the operation to record.
    pub(super) fn admit_store(
        &self,
        caller: &Caller,
        action: Action,
    ) -> Result<Grant, BrokerError> {
        match self.decide_store(caller) {
            Decision::Allowed { rule, consumes } => Ok(Grant { rule, consumes }),
            Decision::Denied { rule, reason } => {
                Err(self.refuse_on_store(caller, action, rule.as_deref(), reason.as_str()))
            }
        }
    }

    /// Records that something on the store as a whole is refused. Returns the error to answer with.
    pub(super) fn refuse_on_store(
        &self,
        caller: &Caller,
        action: Action,
        rule: Option<&str>,
        reason: &'static str,
    ) -> BrokerError {
        self.counts.refused.fetch_add(1, Ordering::Relaxed);
        if self.refusals.note(caller.uid, self.now()) == Verdict::CountOnly {
            return BrokerError::Refused(reason.into());
        }
        let caller = caller.complete();
        let event = Event {
            caller: Some(&caller),
            rule,
            reason: Some(reason),
            ..Event::new(action, Outcome::Denied)
        };
        match self.record(&event) {
            Ok(()) => BrokerError::Refused(reason.into()),
            Err(err) => err,
        }
    }

    /// Decides and records a command on the store as a whole.
    pub(super) fn admit_control(
        &self,
        caller: &Caller,
        command: &str,
    ) -> Result<Grant, BrokerError> {
        self.record_control(caller, command, self.decide_store(caller))
    }

    /// Decides and records an unseal.
    pub(super) fn admit_unseal(&self, caller: &Caller) -> Result<Grant, BrokerError> {
        self.record_control(caller, "unseal", self.decide_unseal(caller))
    }

    /// Tells whether a caller may unseal the store. Not recorded.
    pub(super) fn may_unseal(&self, caller: &Caller) -> bool {
        self.decide_unseal(caller).is_allowed()
    }

    fn decide_store(&self, caller: &Caller) -> Decision {
        let policy = self.policy.load();
        policy.decide(caller, Level::Admin, Target::Store, &self.context(&policy, caller))
    }

    /// Asks for no elevation: while the store is sealed no seed can be read, so nobody could be elevated.
    fn decide_unseal(&self, caller: &Caller) -> Decision {
        let policy = self.policy.load();
        let context = Context { elevated: true, ..self.context(&policy, caller) };
        policy.decide(caller, Level::Admin, Target::Store, &context)
    }

    fn record_control(
        &self,
        caller: &Caller,
        command: &str,
        decision: Decision,
    ) -> Result<Grant, BrokerError> {
        let mut event = Event {
            caller: Some(caller),
            reason: Some(command),
            ..Event::new(Action::Control, Outcome::Allowed)
        };
        match decision {
            Decision::Allowed { rule, consumes } => {
                event.rule = Some(&rule);
                self.record(&event)?;
                Ok(Grant { rule, consumes })
            }
            Decision::Denied { rule, reason } => {
                event.outcome = Outcome::Denied;
                event.rule = rule.as_deref();
                self.record(&event)?;
                Err(match reason {
                    Reason::NeedsElevation => BrokerError::Refused(reason.as_str().into()),
                    Reason::DeniedByRule
                    | Reason::NeedsApproval
                    | Reason::NoRule
                    | Reason::Quarantined
                    | Reason::UsedUp => BrokerError::Denied,
                })
            }
        }
    }

    /// Admits a command that gives its caller nothing that is not its own already, and records it. Whom the policy gives
    /// nothing at all is refused: the log is not everybody's to fill.
    pub(super) fn admit_own(&self, caller: &Caller, command: &str) -> Result<(), BrokerError> {
        let mut event = Event::new(Action::Control, Outcome::Allowed);
        if !self.sight(caller).may_know_any() {
            event.outcome = Outcome::Denied;
            self.counts.refused.fetch_add(1, Ordering::Relaxed);
            if self.refusals.note(caller.uid, self.now()) == Verdict::CountOnly {
                return Err(BrokerError::Denied);
            }
        }
        let caller = caller.complete();
        (event.caller, event.reason) = (Some(&caller), Some(command));
        self.record(&event)?;
        if event.outcome == Outcome::Denied { Err(BrokerError::Denied) } else { Ok(()) }
    }

    /// Records a refusal, unless this caller was refused so often just now that it is only counted,
    /// and returns the error to answer with.
    pub(super) fn refuse(
        &self,
        caller: &Caller,
        asked: Asked<'_>,
        rule: Option<&str>,
        reason: &str,
    ) -> BrokerError {
        self.counts.refused.fetch_add(1, Ordering::Relaxed);
        if self.refusals.note(caller.uid, self.now()) == Verdict::CountOnly {
            return BrokerError::Denied;
        }
        let caller = caller.complete();
        let event = Event { rule, reason: Some(reason), ..asked.event(&caller, Outcome::Denied) };
        match self.record(&event) {
            // Sealed since the start: there is no log, and nothing that a refusal could hide.
            Ok(()) | Err(BrokerError::Sealed) => BrokerError::Denied,
            Err(err) => err,
        }
    }

    /// Records that a granted request failed, and returns its error. The answer is an error either
    /// way, so a log that cannot take this line does not change it.
    pub(super) fn failed(
        &self,
        caller: &Caller,
        asked: Asked<'_>,
        err: BrokerError,
    ) -> BrokerError {
        self.counts.failures.fetch_add(1, Ordering::Relaxed);
        let reason = err.to_string();
        let detail = err.is_damage().then(|| serde_json::json!({ "integrity": true }));
        let event = Event { reason: Some(&reason), detail, ..asked.event(caller, Outcome::Failed) };
        drop(self.record(&event));
        err
    }

    /// Records that a check has found damage.
    pub(super) fn record_damage(&self, what: &str) -> Result<(), BrokerError> {
        self.record(&Event {
            reason: Some(what),
            detail: Some(serde_json::json!({ "integrity": true })),
            ..Event::new(Action::Verify, Outcome::Failed)
        })
    }

    /// Appends to the log; in the `synced` mode it is on disk when this returns.
    pub(super) fn record(&self, event: &Event<'_>) -> Result<(), BrokerError> {
        if self.replay.is_recorded(event) {
            return Ok(());
        }
        self.log()?.append(event)?;
        Ok(())
    }

    /// Records the refusals that were only counted.
    pub(super) fn summarise_refusals(&self) {
        for (uid, count) in self.refusals.take_counted(self.now()) {
            let event = Event {
                detail: Some(serde_json::json!({ "uid": uid, "count": count })),
                ..Event::new(Action::Refusals, Outcome::Denied)
            };
            if let Err(err) = self.record(&event) {
                tracing::error!(%err, "refusals could not be recorded");
            }
        }
    }

    fn context(&self, policy: &Policy, caller: &Caller) -> Context<'_> {
        let now = self.now();
        // The session is known only where some guard asks for elevation.
        let elevated = caller.session.is_some() && self.elevated_until(caller).is_some();
        // Every request comes here, and few policies have grants.
        let uptime = if policy.has_grants() { self.clock.uptime() } else { Uptime::UNKNOWN };
        let context = Context { now, uptime, elevated, quarantined: false, uses: &self.uses };
        let quarantined = self.quarantines.holds(caller.uid, now, || self.clock.uptime())
            && !is_admin(policy, caller, &context);
        Context { quarantined, ..context }
    }
}

/// Tells whether a caller is an admin by the policy alone, elevated or not: no finding locks one out.
fn is_admin(policy: &Policy, caller: &Caller, context: &Context<'_>) -> bool {
    let context = Context { elevated: true, ..*context };
    policy.decide(caller, Level::Admin, Target::Store, &context).is_allowed()
}
