//! What is remembered of a caller, of a secret, and of one's use of the other.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::model::{Timestamp, Version};

pub(super) const DAY: i64 = 24 * 3600;

/// A count that fades: a tenth of it a day.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct Habit {
    amount: f64,
    day: i64,
}

impl Habit {
    pub(super) fn at(&self, time: Timestamp) -> f64 {
        let days = (day(time) - self.day).clamp(0, 365);
        self.amount * 0.9_f64.powi(i32::try_from(days).unwrap_or(365))
    }

    pub(super) fn add(&mut self, time: Timestamp) {
        self.amount = self.at(time) + 1.0;
        self.day = day(time);
    }
}

/// How much happens within one to two spans, and the most of it that there was.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct Rate {
    span: i64,
    now: u64,
    before: u64,
    /// What it was as the last span ended: it shares that span with what is counted now.
    last: f64,
    /// Of what was over before that; fades by three in a hundred a day.
    peak: f64,
}

impl Rate {
    pub(super) const SECONDS: i64 = 300;

    /// Counts, and returns how much it is now and how much it was at most.
    pub(super) fn add(&mut self, time: Timestamp, amount: u64) -> (f64, f64) {
        let span = time.as_second().div_euclid(Self::SECONDS);
        let passed = span.saturating_sub(self.span);
        if passed > 0 {
            (self.last, self.peak) = ended(self.sum(), passed, self.last, self.peak);
            let days =
                span.div_euclid(DAY / Self::SECONDS) - self.span.div_euclid(DAY / Self::SECONDS);
            self.peak *= 0.97_f64.powi(i32::try_from(days.clamp(0, 365)).unwrap_or(365));
            self.before = if passed == 1 { self.now } else { 0 };
            (self.now, self.span) = (0, span);
        }
        self.now = self.now.saturating_add(amount);
        (self.sum(), self.peak)
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of lines in minutes")]
    fn sum(&self) -> f64 {
        (self.now + self.before) as f64
    }
}

/// How many different names are asked for within one to two spans, and the most that there were.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct Names {
    span: i64,
    now: BTreeSet<u64>,
    before: BTreeSet<u64>,
    last: f64,
    peak: f64,
}

impl Names {
    const SECONDS: i64 = 1800;
    /// More are not told apart, for each of thousands of callers has such a set; whoever walks over so many is
    /// known as a walker.
    const MAX: usize = 256;

    /// Counts a name, and returns how many there are now and how many there were at most.
    pub(super) fn add(&mut self, time: Timestamp, name: &str) -> (f64, f64) {
        let span = time.as_second().div_euclid(Self::SECONDS);
        let passed = span.saturating_sub(self.span);
        if passed > 0 {
            (self.last, self.peak) = ended(self.count(), passed, self.last, self.peak);
            let now = std::mem::take(&mut self.now);
            self.before = if passed == 1 { now } else { BTreeSet::new() };
            self.span = span;
        }
        let known = self.before.contains(&hash(name));
        if !known && self.now.len() < Self::MAX {
            self.now.insert(hash(name));
        }
        (self.count(), self.peak)
    }

    #[expect(clippy::cast_precision_loss, reason = "at most twice the limit")]
    fn count(&self) -> f64 {
        (self.now.len() + self.before.len()) as f64
    }
}

/// Returns what the last span was and what was most before it, once a span with so much has ended. Its neighbour
/// still shares it, so it is not yet among those that what comes is compared with.
fn ended(amount: f64, passed: i64, last: f64, peak: f64) -> (f64, f64) {
    let peak = peak.max(last);
    if passed == 1 { (amount, peak) } else { (0.0, peak.max(amount)) }
}

/// FNV-1a: the same for ever, which the standard library's hashes do not promise.
fn hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// On how many days something was seen at which hour and on which weekday, in UTC.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct Times {
    hours: BTreeMap<u8, u32>,
    weekdays: BTreeMap<u8, u32>,
    pub(super) days: u32,
    /// The last day, and the hours that were counted on it.
    day: i64,
    counted: u32,
}

/// What of a time is new.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum NewTime {
    Hour,
    Weekday,
}

