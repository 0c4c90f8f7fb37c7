//! Moments as people write them: a date, a time, or a span from now.

use jiff::{Timestamp, civil::Date, tz::TimeZone};

use crate::model::parse_span;

/// Which way a span such as `2h` points.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Direction {
    Ago,
    FromNow,
}

/// Parses `2027-01-31` (midnight, UTC), `2027-01-31T12:00:00Z`, or `90d`, `12h`, `30m`, `45s`, `2w`.
pub(crate) fn parse(text: &str, now: Timestamp, way: Direction) -> Result<Timestamp, String> {
    if let Some(span) = parse_span(text) {
        let moved = match way {
            Direction::Ago => now.checked_sub(span),
            Direction::FromNow => now.checked_add(span),
        };
        return moved.map_err(|_| format!("{text:?} is too far away"));
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let date = text.parse::<Date>().ok().and_then(|date| date.to_zoned(TimeZone::UTC).ok());
    date.map(|date| date.timestamp()).ok_or_else(|| {
        format!("{text:?} is no time: use 2027-01-31, 2027-01-31T12:00:00Z or a span such as 90d")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_times_and_spans_are_understood() {
        let now: Timestamp = "2026-11-24T12:00:00Z".parse().unwrap();
        let cases = [
            ("2027-01-31", Direction::FromNow, "2027-01-31T00:00:00Z"),
            ("2027-01-31T10:00:00+02:00", Direction::FromNow, "2027-01-31T08:00:00Z"),
            ("90d", Direction::FromNow, "2027-02-22T12:00:00Z"),
            ("2h", Direction::Ago, "2026-11-24T10:00:00Z"),
            ("1w", Direction::Ago, "2026-11-17T12:00:00Z"),
        ];
        for (text, way, expected) in cases {
            assert_eq!(parse(text, now, way).unwrap().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused_and_huge_spans_do_not_overflow() {
        let now = Timestamp::UNIX_EPOCH;
        for bad in ["", "d", "tomorrow", "1y", "-5d", "99999999999999w", "2027-13-01"] {
            assert!(parse(bad, now, Direction::FromNow).is_err(), "{bad:?}");
        }
    }
}
