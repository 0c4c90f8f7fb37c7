//! What is had by a login and ends: one of those who need it gets it, and all others wait for the same.
//!
//! It is had anew once it is due, by one of those who use it, while the others go on with the old one. If that
//! fails, nobody is hurt until its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::{Mutex, RwLock};

use super::{BackendError, Deadline, Result};

/// Something that is good for a while, or for ever.
pub(super) trait Lasting {
    /// From when on it should be had anew.
    fn due(&self) -> Option<Instant>;

    /// From when on it is of no use.
    fn end(&self) -> Option<Instant>;
}

/// The one that is used now.
pub(super) struct Held<T> {
    held: RwLock<Option<Arc<T>>>,
    /// Held by whoever is on the way for the next one; inside is how that went the last time.
    flight: Mutex<Flight>,
    /// How many came back.
    landed: AtomicU64,
}

#[derive(Default)]
struct Flight {
    error: Option<BackendError>,
    /// When it may be tried again to get what is not needed yet.
    next: Option<Instant>,
}

/// Gets a new one.
pub(super) type Fetch<'a, T> = dyn Fn(Deadline) -> Result<T> + 'a;

impl<T: Lasting> Held<T> {
    pub(super) fn new() -> Self {
        Self { held: RwLock::new(None), flight: Mutex::default(), landed: AtomicU64::new(0) }
    }

    /// Returns one that is not known to be of no use.
    pub(super) fn current(&self, fetch: &Fetch<'_, T>, deadline: Deadline) -> Result<Arc<T>> {
        let Some(held) = self.usable() else { return self.fetched(None, fetch, deadline) };
        if held.due().is_some_and(is_past) {
            return Ok(self.renewed(held, fetch, deadline));
        }
        Ok(held)
    }

    /// Returns another one than this, which is of no use any more.
    pub(super) fn another(
        &self,
        dead: &Arc<T>,
        fetch: &Fetch<'_, T>,
        deadline: Deadline,
    ) -> Result<Arc<T>> {
        self.fetched(Some(dead), fetch, deadline)
    }

    /// Returns the one that is held, unless it is over.
    pub(super) fn usable(&self) -> Option<Arc<T>> {
        self.held.read().clone().filter(|held| !held.end().is_some_and(is_past))
    }

    fn fetched(
        &self,
        dead: Option<&Arc<T>>,
        fetch: &Fetch<'_, T>,
        deadline: Deadline,
    ) -> Result<Arc<T>> {
        let landed = self.landed.load(Ordering::Acquire);
        let mut flight =
            self.flight.try_lock_for(deadline.left()?).ok_or(BackendError::TimedOut)?;
        let is_dead = |held: &Arc<T>| dead.is_some_and(|dead| Arc::ptr_eq(held, dead));
        if let Some(held) = self.usable().filter(|held| !is_dead(held)) {
            return Ok(held);
        }
        // Whoever was on the way meanwhile has asked for all who waited. Only their time is their own.
        let has_landed = self.landed.load(Ordering::Acquire) != landed;
        let error = flight.error.clone().filter(|error| *error != BackendError::TimedOut);
        if let Some(error) = error.filter(|_| has_landed) {
            return Err(error);
        }
        let outcome = fetch(deadline).map(Arc::new);
        *self.held.write() = outcome.as_ref().ok().map(Arc::clone);
        *flight = Flight { error: outcome.as_ref().err().cloned(), next: None };
        self.landed.fetch_add(1, Ordering::AcqRel);
        outcome
    }

