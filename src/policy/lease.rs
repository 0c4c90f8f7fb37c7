//! Grants: what an administrator gives on top of the policy, to somebody and for a time.
//!
//! To the decision a grant is one more binding, called `grant:ID`, with one role of one rule. So every
//! deny of the policy wins over it, and its uses are counted as those of a binding are. It is called a
//! lease here, because a grant is already what a role's rule becomes.

use std::ffi::OsString;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::condition::{Condition, ContainerRef};
use super::rule::{Names, Rule, Selection};
use super::{Binding, Context, Effect, Grant, Policy, Target, Users, fact};
use crate::model::{Caller, Gid, GrantId, Level, Levels, Pattern, Timestamp, Uid, Uptime, micros};

/// What the labels of grants begin with.
const LABEL: &str = "grant:";

/// Levels on names, for somebody and for a time.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Lease {
    pub id: GrantId,
    pub names: Pattern,
    pub levels: Levels,
    pub whom: Whom,
    pub max_uses: Option<u32>,
    pub term: Term,
    /// How many admins have agreed to it, who asked for it not counted.
    pub approvals: u32,
}

/// What a caller may take for itself in an emergency.
#[derive(Clone, Debug)]
pub struct Emergency {
    /// The binding that lets it.
    pub binding: Arc<str>,
    /// For whom the grant is to be: the caller, as narrow as the binding.
    pub whom: Whom,
    pub at_most: Duration,
}

/// Whom a grant is for. Within one kind any entry fits; all kinds that name something must.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Whom {
    pub uids: Vec<Uid>,
    pub gids: Vec<Gid>,
    pub units: Vec<Box<str>>,
    pub containers: Vec<ContainerRef>,
    pub exes: Vec<Box<str>>,
    pub exe_sha256: Vec<[u8; 32]>,
}

/// From when to when, by two clocks: it ends when the first of them says so.
///
/// The wall clock can be set. The time since boot cannot, but it says nothing of another boot: there
/// the wall clock counts alone, and one that shows a time before the beginning is not believed.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Term {
    #[serde(with = "micros")]
    begin: Timestamp,
    #[serde(with = "micros")]
    end: Timestamp,
    end_uptime: Uptime,
}

impl Lease {
    /// Returns what decisions and audit lines call it.
    pub fn label(id: GrantId) -> Arc<str> {
        format!("{LABEL}{id}").into()
    }

    /// Tells whether a rule that decisions name is a grant's.
    pub fn is_label(rule: &str) -> bool {
        rule.starts_with(LABEL)
    }

    /// Returns the grant that decisions call so.
    pub fn of_label(label: &str) -> Option<GrantId> {
        label.strip_prefix(LABEL)?.parse().ok()
    }

    fn binding(&self) -> Binding {
        let mut conditions = self.whom.conditions();
        conditions.push(Condition::Term(self.term));
        let label = Self::label(self.id);
        let rule = Rule {
            names: [Names::new(self.names.clone())].into(),
            attributes: Selection::default(),
            levels: self.levels,
        };
        Binding {
            grants: [Grant { label: label.clone(), effect: Effect::Allow, rule: Arc::new(rule) }]
                .into(),
            conditions: conditions.into(),
            line: None,
            label,
            max_uses: self.max_uses,
            break_glass: None,
            approvals: self.approvals,
        }
    }
}

impl Policy {
    /// Returns this policy with those grants on top of it, in place of any that it had.
    #[must_use]
    pub fn with_leases<'a>(&self, leases: impl Iterator<Item = &'a Lease>) -> Self {
        let written = self.bindings.iter().filter(|binding| binding.line.is_some()).cloned();
        let bindings = written.chain(leases.map(|lease| Arc::new(lease.binding()))).collect();
        let (guards, expectations) = (Arc::clone(&self.guards), Arc::clone(&self.expectations));
        Self::of(bindings, self.default_level, guards, expectations)
    }

    /// Tells whether there are grants on top of what the file says.
    pub fn has_grants(&self) -> bool {
        self.has_grants
    }

    /// Returns what would let the caller take those levels for itself: the first binding with
    /// `break_glass` that would allow them all, if it were an ordinary one alone in the policy.
    pub fn emergency(
        &self,
        caller: &Caller,
        levels: Levels,
        target: Target<'_>,
        context: &Context<'_>,
    ) -> Option<Emergency> {
        let allows = |binding: &Binding, level: Level| {
            let denied = |grant: &Grant| {
                grant.effect == Effect::Deny
                    && grant.rule.levels.names(level)
                    && grant.rule.denies(target)
            };
            let allowed = |grant: &Grant| {
                grant.effect == Effect::Allow
                    && grant.rule.levels.allow(level)
                    && grant.rule.allows(target)
            };
            binding.grants.iter().any(allowed) && !binding.grants.iter().any(denied)
        };
        self.bindings_of(caller.uid).find_map(|binding| {
            let at_most = binding.break_glass?;
            let fits = binding.conditions_hold(caller, context)
                && binding.speaks_to(caller)
                && levels.iter().all(|level| allows(binding, level));
            fits.then(|| Emergency {
                binding: binding.label.clone(),
                whom: Whom { uids: vec![caller.uid], ..Whom::of(&binding.conditions) },
                at_most,
            })
        })
    }
}

