//! Reports and proposals by the command line: on a recorded month, whose numbers are counted anew, and on a
//! mounted store.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test file"
)]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use secretfs::audit::{Action, Entry, Outcome};
use secretfs::model::{Attributes, Caller, Container, Exe, Gid, Level, Process, Uptime};
use secretfs::policy::{Context, NothingUsed, NumericIds, Policy, Target};
use serde_json::Value;

mod common;
mod site;

use common::{Person, script};
use site::Site;

/// Makes a month of a fleet's log.
fn month(dir: &Path) -> PathBuf {
    let log = dir.join("log.jsonl");
    let mut command = script("anomaly-month.py");
    command.args(["--seed", "3", "--scale", "0.3"]).arg(&log).arg(dir.join("labels"));
    assert!(command.status().unwrap().success());
    log
}

/// Runs the program where there is no configuration and no mount.
fn alone(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_secretfs"));
    command.current_dir(dir).env("XDG_CONFIG_HOME", dir).args(args).output().unwrap()
}

#[test]
fn the_numbers_of_a_month_are_those_of_an_independent_count() {
    let dir = tempfile::tempdir().unwrap();
    let log = month(dir.path());
    let (json, page) = (dir.path().join("report.json"), dir.path().join("report.html"));
    for since in ["90d", "2026-10-05", "7d"] {
        let replay = log.to_str().unwrap();
        let output = alone(
            dir.path(),
            &[
                "--json",
                "report",
                "pci",
                "--since",
                since,
                "--html",
                "report.html",
                "--replay",
                replay,
            ],
        );
        assert_eq!(output.status.code(), Some(1), "many are refused in that month: {output:?}");
        fs::write(&json, &output.stdout).unwrap();
        let counted = script("report-count.py").arg(&log).arg(&json).arg(&page).output().unwrap();
        assert!(counted.status.success(), "{}", String::from_utf8_lossy(&counted.stdout));
    }
    // A report that says something else is found.
    let report = fs::read_to_string(&json).unwrap().replacen("\"allowed\":", "\"allowed\":1", 1);
    fs::write(&json, report).unwrap();
    let counted = script("report-count.py").arg(&log).arg(&json).arg(&page).output().unwrap();
    assert_eq!(counted.status.code(), Some(1));
    let mode = fs::metadata(&page).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "it names secrets and who reads them");
}

fn entries(log: &Path) -> Vec<Entry> {
    fs::read_to_string(log)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn caller(entry: &Entry) -> Caller {
    let exe = entry.exe.as_ref().map(|path| Exe { path: path.into(), sha256: None });
    let process = Process {
        pid: 1,
        started: entry.time,
        comm: Vec::new(),
        exe: exe.clone(),
        unit: entry.unit.as_deref().map(Into::into),
        container: entry
            .container
            .as_deref()
            .and_then(|text| text.split_once(':'))
            .map(|(runtime, id)| Container { runtime: runtime.into(), id: id.into() }),
    };
    Caller {
        process: Some(Arc::new(process)),
        exe_now: exe.map(Arc::new),
        ..Caller::with_ids(entry.uid.unwrap(), Gid(entry.uid.unwrap().0))
    }
}

/// Returns the levels that a policy gives who stands behind a line on its secret.
fn allowed(policy: &Policy, entry: &Entry) -> Vec<Level> {
    let (caller, name) = (caller(entry), entry.secret.clone().unwrap());
    let context = Context {
        now: entry.time,
        uptime: Uptime::UNKNOWN,
        elevated: false,
        quarantined: false,
        uses: &NothingUsed,
    };
    let attributes = Attributes::default();
    let target = Target::Secret { name: &name, attributes: Some(&attributes) };
    let may = |level: &Level| policy.decide(&caller, *level, target, &context).is_allowed();
    Level::ALL.into_iter().filter(may).collect()
}

/// All that the log says of a caller, and the secret.
type Facts<'a> = (u32, Option<&'a str>, Option<&'a str>, Option<&'a str>, &'a str);

fn facts(entry: &Entry) -> Facts<'_> {
    (
        entry.uid.unwrap().0,
        entry.exe.as_deref(),
        entry.unit.as_deref(),
        entry.container.as_deref(),
        entry.secret.as_ref().unwrap().as_str(),
    )
}

