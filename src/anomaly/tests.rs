//! Each kind found where it is, and silence where it is not; mutes, walks, state and bounds.

use serde_json::{Value, json};

use super::{Detector, Finding, Kind, Settings};
use crate::audit::Entry;

/// 2026-11-02, a Monday, at midnight.
const MONDAY: i64 = 1_793_577_600;
const DAY: i64 = 86_400;
const HOUR: i64 = 3600;

/// A log in the making.
struct Log {
    detector: Detector,
    seq: u64,
    found: Vec<Finding>,
}

impl Log {
    fn new() -> Self {
        Self::with("")
    }

    fn with(settings: &str) -> Self {
        let settings = Settings::parse(settings).unwrap();
        Self { detector: Detector::new(settings), seq: 0, found: Vec::new() }
    }

    /// Adds a line: a read of `prod/db` at 1 by nginx unless `fields` say otherwise.
    fn line(&mut self, at: i64, fields: Value) {
        self.seq += 1;
        let time = |at: i64| jiff::Timestamp::from_second(MONDAY + at).unwrap().to_string();
        let mut line = json!({
            "seq": self.seq, "time": time(at), "action": "read", "outcome": "allowed",
            "secret": "prod/db", "version": 1, "uid": 33, "user": null, "gid": 33, "tid": 7, "pid": 7,
            "start_time": time(at - 2), "exe": "/usr/sbin/nginx", "comm": "nginx",
            "unit": "system.slice/nginx.service", "container": null, "rule": null, "reason": null,
            "prev": "", "mac": "",
        });
        for (key, value) in fields.as_object().unwrap() {
            line[key] = value.clone();
        }
        let entry: Entry = serde_json::from_value(line).unwrap();
        self.found.extend(self.detector.observe(&entry));
    }

    /// Two weeks in which the service reads thrice a day, at nine, noon and three, on workdays.
    fn quiet_weeks(&mut self) {
        for day in (0..12).filter(|day| day % 7 < 5) {
            for hour in [9, 12, 15] {
                self.line(day * DAY + hour * HOUR, json!({}));
            }
        }
    }

    fn kinds(&mut self) -> Vec<Kind> {
        self.found.extend(self.detector.finish());
        self.found.iter().map(|finding| finding.kind).collect()
    }
}

/// The third Monday, at noon.
const LATER: i64 = 14 * DAY + 12 * HOUR;

#[test]
fn a_service_that_does_what_it_always_did_is_no_finding() {
    let mut log = Log::new();
    log.quiet_weeks();
    for day in 14..19 {
        log.line(day * DAY + 12 * HOUR + 600, json!({}));
    }
    assert_eq!(log.kinds(), []);
}

#[test]
fn a_new_caller_of_an_old_secret_is_found_with_the_line_that_shows_it() {
    for fields in [
        json!({"uid": 1000}),
        json!({"exe": "/usr/bin/cat"}),
        json!({"unit": "user.slice/user-1000.slice/session-4.scope"}),
        json!({"container": "podman:0123456789abcdef"}),
    ] {
        let mut log = Log::new();
        log.quiet_weeks();
        log.line(LATER, fields);
        assert_eq!(log.kinds(), [Kind::FirstUse]);
        let found = &log.found[0];
        assert!(found.score > 0.9 && found.score <= 1.0, "{found:?}");
        assert_eq!((found.seqs.len(), found.seqs[0].0, found.lines), (1, log.seq, 1));
        assert!(
            found.explanation.contains("for the first time") && found.explanation.ends_with('.')
        );
        assert_eq!(found.secret.as_ref().unwrap().as_str(), "prod/db");
    }
}

#[test]
fn new_secrets_and_new_names_of_an_old_caller_are_no_finding() {
    let mut log = Log::new();
    log.quiet_weeks();
    log.line(
        LATER,
        json!({"secret": "new/key", "action": "write", "uid": 0, "exe": "/usr/bin/secretfs"}),
    );
    log.line(LATER + 60, json!({"secret": "new/key", "exe": "/opt/new"}));
    log.line(LATER + 90, json!({"action": "rename", "reason": "to prod/database"}));
    log.line(LATER + 99, json!({"secret": "prod/database"}));
    assert_eq!(log.kinds(), []);
}

#[test]
fn other_bytes_of_a_program_are_found_unless_it_changes_all_the_time() {
    let digest = |n: u64| format!("{n:064x}");
    let mut log = Log::new();
    for day in 0..14 {
        log.line(day * DAY + 9 * HOUR, json!({"exe_sha256": digest(1)}));
        let changing = json!({"exe": "/srv/app", "exe_sha256": digest(100 + day.cast_unsigned())});
        log.line(day * DAY + 9 * HOUR, changing);
    }
    log.line(LATER - 3 * HOUR, json!({"exe_sha256": digest(2)}));
    log.line(LATER - 3 * HOUR, json!({"exe": "/srv/app", "exe_sha256": digest(200)}));
    assert_eq!(log.kinds(), [Kind::ExeChanged]);
    assert!(log.found[0].explanation.contains("nginx"));
}