impl Whom {
    /// The kinds of facts that a grant can be for, as in a binding.
    pub const KEYS: [&str; 6] = ["uid", "gid", "unit", "container", "exe", "exe_sha256"];

    /// Adds one fact as a person writes it. The error says what was expected.
    pub fn add(&mut self, key: &str, text: &str, users: &dyn Users) -> Result<(), String> {
        match key {
            "uid" => self.uids.push(fact::user(text, users)?),
            "gid" => self.gids.push(fact::group(text, users)?),
            "unit" => self.units.push(fact::unit(text)?),
            "container" => self.containers.push(fact::container(text)?),
            "exe" => {
                fact::exe(text)?;
                self.exes.push(text.into());
            }
            "exe_sha256" => self.exe_sha256.push(fact::sha256(text)?),
            _ => return Err(format!("{key:?} is unknown: use {}", Self::KEYS.join(", "))),
        }
        Ok(())
    }

    /// Tells whether it names somebody: a program alone can be forged.
    pub fn names_somebody(&self) -> bool {
        let Self { uids, gids, units, containers, .. } = self;
        !(uids.is_empty() && gids.is_empty() && units.is_empty() && containers.is_empty())
    }

    /// Returns what conditions say of who a caller is; not when they hold.
    fn of(conditions: &[Condition]) -> Self {
        let mut whom = Self::default();
        for condition in conditions {
            match condition {
                Condition::Container(all) => whom.containers = all.to_vec(),
                Condition::Exe(all) => {
                    let texts = all.iter().map(|exe| exe.to_string_lossy().into());
                    whom.exes = texts.collect();
                }
                Condition::ExeSha256(all) => whom.exe_sha256 = all.to_vec(),
                Condition::Gid(all) => whom.gids = all.to_vec(),
                Condition::Uid(all) => whom.uids = all.to_vec(),
                Condition::Unit(all) => whom.units = all.to_vec(),
                Condition::AfterStart(_)
                | Condition::Schedule(_)
                | Condition::Term(_)
                | Condition::Until(_) => {}
            }
        }
        whom
    }

    fn conditions(&self) -> Vec<Condition> {
        let mut all = Vec::new();
        let mut push = |is_empty: bool, condition: Condition| {
            if !is_empty {
                all.push(condition);
            }
        };
        let exes: Box<[OsString]> = self.exes.iter().map(|exe| OsString::from(&**exe)).collect();
        push(self.uids.is_empty(), Condition::Uid(self.uids.as_slice().into()));
        push(self.gids.is_empty(), Condition::Gid(self.gids.as_slice().into()));
        push(self.units.is_empty(), Condition::Unit(self.units.as_slice().into()));
        push(self.containers.is_empty(), Condition::Container(self.containers.as_slice().into()));
        push(self.exes.is_empty(), Condition::Exe(exes));
        push(self.exe_sha256.is_empty(), Condition::ExeSha256(self.exe_sha256.as_slice().into()));
        all
    }
}

/// Shows it as `uid 33, exe "/usr/bin/psql"`.
impl fmt::Display for Whom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self.conditions().iter().map(ToString::to_string).collect();
        f.write_str(&all.join(", "))
    }
}

