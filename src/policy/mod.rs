//! Who may do what: pure decisions over a parsed policy.
//!
//! Nothing is allowed unless a rule says so, a deny wins over every allow, and root is a caller
//! like any other. A fact that is not known matches no condition. Users and groups are looked up
//! when the policy is parsed, never in a request.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::model::{Attributes, Caller, Level, Levels, Needs, SecretName, Timestamp, Uid, Uptime};

mod condition;
mod decide;
mod document;
mod expect;
mod explain;
mod fact;
mod guard;
mod initial;
mod lease;
mod parse;
mod rule;
mod suggest;
mod survey;

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;

pub use expect::ExpectationResult;
pub use explain::{BindingExplanation, Explanation, LevelExplanation};
pub use initial::initial;
pub use lease::{Emergency, Lease, Term, Whom};
pub use suggest::{Access, AccessOf, Narrowing, Suggested, Suggestion};
pub use survey::{GuardSurvey, RuleSurvey, Subject};

use condition::Condition;
use expect::Expectation;
use guard::Guard;
use rule::Rule;

/// A policy that was parsed without an error. Immutable; a changed file makes a new one.
#[derive(Debug)]
pub struct Policy {
    default_level: Levels,
    bindings: Box<[Arc<Binding>]>,
    /// For each uid that some binding names: the bindings that name it or name no uid, in order.
    by_uid: Box<[(Uid, Box<[usize]>)]>,
    /// The bindings that name no uid.
    by_other: Box<[usize]>,
    /// What must be met besides, in the order of the file.
    guards: Arc<[Guard]>,
    expectations: Arc<[Expectation]>,
    default_label: Arc<str>,
    has_grants: bool,
    needs: Needs,
    /// Whether some rule that allows selects by attributes.
    by_attributes: bool,
}

/// Gives roles to the callers for whom all its conditions hold.
#[derive(Debug)]
struct Binding {
    /// Its id, or `#` and its place among the bindings, from 1.
    label: Arc<str>,
    /// Where it stands in the file; `None` for a grant, which stands in none.
    line: Option<usize>,
    conditions: Box<[Condition]>,
    max_uses: Option<u32>,
    /// For how long at most a caller may take it for itself, in an emergency; until then it says nothing.
    break_glass: Option<Duration>,
    /// How many admins have agreed, of a grant.
    approvals: u32,
    grants: Box<[Grant]>,
}

/// One rule of one role, as one binding gives it.
#[derive(Debug)]
struct Grant {
    /// What decisions and audit lines call it: `BINDING: ROLE allow N` with N from 1.
    label: Arc<str>,
    effect: Effect,
    rule: Arc<Rule>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Effect {
    Allow,
    Deny,
}

/// Finds the ids of users and groups while a policy is parsed.
pub trait Users {
    /// Returns the uid of a user.
    fn uid_of(&self, name: &str) -> Option<Uid>;
    /// Returns the gid of a group.
    fn gid_of(&self, name: &str) -> Option<crate::model::Gid>;
}

/// For policies that name users and groups by number alone: it finds nobody.
#[derive(Clone, Copy, Debug)]
pub struct NumericIds;

impl Users for NumericIds {
    fn uid_of(&self, _name: &str) -> Option<Uid> {
        None
    }

    fn gid_of(&self, _name: &str) -> Option<crate::model::Gid> {
        None
    }
}

/// Counts what bindings with `max_uses` have been used for.
pub trait Uses {
    /// Returns how often the binding with that id has been used.
    fn used(&self, binding: &str) -> u32;
}

/// The count for policies that are only asked about: nothing has been used.
#[derive(Clone, Copy, Debug)]
pub struct NothingUsed;

impl Uses for NothingUsed {
    fn used(&self, _binding: &str) -> u32 {
        0
    }
}

/// What decisions depend on besides the caller and the target.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    pub now: Timestamp,
    /// For grants, which end by it too.
    pub uptime: Uptime,
    /// Whether the caller's login session is elevated.
    pub elevated: bool,
    /// Whether the caller is kept from everything for a while, whatever the rules say.
    pub quarantined: bool,
    pub uses: &'a dyn Uses,
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("now", &self.now).finish_non_exhaustive()
    }
}

