//! What a rotation has to do with the service that keeps the secret, where another one does.
//!
//! The service gets the new value once it is proven, and readers get it once the service has it. What the
//! service has decides: if its answer is lost it is looked at; if somebody else has made a version there
//! meanwhile, that is what readers get, and the target is to accept it.

use super::act::Failed;
use super::note::{After, Phase, Standing};
use super::outcome::{Outcome, StepName};
use super::run::Run;
use crate::broker::{BrokerError, Change, RemoteVersion, Stage, There, Which};
use crate::effect::{Target, Task};
use crate::model::{Version, chain};
use crate::system::SecretBytes;

/// How often the value is put at most: again where the answer was lost and the service has the old one, for then
/// the first request may still be on its way, and comes after nothing that the second one has made.
const PUTS: usize = 2;

impl Run<'_> {
    /// Tells whether another service keeps the secret.
    pub(super) fn is_elsewhere(&self) -> bool {
        self.engine.broker.is_routed(&self.subject.name)
    }

    /// Has the current version be what the service has, if one keeps the secret: it is there, and no value that is
    /// not known here is rotated away.
    pub(super) fn renew(&mut self) -> Result<(), String> {
        if !self.is_elsewhere() {
            return Ok(());
        }
        self.engine.broker.renew(&self.subject.name).map_err(|error| chain(&error))?;
        self.refresh().map_err(|error| chain(&error))
    }

    /// Has the service take the new value. Returns the version that it is there.
    pub(super) fn forward(
        &mut self,
        target: Option<&Target>,
        after: &After,
    ) -> Result<RemoteVersion, Failed> {
        self.step(StepName::Forward, |run| {
            run.goes_on = true;
            let before = std::mem::replace(&mut run.standing, Standing::Forwarded);
            run.note.under_way = Some(run.under_way(Phase::Forward, target, after));
            let noted = run.note_forward(run.staged_version(), "to be written");
            run.standing = before;
            noted?;
            let version = run.hand_over()?;
            let note = format!("version {} at backend {}", version.id, version.backend);
            Ok((version, note))
        })
    }

    fn hand_over(&mut self) -> Result<RemoteVersion, String> {
        let staged = self.staged_version();
        let mut lost = None;
        for puts_left in (0..=PUTS).rev() {
            let there = self.engine.broker.look_there(&self.subject, staged);
            let version = match there {
                Ok(There::Current { version, .. }) => version,
                Ok(There::Staged(version)) => return Ok(version),
                Ok(There::Theirs(..)) => {
                    return Err("somebody else has made another version there".into());
                }
                Ok(There::Nothing) => return Err("somebody has removed it there".into()),
                Err(error) => return Err(lost.unwrap_or_else(|| chain(&error))),
            };
            if puts_left == 0 {
                break;
            }
            match self.engine.broker.put_there(&self.subject, staged, version) {
                Ok(version) => return Ok(version),
                Err(BrokerError::Upstream(error)) if error.fault.is_refusal() => {
                    return Err(error.to_string());
                }
                Err(error) => {
                    self.standing = Standing::Forwarded;
                    lost = Some(chain(&error));
                }
            }
        }
        Err(lost.unwrap_or_default())
    }

    /// Ends a rotation that was undone at its target, by what the service has by now.
    pub(super) fn settle(
        &mut self,
        target: Option<&Target>,
        after: &After,
        why: String,
    ) -> Outcome {
        let there = self.engine.broker.look_there(&self.subject, self.staged_version());
        match (there, self.standing) {
            (Ok(There::Theirs(version, value)), _) => match self.restage(target, after, value) {
                Ok(()) => self.follow(target, after, (&why, version)),
                Err(error) => self.left_open(&why, &error),
            },
            (Ok(There::Staged(version)), Standing::Theirs) => {
                self.follow(target, after, (&why, version))
            }
            (Ok(There::Staged(version)), Standing::Here | Standing::Forwarded)
            | (Ok(There::Current { version, can_settle: true }), Standing::Forwarded) => {
                match self.put_back(version) {
                    Ok(()) => self.fail_as(why, Stage::Ended, self.given_up(), true),
                    Err(failed) => self.left_open(&why, &failed.to_string()),
                }
            }
            (Ok(There::Current { .. } | There::Nothing), Standing::Theirs) => {
                match self.return_to_old(target) {
                    Ok(()) => self.fail_as(why, Stage::Ended, self.given_up(), target.is_some()),
                    Err(failed) => self.left_open(&why, &failed.to_string()),
                }
            }
            (Ok(There::Current { .. } | There::Nothing), _) | (Err(_), Standing::Here) => {
                self.fail_as(why, Stage::Ended, self.given_up(), target.is_some())
            }
            (Err(error), Standing::Forwarded | Standing::Theirs) => {
                if self.standing == Standing::Theirs
                    && let Err(failed) = self.return_to_old(target)
                {
                    tracing::warn!(%failed, "a target accepts what readers do not get yet");
                }
                let unknown = format!("what the service has is not known: {}", chain(&error));
                self.left_open(&why, &unknown)
            }
        }
    }

    /// Has the service take the old value again, so that nothing that was sent there before comes after it.
    fn put_back(&mut self, version: RemoteVersion) -> Result<(), Failed> {
        self.step(StepName::Rollback, |run| {
            run.note_forward(run.subject.current, "to be written back")?;
            let put = run.engine.broker.put_there(&run.subject, run.subject.current, version);
            let version = put.map_err(|error| chain(&error))?;
            let RemoteVersion { backend, id, .. } = version;
            Ok(((), format!("the old value is version {id} at backend {backend}")))
        })
    }

    /// Gives the rotation's own value up for what somebody else has made at the service.
    fn restage(
        &mut self,
        target: Option<&Target>,
        after: &After,
        value: SecretBytes,
    ) -> Result<(), String> {
        self.refresh().map_err(|error| chain(&error))?;
        self.new = Some(self.subject.next);
        (self.standing, self.adopted) = (Standing::Theirs, false);
        (self.verified_by, self.expires, self.public) = (None, None, None);
        self.note.under_way = Some(self.under_way(Phase::Set, target, after));
        let reason = "somebody else has made a version where it is kept";
        let staged = self.commit(Change::Restage(value), Stage::Changing, None, reason, None);
        staged.map(drop).map_err(|error| chain(&error))
    }

    /// Gives readers what somebody else has made at the service, and has the target accept it before. What the
    /// target refuses it does not get, and readers do all the same: the service has it.
    fn follow(
        &mut self,
        target: Option<&Target>,
        after: &After,
        (why, version): (&str, RemoteVersion),
    ) -> Outcome {
        self.error = Some(why.to_owned());
        let mut accepting = target;
        if let Some(target) = target {
            let mut is_refused = false;
            let set = self.step(StepName::Set, |run| {
                let current = run.read(Which::Current, "is to be replaced")?.value;
                let new = run.read_new("was made where it is kept")?.value;
                let task = Task::Set(target.clone());
                let values = run.values(&task, Some(&current), Some(&new))?;
                let report = run.carry_out(task, values).map_err(|error| {
                    is_refused = error.is_refusal();
                    error.to_string()
                })?;
                Ok(((), report.note))
            });
            match set {
                Ok(()) => {}
                Err(failed) if !is_refused => return self.left_open(why, &failed.to_string()),
                Err(_) => {
                    if let Err(failed) = self.return_to_old(Some(target)) {
                        return self.left_open(why, &failed.to_string());
                    }
                    self.add_error("the target does not accept that version");
                    accepting = None;
                }
            }
        }
        match self.publish(accepting, after, Some(version)) {
            Ok(()) => self.after_switch(accepting, after),
            Err(failed) => self.left_open(why, &failed.to_string()),
        }
    }

    /// Has the target accept the old value alone, whatever of somebody else's it was given.
    fn return_to_old(&mut self, target: Option<&Target>) -> Result<(), Failed> {
        let Some(target) = target else { return Ok(()) };
        self.step(StepName::Rollback, |run| {
            let old = run.read(Which::Current, "brings the target back to it")?.value;
            let theirs = run.read_new("takes it back from the target")?.value;
            // It may be for the user of the old one, which no rollback touches.
            run.order(Task::Set(target.clone()), Some(&theirs), Some(&old))?;
            let report = run.order(Task::Finish(target.clone()), Some(&theirs), Some(&old))?;
            Ok(((), report.note))
        })
    }

    /// Puts on record that a value goes to the service, before it does.
    fn note_forward(&mut self, version: Version, reason: &str) -> Result<(), String> {
        let noted = self.commit(Change::Forward(version), Stage::Changing, None, reason, None);
        noted.map(drop).map_err(|error| chain(&error))
    }

    fn staged_version(&self) -> Version {
        self.new.unwrap_or(self.subject.next)
    }
}
