//! What is planted in a synthetic month is found, and little else; the same log gives the same findings; and
//! the daemon finds what happens while it serves.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test file"
)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

mod common;
mod site;

use common::{Person, eventually, parse_lines, script};
use site::Site;

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

/// A daemon that has learned enough from its first line on, and tells at once.
fn watched() -> Option<Site> {
    let mut site = Site::new()?;
    site.init();
    let tuning = "learning_days = 0\nnew_secret_days = 0\nsettle_seconds = 0\n";
    fs::write(site.policy().with_file_name("anomalies.toml"), tuning).unwrap();
    site.serve();
    Some(site)
}

fn found(site: &Site) -> Vec<Value> {
    parse_lines(&fs::read(site.secret(".control/audit/anomalies")).unwrap())
}

fn kinds(site: &Site) -> Vec<String> {
    found(site).iter().map(|finding| finding["kind"].as_str().unwrap().to_owned()).collect()
}

/// Makes a second version and reads the first.
fn read_an_old_version(site: &Site) {
    let secret = site.secret("team-canary");
    fs::write(&secret, "example-value-1").unwrap();
    fs::write(&secret, "example-value-2").unwrap();
    assert_eq!(fs::read(site.secret("team-canary@1")).unwrap(), b"example-value-1");
    eventually("it is found", || kinds(site) == ["old_version"]);
}

#[test]
fn what_the_daemon_finds_is_on_record_for_admins_and_outlives_kill_and_restart() {
    let Some(mut site) = watched() else { return };
    read_an_old_version(&site);
    let told = found(&site);
    let line = site.audit().into_iter().find(|line| line["action"] == "anomaly").unwrap();
    assert_eq!(line["detail"], told[0]);
    let behind = told[0]["seqs"][0].as_u64().unwrap();
    let read = site.audit().into_iter().find(|line| line["seq"] == behind).unwrap();
    assert_eq!((&read["action"], &read["version"]), (&"read".into(), &1.into()));
    let refused =
        Person::new(1000).command("cat").arg(site.secret(".control/audit/anomalies")).output();
    assert!(!refused.unwrap().status.success(), "anomalies are for admins");
    // Nothing is on disk yet: the log teaches it again, and what was told is not told twice.
    site.kill();
    site.serve();
    eventually("the log was read again", || found(&site) == told);
    site.stop();
    site.serve();
    // The same again is no news by now, and what follows it is.
    fs::read(site.secret("team-canary@1")).unwrap();
    let read = Command::new("cat").arg(site.secret("team-canary")).output().unwrap();
    assert_eq!(read.stdout, b"example-value-2");
    eventually("the new caller is found", || kinds(&site).len() > 1);
    assert_eq!(kinds(&site), ["old_version", "first_use"], "{:?}", found(&site));
    assert!(site.ask(&["anomalies"]).contains("for the first time"));
    site.assert_whole();
}

#[test]
fn what_was_learned_is_sealed_and_a_damaged_file_is_learned_anew() {
    let Some(mut site) = watched() else { return };
    read_an_old_version(&site);
    site.stop();
    let file = site.state().join("anomalies.learned");
    let sealed = fs::read(&file).unwrap();
    assert!(!sealed.windows(11).any(|window| window == b"team-canary"));
    let mut damaged = sealed.clone();
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(&file, damaged).unwrap();
    site.serve();
    eventually("the log was read again", || kinds(&site) == ["old_version"]);
    assert!(site.said().contains("learned anew"), "{}", site.said());
}

#[test]
fn a_bad_tuning_changes_nothing_at_a_reload_and_says_where_it_is_wrong() {
    let Some(site) = watched() else { return };
    fs::write(site.policy().with_file_name("anomalies.toml"), "[[rule]]\nkinds = [\"nosuch\"]\n")
        .unwrap();
    assert!(fs::write(site.secret(".control/reload"), "\n").is_err());
    let message = site.ask(&["status"]);
    assert!(
        message.contains("line 2, column 10") && message.contains("anomalies.toml"),
        "{message}"
    );
    read_an_old_version(&site);
}