/// Plays a log against the rules that are proposed for it. Returns how many refusals they repeat, and those that
/// they do not.
fn replayed(policy: &Policy, entries: &[Entry]) -> (usize, usize) {
    let was_allowed = |entry: &&Entry| entry.outcome == Outcome::Allowed;
    let granted: BTreeSet<Facts<'_>> = entries.iter().filter(was_allowed).map(facts).collect();
    let (mut refused, mut contradicted) = (0, BTreeSet::new());
    for entry in entries {
        let found = allowed(policy, entry);
        match (entry.outcome, entry.action) {
            (Outcome::Allowed, Action::Read) => assert!(found.contains(&Level::Read), "{entry:?}"),
            (Outcome::Allowed, Action::Write) => {
                assert!(found.contains(&Level::Write), "{entry:?}")
            }
            // The same caller was allowed the same secret at another time: nothing tells the two apart.
            (Outcome::Denied, _) if granted.contains(&facts(entry)) => {}
            (Outcome::Denied, _) if found.is_empty() => refused += 1,
            (Outcome::Denied, _) => {
                contradicted.insert(facts(entry));
            }
            other => panic!("{other:?}"),
        }
        assert!(!found.contains(&Level::Delete) && !found.contains(&Level::Admin), "{entry:?}");
    }
    // Nobody may do more with a secret than that user did by that program.
    let key =
        |entry: &'_ Entry, action| (entry.uid, entry.exe.clone(), entry.secret.clone(), action);
    let done: BTreeSet<_> =
        entries.iter().filter(was_allowed).map(|entry| key(entry, entry.action)).collect();
    for entry in entries.iter().filter(was_allowed) {
        for level in allowed(policy, entry) {
            let action = if level == Level::Read { Action::Read } else { Action::Write };
            assert!(done.contains(&key(entry, action)), "{level} for {entry:?}");
        }
    }
    (refused, contradicted.len())
}

#[test]
fn the_proposed_rules_allow_what_the_log_shows_and_refuse_what_it_refused() {
    let dir = tempfile::tempdir().unwrap();
    let log = month(dir.path());
    let (replay, entries) = (log.to_str().unwrap(), entries(&log));
    for (flags, is_exact) in [(&["--exact"][..], true), (&[], false)] {
        let output =
            alone(dir.path(), &[&["policy", "suggest", "--replay", replay], flags].concat());
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let policy =
            Policy::parse(&text, &NumericIds).unwrap_or_else(|err| panic!("{err}\n{text}"));
        let (refused, contradicted) = replayed(&policy, &entries);
        assert!(refused > 1000, "{refused}");
        assert_eq!(contradicted == 0, is_exact, "{contradicted}");
        // What it would not refuse again, it says.
        let args = [&["--json", "policy", "suggest", "--replay", replay], flags].concat();
        let answer: Value = serde_json::from_slice(&alone(dir.path(), &args).stdout).unwrap();
        assert_eq!(answer["contradicted"].as_array().unwrap().len(), contradicted, "{answer}");
        assert!(text.trim_end().ends_with(answer["policy"].as_str().unwrap().trim_end()));
        assert_eq!(answer["policy"].as_str().unwrap().contains(".scope"), is_exact);
    }
}

const POLICY: &str = r#"
[[role]]
name = "reader"
allow = [{ names = ["prod/*"], levels = ["read"] }, { names = ["idle/*"], levels = ["read"] }]
[[binding]]
id = "ada"
role = "reader"
uid = [61001]
"#;

/// A mounted store with a reader beside its admin.
fn mounted() -> Option<Site> {
    let mut site = Site::new()?;
    site.init();
    let policy = fs::read_to_string(site.policy()).unwrap() + POLICY;
    fs::write(site.policy(), policy).unwrap();
    site.serve();
    fs::create_dir(site.secret("prod")).unwrap();
    fs::write(site.secret("prod/db"), "canary-7f3a").unwrap();
    fs::write(site.secret("prod/api"), "canary-7f3a").unwrap();
    let read = Person::new(61_001).command("cat").arg(site.secret("prod/db")).output().unwrap();
    assert_eq!(read.stdout, b"canary-7f3a");
    Some(site)
}

fn report(site: &Site, args: &[&str]) -> (Option<i32>, Value) {
    let mount = site.secret("");
    let output =
        site.run(&[&["--json", "--mount", mount.to_str().unwrap(), "report"], args].concat());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let report =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|err| panic!("{err} {said}"));
    (output.status.code(), report)
}

