//! What is planted in a synthetic month is found, and little else; the same log gives the same findings.
#![expect(clippy::unwrap_used, reason = "a test file")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn script(name: &str) -> Command {
    let mut command = Command::new("python3");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name));
    command
}

/// Runs `anomalies --replay` with a tuning of its own.
fn replay(dir: &Path, tuning: &str, logs: &[&str]) -> Output {
    let file = dir.join("anomalies.toml");
    fs::write(&file, tuning).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_secretfs"));
    command.current_dir(dir).args(["--json", "anomalies", "--limit", "0", "--tuning"]).arg(file);
    command.arg("--replay").args(logs).output().unwrap()
}

#[test]
fn nine_of_ten_planted_incidents_are_found_with_at_most_one_false_alert_a_day() {
    let output = script("anomaly-truth.py")
        .args(["--binary", env!("CARGO_BIN_EXE_secretfs"), "--scale", "0.5", "1"])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && said.contains(" of 40 found"), "{said}");
}

#[test]
fn the_same_log_gives_the_same_findings_also_in_parts_and_what_is_muted_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let month = |log: &str| {
        let mut command = script("anomaly-month.py");
        command.current_dir(dir).args(["--seed", "7", "--days", "20", "--incidents", "12"]);
        assert!(command.args(["--scale", "0.2", log, "labels"]).status().unwrap().success());
        fs::read_to_string(dir.join(log)).unwrap()
    };
    let log = month("a.jsonl");
    assert!(month("b.jsonl") == log, "the month is not the same again");
    let whole = replay(dir, "", &["a.jsonl"]);
    assert!(whole.status.success(), "{whole:?}");
    assert!(String::from_utf8_lossy(&whole.stdout).lines().count() >= 10, "{whole:?}");
    // Two segments, of which the second still has room and half a line at its end.
    let middle = log.len() / 2 + log[log.len() / 2..].find('\n').unwrap() + 1;
    fs::write(dir.join("1.jsonl"), &log[..middle]).unwrap();
    fs::write(dir.join("2.jsonl"), format!("{}\0\0\0", &log[middle..])).unwrap();
    assert_eq!(replay(dir, "", &["1.jsonl", "2.jsonl"]).stdout, whole.stdout);
    let muted = replay(dir, "[[rule]]\nmute = true\n", &["a.jsonl"]);
    assert!(muted.status.success() && muted.stdout.is_empty(), "{muted:?}");
}

#[test]
fn a_bad_tuning_and_a_bad_line_are_refused_with_their_place() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("log"), "\n").unwrap();
    for (tuning, said) in
        [("[[rule]]\nmut = true\n", "line 2, column 1"), ("", "line 1 is not an audit line")]
    {
        let output = replay(dir.path(), tuning, &["log"]);
        let message =
            String::from_utf8(output.stderr).unwrap() + &String::from_utf8(output.stdout).unwrap();
        assert!(output.status.code() == Some(12) && message.contains(said), "{message}");
    }
}
