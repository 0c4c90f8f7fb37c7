//! The files: placed, renewed with their secrets, and taken away.
//!
//! What is placed is noted before, so that the next server, or who unmounts without one, finds it even when the list
//! has changed meanwhile.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::settings::Settings;
use super::state::{Delivery, Retry, State};
use super::{Injections, LOOK, SOON, Versions, chain, order};
use crate::effect::{CarryOut, EffectError, Placement, PlacementKind, Task, Values};
use crate::model::Version;

/// How long the effector has for a file.
const FILE_TIME: Duration = Duration::from_secs(10);
/// How long cleaning up takes at most: whoever ends the server does not wait for ever.
const LAST_FILES: Duration = Duration::from_secs(3);

impl Injections {
    /// Takes all files away, at the end of the mount.
    pub(in crate::daemon) fn take_away(&self) {
        let all = every_file(&self.settings.lock(), &self.state.lock());
        self.take_away_soon(&all);
    }

    /// Takes the binds away, when the mount is gone: each would keep its session alive.
    pub(super) fn end_binds(&self) {
        let mut binds = every_file(&self.settings.lock(), &self.state.lock());
        binds.retain(|file| file.kind == PlacementKind::Bind);
        self.take_away_soon(&binds);
    }

    fn take_away_soon(&self, files: &[Placement]) {
        let deadline = Instant::now() + LAST_FILES;
        for file in files {
            let time = deadline.saturating_duration_since(Instant::now());
            if time.is_zero() {
                tracing::warn!("injected files are left: cleaning up took too long");
                break;
            }
            match self.order_away(file, time) {
                Ok(()) => drop(self.state.lock().files.remove(&file.path)),
                Err(error) => tracing::warn!(path = ?file.path, %error, "an injected file is left"),
            }
        }
        self.remember();
    }

    /// Takes away what is not listed any more, or not in the same way. Returns when to look again.
    pub(super) fn clear(&self, settings: &Settings) -> Duration {
        let placed: Vec<(Placement, Retry)> = {
            let state = self.state.lock();
            let placed =
                state.files.values().filter_map(|is| Some((is.placed.clone()?, &is.retry)));
            placed.map(|(file, retry)| (file, retry.clone())).collect()
        };
        let mut next = LOOK;
        for (file, retry) in placed {
            let listed = settings.at(&file.path);
            let stays = |now: &Placement| (now.kind, &now.secret) == (file.kind, &file.secret);
            if listed.is_some_and(stays) || self.ending.load(Ordering::Acquire) {
                continue;
            }
            let outcome = match retry.wait() {
                Some(left) => {
                    next = next.min(left);
                    continue;
                }
                None => self.order_away(&file, FILE_TIME),
            };
            let mut state = self.state.lock();
            let is = state.files.entry(file.path.clone()).or_default();
            match outcome {
                Err(error) => {
                    tracing::warn!(path = ?file.path, %error, "not taken away, and tried again");
                    is.retry.failed(error.to_string());
                    next = next.min(is.retry.wait().unwrap_or(SOON));
                }
                Ok(()) if listed.is_some() => *is = Delivery::default(),
                Ok(()) => drop(state.files.remove(&file.path)),
            }
        }
        next
    }

    fn order_away(&self, file: &Placement, time: Duration) -> Result<(), EffectError> {
        let order = order(&file.secret, time, Task::TakeAway(file.clone()));
        self.parts.effects.carry_out(&order, &Values::default()).map(drop)
    }

    /// Sees to it that a file is as it is to be. Returns when to look again.
    pub(super) fn keep(&self, file: &Placement, versions: &Versions) -> Duration {
        let before = self.state.lock().files.get(&file.path).cloned().unwrap_or_default();
        let version = versions.get(&file.secret).copied();
        let is_there = match file.kind {
            // Nobody finds anything behind one whose secret is gone.
            PlacementKind::Link => true,
            PlacementKind::Copy => version.is_some(),
            PlacementKind::Bind => {
                let is_directory = self.parts.broker.has_directory(&file.secret);
                version.is_some() || is_directory.unwrap_or(false)
            }
        };
        let is_current = before.version == version || file.kind != PlacementKind::Copy;
        let is_kept = before.settled && is_current && before.placed.is_some() == is_there;
        // What was there in another way is taken away first.
        let is_in_the_way = before
            .placed
            .as_ref()
            .is_some_and(|placed| (placed.kind, &placed.secret) != (file.kind, &file.secret));
        let outcome = match before.retry.wait() {
            Some(left) => return left,
            None if is_in_the_way => return SOON,
            None if self.ending.load(Ordering::Acquire) => return LOOK,
            None if is_kept => Ok(version),
            None if !is_there => self.order_away(file, FILE_TIME).map(|()| None).map_err(into_text),
            None => self.deliver(file, version),
        };
        let mut state = self.state.lock();
        let is = state.files.entry(file.path.clone()).or_default();
        match outcome {
            Ok(version) => {
                let placed = is_there.then(|| file.clone());
                // Another server that finds it as it is has delivered nothing.
                let is_new = (&before.placed, before.version) != (&placed, version);
                let now = || self.parts.clock.now();
                let time = before.time.filter(|_| !is_new).unwrap_or_else(now);
                let (time, retry) = (Some(time), Retry::default());
                *is = Delivery { placed, version, time, settled: true, retry };
                LOOK
            }
            Err(why) => {
                tracing::warn!(path = ?file.path, %why, "not injected, and tried again");
                is.retry.failed(why);
                is.retry.wait().unwrap_or(SOON)
            }
        }
    }

    /// Has a file placed. Returns the version that it has.
    fn deliver(
        &self,
        file: &Placement,
        version: Option<Version>,
    ) -> Result<Option<Version>, String> {
        let (values, version) = match file.kind {
            PlacementKind::Bind | PlacementKind::Link => (Values::default(), version),
            PlacementKind::Copy => {
                let what = format!("for {}", file.path.display());
                let opened = self.parts.broker.read_for_injection(&file.secret, &what);
                let opened = opened.map_err(|error| chain(&error))?;
                (Values { new: Some(opened.value), ..Values::default() }, Some(opened.version))
            }
        };
        let before = {
            let mut state = self.state.lock();
            let is = state.files.entry(file.path.clone()).or_default();
            is.placed.replace(file.clone())
        };
        if before.as_ref() != Some(file) {
            self.remember();
        }
        let order = order(&file.secret, FILE_TIME, Task::Place(file.clone()));
        let placed = self.parts.effects.carry_out(&order, &values);
        placed.map(|_| version).map_err(into_text)
    }
}

/// Takes all files away without a server, for who unmounts after it; takes root. `state` is what the server has
/// remembered.
pub(in crate::daemon) fn clean_up(settings: &Settings, state: &Path, mountpoint: &Path) {
    for file in every_file(settings, &State::read(state)) {
        // The server could have written anything there.
        let taken =
            file.objection().map_or_else(|| file.take_away(mountpoint).map(drop), |_| Ok(()));
        if let Err(error) = taken {
            tracing::warn!(path = ?file.path, %error, "an injected file is left");
        }
    }
}

/// Returns what is listed, and what was placed as the list was before.
fn every_file(settings: &Settings, state: &State) -> Vec<Placement> {
    let mut all = settings.files.clone();
    let placed = state.files.values().filter_map(|is| is.placed.clone());
    all.extend(placed.filter(|placed| !settings.files.contains(placed)));
    all
}

fn into_text(error: EffectError) -> String {
    error.to_string()
}
