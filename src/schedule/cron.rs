//! Cron expressions of five fields, in a time zone.
//!
//! The pattern is matched against the local clock. An hour that the change to summer time leaves out is
//! made up for when the clocks have changed; one that comes twice in autumn counts once.

use cronexpr::{Crontab, FallbackTimezoneOption, ParseOptions};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use serde::de::{Deserialize, Deserializer, Error as _};

/// An expression that matches some day.
#[derive(Clone, Debug)]
pub(super) struct Cron(Crontab);

impl Cron {
    /// Returns the first moment after `since` that matches.
    pub(super) fn next(&self, since: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let mut local = zone.to_datetime(since);
        loop {
            local = self.next_local(local)?;
            let next = zone.to_ambiguous_timestamp(local).compatible().ok()?;
            // When the clocks were just set back, local time is behind `since` once more.
            if next > since {
                return Some(next);
            }
        }
    }

    /// The library's own time zones pass over what summer time leaves out, so it is told that it is UTC.
    fn next_local(&self, local: DateTime) -> Option<DateTime> {
        let mut from = local;
        // A 29 February may be eight years away, and the library looks four years ahead.
        for _ in 0..3 {
            let start = TimeZone::UTC.to_timestamp(from).ok()?;
            // Its arithmetic falls over at the end of time.
            if from.year() > 9000 {
                return None;
            }
            if let Ok(found) = self.0.find_next(start) {
                return Some(found.datetime());
            }
            from = from.checked_add(Span::new().years(4)).ok()?;
        }
        None
    }
}

impl std::str::FromStr for Cron {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let error = |why: &str| Err(format!("{text:?} is no cron expression: {why}"));
        if text.split_whitespace().count() != 5 {
            return error("it has five fields: minute, hour, day, month and weekday");
        }
        let mut options = ParseOptions::default();
        options.fallback_timezone_option = FallbackTimezoneOption::UTC;
        let cron = match cronexpr::parse_crontab_with(text, options) {
            Ok(crontab) => Self(crontab),
            // Of its drawing of the place, the words behind the mark.
            Err(why) => {
                let why = why.to_string();
                return error(why.rsplit('^').next().unwrap_or(&why).trim());
            }
        };
        if cron.next_local(DateTime::constant(2000, 1, 1, 0, 0, 0, 0)).is_none() {
            return error("no day is like that");
        }
        Ok(cron)
    }
}

impl<'de> Deserialize<'de> for Cron {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        String::deserialize(input)?.parse().map_err(D::Error::custom)
    }
}
