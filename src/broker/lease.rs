//! Grants: what an admin gives on top of the policy, for a time; see [`Lease`].
//!
//! Each is a record of its own, sealed like the others, so it is durable before it is acknowledged and
//! ends on time whatever becomes of the daemon. Whether it is in force is decided at each request, by
//! the clock; that what has ended is removed, and recorded, is housekeeping.

use std::sync::Arc;
use std::time::Duration;

mod kept;

pub use kept::Granted;
pub(super) use kept::{LeaseRecord, is_held, resumed};

use super::gate::Asked;
use super::writer::Company;
use super::{Broker, BrokerError, Inner, Result};
use crate::audit::Action;
use crate::crypto::random_id;
use crate::model::{Caller, GrantId, Level, Levels, Pattern, SecretName};
use crate::policy::{Lease, Reason, Whom};
use kept::{approve, find, give, line, remove};

/// How long a grant may last: what is needed for longer belongs in the policy.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

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
        let [a, b, c, d, e, f, ..] = random_id().map_err(BrokerError::Key)?;
        let (by, id) = (caller.clone(), GrantId([a, b, c, d, e, f]));
        let given = inner.submit(Company::Shared, move |batch| give(batch, &by, title, id, ask))?;
        if let Some(binding) = &given.break_glass {
            let Granted { names, reason, .. } = &given;
            tracing::warn!(uid = caller.uid.0, %names, %binding, %reason, "break-glass");
        }
        Ok(given)
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
                let record = match find(batch, id) {
                    Err(BrokerError::Invalid(_)) => return Ok(()),
                    found => found?,
                };
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
