//! Checks of keys and values: what they are sealed by, and how old they are.

use super::{Outcome, count, date};
use crate::model::Timestamp;
use crate::report::facts::days_between;
use crate::report::tally::Kind;
use crate::report::{Facts, Keys, Limits, SecretFacts};

const NO_DAEMON: &str = "A recorded log says nothing of it; ask a running daemon.";

pub(super) fn cipher(facts: &Facts, _: &Limits) -> Outcome {
    match &facts.keys {
        None => Outcome::unknown(NO_DAEMON),
        Some(Keys { cipher, .. }) if cipher == "AES-256-GCM" => Outcome::pass(format!(
            "Names, metadata and values are sealed by {cipher}, each version under a data key of its own, those under an epoch key, and that under the root key."
        )),
        Some(Keys { cipher, .. }) => {
            Outcome::fail(format!("The cipher is {cipher}, which this report does not know."))
        }
    }
}

pub(super) fn source(facts: &Facts, _: &Limits) -> Outcome {
    let Some(keys) = &facts.keys else { return Outcome::unknown(NO_DAEMON) };
    let said = format!("The root key comes from: {}.", keys.sources.join("; "));
    if keys.sources.iter().any(|source| source.starts_with("key file")) {
        return Outcome::unknown(format!(
            "{said} Who may read that file, and its copies, is for the machine to show."
        ));
    }
    Outcome::pass(said)
}

pub(super) fn integrity(facts: &Facts, _: &Limits) -> Outcome {
    match facts.integrity.as_deref() {
        None => Outcome::unknown(NO_DAEMON),
        Some("verified") => Outcome::pass(
            "The daemon has verified the set of records against its sum: nothing was removed, put back or exchanged. Each value is authenticated when it is opened.",
        ),
        Some("verifying") => Outcome::unknown("The daemon is still verifying the records."),
        Some(fault) => Outcome::fail(format!("The daemon says of its records: {fault}.")),
    }
}

pub(super) fn epoch_age(facts: &Facts, limits: &Limits) -> Outcome {
    let Some(keys) = &facts.keys else { return Outcome::unknown(NO_DAEMON) };
    let Some(active) = keys.epochs.iter().find(|epoch| epoch.active) else {
        return Outcome::unknown("No epoch key is active.");
    };
    let age = days_between(active.created, facts.made);
    let said = format!(
        "The active key, of epoch {}, is {} old; {} are the limit.",
        active.epoch,
        days(age),
        days(limits.epoch_days)
    );
    let rows = keys.epochs.iter().map(|epoch| {
        vec![
            epoch.epoch.to_string(),
            if epoch.active { "active" } else { "being replaced" }.to_owned(),
            date(epoch.created),
            days_between(epoch.created, facts.made).to_string(),
            epoch.sealed.to_string(),
        ]
    });
    judged(age <= limits.epoch_days, said)
        .with(&["epoch", "state", "since", "days", "sealed under it"], rows)
}

pub(super) fn root_age(facts: &Facts, limits: &Limits) -> Outcome {
    let since = |since: Timestamp, how: &str| {
        let age = days_between(since, facts.made);
        let said = format!(
            "{how} {}, {} ago; {} are the limit.",
            date(since),
            days(age),
            days(limits.root_days)
        );
        judged(age <= limits.root_days, said)
    };
    match (facts.tally.root_replaced, facts.tally.first) {
        _ if facts.keys.is_none() => Outcome::unknown(NO_DAEMON),
        (Some(replaced), _) => since(replaced, "The root key was replaced on"),
        (None, Some((first, begin))) if first.0 == 1 => {
            since(begin, "The root key was never replaced since the log began, on")
        }
        (None, Some((_, begin))) => {
            let age = days_between(begin, facts.made);
            let said = format!(
                "The root key is older than what is left of the log: more than {}.",
                days(age)
            );
            if age > limits.root_days { Outcome::fail(said) } else { Outcome::unknown(said) }
        }
        (None, None) => Outcome::unknown("The log has no line."),
    }
}

pub(super) fn changes(facts: &Facts, _: &Limits) -> Outcome {
    let noted = facts.tally.noted(Kind::KeyChange);
    if noted.1 == 0 {
        return Outcome::unknown("No key was changed in the period.");
    }
    Outcome::pass(format!(
        "{} on record.",
        count(noted.1, "change of keys is", "changes of keys are")
    ))
    .with_notes(noted)
}

