//! The pictures: accesses over time, hours of the week, who reads most, how old values are.
//!
//! SVG that stretches, with labels in HTML beside it, so that texts are as large on a phone as on a desk.
//! Each shape has a title, each picture a table.

use std::fmt::{self, Write as _};

use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::Text;
use crate::report::{Count, Facts, Report, SecretFacts, Tally};

/// More days than these are drawn by the week.
const MAX_BARS: usize = 120;

/// Callers and values that are drawn; the newest or largest.
const MAX_RANKED: usize = 20;

const WEEKDAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// Writes all of them.
pub(super) fn all(out: &mut String, report: &Report, facts: &Facts) -> fmt::Result {
    out.push_str("<h2 id=\"accesses\">Accesses</h2>\n");
    if facts.tally.accesses.all() == 0 {
        out.push_str("<p>There was no access in the period.</p>\n");
    } else {
        over_time(out, &facts.tally, facts)?;
        by_hour(out, &facts.tally)?;
        readers(out, &facts.tally)?;
    }
    out.push_str("<h2 id=\"ages\">Age of values</h2>\n");
    ages(out, report, facts)
}

fn over_time(out: &mut String, tally: &Tally, facts: &Facts) -> fmt::Result {
    let bars = by_date(tally, facts);
    let (unit, number) = if bars.len() > MAX_BARS { ("week", 7) } else { ("day", 1) };
    let bars: Vec<(String, Count)> = bars
        .chunks(number)
        .map(|days| {
            let first = days.first().map(|(day, _)| day.to_string()).unwrap_or_default();
            (first, days.iter().fold(Count::default(), |sum, (_, count)| sum.plus(*count)))
        })
        .collect();
    let most = bars.iter().map(|(_, count)| count.all()).max().unwrap_or(0);
    let worst = bars.iter().map(|(_, count)| count.bad()).max().unwrap_or(0);
    writeln!(
        out,
        "<figure><figcaption>Accesses by {unit}: <span class=\"key use\"></span>allowed \
         <span class=\"key bad\"></span>refused or failed</figcaption>"
    )?;
    columns(out, "bars", "accesses", &bars, most, |count| [count.allowed, count.bad()])?;
    out.push_str("</figure>\n");
    if worst > 0 {
        writeln!(out, "<figure><figcaption>Of these, refused or failed</figcaption>")?;
        columns(out, "bars thin", "refused or failed", &bars, worst, |count| [0, count.bad()])?;
        out.push_str("</figure>\n");
    }
    let rows: Vec<Vec<String>> = bars
        .iter()
        .map(|(day, count)| {
            let Count { allowed, denied, failed } = *count;
            let numbers = [count.all(), allowed, denied, failed].map(|number| number.to_string());
            [vec![day.clone()], numbers.to_vec()].concat()
        })
        .collect();
    numbers(out, "days", &[unit, "accesses", "allowed", "denied", "failed"], &rows)
}

/// Returns a count for every day of the period, from the first with an access on.
fn by_date(tally: &Tally, facts: &Facts) -> Vec<(Date, Count)> {
    let first = tally.days.keys().next().and_then(|day| day.parse::<Date>().ok());
    let last = facts.made.to_zoned(TimeZone::UTC).date();
    let counted = tally.days.keys().next_back().and_then(|day| day.parse::<Date>().ok());
    let (Some(first), Some(counted)) = (first, counted) else { return Vec::new() };
    let last = last.max(counted);
    let days = first.series(jiff::Span::new().days(1)).take_while(|day| *day <= last);
    days.map(|day| (day, tally.days.get(&day.to_string()).copied().unwrap_or_default())).collect()
}

