//! The report in SARIF 2.1.0, which code hosts and editors read.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::reason;
use crate::scan::finding::{Finding, Scan, State, Suppression};
use crate::scan::severity::Severity;

const SCHEMA: &str =
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

pub(super) fn write(scan: &Scan, findings: &[&Finding]) -> Value {
    let mut rules: BTreeMap<&str, &Finding> = BTreeMap::new();
    for finding in findings {
        rules.entry(&finding.rule).or_insert(finding);
    }
    let index = |finding: &Finding| rules.keys().position(|id| *id == &*finding.rule);
    let results: Vec<Value> = findings
        .iter()
        .filter(|finding| !matches!(finding.state, State::Filtered(_)))
        .map(|finding| result(finding, index(finding)))
        .collect();
    let notifications: Vec<Value> = scan
        .unread
        .iter()
        .map(|unread| {
            json!({
                "level": "error",
                "message": { "text": format!("not read: {}", unread.why) },
                "locations": [{ "physicalLocation": { "artifactLocation": { "uri": uri(&unread.path) } } }],
            })
        })
        .collect();
    json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "secretfs",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules.values().map(|finding| rule(finding)).collect::<Vec<_>>(),
            }},
            "invocations": [{
                "executionSuccessful": scan.is_complete(),
                "toolExecutionNotifications": notifications,
            }],
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    })
}

fn rule(finding: &Finding) -> Value {
    json!({
        "id": finding.rule,
        "shortDescription": { "text": finding.description },
        "defaultConfiguration": { "level": level(finding.severity) },
        "properties": {
            "security-severity": score(finding.severity),
            "tags": ["security", "secret", finding.kind],
        },
    })
}

fn result(finding: &Finding, rule_index: Option<usize>) -> Value {
    let place = &finding.place;
    let mut value = json!({
        "ruleId": finding.rule,
        "level": level(finding.severity),
        "message": { "text": format!("{}: {}", finding.description, finding.secret) },
        "locations": [{ "physicalLocation": {
            "artifactLocation": { "uri": uri(&place.path) },
            "region": {
                "startLine": place.line,
                "startColumn": place.column,
                "endLine": place.end_line,
                "snippet": { "text": finding.context },
            },
        }}],
        "partialFingerprints": { "secretfs/v1": finding.fingerprint },
        "properties": {
            "confidence": finding.confidence().map(crate::scan::Confidence::value),
            "severity": finding.severity,
        },
    });
    let Value::Object(members) = &mut value else { return value };
    if let Some(index) = rule_index {
        members.insert("ruleIndex".into(), json!(index));
    }
    if let State::Suppressed(_, suppression) = &finding.state {
        let kind = if *suppression == Suppression::Inline { "inSource" } else { "external" };
        members.insert(
            "suppressions".into(),
            json!([{ "kind": kind, "justification": reason(finding) }]),
        );
    }
    if let (Some(commit), Some(Value::Object(properties))) =
        (&place.commit, members.get_mut("properties"))
    {
        properties.insert("commit".into(), json!(commit));
    }
    value
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical | Severity::High => "error",
        Severity::Low => "note",
        Severity::Medium => "warning",
    }
}

/// The scale on which code hosts sort.
fn score(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "9.5",
        Severity::High => "8.0",
        Severity::Low => "3.0",
        Severity::Medium => "5.5",
    }
}

/// Returns a path as the relative reference of RFC 3986.
fn uri(path: &str) -> String {
    let mut uri = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric()
            || matches!(byte, b'/' | b'-' | b'.' | b'_' | b'~' | b'!' | b'@' | b'+' | b',')
        {
            uri.push(char::from(byte));
        } else {
            uri.push_str(&format!("%{byte:02X}"));
        }
    }
    if uri.starts_with('/') { format!("file://{uri}") } else { uri }
}

#[cfg(test)]
mod tests {
    use super::uri;

    #[test]
    fn a_path_becomes_a_reference_that_means_the_same() {
        assert_eq!(uri("a b/c:d#e.rs"), "a%20b/c%3Ad%23e.rs");
        assert_eq!(uri("/srv/x"), "file:///srv/x");
        assert_eq!(uri("x.zip!/y"), "x.zip!/y");
    }
}