impl Times {
    /// Returns what is new of a time, and how little new times are to be expected of this history.
    pub(super) fn judge(&self, time: Timestamp) -> Option<(NewTime, f64)> {
        let (hour, weekday) = (hour(time), weekday(time));
        let near = [(hour + 23) % 24, hour, (hour + 1) % 24];
        if !near.iter().any(|hour| self.hours.contains_key(hour)) {
            return Some((NewTime::Hour, confidence(&self.hours)));
        }
        // A day like others counts as known: who works on Monday and Tuesday may come on Wednesday.
        let alike = |other: u8| (other >= 5) == (weekday >= 5);
        let known = self.weekdays.contains_key(&weekday)
            || self.weekdays.keys().filter(|other| alike(**other)).count() >= 2;
        (!known).then(|| (NewTime::Weekday, confidence(&self.weekdays)))
    }

    pub(super) fn learn(&mut self, time: Timestamp) {
        if self.days == 0 || day(time) > self.day {
            (self.day, self.counted) = (day(time), 0);
            self.days = self.days.saturating_add(1);
            *self.weekdays.entry(weekday(time)).or_default() += 1;
        }
        let bit = 1_u32 << hour(time);
        if self.counted & bit == 0 {
            self.counted |= bit;
            *self.hours.entry(hour(time)).or_default() += 1;
        }
    }
}

/// Good and Turing's estimate: what was seen once only, of all that was seen, is how likely the next is new.
fn confidence(seen: &BTreeMap<u8, u32>) -> f64 {
    let all: u32 = seen.values().sum();
    let once = u32::try_from(seen.values().filter(|count| **count == 1).count()).unwrap_or(0);
    1.0 - f64::from(once + 1) / f64::from(all + 1)
}

/// When something was used last, and the longest that it rested before.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Pauses {
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
    longest: i64,
    pub(super) uses: u64,
}

impl Pauses {
    pub(super) fn begin(time: Timestamp) -> Self {
        Self { first: time, last: time, longest: 0, uses: 0 }
    }

    /// Returns the pause in seconds that ends now, where it is far longer than any before.
    pub(super) fn judge(&self, time: Timestamp, at_least: i64) -> Option<i64> {
        let pause = time.as_second() - self.last.as_second();
        let known = self.uses >= 3 && pause >= at_least;
        (known && pause / 2 >= self.longest).then_some(pause)
    }

    pub(super) fn learn(&mut self, time: Timestamp) {
        let pause = time.as_second() - self.last.as_second();
        self.longest = self.longest.max(pause);
        self.last = self.last.max(time);
        self.uses = self.uses.saturating_add(1);
    }
}

/// What is remembered of a caller.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Caller {
    pub(super) pauses: Pauses,
    pub(super) times: Times,
    pub(super) uses: Rate,
    pub(super) refusals: Rate,
    pub(super) names: Names,
    /// Secrets of others that it took up.
    pub(super) firsts: Habit,
    pub(super) old_reads: Habit,
    pub(super) passed_on: Habit,
    /// Digests of its program, the last one last.
    pub(super) digests: Vec<Box<str>>,
    pub(super) digest_changes: u32,
    pub(super) started: Option<Timestamp>,
    pub(super) processes: u32,
    /// The greatest age at which one of its processes read, in seconds.
    pub(super) oldest: i64,
}

impl Caller {
    pub(super) fn begin(time: Timestamp) -> Self {
        Self {
            pauses: Pauses::begin(time),
            times: Times::default(),
            uses: Rate::default(),
            refusals: Rate::default(),
            names: Names::default(),
            firsts: Habit::default(),
            old_reads: Habit::default(),
            passed_on: Habit::default(),
            digests: Vec::new(),
            digest_changes: 0,
            started: None,
            processes: 0,
            oldest: 0,
        }
    }
}

/// What is remembered of a secret.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Secret {
    pub(super) pauses: Pauses,
    /// Callers that took it up late.
    pub(super) firsts: Habit,
    pub(super) current: Option<Version>,
    pub(super) staged: Option<Version>,
}

impl Secret {
    pub(super) fn begin(time: Timestamp) -> Self {
        let pauses = Pauses::begin(time);
        Self { pauses, firsts: Habit::default(), current: None, staged: None }
    }
}

/// Returns the number of the day since the epoch, in UTC.
pub(super) fn day(time: Timestamp) -> i64 {
    time.as_second().div_euclid(DAY)
}

fn hour(time: Timestamp) -> u8 {
    u8::try_from(time.as_second().rem_euclid(DAY) / 3600).unwrap_or(0)
}

/// From 0, a Monday, to 6.
fn weekday(time: Timestamp) -> u8 {
    // The epoch was a Thursday.
    u8::try_from((day(time) + 3).rem_euclid(7)).unwrap_or(0)
}
