//! The forms in which a scan's result is written down.
//!
//! They are made of [`Scan`] alone, in which no secret is: text of scanned files comes as
//! [`Redacted`](super::Redacted).

use std::fmt::Write as _;
use std::str::FromStr;

use serde_json::{Value, json};

use super::finding::{Finding, Scan, State};

mod csv;
mod html;
mod sarif;
mod text;

/// A form of a report.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Format {
    Csv,
    Html,
    Json,
    Sarif,
    #[default]
    Text,
}

impl Format {
    /// Every form.
    pub const ALL: [Self; 5] = [Self::Text, Self::Json, Self::Sarif, Self::Csv, Self::Html];

    /// Returns the word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Html => "html",
            Self::Json => "json",
            Self::Sarif => "sarif",
            Self::Text => "text",
        }
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|format| format.as_str() == text).ok_or_else(|| {
            let known = Self::ALL.map(Self::as_str).join(", ");
            format!("{text:?} is no format: use one of {known}")
        })
    }
}

/// What a report shows, and how.
#[derive(Clone, Copy, Debug, Default)]
pub struct Look {
    pub color: bool,
    /// Suppressed findings too.
    pub suppressed: bool,
}

/// Writes a report.
pub fn write(scan: &Scan, format: Format, look: Look) -> String {
    match format {
        Format::Csv => csv::write(&shown(scan, look)),
        Format::Html => html::write(scan, &shown(scan, look)),
        Format::Json => pretty(&json_report(scan, look)),
        Format::Sarif => pretty(&sarif::write(scan, &shown(scan, look))),
        Format::Text => text::write(scan, &shown(scan, look), look),
    }
}

/// Returns the report in JSON.
pub fn json_report(scan: &Scan, look: Look) -> Value {
    json!({
        "findings": shown(scan, look).iter().map(|finding| json_finding(finding)).collect::<Vec<_>>(),
        "unread": scan.unread,
        "complete": scan.is_complete(),
        "open": scan.open().count(),
        "totals": scan.totals,
    })
}

fn json_finding(finding: &Finding) -> Value {
    let mut value = json!({
        "rule": finding.rule,
        "description": finding.description,
        "type": finding.kind,
        "severity": finding.severity,
        "confidence": finding.confidence().map(super::Confidence::value),
        "file": finding.place.path,
        "line": finding.place.line,
        "column": finding.place.column,
        "end_line": finding.place.end_line,
        "match": finding.secret,
        "context": finding.context,
        "fingerprint": finding.fingerprint,
        "state": state_word(finding),
    });
    if let Value::Object(members) = &mut value {
        if !finding.encodings.is_empty() {
            members.insert("encodings".into(), json!(finding.encodings));
        }
        if let Some(stored) = &finding.stored {
            members.insert("stored".into(), json!(stored));
        }
        if let Some(commit) = &finding.place.commit {
            members.insert("commit".into(), json!(commit));
        }
        if let Some(reason) = reason(finding) {
            members.insert("reason".into(), json!(reason));
        }
    }
    value
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

/// Returns the findings that a report shows: filtered ones are in a scan only if they were asked for.
fn shown(scan: &Scan, look: Look) -> Vec<&Finding> {
    let is_shown =
        |finding: &&Finding| look.suppressed || !matches!(finding.state, State::Suppressed(..));
    scan.findings.iter().filter(is_shown).collect()
}

fn state_word(finding: &Finding) -> &'static str {
    match finding.state {
        State::Filtered(_) => "filtered",
        State::Found(_) => "open",
        State::Suppressed(..) => "suppressed",
    }
}

/// Returns why something is no open finding.
fn reason(finding: &Finding) -> Option<String> {
    match &finding.state {
        State::Filtered(reason) => Some(reason.as_str().to_owned()),
        State::Found(_) => None,
        State::Suppressed(_, suppression) => Some(suppression.to_string()),
    }
}

/// Returns what was hidden under what: "base64 in percent".
fn encodings(finding: &Finding) -> String {
    let words: Vec<String> = finding.encodings.iter().rev().map(ToString::to_string).collect();
    words.join(" in ")
}

/// Returns one sentence about the whole.
fn summary(scan: &Scan) -> String {
    let open = scan.open().count();
    let totals = scan.totals;
    let mut text = match (open, scan.is_complete()) {
        (0, true) => "no secrets found".to_owned(),
        (0, false) => "no secrets found in what could be read".to_owned(),
        (1, _) => "1 secret found".to_owned(),
        (many, _) => format!("{many} secrets found"),
    };
    let suppressed = scan
        .findings
        .iter()
        .filter(|finding| matches!(finding.state, State::Suppressed(..)))
        .count();
    // Writing to a string does not fail.
    let _ = write!(text, " in {} files, {}", totals.files, bytes(totals.bytes));
    if totals.commits > 0 {
        let _ = write!(text, ", {} commits", totals.commits);
    }
    for (count, what) in [(totals.binary, "binary"), (count(suppressed), "suppressed")] {
        if count > 0 {
            let _ = write!(text, "; {count} {what}");
        }
    }
    if !scan.is_complete() {
        let _ = write!(text, "; {} could not be read", scan.unread.len());
    }
    text
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

fn bytes(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")];
    match UNITS.into_iter().find(|(size, _)| bytes >= *size) {
        Some((size, unit)) => format!("{}.{} {unit}", bytes / size, bytes % size * 10 / size),
        None => format!("{bytes} bytes"),
    }
}