/// Draws columns of two parts, the second on top of the first.
fn columns(
    out: &mut String,
    class: &str,
    what: &str,
    bars: &[(String, Count)],
    most: u64,
    parts: impl Fn(Count) -> [u64; 2],
) -> fmt::Result {
    let ends = [bars.first(), bars.last()].map(|bar| bar.map_or("", |(day, _)| day.as_str()));
    let middle = bars.get(bars.len() / 2).filter(|_| bars.len() > 4);
    write!(
        out,
        "<div class=\"plot {class}\"><div class=\"axis\"><span>{most}</span><span>0</span></div>\
         <svg viewBox=\"0 0 {} 100\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{what}, {} to {}, at most {most}\">",
        bars.len(),
        ends[0],
        ends[1]
    )?;
    for (index, (day, count)) in bars.iter().enumerate() {
        let [low, high] = parts(*count).map(|part| share(part, most) * 100.0);
        if low + high <= 0.0 {
            continue;
        }
        write!(
            out,
            "<g><title>{day}: {} accesses, {} refused or failed</title>\
             <rect class=\"use\" x=\"{index}.1\" y=\"{:.2}\" width=\"0.8\" height=\"{low:.2}\"/>\
             <rect class=\"bad\" x=\"{index}.1\" y=\"{:.2}\" width=\"0.8\" height=\"{high:.2}\"/></g>",
            count.all(),
            count.bad(),
            100.0 - low,
            100.0 - low - high
        )?;
    }
    write!(out, "</svg><div class=\"ticks\"><span>{}</span>", ends[0])?;
    if let Some((day, _)) = middle {
        write!(out, "<span>{day}</span>")?;
    }
    if bars.len() > 1 {
        write!(out, "<span>{}</span>", ends[1])?;
    }
    out.push_str("</div></div>\n");
    Ok(())
}

fn by_hour(out: &mut String, tally: &Tally) -> fmt::Result {
    let most = tally.hours.iter().flatten().copied().max().unwrap_or(0);
    out.push_str("<figure><figcaption>Accesses by weekday and hour, UTC: the stronger the colour, the more</figcaption>\n<div class=\"plot heat\"><div class=\"axis\">");
    WEEKDAYS.iter().try_for_each(|day| write!(out, "<span>{day}</span>"))?;
    write!(
        out,
        "</div><svg viewBox=\"0 0 24 7\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"accesses by weekday and hour, at most {most} in one hour of a weekday\">"
    )?;
    for ((row, day), hours) in WEEKDAYS.iter().enumerate().zip(&tally.hours) {
        for (hour, number) in hours.iter().enumerate().filter(|(_, number)| **number > 0) {
            // A square root, so that the quiet hours differ too.
            write!(
                out,
                "<rect class=\"use\" x=\"{hour}.03\" y=\"{row}.04\" width=\"0.94\" height=\"0.92\" fill-opacity=\"{:.2}\">\
                 <title>{day} {hour}:00: {number} accesses</title></rect>",
                0.08 + 0.92 * share(*number, most).sqrt()
            )?;
        }
    }
    out.push_str("</svg><div class=\"ticks\"><span>0</span><span>6</span><span>12</span><span>18</span><span>24</span></div></div></figure>\n");
    let hours: Vec<String> = (0..24).map(|hour| hour.to_string()).collect();
    let columns: Vec<&str> = ["day"].into_iter().chain(hours.iter().map(String::as_str)).collect();
    let row = |(day, hours): (&&str, &[u64; 24])| {
        [(*day).to_owned()].into_iter().chain(hours.iter().map(u64::to_string)).collect()
    };
    let rows: Vec<Vec<String>> = WEEKDAYS.iter().zip(&tally.hours).map(row).collect();
    numbers(out, "hours", &columns, &rows)
}

fn readers(out: &mut String, tally: &Tally) -> fmt::Result {
    let readers = tally.readers();
    let Some((_, most)) = readers.first() else { return Ok(()) };
    let shown = readers.len().min(MAX_RANKED);
    writeln!(
        out,
        "<figure><figcaption>Who reads most: {shown} of {}</figcaption>\n<table class=\"ranked\" id=\"numbers-readers\">\
         <thead><tr><th scope=\"col\">User</th><th scope=\"col\">Program</th><th scope=\"col\" aria-hidden=\"true\"></th>\
         <th scope=\"col\" class=\"number\">Reads</th></tr></thead>\n<tbody>",
        readers.len()
    )?;
    for (caller, number) in readers.iter().take(MAX_RANKED) {
        writeln!(
            out,
            "<tr><td>{}</td><td>{}</td><td class=\"bar\">{}</td><td class=\"number\">{number}</td></tr>",
            Text(&tally.name_of(caller.uid)),
            Text(caller.exe.as_deref().unwrap_or("not known")),
            Bar { share: share(*number, *most), class: "use" },
        )?;
    }
    out.push_str("</tbody></table></figure>\n");
    Ok(())
}

