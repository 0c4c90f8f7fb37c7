//! Checks of the log: that it is whole, says who, is kept, and is looked at.

use super::{Outcome, count, date, is_bad, time};
use crate::anomaly::{Finding, Kind as Anomaly, LEARNING_DAYS};
use crate::report::facts::days_between;
use crate::report::tally::Kind;
use crate::report::{Chain, Facts, Limits};

pub(super) fn chain(facts: &Facts, _: &Limits) -> Outcome {
    match &facts.chain {
        Chain::Broken { why } => Outcome::fail(format!(
            "The audit log is not whole: {why}. What else rests on it is not evidenced; find out first who changed it."
        )),
        Chain::Unchecked if facts.tally.gaps > 0 => Outcome::fail(format!(
            "A recorded log that is not whole: {} between its lines. What else rests on it is not evidenced.",
            count(facts.tally.gaps, "number is missing", "numbers are missing")
        )),
        Chain::Unchecked => Outcome::unknown(
            "A recorded log, whose chain only the store's daemon can check (`secretfs audit verify`); no number is missing between its lines.",
        ),
        Chain::Whole { first, head, notes } => {
            let notes: Vec<Vec<String>> = notes.iter().map(|note| vec![note.clone()]).collect();
            Outcome::pass(format!(
                "The code of every line from {first} to {head} was checked: nothing was edited, deleted, inserted or reordered."
            ))
            .with(&["note"], notes)
        }
    }
}

pub(super) fn identity(facts: &Facts, _: &Limits) -> Outcome {
    let (all, without) = (facts.tally.accesses.all(), facts.tally.without_uid);
    if all == 0 {
        return Outcome::unknown("There was no access in the period.");
    }
    let said = format!(
        "{} by {}; {without} without a user",
        count(all, "access", "accesses"),
        count(facts.tally.users_seen(), "user", "users"),
    );
    let unreadable = facts.tally.unreadable;
    if without > 0 || unreadable > 0 {
        return Outcome::fail(format!("{said}; {unreadable} lines could not be read."));
    }
    Outcome::pass(format!(
        "{said}. Each line has user, program, time, secret and outcome; the user is the kernel's word."
    ))
}

pub(super) fn retention(facts: &Facts, limits: &Limits) -> Outcome {
    let Some((first, since)) = facts.tally.first else {
        return Outcome::unknown("The log has no line.");
    };
    let (days, wanted) = (days_between(since, facts.made), limits.retention_days);
    let said = format!(
        "The log reaches back to {}, {}",
        date(since),
        count(days.unsigned_abs(), "day", "days")
    );
    if days >= wanted {
        Outcome::pass(format!("{said} (at least {wanted} are asked for)."))
    } else if first.0 == 1 {
        Outcome::pass(format!("{said}, to its first line: nothing was removed yet."))
    } else {
        Outcome::fail(format!(
            "{said}, and older lines were removed; {wanted} days are asked for (see `audit` in OPERATIONS)."
        ))
    }
}

pub(super) fn readers(facts: &Facts, _: &Limits) -> Outcome {
    let (notes, all) = facts.tally.noted(Kind::LogRead);
    if all == 0 {
        return Outcome::unknown(
            "Nobody opened the log in the period, so nobody looked at it through the mount.",
        );
    }
    let refused = notes.iter().filter(|note| is_bad(note.outcome)).count();
    let said = format!(
        "The log was opened {}; {} of the newest {} refused. It is open to admins alone.",
        count(all, "time", "times"),
        refused,
        notes.len()
    );
    Outcome::pass(said).with_notes((notes, all))
}

pub(super) fn admin_actions(facts: &Facts, _: &Limits) -> Outcome {
    let (notes, all) = facts.tally.noted(Kind::Admin);
    if all == 0 {
        return Outcome::unknown("No command of an admin is on record in the period.");
    }
    let said = count(all, "command of an admin is", "commands of admins are");
    Outcome::pass(format!("{said} on record.")).with_notes((notes, all))
}

pub(super) fn refusals(facts: &Facts, limits: &Limits) -> Outcome {
    let tally = &facts.tally;
    let (bad, all) = (
        tally.accesses.bad() + tally.counted_refusals,
        tally.accesses.all() + tally.counted_refusals,
    );
    if all == 0 {
        return Outcome::unknown("There was no access in the period.");
    }
    let percent = bad as f64 * 100.0 / all as f64;
    let said = format!(
        "{bad} of {all} accesses were refused or failed, {percent:.1} %; more than {} % is a failure.",
        limits.refused_percent
    );
    let mut callers: Vec<_> = tally.callers.iter().filter(|(_, count)| count.bad() > 0).collect();
    callers.sort_by_key(|(caller, count)| (std::cmp::Reverse(count.bad()), *caller));
    let rows = callers.into_iter().map(|(caller, count)| {
        vec![
            tally.name_of(caller.uid),
            caller.exe.clone().unwrap_or_default(),
            count.denied.to_string(),
            count.failed.to_string(),
            count.all().to_string(),
        ]
    });
    let outcome = if bad * 100 > limits.refused_percent * all {
        Outcome::fail(said)
    } else {
        Outcome::pass(said)
    };
    outcome.with(&["user", "program", "denied", "failed", "of"], rows)
}

pub(super) fn anomalies(facts: &Facts, _: &Limits) -> Outcome {
    let Some(found) = &facts.anomalies else {
        return Outcome::unknown("The detectors were not asked.");
    };
    let found: Vec<&Finding> =
        found.iter().filter(|finding| finding.kind != Anomaly::Decoy).collect();
    if found.is_empty() {
        let days = facts.tally.first.map_or(0, |(_, since)| days_between(since, facts.made));
        if days < LEARNING_DAYS.into() {
            return Outcome::unknown(format!(
                "The detectors found nothing yet: the log reaches back {}, and they learn for {LEARNING_DAYS}.",
                count(days.unsigned_abs(), "day", "days")
            ));
        }
        return Outcome::pass("The detectors found nothing that is unlike before.");
    }
    let said = format!(
        "The detectors found {}. Whether somebody has looked at them is not in the log.",
        count(found.len(), "thing that is unlike before", "things that are unlike before")
    );
    Outcome::unknown(said).with(&["time", "kind", "score", "what"], by_score(found))
}

pub(super) fn decoys(facts: &Facts, _: &Limits) -> Outcome {
    let touched = facts.anomalies.iter().flatten().filter(|finding| finding.kind == Anomaly::Decoy);
    let touched: Vec<&Finding> = touched.collect();
    if !touched.is_empty() {
        let said = format!(
            "Decoys were touched {}: nothing should ever open one.",
            count(touched.len(), "time", "times")
        );
        return Outcome::fail(said).with(&["time", "kind", "score", "what"], by_score(touched));
    }
    let decoys = facts.secrets.iter().filter(|secret| secret.decoy).count();
    match (facts.anomalies.is_some(), decoys) {
        (false, _) => Outcome::unknown("The detectors were not asked."),
        (true, 0) => Outcome::unknown("No secret is known to be a decoy (`secretfs put --decoy`)."),
        (true, decoys) => {
            Outcome::pass(format!("Nobody touched any of {}.", count(decoys, "decoy", "decoys")))
        }
    }
}

fn by_score(mut found: Vec<&Finding>) -> Vec<Vec<String>> {
    found.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.time.cmp(&b.time)));
    let row = |finding: &Finding| {
        vec![
            time(finding.time),
            finding.kind.to_string(),
            format!("{:.2}", finding.score),
            finding.explanation.clone(),
        ]
    };
    found.into_iter().map(row).collect()
}
