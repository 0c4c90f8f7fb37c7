//! `log --stats`, and the totals above `log NAME`: counts of the lines that fit, with what retention removed.
//!
//! Of what was removed there are counts a secret, user, program, unit and day, each by itself. So they are added
//! where one of these alone is asked for, and left out, saying so, where a filter asks for more.

use std::collections::BTreeMap;
use std::fs;

use serde::Serialize;
use serde_json::Value;

use super::{Done, Filter};
use crate::audit::{Counts, Totals};
use crate::cli::client::Client;
use crate::cli::error::{Failure, Kind};
use crate::cli::out::Out;
use crate::model::Timestamp;

/// Counts of lines.
#[derive(Debug, Default, Serialize)]
pub(super) struct Stats {
    total: Count,
    /// Of these, those that are not in the log any more.
    removed: Count,
    /// Whether the log has lost lines whose counts cannot be told by what is asked for.
    incomplete: bool,
    secrets: BTreeMap<String, Count>,
    uids: BTreeMap<String, Count>,
    exes: BTreeMap<String, Count>,
    units: BTreeMap<String, Count>,
    /// By date in UTC.
    days: BTreeMap<String, Count>,
    /// By hour in UTC, of what is in the log.
    hours: [Count; 24],
}

/// How many lines ended in which way.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub(super) struct Count {
    allowed: u64,
    denied: u64,
    failed: u64,
}

impl Count {
    fn all(self) -> u64 {
        self.allowed + self.denied + self.failed
    }

    fn bad(self) -> u64 {
        self.denied + self.failed
    }

    fn add(&mut self, other: Self) {
        self.allowed += other.allowed;
        self.denied += other.denied;
        self.failed += other.failed;
    }
}

impl From<&Counts> for Count {
    fn from(counts: &Counts) -> Self {
        Self { allowed: counts.allowed, denied: counts.denied, failed: counts.failed }
    }
}

impl Stats {
    /// Counts an event of the log.
    pub(super) fn count(&mut self, event: &Value) {
        let text = |key: &str| event.get(key).and_then(Value::as_str);
        let one = match text("outcome") {
            Some("denied") => Count { denied: 1, ..Count::default() },
            Some("failed") => Count { failed: 1, ..Count::default() },
            _ => Count { allowed: 1, ..Count::default() },
        };
        self.total.add(one);
        let uid = event.get("uid").and_then(Value::as_u64).map(|uid| uid.to_string());
        let keys = [
            (&mut self.secrets, text("secret").map(str::to_owned)),
            (&mut self.uids, uid),
            (&mut self.exes, text("exe").map(str::to_owned)),
            (&mut self.units, text("unit").map(str::to_owned)),
            (&mut self.days, text("time").and_then(|time| time.get(..10)).map(str::to_owned)),
        ];
        for (counts, key) in keys {
            key.into_iter().for_each(|key| counts.entry(key).or_default().add(one));
        }
        let hour = text("time").and_then(|time| time.get(11..13)?.parse::<usize>().ok());
        if let Some(hour) = hour.and_then(|hour| self.hours.get_mut(hour)) {
            hour.add(one);
        }
    }

    /// Adds what retention has removed, as far as it is known by what the filter asks for.
    pub(super) fn add_removed(&mut self, client: &Client, filter: &Filter) -> Done {
        let path = client.path(".control/audit/totals");
        let text = fs::read(path).map_err(|err| Failure::from_errno("the totals", &err))?;
        let totals: Totals = serde_json::from_slice(&text).map_err(|err| {
            Failure::new(Kind::BackendConnection, "the totals of the log", err.to_string())
        })?;
        self.add_totals(&totals, filter);
        Ok(())
    }

