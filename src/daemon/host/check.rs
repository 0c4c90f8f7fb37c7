//! Checks of the whole store or log, which take longer than a caller may wait: each runs in a thread of
//! its own, one command begins it, and later ones ask how far it is and fetch the verdict.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use serde_json::{Value, json};

use crate::broker::{BrokerError, Progress, StoreError};
use crate::daemon::error::chain;

type Result<T> = std::result::Result<T, BrokerError>;

/// The check of one kind that was begun last.
#[derive(Debug, Default)]
pub(super) struct LastCheck {
    check: Mutex<Option<Arc<Check>>>,
    begun: AtomicU64,
}

/// A check that runs or has ended.
#[derive(Debug)]
pub(super) struct Check {
    number: u64,
    progress: Arc<Progress>,
    verdict: Mutex<Option<Result<Value>>>,
    ended: Condvar,
}

impl LastCheck {
    /// Begins one, or joins the one that runs.
    pub(super) fn begin(
        &self,
        run: impl FnOnce(&Progress) -> Result<Value> + Send + 'static,
    ) -> io::Result<Arc<Check>> {
        let mut last = self.check.lock();
        if let Some(running) = last.as_ref().filter(|check| check.verdict.lock().is_none()) {
            return Ok(Arc::clone(running));
        }
        let check = Arc::new(Check {
            number: self.begun.fetch_add(1, Ordering::Relaxed) + 1,
            progress: Arc::default(),
            verdict: Mutex::new(None),
            ended: Condvar::new(),
        });
        let verdict = Verdict { check: Arc::clone(&check), outcome: None };
        let progress = Arc::clone(&check.progress);
        thread::Builder::new().name("check".into()).spawn(move || verdict.reach(run(&progress)))?;
        *last = Some(Arc::clone(&check));
        Ok(check)
    }

    /// Returns the check of that number, if no other was begun since.
    pub(super) fn numbered(&self, number: u64) -> Option<Arc<Check>> {
        self.check.lock().clone().filter(|check| check.number == number)
    }
}

impl Check {
    /// Returns the verdict, or how far it is when that does not come in time.
    pub(super) fn wait(&self, at_most: Duration) -> Result<Value> {
        let until = Instant::now() + at_most;
        let mut verdict = self.verdict.lock();
        while verdict.is_none() {
            if self.ended.wait_until(&mut verdict, until).timed_out() {
                break;
            }
        }
        match verdict.take() {
            None => {
                let (done, total) = self.progress.so_far();
                let check = self.number;
                Ok(json!({ "state": "running", "check": check, "done": done, "total": total }))
            }
            Some(Ok(found)) => {
                *verdict = Some(Ok(found.clone()));
                Ok(found)
            }
            Some(Err(error)) => {
                // Who asks again is told in words alone: an error is no thing that can be copied.
                *verdict = Some(Err(BrokerError::Invalid(chain(&error))));
                Err(error)
            }
        }
    }
}

/// Tells the waiters when the thread ends, also by a panic.
struct Verdict {
    check: Arc<Check>,
    outcome: Option<Result<Value>>,
}

impl Verdict {
    fn reach(mut self, outcome: Result<Value>) {
        self.outcome = Some(outcome);
    }
}

impl Drop for Verdict {
    fn drop(&mut self) {
        let outcome = self.outcome.take().unwrap_or_else(|| Err(StoreError::Broken.into()));
        *self.check.verdict.lock() = Some(outcome);
        self.check.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const SOON: Duration = Duration::from_millis(10);
    const LATE: Duration = Duration::from_secs(20);

    #[test]
    fn a_check_goes_on_past_the_wait_and_tells_how_far_it_is_and_then_its_verdict() {
        let (end, ended) = mpsc::channel::<()>();
        let last = LastCheck::default();
        let check = last
            .begin(move |progress| {
                progress.expect(9);
                progress.advance();
                assert!(ended.recv().is_err());
                Ok(json!({ "ok": true }))
            })
            .unwrap();
        let joined = last.begin(|_| unreachable!("one runs")).unwrap();
        assert_eq!(joined.number, check.number);
        let mut waits = (0..1000).map(|_| check.wait(SOON).unwrap());
        let running = json!({ "state": "running", "check": check.number, "done": 1, "total": 9 });
        assert!(waits.any(|reply| reply == running));
        drop(end);
        for _ in 0..2 {
            assert_eq!(last.numbered(check.number).unwrap().wait(LATE).unwrap()["ok"], true);
        }
        let next = last.begin(|_| Ok(Value::Null)).unwrap();
        assert_ne!(next.number, check.number);
        assert!(last.numbered(check.number).is_none());
    }

    #[test]
    fn a_check_that_fails_or_panics_says_so_to_each_who_asks() {
        let last = LastCheck::default();
        let failed = last.begin(|_| Err(BrokerError::Denied)).unwrap();
        assert!(matches!(failed.wait(LATE), Err(BrokerError::Denied)));
        assert!(failed.wait(LATE).unwrap_err().to_string().contains("denied"));
        let panicked = last.begin(|_| panic!("on purpose")).unwrap();
        assert!(panicked.wait(LATE).is_err());
    }
}