#[test]
fn an_hour_and_a_weekend_of_which_there_is_no_history_are_found() {
    for at in [14 * DAY + 3 * HOUR, 19 * DAY + 12 * HOUR] {
        let mut log = Log::new();
        log.quiet_weeks();
        log.line(at, json!({}));
        assert_eq!(log.kinds(), [Kind::UnusualTime], "{at}");
    }
}

#[test]
fn a_burst_is_one_finding_with_its_lines() {
    let mut log = Log::new();
    log.quiet_weeks();
    (0..40).for_each(|second| log.line(LATER + second, json!({})));
    assert_eq!(log.kinds(), [Kind::Burst]);
    assert_eq!(log.found[0].lines, 21);
    assert!(log.found[0].explanation.contains("40 times"), "{:?}", log.found[0]);
}

#[test]
fn a_secret_that_nobody_read_for_weeks_is_found_when_it_is_read() {
    let mut log = Log::new();
    log.quiet_weeks();
    (0..4).for_each(|day| log.line(day * DAY, json!({"secret": "prod/old"})));
    let since = 24 * DAY;
    for day in (14..24).filter(|day| day % 7 < 5) {
        log.line(day * DAY + 9 * HOUR, json!({}));
    }
    log.line(since + 9 * HOUR, json!({"secret": "prod/old"}));
    assert!(log.kinds().contains(&Kind::LongSilence));
}

#[test]
fn refusals_are_one_finding_and_the_usual_ones_are_none() {
    let refused = |name: &str| json!({"action": "check", "outcome": "denied", "secret": name});
    let mut log = Log::new();
    log.quiet_weeks();
    // Over the border of two spans, which must not hide it.
    (0..11).for_each(|n| log.line(LATER - 5 + n, refused("prod/root")));
    assert_eq!(log.kinds(), [Kind::Refusals]);
    let counted = json!({"action": "refusals", "outcome": "denied", "secret": null, "uid": null,
        "detail": {"uid": 34, "count": 500}});
    log.line(LATER + DAY, counted.clone());
    assert_eq!(log.kinds(), [Kind::Refusals, Kind::Refusals]);
    log.line(LATER + 2 * DAY, counted);
    assert_eq!(log.kinds().len(), 2);
}

/// A caller that reads everything, as a user or as a program that is known for it.
fn walk(log: &mut Log, at: i64, exe: &str) {
    for n in 0..40 {
        let outcome = if n % 2 == 0 { "allowed" } else { "denied" };
        let fields =
            json!({"secret": format!("team/s{n}"), "exe": exe, "outcome": outcome, "uid": 0});
        log.line(at + n, fields);
    }
}

#[test]
fn a_walk_over_many_names_is_one_event_and_its_return_is_none() {
    for (exe, kind) in [("/usr/bin/grep", Kind::Walk), ("/usr/bin/updatedb", Kind::Crawler)] {
        let mut log = Log::new();
        for n in 0..40 {
            log.line(n, json!({"secret": format!("team/s{n}")}));
        }
        log.quiet_weeks();
        walk(&mut log, LATER, exe);
        assert_eq!(log.kinds(), [kind]);
        let found = log.found[0].clone();
        assert!(found.explanation.contains("40 different names"), "{found:?}");
        assert!(found.lines >= 30 && found.seqs.len() == 32, "{found:?}");
        walk(&mut log, LATER + DAY, exe);
        assert_eq!(log.kinds(), [kind], "{:?}", log.found);
    }
}

#[test]
fn a_read_late_in_the_life_of_what_is_short_lived_is_found() {
    let mut log = Log::new();
    log.quiet_weeks();
    let start = jiff::Timestamp::from_second(MONDAY + LATER - 7200).unwrap().to_string();
    log.line(LATER, json!({"start_time": start}));
    assert_eq!(log.kinds(), [Kind::LongLived]);
}

#[test]
fn an_old_version_is_found_and_a_staged_one_is_not() {
    let mut log = Log::new();
    log.quiet_weeks();
    log.line(LATER, json!({"action": "stage", "version": 2}));
    log.line(LATER + 1, json!({"version": 2}));
    log.line(LATER + 2, json!({"version": 1}));
    assert_eq!(log.kinds(), []);
    log.line(LATER + 3, json!({"action": "promote", "version": 2}));
    log.line(LATER + 4, json!({"version": 1}));
    assert_eq!(log.kinds(), [Kind::OldVersion]);
}

