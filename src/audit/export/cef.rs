//! CEF, version 0: a header of seven fields, and `key=value` pairs with the keys of ArcSight's dictionary.
//!
//! In the header `\` and `|` are escaped, in values `\`, `=` and ends of lines; nothing else has an escape.
//! Other control characters, which have no place in a line, become U+FFFD.

use std::fmt::Write;

use serde_json::Value;

use super::Fault;
use crate::audit::{Action, Entry, Outcome};

/// Returns the line of an entry.
pub(super) fn line(entry: &Entry, host: &str) -> String {
    let detail = |key: &str| entry.detail.as_ref().and_then(|detail| detail.get(key));
    let text = |key: &str| detail(key).and_then(Value::as_str);
    let finding = entry.action == Action::Anomaly;
    let name = match text("kind").filter(|_| finding) {
        Some(kind) => format!("anomaly {kind}"),
        None => format!("{} {}", entry.action, entry.outcome),
    };
    let score = detail("score").and_then(Value::as_f64).filter(|_| finding);
    let severity = match (score, entry.outcome) {
        (Some(score), _) => (score * 10.0).round(),
        (None, Outcome::Allowed) => 1.0,
        (None, Outcome::Failed) => 4.0,
        (None, Outcome::Denied) => 6.0,
    };
    let mut line = header(entry.action.as_str(), &name, &severity.to_string());
    let mut pair = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            push_pair(&mut line, key, &value);
        }
    };
    pair("rt", Some(entry.time.as_millisecond().to_string()));
    pair("externalId", Some(entry.seq.to_string()));
    pair("dvchost", Some(host.to_owned()));
    pair("cat", Some(if finding { "anomaly" } else { "audit" }.to_owned()));
    pair("act", Some(entry.action.to_string()));
    pair("outcome", Some(entry.outcome.to_string()));
    pair("fname", entry.secret.as_ref().map(ToString::to_string));
    pair("suid", entry.uid.map(|uid| uid.to_string()));
    pair("suser", entry.user.clone());
    pair("spid", entry.pid.map(|pid| pid.to_string()));
    pair("sproc", entry.exe.clone().or_else(|| entry.comm.clone()));
    pair("reason", entry.reason.clone());
    pair("msg", text("explanation").map(str::to_owned));
    pair("cnt", detail("count").and_then(Value::as_u64).map(|count| count.to_string()));
    let numbers = [("version", entry.version.map(|version| version.to_string()))];
    let texts = [
        ("rule", entry.rule.clone()),
        ("unit", entry.unit.clone()),
        ("container", entry.container.clone()),
        ("exeSha256", entry.exe_sha256.clone()),
        ("mac", Some(entry.mac.clone())),
    ];
    for (kind, fields) in [("cn", numbers.as_slice()), ("cs", texts.as_slice())] {
        for (index, (label, value)) in (1..).zip(fields) {
            pair(&format!("{kind}{index}Label"), value.as_ref().map(|_| (*label).to_owned()));
            pair(&format!("{kind}{index}"), value.clone());
        }
    }
    line
}

/// Returns the line of a fault.
pub(super) fn fault(fault: &Fault<'_>, host: &str) -> String {
    let mut line = header("integrity", "integrity", "10");
    for (key, value) in [
        ("rt", fault.time.as_millisecond().to_string()),
        ("externalId", format!("fault-{}", fault.id)),
        ("dvchost", host.to_owned()),
        ("cat", "integrity".to_owned()),
        ("msg", fault.what.to_owned()),
    ] {
        push_pair(&mut line, key, &value);
    }
    line
}

fn header(class: &str, name: &str, severity: &str) -> String {
    let fields =
        ["CEF:0", "secretfs", "secretfs", env!("CARGO_PKG_VERSION"), class, name, severity];
    fields.map(in_header).join("|") + "|"
}

fn push_pair(line: &mut String, key: &str, value: &str) {
    let space = if line.ends_with('|') { "" } else { " " };
    // Writing to a string cannot fail.
    write!(line, "{space}{key}={}", in_value(value)).unwrap_or_default();
}

fn in_header(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '\\' | '|' => escaped.extend(['\\', c]),
            c => escaped.push(visible(c)),
        }
    }
    escaped
}

fn in_value(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '\\' | '=' => escaped.extend(['\\', c]),
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            c => escaped.push(visible(c)),
        }
    }
    escaped
}

fn visible(c: char) -> char {
    let ends_lines = c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    if ends_lines { '\u{fffd}' } else { c }
}
