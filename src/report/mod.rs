//! Reports for an audit: what the log, the keys and the policy show of controls that somebody else wrote.
//!
//! Pure. [`Facts`] go in: counts of the log ([`Tally`]), key ages, secrets without their values, the
//! policy. Out comes a [`Report`]: for each control of a framework what was found, and the evidence behind
//! it; [`html`] draws it. It is evidence and no certificate, and says so. Which checks belong to which control
//! stands in `controls.toml`, with the limits that they go by.
#![forbid(unsafe_code)]

mod check;
mod control;
mod facts;
pub mod html;
mod tally;
#[cfg(test)]
mod tests;

use serde::Serialize;

pub use check::{Outcome, Verdict};
pub use control::{Framework, Limits};
pub use facts::{Chain, EpochFacts, Facts, Keys, PolicyFacts, SecretFacts, Source};
pub use tally::{CallerKey, Count, SecretUse, Tally};

use crate::model::Timestamp;

/// What every report begins with.
pub const DISCLAIMER: &str = "This is evidence and not a certificate. It shows what one secretfs store and its log \
    know; each control asks for more (people, procedures, other systems), and only an assessor can say that it is met.";

/// A report.
#[derive(Debug, Serialize)]
pub struct Report {
    pub framework: &'static str,
    pub title: &'static str,
    pub disclaimer: &'static str,
    #[serde(serialize_with = "facts::as_text")]
    pub made: Timestamp,
    #[serde(serialize_with = "facts::as_text")]
    pub since: Timestamp,
    pub source: String,
    pub limits: Limits,
    /// What has failed, a log that is not whole first.
    pub findings: Vec<Named>,
    pub controls: Vec<Controlled>,
    /// Every check that some control of the framework asks for.
    pub checks: Vec<Named>,
}

/// A check with what it found.
#[derive(Clone, Debug, Serialize)]
pub struct Named {
    pub check: &'static str,
    pub title: &'static str,
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// A control with what its checks found.
#[derive(Clone, Debug, Serialize)]
pub struct Controlled {
    pub id: String,
    pub title: String,
    pub verdict: Verdict,
    pub checks: Vec<String>,
}

impl Report {
    /// Judges the facts by the controls of a framework.
    pub fn new(framework: Framework, facts: &Facts, limits: &Limits) -> Self {
        let controls = control::of(framework);
        let is_asked = |named: &Named| {
            let mut asked = controls.iter().flat_map(|control| &control.checks);
            named.check == check::LOG_CHAIN || asked.any(|check| check == named.check)
        };
        let checks: Vec<Named> = check::all(facts, limits).into_iter().filter(is_asked).collect();
        let judged = |control: control::Control| {
            let of_control = checks
                .iter()
                .filter(|named| control.checks.iter().any(|check| check == named.check));
            let verdict = of_control.map(|named| named.outcome.verdict).max();
            Controlled {
                id: control.id,
                title: control.title,
                verdict: verdict.unwrap_or(Verdict::NotEvidenced),
                checks: control.checks,
            }
        };
        Self {
            framework: framework.as_str(),
            title: framework.title(),
            disclaimer: DISCLAIMER,
            made: facts.made,
            since: facts.tally.since(),
            source: facts.source.to_string(),
            limits: *limits,
            findings: checks
                .iter()
                .filter(|named| named.outcome.verdict == Verdict::Fail)
                .cloned()
                .collect(),
            controls: controls.clone().into_iter().map(judged).collect(),
            checks,
        }
    }

    /// Tells whether a check has failed.
    pub fn has_failed(&self) -> bool {
        !self.findings.is_empty()
    }
}