/// What somebody wants to do something with.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// A name; its attributes are `None` where they are not known or there is no such secret, and
    /// then no rule by attributes matches.
    Secret { name: &'a SecretName, attributes: Option<&'a Attributes> },
    /// The store as a whole: seal, backup, keys. Only rules over the name `**` reach it, and only
    /// one that allows `admin` allows anything.
    Store,
}

/// Yes or no, and which rule says so.
#[derive(Clone, Debug, Eq, PartialEq)]
#[must_use]
pub enum Decision {
    Allowed {
        rule: Arc<str>,
        /// The binding whose count of uses this takes one from.
        consumes: Option<Arc<str>>,
    },
    Denied {
        /// `None`: no rule matches, and the default is to deny.
        rule: Option<Arc<str>>,
        reason: Reason,
    },
}

/// Why something is not allowed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reason {
    DeniedByRule,
    /// A rule allows it, and other admins must agree.
    NeedsApproval,
    /// A rule allows it, and the login session must be elevated.
    NeedsElevation,
    NoRule,
    Quarantined,
    UsedUp,
}

impl Reason {
    /// Returns it in words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DeniedByRule => "a rule denies it",
            Self::NeedsApproval => "another admin must approve it: ask by `secretfs grant`",
            Self::NeedsElevation => "the login session must be elevated: run `secretfs elevate`",
            Self::NoRule => "no rule allows it",
            Self::Quarantined => {
                "the caller is quarantined: an admin may end it by `secretfs quarantine lift`"
            }
            Self::UsedUp => "the uses of the binding that allows it are spent",
        }
    }
}

impl Decision {
    /// Tells whether it is a yes.
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allowed { .. })
    }
}

impl Policy {
    /// Puts a policy together.
    fn of(
        bindings: Vec<Arc<Binding>>,
        default_level: Levels,
        guards: Arc<[Guard]>,
        expectations: Arc<[Expectation]>,
    ) -> Self {
        let (by_uid, by_other) = index(&bindings);
        Self {
            default_level,
            has_grants: bindings.iter().any(|binding| binding.line.is_none()),
            needs: needs_of(&bindings, &guards),
            by_attributes: bindings.iter().any(|binding| binding.has_attribute_rules()),
            bindings: bindings.into(),
            by_uid,
            by_other,
            guards,
            expectations,
            default_label: "default_level".into(),
        }
    }

    /// Parses a policy. Errors: the first thing that is wrong, with its place in the text.
    pub fn parse(text: &str, users: &dyn Users) -> Result<Self, PolicyError> {
        parse::policy(text, users)
    }

    /// Returns which facts about a caller some binding asks for.
    pub fn needs(&self) -> Needs {
        self.needs
    }

    /// Tells whether some binding that holds allows the caller something, guarded or not.
    pub fn has_rules(&self, caller: &Caller, context: &Context<'_>) -> bool {
        !context.quarantined
            && self.bindings_of(caller.uid).any(|binding| {
                let allows = |grant: &Grant| grant.effect == Effect::Allow;
                binding.conditions_hold(caller, context) && binding.grants.iter().any(allows)
            })
    }

    /// Returns how many uses a binding with that id allows; `None` when it does not count them.
    pub fn max_uses(&self, id: &str) -> Option<u32> {
        self.bindings.iter().find(|binding| *binding.label == *id)?.max_uses
    }

    /// Tells whether some binding counts its uses, so that a read may have to write.
    pub fn limits_uses(&self) -> bool {
        self.bindings.iter().any(|binding| binding.max_uses.is_some())
    }

