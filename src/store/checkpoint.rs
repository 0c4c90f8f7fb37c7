//! The hand-over of what the journal holds to the thread that puts it into redb.
//!
//! One piece is on its way at a time. If one fails it stays in the journal and in memory and is tried
//! again later; until it succeeds, the next writer gets the error.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::StoreError;
use super::journal::Progress;
use super::overlay::Layer;

/// Commits of a full half of the journal, which become one of redb.
pub(super) struct Piece {
    pub(super) layer: Arc<Layer>,
    pub(super) progress: Progress,
}

#[derive(Default)]
pub(super) struct Checkpoint {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    work: Work,
    closed: bool,
}

#[derive(Default)]
enum Work {
    /// With the error, until somebody has been told of it.
    Failed(Piece, Option<StoreError>),
    #[default]
    Idle,
    Running,
    Waiting(Piece),
}

impl Checkpoint {
    /// Gives the thread a piece; call it only after [`wait`](Self::wait).
    pub(super) fn begin(&self, piece: Piece) {
        self.state.lock().work = Work::Waiting(piece);
        self.changed.notify_all();
    }

    /// Fails if the last piece did.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        outcome(&mut self.state.lock())
    }

    pub(super) fn is_idle(&self) -> bool {
        matches!(self.state.lock().work, Work::Idle)
    }

    /// Waits until the last piece is in redb.
    pub(super) fn wait(&self) -> Result<(), StoreError> {
        outcome(&mut self.at_rest())
    }

    /// Waits until the thread does nothing, and forgets how the last piece ended.
    pub(super) fn abandon(&self) {
        self.at_rest().work = Work::Idle;
    }

    /// Ends the thread.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
    }

    /// Is the thread: calls `apply` with each piece, and `tick` when there was none for `period`.
    /// A piece that failed is tried again then.
    pub(super) fn run(
        &self,
        period: Duration,
        apply: impl Fn(&Piece) -> Result<(), StoreError>,
        tick: impl Fn(),
    ) {
        let mut state = self.state.lock();
        loop {
            match std::mem::replace(&mut state.work, Work::Running) {
                Work::Waiting(piece) => {
                    let applied = MutexGuard::unlocked(&mut state, || apply(&piece));
                    state.work = match applied {
                        Ok(()) => Work::Idle,
                        Err(error) => {
                            tracing::error!(%error, "commits stay in the journal: the store does not take them");
                            Work::Failed(piece, Some(error))
                        }
                    };
                    self.changed.notify_all();
                }
                other @ (Work::Failed(..) | Work::Idle | Work::Running) => {
                    state.work = other;
                    if state.closed {
                        return;
                    }
                    if self.changed.wait_for(&mut state, period).timed_out() {
                        state.try_again();
                        MutexGuard::unlocked(&mut state, &tick);
                    }
                }
            }
        }
    }

    fn at_rest(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock();
        while matches!(state.work, Work::Running | Work::Waiting(_)) {
            self.changed.wait(&mut state);
        }
        state
    }
}

impl State {
    fn try_again(&mut self) {
        self.work = match std::mem::take(&mut self.work) {
            Work::Failed(piece, _) => Work::Waiting(piece),
            other @ (Work::Idle | Work::Running | Work::Waiting(_)) => other,
        };
    }
}

fn outcome(state: &mut State) -> Result<(), StoreError> {
    match &mut state.work {
        Work::Failed(_, error) => Err(error.take().unwrap_or(StoreError::Broken)),
        Work::Idle | Work::Running | Work::Waiting(_) => Ok(()),
    }
}
