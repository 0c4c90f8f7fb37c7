//! What a rotation can do: take a step and tell of it, read a version, commit, have something done outside.
//!
//! Nothing here decides what comes next, and no line that leaves holds a value.

use std::time::{Duration, Instant};

use super::adoption::Holder;
use super::note::{After, Note};
use super::outcome::{Outcome, StepDone, StepName};
use super::run::Run;
use crate::broker::{BrokerError, Change, Opened, Stage, Step, Which};
use crate::effect::{EffectError, Notice, Order, Report, Target, Task, Unit, UnitAction, Values};
use crate::model::{SecretName, Timestamp, Version, chain};
use crate::system::SecretBytes;

/// How soon, and later how often, who still holds the old value is looked up.
const FIRST_LOOK: Duration = Duration::from_millis(20);
const LAST_LOOK: Duration = Duration::from_secs(1);

/// Why a step was not taken.
pub(super) struct Failed {
    pub(super) step: StepName,
    pub(super) why: String,
}

impl Run<'_> {
    pub(super) fn commit(
        &mut self,
        change: Change,
        stage: Stage,
        expires: Option<Timestamp>,
        reason: &str,
        outcome: Option<&Outcome>,
    ) -> Result<Version, BrokerError> {
        let step = Step {
            change,
            stage,
            note: self.note.text(),
            expires,
            reason: reason.into(),
            outcome: outcome.and_then(|outcome| serde_json::to_value(outcome).ok()),
        };
        self.engine.broker.step_rotation(self.who.by(), &self.subject, step)
    }

    /// Looks at the secret again.
    pub(super) fn refresh(&mut self) -> Result<(), BrokerError> {
        self.subject = self.engine.broker.subject_by_id(self.subject.id)?;
        Ok(())
    }

    /// Tells whether the rotation that the store has under way is this one.
    pub(super) fn is_ours(&self) -> bool {
        let stored = Note::parse(&self.subject.note).under_way;
        stored.is_some_and(|under_way| under_way.rotation == self.rotation)
    }

    /// Reads a version of the secret, on record.
    pub(super) fn read(&self, which: Which, what: &str) -> Result<Opened, String> {
        let read = self.engine.broker.read_for_rotation(self.who.by(), &self.subject, which, what);
        read.map_err(|error| chain(&error))
    }

    /// Reads the new version, which is staged or current by now.
    pub(super) fn read_new(&self, what: &str) -> Result<Opened, String> {
        self.read(self.new_version(), what)
    }

    /// Returns which version is the new one.
    pub(super) fn new_version(&self) -> Which {
        Which::Number(self.new.unwrap_or(self.subject.next))
    }

    /// Reads another secret that the rotation needs, on record.
    pub(super) fn helper(&self, name: &SecretName, what: &str) -> Result<SecretBytes, String> {
        let broker = &self.engine.broker;
        let opened = broker.subject(name).and_then(|subject| {
            let what = format!("{what} {}", self.subject.name);
            broker.read_for_rotation(self.who.by(), &subject, Which::Current, &what)
        });
        opened.map(|opened| opened.value).map_err(|error| format!("{name}: {}", chain(&error)))
    }

    /// Has the target accept the new version alone. Returns what it says.
    pub(super) fn finish(
        &self,
        target: &Target,
        old: Version,
        new: Which,
    ) -> Result<String, String> {
        let old = self.read(Which::Number(old), "retires it at the target")?.value;
        let new = self.read(new, "is to work alone")?.value;
        let report = self.order(Task::Finish(target.clone()), Some(&old), Some(&new))?;
        Ok(report.note)
    }

    /// Has something done outside, with the values that it needs.
    pub(super) fn order(
        &self,
        task: Task,
        current: Option<&SecretBytes>,
        new: Option<&SecretBytes>,
    ) -> Result<Report, String> {
        let values = self.values(&task, current, new)?;
        self.carry_out(task, values).map_err(|error| error.to_string())
    }

    /// Returns the values that something outside needs.
    pub(super) fn values(
        &self,
        task: &Task,
        current: Option<&SecretBytes>,
        new: Option<&SecretBytes>,
    ) -> Result<Values, String> {
        let admin = match task {
            Task::Set(target) | Task::Finish(target) | Task::Undo(target) => target.admin(),
            Task::Verify { target, .. } => target.as_ref().and_then(Target::admin),
            Task::Deliver(_)
            | Task::Generate(_)
            | Task::Notify(_)
            | Task::Place(_)
            | Task::TakeAway(_) => None,
        };
        let admin = admin.map(|name| self.helper(name, "is used to rotate")).transpose()?;
        let copy = |value: Option<&SecretBytes>| {
            value.map(|value| SecretBytes::copy_from(value.expose())).transpose()
        };
        Ok(Values {
            current: copy(current).map_err(|error| error.to_string())?,
            new: copy(new).map_err(|error| error.to_string())?,
            admin,
        })
    }

    pub(super) fn carry_out(&self, task: Task, values: Values) -> Result<Report, EffectError> {
        let order = Order {
            rotation: self.rotation.clone(),
            secret: Some(self.subject.name.clone()),
            timeout: self.timeout,
            task,
        };
        self.engine.effects.carry_out(&order, &values)
    }

    pub(super) fn step<T>(
        &mut self,
        step: StepName,
        take: impl FnOnce(&mut Self) -> Result<(T, String), String>,
    ) -> Result<T, Failed> {
        let begun = Instant::now();
        self.progress.begin(step);
        match take(self) {
            Ok((value, note)) => {
                self.record(step, true, note, begun);
                Ok(value)
            }
            Err(why) => {
                self.record(step, false, why.clone(), begun);
                Err(Failed { step, why })
            }
        }
    }

    pub(super) fn record(&mut self, step: StepName, ok: bool, note: String, begun: Instant) {
        let took = rounded(begun.elapsed().as_secs_f64() * 1000.0);
        let done = StepDone { step, ok, note, took };
        self.progress.done(done.clone());
        self.steps.push(done);
    }

    pub(super) fn add_error(&mut self, why: &str) {
        self.error = Some(match self.error.take() {
            Some(before) => format!("{before}; {why}"),
            None => why.to_owned(),
        });
    }

    /// Waits until no live process holds an older version, or the time is up; then has the units of
    /// those that are left restarted, if that is wanted.
    pub(super) fn adopt(&mut self, after: &After) -> Result<((), String), String> {
        let begun = Instant::now();
        let new = self.new.unwrap_or(self.subject.current);
        let look = |run: &Self| {
            let found = run.engine.holders(Some(&run.subject.name));
            let found = found.map_err(|error| chain(&error))?;
            Ok::<_, String>(
                found.into_iter().filter(|holder| holder.version < new).collect::<Vec<_>>(),
            )
        };
        let (mut holders, mut pause) = (look(self)?, FIRST_LOOK);
        while !holders.is_empty() && begun.elapsed() < after.wait_adopted {
            let left = after.wait_adopted.saturating_sub(begun.elapsed());
            self.progress.rest(left.min(pause));
            pause = (pause * 2).min(LAST_LOOK);
            holders = look(self)?;
        }
        if holders.is_empty() {
            return Ok(((), "no live process holds an older version".into()));
        }
        let named: Vec<String> = holders.iter().take(5).map(ToString::to_string).collect();
        let mut note =
            format!("{} still hold an older version: {}", holders.len(), named.join(", "));
        if after.restart_holders {
            let units = holders.iter().filter_map(Holder::system_unit);
            let mut units: Vec<String> = units.map(str::to_owned).collect();
            units.sort();
            units.dedup();
            for unit in units {
                let restarted = match Unit::new(unit.clone(), UnitAction::TryRestart) {
                    Ok(unit) => self.ring(&Notice::Unit(unit)),
                    Err(why) => Err(why.to_owned()),
                };
                note = match restarted {
                    Ok(_) => format!("{note}; {unit} restarted"),
                    Err(why) => format!("{note}; {unit} not restarted: {why}"),
                };
            }
        }
        Ok(((), note))
    }

    /// Waits until no process is still given the old version by a frozen set: who is told now reads the new one.
    pub(super) fn thaw(&self) {
        if let Some(at) = self.engine.broker.thaws_at(&self.subject.name) {
            self.progress.rest(at.saturating_duration_since(Instant::now()));
        }
    }

    pub(super) fn ring(&self, notice: &Notice) -> Result<String, String> {
        let task = Task::Notify(notice.clone());
        if let Notice::Command(_) = notice {
            // It may print what it has read, and is told which secret it is about: no two are one.
            let new = self.read_new("is masked in a command's output")?.value;
            return self.order(task, None, Some(&new)).map(|report| report.note);
        }
        let told = self
            .engine
            .bell
            .ring(notice, || self.carry_out(task, Values::default()).map(|report| report.note));
        told.map_err(|error| error.to_string())
    }
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.step.as_str(), self.why)
    }
}

/// Rounds to thousandths: more is noise.
pub(super) fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}
