//! The checks: each looks at some of the facts and says what it has found, with the evidence.
//!
//! A check passes or fails by a rule that stands here or in [`Limits`]; what it cannot know it does not
//! evidence. What rests on a log that is not whole evidences nothing.

mod access;
mod keys;
mod log;

use serde::Serialize;

use super::tally::Note;
use super::{Chain, Facts, Limits, Named};
use crate::audit::Outcome as Ending;
use crate::model::Timestamp;

/// The check of the log itself, which comes first whatever is asked for.
pub(super) const LOG_CHAIN: &str = "log_chain";

/// Most rows of evidence that one check shows.
const MAX_ROWS: usize = 50;

/// What was found. In the order of what outweighs the other.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Pass,
    NotEvidenced,
    Fail,
}

/// What a check has found.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    pub verdict: Verdict,
    /// One sentence or two.
    pub said: String,
    pub columns: Vec<&'static str>,
    pub rows: Vec<Vec<String>>,
    /// Rows that are left out of the evidence.
    pub more: usize,
}

impl Verdict {
    /// Returns the words for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fail => "fail",
            Self::NotEvidenced => "not evidenced",
            Self::Pass => "pass",
        }
    }
}

impl Outcome {
    fn new(verdict: Verdict, said: impl Into<String>) -> Self {
        Self { verdict, said: said.into(), columns: Vec::new(), rows: Vec::new(), more: 0 }
    }

    fn pass(said: impl Into<String>) -> Self {
        Self::new(Verdict::Pass, said)
    }

    fn fail(said: impl Into<String>) -> Self {
        Self::new(Verdict::Fail, said)
    }

    fn unknown(said: impl Into<String>) -> Self {
        Self::new(Verdict::NotEvidenced, said)
    }

    /// Adds the evidence.
    fn with(
        mut self,
        columns: &[&'static str],
        rows: impl IntoIterator<Item = Vec<String>>,
    ) -> Self {
        self.rows = rows.into_iter().collect();
        self.more = self.rows.len().saturating_sub(MAX_ROWS);
        self.rows.truncate(MAX_ROWS);
        self.columns = if self.rows.is_empty() { Vec::new() } else { columns.to_vec() };
        self
    }

    /// Adds lines of the log, of which some may have been left out before.
    fn with_notes(self, (notes, all): (&[Note], u64)) -> Self {
        let left_out = usize::try_from(all).unwrap_or(usize::MAX).saturating_sub(notes.len());
        let row = |note: &Note| {
            let uid = note.uid.map(|uid| uid.to_string()).unwrap_or_default();
            vec![time(note.time), uid, note.what.clone(), note.outcome.to_string()]
        };
        let mut shown = self.with(&["time", "uid", "what", "outcome"], notes.iter().rev().map(row));
        shown.more += left_out;
        shown
    }
}

/// Whether a check rests on the log.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Rests {
    Elsewhere,
    OnLog,
}

type Judge = fn(&Facts, &Limits) -> Outcome;

/// Every check: its name, what it asks, what it rests on. The log's own is first, for the others need it.
const CHECKS: [(&str, &str, Rests, Judge); 25] = [
    (LOG_CHAIN, "The audit log is whole", Rests::Elsewhere, log::chain),
    ("access_changes", "Changes of access are on record", Rests::OnLog, access::changes),
    ("admin_actions", "What admins do is on record", Rests::OnLog, log::admin_actions),
    ("admins", "Few are admins of the store", Rests::Elsewhere, access::admins),
    ("anomalies", "What is unlike before is found", Rests::OnLog, log::anomalies),
    ("cipher", "Values are encrypted and authenticated", Rests::Elsewhere, keys::cipher),
    ("decoys", "No decoy was touched", Rests::OnLog, log::decoys),
    ("default_deny", "What no rule allows is denied", Rests::Elsewhere, access::default_deny),
    (
        "emergencies",
        "Emergency access is provided for and on record",
        Rests::OnLog,
        access::emergencies,
    ),
    ("epoch_age", "The active key is not too old", Rests::Elsewhere, keys::epoch_age),
    ("expired", "No expired secret is in use", Rests::Elsewhere, keys::expired),
    ("integrity", "The store is as it was written", Rests::Elsewhere, keys::integrity),
    ("key_changes", "Changes of keys are on record", Rests::OnLog, keys::changes),
    (
        "key_source",
        "The root key is protected by more than a file's mode",
        Rests::Elsewhere,
        keys::source,
    ),
    ("log_identity", "Each access has its user, time and outcome", Rests::OnLog, log::identity),
    ("log_readers", "Who reads the log is on record", Rests::OnLog, log::readers),
    ("log_retention", "The log is kept long enough", Rests::OnLog, log::retention),
    ("over_shared", "No secret is open to too many", Rests::Elsewhere, access::over_shared),
    ("refusals", "Few accesses are refused, and each is on record", Rests::OnLog, log::refusals),
    ("root_age", "The root key is not too old", Rests::OnLog, keys::root_age),
    ("second_factor", "Admins need a second factor", Rests::Elsewhere, access::second_factor),
    (
        "system_accounts",
        "Accounts of systems are not used by people",
        Rests::OnLog,
        access::system_accounts,
    ),
    ("unused_rules", "Every rule is in use", Rests::OnLog, access::unused_rules),
    ("unused_secrets", "Every secret is in use", Rests::OnLog, access::unused_secrets),
    ("value_age", "Values are replaced in time", Rests::Elsewhere, keys::value_age),
];

/// Carries out every check, the log's own first.
pub(super) fn all(facts: &Facts, limits: &Limits) -> Vec<Named> {
    let broken = matches!(facts.chain, Chain::Broken { .. }) || facts.tally.gaps > 0;
    let named = |(check, title, rests, judge): (&'static str, &'static str, Rests, Judge)| {
        let outcome = if broken && rests == Rests::OnLog {
            Outcome::unknown("The log that would show it is not whole.")
        } else {
            judge(facts, limits)
        };
        Named { check, title, outcome }
    };
    CHECKS.into_iter().map(named).collect()
}

fn time(time: Timestamp) -> String {
    time.strftime("%F %T").to_string()
}

fn date(time: Timestamp) -> String {
    time.strftime("%F").to_string()
}

/// Says a number with its noun.
fn count(number: impl TryInto<u64>, one: &str, many: &str) -> String {
    match number.try_into().unwrap_or(u64::MAX) {
        1 => format!("1 {one}"),
        number => format!("{number} {many}"),
    }
}

fn is_bad(outcome: Ending) -> bool {
    outcome != Ending::Allowed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_outweighs_what_is_not_known_and_that_a_pass() {
        assert!(Verdict::Fail > Verdict::NotEvidenced && Verdict::NotEvidenced > Verdict::Pass);
    }

    #[test]
    fn evidence_has_an_end_and_says_how_much_is_left_out() {
        let rows = (0..60).map(|n: u32| vec![n.to_string()]);
        let outcome = Outcome::pass("x").with(&["n"], rows);
        assert_eq!((outcome.rows.len(), outcome.more), (MAX_ROWS, 10));
        assert!(Outcome::pass("x").with(&["n"], Vec::new()).columns.is_empty());
    }
}
