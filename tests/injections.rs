//! `injections.toml`: files that the daemon keeps for programs, and programs that it tells of changes.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test file: its helpers are tests too"
)]

mod common;
mod site;

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use common::{eventually, write_file};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use site::{Site, processes_with};

/// Starts a daemon with secrets `a`, `b` and `c`, and a directory for files in memory.
fn begin(injections: &str) -> Option<Site> {
    let mut site = Site::new()?;
    site.init();
    fs::create_dir(site.path("files")).unwrap();
    write_injections(&site, injections);
    site.serve();
    for name in ["a", "b", "c"] {
        put(&site.secret(name), &format!("{name}-1")).unwrap();
    }
    Some(site)
}

fn put(path: &Path, text: &str) -> io::Result<()> {
    fs::File::create(path)?.write_all(text.as_bytes())
}

/// `DIR` stands for the site's directory.
fn write_injections(site: &Site, text: &str) {
    let text = text.replace("DIR", site.path("").to_str().unwrap().trim_end_matches('/'));
    write_file(&site.path("config/secretfs/injections.toml"), text.as_bytes());
}

fn list(site: &Site) -> Vec<Value> {
    let text = site.ask(&["--json", "inject", "list"]);
    serde_json::Deserializer::from_str(&text).into_iter().map(Result::unwrap).collect()
}

/// Returns what is said of a target, or of a consumer.
fn said(site: &Site, what: &str) -> Value {
    let found = list(site).into_iter().find(|line| {
        let target = line["target"].as_str().is_some_and(|target| target.ends_with(what));
        target || line["consumer"] == what
    });
    found.unwrap()
}

fn wait_for(site: &Site, what: &str, state: &str) {
    eventually(&format!("{what} is {state}"), || said(site, what)["state"] == state);
}

fn holds(site: &Site, file: &str, text: &str) -> bool {
    fs::read_to_string(site.path(file)).is_ok_and(|found| found == text)
}

fn lines(site: &Site, file: &str) -> usize {
    fs::read_to_string(site.path(file)).unwrap_or_default().lines().count()
}

fn names(site: &Site) -> Vec<PathBuf> {
    fs::read_dir(site.path("files")).unwrap().map(|entry| entry.unwrap().path()).collect()
}

const FILES: &str = r#"
[[file]]
secret = "a"
path = "DIR/files/link"
kind = "link"
[[file]]
secret = "a"
path = "DIR/files/a"
kind = "copy"
owner = "daemon"
mode = "0440"
[[file]]
secret = "b"
path = "DIR/files/b"
kind = "copy"
"#;

#[test]
fn links_and_copies_are_placed_renewed_and_taken_away_at_the_end() {
    let Some(mut site) = begin(FILES) else { return };
    eventually("both copies", || holds(&site, "files/a", "a-1") && holds(&site, "files/b", "b-1"));
    assert_eq!(fs::read_link(site.path("files/link")).unwrap(), site.secret("a"));
    let copy = fs::metadata(site.path("files/a")).unwrap();
    assert_eq!((copy.uid(), copy.permissions().mode() & 0o7777), (1, 0o440));
    put(&site.secret("a"), "a-2").unwrap();
    eventually("the copy is renewed", || holds(&site, "files/a", "a-2"));
    wait_for(&site, "files/a", "current");
    let shown = said(&site, "files/a");
    assert_eq!((&shown["secret"], &shown["version"]), (&"a".into(), &2.into()));
    assert!(shown["time"].is_string() && shown["error"].is_null());
    let table = site.ask(&["inject", "list"]);
    assert!(table.contains("files/link") && !table.contains("a-2"), "{table}");
    let reads = site.audit().into_iter().filter(|line| {
        let reason = line["reason"].as_str().unwrap_or_default();
        line["action"] == "read" && reason.ends_with("files/a")
    });
    let versions: Vec<Value> = reads.map(|mut line| line["version"].take()).collect();
    assert_eq!(versions.last(), Some(&2.into()));
    site.stop();
    assert_eq!(names(&site), Vec::<PathBuf>::new());
}

#[test]
fn the_copy_of_a_secret_that_is_gone_or_revoked_goes_too() {
    let Some(site) = begin(FILES) else { return };
    eventually("both copies", || holds(&site, "files/a", "a-1") && holds(&site, "files/b", "b-1"));
    site.ask(&["revoke", "a"]);
    fs::remove_file(site.secret("b")).unwrap();
    eventually("no copies", || names(&site) == [site.path("files/link")]);
    wait_for(&site, "files/a", "no value");
}

/// A consumer whose notice says that it has begun, and ends when it may.
const CONSUMER: &str = r#"
[[consumer]]
name = "app"
secrets = ["*"]
notify = [{ kind = "command", argv = ["/bin/sh", "-c", "cat DIR/files/a >> DIR/told; echo >> DIR/told; while [ ! -e DIR/go ]; do sleep 0.01; done"] }]
"#;

#[test]
fn what_changes_together_is_one_notice_after_the_copies() {
    let Some(site) = begin(FILES) else { return };
    wait_for(&site, "files/b", "current");
    write_injections(&site, &format!("{FILES}{CONSUMER}"));
    put(&site.secret(".control/reload"), "\n").unwrap();
    // It starts with what is there.
    wait_for(&site, "app", "current");
    eventually("it was looked at", || {
        fs::read_to_string(site.state().join("injected.json"))
            .is_ok_and(|state| state.contains("\"app\":{\"versions\":{\"a\""))
    });
    assert_eq!(lines(&site, "told"), 0);
    put(&site.secret("a"), "a-2").unwrap();
    eventually("the first notice", || lines(&site, "told") == 1);
    // All that changes while it is on its way is one more.
    for name in ["a", "b", "c", "a"] {
        put(&site.secret(name), &format!("{name}-3")).unwrap();
    }
    put(&site.path("go"), "").unwrap();
    eventually("the second notice", || lines(&site, "told") == 2);
    wait_for(&site, "app", "current");
    assert!(holds(&site, "told", "a-2\na-3\n"));
    assert!(said(&site, "app")["time"].is_string());
}