#[test]
fn a_decoy_looks_like_any_secret_to_who_may_read_it_and_its_read_is_told_to_admins() {
    const ADA: u32 = 61_001;
    let Some(mut site) = Site::new() else { return };
    site.init();
    let policy = fs::read_to_string(site.policy()).unwrap();
    let reader = "\n[[role]]\nname = \"reader\"\nallow = [{ names = [\"prod-*\"], levels = [\"read\"] }]\n\
        [[binding]]\nid = \"ada\"\nrole = \"reader\"\nuid = [61001]\n";
    fs::write(site.policy(), policy + reader).unwrap();
    site.serve();
    site.ask(&["put", "prod-root", "--decoy", "--generate=password"]);
    fs::write(site.secret("prod-db"), "example-value").unwrap();
    let attribute = |name: &str| {
        let mut command = Person::new(ADA).command("getfattr");
        let output =
            command.args(["-d", "--absolute-names"]).arg(site.secret(name)).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let names = |text: &str| {
        text.lines().filter_map(|line| Some(line.split_once('=')?.0.to_owned())).collect::<Vec<_>>()
    };
    assert!(names(&attribute("prod-db")).len() > 5, "{}", attribute("prod-db"));
    assert_eq!(names(&attribute("prod-root")), names(&attribute("prod-db")));
    let decoy = xattr::get(site.secret("prod-root"), "user.secretfs.decoy").unwrap();
    assert_eq!(decoy.as_deref(), Some(&b"yes"[..]));
    assert_eq!(kinds(&site), [] as [&str; 0], "nobody has read it");
    // A restart, so that it is read from the store.
    site.stop();
    site.serve();
    let read = Person::new(ADA).command("cat").arg(site.secret("prod-root")).output().unwrap();
    assert!(read.status.success() && read.stdout.len() > 8, "{read:?}");
    eventually("it is told, though the log is new", || kinds(&site) == ["decoy"]);
    assert_eq!(found(&site)[0]["caller"]["uid"], ADA);
    let line = site.audit().into_iter().find(|line| line["action"] == "anomaly").unwrap();
    assert!(line["secret"].is_null(), "events would tell who has read it");
    let proposed = site.ask(&["policy", "suggest", "--since", "1d"]);
    let (comments, rules): (Vec<&str>, Vec<&str>) =
        proposed.lines().partition(|line| line.starts_with('#'));
    assert!(comments.iter().any(|line| line.contains("prod-root")), "{proposed}");
    assert!(!rules.join("\n").contains("prod-root"), "nobody needs a decoy: {proposed}");
    site.assert_whole();
}

#[test]
fn the_log_has_the_digest_of_a_program_once_a_rule_binds_one() {
    let Some(mut site) = Site::new() else { return };
    site.init();
    let output = Command::new("sha256sum").arg("/bin/cat").output().unwrap();
    let digest = String::from_utf8(output.stdout).unwrap()[..64].to_owned();
    let policy = fs::read_to_string(site.policy()).unwrap();
    let bound = format!(
        "\n[[role]]\nname = \"reader\"\nallow = [{{ names = [\"prod-*\"], levels = [\"read\"] }}]\n\
         [[binding]]\nid = \"ada\"\nrole = \"reader\"\nuid = [61001]\nexe_sha256 = \"{digest}\"\n"
    );
    fs::write(site.policy(), policy + &bound).unwrap();
    site.serve();
    fs::write(site.secret("prod-db"), "example-value").unwrap();
    // A digest is not waited for: the first answer may be no.
    eventually("the program is known", || {
        let mut cat = Person::new(61_001).command("cat");
        cat.arg(site.secret("prod-db")).output().unwrap().status.success()
    });
    let read = |line: &Value| {
        line["uid"] == 61_001 && line["action"] == "read" && line["outcome"] == "allowed"
    };
    let line = site.audit().into_iter().find(read).unwrap();
    assert_eq!(line["exe_sha256"], digest);
    site.assert_whole();
}