#[test]
fn a_handle_that_changed_hands_is_found() {
    let mut log = Log::new();
    log.quiet_weeks();
    log.line(LATER, json!({"reason": "handle passed on"}));
    assert_eq!(log.kinds(), [Kind::PassedOn]);
}

#[test]
fn nothing_is_found_while_learning() {
    let mut log = Log::with("learning_days = 15\n");
    log.quiet_weeks();
    log.line(LATER, json!({"uid": 1000, "reason": "handle passed on"}));
    assert_eq!(log.kinds(), []);
}

#[test]
fn what_is_muted_is_learned_and_not_found() {
    let mut log = Log::with("[[rule]]\nkinds = [\"first_use\"]\nuids = [1000]\nmute = true\n");
    log.quiet_weeks();
    log.line(LATER, json!({"uid": 1000}));
    assert_eq!(log.kinds(), []);
    log.line(LATER + 1, json!({"uid": 1001}));
    assert_eq!(log.kinds(), [Kind::FirstUse]);
}

#[test]
fn a_restart_at_any_line_changes_no_finding() {
    let lines = |log: &mut Log, from: i64, to: i64| {
        for n in from..to {
            log.line(
                LATER + n * 7,
                json!({"uid": 1000 + n / 4, "exe": format!("/x{}", n % 3).replace('0', "a")}),
            );
        }
    };
    let mut whole = Log::new();
    whole.quiet_weeks();
    lines(&mut whole, 0, 30);
    whole.kinds();
    for cut in [1, 13, 29] {
        let mut log = Log::new();
        log.quiet_weeks();
        lines(&mut log, 0, cut);
        let bytes = log.detector.to_bytes().unwrap();
        log.detector = Detector::from_bytes(Settings::default(), &bytes).unwrap();
        assert_eq!(log.detector.last_seq().0, log.seq);
        lines(&mut log, cut, 30);
        log.kinds();
        assert!(!log.found.is_empty());
        assert_eq!(log.found, whole.found, "cut at {cut}");
    }
}

#[test]
fn a_line_is_taken_once_and_a_state_of_another_form_not_at_all() {
    let mut log = Log::new();
    log.quiet_weeks();
    log.line(LATER, json!({"uid": 1000}));
    log.seq -= 1;
    log.line(LATER, json!({"uid": 1001}));
    assert_eq!(log.kinds(), [Kind::FirstUse]);
    let bytes = log.detector.to_bytes().unwrap();
    let mut state: Value = serde_json::from_slice(&bytes).unwrap();
    state["format"] = 99.into();
    let other = serde_json::to_vec(&state).unwrap();
    assert!(Detector::from_bytes(Settings::default(), &other).is_err());
    assert!(Detector::from_bytes(Settings::default(), &bytes[1..]).is_err());
}

#[test]
fn what_waits_comes_out_when_time_has_passed_without_another_line() {
    let mut log = Log::new();
    log.quiet_weeks();
    log.line(LATER, json!({"uid": 1000}));
    assert!(log.found.is_empty());
    let time = |at: i64| jiff::Timestamp::from_second(MONDAY + at).unwrap();
    assert!(log.detector.advance(time(LATER + 59)).is_empty());
    assert_eq!(log.detector.advance(time(LATER + 60)).len(), 1);
}

#[test]
fn a_decoy_is_found_at_once_whoever_asks_for_it_also_in_vain_and_within_a_walk() {
    let mut log = Log::with("decoys = [\"team/s7\"]\n");
    log.line(0, json!({"secret": "team/s7", "action": "write"}));
    walk(&mut log, 9 * HOUR, "/usr/bin/grep");
    assert_eq!(log.found.len(), 1, "nobody waits, and nothing else is found while learning");
    log.quiet_weeks();
    walk(&mut log, LATER, "/usr/bin/find");
    let mut kinds = log.kinds();
    kinds.sort_unstable();
    assert_eq!(kinds, [Kind::Decoy, Kind::Decoy, Kind::Walk]);
    let decoy = log.found.iter().find(|found| found.kind == Kind::Decoy).unwrap();
    assert!(
        decoy.score >= 1.0 && decoy.explanation.contains("asked for team/s7, which is a decoy")
    );
}

#[test]
fn a_walk_that_is_not_told_hides_nothing_of_its_caller() {
    let mut log = Log::with("[[rule]]\nkinds = [\"walk\"]\nthreshold = 0.99\n");
    log.quiet_weeks();
    walk(&mut log, LATER, "/usr/bin/grep");
    log.line(LATER + 60, json!({"exe": "/usr/bin/grep", "uid": 0}));
    assert_eq!(log.kinds(), [Kind::Refusals, Kind::FirstUse]);
}
