//! What reports find in small worlds, and that a page shows it without becoming anything else.

use serde_json::json;

use super::*;
use crate::anomaly::{Finding, Kind, Who};
use crate::audit::Entry;
use crate::model::{Attributes, Epoch, SecretName, Seq, Uid};
use crate::policy::{NumericIds, Policy};

const NOW: &str = "2026-11-28T12:00:00Z";
const POLICY: &str = r#"
[[role]]
name = "web"
allow = [{ names = ["prod/*"], levels = ["read"] }, { names = ["old/*"], levels = ["read"] }]
[[role]]
name = "admin"
allow = [{ names = ["**"], levels = ["admin"] }]
[[binding]]
id = "site"
role = "web"
uid = 33
[[binding]]
id = "root"
role = "admin"
uid = 0
"#;

fn moment(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// One line of a log; what the members do not say is null.
fn line(seq: u64, time: &str, members: serde_json::Value) -> Entry {
    let mut line = json!({
        "seq": seq, "time": time, "action": "read", "outcome": "allowed", "secret": "prod/db",
        "version": 1, "uid": 33, "user": "www", "gid": 33, "tid": 1, "pid": 1, "start_time": null,
        "exe": "/usr/sbin/nginx", "comm": "nginx", "unit": null, "container": null,
        "rule": "site: web allow 1", "reason": null, "prev": "", "mac": "",
    });
    line.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    serde_json::from_value(line).unwrap()
}

fn secret(name: &str, since: &str) -> SecretFacts {
    SecretFacts {
        name: name.parse().unwrap(),
        attributes: Attributes::default(),
        value_since: Some(moment(since)),
        created: Some(moment("2026-01-01T00:00:00Z")),
        expires: None,
        rotation_days: None,
        due: None,
        decoy: false,
        revoked: false,
    }
}

/// A store without a fault: its log, its secrets and its policy.
fn sound() -> Facts {
    let mut tally = Tally::new(moment("2026-08-01T00:00:00Z"), moment(NOW));
    for (seq, time, members) in [
        (
            1,
            "2026-07-01T00:00:00Z",
            json!({ "action": "start", "secret": null, "uid": null, "rule": null }),
        ),
        (2, "2026-08-03T09:30:00Z", json!({})),
        (3, "2026-08-03T10:00:00Z", json!({ "secret": "old/x", "rule": "site: web allow 2" })),
        (
            4,
            "2026-08-03T11:00:00Z",
            json!({ "action": "control", "secret": null, "uid": 0, "rule": "root: admin allow 1", "reason": "key-status" }),
        ),
        (
            5,
            "2026-08-03T11:00:01Z",
            json!({ "action": "audit_read", "secret": null, "uid": 0, "rule": null }),
        ),
    ] {
        tally.observe(&line(seq, time, members));
    }
    let secrets =
        vec![secret("old/x", "2026-10-01T00:00:00Z"), secret("prod/db", "2026-11-01T00:00:00Z")];
    let policy = Policy::parse(POLICY, &NumericIds).unwrap();
    Facts {
        made: moment(NOW),
        source: Source::Daemon { mountpoint: "/secrets".into(), version: "1".into() },
        chain: Chain::Whole { first: Seq(1), head: Seq(5), notes: Vec::new() },
        tally,
        anomalies: Some(Vec::new()),
        keys: Some(Keys {
            cipher: "AES-256-GCM".into(),
            sources: vec!["passphrase".into()],
            epochs: vec![EpochFacts {
                epoch: Epoch(1),
                active: true,
                created: moment("2026-07-01T00:00:00Z"),
                sealed: 4,
            }],
        }),
        integrity: Some("verified".into()),
        policy: Some(PolicyFacts::new(&policy, &secrets, moment(NOW))),
        secrets,
    }
}

fn failed(facts: &Facts) -> Vec<&'static str> {
    let mut failed = Vec::new();
    for framework in Framework::ALL {
        let report = Report::new(framework, facts, &Limits::default());
        failed.extend(report.findings.iter().map(|finding| finding.check));
    }
    failed.sort_unstable();
    failed.dedup();
    failed
}

