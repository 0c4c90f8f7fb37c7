//! The consumers: told once of all that has changed, when whoever reads gets the new versions.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::settings::Consumer;
use super::state::{Retry, State, Telling};
use super::{Injections, LOOK, SOON, Versions, order};
use crate::effect::{CarryOut, Placement, PlacementKind, Task, Values};
use crate::model::SecretName;

/// How long the effector has for a notice.
const NOTICE_TIME: Duration = Duration::from_secs(30);

/// What is to be done about a consumer.
enum Next {
    /// Its notices are to be given, after so many that are.
    Tell(SecretName, usize),
    Wait(Duration),
}

impl Injections {
    /// Tells a consumer of what has changed since it was told, if it may be told now.
    pub(super) fn tell(
        &self,
        consumer: &Consumer,
        files: &[Placement],
        versions: &Versions,
    ) -> Duration {
        let current = versions.iter().filter(|(name, _)| consumer.wants(name));
        let current: Versions = current.map(|(name, version)| (name.clone(), *version)).collect();
        let (changed, given) = match self.next(consumer, files, &current) {
            Next::Tell(changed, given) => (changed, given),
            Next::Wait(wait) => return wait,
        };
        let mut outcome = Ok(());
        let mut given = given;
        for notice in consumer.notify.iter().skip(given) {
            if self.ending.load(Ordering::Acquire) {
                return LOOK;
            }
            let order = order(&changed, NOTICE_TIME, Task::Notify(notice.clone()));
            outcome = self.parts.effects.carry_out(&order, &Values::default()).map(drop);
            if outcome.is_err() {
                break;
            }
            given += 1;
        }
        let mut state = self.state.lock();
        let is = state.consumers.entry(consumer.name.clone()).or_default();
        match outcome {
            Ok(()) => {
                (is.versions, is.time) = (Some(current), Some(self.parts.clock.now()));
                (is.telling, is.retry) = (None, Retry::default());
                LOOK
            }
            Err(error) => {
                tracing::warn!(consumer = consumer.name, %error, "not told, and tried again");
                is.telling.iter_mut().for_each(|telling| telling.given = given);
                is.retry.failed(error.to_string());
                is.retry.wait().unwrap_or(SOON)
            }
        }
    }

    fn next(&self, consumer: &Consumer, files: &[Placement], current: &Versions) -> Next {
        let mut state = self.state.lock();
        let is = state.consumers.entry(consumer.name.clone()).or_default();
        is.looked_at = true;
        let known = is.versions.get_or_insert_with(|| current.clone());
        let Some(changed) = differing(known, current).next().cloned() else {
            is.telling = None;
            return Next::Wait(LOOK);
        };
        if is.telling.as_ref().is_none_or(|telling| telling.current != *current) {
            // Some processes may be given the versions before by a frozen set for a while. And of what is new
            // nobody was told yet.
            let before = is.telling.as_ref().map_or(&*known, |telling| &telling.current);
            let thaws = differing(before, current);
            let thaws = thaws.filter_map(|name| self.parts.broker.thaws_at(name)).max();
            let earlier = is.telling.as_ref().and_then(|telling| telling.thaws);
            let thaws = thaws.max(earlier);
            is.telling = Some(Telling { current: current.clone(), given: 0, thaws });
        }
        let given = is.telling.as_ref().map_or(0, |telling| telling.given);
        let thaws = is.telling.as_ref().and_then(|telling| telling.thaws);
        let thaws = thaws.map(|at| at.saturating_duration_since(Instant::now()));
        let now = self.parts.clock.now();
        let since = is.time.and_then(|last| now.duration_since(last).try_into().ok());
        // A clock that was set back makes nobody wait.
        let early = since.and_then(|since: Duration| consumer.min_interval().checked_sub(since));
        let early = early.filter(|_| given == 0);
        let waits = [is.retry.wait(), thaws, early];
        if let Some(left) = waits.into_iter().flatten().max().filter(|left| !left.is_zero()) {
            return Next::Wait(left);
        }
        if files.iter().any(|file| is_late(file, consumer, current, &state)) {
            return Next::Wait(SOON);
        }
        Next::Tell(changed, given)
    }
}

/// Tells whether a copy of a consumer's secret is not renewed yet.
fn is_late(file: &Placement, consumer: &Consumer, current: &Versions, state: &State) -> bool {
    file.kind == PlacementKind::Copy
        && consumer.wants(&file.secret)
        && state
            .files
            .get(&file.path)
            .is_none_or(|is| !is.settled || is.version != current.get(&file.secret).copied())
}

/// Returns the names whose version is not the same in both, or which only one has.
fn differing<'a>(a: &'a Versions, b: &'a Versions) -> impl Iterator<Item = &'a SecretName> {
    let gone = a.keys().filter(|name| !b.contains_key(*name));
    gone.chain(b.keys().filter(|name| a.get(*name) != b.get(*name)))
}
