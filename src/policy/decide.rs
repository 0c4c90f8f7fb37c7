//! The decision itself: the path that every open takes two or three times.
//!
//! It allocates nothing and asks nobody. [`Policy::levels`] and [`Policy::may_enter`] answer for
//! listings what [`Policy::decide`] would; the oracle test holds the three together.

use crate::model::{Caller, Level, Levels, SecretName};

use super::guard::Means;
use super::{Binding, Context, Decision, Effect, Grant, Guard, Policy, Reason, Rule, Target};

/// What decisions on a caller that is quarantined call their rule.
const QUARANTINE: &str = "quarantine";

impl Policy {
    /// Decides whether the caller may do that. A deny wins over every allow, also over `admin`,
    /// but denies only the levels that it names. The denials of a binding hold on when its uses
    /// are spent.
    pub fn decide(
        &self,
        caller: &Caller,
        level: Level,
        target: Target<'_>,
        context: &Context<'_>,
    ) -> Decision {
        if context.quarantined {
            let rule = Some(QUARANTINE.into());
            return Decision::Denied { rule, reason: Reason::Quarantined };
        }
        let mut unlimited: Option<&Grant> = None;
        let mut limited: Option<(&Binding, &Grant)> = None;
        let mut used_up: Option<&Grant> = None;
        let guards = || self.guards.iter().filter(|guard| guard.guards(level, target));
        let mut unmet: Option<(&Guard, Reason)> = None;
        let lacking = |means: Means| {
            guards().find_map(|guard| Some((guard, guard.lacks(means, Some(target))?)))
        };
        for binding in self.bindings_of(caller.uid) {
            if !binding.holds(caller, context) {
                continue;
            }
            for grant in &binding.grants {
                match grant.effect {
                    Effect::Deny => {
                        if grant.rule.levels.names(level) && grant.rule.denies(target) {
                            let rule = Some(grant.label.clone());
                            return Decision::Denied { rule, reason: Reason::DeniedByRule };
                        }
                    }
                    Effect::Allow => {
                        let is_needed = binding.speaks_to(caller)
                            && unlimited.is_none()
                            && (limited.is_none() || binding.max_uses.is_none());
                        if !is_needed || !grant.rule.levels.allow(level) {
                            continue;
                        }
                        if !grant.rule.allows(target) {
                            continue;
                        }
                        if let Some(lacking) = lacking(context.means(binding.approvals)) {
                            unmet = Some(lacking);
                            continue;
                        }
                        if binding.max_uses.is_none() {
                            unlimited = Some(grant);
                        } else if binding.has_uses_left(context.uses) {
                            limited = Some((binding, grant));
                        } else {
                            used_up = Some(grant);
                        }
                    }
                }
            }
        }
        if let Some(grant) = unlimited {
            return Decision::Allowed { rule: grant.label.clone(), consumes: None };
        }
        if self.default_for(target).allow(level) && lacking(context.means(0)).is_none() {
            return Decision::Allowed { rule: self.default_label.clone(), consumes: None };
        }
        if let Some((binding, grant)) = limited {
            let consumes = Some(binding.label.clone());
            return Decision::Allowed { rule: grant.label.clone(), consumes };
        }
        match (used_up, unmet) {
            (Some(grant), _) => {
                Decision::Denied { rule: Some(grant.label.clone()), reason: Reason::UsedUp }
            }
            (None, Some((guard, reason))) => Decision::Denied { rule: Some(guard.label()), reason },
            (None, None) => Decision::Denied { rule: None, reason: Reason::NoRule },
        }
    }

    /// Returns what the caller may do with the target, in one pass.
    ///
    /// `Admin` is in the set only if nothing that it implies is denied, so that
    /// [`Levels::allow`] is never wider than [`Policy::decide`]. An admin who is denied `read`
    /// still is one for `decide`.
    pub fn levels(&self, caller: &Caller, target: Target<'_>, context: &Context<'_>) -> Levels {
        if context.quarantined {
            return Levels::NONE;
        }
        let guards = |guard: &Guard| guard.selects(target);
        let (allowed, denied) = self.sum(caller, context, guards, |effect, rule| match effect {
            Effect::Allow => rule.allows(target),
            Effect::Deny => rule.denies(target),
        });
        let default =
            every_implied(self.default_for(target)).minus(self.guarded(context.means(0), guards));
        effective(default.union(allowed), denied)
    }