fn outcome(facts: &Facts, check: &str) -> Outcome {
    let named = check::all(facts, &Limits::default());
    named.into_iter().find(|named| named.check == check).unwrap().outcome
}

#[test]
fn detectors_that_still_learn_evidence_nothing() {
    let mut facts = sound();
    assert_eq!(outcome(&facts, "anomalies").verdict, Verdict::Pass);
    facts.made = moment("2026-07-05T00:00:00Z");
    assert_eq!(outcome(&facts, "anomalies").verdict, Verdict::NotEvidenced);
}

#[test]
fn every_control_names_checks_that_there_are_and_every_check_serves_one() {
    let known: Vec<&str> =
        check::all(&sound(), &Limits::default()).iter().map(|named| named.check).collect();
    let mut asked = Vec::new();
    for framework in Framework::ALL {
        for control in control::of(framework) {
            assert!(!control.checks.is_empty(), "{}", control.id);
            for check in control.checks {
                assert!(known.contains(&check.as_str()), "{}: {check}", control.id);
                asked.push(check);
            }
        }
    }
    let idle: Vec<_> =
        known.iter().filter(|check| !asked.iter().any(|asked| asked == *check)).collect();
    assert!(idle.is_empty(), "{idle:?}");
}

#[test]
fn a_sound_store_fails_nothing_and_each_fault_fails_its_own_check_alone() {
    assert!(failed(&sound()).is_empty(), "{:?}", failed(&sound()));
    type Breaking = fn(&mut Facts);
    let cases: [(&str, Breaking); 13] = [
        ("admins", |facts| {
            facts.policy.as_mut().unwrap().admins = vec![true; 6];
            let subject = facts.policy.as_ref().unwrap().subjects[0].clone();
            facts.policy.as_mut().unwrap().subjects = vec![subject; 6];
        }),
        ("cipher", |facts| facts.keys.as_mut().unwrap().cipher = "DES".into()),
        ("decoys", |facts| facts.anomalies = Some(vec![finding(Kind::Decoy)])),
        ("default_deny", |facts| {
            facts.policy.as_mut().unwrap().default_levels =
                [crate::model::Level::Read].into_iter().collect();
        }),
        ("epoch_age", |facts| {
            facts.keys.as_mut().unwrap().epochs[0].created = moment("2025-01-01T00:00:00Z")
        }),
        ("expired", |facts| facts.secrets[0].expires = Some(moment("2026-11-01T00:00:00Z"))),
        ("integrity", |facts| facts.integrity = Some("2 faults".into())),
        ("log_identity", |facts| facts.tally.observe(&line(6, NOW, json!({ "uid": null })))),
        ("refusals", |facts| {
            facts.tally.observe(&line(6, NOW, json!({ "outcome": "denied", "rule": null })))
        }),
        ("root_age", |facts| facts.tally.root_replaced = Some(moment("2024-01-01T00:00:00Z"))),
        ("system_accounts", |facts| {
            facts.tally.observe(&line(
                6,
                NOW,
                json!({ "unit": "user.slice/user-33.slice/session-1.scope" }),
            ));
        }),
        ("unused_rules", |facts| facts.tally.rules.retain(|rule, _| rule != "site: web allow 2")),
        ("value_age", |facts| facts.secrets[1].rotation_days = Some(7)),
    ];
    for (check, break_it) in cases {
        let mut facts = sound();
        break_it(&mut facts);
        assert_eq!(failed(&facts), [check]);
    }
}

fn finding(kind: Kind) -> Finding {
    Finding {
        time: moment("2026-11-01T00:00:00Z"),
        kind,
        score: 0.9,
        secret: None,
        caller: Who { uid: Uid(33), exe: None, place: None },
        explanation: "it was unlike before".into(),
        lines: 1,
        seqs: vec![Seq(2)],
    }
}

