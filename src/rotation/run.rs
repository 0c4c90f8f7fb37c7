//! One rotation, step after step, from its beginning or from where an earlier one was left.
//!
//! Until the switch a failure brings the target back and gives the new value up; readers have never seen
//! it. After the switch nothing is taken back: what is left is to tell consumers and to retire the old
//! value, and if that fails it is tried again later while both values work.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::act::{Failed, rounded};
use super::adoption::{Holder, Readers};
use super::bell::Bell;
use super::make::{self, Made, moved_expiry};
use super::note::{After, Note, Phase, Standing, UnderWay};
use super::outcome::{Outcome, StepDone, StepName};
use super::progress::Progress;
use super::rotator::{Options, ValueFrom};
use super::settings::Plan;
use crate::broker::{Broker, BrokerError, By, Change, RemoteVersion, Stage, Subject, Which};
use crate::effect::{CarryOut, EffectError, Notice, Target, Task, Verifier};
use crate::model::{Caller, Clock, SecretName, Timestamp, Version, chain};
use crate::system::SecretBytes;

/// What rotations act upon.
pub(super) struct Engine {
    pub(super) broker: Broker,
    pub(super) effects: Arc<dyn CarryOut>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) bell: Bell<Notice, Result<String, EffectError>>,
    pub(super) readers: Readers,
}

impl Engine {
    pub(super) fn holders(&self, secret: Option<&SecretName>) -> Result<Vec<Holder>, BrokerError> {
        self.readers.holders(&self.broker, &*self.clock, secret)
    }
}

/// On whose behalf.
#[derive(Clone, Debug)]
pub(super) enum Who {
    Caller(Caller),
    Daemon,
}

impl Who {
    pub(super) fn by(&self) -> By<'_> {
        match self {
            Self::Caller(caller) => By::Caller(caller),
            Self::Daemon => By::Daemon,
        }
    }
}

/// How long readers are held at most while a target that knows one credential is changed.
const LONGEST_HOLD: Duration = Duration::from_secs(2);

/// How long a step outside may take when its rotation is not configured any more.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// A rotation at work.
pub(super) struct Run<'a> {
    pub(super) engine: &'a Engine,
    pub(super) who: Who,
    pub(super) rotation: String,
    pub(super) subject: Subject,
    pub(super) note: Note,
    pub(super) progress: &'a Progress,
    pub(super) timeout: Duration,
    pub(super) began: Timestamp,
    pub(super) new: Option<Version>,
    /// Whether the new value was staged by somebody else.
    pub(super) adopted: bool,
    pub(super) verified_by: Option<String>,
    pub(super) error: Option<String>,
    pub(super) steps: Vec<StepDone>,
    /// When the new value ends by itself.
    pub(super) expires: Option<Timestamp>,
    /// The half that may be known, of a new pair of keys.
    pub(super) public: Option<String>,
    pub(super) standing: Standing,
    /// Whether what is on disk may say that the rotation is gone on with after a crash.
    pub(super) goes_on: bool,
}

impl<'a> Run<'a> {
    /// Returns a rotation that has not begun.
    pub(super) fn new(
        engine: &'a Engine,
        who: Who,
        rotation: String,
        subject: Subject,
        progress: &'a Progress,
        timeout: Duration,
    ) -> Self {
        Self {
            note: Note::parse(&subject.note),
            began: engine.clock.now(),
            engine,
            who,
            rotation,
            subject,
            progress,
            timeout,
            new: None,
            adopted: false,
            verified_by: None,
            error: None,
            steps: Vec::new(),
            expires: None,
            public: None,
            standing: Standing::Here,
            goes_on: false,
        }
    }

    /// Returns a rotation that was left before its end.
    pub(super) fn left(
        engine: &'a Engine,
        subject: Subject,
        progress: &'a Progress,
        timeout: Duration,
        left: &UnderWay,
    ) -> Self {
        let rotation = left.rotation.clone();
        Self {
            began: left.began,
            new: Some(left.new),
            adopted: left.adopted,
            verified_by: left.verified_by.clone(),
            error: left.error.clone(),
            steps: left.steps.clone(),
            expires: left.expires,
            public: left.public.clone(),
            standing: left.standing,
            ..Self::new(engine, Who::Daemon, rotation, subject, progress, timeout)
        }
    }