    /// Evaluates what the policy file expects of itself; `now` is the time of expectations that
    /// name none.
    pub fn run_expectations(&self, now: Timestamp) -> Vec<ExpectationResult> {
        self.expectations.iter().map(|expectation| expectation.run(self, now)).collect()
    }

    /// Returns the levels that `decide` allows, one by one: the slow way that explanations take.
    fn decided(&self, caller: &Caller, target: Target<'_>, context: &Context<'_>) -> Levels {
        let allowed = |level: &Level| self.decide(caller, *level, target, context).is_allowed();
        Level::ALL.into_iter().filter(allowed).collect()
    }

    fn bindings_of(&self, uid: Uid) -> impl Iterator<Item = &Binding> {
        let indices = match self.by_uid.binary_search_by_key(&uid, |(uid, _)| *uid) {
            Ok(found) => self.by_uid.get(found).map_or(&*self.by_other, |(_, indices)| indices),
            Err(_) => &*self.by_other,
        };
        indices.iter().filter_map(|&index| self.bindings.get(index).map(|binding| &**binding))
    }
}

type ByUid = Box<[(Uid, Box<[usize]>)]>;

fn index(bindings: &[Arc<Binding>]) -> (ByUid, Box<[usize]>) {
    let uids = |binding: &Arc<Binding>| {
        binding.conditions.iter().find_map(|condition| {
            if let Condition::Uid(uids) = condition { Some(uids.to_vec()) } else { None }
        })
    };
    let wanted: Vec<Option<Vec<Uid>>> = bindings.iter().map(uids).collect();
    let named: BTreeSet<Uid> = wanted.iter().flatten().flatten().copied().collect();
    let select = |fits: &dyn Fn(&Option<Vec<Uid>>) -> bool| {
        wanted.iter().enumerate().filter(|(_, uids)| fits(uids)).map(|(index, _)| index).collect()
    };
    let of =
        |uid: Uid| select(&|wanted| wanted.as_ref().is_none_or(|wanted| wanted.contains(&uid)));
    let by_uid = named.into_iter().map(|uid| (uid, of(uid))).collect();
    (by_uid, select(&Option::is_none))
}

/// Adds up what the conditions of all bindings ask for.
fn needs_of(bindings: &[Arc<Binding>], guards: &[Guard]) -> Needs {
    let conditions = || bindings.iter().flat_map(|binding| &*binding.conditions);
    Needs {
        groups: conditions().any(|c| matches!(c, Condition::Gid(_))),
        exe: conditions().any(|c| matches!(c, Condition::Exe(_) | Condition::ExeSha256(_))),
        process: conditions().any(|c| {
            matches!(c, Condition::AfterStart(_) | Condition::Container(_) | Condition::Unit(_))
        }),
        exe_sha256: conditions().any(|c| matches!(c, Condition::ExeSha256(_))),
        session: guards.iter().any(|guard| guard.require_mfa),
    }
}

impl Binding {
    fn has_attribute_rules(&self) -> bool {
        let mut grants = self.grants.iter();
        grants.any(|grant| grant.effect == Effect::Allow && grant.rule.is_by_attributes())
    }

    fn holds(&self, caller: &Caller, context: &Context<'_>) -> bool {
        self.break_glass.is_none() && self.conditions_hold(caller, context)
    }

    fn conditions_hold(&self, caller: &Caller, context: &Context<'_>) -> bool {
        self.conditions.iter().all(|condition| condition.holds(caller, context))
    }

    /// Tells whether the binding may allow anything to such a caller, if it holds.
    fn speaks_to(&self, caller: &Caller) -> bool {
        let names_unit = |condition: &Condition| matches!(condition, Condition::Unit(_));
        !caller.for_unit || self.conditions.iter().any(names_unit)
    }

    fn has_uses_left(&self, uses: &dyn Uses) -> bool {
        self.max_uses.is_none_or(|max| uses.used(&self.label) < max)
    }
}

/// What is wrong with a policy, and where.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct PolicyError {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    pub message: String,
}
