//! When a secret is due for a new value; pure.
//!
//! A [`Timetable`] is what the configuration says, [`Facts`] are what is known of one secret, and
//! [`Timetable::due`] says from when on it may be rotated and why. It holds nothing between calls:
//! what was missed while nobody looked is due once, and the moment is the same after a restart.
#![forbid(unsafe_code)]

use std::fmt;
use std::time::Duration;

use crate::model::{SecretId, Timestamp};

mod cron;
mod quiet;
#[cfg(test)]
mod tests;
mod timetable;

pub use timetable::Timetable;

/// How long a secret keeps its value where nothing says otherwise.
pub const DEFAULT_ROTATION_DAYS: u32 = 90;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// The wait after the first failure; it doubles with each one.
const FIRST_RETRY: Duration = Duration::from_secs(60);
/// The longest wait after a failure, before it is spread.
const LONGEST_RETRY: Duration = Duration::from_secs(6 * 60 * 60);
/// How far ahead a rotation may lie after the clock was set back.
const MOST_AHEAD: Duration = DAY;
/// What is left of a life this short is not worth another value: `expires` was not moved by the last one.
const SHORTEST_LIFE: Duration = Duration::from_secs(60 * 60);

/// What is known of one secret.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Facts {
    /// Decides where in the jitter the secret stands.
    pub id: SecretId,
    /// When its value was made: at the last rotation, or its creation.
    pub since: Timestamp,
    /// When the value ends.
    pub expires: Option<Timestamp>,
    /// What the secret's own attribute says. It counts where the timetable gives no time of its own.
    pub rotation_days: Option<u32>,
    /// What has gone wrong since then.
    pub failure: Option<Failure>,
}

/// Rotations that failed in a row.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Failure {
    pub count: u32,
    /// When the last of them failed.
    pub at: Timestamp,
}

/// From when on a secret may be rotated, and why.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Due {
    pub at: Timestamp,
    pub reason: Reason,
}

/// What makes a secret due.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reason {
    /// The value is as old as it may get.
    Age,
    /// The hour of a cron expression has come.
    Cron,
    /// The value will end.
    Expiry,
    /// The last attempt failed.
    Retry,
}

impl Facts {
    /// Returns what can be true at that time; where it differs, it has to be kept in the place of these.
    ///
    /// What lies ahead was written down before the clock was set back. A little of that stays, so that
    /// nothing is done again that has just been done; more would put the next rotation off until the
    /// old time comes again.
    #[must_use]
    pub fn corrected(self, now: Timestamp) -> Self {
        let failure = self.failure.filter(|failure| failure.at <= later(now, LONGEST_RETRY));
        Self { since: self.since.min(later(now, MOST_AHEAD)), failure, ..self }
    }
}

impl Due {
    /// Tells whether the time has come.
    pub fn is_now(&self, now: Timestamp) -> bool {
        self.at <= now
    }
}

impl Timetable {
    /// Returns from when on a secret is due; `None` if never.
    ///
    /// If that is in the past, it is due now, and now is not in a quiet window: a moment that was missed
    /// waits for the end of the window that is open now.
    pub fn due(&self, facts: &Facts, now: Timestamp) -> Option<Due> {
        let facts = &facts.corrected(now);
        let planned = [
            self.by_age(facts).map(|at| (at, Reason::Age)),
            self.by_cron(facts.since).map(|at| (later(at, self.jitter(facts.id)), Reason::Cron)),
            self.by_expiry(facts).map(|at| (at, Reason::Expiry)),
        ];
        let (planned, reason) = planned.into_iter().flatten().min_by_key(|(at, _)| *at)?;
        let retry =
            facts.failure.map(|failure| later(failure.at, back_off(failure.count, facts.id)));
        let due = match retry.filter(|&retry| retry > planned) {
            Some(retry) => Due { at: retry, reason: Reason::Retry },
            None => Due { at: planned, reason },
        };
        let missed = due.at < now && self.quiet().holds(now);
        let from = if missed { now } else { due.at };
        Some(Due { at: self.quiet().end(from), ..due })
    }

    fn by_age(&self, facts: &Facts) -> Option<Timestamp> {
        let every = match self.every() {
            Some(every) => every,
            None if self.has_cron() => return None,
            None => match facts.rotation_days.unwrap_or(DEFAULT_ROTATION_DAYS) {
                0 => return None,
                days => DAY * days,
            },
        };
        Some(later(later(facts.since, every), self.jitter(facts.id)))
    }

    fn by_expiry(&self, facts: &Facts) -> Option<Timestamp> {
        let expires = facts.expires?;
        let life = Duration::try_from(expires.duration_since(facts.since)).ok()?;
        if life < SHORTEST_LIFE {
            return None;
        }
        // A value that lives no longer than that is replaced after two thirds of its life.
        let before = if life > self.before_expiry() { self.before_expiry() } else { life / 3 };
        let jitter = self.jitter(facts.id).min(before / 2);
        expires.checked_sub(before - jitter).ok()
    }

    /// Returns how much later than planned a secret is due: the same each time, for it follows from the id.
    fn jitter(&self, id: SecretId) -> Duration {
        part_of(self.longest_jitter(), id)
    }
}

/// Returns the wait after so many failures. Secrets with one cause are spread over a quarter of it.
fn back_off(failures: u32, id: SecretId) -> Duration {
    let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
    let wait = FIRST_RETRY.saturating_mul(doubled).min(LONGEST_RETRY);
    wait + part_of(wait / 4, id)
}

/// Returns a part of `whole` that the id decides. Ids are random, so that it is spread evenly.
fn part_of(whole: Duration, id: SecretId) -> Duration {
    let [a, b, c, d, ..] = id.0;
    let whole_seconds = u128::from(whole.as_secs());
    let share = u128::from(u32::from_be_bytes([a, b, c, d]));
    Duration::from_secs(u64::try_from((whole_seconds * share) >> 32).unwrap_or(whole.as_secs()))
}

fn later(time: Timestamp, by: Duration) -> Timestamp {
    time.checked_add(by).unwrap_or(Timestamp::MAX)
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Age => "age",
            Self::Cron => "cron",
            Self::Expiry => "expiry",
            Self::Retry => "retry",
        })
    }
}
