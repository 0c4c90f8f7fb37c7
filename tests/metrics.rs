//! The metrics as Prometheus reads them, and the dashboard and rules that go with them.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test file"
)]

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

mod common;
mod servers;
mod site;

use servers::program;
use site::Site;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/monitoring").join(name)
}

/// Returns the metrics of a mount with a receiver, so that none is left out.
fn metrics() -> Option<String> {
    let mut site = Site::new()?;
    site.init();
    let alerts = "[[receiver]]\nname = \"journal\"\nto = { kind = \"journald\" }\n";
    common::write_file(&site.policy().with_file_name("alerts.toml"), alerts.as_bytes());
    site.serve();
    fs::write(site.secret("held"), "example-value").unwrap();
    let open = fs::File::open(site.secret("held")).unwrap();
    fs::write(site.secret("held"), "example-value-2").unwrap();
    let text = fs::read_to_string(site.secret(".control/metrics")).unwrap();
    drop(open);
    Some(text)
}

fn promtool(args: &[&str], input: &str) -> Option<Output> {
    let mut command = Command::new(program("promtool")?);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    Some(child.wait_with_output().unwrap())
}

/// Returns the metrics that a text of rules or of a dashboard names.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("secretfs_")).map(str::to_owned).collect()
}

#[test]
fn promtool_has_nothing_to_say_about_metrics_and_rules() {
    let Some(text) = metrics() else { return };
    let Some(checked) = promtool(&["check", "metrics"], &text) else { return };
    assert!(checked.status.success() && checked.stderr.is_empty(), "{checked:?}");
    let rules = fixture("rules.yml");
    let checked =
        promtool(&["check", "rules", "--lint-fatal", rules.to_str().unwrap()], "").unwrap();
    assert!(checked.status.success(), "{checked:?}");
    // One that means nothing is seen.
    let bad = promtool(&["check", "metrics"], "secretfs_reads_total{ 1\n").unwrap();
    assert!(!bad.status.success());
}

#[test]
fn whatever_the_dashboard_and_the_rules_use_is_measured_and_all_that_is_measured_is_shown() {
    let Some(text) = metrics() else { return };
    let samples: BTreeSet<String> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split(['{', ' ']).next().unwrap().to_owned())
        .collect();
    let dashboard: Value =
        serde_json::from_str(&fs::read_to_string(fixture("dashboard.json")).unwrap()).unwrap();
    let mut used = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let here = names(target["expr"].as_str().unwrap());
            assert!(!here.is_empty(), "{target}");
            used.extend(here);
        }
    }
    used.extend(names(&fs::read_to_string(fixture("rules.yml")).unwrap()));
    let missing: Vec<_> = used.difference(&samples).collect();
    assert!(missing.is_empty(), "not measured: {missing:?}");
    // Sums and counts belong to their histogram.
    let shown =
        |name: &&String| used.contains(*name) || name.ends_with("_sum") || name.ends_with("_count");
    let unused: Vec<_> = samples.iter().filter(|name| !shown(name)).collect();
    assert!(unused.is_empty(), "nobody looks at: {unused:?}");
    assert!(text.contains("\nsecretfs_held_superseded_versions 1\n"), "{text}");
}