    /// Returns a new one, or the old one while somebody else is on the way for it or it cannot be had.
    fn renewed(&self, old: Arc<T>, fetch: &Fetch<'_, T>, deadline: Deadline) -> Arc<T> {
        let Some(mut flight) = self.flight.try_lock() else { return old };
        if flight.next.is_some_and(|next| !is_past(next)) {
            return old;
        }
        // So that there is time left for what the old one is good for.
        let Ok(left) = deadline.left() else { return old };
        match fetch(Deadline::within(left / 2)).map(Arc::new) {
            Ok(new) => {
                *self.held.write() = Some(Arc::clone(&new));
                *flight = Flight::default();
                new
            }
            Err(error) => {
                tracing::warn!(%error, "a credential of a backend is not renewed");
                // Not tried by each who uses it, but once half of what is left is over.
                let now = Instant::now();
                let left = old.end().map(|end| end.saturating_duration_since(now) / 2);
                flight.next = left.and_then(|left| now.checked_add(left));
                old
            }
        }
    }
}

fn is_past(time: Instant) -> bool {
    Instant::now() >= time
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use super::*;

    /// Is due, or over, from the beginning.
    #[derive(Debug)]
    struct Ticket {
        number: usize,
        is_due: bool,
        is_over: bool,
    }

    impl Lasting for Ticket {
        fn due(&self) -> Option<Instant> {
            self.is_due.then(Instant::now)
        }

        fn end(&self) -> Option<Instant> {
            if self.is_over {
                return Some(Instant::now());
            }
            Instant::now().checked_add(Duration::from_secs(1000))
        }
    }

    fn time() -> Deadline {
        Deadline::within(Duration::from_secs(20))
    }

    /// Has many ask at once, and returns how often one was fetched.
    fn fetches(held: &Held<Ticket>, answer: &(dyn Fn(usize) -> Result<Ticket> + Sync)) -> usize {
        let (count, barrier) = (AtomicUsize::new(0), Barrier::new(16));
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    barrier.wait();
                    let fetch = |_| {
                        std::thread::sleep(Duration::from_millis(50));
                        answer(count.fetch_add(1, Ordering::SeqCst))
                    };
                    drop(held.current(&fetch, time()));
                });
            }
        });
        count.load(Ordering::SeqCst)
    }

    fn ticket(number: usize) -> Ticket {
        Ticket { number, is_due: false, is_over: false }
    }

    #[test]
    fn however_many_ask_one_of_them_fetches() {
        let held = Held::new();
        assert_eq!(fetches(&held, &|number| Ok(ticket(number))), 1);
        assert_eq!(fetches(&held, &|number| Ok(ticket(number))), 0, "it is there");
    }

    #[test]
    fn those_who_wait_share_the_failure() {
        let failed = |_| Err(BackendError::NotFound);
        let count = fetches(&Held::new(), &failed);
        assert!(count < 16, "{count} of 16 asked");
    }

    #[test]
    fn what_is_dead_is_replaced_once() {
        let held = Held::new();
        let first = held.current(&|_| Ok(ticket(1)), time()).unwrap();
        let second = held.another(&first, &|_| Ok(ticket(2)), time()).unwrap();
        let third = held.another(&first, &|_| Ok(ticket(3)), time()).unwrap();
        assert_eq!((second.number, third.number), (2, 2));
    }

    #[test]
    fn what_is_due_is_used_on_when_it_cannot_be_had_anew() {
        let held = Held::new();
        let due = |_| Ok(Ticket { number: 1, is_due: true, is_over: false });
        held.current(&due, time()).unwrap();
        let fails = |_| Err(BackendError::TimedOut);
        assert_eq!(held.current(&fails, time()).unwrap().number, 1);
        // It has failed just now, so nobody is asked again.
        assert_eq!(held.current(&|_| Ok(ticket(2)), time()).unwrap().number, 1);
    }

    #[test]
    fn what_is_over_is_not_used() {
        let held = Held::new();
        held.current(&|_| Ok(Ticket { number: 1, is_due: true, is_over: true }), time()).unwrap();
        let fails = |_| Err(BackendError::NotFound);
        assert_eq!(held.current(&fails, time()).unwrap_err(), BackendError::NotFound);
        assert_eq!(held.current(&|_| Ok(ticket(2)), time()).unwrap().number, 2);
    }
}
