//! The audit log is searched through the mount, with indexes that are made beside it.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test file"
)]

use std::fs;
use std::path::Path;

use serde_json::Value;

mod common;
mod site;

use common::{Person, eventually};
use site::Site;

#[test]
fn a_search_by_the_control_file_and_the_command_line_finds_what_the_log_says() {
    let Some(mut site) = Site::new() else { return };
    site.serve();
    fs::create_dir(site.secret("team")).unwrap();
    for name in ["team/a", "team/b", "other"] {
        fs::write(site.secret(name), "example-value").unwrap();
        (0..30).for_each(|_| assert!(fs::read(site.secret(name)).is_ok()));
    }
    let find = site.secret(".control/audit/find");
    let ask = |question: &str| control(&find, question).unwrap();
    let of = |line: &Value, name: &str| {
        line["secret"]
            .as_str()
            .is_some_and(|secret| secret == name || secret.starts_with(&format!("{name}/")))
    };
    for place in ["team", "team/a", "nowhere"] {
        let found = ask(&format!("{place}\n"));
        let entries = found["entries"].as_array().unwrap().clone();
        let expected: Vec<Value> =
            site.audit().into_iter().filter(|line| of(line, place)).collect();
        assert_eq!((entries, &found["next"]), (expected, &Value::Null), "{place}");
    }
    let reads = ask("{\"action\": \"read\", \"name\": \"other\"}");
    assert_eq!(reads["entries"].as_array().unwrap().len(), 30);
    assert_eq!(ask("other uid=4242\n")["entries"], serde_json::json!([]));
    let said = site.ask(&["log", "team", "--action", "read", "--limit", "0", "--format", "json"]);
    assert_eq!(said.lines().count(), 60);
    // Each search is on record, and is for admins.
    assert!(site.audit().iter().any(|line| line["reason"] == "audit-find"));
    let asked = Person::new(4101).run(|| control(&find, "team\n"));
    assert!(asked.is_err());
    assert!(control(&find, "{\"nmae\": \"team\"}").is_err());
}

#[test]
fn a_search_reads_complete_segments_by_their_index_and_a_damaged_one_hides_nothing() {
    let Some(mut site) = Site::new() else { return };
    site.init();
    let config = fs::read_to_string(site.config()).unwrap();
    common::write_file(&site.config(), format!("{config}\n[audit]\nsegment_mib = 1\n").as_bytes());
    site.serve();
    for name in ["often", "once"] {
        fs::write(site.secret(name), "example-value").unwrap();
    }
    assert!(fs::read(site.secret("once")).is_ok());
    let segments = |ending: &str| {
        let names = fs::read_dir(site.state().join("audit")).unwrap();
        let mut paths: Vec<_> = names.map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| path.to_str().unwrap().ends_with(ending));
        paths.sort();
        paths
    };
    while segments(".jsonl").len() < 3 {
        (0..200).for_each(|_| assert!(fs::read(site.secret("often")).is_ok()));
    }
    let reads = || {
        let text =
            site.ask(&["log", "once", "--action", "read", "--limit", "0", "--format", "json"]);
        text.lines().count()
    };
    assert_eq!(reads(), 1, "without an index");
    eventually("complete segments have an index", || segments(".index").len() >= 2);
    assert_eq!(reads(), 1, "with one");
    let paths = segments(".index");
    let bytes = |path: &std::path::Path| fs::metadata(path).unwrap().len();
    assert!(bytes(&paths[0]) * 10 <= bytes(&segments(".jsonl")[0]));
    let good = fs::read(&paths[0]).unwrap();
    for damaged in
        [vec![], good[..good.len() - 1].to_vec(), flipped(&good), fs::read(&paths[1]).unwrap()]
    {
        fs::write(&paths[0], damaged).unwrap();
        assert_eq!(reads(), 1, "with a damaged one");
    }
    fs::remove_file(&paths[0]).unwrap();
    assert_eq!(reads(), 1, "without it");
    eventually("it is built anew", || segments(".index").first() == Some(&paths[0]));
    assert_eq!(reads(), 1);
}

fn flipped(bytes: &[u8]) -> Vec<u8> {
    let mut flipped = bytes.to_vec();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    flipped
}

/// Runs a command of a control file, also in somebody else's place.
fn control(path: &Path, command: &str) -> Result<Value, String> {
    common::control(path, command).map_err(|refusal| format!("{refusal:?}"))
}