    /// Rotates from the beginning.
    pub(super) fn fresh(mut self, plan: &Plan, options: &Options) -> Outcome {
        if let Err(outcome) = self.end_the_last_one() {
            return *outcome;
        }
        let generate = |run: &mut Self| {
            run.renew()?;
            make::make(run, plan, options)
        };
        let made = match self.step(StepName::Generate, generate) {
            Ok(made) => {
                let moved = moved_expiry(&self.subject.metadata, self.began);
                Made { expires: made.expires.or(moved), ..made }
            }
            Err(failed) => return self.fail(failed, Stage::Ended, Change::Nothing, false),
        };
        self.public.clone_from(&made.public);
        self.expires = made.expires;
        let after = After {
            notify: plan.notify.clone(),
            wait_adopted: options.wait_adopted.unwrap_or(plan.wait_adopted),
            restart_holders: plan.restart_holders,
        };
        let is_direct = plan.target.is_none() && options.value == ValueFrom::Generated;
        if is_direct && !self.is_elsewhere() {
            return self.direct(plan, options, made, after);
        }
        match self.staged(plan, options, made, &after) {
            Ok(()) => self.after_switch(plan.target.as_ref(), &after),
            Err(outcome) => *outcome,
        }
    }

    /// Ends a rotation that was left before its end.
    pub(super) fn resumed(mut self, left: UnderWay) -> Outcome {
        let UnderWay { phase, target, after, .. } = left;
        match phase {
            Phase::Set | Phase::Undo => {
                let why = self.error.clone().unwrap_or_else(|| "the daemon ended meanwhile".into());
                self.roll_back(target.as_ref(), &after, why)
            }
            Phase::Forward => match self.switch(target.as_ref(), &after) {
                Ok(()) => self.after_switch(target.as_ref(), &after),
                Err(failed) => self.roll_back(target.as_ref(), &after, failed.to_string()),
            },
            Phase::Notify => self.after_switch(target.as_ref(), &after),
            Phase::Retire => self.retire(target.as_ref(), &after),
        }
    }

    /// Where nothing outside has to agree, one commit is the whole switch.
    fn direct(mut self, plan: &Plan, options: &Options, made: Made, after: After) -> Outcome {
        let proven = options.verify.then_some(plan.verify.as_ref()).flatten();
        if let Some(verifier) = proven.filter(|verifier| !is_read_back(verifier)) {
            let proved = self
                .step(StepName::Verify, |run| run.verify(verifier, None, None, Some(&made.value)));
            if let Err(failed) = proved {
                return self.fail(failed, Stage::Ended, Change::Nothing, false);
            }
            self.verified_by = Some(verifier.kind().to_owned());
        }
        let last = after == After::default();
        let Made { mut value, expires, .. } = made;
        let begun = Instant::now();
        self.progress.begin(StepName::Switch);
        loop {
            let new = self.subject.next;
            self.new = Some(new);
            let again = match SecretBytes::copy_from(value.expose()) {
                Ok(again) => again,
                Err(error) => {
                    let failed = Failed { step: StepName::Switch, why: error.to_string() };
                    return self.fail(failed, Stage::Ended, Change::Nothing, false);
                }
            };
            let (stage, outcome) = if last {
                self.record(StepName::Switch, true, format!("version {new}"), begun);
                let outcome = self.outcome(true, false);
                self.note.ended(outcome.clone());
                (Stage::Ended, Some(outcome))
            } else {
                self.note.under_way = Some(self.under_way(Phase::Notify, None, &after));
                (Stage::Switched, None)
            };
            let change = Change::Publish(std::mem::replace(&mut value, again));
            match self.commit(change, stage, expires, "the new value is current", outcome.as_ref())
            {
                Ok(_) => {
                    self.steps.retain(|step| step.step != StepName::Switch);
                    self.record(StepName::Switch, true, format!("version {new}"), begun);
                    if last {
                        // What is on record could not know how long it would take to record it.
                        let outcome = self.outcome(true, false);
                        return self.told(outcome);
                    }
                    return self.after_switch(None, &after);
                }
                // Somebody wrote meanwhile: the next number is another, and ours is still to come.
                Err(BrokerError::ExpectationFailed { .. }) if self.refresh().is_ok() => {
                    self.steps.retain(|step| step.step != StepName::Switch);
                }
                Err(error) => {
                    self.steps.retain(|step| step.step != StepName::Switch);
                    self.new = None;
                    self.note = Note::parse(&self.subject.note);
                    let failed = Failed { step: StepName::Switch, why: chain(&error) };
                    return self.fail(failed, Stage::Ended, Change::Nothing, false);
                }
            }
        }
    }