#[test]
fn a_consumer_is_not_told_again_before_its_interval_is_over() {
    let consumer = r#"
        [[consumer]]
        name = "app"
        secrets = ["a"]
        min_interval_seconds = 2
        notify = [{ kind = "command", argv = ["/bin/sh", "-c", "date +%s%N >> DIR/told"] }]
    "#;
    let Some(site) = begin(consumer) else { return };
    for told in 1..=3 {
        eventually("a notice", || {
            if lines(&site, "told") < told && said(&site, "app")["state"] == "current" {
                put(&site.secret("a"), &format!("x-{told}")).unwrap();
            }
            lines(&site, "told") >= told
        });
    }
    let times = fs::read_to_string(site.path("told")).unwrap();
    let times: Vec<u64> = times.lines().map(|line| line.parse().unwrap()).collect();
    // From the end of one notice to the beginning of the next; the clock of `date` is the same.
    assert!(times.windows(2).all(|two| two[1] - two[0] >= 2_000_000_000), "{times:?}");
}

#[test]
fn what_fails_is_shown_and_tried_again_and_nothing_of_others_is_touched() {
    let files = r#"
        [[file]]
        secret = "a"
        path = "DIR/files/below/a"
        kind = "copy"
        [[file]]
        secret = "b"
        path = "DIR/files/theirs"
        kind = "link"
        [[file]]
        secret = "c"
        path = "DIR/files/c"
        kind = "copy"
        owner = "nobody-of-that-name"
        [[file]]
        secret = "c"
        path = "/var/tmp/secretfs-never-there"
        kind = "copy"
    "#;
    let Some(mut site) = begin("") else { return };
    put(&site.path("files/theirs"), "theirs").unwrap();
    write_injections(&site, files);
    put(&site.secret(".control/reload"), "\n").unwrap();
    for (what, why) in [
        ("below/a", "No such file"),
        ("files/c", "there is no user"),
        ("theirs", "not put there by us"),
        ("never-there", "would reach a disk"),
    ] {
        wait_for(&site, what, "failed");
        let shown = said(&site, what);
        assert!(shown["error"].as_str().unwrap().contains(why), "{shown}");
    }
    assert_eq!(site.health().unwrap(), "degraded");
    assert!(site.ask(&["status"]).contains("injection of"));
    fs::create_dir(site.path("files/below")).unwrap();
    eventually("it is there now", || holds(&site, "files/below/a", "a-1"));
    site.stop();
    assert!(holds(&site, "files/theirs", "theirs"));
    assert!(!site.path("files/below/a").exists() && !site.path("files/c").exists());
}

#[test]
fn a_notice_that_fails_is_given_again() {
    let consumer = r#"
        [[consumer]]
        name = "app"
        secrets = ["a"]
        notify = [
            { kind = "command", argv = ["/bin/sh", "-c", "echo >> DIR/first"] },
            { kind = "command", argv = ["/bin/sh", "-c", "echo >> DIR/tried; test -e DIR/go"] },
        ]
    "#;
    let Some(site) = begin(consumer) else { return };
    eventually("it was tried", || {
        if lines(&site, "tried") == 0 {
            put(&site.secret("a"), "again").unwrap();
        }
        lines(&site, "tried") >= 2
    });
    assert_eq!(site.health().unwrap(), "degraded");
    put(&site.path("go"), "").unwrap();
    wait_for(&site, "app", "current");
    // Only what failed is given again.
    assert_eq!(lines(&site, "first"), 1);
    assert_eq!(site.health().unwrap(), "ok");
}

#[test]
fn files_outlive_a_killed_server_and_a_killed_effector_and_are_kept() {
    let Some(mut site) = begin(FILES) else { return };
    eventually("both copies", || holds(&site, "files/a", "a-1") && holds(&site, "files/b", "b-1"));
    let server = site.pid();
    kill(Pid::from_raw(server.cast_signed()), Signal::SIGKILL).unwrap();
    assert!(holds(&site, "files/a", "a-1") && holds(&site, "files/b", "b-1"));
    eventually("another server", || site.pid() != server && site.health().is_some());
    for pid in processes_with(&site.path("")) {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if command.split(|byte| *byte == 0).nth(1) == Some(b"effector") {
            kill(pid, Signal::SIGKILL).unwrap();
        }
    }
    put(&site.secret("a"), "a-2").unwrap();
    eventually("the copy is renewed", || holds(&site, "files/a", "a-2"));
    site.stop();
    assert_eq!(names(&site), Vec::<PathBuf>::new());
}

#[test]
fn a_list_with_a_mistake_is_refused_and_a_reload_changes_nothing() {
    let Some(mut site) = begin(FILES) else { return };
    wait_for(&site, "files/a", "current");
    write_injections(&site, "[[file]]\nsecret = \"a\"\npath = \"x\"\nkind = \"link\"\n");
    assert!(put(&site.secret(".control/reload"), "\n").is_err());
    assert!(site.ask(&["status"]).contains("line 1, column 1: the path must be absolute"));
    assert_eq!(list(&site).len(), 3);
    site.stop();
    let mount = site.secret("");
    let (_, said) = site.refused(&["mount", "--foreground", mount.to_str().unwrap()]);
    assert!(said.contains("line 1, column 1: the path must be absolute"), "{said}");
}
