//! Checks of who may do what, and of what nobody does.

use super::{Outcome, count, date};
use crate::model::{Level, Levels};
use crate::policy::Subject;
use crate::report::tally::Kind;
use crate::report::{Facts, Limits, PolicyFacts};

const NO_POLICY: &str = "No policy is at hand: ask a running daemon, or name one with --policy.";

pub(super) fn default_deny(facts: &Facts, _: &Limits) -> Outcome {
    match &facts.policy {
        None => Outcome::unknown(NO_POLICY),
        Some(policy) if policy.default_levels.is_empty() => {
            Outcome::pass("What no rule allows is denied; a deny wins over every allow.")
        }
        Some(policy) => Outcome::fail(format!(
            "`default_level` gives {} on every secret to everybody.",
            policy.default_levels
        )),
    }
}

pub(super) fn admins(facts: &Facts, limits: &Limits) -> Outcome {
    let Some(policy) = &facts.policy else { return Outcome::unknown(NO_POLICY) };
    let admins = policy.subjects.iter().zip(&policy.admins).filter(|(_, is_admin)| **is_admin);
    let rows: Vec<Vec<String>> = admins.map(|(subject, _)| row(subject)).collect();
    let said = format!(
        "{} of the store; {} are the limit. Among secrets, they may do everything that no rule denies.",
        count(rows.len(), "caller is an admin", "callers are admins"),
        limits.admins
    );
    let outcome =
        if rows.len() > limits.admins { Outcome::fail(said) } else { Outcome::pass(said) };
    outcome.with(&["binding", "whom"], rows)
}

pub(super) fn second_factor(facts: &Facts, _: &Limits) -> Outcome {
    let Some(policy) = &facts.policy else { return Outcome::unknown(NO_POLICY) };
    let guards = count(policy.guards.guards, "guard", "guards");
    if policy.guards.elevated_admins {
        return Outcome::pass(format!(
            "A guard keeps commands of admins for login sessions that were elevated by a one-time code ({guards}, {} of them with approvals).",
            policy.guards.approvals
        ));
    }
    Outcome::unknown(format!(
        "No guard asks admins for a one-time code ({guards}): who they are is left to the system's login."
    ))
}

pub(super) fn over_shared(facts: &Facts, limits: &Limits) -> Outcome {
    let Some(policy) = &facts.policy else { return Outcome::unknown(NO_POLICY) };
    let mut shared: Vec<(String, Vec<&Subject>)> = Vec::new();
    let mut most = 0;
    for (secret, rights) in facts.secrets.iter().zip(&policy.rights) {
        let readers = readers(policy, rights);
        most = most.max(readers.len());
        if readers.len() > limits.readers {
            shared.push((secret.name.to_string(), readers));
        }
    }
    shared.sort_by_key(|(name, readers)| (std::cmp::Reverse(readers.len()), name.clone()));
    let said = format!(
        "{} of {} open to more than {} callers; the most is {most}.",
        shared.len(),
        count(facts.secrets.len(), "secret is", "secrets are"),
        limits.readers
    );
    let outcome = if shared.is_empty() { Outcome::pass(said) } else { Outcome::fail(said) };
    let rows = shared.into_iter().map(|(name, readers)| {
        let bindings: std::collections::BTreeSet<&str> =
            readers.iter().map(|subject| &*subject.binding).collect();
        vec![name, readers.len().to_string(), bindings.into_iter().collect::<Vec<_>>().join(", ")]
    });
    outcome.with(&["secret", "readers", "bindings"], rows)
}

fn readers<'a>(policy: &'a PolicyFacts, rights: &[Levels]) -> Vec<&'a Subject> {
    let both = policy.subjects.iter().zip(rights);
    both.filter(|(_, levels)| levels.allow(Level::Read)).map(|(subject, _)| subject).collect()
}

pub(super) fn unused_rules(facts: &Facts, limits: &Limits) -> Outcome {
    let Some(policy) = &facts.policy else { return Outcome::unknown(NO_POLICY) };
    let ordinary = policy.rules.iter().filter(|rule| !rule.break_glass);
    let unused = ordinary.clone().filter(|rule| !facts.tally.rules.contains_key(&*rule.label));
    let rows: Vec<Vec<String>> = unused
        .map(|rule| {
            let line = rule.line.map(|line| line.to_string()).unwrap_or_default();
            vec![rule.label.to_string(), line, rule.text.clone()]
        })
        .collect();
    let said = format!(
        "{} of {} by nobody in the period",
        rows.len(),
        count(ordinary.count(), "rule was used", "rules were used")
    );
    by_use(facts, limits, rows.is_empty(), &said).with(&["rule", "line", "what it allows"], rows)
}

