//! Entries in the words of others.

use serde_json::{Value, json};

use super::*;
use crate::audit::export::{Format, export};

/// An entry whose caller has chosen its texts with care.
fn entry() -> Entry {
    serde_json::from_value(json!({
        "seq": 7, "time": "2026-11-24T12:00:00.5Z", "action": "read", "outcome": "denied", "secret": "prod/db",
        "version": 3, "uid": 33, "user": "www|data", "gid": 33, "tid": 1, "pid": 4711,
        "start_time": "2026-11-24T11:00:00Z", "exe": "/tmp/a=b\\c|d\ne suid=0\r\u{7}\u{2028}", "comm": "a",
        "unit": "system.slice/x.service", "container": null, "rule": "r", "reason": "no rule",
        "exe_sha256": "ab", "prev": "00", "mac": "11",
    }))
    .unwrap()
}

#[test]
fn cef_escapes_what_could_end_a_field_or_a_line() {
    let line = export(&entry(), Format::Cef, "host").unwrap();
    let (header, rest) = line.split_at(line.find("|rt=").unwrap());
    assert_eq!(
        header,
        format!("CEF:0|secretfs|secretfs|{}|read|read denied|6", env!("CARGO_PKG_VERSION"))
    );
    assert!(rest.contains(r" sproc=/tmp/a\=b\\c|d\ne suid\=0\r"), "{rest}");
    assert!(rest.contains(" suid=33 suser=www|data "), "{rest}");
    assert!(!line.chars().any(char::is_control) && !line.contains('\u{2028}'));
}

#[test]
fn ocsf_keeps_all_of_an_entry_and_is_one_line_of_ascii() {
    let line = export(&entry(), Format::Ocsf, "host").unwrap();
    assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{line}");
    let event: Value = serde_json::from_str(&line).unwrap();
    let part = |path: &str| event.pointer(path).cloned().unwrap_or_default();
    assert_eq!(
        (part("/type_uid"), part("/status_id"), part("/severity_id")),
        (json!(600_302), json!(2), json!(3))
    );
    assert_eq!(part("/actor/process/file/path"), json!(entry().exe));
    assert_eq!(part("/actor/process/file/hashes/0/value"), json!("ab"));
    assert_eq!(part("/resources/0"), json!({"name": "prod/db", "type": "secret", "version": "3"}));
    assert_eq!(
        part("/unmapped"),
        json!({"gid": 33, "mac": "11", "prev": "00", "rule": "r", "tid": 1,
        "unit": "system.slice/x.service"})
    );
}

#[test]
fn a_finding_about_the_log_is_a_detection() {
    let finding = Entry {
        action: Action::Anomaly,
        outcome: Outcome::Allowed,
        detail: Some(json!({"kind": "walk", "score": 0.93, "explanation": "It walks."})),
        ..entry()
    };
    let event: Value = serde_json::from_str(&export(&finding, Format::Ocsf, "h").unwrap()).unwrap();
    assert_eq!((&event["class_uid"], &event["severity_id"]), (&json!(2004), &json!(4)));
    assert_eq!(event["finding_info"]["desc"], "It walks.");
    let line = export(&finding, Format::Cef, "h").unwrap();
    assert!(
        line.contains("|anomaly|anomaly walk|9|") && line.contains(" msg=It walks. "),
        "{line}"
    );
}

#[test]
fn json_is_the_entry_itself() {
    let line = export(&entry(), Format::Json, "host").unwrap();
    assert_eq!(serde_json::from_str::<Entry>(&line).unwrap(), entry());
}