    /// From staging to the switch. An error is the outcome of having rolled back.
    fn staged(
        &mut self,
        plan: &Plan,
        options: &Options,
        made: Made,
        after: &After,
    ) -> Result<(), Box<Outcome>> {
        let target = plan.target.as_ref();
        let Made { value, current, .. } = made;
        let kept = SecretBytes::copy_from(value.expose()).map_err(|error| error.to_string());
        let staged = kept.and_then(|kept| Ok((kept, self.stage(options, value, target, after)?)));
        let kept = match staged {
            Ok((kept, ())) => kept,
            Err(why) => return Err(Box::new(self.not_staged(why))),
        };
        // A target that knows one credential accepts the new one before readers are given it.
        let held = target.filter(|target| !target.holds_two()).map(|_| {
            let Subject { id, name, .. } = &self.subject;
            self.engine.broker.hold_readers(*id, name, LONGEST_HOLD)
        });
        let tried = self.set_and_verify(plan, options, current.as_ref(), &kept);
        let switched = tried.and_then(|()| self.switch(target, after));
        match switched {
            Ok(()) => Ok(()),
            Err(failed) if options.rollback => {
                let outcome = self.roll_back(target, after, failed.to_string());
                drop(held);
                Err(Box::new(outcome))
            }
            Err(failed) => Err(Box::new(self.fail(failed, Stage::Ended, Change::Leave, false))),
        }
    }

    fn stage(
        &mut self,
        options: &Options,
        value: SecretBytes,
        target: Option<&Target>,
        after: &After,
    ) -> Result<(), String> {
        let begun = Instant::now();
        self.progress.begin(StepName::Stage);
        let (change, new) = match (options.value, self.subject.pending) {
            (ValueFrom::Pending, Some(pending)) => (Change::Adopt, pending),
            (ValueFrom::Pending, None) => return Err("nothing is staged".into()),
            (ValueFrom::Generated, _) => (Change::Stage(value), self.subject.next),
        };
        self.adopted = matches!(change, Change::Adopt);
        self.new = Some(new);
        self.note.under_way = Some(self.under_way(Phase::Set, target, after));
        let staged = self.commit(change, Stage::Changing, None, "staged, to be set", None);
        staged.map_err(|error| chain(&error))?;
        self.record(StepName::Stage, true, format!("version {new}, which no reader sees"), begun);
        Ok(())
    }

    /// Nothing was staged, or it is not known whether it was.
    fn not_staged(&mut self, why: String) -> Outcome {
        let failed = Failed { step: StepName::Stage, why };
        if self.refresh().is_err() {
            // What is on disk is taken up once it can be read.
            self.add_error(&failed.to_string());
            return self.told(self.outcome(false, false));
        }
        let staged = self.subject.stage == Stage::Changing && self.is_ours();
        let change = if staged { self.given_up() } else { Change::Nothing };
        self.fail(failed, Stage::Ended, change, false)
    }

    fn set_and_verify(
        &mut self,
        plan: &Plan,
        options: &Options,
        current: Option<&SecretBytes>,
        new: &SecretBytes,
    ) -> Result<(), Failed> {
        let target = plan.target.as_ref();
        if let Some(target) = target {
            self.step(StepName::Set, |run| {
                let report = run.order(Task::Set(target.clone()), current, Some(new))?;
                Ok(((), report.note))
            })?;
        }
        if !options.verify {
            return Ok(());
        }
        let verifier = plan.verifier();
        self.step(StepName::Verify, |run| run.verify(&verifier, target, current, Some(new)))?;
        self.verified_by = Some(verifier.kind().to_owned());
        Ok(())
    }

    fn verify(
        &mut self,
        verifier: &Verifier,
        target: Option<&Target>,
        current: Option<&SecretBytes>,
        new: Option<&SecretBytes>,
    ) -> Result<((), String), String> {
        if is_read_back(verifier) {
            let stored = self.read_new("reads back what was staged")?;
            let same = new.is_some_and(|new| stored.value.constant_time_eq(new));
            let verdict =
                same.then(|| "it is stored as it was made, and no more is known".to_owned());
            return verdict.map(|note| ((), note)).ok_or("what was stored is another value".into());
        }
        let task = Task::Verify { verifier: verifier.clone(), target: target.cloned() };
        let report = self.order(task, current, new)?;
        Ok(((), report.note))
    }

    fn switch(&mut self, target: Option<&Target>, after: &After) -> Result<(), Failed> {
        let remote = match self.is_elsewhere() {
            true => Some(self.forward(target, after)?),
            false => None,
        };
        self.publish(target, after, remote)
    }