    fn add_totals(&mut self, totals: &Totals, filter: &Filter) {
        if totals.lines == 0 {
            return;
        }
        let mut add = |counts: &mut BTreeMap<String, Count>, key: String, count: &Counts| {
            counts.entry(key).or_default().add(count.into());
            self.removed.add(count.into());
        };
        match filter.sole() {
            Some(Sole::Nothing) => {
                totals
                    .secrets
                    .iter()
                    .for_each(|(name, count)| add(&mut self.secrets, name.clone(), count));
                self.removed.add((&totals.other).into());
                let others = [
                    (&mut self.exes, &totals.exes),
                    (&mut self.units, &totals.units),
                    (&mut self.days, &totals.days),
                ];
                for (counts, removed) in others {
                    removed.iter().for_each(|(key, count)| {
                        counts.entry(key.clone()).or_default().add(count.into())
                    });
                }
                for (uid, count) in &totals.uids {
                    self.uids.entry(uid.to_string()).or_default().add(count.into());
                }
            }
            Some(Sole::Name(wanted)) => {
                let below = |name: &str| {
                    name.parse().is_ok_and(|name: crate::model::SecretName| {
                        name == *wanted || name.is_below(wanted)
                    })
                };
                let found = totals.secrets.iter().filter(|(name, _)| below(name));
                found.for_each(|(name, count)| add(&mut self.secrets, name.clone(), count));
            }
            Some(Sole::Uid(wanted)) => {
                let found = totals.uids.iter().filter(|(uid, _)| uid.0 == wanted);
                found.for_each(|(uid, count)| add(&mut self.uids, uid.to_string(), count));
            }
            Some(Sole::Exe(wanted)) => {
                let found = totals.exes.iter().filter(|(exe, _)| *exe == wanted);
                found.for_each(|(exe, count)| add(&mut self.exes, exe.clone(), count));
            }
            Some(Sole::Unit(wanted)) => {
                let is_it = |unit: &str| unit == wanted || unit.rsplit('/').next() == Some(wanted);
                let found = totals.units.iter().filter(|(unit, _)| is_it(unit));
                found.for_each(|(unit, count)| add(&mut self.units, unit.clone(), count));
            }
            None => self.incomplete = true,
        }
        self.total.add(self.removed);
    }

    /// Returns the totals in one line.
    pub(super) fn line(&self) -> String {
        let Count { allowed, denied, failed } = self.total;
        let all = self.total.all();
        let entries = if all == 1 { "entry" } else { "entries" };
        let mut line =
            format!("{all} {entries}: {allowed} allowed, {denied} denied, {failed} failed");
        if self.removed.all() > 0 {
            line.push_str(&format!("; {} of them are no longer in the log", self.removed.all()));
        }
        if self.incomplete {
            line.push_str(
                "; older ones, which retention has removed, are not counted by this filter",
            );
        }
        line
    }

    /// Prints everything: pictures on a terminal, rows elsewhere, an object in `--json`.
    pub(super) fn show(&self, out: &Out, now: Timestamp) -> Done {
        out.json(&serde_json::to_value(self).unwrap_or(Value::Null))?;
        if !out.is_terminal() {
            return out.table(&[], &self.rows());
        }
        out.line(self.line())?;
        let days = self.latest_days(now);
        if let (Some((first, _)), Some((last, _))) = (days.first(), days.last()) {
            let of = |number: fn(Count) -> u64| {
                days.iter().map(|(_, count)| number(*count)).collect::<Vec<_>>()
            };
            let most = of(Count::all).into_iter().max().unwrap_or(0);
            out.line("")?;
            out.line(format!(
                "by day   {}  {first} to {last}, at most {most}",
                sparkline(&of(Count::all))
            ))?;
            if self.total.bad() > 0 {
                out.line(format!("refused  {}", sparkline(&of(Count::bad))))?;
            }
            let hours: Vec<u64> = self.hours.iter().map(|count| count.all()).collect();
            out.line(format!("by hour  {}  0 to 23, UTC", sparkline(&hours)))?;
        }
        for (what, counts) in self.parts() {
            bars(out, what, counts)?;
        }
        Ok(())
    }