pub(super) fn value_age(facts: &Facts, limits: &Limits) -> Outcome {
    let now = facts.made;
    let judged: Vec<(&SecretFacts, Option<i64>)> = facts
        .secrets
        .iter()
        .filter(|secret| !secret.decoy && !secret.revoked)
        .map(|secret| (secret, secret.age_days(now)))
        .collect();
    let Some(oldest) = judged.iter().filter_map(|(_, age)| *age).max() else {
        return Outcome::unknown("Of no secret it is known when it got its value.");
    };
    let (mut overdue, mut unknown) = (Vec::new(), Vec::new());
    for (secret, age) in &judged {
        match why_overdue(secret, *age, now, limits) {
            Some(why) => overdue.push((*secret, *age, why)),
            None if age.is_none() => unknown.push(*secret),
            None => {}
        }
    }
    overdue.sort_by_key(|(secret, age, _)| (std::cmp::Reverse(*age), &secret.name));
    let mut said = format!(
        "{} of {} overdue; the oldest value is {} old, {} are the limit where a secret has none of its own.",
        overdue.len(),
        count(judged.len(), "secret is", "secrets are"),
        days(oldest),
        days(limits.value_days)
    );
    if !unknown.is_empty() {
        let of = count(unknown.len(), "secret", "secrets");
        said.push_str(&format!(" Of {of} it is not known when the value was made."));
    }
    let row = |secret: &SecretFacts, age: Option<i64>, why: String| {
        let since = secret.value_since.map(date).unwrap_or_default();
        vec![
            secret.name.to_string(),
            since,
            age.map_or_else(String::new, |age| age.to_string()),
            why,
        ]
    };
    let mut rows: Vec<Vec<String>> =
        overdue.iter().map(|(secret, age, why)| row(secret, *age, why.clone())).collect();
    rows.extend(unknown.iter().map(|secret| row(secret, None, "its age is not known".to_owned())));
    let outcome = match (overdue.is_empty(), unknown.is_empty()) {
        (false, _) => Outcome::fail(said),
        (true, false) => Outcome::unknown(said),
        (true, true) => Outcome::pass(said),
    };
    outcome.with(&["secret", "value since", "days", "why"], rows)
}

/// Says why a value should have been replaced by now, as far as that is known.
fn why_overdue(
    secret: &SecretFacts,
    age: Option<i64>,
    now: Timestamp,
    limits: &Limits,
) -> Option<String> {
    if let Some(due) = secret.due.filter(|due| *due <= now) {
        return Some(format!("its schedule had it due on {}", date(due)));
    }
    let age = age?;
    match secret.rotation_days {
        Some(wanted) => {
            (age > i64::from(wanted)).then(|| format!("it has {wanted} days of its own"))
        }
        // What a schedule has in hand is due when that says so.
        None if secret.due.is_some() => None,
        None => (age > limits.value_days).then(|| format!("more than {} days", limits.value_days)),
    }
}

pub(super) fn expired(facts: &Facts, _: &Limits) -> Outcome {
    if facts.keys.is_none() {
        return Outcome::unknown(NO_DAEMON);
    }
    let dated = facts.secrets.iter().filter(|secret| secret.expires.is_some() && !secret.revoked);
    let expired = dated.clone().filter(|secret| secret.expires.is_some_and(|at| at <= facts.made));
    let (dated, expired): (usize, Vec<&SecretFacts>) = (dated.count(), expired.collect());
    let said = format!(
        "{} of {} with a date of expiry {} past it and not revoked.",
        expired.len(),
        count(dated, "secret", "secrets"),
        if expired.len() == 1 { "is" } else { "are" }
    );
    let rows = expired
        .iter()
        .map(|secret| vec![secret.name.to_string(), secret.expires.map(date).unwrap_or_default()]);
    judged(expired.is_empty(), said).with(&["secret", "expired"], rows)
}

fn judged(good: bool, said: String) -> Outcome {
    if good { Outcome::pass(said) } else { Outcome::fail(said) }
}

fn days(number: i64) -> String {
    count(number.unsigned_abs(), "day", "days")
}
