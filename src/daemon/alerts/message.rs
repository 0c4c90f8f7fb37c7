//! What a receiver is told of a line of the log, and which lines are alerts.
//!
//! An alert is a finding of the detectors, an emergency grant, a quarantine, or damage to what is stored. All of
//! them are lines of the log, so that the log is the queue; but for a log that takes no lines any more, which
//! is a [`Fault`](super::state::Fault).

use serde_json::Value;

use super::settings::{Route, Send, reaches};
use super::state::Fault;
use crate::audit::export::{self, Format, export, export_fault};
use crate::audit::{Action, Entry, Outcome};
use crate::effect::Message;

/// Returns what a receiver is told of an entry and its line, if it is told of it.
pub(super) fn of_entry(entry: &Entry, line: &str, route: &Route, host: &str) -> Option<Message> {
    let alert = severity_of_alert(entry);
    if route.send == Send::Alerts {
        alert?;
        let score = score(entry);
        if score.is_some_and(|score| !reaches(score, route.min_score)) {
            return None;
        }
    }
    let summary = summary(entry);
    let text = match route.format.export() {
        None => summary.clone(),
        // To the byte: who has the lines can follow the chain in them.
        Some(Format::Json) => line.to_owned(),
        // Whatever stands in a line can be written.
        Some(format) => export(entry, format, host).unwrap_or_default(),
    };
    Some(Message {
        seq: Some(entry.seq),
        time: entry.time,
        severity: alert.unwrap_or(match entry.outcome {
            Outcome::Allowed => INFORMATIONAL,
            Outcome::Denied => NOTICE,
            Outcome::Failed => WARNING,
        }),
        event: event(entry),
        summary,
        text,
    })
}

/// Returns what a receiver of alerts is told of a fault.
pub(super) fn of_fault(fault: &Fault, route: &Route, host: &str) -> Message {
    let summary = format!("integrity: {}", fault.what);
    let text = match route.format.export() {
        None => summary.clone(),
        Some(format) => {
            let Fault { id, time, what } = fault;
            export_fault(&export::Fault { id: *id, time: *time, what }, format, host)
        }
    };
    let event = INTEGRITY.to_owned();
    Message { seq: None, time: fault.time, severity: CRITICAL, event, summary, text }
}

const INTEGRITY: &str = "integrity";

// As syslog numbers them.
const CRITICAL: u8 = 2;
const ERROR: u8 = 3;
const WARNING: u8 = 4;
const NOTICE: u8 = 5;
const INFORMATIONAL: u8 = 6;

/// Returns how bad a line is, if it is an alert.
fn severity_of_alert(entry: &Entry) -> Option<u8> {
    if entry.action == Action::Anomaly {
        return Some(match score(entry).unwrap_or_default() {
            score if reaches(score, 100) => CRITICAL,
            score if reaches(score, 90) => ERROR,
            score if reaches(score, 70) => WARNING,
            _ => NOTICE,
        });
    }
    if matches!(entry.action, Action::BreakGlass | Action::Quarantine) {
        return Some(WARNING);
    }
    if entry.action == Action::QuarantineEnd {
        return Some(NOTICE);
    }
    is_damage(entry).then_some(CRITICAL)
}

fn is_damage(entry: &Entry) -> bool {
    detail(entry, "integrity").and_then(Value::as_bool) == Some(true)
}

fn score(entry: &Entry) -> Option<f64> {
    detail(entry, "score").filter(|_| entry.action == Action::Anomaly)?.as_f64()
}

fn detail<'a>(entry: &'a Entry, key: &str) -> Option<&'a Value> {
    entry.detail.as_ref()?.get(key)
}

/// Returns one word: the kind of an anomaly, or what was done.
fn event(entry: &Entry) -> String {
    let kind = detail(entry, "kind").filter(|_| entry.action == Action::Anomaly);
    match kind.and_then(Value::as_str) {
        Some(kind) => kind.to_owned(),
        None if is_damage(entry) => INTEGRITY.to_owned(),
        None => entry.action.to_string(),
    }
}