fn ages(out: &mut String, report: &Report, facts: &Facts) -> fmt::Result {
    let aged =
        facts.secrets.iter().filter_map(|secret| Some((secret, secret.age_days(facts.made)?)));
    let mut aged: Vec<(&SecretFacts, i64)> = aged.collect();
    let Some(most) = aged.iter().map(|(_, age)| *age).max() else {
        out.push_str("<p>Of no secret it is known when it got its value.</p>\n");
        return Ok(());
    };
    aged.sort_by_key(|(secret, age)| (std::cmp::Reverse(*age), &secret.name));
    let buckets = [(0, "0-30"), (31, "31-90"), (91, "91-180"), (181, "181-365"), (366, "over 365")];
    let counted: Vec<u64> = (0..buckets.len())
        .map(|index| {
            let from = buckets.get(index).map_or(0, |(from, _)| *from);
            let to = buckets.get(index + 1).map_or(i64::MAX, |(from, _)| *from);
            aged.iter().filter(|(_, age)| (from..to).contains(age)).count() as u64
        })
        .collect();
    let top = counted.iter().copied().max().unwrap_or(0);
    write!(
        out,
        "<figure><figcaption>Secrets by the age of their value in days</figcaption>\n<div class=\"plot bars hist\">\
         <div class=\"axis\"><span>{top}</span><span>0</span></div><svg viewBox=\"0 0 {} 100\" preserveAspectRatio=\"none\" \
         role=\"img\" aria-label=\"secrets by the age of their value\">",
        buckets.len()
    )?;
    for (index, ((_, days), number)) in buckets.iter().zip(&counted).enumerate() {
        let height = share(*number, top) * 100.0;
        write!(
            out,
            "<rect class=\"use\" x=\"{index}.15\" y=\"{:.2}\" width=\"0.7\" height=\"{height:.2}\"><title>{days} days: {number} secrets</title></rect>",
            100.0 - height
        )?;
    }
    out.push_str("</svg><div class=\"ticks\">");
    buckets.iter().try_for_each(|(_, days)| write!(out, "<span>{days}</span>"))?;
    out.push_str("</div></div></figure>\n");
    let rows = buckets.iter().zip(&counted);
    let rows: Vec<_> =
        rows.map(|((_, days), number)| vec![(*days).to_owned(), number.to_string()]).collect();
    numbers(out, "ages", &["days", "secrets"], &rows)?;
    oldest(out, &aged, (most, report.limits.value_days))
}

fn oldest(
    out: &mut String,
    aged: &[(&SecretFacts, i64)],
    (most, limit): (i64, i64),
) -> fmt::Result {
    writeln!(
        out,
        "<figure><figcaption>The oldest values: {} of {}</figcaption>\n<table class=\"ranked\" id=\"numbers-oldest\"><thead><tr>\
         <th scope=\"col\">Secret</th><th scope=\"col\">Value since</th><th scope=\"col\" aria-hidden=\"true\"></th>\
         <th scope=\"col\" class=\"number\">Days</th></tr></thead>\n<tbody>",
        aged.len().min(MAX_RANKED),
        aged.len()
    )?;
    for (secret, age) in aged.iter().take(MAX_RANKED) {
        let limit = secret.rotation_days.map_or(limit, i64::from);
        let of = |days: i64| u64::try_from(days).unwrap_or(0);
        let since = secret.value_since.map(|since| since.strftime("%F").to_string());
        writeln!(
            out,
            "<tr><td>{}</td><td>{}</td><td class=\"bar\">{}</td><td class=\"number\">{age}</td></tr>",
            Text(secret.name.as_str()),
            since.unwrap_or_default(),
            Bar {
                share: share(of(*age), of(most)),
                class: if *age > limit { "bad" } else { "use" },
            },
        )?;
    }
    out.push_str("</tbody></table></figure>\n");
    Ok(())
}

/// Writes the table behind a picture.
fn numbers(out: &mut String, name: &str, columns: &[&str], rows: &[Vec<String>]) -> fmt::Result {
    writeln!(
        out,
        "<details id=\"numbers-{name}\" class=\"{name}\"><summary>The numbers</summary>"
    )?;
    super::table(out, columns, rows)?;
    out.push_str("</details>\n");
    Ok(())
}

/// A bar in a row of a table, whose number stands beside it.
struct Bar {
    share: f64,
    class: &'static str,
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.share <= 0.0 {
            return Ok(());
        }
        write!(
            f,
            "<svg viewBox=\"0 0 100 1\" preserveAspectRatio=\"none\" aria-hidden=\"true\"><rect class=\"{}\" width=\"{:.2}\" height=\"1\"/></svg>",
            self.class,
            self.share * 100.0
        )
    }
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

impl Count {
    fn plus(self, other: Self) -> Self {
        Self {
            allowed: self.allowed + other.allowed,
            denied: self.denied + other.denied,
            failed: self.failed + other.failed,
        }
    }
}
