//! The decision itself: the path that every open takes two or three times.
//!
//! It allocates nothing and asks nobody. [`Policy::levels`] and [`Policy::may_enter`] answer for
//! listings what [`Policy::decide`] would; the oracle test holds the three together.

use crate::model::{Caller, Level, Levels, SecretName};

use super::{Binding, Context, Decision, Effect, Grant, Policy, Rule, Target};

const DENIED_BY_RULE: &str = "a rule denies it";
const NO_RULE: &str = "no rule allows it";
const USED_UP: &str = "the uses of the binding that allows it are spent";

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
        let mut unlimited: Option<&Grant> = None;
        let mut limited: Option<(&Binding, &Grant)> = None;
        let mut used_up: Option<&Grant> = None;
        for binding in self.bindings_of(caller.uid) {
            if !binding.holds(caller, context) {
                continue;
            }
            for grant in &binding.grants {
                match grant.effect {
                    Effect::Deny => {
                        if grant.rule.levels.names(level) && grant.rule.denies(target) {
                            let rule = Some(grant.label.clone());
                            return Decision::Denied { rule, reason: DENIED_BY_RULE };
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
        if self.default_for(target).allow(level) {
            return Decision::Allowed { rule: self.default_label.clone(), consumes: None };
        }
        if let Some((binding, grant)) = limited {
            let consumes = Some(binding.label.clone());
            return Decision::Allowed { rule: grant.label.clone(), consumes };
        }
        match used_up {
            Some(grant) => Decision::Denied { rule: Some(grant.label.clone()), reason: USED_UP },
            None => Decision::Denied { rule: None, reason: NO_RULE },
        }
    }

    /// Returns what the caller may do with the target, in one pass.
    ///
    /// `Admin` is in the set only if nothing that it implies is denied, so that
    /// [`Levels::allow`] is never wider than [`Policy::decide`]. An admin who is denied `read`
    /// still is one for `decide`.
    pub fn levels(&self, caller: &Caller, target: Target<'_>, context: &Context<'_>) -> Levels {
        let (allowed, denied) = self.sum(caller, context, |effect, rule| match effect {
            Effect::Allow => rule.allows(target),
            Effect::Deny => rule.denies(target),
        });
        effective(self.default_for(target).union(allowed), denied)
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
        let (allowed, denied) = self.sum(caller, context, |effect, rule| match effect {
            Effect::Allow => rule.may_match_below(dir),
            Effect::Deny => rule.covers(dir),
        });
        every_implied(self.default_level.union(allowed)).minus(denied)
    }

    /// Adds up the levels that the caller's rules allow and deny, of those that `applies` to.
    fn sum(
        &self,
        caller: &Caller,
        context: &Context<'_>,
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
                        allowed = allowed.union(grant.rule.levels);
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
            && self.bindings_of(caller.uid).any(|binding| {
                binding.has_attribute_rules()
                    && binding.speaks_to(caller)
                    && binding.has_uses_left(context.uses)
                    && binding.holds(caller, context)
            })
    }

    fn default_for(&self, target: Target<'_>) -> Levels {
        match target {
            Target::Secret { .. } => self.default_level,
            Target::Store => Levels::NONE,
        }
    }
}

fn effective(allowed: Levels, denied: Levels) -> Levels {
    let left = every_implied(allowed).minus(denied);
    let is_whole_admin = Level::ALL.into_iter().all(|level| left.names(level));
    if is_whole_admin { left } else { left.minus(Levels::from_iter([Level::Admin])) }
}

fn every_implied(levels: Levels) -> Levels {
    if levels.names(Level::Admin) { Level::ALL.into_iter().collect() } else { levels }
}