    /// Gives the staged value to readers.
    pub(super) fn publish(
        &mut self,
        target: Option<&Target>,
        after: &After,
        remote: Option<RemoteVersion>,
    ) -> Result<(), Failed> {
        self.note.under_way = Some(self.under_way(Phase::Notify, target, after));
        self.step(StepName::Switch, |run| {
            let step = run.commit(
                Change::Switch(remote),
                Stage::Switched,
                run.expires,
                "the new value is current",
                None,
            );
            let version = match step {
                Ok(version) => version,
                // What is on disk decides whether it was switched.
                Err(error) => match run.refresh() {
                    Ok(()) if run.subject.stage == Stage::Switched && run.is_ours() => {
                        run.subject.current
                    }
                    Ok(()) | Err(_) => return Err(chain(&error)),
                },
            };
            Ok(((), format!("version {version} is current")))
        })
    }

    /// Brings the target back to the value before, and gives the new one up.
    fn roll_back(&mut self, target: Option<&Target>, after: &After, why: String) -> Outcome {
        self.error = Some(why.clone());
        if target.is_none() && !self.is_elsewhere() {
            return self.fail_as(why, Stage::Ended, self.given_up(), false);
        }
        self.note.under_way = Some(self.under_way(Phase::Undo, target, after));
        let undoing = self.commit(Change::Nothing, Stage::Changing, None, "to be undone", None);
        if let Err(error) = undoing {
            if self.goes_on {
                return self.left_open(&why, &chain(&error));
            }
            // The note says `Set`, which is undone at the next try as well.
            tracing::warn!(%error, "a rotation is to be undone, and that could not be noted");
        }
        self.goes_on = false;
        match target {
            // What somebody else has made is not taken back, but is what comes next.
            Some(target) if self.standing != Standing::Theirs => self.undo(target, after, why),
            Some(_) | None if self.is_elsewhere() => self.settle(target, after, why),
            Some(_) | None => self.fail_as(why, Stage::Ended, self.given_up(), false),
        }
    }

    fn undo(&mut self, target: &Target, after: &After, why: String) -> Outcome {
        let undone = self.step(StepName::Rollback, |run| {
            let current = run.read(Which::Current, "brings the target back to it")?.value;
            let pending = run.read_new("takes it back from the target")?.value;
            let report = run.order(Task::Undo(target.clone()), Some(&current), Some(&pending))?;
            Ok(((), report.note))
        });
        match undone {
            Ok(()) if self.is_elsewhere() => self.settle(Some(target), after, why),
            Ok(()) => self.fail_as(why, Stage::Ended, self.given_up(), true),
            Err(failed) => self.left_open(&why, &failed.to_string()),
        }
    }

    /// Ends nothing: it stays as it is, and is tried again.
    pub(super) fn left_open(&mut self, why: &str, and: &str) -> Outcome {
        self.error = Some(format!("{why}; {and}: it is tried again"));
        let outcome = self.outcome(false, false);
        self.told(outcome)
    }

    /// Tells the consumers, waits for them, and retires the old value.
    pub(super) fn after_switch(&mut self, target: Option<&Target>, after: &After) -> Outcome {
        if !after.notify.is_empty() {
            self.thaw();
        }
        let mut told = true;
        for notice in &after.notify {
            let ring = self.step(StepName::Notify, |run| {
                let note = run.ring(notice)?;
                Ok(((), note))
            });
            if let Err(failed) = ring {
                self.add_error(&failed.to_string());
                told = false;
            }
        }
        if after.wait_adopted > Duration::ZERO || after.restart_holders {
            // Who cannot be looked up holds nothing back for longer than the time that was given.
            let adopted = self.step(StepName::Adopt, |run| run.adopt(after));
            if let Err(failed) = adopted {
                self.add_error(&failed.to_string());
            }
        }
        if !told && target.is_some_and(Target::holds_two) {
            self.add_error("the old value stays valid until they are told, which is tried again");
            let outcome = self.outcome(true, false);
            return self.told(outcome);
        }
        self.retire(target, after)
    }

    /// Has the target forget the old value, and ends.
    fn retire(&mut self, target: Option<&Target>, after: &After) -> Outcome {
        if let Some(target) = target {
            let old = self.note.under_way.as_ref().map_or(self.subject.current, |left| left.old);
            let retired = self.step(StepName::Retire, |run| {
                Ok(((), run.finish(target, old, run.new_version())?))
            });
            if let Err(failed) = retired {
                self.add_error(&format!("{failed}: it is tried again"));
                self.note.under_way = Some(self.under_way(Phase::Retire, Some(target), after));
                let kept = self.commit(
                    Change::Nothing,
                    Stage::Switched,
                    None,
                    "the old value is to be retired",
                    None,
                );
                if let Err(error) = kept {
                    tracing::warn!(%error, "consumers will be told again");
                }
                let outcome = self.outcome(true, false);
                return self.told(outcome);
            }
        }
        let outcome = self.outcome(true, false);
        self.end(outcome, Change::Nothing)
    }

