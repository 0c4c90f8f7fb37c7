//! Quarantine: a user is kept from every secret for a while, whatever the policy says.
//!
//! It is a reaction to a finding, which may be wrong: it ends by itself, an admin ends it at once, and no admin
//! is ever held by it. Files that are open stay so. It is on record when it begins and when it ends; whoever
//! imposes one keeps what [`Broker::quarantines`] returns over a restart.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Broker, BrokerError, Result};
use crate::audit::{Action, Event, Outcome};
use crate::model::{Caller, Gid, Seq, Timestamp, Uid, Uptime};
use crate::policy::Term;

/// Longer than that, an admin should change the policy.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// One user's quarantine.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Quarantine {
    pub uid: Uid,
    pub term: Term,
    pub reason: String,
    /// The line of the log that it is for; none where an admin imposed it.
    pub cause: Option<Seq>,
}

/// Who is quarantined. Every decision asks, so that nobody is costs one load.
#[derive(Debug, Default)]
pub(super) struct Quarantines {
    any: AtomicBool,
    held: Mutex<BTreeMap<Uid, Quarantine>>,
}

impl Quarantines {
    pub(super) fn holds(&self, uid: Uid, now: Timestamp, uptime: impl Fn() -> Uptime) -> bool {
        self.any.load(Ordering::Acquire)
            // Until it is over: a clock that nobody can believe after a boot lets nobody in.
            && self.held.lock().get(&uid).is_some_and(|held| !held.term.is_over(now, uptime()))
    }

    fn change<T>(&self, change: impl FnOnce(&mut BTreeMap<Uid, Quarantine>) -> T) -> T {
        let mut held = self.held.lock();
        let changed = change(&mut held);
        self.any.store(!held.is_empty(), Ordering::Release);
        changed
    }
}

impl Broker {
    /// Keeps a user from every secret for so long. `by` is the admin who wants it; none for the daemon itself.
    /// Of two, the longer one holds. It is on record, and in force, when this returns.
    ///
    /// Errors: `Denied` (recorded) unless an admin asks; `Invalid` for a user who is an admin by its uid alone.
    pub fn quarantine(
        &self,
        by: Option<&Caller>,
        uid: Uid,
        lasting: Duration,
        (reason, cause): (&str, Option<Seq>),
    ) -> Result<Quarantine> {
        let gate = &self.inner.gate;
        let rule = match by {
            None => None,
            Some(caller) => Some(gate.admit_store(caller, Action::Quarantine)?.rule),
        };
        if lasting.is_zero() || lasting > LONGEST {
            return Err(BrokerError::Invalid("a quarantine lasts 7 days at most".into()));
        }
        if gate.is_ever_admin(&Caller::with_ids(uid, Gid(uid.0))) {
            return Err(BrokerError::Invalid(format!("uid {uid} is an admin: no admin is held")));
        }
        let (now, uptime) = self.inner.moment();
        let term = Term::new(now, uptime, lasting);
        let new = Quarantine { uid, term, reason: reason.to_owned(), cause };
        let detail = json!({ "of": uid, "until": term.end().to_string(), "cause": cause });
        gate.record(&Event {
            caller: by,
            rule: rule.as_deref(),
            reason: Some(reason),
            detail: Some(detail),
            ..Event::new(Action::Quarantine, Outcome::Allowed)
        })?;
        Ok(gate.quarantines().change(|held| {
            let held = held.entry(uid).or_insert_with(|| new.clone());
            // Not by when they end: the clock may have been set back since the first one began.
            if held.term.left(now, uptime) < new.term.left(now, uptime) {
                *held = new;
            }
            held.clone()
        }))
    }

    /// Ends a user's quarantine before its time. Errors: `Denied` (recorded) unless an admin asks; `Invalid`
    /// where there is none.
    pub fn lift_quarantine(&self, caller: &Caller, uid: Uid) -> Result<Quarantine> {
        let gate = &self.inner.gate;
        let rule = gate.admit_store(caller, Action::QuarantineEnd)?.rule;
        let ended = gate.quarantines().held.lock().get(&uid).cloned();
        let none = || BrokerError::Invalid(format!("uid {uid} is not quarantined"));
        let ended = ended.ok_or_else(none)?;
        gate.record(&Event {
            caller: Some(caller),
            rule: Some(&rule),
            reason: Some("lifted"),
            detail: Some(json!({ "of": uid })),
            ..Event::new(Action::QuarantineEnd, Outcome::Allowed)
        })?;
        gate.quarantines().change(|held| held.remove(&uid));
        Ok(ended)
    }

    /// Puts on record which quarantines are over. Returns whether there were any.
    pub fn end_quarantines(&self) -> Result<bool> {
        let (now, uptime) = self.inner.moment();
        let gate = &self.inner.gate;
        let mut over = self.quarantines();
        over.retain(|held| held.term.is_over(now, uptime));
        for ended in &over {
            gate.record(&Event {
                reason: Some("its time is over"),
                detail: Some(json!({ "of": ended.uid })),
                ..Event::new(Action::QuarantineEnd, Outcome::Allowed)
            })?;
            gate.quarantines().change(|held| {
                if held.get(&ended.uid) == Some(ended) {
                    held.remove(&ended.uid);
                }
            });
        }
        Ok(!over.is_empty())
    }

    /// Returns who is quarantined, by uid.
    pub fn quarantines(&self) -> Vec<Quarantine> {
        self.inner.gate.quarantines().held.lock().values().cloned().collect()
    }

    /// Takes up what was in force before a restart; that is on record already.
    pub fn resume_quarantines(&self, kept: Vec<Quarantine>) {
        let (now, uptime) = self.inner.moment();
        self.inner.gate.quarantines().change(|held| {
            let resumed = kept.into_iter().map(|kept| {
                let term = kept.term.resumed(now, uptime);
                (kept.uid, Quarantine { term, ..kept })
            });
            held.extend(resumed);
        });
    }
}
