//! Where the time comes from, so that tests can set it.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// A moment in UTC.
pub use jiff::Timestamp;

/// Tells the time.
pub trait Clock: Send + Sync {
    /// Returns the wall clock's time.
    fn now(&self) -> Timestamp;
}

/// A clock that stands still until it is told to move.
#[derive(Debug)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// Returns a clock that shows `seconds` after the Unix epoch.
    pub fn at(seconds: i64) -> Self {
        Self(AtomicI64::new(seconds * 1_000_000))
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        let micros = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        self.0.fetch_add(micros, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_microsecond(self.0.load(Ordering::SeqCst)).unwrap_or(Timestamp::MAX)
    }
}
