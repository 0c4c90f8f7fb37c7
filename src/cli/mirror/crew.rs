//! Threads that work on names, a bounded number of them: a service is asked for several at a time, and not for all.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Trouble;

/// The threads of one run.
#[derive(Debug)]
pub(crate) struct Crew {
    threads: usize,
    /// No further name is begun, and none that was begun is waited for.
    is_stopped: Mutex<bool>,
    stopped: Condvar,
}

/// How far it is, for whoever shows that meanwhile.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub done: AtomicUsize,
    pub all: AtomicUsize,
}

impl Crew {
    pub(crate) fn new(threads: usize) -> Self {
        Self { threads, is_stopped: Mutex::default(), stopped: Condvar::new() }
    }

    /// Ends the run after the names that were begun, and at once those that rest.
    pub(crate) fn stop(&self) {
        *lock(&self.is_stopped) = true;
        self.stopped.notify_all();
    }

    pub(crate) fn is_stopped(&self) -> bool {
        *lock(&self.is_stopped)
    }

    /// Waits for so long, or until it is stopped. Returns whether the run goes on.
    pub(crate) fn rest(&self, time: Duration) -> bool {
        let waited = self.stopped.wait_timeout_while(lock(&self.is_stopped), time, |is| !*is);
        let (is_stopped, _) = waited.unwrap_or_else(PoisonError::into_inner);
        !*is_stopped
    }

    /// Does the work for each name and returns what came of it, in the names' order. Error: the first one, after which no
    /// further name is begun; or `Lost`, if it was stopped.
    pub(crate) fn each<T: Send>(
        &self,
        names: &[String],
        progress: &Progress,
        work: impl Fn(&str) -> Result<T, Trouble> + Sync,
    ) -> Result<Vec<T>, Trouble> {
        progress.done.store(0, Ordering::Relaxed);
        progress.all.store(names.len(), Ordering::Relaxed);
        let next = AtomicUsize::new(0);
        let results = Mutex::new(Vec::with_capacity(names.len()));
        let failed = Mutex::new(None);
        let take = || {
            while !self.is_stopped() && lock(&failed).is_none() {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(name) = names.get(at) else { return };
                match work(name) {
                    Ok(result) => lock(&results).push((at, result)),
                    Err(trouble) => drop(lock(&failed).get_or_insert(trouble)),
                }
                progress.done.fetch_add(1, Ordering::Relaxed);
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..self.threads.min(names.len()) {
                scope.spawn(take);
            }
            take();
        });
        if let Some(trouble) = lock(&failed).take() {
            return Err(trouble);
        }
        let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        if results.len() < names.len() {
            return Err(Trouble::Lost("it was asked to stop".into()));
        }
        results.sort_by_key(|(at, _)| *at);
        Ok(results.into_iter().map(|(_, result)| result).collect())
    }
}

/// Locks, also after a thread has panicked that held it: nothing is left half done under these.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|number| number.to_string()).collect()
    }

    #[test]
    fn each_name_is_worked_on_once_and_answers_come_in_their_order() {
        let (names, progress) = (names(100), Progress::default());
        for threads in [1, 7] {
            let answers = Crew::new(threads).each(&names, &progress, |name| Ok(name.to_owned()));
            assert_eq!(answers.unwrap(), names);
            assert_eq!(progress.done.load(Ordering::Relaxed), 100);
        }
        let none: Vec<()> = Crew::new(3).each(&[], &progress, |_| Ok(())).unwrap();
        assert!(none.is_empty());
    }

    #[test]
    fn after_an_error_or_a_stop_no_further_name_is_begun() {
        let begun = AtomicUsize::new(0);
        let lost = || Trouble::Lost("gone".into());
        let crew = Crew::new(1);
        let failed: Result<Vec<()>, _> = crew.each(&names(100), &Progress::default(), |name| {
            begun.fetch_add(1, Ordering::Relaxed);
            if name == "3" { Err(lost()) } else { Ok(()) }
        });
        assert_eq!((failed, begun.load(Ordering::Relaxed)), (Err(lost()), 4));
        crew.stop();
        let stopped: Result<Vec<()>, _> = crew.each(&names(3), &Progress::default(), |_| Ok(()));
        assert!(matches!(stopped, Err(Trouble::Lost(_))));
    }
}
