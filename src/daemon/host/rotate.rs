//! The commands of `.control/rotate` and `.control/holders`.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::words::{Flag, Number};
use super::{Daemon, Result};
use crate::broker::BrokerError;
use crate::daemon::metrics::Rotations;
use crate::model::{Caller, SecretName};
use crate::rotation::{Options, Rotator, State, ValueFrom};

/// A command of `.control/rotate`. Without any of the questions it rotates a secret.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rotate {
    secret: Option<SecretName>,
    /// How a rotation stands.
    follow: Option<String>,
    /// The steps of it that are known already.
    seen: Option<Number>,
    /// How the last rotations of the secret ended.
    history: Option<SecretName>,
    /// What is due by the schedule, and when.
    #[serde(default = "Flag::no")]
    due: Flag,
    /// Begins all that is due.
    #[serde(default = "Flag::no")]
    all_due: Flag,
    #[serde(default = "Flag::yes")]
    verify: Flag,
    #[serde(default = "Flag::yes")]
    rollback: Flag,
    #[serde(default = "Flag::no")]
    dry_run: Flag,
    #[serde(default = "Flag::yes")]
    wait: Flag,
    value: Option<Source>,
    /// In seconds.
    wait_adopted: Option<Number>,
}

/// A command of `.control/holders`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Holders {
    secret: Option<SecretName>,
    /// Only who has not seen the current version, of this secret or of any.
    #[serde(default = "Flag::no")]
    stale: Flag,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Source {
    Generated,
    Pending,
}

impl Daemon {
    pub(super) fn run_rotate(&self, caller: &Caller, command: &Value) -> Result<Value> {
        let command = Rotate::deserialize(command).map_err(|error| invalid(&error))?;
        let rotator = &self.rotator;
        let patience = self.config.load().deadline.mul_f32(0.8);
        if let Some(rotation) = &command.follow {
            let seen = command.seen.map(|seen| usize::try_from(seen.0).unwrap_or(usize::MAX));
            let state = rotator.wait(rotation, seen, patience);
            let lost =
                || BrokerError::Invalid("that rotation is not known here, or not any more".into());
            return reply(&state.ok_or_else(lost)?, Verdict::Told);
        }
        if let Some(name) = &command.history {
            return Ok(json!(rotator.history(caller, name)?));
        }
        if command.all_due.0 {
            self.admit(caller, "rotate-all-due")?;
            return Ok(json!({ "begun": rotator.rotate_due()? }));
        }
        if command.due.0 {
            self.admit(caller, "rotations-due")?;
            return Ok(json!({ "due": rotator.due()?, "at_work": rotator.at_work() }));
        }
        let missing =
            || BrokerError::Invalid("which secret? SECRET, or {\"secret\": SECRET}".into());
        let name = command.secret.as_ref().ok_or_else(missing)?;
        let options = command.options();
        if command.dry_run.0 {
            return Ok(json!({ "secret": name, "plan": rotator.dry_run(caller, name, &options)? }));
        }
        let begun = rotator.rotate(caller, name, options)?;
        if !command.wait.0 {
            return reply(&begun, Verdict::Told);
        }
        reply(&waited(rotator, begun, patience), Verdict::Errno)
    }

    pub(super) fn run_holders(&self, caller: &Caller, command: &Value) -> Result<Value> {
        let command = Holders::deserialize(command).map_err(|error| invalid(&error))?;
        if command.secret.is_none() && !command.stale.0 {
            let why = "of which secret? SECRET, or {\"stale\": true} for all";
            return Err(BrokerError::Invalid(why.into()));
        }
        self.admit(caller, "holders")?;
        let mut found = self.rotator.holders(command.secret.as_ref())?;
        if command.stale.0 {
            found.retain(crate::rotation::Holder::is_stale);
        }
        Ok(json!({ "holders": found }))
    }
}

impl Daemon {
    /// What `status` says of rotation.
    /// Counts rotations for metrics.
    pub(super) fn rotations(&self) -> Rotations {
        let now = self.clock.now();
        // Sealed: nothing can be rotated, and nothing is known of it.
        let due = self.rotator.due().unwrap_or_default();
        let overdue = due.iter().filter(|due| due.at <= now);
        let longest = due.first().map(|due| now.duration_since(due.at).as_secs());
        Rotations {
            at_work: self.rotator.at_work().len() as u64,
            due: overdue.count() as u64,
            longest_overdue_seconds: longest.and_then(|wait| u64::try_from(wait).ok()).unwrap_or(0),
        }
    }

    pub(super) fn rotation_status(&self) -> Vec<(&'static str, String)> {
        let at_work = self.rotator.at_work().len().to_string();
        let next = self.rotator.next();
        let next = next.map(|due| format!("{} {} ({})", due.at, due.secret, due.reason));
        vec![
            ("rotations_at_work", at_work),
            ("rotation_next", next.unwrap_or_else(|| "none".into())),
        ]
    }
}

impl Rotate {
    fn options(&self) -> Options {
        Options {
            value: match self.value {
                Some(Source::Pending) => ValueFrom::Pending,
                Some(Source::Generated) | None => ValueFrom::Generated,
            },
            verify: self.verify.0,
            rollback: self.rollback.0,
            wait_adopted: self.wait_adopted.map(|seconds| Duration::from_secs(seconds.0)),
        }
    }
}

fn waited(rotator: &Rotator, begun: State, at_most: Duration) -> State {
    rotator.wait(&begun.rotation, None, at_most).unwrap_or(begun)
}

/// Whether a rotation that failed makes the command fail.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Verdict {
    Errno,
    Told,
}

/// Returns the result of a rotation that has ended, or else how far it is.
fn reply(state: &State, verdict: Verdict) -> Result<Value> {
    let Some(outcome) = &state.outcome else {
        let mut running = json!(state);
        if let Some(running) = running.as_object_mut() {
            running.remove("outcome");
            running.insert("state".into(), "running".into());
        }
        return Ok(running);
    };
    let result = json!(outcome);
    if verdict == Verdict::Errno && !outcome.success {
        let why = outcome.error.clone().unwrap_or_else(|| "the rotation failed".into());
        return Err(BrokerError::RotationFailed { why, outcome: Box::new(result) });
    }
    Ok(result)
}

fn invalid(error: &serde_json::Error) -> BrokerError {
    BrokerError::Invalid(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_line_and_an_object_say_the_same() {
        let line =
            json!({ "secret": "a/b", "verify": "no", "wait_adopted": "60", "value": "pending" });
        let object =
            json!({ "secret": "a/b", "verify": false, "wait_adopted": 60, "value": "pending" });
        for command in [line, object] {
            let options = Rotate::deserialize(&command).unwrap().options();
            assert!(!options.verify && options.rollback);
            assert_eq!(options.wait_adopted, Some(Duration::from_secs(60)));
            assert_eq!(options.value, ValueFrom::Pending);
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for bad in [
            json!({ "secret": "a", "verify": "maybe" }),
            json!({ "secret": "a", "verfiy": "no" }),
            json!({ "secret": "../a" }),
            json!({ "secret": "a", "wait_adopted": "soon" }),
            json!({ "secret": "a", "value": "sk-1" }),
        ] {
            assert!(Rotate::deserialize(&bad).is_err(), "{bad}");
        }
    }
}