pub(super) fn unused_secrets(facts: &Facts, limits: &Limits) -> Outcome {
    if facts.secrets.is_empty() {
        return Outcome::unknown("No secret is known.");
    }
    let is_young = |created: crate::model::Timestamp| {
        crate::report::facts::days_between(created, facts.made) < limits.unused_days
    };
    let asked = facts.secrets.iter().filter(|secret| !secret.decoy && !secret.revoked);
    let unused = asked.clone().filter(|secret| {
        let used = facts.tally.secrets.get(&secret.name).is_some_and(|used| used.reads > 0);
        !used && !secret.created.is_some_and(is_young)
    });
    let rows: Vec<Vec<String>> = unused
        .map(|secret| vec![secret.name.to_string(), secret.created.map(date).unwrap_or_default()])
        .collect();
    let said = format!(
        "{} of {} by nobody in the period",
        rows.len(),
        count(asked.count(), "secret was read", "secrets were read")
    );
    by_use(facts, limits, rows.is_empty(), &said).with(&["secret", "since"], rows)
}

/// Judges what nobody has used: only a log that is long enough can show it.
fn by_use(facts: &Facts, limits: &Limits, all_used: bool, said: &str) -> Outcome {
    let (covered, wanted) = (facts.tally.days_covered(), limits.unused_days);
    if all_used {
        return Outcome::pass(format!("{said}."));
    }
    if covered < wanted {
        return Outcome::unknown(format!(
            "{said}; the log covers {} of it and {wanted} are asked for (see --since).",
            count(covered.unsigned_abs(), "day", "days")
        ));
    }
    Outcome::fail(format!("{said}, which is {covered} days."))
}

pub(super) fn changes(facts: &Facts, _: &Limits) -> Outcome {
    let noted = facts.tally.noted(Kind::AccessChange);
    if noted.1 == 0 {
        return Outcome::unknown(
            "Nobody's access was changed in the period, as far as the log has it.",
        );
    }
    let said = count(
        noted.1,
        "line is about a changed policy or a grant",
        "lines are about changed policies and grants",
    );
    Outcome::pass(format!("{said}, each with who it was.")).with_notes(noted)
}

pub(super) fn emergencies(facts: &Facts, _: &Limits) -> Outcome {
    let noted = facts.tally.noted(Kind::BreakGlass);
    let policy = facts.policy.as_ref();
    let offered = policy.map(|policy| policy.rules.iter().filter(|rule| rule.break_glass).count());
    let taken = format!(
        "it was taken {} in the period, each time with a reason",
        count(noted.1, "time", "times")
    );
    match (offered, noted.1) {
        (None, 0) => Outcome::unknown(NO_POLICY),
        (Some(0), 0) => Outcome::unknown("The policy provides for no emergency (`break_glass`)."),
        (None | Some(0), _) => {
            Outcome::pass(format!("There was emergency access; {taken}.")).with_notes(noted)
        }
        (Some(rules), _) => {
            let rules = count(rules, "rule is", "rules are");
            Outcome::pass(format!("{rules} for emergencies; {taken}.")).with_notes(noted)
        }
    }
}

pub(super) fn system_accounts(facts: &Facts, _: &Limits) -> Outcome {
    if facts.tally.accesses.all() == 0 {
        return Outcome::unknown("There was no access in the period.");
    }
    let noted = facts.tally.noted(Kind::Interactive);
    if noted.1 == 0 {
        return Outcome::pass("No uid below 1000 read or wrote a secret in a login session.");
    }
    let said = count(noted.1, "read or write", "reads or writes");
    Outcome::fail(format!(
        "{said} by uids below 1000 in login sessions: people should use accounts of their own."
    ))
    .with_notes(noted)
}

fn row(subject: &Subject) -> Vec<String> {
    vec![subject.binding.to_string(), subject.whom.clone()]
}