impl Term {
    /// Returns the term that begins now, to the microsecond, as it is stored.
    pub fn new(now: Timestamp, uptime: Uptime, lasting: Duration) -> Self {
        let now = Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now);
        let end = now.checked_add(lasting).unwrap_or(Timestamp::MAX);
        Self { begin: now, end, end_uptime: uptime.after(lasting) }
    }

    /// Returns the same term after a start. In another boot it gets as long as the wall clock leaves it
    /// now, whatever that clock is set to later.
    #[must_use]
    pub fn resumed(self, now: Timestamp, uptime: Uptime) -> Self {
        if self.end_uptime.is_of_boot(uptime) || now < self.begin {
            return self;
        }
        Self { end_uptime: uptime.after(self.left(now, uptime)), ..self }
    }

    /// Returns when it ends by the wall clock.
    pub fn end(&self) -> Timestamp {
        self.end
    }

    /// Returns how long it lasts from now on, by the clock that ends it first.
    pub fn left(&self, now: Timestamp, uptime: Uptime) -> Duration {
        let by_wall = Duration::try_from(self.end.duration_since(now)).unwrap_or_default();
        if self.end_uptime.is_of_boot(uptime) {
            by_wall.min(self.end_uptime.elapsed.saturating_sub(uptime.elapsed))
        } else {
            by_wall
        }
    }

    /// Tells whether it has begun and not ended.
    pub fn holds(&self, now: Timestamp, uptime: Uptime) -> bool {
        !self.is_over(now, uptime) && (self.begin <= now || self.end_uptime.is_of_boot(uptime))
    }

    /// Tells whether it has ended.
    pub fn is_over(&self, now: Timestamp, uptime: Uptime) -> bool {
        let by_uptime =
            self.end_uptime.is_of_boot(uptime) && self.end_uptime.elapsed <= uptime.elapsed;
        by_uptime || self.end <= now
    }
}

/// Shows it as `granted until 2026-11-28T12:00:00Z`.
impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "granted until {}", self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Clock, ManualClock};

    const QUARTER: Duration = Duration::from_secs(900);
    const SECOND: Duration = Duration::from_secs(1);

    fn holds(term: &Term, clock: &ManualClock) -> bool {
        term.holds(clock.now(), clock.uptime())
    }

    fn term(clock: &ManualClock) -> Term {
        Term::new(clock.now(), clock.uptime(), QUARTER)
    }

    #[test]
    fn a_term_ends_to_the_second() {
        let clock = ManualClock::at(1_000_000);
        let term = term(&clock);
        clock.advance(QUARTER - SECOND);
        assert!(holds(&term, &clock));
        clock.advance(SECOND);
        assert!(!holds(&term, &clock) && term.is_over(clock.now(), clock.uptime()));
    }

    #[test]
    fn a_clock_that_is_set_back_lengthens_no_term_and_one_set_forward_ends_it() {
        let clock = ManualClock::at(1_000_000);
        let term = term(&clock);
        clock.advance(SECOND);
        clock.set(900_000);
        assert!(holds(&term, &clock), "its time is not over");
        clock.advance(QUARTER - SECOND);
        assert!(!holds(&term, &clock), "its time is over, whatever the wall clock says");
        let term = super::tests::term(&clock);
        clock.set(2_000_000);
        assert!(!holds(&term, &clock));
    }

    #[test]
    fn after_a_boot_a_term_has_what_the_wall_clock_leaves_it_and_no_more() {
        let clock = ManualClock::at(1_000_000);
        let term = term(&clock);
        clock.advance(SECOND);
        clock.reboot();
        let resumed = term.resumed(clock.now(), clock.uptime());
        assert!(holds(&resumed, &clock));
        clock.set(1_000_000);
        clock.advance(QUARTER - SECOND);
        assert!(!holds(&resumed, &clock));
    }

    #[test]
    fn what_is_left_of_a_term_is_told_by_the_clock_that_ends_it_first() {
        let clock = ManualClock::at(1_000_000);
        let term = term(&clock);
        let left = || term.left(clock.now(), clock.uptime());
        clock.advance(SECOND);
        assert_eq!(left(), QUARTER - SECOND);
        clock.set(5);
        assert_eq!(left(), QUARTER - SECOND, "the time since boot");
        clock.set(1_000_899);
        assert_eq!(left(), SECOND, "the wall clock");
        clock.set(1_000_901);
        assert_eq!(left(), Duration::ZERO);
    }

    #[test]
    fn a_clock_that_shows_a_time_before_the_grant_is_not_believed_after_a_boot() {
        let clock = ManualClock::at(1_000_000);
        let term = term(&clock);
        clock.reboot();
        clock.set(5);
        let resumed = term.resumed(clock.now(), clock.uptime());
        assert!(!holds(&resumed, &clock) && !resumed.is_over(clock.now(), clock.uptime()));
        clock.set(1_000_001);
        assert!(holds(&resumed, &clock));
    }
}