#[test]
fn a_broken_chain_is_finding_number_one_and_what_rests_on_the_log_is_not_evidenced() {
    let mut facts = sound();
    facts.chain = Chain::Broken { why: "line 3 was edited".into() };
    facts.keys.as_mut().unwrap().cipher = "DES".into();
    facts.anomalies = Some(vec![finding(Kind::Decoy)]);
    // Also in a framework whose first control asks for something else.
    for framework in Framework::ALL {
        let report = Report::new(framework, &facts, &Limits::default());
        assert_eq!(report.findings[0].check, "log_chain");
        assert!(report.findings[0].outcome.said.contains("line 3 was edited"));
        let decoys = report.checks.iter().find(|named| named.check == "decoys");
        assert!(decoys.is_none_or(|decoys| decoys.outcome.verdict == Verdict::NotEvidenced));
        assert!(html::page(&report, &facts).contains("line 3 was edited"));
    }
}

#[test]
fn what_is_not_known_passes_nothing() {
    let mut facts = sound();
    facts.chain = Chain::Unchecked;
    (facts.keys, facts.policy, facts.integrity, facts.anomalies) = (None, None, None, None);
    facts.tally = Tally::new(moment("2026-08-01T00:00:00Z"), moment(NOW));
    facts.secrets.clear();
    for framework in Framework::ALL {
        let report = Report::new(framework, &facts, &Limits::default());
        for named in &report.checks {
            assert_eq!(named.outcome.verdict, Verdict::NotEvidenced, "{}", named.check);
        }
        assert!(!report.has_failed());
        let page = html::page(&report, &facts);
        assert!(page.contains("There was no access") && page.contains("Of no secret it is known"));
    }
}

#[test]
fn what_nobody_used_is_a_fault_only_where_the_log_is_long_enough_to_know() {
    let mut facts = sound();
    facts.secrets.push(secret("prod/idle", "2026-11-01T00:00:00Z"));
    assert_eq!(outcome(&facts, "unused_secrets").verdict, Verdict::Fail);
    facts.tally.first = Some((Seq(1), moment("2026-11-01T00:00:00Z")));
    let found = outcome(&facts, "unused_secrets");
    assert_eq!(found.verdict, Verdict::NotEvidenced);
    assert_eq!(found.rows[0][0], "prod/idle");
    // A new one has not had the time.
    facts.secrets.last_mut().unwrap().created = Some(moment("2026-11-20T00:00:00Z"));
    assert_eq!(outcome(&facts, "unused_secrets").verdict, Verdict::Pass);
}

#[test]
fn a_shortened_log_fails_where_it_is_kept_too_short_and_a_young_one_does_not() {
    let mut facts = sound();
    assert_eq!(outcome(&facts, "log_retention").verdict, Verdict::Pass);
    facts.tally.first = Some((Seq(900), moment("2026-07-01T00:00:00Z")));
    assert_eq!(outcome(&facts, "log_retention").verdict, Verdict::Fail);
    // How old the root key is cannot be told from such a log, only that it is older.
    assert_eq!(outcome(&facts, "root_age").verdict, Verdict::NotEvidenced);
    facts.tally.first = Some((Seq(900), moment("2025-07-01T00:00:00Z")));
    assert_eq!(outcome(&facts, "log_retention").verdict, Verdict::Pass);
}

#[test]
fn a_page_keeps_hostile_names_from_being_markup_and_asks_for_nothing() {
    let mut facts = sound();
    let hostile = "/tmp/</td><script>alert(1)</script><img src=x onerror=alert(1)>\"'\u{202e}";
    let members = json!({ "exe": hostile, "user": hostile, "unit": hostile, "reason": hostile });
    facts.tally.observe(&line(6, NOW, members));
    facts.anomalies = Some(vec![Finding { explanation: hostile.into(), ..finding(Kind::Walk) }]);
    facts.source = Source::Recorded(vec![hostile.into()]);
    for framework in Framework::ALL {
        let page = html::page(&Report::new(framework, &facts, &Limits::default()), &facts);
        assert!(page.contains("&lt;script&gt;") && page.contains("default-src 'none'"));
        for live in ["<script", "<img", "\u{202e}", "http:", "https:", "url(", "@import"] {
            assert!(!page.contains(live), "{live}");
        }
    }
}

