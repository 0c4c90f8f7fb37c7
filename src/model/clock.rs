//! Where the time comes from, so that tests can set it.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A moment in UTC.
pub use jiff::Timestamp;

/// Tells the time.
pub trait Clock: Send + Sync {
    /// Returns the wall clock's time.
    fn now(&self) -> Timestamp;
    /// Returns how long the host has been up, which nobody can set.
    fn uptime(&self) -> Uptime;
}

/// Time since a boot, suspended or not.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Uptime {
    /// Which boot; `None` where that is not known, and then no two are the same.
    pub boot: Option<BootId>,
    pub elapsed: Duration,
}

/// One boot of the host.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct BootId(pub u128);

impl Uptime {
    /// Of no known boot.
    pub const UNKNOWN: Self = Self { boot: None, elapsed: Duration::ZERO };

    /// Returns the uptime after that much more time.
    #[must_use]
    pub fn after(self, more: Duration) -> Self {
        Self { elapsed: self.elapsed.saturating_add(more), ..self }
    }

    /// Tells whether both are known to be of one boot.
    pub fn is_of_boot(self, other: Self) -> bool {
        self.boot.is_some() && self.boot == other.boot
    }
}

/// A clock that stands still until it is told to move.
#[derive(Debug)]
pub struct ManualClock {
    wall: AtomicI64,
    up: AtomicI64,
    boot: AtomicI64,
}

impl ManualClock {
    /// Returns a clock that shows `seconds` after the Unix epoch.
    pub fn at(seconds: i64) -> Self {
        Self {
            wall: AtomicI64::new(seconds * 1_000_000),
            up: AtomicI64::new(0),
            boot: AtomicI64::new(1),
        }
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        let micros = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        self.wall.fetch_add(micros, Ordering::SeqCst);
        self.up.fetch_add(micros, Ordering::SeqCst);
    }

    /// Sets the wall clock to another time, as `date -s` does.
    pub fn set(&self, seconds: i64) {
        self.wall.store(seconds * 1_000_000, Ordering::SeqCst);
    }

    /// Boots the host anew.
    pub fn reboot(&self) {
        self.up.store(0, Ordering::SeqCst);
        self.boot.fetch_add(1, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_microsecond(self.wall.load(Ordering::SeqCst)).unwrap_or(Timestamp::MAX)
    }

    fn uptime(&self) -> Uptime {
        let elapsed = self.up.load(Ordering::SeqCst).unsigned_abs();
        Uptime {
            boot: Some(BootId(self.boot.load(Ordering::SeqCst).unsigned_abs().into())),
            elapsed: Duration::from_micros(elapsed),
        }
    }
}

/// Parses a span of one unit: `45s`, `30m`, `12h`, `90d` or `2w`.
pub fn parse_span(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text.strip_prefix(digits)? {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        "w" => 7 * 24 * 3600,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit).map(Duration::from_secs)
}

/// Stores a [`Timestamp`] as microseconds since the Unix epoch, for `#[serde(with = "micros")]`.
pub mod micros {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::Timestamp;

    /// Writes the microseconds.
    pub fn serialize<S: Serializer>(time: &Timestamp, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_i64(time.as_microsecond())
    }

    /// Reads the microseconds.
    pub fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Timestamp, D::Error> {
        Timestamp::from_microsecond(i64::deserialize(input)?).map_err(D::Error::custom)
    }
}

/// The same for an optional time.
pub mod optional_micros {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    use super::Timestamp;

    /// Writes the microseconds.
    pub fn serialize<S: Serializer>(time: &Option<Timestamp>, out: S) -> Result<S::Ok, S::Error> {
        time.map(Timestamp::as_microsecond).serialize(out)
    }

    /// Reads the microseconds.
    pub fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Timestamp>, D::Error> {
        let micros = Option::<i64>::deserialize(input)?;
        micros.map(Timestamp::from_microsecond).transpose().map_err(D::Error::custom)
    }
}