    /// What is left of the rotation before has to be ended first: its old value may still be valid.
    fn end_the_last_one(&mut self) -> Result<(), Box<Outcome>> {
        let Some(left) = self.note.under_way.take() else { return Ok(()) };
        if let Some(target) = &left.target {
            let retired = self.step(StepName::Retire, |run| {
                let note = run.finish(target, left.old, Which::Current)?;
                Ok(((), format!("of the rotation before: {note}")))
            });
            if let Err(failed) = retired {
                self.note.under_way = Some(left);
                return Err(Box::new(self.fail(failed, Stage::Switched, Change::Nothing, false)));
            }
        }
        Ok(())
    }

    /// Returns what becomes of a value that is not to be current: one that was given stays staged.
    pub(super) fn given_up(&self) -> Change {
        if self.adopted { Change::Leave } else { Change::GiveUp }
    }

    fn fail(&mut self, failed: Failed, stage: Stage, change: Change, back: bool) -> Outcome {
        self.fail_as(failed.to_string(), stage, change, back)
    }

    /// Ends without a new value. If even that cannot be recorded, what is on record is taken up later.
    pub(super) fn fail_as(
        &mut self,
        why: String,
        stage: Stage,
        change: Change,
        back: bool,
    ) -> Outcome {
        self.error = Some(why);
        if !matches!(change, Change::Leave) {
            self.new = None;
        }
        let outcome = self.outcome(false, back);
        let left = self.note.under_way.clone();
        self.note.ended(outcome.clone());
        if stage == Stage::Switched {
            self.note.under_way = left;
        }
        let reason = outcome.error.clone().unwrap_or_default();
        if let Err(error) = self.commit(change, stage, None, &reason, Some(&outcome)) {
            tracing::error!(secret = %self.subject.name, %error, "the end of a rotation is not recorded");
        }
        self.told(outcome)
    }

    fn end(&mut self, outcome: Outcome, change: Change) -> Outcome {
        self.note.ended(outcome.clone());
        let reason = outcome.error.clone().unwrap_or_else(|| "done".into());
        if let Err(error) = self.commit(change, Stage::Ended, None, &reason, Some(&outcome)) {
            tracing::error!(secret = %self.subject.name, %error, "the end of a rotation is not recorded");
        }
        self.told(outcome)
    }

    fn told(&self, outcome: Outcome) -> Outcome {
        let Outcome { secret, success, error, .. } = &outcome;
        if *success && error.is_none() {
            tracing::info!(%secret, "rotated");
        } else {
            tracing::warn!(%secret, success, error, "rotation");
        }
        outcome
    }

    pub(super) fn under_way(
        &self,
        phase: Phase,
        target: Option<&Target>,
        after: &After,
    ) -> UnderWay {
        let before = self.note.under_way.as_ref();
        UnderWay {
            rotation: self.rotation.clone(),
            phase,
            old: before.map_or(self.subject.current, |before| before.old),
            new: self.new.unwrap_or(self.subject.next),
            adopted: self.adopted,
            target: target.cloned(),
            after: after.clone(),
            began: self.began,
            by: match &self.who {
                Who::Caller(caller) => Some(caller.uid),
                Who::Daemon => None,
            },
            verified_by: self.verified_by.clone(),
            expires: self.expires,
            public: self.public.clone(),
            standing: self.standing,
            error: self.error.clone(),
            steps: self.steps.clone(),
        }
    }

    fn outcome(&self, success: bool, rolled_back: bool) -> Outcome {
        // What readers get is new, and not what was to be.
        let success = success && self.standing != Standing::Theirs;
        let finished = self.engine.clock.now();
        let old = self.note.under_way.as_ref().map_or(self.subject.current, |left| left.old);
        let duration = rounded(finished.duration_since(self.began).as_secs_f64().max(0.0));
        Outcome {
            rotation: self.rotation.clone(),
            secret: self.subject.name.clone(),
            success,
            old_version: old,
            new_version: self.new,
            verified: success
                && self.verified_by.as_ref().is_some_and(|verifier| verifier != "read_back"),
            verified_by: self.verified_by.clone(),
            rolled_back,
            public_key: self.public.clone().filter(|_| success),
            error: self.error.clone(),
            duration,
            steps: self.steps.clone(),
            finished,
        }
    }
}

fn is_read_back(verifier: &Verifier) -> bool {
    matches!(verifier, Verifier::ReadBack(_))
}