#[test]
fn limits_are_read_over_the_built_in_ones_and_a_bad_one_is_refused_with_its_place() {
    let limits = Limits::parse("value_days = 30\n").unwrap();
    assert_eq!((limits.value_days, limits.admins), (30, Limits::default().admins));
    let error = Limits::parse("value_days = 30\nreader = 3\n").unwrap_err().to_string();
    assert!(error.contains("line 2, column 1"), "{error}");
    let mut facts = sound();
    facts.secrets[0].value_since = Some(moment("2026-10-01T00:00:00Z"));
    let report = Report::new(Framework::Pci, &facts, &limits);
    assert_eq!(
        report.findings.iter().map(|finding| finding.check).collect::<Vec<_>>(),
        ["value_age"]
    );
}

#[test]
fn accesses_are_counted_by_day_hour_and_caller_within_the_period_alone() {
    let mut tally = Tally::new(moment("2026-11-02T00:00:00Z"), moment("2026-11-09T00:00:00Z"));
    for (seq, time, members) in [
        (1, "2026-11-01T23:59:59Z", json!({ "action": "write" })),
        // A Monday.
        (2, "2026-11-02T05:00:00Z", json!({})),
        (3, "2026-11-02T05:59:00Z", json!({ "outcome": "denied", "action": "check" })),
        (5, "2026-11-08T23:00:00Z", json!({ "outcome": "failed", "secret": "prod/x" })),
        (6, "2026-11-08T23:00:00Z", json!({ "action": "anomaly" })),
        (
            7,
            "2026-11-08T23:00:00Z",
            json!({ "action": "refusals", "secret": null, "detail": { "uid": 1, "count": 7 } }),
        ),
        (8, "2026-11-09T00:00:01Z", json!({})),
    ] {
        tally.observe(&line(seq, time, members));
    }
    assert_eq!(tally.accesses, Count { allowed: 1, denied: 1, failed: 1 });
    assert_eq!((tally.lines, tally.gaps, tally.counted_refusals), (5, 1, 7));
    assert_eq!((tally.hours[0][5], tally.hours[6][23]), (2, 1));
    let days: Vec<_> = tally.days.keys().map(String::as_str).collect();
    assert_eq!(days, ["2026-11-02", "2026-11-08"]);
    let name: SecretName = "prod/db".parse().unwrap();
    assert_eq!(tally.secrets[&name].last_value, Some(moment("2026-11-01T23:59:59Z")));
    assert_eq!((tally.secrets[&name].reads, tally.readers().len()), (1, 1));
}

#[test]
fn a_value_of_unknown_age_passes_nothing_and_is_named() {
    let judge = |facts: &Facts| {
        let report = Report::new(Framework::Pci, facts, &Limits::default());
        report.checks.into_iter().find(|named| named.check == "value_age").unwrap().outcome
    };
    let mut facts = sound();
    assert_eq!(judge(&facts).verdict, Verdict::Pass);
    facts.secrets[1].value_since = None;
    let unknown = judge(&facts);
    assert_eq!(unknown.verdict, Verdict::NotEvidenced);
    assert_eq!(unknown.rows[0][0], facts.secrets[1].name.as_str());
    // What is overdue by its schedule is so whatever its age.
    facts.secrets[1].due = Some(moment("2026-11-01T00:00:00Z"));
    assert_eq!((judge(&facts).verdict, judge(&facts).rows.len()), (Verdict::Fail, 1));
}
