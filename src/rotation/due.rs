//! What is due by the schedule, and its beginning.
//!
//! Only secrets of a plan with a schedule are rotated by themselves. When is worked out anew each time,
//! from what is stored with the secret: nothing is lost by a restart, and what was missed while nobody
//! looked is due once.

use serde::Serialize;

use super::note::Note;
use super::progress::State;
use super::rotator::Rotator;
use crate::broker::{BrokerError, By, Change, Stage, Step, Subject};
use crate::model::{SecretName, Timestamp};
use crate::schedule::{self, Failure};

/// A secret that is or will be due.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Due {
    pub secret: SecretName,
    /// From when on.
    pub at: Timestamp,
    /// `age`, `cron`, `expiry` or `retry`.
    pub reason: String,
}

impl Rotator {
    /// Returns what is due now or later by the schedule, the soonest first.
    pub fn due(&self) -> Result<Vec<Due>, BrokerError> {
        let mut due: Vec<Due> = self.scheduled()?.into_iter().map(|(due, _)| due).collect();
        due.sort_by(|a, b| (a.at, &a.secret).cmp(&(b.at, &b.secret)));
        Ok(due)
    }

    /// Begins the rotation of all that is due now. Returns those that have begun.
    pub fn rotate_due(&self) -> Result<Vec<State>, BrokerError> {
        let now = self.clock().now();
        let (scheduled, mut begun) = (self.scheduled()?, Vec::new());
        self.set_next(scheduled.iter().map(|(due, _)| due).min_by_key(|due| due.at).cloned());
        for (due, subject) in scheduled {
            if due.at > now || subject.stage != Stage::Ended {
                continue;
            }
            match self.rotate_by_schedule(subject) {
                Ok(state) => begun.push(state),
                // It is at work already.
                Err(BrokerError::Rotating(_)) => {}
                Err(error) => {
                    tracing::warn!(secret = %due.secret, %error, "due, and cannot be rotated");
                }
            }
        }
        Ok(begun)
    }

    /// Stores when a value was made, where the clock was ahead at that time: else it would not age before
    /// the clock is there again.
    fn redate(&self, subject: &Subject, since: Timestamp) {
        let step = Step {
            change: Change::Redate(since),
            stage: subject.stage,
            note: subject.note.clone(),
            expires: None,
            reason: "the clock was ahead when the value was made".into(),
            outcome: None,
        };
        if let Err(error) = self.broker().step_rotation(By::Daemon, subject, step) {
            tracing::warn!(secret = %subject.name, %error, "the time of its value is not corrected");
        }
    }

    fn scheduled(&self) -> Result<Vec<(Due, Subject)>, BrokerError> {
        let settings = self.settings();
        if !settings.has_schedules() {
            return Ok(Vec::new());
        }
        let mut names = Vec::new();
        self.broker().each_secret(&mut |name, attributes| {
            let plan = settings.plan(name, attributes);
            if plan.is_some_and(|plan| plan.schedule.is_some()) {
                names.push(name.clone());
            }
        })?;
        let now = self.clock().now();
        let found = names.iter().filter_map(|name| {
            // Removed meanwhile, or damaged, which its readers learn.
            let subject = self.broker().subject(name).ok()?;
            let plan = settings.plan(name, &subject.metadata.attributes)?;
            let facts = facts(&subject);
            let corrected = facts.corrected(now);
            if corrected.since != facts.since {
                self.redate(&subject, corrected.since);
            }
            let maker = plan.maker(subject.metadata.attributes.secret_type);
            let due = plan.schedule.as_ref()?.due(&corrected, now)?;
            maker.is_ok().then(|| {
                let (secret, reason) = (subject.name.clone(), due.reason.to_string());
                (Due { secret, at: due.at, reason }, subject)
            })
        });
        Ok(found.collect())
    }
}

fn facts(subject: &Subject) -> schedule::Facts {
    let note = Note::parse(&subject.note);
    let metadata = &subject.metadata;
    schedule::Facts {
        id: subject.id,
        since: metadata.last_rotated.unwrap_or(metadata.created),
        expires: metadata.expires,
        rotation_days: metadata.rotation_days,
        failure: note.last_failure.map(|at| Failure { count: note.failures, at }),
    }
}
