//! Hours and days of the week, in a time zone that is fixed when it is parsed.
//!
//! A window that passes midnight belongs to the day on which it begins: `days = ["fri"]` with
//! `hours = "22:00-06:00"` ends on Saturday morning.

use std::fmt;
use std::str::FromStr;

use jiff::Span;
use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;

use super::Timestamp;

const DAY_NAMES: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const MINUTES_PER_DAY: u16 = 24 * 60;

/// Windows of time that come back each week.
#[derive(Clone, Debug)]
pub struct WeeklyHours {
    zone: TimeZone,
    /// None at all: the whole day.
    hours: Box<[Hours]>,
    days: Days,
}

/// A window in minutes since midnight: from `start` until just before `end`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Hours {
    start: u16,
    end: u16,
}

/// Days of the week, Monday being bit 0.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Days(u8);

impl WeeklyHours {
    /// Joins hours and days; without any hours they are whole days.
    pub fn new(zone: TimeZone, hours: Box<[Hours]>, days: Days) -> Self {
        Self { zone, hours, days }
    }

    /// Tells whether one of the windows is open.
    pub fn holds(&self, now: Timestamp) -> bool {
        self.window_end(self.zone.to_datetime(now)).is_some()
    }

    /// Returns the first moment after `from` at which the window then open is closed, or at which the
    /// clocks are changed before that; `from` itself if none is open.
    pub fn end(&self, from: Timestamp) -> Timestamp {
        let local = self.zone.to_datetime(from);
        let Some(minutes) = self.window_end(local) else { return from };
        let end = local.date().to_datetime(Time::midnight());
        let end = end.checked_add(Span::new().minutes(minutes)).unwrap_or(DateTime::MAX);
        let end = self.zone.to_ambiguous_timestamp(end);
        let change = self.zone.following(from).next().map(|change| change.timestamp());
        let moments = [end.earlier().ok(), end.later().ok(), change];
        let next = moments.into_iter().flatten().filter(|&moment| moment > from).min();
        next.unwrap_or(Timestamp::MAX)
    }

    /// Returns when the window that is open ends, in minutes since midnight of the day of `local`.
    fn window_end(&self, local: DateTime) -> Option<u16> {
        let minute = local.hour().unsigned_abs() as u16 * 60 + local.minute().unsigned_abs() as u16;
        let today = local.weekday().to_monday_zero_offset().unsigned_abs();
        if self.hours.is_empty() {
            return self.days.has(today).then_some(MINUTES_PER_DAY);
        }
        self.hours.iter().find_map(|hours| {
            let (begun, end) = hours.at(minute)?;
            let day = match begun {
                Begun::Today => today,
                Begun::Yesterday => (today + 6) % 7,
            };
            self.days.has(day).then_some(end)
        })
    }
}

enum Begun {
    Today,
    Yesterday,
}

impl Hours {
    /// Returns on which day the window began that is open at that minute, and when it ends.
    fn at(self, minute: u16) -> Option<(Begun, u16)> {
        let passes_midnight = self.end < self.start;
        if passes_midnight && minute < self.end {
            return Some((Begun::Yesterday, self.end));
        }
        let is_in = minute >= self.start && (passes_midnight || minute < self.end);
        let end = if passes_midnight { MINUTES_PER_DAY + self.end } else { self.end };
        is_in.then_some((Begun::Today, end))
    }
}

impl Days {
    /// Every day.
    pub const ALL: Self = Self(0x7f);

    fn has(self, day: u8) -> bool {
        self.0 >> day & 1 == 1
    }
}

impl FromStr for Hours {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("{text:?} is no window of hours: write it as \"08:00-18:00\"");
        let (start, end) = text.split_once('-').ok_or_else(expected)?;
        let start = minutes(start).filter(|&start| start < MINUTES_PER_DAY).ok_or_else(expected)?;
        let end = minutes(end).ok_or_else(expected)?;
        if start == end {
            return Err(format!("{text:?} has no length: leave `hours` out for the whole day"));
        }
        Ok(Self { start, end })
    }
}

fn minutes(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |text: &str| {
        let is_two_digits = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
        is_two_digits.then(|| text.parse::<u16>().ok()).flatten()
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let total = hours * 60 + minutes;
    (minutes < 60 && total <= MINUTES_PER_DAY).then_some(total)
}

/// Parses the name of one day.
impl FromStr for Days {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = DAY_NAMES.iter().zip(0_u8..).find(|(name, _)| **name == text);
        found
            .map(|(_, day)| Self(1 << day))
            .ok_or_else(|| format!("{text:?} is no day: use mon, tue, wed, thu, fri, sat or sun"))
    }
}

impl FromIterator<Self> for Days {
    fn from_iter<I: IntoIterator<Item = Self>>(days: I) -> Self {
        days.into_iter().fold(Self(0), |all, day| Self(all.0 | day.0))
    }
}

impl fmt::Display for WeeklyHours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        if !self.hours.is_empty() {
            f.write_str("hours")?;
            for Hours { start, end } in &self.hours {
                let (from, to) = ((start / 60, start % 60), (end / 60, end % 60));
                write!(f, " {:02}:{:02}-{:02}:{:02}", from.0, from.1, to.0, to.1)?;
            }
            separator = ", ";
        }
        if self.days != Days::ALL {
            write!(f, "{separator}days")?;
            for (name, _) in DAY_NAMES.iter().zip(0..).filter(|&(_, day)| self.days.has(day)) {
                write!(f, " {name}")?;
            }
        }
        write!(f, " ({})", self.zone.iana_name().unwrap_or("local time"))
    }
}

/// Finds a time zone by its name in the database of zones, or UTC.
pub fn time_zone(name: &str) -> Result<TimeZone, String> {
    if name == "UTC" {
        return Ok(TimeZone::UTC);
    }
    TimeZone::get(name).map_err(|_| {
        format!("{name:?} is no time zone known here: use one as in \"UTC\" or \"Europe/Berlin\"")
    })
}
