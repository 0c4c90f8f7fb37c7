//! How often something is tried, and how long is waited in between.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::Trouble;
use super::crew::lock;

/// How often the same is tried without any progress.
const TRIES: u32 = 6;
/// The first pause; each one is twice as long as the one before.
const PAUSE: Duration = Duration::from_millis(200);
/// A service that wants to be left alone for longer is left alone for good.
const LONGEST: Duration = Duration::from_secs(300);
/// So many names in a row that failed are no fault of the names.
const IN_A_ROW: usize = 5;

/// Shared by all threads of a run: a rest that one of them is asked for is everybody's, and ends with the run.
pub(crate) struct Patience<'a> {
    not_before: Mutex<Option<Instant>>,
    /// Names that were given up since the last one that was not.
    given_up: AtomicUsize,
    sleep: &'a Sleep<'a>,
}

/// Waits, and tells whether the run goes on.
pub(crate) type Sleep<'a> = dyn Fn(Duration) -> bool + Sync + 'a;

impl<'a> Patience<'a> {
    pub(crate) fn new(sleep: &'a Sleep<'a>) -> Self {
        Self { not_before: Mutex::new(None), given_up: AtomicUsize::new(0), sleep }
    }

    /// Does something until it works. Errors: `Refused`; `Lost`, also where nothing works any more.
    pub(super) fn with<T>(
        &self,
        mut work: impl FnMut() -> Result<T, Trouble>,
    ) -> Result<T, Trouble> {
        self.with_progress(|| (work(), false))
    }

    /// The same with what goes on step by step: it says whether it has got any further.
    pub(super) fn with_progress<T>(
        &self,
        mut work: impl FnMut() -> (Result<T, Trouble>, bool),
    ) -> Result<T, Trouble> {
        let mut tries = 0;
        loop {
            if !self.rest() {
                return Err(Trouble::Lost("it was asked to stop".into()));
            }
            let (done, has_progress) = work();
            tries = if has_progress { 1 } else { tries + 1 };
            match done {
                Err(Trouble::Changed) if tries < TRIES => {}
                Err(Trouble::Passing { why, rest }) if tries < TRIES => {
                    if rest.is_some_and(|rest| rest > LONGEST) {
                        return Err(Trouble::Lost(why));
                    }
                    self.ask_for(rest.unwrap_or_default().max(PAUSE * 2_u32.pow(tries - 1)));
                }
                Err(Trouble::Passing { why, .. }) => {
                    let given_up = self.given_up.fetch_add(1, Ordering::Relaxed) + 1;
                    let is_lost = given_up >= IN_A_ROW;
                    return Err(if is_lost { Trouble::Lost(why) } else { Trouble::Refused(why) });
                }
                done => {
                    self.given_up.store(0, Ordering::Relaxed);
                    return done;
                }
            }
        }
    }

    fn ask_for(&self, rest: Duration) {
        let until = Instant::now() + rest;
        let mut not_before = lock(&self.not_before);
        *not_before = Some(not_before.map_or(until, |known| known.max(until)));
    }

    /// Waits for as long as it was asked for. Returns whether the run goes on.
    fn rest(&self) -> bool {
        let not_before = *lock(&self.not_before);
        let left = not_before.map(|until| until.saturating_duration_since(Instant::now()));
        left.is_none_or(|left| left.is_zero() || (self.sleep)(left))
    }
}
