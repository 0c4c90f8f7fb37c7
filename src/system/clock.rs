//! The wall clock.

use crate::model::{Clock, Timestamp};

/// Tells the host's time.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock that is passed in elsewhere")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}
