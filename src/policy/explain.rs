//! Why a caller may or may not: the same decision, told at length.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::model::{Caller, Level};

use super::{Context, Decision, Effect, Grant, Guard, Policy, Target};

/// What a caller may do with a target, and what was near.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    pub levels: Vec<LevelExplanation>,
    /// The bindings with a rule for the target, in the order of the file.
    pub bindings: Vec<BindingExplanation>,
}

/// The decision on one level.
#[derive(Clone, Debug, Serialize)]
pub struct LevelExplanation {
    pub level: Level,
    pub allowed: bool,
    /// The rule that decides; none where no rule allows it.
    pub rule: Option<Arc<str>>,
    /// What that rule says, as in `read on names prod/web/*`.
    pub text: Option<String>,
    /// The binding that gives the rule.
    pub binding: Option<Arc<str>>,
    /// Why not.
    pub reason: Option<&'static str>,
}

/// A binding with a rule for the target.
#[derive(Clone, Debug, Serialize)]
pub struct BindingExplanation {
    pub binding: Arc<str>,
    /// Where it stands in the file, from 1; none for a grant.
    pub line: Option<usize>,
    pub holds: bool,
    /// The conditions that do not hold, with what is the case instead.
    pub failed: Vec<String>,
    /// What its rules would say on the target.
    pub rules: Vec<String>,
}

impl Policy {
    /// Explains every level on the target.
    pub fn explain(
        &self,
        caller: &Caller,
        target: Target<'_>,
        context: &Context<'_>,
    ) -> Explanation {
        let level = |level| {
            let decision = self.decide(caller, level, target, context);
            self.explain_level(level, decision)
        };
        Explanation {
            levels: Level::ALL.into_iter().map(level).collect(),
            bindings: self.explain_bindings(caller, target, context),
        }
    }

    fn explain_level(&self, level: Level, decision: Decision) -> LevelExplanation {
        let allowed = decision.is_allowed();
        let (rule, reason) = match decision {
            Decision::Allowed { rule, .. } => (Some(rule), None),
            Decision::Denied { rule, reason } => (rule, Some(reason.as_str())),
        };
        let given = self.bindings.iter().find_map(|binding| {
            let is_it = |grant: &&Grant| rule.as_ref().is_some_and(|rule| *rule == grant.label);
            binding.grants.iter().find(is_it).map(|grant| (binding, grant))
        });
        let guard = || {
            let is_it = |guard: &&Guard| rule.as_ref().is_some_and(|rule| *rule == guard.label());
            self.guards.iter().find(is_it).map(Guard::to_string)
        };
        LevelExplanation {
            level,
            allowed,
            text: given.map(|(_, grant)| grant.rule.to_string()).or_else(guard),
            binding: given.map(|(binding, _)| binding.label.clone()),
            rule,
            reason,
        }
    }

    fn explain_bindings(
        &self,
        caller: &Caller,
        target: Target<'_>,
        context: &Context<'_>,
    ) -> Vec<BindingExplanation> {
        let mut explained = Vec::new();
        for binding in &self.bindings {
            let rules: Vec<String> = binding
                .grants
                .iter()
                .filter_map(|grant| match grant.effect {
                    Effect::Allow if grant.rule.allows(target) => {
                        Some(format!("allow {}", grant.rule))
                    }
                    Effect::Deny if grant.rule.denies(target) => {
                        Some(format!("deny {}", grant.rule))
                    }
                    Effect::Allow | Effect::Deny => None,
                })
                .collect();
            if rules.is_empty() {
                continue;
            }
            let fails = binding.conditions.iter().filter(|c| !c.holds(caller, context));
            let mut failed: Vec<String> =
                fails.map(|condition| condition.failure(caller, context)).collect();
            if let Some(max) = binding.max_uses.filter(|_| !binding.has_uses_left(context.uses)) {
                failed.push(format!("max_uses {max}: they are spent"));
            }
            if let Some(at_most) = binding.break_glass {
                failed.push(format!("break_glass {}: it is to be taken first", span(at_most)));
            }
            explained.push(BindingExplanation {
                binding: binding.label.clone(),
                line: binding.line,
                holds: failed.is_empty(),
                failed,
                rules,
            });
        }
        explained
    }
}

/// Shows a time as a policy has it.
fn span(time: Duration) -> String {
    jiff::SignedDuration::try_from(time).map(|time| format!("{time:#}")).unwrap_or_default()
}