fn check<'a>(report: &'a Value, name: &str) -> &'a Value {
    let mut checks = report["checks"].as_array().unwrap().iter();
    checks.find(|check| check["check"] == name).unwrap_or_else(|| panic!("{name}: {report}"))
}

#[test]
fn a_mounted_store_is_judged_by_its_log_its_keys_and_its_policy_without_a_value() {
    let Some(site) = mounted() else { return };
    let (code, soc2) = report(&site, &["soc2"]);
    assert_eq!(code, Some(0), "{soc2}");
    assert_eq!(check(&soc2, "log_chain")["verdict"], "pass");
    assert_eq!(check(&soc2, "cipher")["verdict"], "pass");
    let admins = check(&soc2, "admins")["rows"].as_array().unwrap();
    assert!(admins.iter().all(|row| row[1] == "uid 0") && admins.len() == 1, "{soc2}");
    assert_eq!(soc2["counts"]["secrets"]["prod/db"]["reads"], 1);
    // The log of a minute does not show that nobody uses a rule, and says which it would be.
    let unused = check(&soc2, "unused_rules");
    assert_eq!(unused["verdict"], "not_evidenced");
    assert!(unused["rows"].to_string().contains("ada: reader allow 2"), "{unused}");
    let page = site.path("page.html");
    let (_, pci) = report(&site, &["pci", "--html", page.to_str().unwrap()]);
    assert_eq!(check(&pci, "value_age")["verdict"], "pass");
    let page = fs::read_to_string(page).unwrap();
    assert!(
        page.contains("ada: uid 61001") && page.contains("prod/api") && !page.contains("canary")
    );
    for text in [soc2.to_string(), pci.to_string()] {
        assert!(!text.contains("canary"));
    }
}

#[test]
fn a_fault_ends_with_its_own_exit_code_and_limits_are_the_readers() {
    let Some(site) = mounted() else { return };
    let limits = site.path("limits.toml");
    fs::write(&limits, "admins = 0\n").unwrap();
    let (code, found) = report(&site, &["hipaa", "--limits", limits.to_str().unwrap()]);
    assert_eq!(code, Some(1));
    assert_eq!(found["findings"][0]["check"], "admins");
    let mut refused = Person::new(61_001).command(env!("CARGO_BIN_EXE_secretfs"));
    site.surround(&mut refused);
    let output =
        refused.args(["--mount", site.secret("").to_str().unwrap(), "report", "soc2"]).output();
    assert_eq!(output.unwrap().status.code(), Some(5), "reports are for admins");
}

#[test]
fn an_edited_log_is_finding_number_one() {
    let Some(mut site) = mounted() else { return };
    // A start looks at the last segment alone: the edit is in the one before.
    site.stop();
    site.serve();
    site.stop();
    let segment = fs::read_dir(site.state().join("audit")).unwrap();
    let mut segments: Vec<_> = segment
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "jsonl"))
        .collect();
    segments.sort();
    // The uid of who has read it; the length stays.
    let text = fs::read_to_string(&segments[0]).unwrap();
    assert!(text.contains("61001"));
    fs::write(&segments[0], text.replace("61001", "61002")).unwrap();
    site.serve();
    let (code, found) = report(&site, &["soc2"]);
    assert_eq!(code, Some(1));
    assert_eq!(found["findings"][0]["check"], "log_chain");
    assert_eq!(check(&found, "refusals")["verdict"], "not_evidenced");
}

#[test]
fn a_proposal_of_the_daemons_log_lists_rules_and_grants_that_nobody_used() {
    let Some(site) = mounted() else { return };
    let given = ["--for", "1h", "--reason", "incident", "--uid", "61002"];
    site.ask(&[&["grant", "prod/api", "read"], &given[..]].concat());
    let text = site.ask(&["policy", "suggest", "--since", "1d"]);
    let policy = Policy::parse(&text, &NumericIds).unwrap_or_else(|err| panic!("{err}\n{text}"));
    assert_eq!(policy.rules().len(), 2, "one of the admin and one of ada: {text}");
    assert!(
        text.contains("uid = 61001") && text.contains("names = [\"prod/db\"], levels = [\"read\"]"),
        "{text}"
    );
    let comments: Vec<&str> = text.lines().filter(|line| line.starts_with('#')).collect();
    let comments = comments.join("\n");
    assert!(
        comments.contains("ada: reader allow 2") && !comments.contains("ada: reader allow 1"),
        "{text}"
    );
    assert!(comments.contains("read on prod/api for uid 61002"), "{text}");
}
