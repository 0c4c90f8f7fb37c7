//! Windows of the week in which nothing is rotated.

use std::fmt;

use jiff::tz::TimeZone;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};

use crate::model::{Days, Hours, Timestamp, WeeklyHours};

/// All windows together; at some time of the week none is open.
#[derive(Clone, Debug, Default)]
pub(super) struct Quiet(Vec<WeeklyHours>);

impl Quiet {
    pub(super) fn new(windows: Vec<Window>, zone: &TimeZone) -> Result<Self, String> {
        let of = |zone: TimeZone| {
            let weekly =
                |window: &Window| WeeklyHours::new(zone.clone(), window.hours.clone(), window.days);
            Self(windows.iter().map(weekly).collect())
        };
        // A week is looked through where no clocks are changed.
        let start = Timestamp::UNIX_EPOCH;
        let end = start + std::time::Duration::from_secs(7 * 24 * 60 * 60);
        if of(TimeZone::UTC).end(start) >= end {
            return Err("the quiet windows leave no time at all".into());
        }
        Ok(of(zone.clone()))
    }

    pub(super) fn holds(&self, now: Timestamp) -> bool {
        self.0.iter().any(|window| window.holds(now))
    }

    /// Returns the first moment from `from` on in which no window is open.
    pub(super) fn end(&self, from: Timestamp) -> Timestamp {
        let mut at = from;
        while let Some(open) = self.0.iter().find(|window| window.holds(at)) {
            at = open.end(at);
            if at == Timestamp::MAX {
                break;
            }
        }
        at
    }
}

/// One window as it is written: `"08:00-18:00"`, or a table with `hours`, `days` or both.
#[derive(Debug)]
pub(super) struct Window {
    hours: Box<[Hours]>,
    days: Days,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[serde(default)]
    hours: Texts,
    #[serde(default)]
    days: Texts,
}

/// One text or a list of them.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a string or a list of strings")]
enum Texts {
    One(String),
    Many(Vec<String>),
}

impl TryFrom<Table> for Window {
    type Error = String;

    fn try_from(table: Table) -> Result<Self, String> {
        if table.hours.is_empty() && table.days.is_empty() {
            return Err("a quiet window needs `hours` or `days`".into());
        }
        let hours =
            table.hours.texts().iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
        let days = table.days.texts().iter().map(|text| text.parse::<Days>());
        let days = if table.days.is_empty() { Days::ALL } else { days.collect::<Result<_, _>>()? };
        Ok(Self { hours, days })
    }
}

impl Texts {
    fn texts(&self) -> &[String] {
        match self {
            Self::One(text) => std::slice::from_ref(text),
            Self::Many(texts) => texts,
        }
    }

    fn is_empty(&self) -> bool {
        self.texts().is_empty()
    }
}

impl Default for Texts {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl<'de> Deserialize<'de> for Window {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_any(WindowVisitor)
    }
}

struct WindowVisitor;

impl<'de> Visitor<'de> for WindowVisitor {
    type Value = Window;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("hours such as \"08:00-18:00\", or a table with `hours` and `days`")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Window, E> {
        let hours = text.parse().map_err(E::custom)?;
        Ok(Window { hours: [hours].into(), days: Days::ALL })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Window, A::Error> {
        let table = Table::deserialize(MapAccessDeserializer::new(map))?;
        table.try_into().map_err(A::Error::custom)
    }
}
