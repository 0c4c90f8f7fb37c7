//! The report as one page that needs nothing else: no script, no font, no picture from elsewhere.
//!
//! Every text goes through `Text`, for names of programs are whatever their makers liked. Behind each
//! picture stands the table of its numbers, for who cannot see it.

mod chart;
mod matrix;

use std::fmt::{self, Write as _};

use super::{Chain, Facts, Named, Report, Verdict};
use crate::model::Timestamp;

const STYLE: &str = include_str!("style.css");

/// A text as it stands in a page: no markup, and nothing that cannot be seen.
struct Text<'a>(&'a str);

/// Draws the report as a page.
pub fn page(report: &Report, facts: &Facts) -> String {
    let title = format!("secretfs report: {}", report.title);
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; \
         base-uri 'none'; form-action 'none'\">\n<title>{0}</title><style>{STYLE}</style></head>\n<body>\n\
         <header><h1>{0}</h1>\n<p class=\"soft\">{1} to {2} UTC; made of {3}.</p></header>\n<main>\n\
         <p class=\"note\">{4}</p>\n",
        Text(&title),
        moment(report.since),
        moment(report.made),
        Text(&report.source),
        Text(report.disclaimer),
    );
    // Writing to a string does not fail.
    let _ = tiles(&mut out, report, facts)
        .and_then(|()| findings(&mut out, report))
        .and_then(|()| controls(&mut out, report))
        .and_then(|()| chart::all(&mut out, report, facts))
        .and_then(|()| matrix::section(&mut out, facts))
        .and_then(|()| evidence(&mut out, report));
    out.push_str("</main>\n</body></html>\n");
    out
}

fn moment(time: Timestamp) -> String {
    time.strftime("%F %H:%M").to_string()
}

fn tiles(out: &mut String, report: &Report, facts: &Facts) -> fmt::Result {
    let controls = |verdict| {
        report.controls.iter().filter(|control| control.verdict == verdict).count().to_string()
    };
    let log = match &facts.chain {
        Chain::Broken { .. } => "broken",
        Chain::Unchecked => "not checked",
        Chain::Whole { .. } => "whole",
    };
    let oldest = facts.secrets.iter().filter_map(|secret| secret.age_days(facts.made)).max();
    let accesses = facts.tally.accesses;
    let tiles = [
        ("controls failed", controls(Verdict::Fail)),
        ("controls passed", controls(Verdict::Pass)),
        ("not evidenced", controls(Verdict::NotEvidenced)),
        ("audit log", log.to_owned()),
        ("accesses", accesses.all().to_string()),
        ("refused or failed", (accesses.bad() + facts.tally.counted_refusals).to_string()),
        ("secrets", facts.secrets.len().to_string()),
        (
            "days, the oldest value",
            oldest.map_or_else(|| "unknown".into(), |days| days.to_string()),
        ),
    ];
    out.push_str("<div class=\"tiles\">\n");
    for (what, number) in tiles {
        writeln!(out, "<div class=\"tile\"><b>{}</b><span>{what}</span></div>", Text(&number))?;
    }
    out.push_str("</div>\n");
    Ok(())
}

fn findings(out: &mut String, report: &Report) -> fmt::Result {
    out.push_str("<h2 id=\"findings\">Findings</h2>\n");
    if report.findings.is_empty() {
        out.push_str("<p>No check has failed.</p>\n");
        return Ok(());
    }
    out.push_str("<ol class=\"findings\">\n");
    for finding in &report.findings {
        writeln!(
            out,
            "<li><b>{}: failed.</b> {} <a href=\"#{}\">Evidence</a></li>",
            Text(finding.title),
            Text(&finding.outcome.said),
            finding.check
        )?;
    }
    out.push_str("</ol>\n");
    Ok(())
}

fn controls(out: &mut String, report: &Report) -> fmt::Result {
    out.push_str(
        "<h2 id=\"controls\">Controls</h2>\n<table class=\"controls\"><thead><tr><th scope=\"col\">Control</th>\
         <th scope=\"col\">Result</th><th scope=\"col\">What was found</th></tr></thead>\n<tbody>\n",
    );
    for control in &report.controls {
        write!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{}\n<ul>",
            Text(&control.id),
            Badge(control.verdict),
            Text(&control.title)
        )?;
        let checks = control
            .checks
            .iter()
            .filter_map(|check| report.checks.iter().find(|named| named.check == check.as_str()));
        for named in checks {
            writeln!(
                out,
                "<li>{} <a href=\"#{}\">{}</a>: <span class=\"soft\">{}</span></li>",
                Badge(named.outcome.verdict),
                named.check,
                Text(named.title),
                Text(&named.outcome.said)
            )?;
        }
        out.push_str("</ul></td></tr>\n");
    }
    out.push_str("</tbody></table>\n");
    Ok(())
}

fn evidence(out: &mut String, report: &Report) -> fmt::Result {
    out.push_str("<h2 id=\"evidence\">Evidence</h2>\n");
    for Named { check, title, outcome } in &report.checks {
        writeln!(
            out,
            "<section id=\"{check}\"><h3>{} {}</h3>\n<p>{}</p>",
            Text(title),
            Badge(outcome.verdict),
            Text(&outcome.said)
        )?;
        if !outcome.rows.is_empty() {
            let shown = outcome.rows.len();
            let more = match outcome.more {
                0 => String::new(),
                more => format!(" of {}", shown + more),
            };
            let rows = if shown == 1 { "row" } else { "rows" };
            writeln!(out, "<details><summary>{shown}{more} {rows}</summary>")?;
            table(out, &outcome.columns, &outcome.rows)?;
            out.push_str("</details>\n");
        }
        out.push_str("</section>\n");
    }
    Ok(())
}

/// Writes a table; columns of numbers alone stand to the right.
fn table(out: &mut String, columns: &[&str], rows: &[Vec<String>]) -> fmt::Result {
    let is_number = |index: usize| {
        rows.iter().all(|row| {
            row.get(index).is_some_and(|cell| {
                !cell.is_empty() && cell.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
            })
        })
    };
    let class = |index| if is_number(index) { " class=\"number\"" } else { "" };
    out.push_str("<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"table\"><table><thead><tr>");
    for (index, column) in columns.iter().enumerate() {
        write!(out, "<th scope=\"col\"{}>{}</th>", class(index), Text(column))?;
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for row in rows {
        out.push_str("<tr>");
        for (index, cell) in row.iter().enumerate() {
            write!(out, "<td{}>{}</td>", class(index), Text(cell))?;
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table></div>\n");
    Ok(())
}

struct Badge(Verdict);

impl fmt::Display for Badge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = self.0.as_str();
        write!(f, "<span class=\"verdict {}\">{words}</span>", words.replace(' ', "_"))
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            // What turns the direction of a text, or is not seen, could pose as another name.
            '\u{61c}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}' => f.write_char('\u{fffd}'),
            c if c.is_control() => f.write_char('\u{fffd}'),
            c => f.write_char(c),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Text;

    #[test]
    fn a_text_is_no_markup_and_hides_nothing() {
        let hostile = "</td><script>'\"&\u{1b}\u{202e}\n";
        let shown = "&lt;/td&gt;&lt;script&gt;&#39;&quot;&amp;\u{fffd}\u{fffd}\u{fffd}";
        assert_eq!(Text(hostile).to_string(), shown);
    }
}