    fn parts(&self) -> [(&'static str, &BTreeMap<String, Count>); 4] {
        [
            ("secrets", &self.secrets),
            ("users", &self.uids),
            ("programs", &self.exes),
            ("units", &self.units),
        ]
    }

    /// Rows of kind, key, allowed, denied, failed.
    fn rows(&self) -> Vec<Vec<String>> {
        let row = |what: &str, key: &str, count: &Count| {
            let numbers =
                [count.allowed, count.denied, count.failed].map(|number| number.to_string());
            [vec![what.to_owned(), key.to_owned()], numbers.to_vec()].concat()
        };
        let mut rows = vec![row("total", "", &self.total), row("removed", "", &self.removed)];
        let parts = self.parts().into_iter().chain([("days", &self.days)]);
        rows.extend(parts.flat_map(|(what, counts)| {
            counts.iter().map(move |(key, count)| row(what, key, count))
        }));
        rows
    }

    /// Returns the last sixty days up to today, or from the first with an entry on.
    fn latest_days(&self, now: Timestamp) -> Vec<(String, Count)> {
        let Some(first) = self.days.keys().next() else { return Vec::new() };
        let hours = |days: i64| jiff::SignedDuration::from_hours(days * 24);
        let days = (0..60).rev().filter_map(|ago| now.checked_sub(hours(ago)).ok());
        let days = days.map(|time| time.strftime("%F").to_string()).filter(|day| day >= first);
        days.map(|day| (day.clone(), self.days.get(&day).copied().unwrap_or_default())).collect()
    }
}

/// The one thing that is asked for, where it is one.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Sole<'a> {
    Nothing,
    Exe(&'a str),
    Name(&'a crate::model::SecretName),
    Uid(u32),
    Unit(&'a str),
}

/// Eighths of a block, from the lowest.
const HEIGHTS: [char; 8] = [
    '\u{2581}', '\u{2582}', '\u{2583}', '\u{2584}', '\u{2585}', '\u{2586}', '\u{2587}', '\u{2588}',
];
/// Eighths of a block, from the narrowest.
const WIDTHS: [char; 8] = [
    '\u{258f}', '\u{258e}', '\u{258d}', '\u{258c}', '\u{258b}', '\u{258a}', '\u{2589}', '\u{2588}',
];

/// Draws numbers as columns beside each other. Nothing is a blank, and whatever is not nothing can be seen.
fn sparkline(numbers: &[u64]) -> String {
    let most = numbers.iter().copied().max().unwrap_or(0).max(1);
    let column = |number: &u64| match number {
        0 => ' ',
        number => height(number.saturating_mul(8).div_ceil(most)),
    };
    numbers.iter().map(column).collect()
}

fn height(eighths: u64) -> char {
    let index = usize::try_from(eighths).unwrap_or(8).clamp(1, 8) - 1;
    HEIGHTS.get(index).copied().unwrap_or(' ')
}

/// Draws a number as a bar of at most `width` columns.
fn bar(number: u64, most: u64, width: u64) -> String {
    let eighths = number.saturating_mul(width * 8).div_ceil(most.max(1));
    let full = usize::try_from(eighths / 8).unwrap_or(0);
    let mut bar: String = std::iter::repeat_n('\u{2588}', full).collect();
    let rest = usize::try_from(eighths % 8).unwrap_or(0);
    bar.extend(rest.checked_sub(1).and_then(|index| WIDTHS.get(index)));
    bar
}

/// Prints the ten of a kind that have most.
fn bars(out: &Out, what: &str, counts: &BTreeMap<String, Count>) -> Done {
    const SHOWN: usize = 10;
    let mut ranked: Vec<_> = counts.iter().map(|(key, count)| (key, *count)).collect();
    ranked.sort_by_key(|(key, count)| (std::cmp::Reverse(count.all()), *key));
    let Some((_, first)) = ranked.first() else { return Ok(()) };
    let most = first.all();
    out.line("")?;
    out.line(format!(
        "{what}{}",
        if counts.len() > SHOWN { format!(", {SHOWN} of {}", counts.len()) } else { String::new() }
    ))?;
    let top = ranked.get(..SHOWN).unwrap_or(&ranked);
    let width = top.iter().map(|(key, _)| key.chars().count()).max().unwrap_or(0).min(50);
    for (key, count) in top {
        let refused =
            if count.bad() > 0 { format!("  {} refused", count.bad()) } else { String::new() };
        let key = if key.chars().count() > width { tail_of(key, width) } else { (*key).clone() };
        out.line(format!(
            "  {key:width$}  {:20}  {}{refused}",
            bar(count.all(), most, 20),
            count.all()
        ))?;
    }
    Ok(())
}

/// Returns the end of a text that is too long: names and paths differ there.
fn tail_of(text: &str, width: usize) -> String {
    let skipped = text.chars().count().saturating_sub(width.saturating_sub(3));
    format!("...{}", text.chars().skip(skipped).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn totals() -> Totals {
        let counts = |allowed| json!({"allowed": allowed, "denied": 1, "failed": 0, "last": null});
        serde_json::from_value(json!({
            "run": "", "index": 0, "last_seq": 9, "last_mac": "", "lines": 9, "unreadable": 0, "other": counts(0),
            "secrets": {"prod/a": counts(3), "prod/b": counts(4)}, "uids": {"5": counts(7)},
            "exes": {"/x": counts(7)}, "units": {"s/x.service": counts(7)}, "days": {"2026-01-01": counts(7)},
        }))
        .unwrap()
    }

    fn counted(filter: &Filter) -> Stats {
        let mut stats = Stats::default();
        stats.count(&json!({"time": "2026-11-24T12:00:00Z", "outcome": "failed", "secret": "prod/a", "uid": 5}));
        stats.add_totals(&totals(), filter);
        stats
    }

    #[test]
    fn what_was_removed_is_counted_where_one_thing_is_asked_for_and_said_where_it_cannot_be() {
        let name = |name: &str| Filter { name: name.parse().ok(), ..Filter::default() };
        let uid = Filter { uid: Some(5), ..Filter::default() };
        let both = Filter { uid: Some(5), ..name("prod/a") };
        let unit = Filter { unit: Some("x.service".into()), ..Filter::default() };
        let cases = [
            (Filter::default(), 11),
            (name("prod"), 10),
            (name("prod/a"), 5),
            (uid, 9),
            (unit, 9),
            (both, 1),
        ];
        for (filter, all) in cases {
            let stats = counted(&filter);
            assert_eq!((stats.total.all(), stats.removed.all()), (all, all - 1), "{filter:?}");
            assert_eq!(stats.incomplete, all == 1, "{filter:?}");
            assert_eq!(stats.line().contains("not counted"), all == 1);
        }
    }

    #[test]
    fn a_picture_shows_the_least_and_the_most_and_blanks_for_nothing() {
        assert_eq!(sparkline(&[0, 1, 500, 1000]), " \u{2581}\u{2584}\u{2588}");
        assert_eq!(sparkline(&[0, 0]), "  ");
        assert_eq!(bar(10, 10, 4), "\u{2588}".repeat(4));
        assert_eq!((bar(1, 1000, 4).chars().count(), bar(0, 0, 4).len()), (1, 0));
    }

    #[test]
    fn days_without_an_entry_are_in_the_picture() {
        let now = "2026-11-26T01:00:00Z".parse().unwrap();
        let days = counted(&Filter { uid: Some(6), ..Filter::default() }).latest_days(now);
        let days: Vec<_> = days.iter().map(|(day, count)| (day.as_str(), count.bad())).collect();
        assert_eq!(days, [("2026-11-24", 1), ("2026-11-25", 0), ("2026-11-26", 0)]);
    }
}
