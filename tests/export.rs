//! The log in the words of others, read by parsers that are not ours; and its totals.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test file"
)]

use std::fs;
use std::path::Path;
use std::process::Command;

use secretfs::audit::export::{Fault, Format, export_fault};
use serde_json::Value;

mod common;
mod site;

use common::python;
use site::Site;

#[test]
fn exported_events_are_valid_and_say_what_the_log_says() {
    let (Some(python), Some(mut site)) = (python(), Site::new()) else { return };
    site.init();
    let tuning = "learning_days = 0\nnew_secret_days = 0\nsettle_seconds = 0\n";
    fs::write(site.policy().with_file_name("anomalies.toml"), tuning).unwrap();
    site.serve();
    fs::write(site.secret("prod-db"), "example-value-1").unwrap();
    fs::write(site.secret("prod-db"), "example-value-2").unwrap();
    fs::rename(site.secret("prod-db"), site.secret("prod-database")).unwrap();
    fs::read(site.secret("prod-database@1")).unwrap();
    // A program whose path has whatever means something in a format.
    let odd = site.path("odd=name\\|\" \u{e9}");
    fs::copy("/bin/cat", &odd).unwrap();
    assert!(
        Command::new(&odd).arg(site.secret("prod-database")).output().unwrap().status.success()
    );
    common::eventually("a finding is on record", || {
        site.audit().iter().any(|line| line["action"] == "anomaly")
    });
    fs::remove_file(site.secret("prod-database")).unwrap();
    let files = ["ocsf", "cef", "json"].map(|format| {
        // What is the same for all of them: reading the log is in the log.
        let text = site.ask(&["log", "--limit", "0", "--format", format, "prod-database"]);
        let path = site.path(format);
        fs::write(&path, text).unwrap();
        path
    });
    let check = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/export-check.py");
    let output = Command::new(python).arg(check).args(files).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("[2004, 6003]"), "{output:?}");
}

#[test]
fn a_fault_is_a_valid_event_though_the_log_cannot_take_it() {
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().unwrap();
    let what = "the log takes no line: a=b\\c|d";
    let fault = Fault { id: 3, time: "2026-11-28T12:00:00Z".parse().unwrap(), what };
    let files = [(Format::Ocsf, "ocsf"), (Format::Cef, "cef")].map(|(format, name)| {
        let path = dir.path().join(name);
        fs::write(&path, export_fault(&fault, format, "db1") + "\n").unwrap();
        path
    });
    let check = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/export-check.py");
    let output = Command::new(python).arg(check).arg("--fault").args(files).arg(what).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_log_of_one_secret_has_its_totals_and_stats_count_every_line_once() {
    let Some(mut site) = Site::new() else { return };
    site.serve();
    fs::write(site.secret("prod-db"), "example-value").unwrap();
    (0..4).for_each(|_| assert!(fs::read(site.secret("prod-db")).is_ok()));
    let mount = site.secret("");
    let output = site.run(&["--mount", mount.to_str().unwrap(), "log", "prod-db", "--limit", "2"]);
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 2);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("5 entries: 5 allowed, 0 denied, 0 failed"), "{said}");
    let output = site.run(&["--mount", mount.to_str().unwrap(), "log", "--uid", "61001"]);
    assert!(output.stdout.is_empty());
    assert!(String::from_utf8(output.stderr).unwrap().contains("0 entries"));
    let stats: Value = serde_json::from_str(&site.ask(&["--json", "log", "--stats"])).unwrap();
    let lines = site.audit();
    let counted = |member: &str, key: &str| stats[member][key]["allowed"].as_u64().unwrap();
    assert_eq!(counted("secrets", "prod-db"), 5);
    // Since then the log was opened twice.
    assert!(stats["total"]["allowed"].as_u64().unwrap() <= lines.len() as u64);
    let by_uid = lines.iter().filter(|line| line["uid"] == 0).count() as u64;
    assert!((by_uid - 6..=by_uid).contains(&counted("uids", "0")), "{stats} {by_uid}");
}
