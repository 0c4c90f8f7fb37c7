//! A rotation under way, as those see it who wait for it.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use serde::Serialize;

use super::outcome::{Outcome, StepDone, StepName};
use crate::model::SecretName;

/// How far a rotation is.
#[derive(Clone, Debug, Serialize)]
pub struct State {
    pub rotation: String,
    pub secret: SecretName,
    /// The step at hand.
    pub step: Option<StepName>,
    pub steps: Vec<StepDone>,
    /// Once it has come to its end, or its end was given up to a later time.
    pub outcome: Option<Outcome>,
}

/// A rotation that others may watch.
#[derive(Debug)]
pub(super) struct Progress {
    state: Mutex<State>,
    changed: Condvar,
}

impl Progress {
    pub(super) fn new(rotation: String, secret: SecretName) -> Self {
        let state = State { rotation, secret, step: None, steps: Vec::new(), outcome: None };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    pub(super) fn begin(&self, step: StepName) {
        self.state.lock().step = Some(step);
        self.changed.notify_all();
    }

    pub(super) fn done(&self, step: StepDone) {
        let mut state = self.state.lock();
        state.step = None;
        state.steps.push(step);
        self.changed.notify_all();
    }

    pub(super) fn end(&self, outcome: Outcome) {
        let mut state = self.state.lock();
        state.step = None;
        state.outcome = Some(outcome);
        self.changed.notify_all();
    }

    pub(super) fn state(&self) -> State {
        self.state.lock().clone()
    }

    /// Returns the state once it has ended, at the latest after `at_most`.
    pub(super) fn wait(&self, at_most: Duration) -> State {
        self.wait_while(at_most, |state| state.outcome.is_none())
    }

    /// Returns the state once it has more than `seen` steps or has ended, at the latest after `at_most`.
    pub(super) fn wait_beyond(&self, seen: usize, at_most: Duration) -> State {
        self.wait_while(at_most, |state| state.outcome.is_none() && state.steps.len() <= seen)
    }

    /// Lets some time go by.
    pub(super) fn rest(&self, at_most: Duration) {
        let mut state = self.state.lock();
        let _timed_out = self.changed.wait_for(&mut state, at_most);
    }

    fn wait_while(&self, at_most: Duration, going_on: impl Fn(&State) -> bool) -> State {
        let mut state = self.state.lock();
        let until = Instant::now() + at_most;
        self.changed.wait_while_until(&mut state, |state| going_on(state), until);
        state.clone()
    }
}
