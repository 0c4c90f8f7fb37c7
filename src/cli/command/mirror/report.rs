//! What a copy says: the plan before it, and afterwards what is equal and what is not. No word of a value.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use serde_json::{Value, json};

use super::end::Ends;
use crate::cli::error::Failure;
use crate::cli::mirror::{Done, Step};
use crate::cli::out::Out;

pub(super) const COLUMNS: [&str; 4] = ["name", "plan", "versions", "why"];

/// What was planned, copied and found.
pub(super) struct Report {
    pub(super) planned: Vec<Done>,
    pub(super) copied: Vec<Done>,
    /// Empty until it was compared.
    pub(super) found: Vec<Done>,
}

impl Report {
    pub(super) fn new(planned: Vec<Done>) -> Self {
        Self { planned, copied: Vec::new(), found: Vec::new() }
    }

    /// Returns how many names the plan changes.
    pub(super) fn changes(&self) -> usize {
        self.planned.iter().filter(|one| one.step.is_change()).count()
    }

    /// Says the plan in one line.
    pub(super) fn plan(&self) -> String {
        let versions: usize = self.planned.iter().map(|one| one.versions).sum();
        let secrets = self.planned.len();
        format!("plan: {secrets} secrets: {}; {versions} versions to copy", counts(&self.planned))
    }

    /// The plan, a row for each name.
    pub(super) fn rows(&self) -> Vec<Vec<String>> {
        let row = |one: &Done| {
            let (word, why) = words(&one.step);
            vec![one.name.clone(), word.to_owned(), one.versions.to_string(), why.to_owned()]
        };
        self.planned.iter().map(row).collect()
    }

    /// Returns what is not as it should be.
    pub(super) fn unequal(&self) -> Vec<Done> {
        let failed = self.copied.iter().filter(|one| matches!(one.step, Step::Failed(_)));
        let failed: BTreeMap<&str, &Step> =
            failed.map(|one| (one.name.as_str(), &one.step)).collect();
        let unequal = self.found.iter().filter(|one| !one.step.is_equal()).cloned();
        // Why it could not be copied says more than that it is not there.
        let explained = |one: Done| {
            let step = failed.get(one.name.as_str()).copied().cloned();
            Done { step: step.unwrap_or(one.step), ..one }
        };
        unequal.map(explained).collect()
    }

    /// Prints what was found at the end: what is not as it should be, but for what was `said` before, and counts.
    pub(super) fn print(&self, out: &Out, said: &[Done]) -> Result<(), Failure> {
        for one in self.unequal().iter().filter(|one| !said.contains(one)) {
            let (word, why) = words(&one.step);
            out.note(format_args!("{}: {word}: {why}", one.name));
        }
        // What the copy was refused the comparison does not know, and the other way round.
        let mut left_out = BTreeMap::<&str, BTreeSet<&str>>::new();
        for one in self.copied.iter().chain(&self.found) {
            for what in &one.left_out {
                left_out.entry(what).or_default().insert(&one.name);
            }
        }
        for (what, names) in left_out {
            out.note(format_args!("not copied, for {} of them: {what}", names.len()));
        }
        out.line(self.summary())
    }

    /// Says in one line what was done and found.
    pub(super) fn summary(&self) -> String {
        let copied = self.copied.iter().filter(|one| one.versions > 0).count();
        let versions: usize = self.copied.iter().map(|one| one.versions).sum();
        let secrets = self.found.len();
        format!(
            "{copied} secrets copied in {versions} versions; {secrets} compared: {}",
            counts(&self.found)
        )
    }

    /// Whether both sides have the same values.
    pub(super) fn is_equal(&self) -> bool {
        self.found.iter().all(|one| one.step.is_equal())
    }

    pub(super) fn exit_code(&self) -> ExitCode {
        if self.is_equal() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    /// Returns it as `--json` has it.
    pub(super) fn document(&self, ends: &Ends) -> Value {
        let list = |all: &[Done]| -> Vec<Value> {
            let one = |one: &Done| {
                let (word, why) = words(&one.step);
                json!({
                    "name": one.name, "what": word, "why": why, "versions": one.versions,
                    "left_out": one.left_out,
                })
            };
            all.iter().map(one).collect()
        };
        let equal = (!self.found.is_empty() || self.planned.is_empty()).then(|| self.is_equal());
        json!({
            "from": ends.from.to_string(), "to": ends.to.to_string(), "plan": list(&self.planned),
            "copied": list(&self.copied), "found": list(&self.found), "equal": equal,
        })
    }
}

/// Returns how many there are of each step, in words.
fn counts(all: &[Done]) -> String {
    let mut counts = BTreeMap::<&str, usize>::new();
    for one in all {
        *counts.entry(words(&one.step).0).or_default() += 1;
    }
    let counts: Vec<String> =
        counts.into_iter().map(|(word, count)| format!("{count} {word}")).collect();
    if counts.is_empty() { "none".to_owned() } else { counts.join(", ") }
}

/// Returns the word for a step, and why nothing is done where that is so.
fn words(step: &Step) -> (&'static str, &str) {
    match step {
        Step::Ahead => ("ahead", "it has later versions there; --replace puts this one on top"),
        Step::Append => ("append", ""),
        Step::Conflict => {
            ("conflict", "it has another value there; --replace puts this one on top")
        }
        Step::Create => ("create", ""),
        Step::Deleted => {
            ("deleted", "it was deleted there; --replace makes it anew where that can be")
        }
        Step::Failed(why) => ("failed", why),
        Step::Gone => ("unreadable", "its current version was deleted or disabled"),
        Step::Impossible(why) => ("impossible", why),
        Step::Keep => ("equal", ""),
        Step::Replace => ("replace", ""),
        Step::Tag => ("tag", ""),
    }
}
