//! A timetable as the configuration holds it.
//!
//! ```toml
//! every = "30d"
//! quiet = ["08:00-18:00", { days = ["sat", "sun"] }]
//! jitter = "2h"
//! timezone = "Europe/Berlin"
//! ```

use std::time::Duration;

use jiff::tz::TimeZone;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

use crate::model::{Timestamp, parse_span, time_zone};

use super::cron::Cron;
use super::quiet::{Quiet, Window};

const DEFAULT_BEFORE_EXPIRY: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Spans above this are typing errors, and sums of them leave the calendar.
const LONGEST_SPAN: Duration = Duration::from_secs(100 * 366 * 24 * 60 * 60);

/// When secrets are due: what comes first of their age, a cron expression and their expiry.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Settings")]
pub struct Timetable {
    every: Option<Duration>,
    cron: Option<Cron>,
    before_expiry: Duration,
    quiet: Quiet,
    jitter: Duration,
    zone: TimeZone,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    every: Option<Span>,
    cron: Option<Cron>,
    before_expiry: Option<Span>,
    #[serde(default)]
    quiet: Vec<Window>,
    jitter: Option<Span>,
    timezone: Option<Zone>,
}

impl Timetable {
    pub(super) fn every(&self) -> Option<Duration> {
        self.every
    }

    pub(super) fn has_cron(&self) -> bool {
        self.cron.is_some()
    }

    pub(super) fn by_cron(&self, since: Timestamp) -> Option<Timestamp> {
        self.cron.as_ref()?.next(since, &self.zone)
    }

    pub(super) fn before_expiry(&self) -> Duration {
        self.before_expiry
    }

    pub(super) fn longest_jitter(&self) -> Duration {
        self.jitter
    }

    pub(super) fn quiet(&self) -> &Quiet {
        &self.quiet
    }
}

impl TryFrom<Settings> for Timetable {
    type Error = String;

    fn try_from(settings: Settings) -> Result<Self, String> {
        let zone = settings.timezone.map_or_else(TimeZone::system, |Zone(zone)| zone);
        let every = settings.every.map(|Span(every)| every);
        if every.is_some_and(|every| every.is_zero()) {
            return Err("`every` must not be nothing: leave it out".into());
        }
        Ok(Self {
            every,
            cron: settings.cron,
            before_expiry: settings.before_expiry.map_or(DEFAULT_BEFORE_EXPIRY, |Span(span)| span),
            quiet: Quiet::new(settings.quiet, &zone)?,
            jitter: settings.jitter.map_or(Duration::ZERO, |Span(span)| span),
            zone,
        })
    }
}

/// What holds where nothing is configured: by the secret's own `rotation_days`, and before it expires.
impl Default for Timetable {
    fn default() -> Self {
        Self {
            every: None,
            cron: None,
            before_expiry: DEFAULT_BEFORE_EXPIRY,
            quiet: Quiet::default(),
            jitter: Duration::ZERO,
            zone: TimeZone::system(),
        }
    }
}

struct Span(Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let text = String::deserialize(input)?;
        let span = parse_span(&text).filter(|&span| span <= LONGEST_SPAN);
        span.map(Self).ok_or_else(|| {
            let why =
                format!("{text:?} is no span: write it as \"90d\", \"12h\", \"30m\" or \"2w\"");
            D::Error::custom(why)
        })
    }
}

struct Zone(TimeZone);

impl<'de> Deserialize<'de> for Zone {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        time_zone(&String::deserialize(input)?).map(Self).map_err(D::Error::custom)
    }
}