/// Returns a sentence. Names, programs and reasons are the callers', so it is escaped to printable ASCII.
fn summary(entry: &Entry) -> String {
    let explained = detail(entry, "explanation").filter(|_| entry.action == Action::Anomaly);
    if let Some(explanation) = explained.and_then(Value::as_str) {
        return printable(explanation);
    }
    let mut words = vec![format!("{} {}", entry.action, entry.outcome)];
    words.extend(entry.secret.as_ref().map(|name| format!("of {name}")));
    let of = detail(entry, "of").and_then(Value::as_u64);
    words.extend(of.map(|uid| format!("of uid {uid}")));
    words.extend(entry.uid.map(|uid| format!("by uid {uid}")));
    let sentence = words.join(" ");
    printable(&match &entry.reason {
        Some(reason) => format!("{sentence}: {reason}"),
        None => sentence,
    })
}

fn printable(text: &str) -> String {
    let escape = |c: char| if c == '\\' { c.to_string() } else { c.escape_default().to_string() };
    text.chars()
        .map(|c| if c.is_ascii_graphic() || c == ' ' { c.to_string() } else { escape(c) })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::settings::Settings;
    use super::*;
    use serde_json::json;

    fn route(more: &str) -> Route {
        let text = format!(
            "[[receiver]]\nname = \"a\"\nto = {{ kind = \"journald\" }}\nformat = \"text\"\n{more}"
        );
        Settings::parse(&text).unwrap().routes.remove(0)
    }

    fn entry(action: &str, outcome: &str, detail: Value) -> Entry {
        serde_json::from_value(json!({
            "seq": 7, "time": "2026-11-28T12:00:00Z", "action": action, "outcome": outcome,
            "secret": "prod/a", "uid": 33, "reason": "be\u{7}cause", "detail": detail, "prev": "", "mac": "",
        }))
        .unwrap()
    }

    #[test]
    fn alerts_are_findings_emergencies_quarantines_and_damage() {
        let finding = |score: f64| json!({ "kind": "decoy", "score": score, "explanation": "somebody opened it" });
        let cases = [
            (entry("anomaly", "allowed", finding(1.0)), Some(CRITICAL)),
            (entry("anomaly", "allowed", finding(0.7)), Some(WARNING)),
            (entry("anomaly", "allowed", finding(0.49)), None),
            (entry("break_glass", "denied", Value::Null), Some(WARNING)),
            (entry("quarantine", "allowed", json!({ "of": 5 })), Some(WARNING)),
            (entry("read", "failed", json!({ "integrity": true })), Some(CRITICAL)),
            (entry("read", "failed", json!({ "integrity": false })), None),
            (entry("read", "denied", Value::Null), None),
            (entry("read", "allowed", json!({ "score": 1.0 })), None),
        ];
        let (alerts, log) = (route("min_score = 0.5\n"), route("send = \"log\"\n"));
        for (entry, expected) in cases {
            let severity = of_entry(&entry, "{}", &alerts, "h").map(|message| message.severity);
            assert_eq!(severity, expected, "{entry:?}");
            assert!(of_entry(&entry, "{}", &log, "h").is_some());
        }
    }

    #[test]
    fn what_is_told_is_one_printable_line_in_the_wanted_words() {
        let read = entry("read", "denied", Value::Null);
        let told = of_entry(&read, "{}", &route("send = \"log\"\n"), "h").unwrap();
        assert_eq!(told.text, "read denied of prod/a by uid 33: be\\u{7}cause");
        assert_eq!((told.event.as_str(), told.severity), ("read", NOTICE));
        let mut ocsf = route("send = \"log\"\n");
        ocsf.format = super::super::settings::TextFormat::Ocsf;
        let told = of_entry(&read, "{}", &ocsf, "h").unwrap().text;
        assert_eq!(serde_json::from_str::<Value>(&told).unwrap()["class_uid"], 6003);
    }

    #[test]
    fn the_log_is_told_to_the_byte() {
        // In the order of the log, with an escape that another writer would not choose.
        let line = "{\"seq\":7,\"time\":\"2026-11-28T12:00:00.000001Z\",\"action\":\"read\",\"outcome\":\"allowed\",\
                    \"comm\":\"\\u0061\",\"prev\":\"00\",\"mac\":\"11\"}";
        let entry: Entry = serde_json::from_str(line).unwrap();
        let mut json = route("send = \"log\"\n");
        json.format = super::super::settings::TextFormat::Json;
        assert_eq!(of_entry(&entry, line, &json, "h").unwrap().text, line);
    }
}