    /// Tells whether some name below the directory could be allowed, from the policy's text
    /// alone. Rules by attributes do not count: see [`Policy::has_attribute_rules`].
    pub fn may_enter(&self, caller: &Caller, dir: &SecretName, context: &Context<'_>) -> bool {
        !self.levels_below(caller, Some(dir), context).is_empty()
    }

    /// Returns the levels that could be allowed on some name below the directory (`None`: the
    /// root), from the policy's text alone.
    pub fn levels_below(
        &self,
        caller: &Caller,
        dir: Option<&SecretName>,
        context: &Context<'_>,
    ) -> Levels {
        if context.quarantined {
            return Levels::NONE;
        }
        let guards = |guard: &Guard| guard.covers(dir);
        let (allowed, denied) = self.sum(caller, context, guards, |effect, rule| match effect {
            Effect::Allow => rule.may_match_below(dir),
            Effect::Deny => rule.covers(dir),
        });
        let default =
            every_implied(self.default_level).minus(self.guarded(context.means(0), guards));
        default.union(allowed).minus(denied)
    }

    /// Returns the levels that some of those guards keep back.
    pub(super) fn guarded(&self, means: Means, applies: impl Fn(&Guard) -> bool) -> Levels {
        let unmet = |guard: &&Guard| applies(guard) && guard.lacks(means, None).is_some();
        let unmet = self.guards.iter().filter(unmet);
        unmet.fold(Levels::NONE, |levels, guard| levels.union(guard.levels()))
    }

    /// Adds up the levels that the caller's rules allow and deny, of those that `applies` to.
    fn sum(
        &self,
        caller: &Caller,
        context: &Context<'_>,
        guards: impl Fn(&Guard) -> bool + Copy,
        applies: impl Fn(Effect, &Rule) -> bool,
    ) -> (Levels, Levels) {
        let (mut allowed, mut denied) = (Levels::NONE, Levels::NONE);
        for binding in self.bindings_of(caller.uid) {
            if !binding.holds(caller, context) {
                continue;
            }
            let may_allow = binding.speaks_to(caller) && binding.has_uses_left(context.uses);
            for grant in &binding.grants {
                match grant.effect {
                    Effect::Allow if may_allow && applies(Effect::Allow, &grant.rule) => {
                        let (given, means) =
                            (every_implied(grant.rule.levels), context.means(binding.approvals));
                        allowed = allowed.union(given.minus(self.guarded(means, guards)));
                    }
                    Effect::Deny if applies(Effect::Deny, &grant.rule) => {
                        denied = denied.union(grant.rule.levels);
                    }
                    Effect::Allow | Effect::Deny => {}
                }
            }
        }
        (allowed, denied)
    }

    /// Tells whether the caller has a rule that selects by type, tag, service or environment, so
    /// that only a look at the secrets themselves can say what it may know of.
    pub fn has_attribute_rules(&self, caller: &Caller, context: &Context<'_>) -> bool {
        self.by_attributes
            && !context.quarantined
            && self.bindings_of(caller.uid).any(|binding| {
                binding.has_attribute_rules()
                    && binding.speaks_to(caller)
                    && binding.has_uses_left(context.uses)
                    && binding.holds(caller, context)
            })
    }

    pub(super) fn default_for(&self, target: Target<'_>) -> Levels {
        match target {
            Target::Secret { .. } => self.default_level,
            Target::Store => Levels::NONE,
        }
    }
}

impl Context<'_> {
    fn means(&self, approvals: u32) -> Means {
        Means { approvals, elevated: self.elevated }
    }
}

pub(super) fn effective(allowed: Levels, denied: Levels) -> Levels {
    let left = every_implied(allowed).minus(denied);
    let is_whole_admin = Level::ALL.into_iter().all(|level| left.names(level));
    if is_whole_admin { left } else { left.minus(Levels::from_iter([Level::Admin])) }
}

pub(super) fn every_implied(levels: Levels) -> Levels {
    if levels.names(Level::Admin) { Level::ALL.into_iter().collect() } else { levels }
}
