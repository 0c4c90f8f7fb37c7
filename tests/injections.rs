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
use std::process::Command;

use common::{Person, eventually, write_file};
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

/// Starts a daemon whose consumer `app` knows what is there.
fn begin_told(injections: &str) -> Option<Site> {
    let site = begin("")?;
    write_injections(&site, injections);
    put(&site.secret(".control/reload"), "\n").unwrap();
    wait_for(&site, "app", "current");
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
    let shown = said(&site, "app");
    assert!(shown["time"].is_string());
    assert_eq!(shown["versions"], serde_json::json!({ "a": 4, "b": 2, "c": 2 }));
    assert!(site.ask(&["inject", "list"]).contains("consumer app\t3 secrets"));
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
    let Some(site) = begin_told(consumer) else { return };
    put(&site.secret("a"), "again").unwrap();
    eventually("it was tried", || lines(&site, "tried") >= 2);
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
    eventually("another server", || site.health().is_some() && site.pid() != server);
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

const BINDS: &str = r#"
[[file]]
secret = "a"
path = "DIR/files/a"
kind = "bind"
[[file]]
secret = "app"
path = "DIR/files/app"
kind = "bind"
"#;

/// Starts a daemon with a secret and a directory that are bound.
fn begin_bound() -> Option<Site> {
    let site = begin(BINDS)?;
    fs::create_dir(site.secret("app")).unwrap();
    put(&site.secret("app/key"), "key-1").unwrap();
    eventually("both are bound", || {
        holds(&site, "files/a", "a-1") && holds(&site, "files/app/key", "key-1")
    });
    for what in ["files/a", "files/app"] {
        wait_for(&site, what, "current");
    }
    Some(site)
}

/// Returns where something is mounted below `files`.
fn binds(site: &Site) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let paths = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    paths.filter(|path| path.starts_with(site.path("files"))).collect()
}

fn assert_nothing_is_left(site: &Site) {
    assert_eq!((names(site), binds(site)), (Vec::<PathBuf>::new(), Vec::<PathBuf>::new()));
}

#[test]
fn a_bind_is_the_secret_itself_and_goes_with_it_and_with_the_mount() {
    let Some(mut site) = begin_bound() else { return };
    let (bound, secret) = (site.path("files/a"), site.secret("a"));
    let id = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino())).unwrap();
    assert_eq!(id(&bound), id(&secret));
    // Nothing has to be renewed: what is written is there.
    for (number, name) in [("2", "a"), ("3", "app/key")] {
        put(&site.secret(name), number).unwrap();
        assert!(holds(&site, &format!("files/{name}"), number), "{name}");
    }
    put(&site.secret(".a.tmp"), "renamed over").unwrap();
    fs::rename(site.secret(".a.tmp"), &secret).unwrap();
    assert!(holds(&site, "files/a", "renamed over"));
    eventually("its version is shown", || said(&site, "files/a")["version"] == 3);
    let reads = site.audit().into_iter().filter(|line| line["secret"] == "a");
    let reads = reads.filter(|line| line["action"] == "read" && line["outcome"] == "allowed");
    assert!(reads.clone().count() >= 3, "who reads is on record");
    assert!(reads.map(|line| line["uid"].clone()).all(|uid| uid == 0));
    fs::remove_file(&secret).unwrap();
    eventually("it goes with its secret", || names(&site) == [site.path("files/app")]);
    wait_for(&site, "files/a", "no value");
    put(&secret, "made again").unwrap();
    eventually("it is bound again", || holds(&site, "files/a", "made again"));
    site.stop();
    assert_nothing_is_left(&site);
}

#[test]
fn whoever_unmounts_ends_the_session_though_it_is_bound() {
    let Some(mut site) = begin_bound() else { return };
    for unmount in [&["umount"][..], &["umount", "--lazy"], &[]] {
        let path = site.secret("");
        eventually("it is unmounted", || {
            let done = match unmount {
                [] => {
                    Command::new(env!("CARGO_BIN_EXE_secretfs")).arg("umount").arg(&path).output()
                }
                [program, more @ ..] => Command::new(program).args(more).arg(&path).output(),
            };
            done.unwrap().status.success()
        });
        assert!(site.ended().expect("the daemon ends").success(), "{unmount:?}");
        assert_nothing_is_left(&site);
        site.serve();
        eventually("bound again", || holds(&site, "files/a", "a-1"));
    }
}

#[test]
fn a_bind_outlives_a_killed_server_and_the_next_start_renews_or_removes_what_all_have_left() {
    let Some(mut site) = begin_bound() else { return };
    let server = site.pid();
    kill(Pid::from_raw(server.cast_signed()), Signal::SIGKILL).unwrap();
    assert!(holds(&site, "files/a", "a-1") && holds(&site, "files/app/key", "key-1"));
    eventually("another server", || site.health().is_some() && site.pid() != server);
    put(&site.secret("a"), "a-2").unwrap();
    assert!(holds(&site, "files/a", "a-2"));
    let kill_all = |site: &mut Site| {
        site.kill();
        // Nobody can read it any more, and that shows.
        eventually("it is dead", || {
            let error = fs::read(site.path("files/a")).unwrap_err();
            error.raw_os_error() == Some(libc::ENOTCONN)
        });
    };
    kill_all(&mut site);
    site.serve();
    eventually("it is alive", || holds(&site, "files/a", "a-2"));
    eventually("and nothing else is there", || binds(&site).len() == 2);
    kill_all(&mut site);
    write_injections(&site, "");
    site.serve();
    eventually("nothing is kept any more", || names(&site).is_empty() && binds(&site).is_empty());
    eventually("nothing is listed", || list(&site).is_empty());
}

#[test]
fn what_is_taken_out_of_the_list_or_stands_there_otherwise_is_taken_away() {
    let Some(site) = begin(&format!("{FILES}{}", BINDS.replace("files/a\"", "files/bound\"")))
    else {
        return;
    };
    let all = ["files/link", "files/a", "files/b", "files/bound"];
    all.iter().for_each(|what| wait_for(&site, what, "current"));
    let file = |name: &str, kind: &str| {
        format!("[[file]]\nsecret = \"c\"\npath = \"DIR/files/{name}\"\nkind = \"{kind}\"\n")
    };
    // Each becomes another one, and the copy b goes.
    write_injections(
        &site,
        &[file("link", "bind"), file("a", "link"), file("bound", "copy")].concat(),
    );
    put(&site.secret(".control/reload"), "\n").unwrap();
    eventually("all are of the other secret", || {
        ["link", "a", "bound"].iter().all(|name| holds(&site, &format!("files/{name}"), "c-1"))
    });
    assert_eq!(binds(&site), [site.path("files/link")]);
    assert_eq!(fs::read_link(site.path("files/a")).unwrap(), site.secret("c"));
    assert!(!site.path("files/b").exists());
    write_injections(&site, "");
    put(&site.secret(".control/reload"), "\n").unwrap();
    eventually("nothing is kept", || names(&site).is_empty());
    assert_nothing_is_left(&site);
    assert_eq!(site.health().unwrap(), "ok");
}

#[test]
fn a_bind_covers_nothing_of_others_and_follows_no_link_on_the_way() {
    let (Some(mut site), Some(other)) = (begin(""), begin("")) else { return };
    put(&site.path("files/theirs"), "theirs").unwrap();
    put(&site.path("files/empty"), "").unwrap();
    let bound = site.path("files/bound");
    other.ask(&["inject", "file", "a", bound.to_str().unwrap(), "--bind"]);
    fs::create_dir(site.path("elsewhere")).unwrap();
    std::os::unix::fs::symlink(site.path("elsewhere"), site.path("files/way")).unwrap();
    let file = |secret: &str, name: &str, kind: &str| {
        format!("[[file]]\nsecret = \"{secret}\"\npath = \"DIR/files/{name}\"\nkind = \"{kind}\"\n")
    };
    let names = ["theirs", "bound"].map(|name| file("a", name, "bind"));
    let mut files = format!("{}{}", names.concat(), file("b", "empty", "bind"));
    for kind in ["bind", "copy", "link"] {
        files.push_str(&file("c", &format!("way/{kind}"), kind));
    }
    write_injections(&site, &files);
    put(&site.secret(".control/reload"), "\n").unwrap();
    eventually("the empty one is bound", || holds(&site, "files/empty", "b-1"));
    for (what, why) in [
        ("files/theirs", "not put there by us"),
        ("files/bound", "not put there by us"),
        ("way/bind", "a symbolic link is on the way"),
        ("way/copy", "a symbolic link is on the way"),
        ("way/link", "a symbolic link is on the way"),
    ] {
        wait_for(&site, what, "failed");
        let shown = said(&site, what);
        assert!(shown["error"].as_str().unwrap().contains(why), "{shown}");
    }
    site.stop();
    assert!(holds(&site, "files/theirs", "theirs") && holds(&site, "files/empty", ""));
    assert_eq!(fs::read_dir(site.path("elsewhere")).unwrap().count(), 0);
    assert_eq!(binds(&site), std::slice::from_ref(&bound), "the other daemon's");
    other.ask(&["inject", "remove", bound.to_str().unwrap()]);
    assert_eq!(binds(&site), Vec::<PathBuf>::new());
}

#[test]
fn a_bind_by_the_command_line_is_taken_away_by_it_by_umount_and_by_a_stop() {
    let Some(mut site) = begin("") else { return };
    let place = site.path("files/bound");
    let bind = ["inject", "file", "a", place.to_str().unwrap(), "--bind"];
    let missing = ["inject", "file", "none", place.to_str().unwrap(), "--bind"];
    let mount = site.secret("").to_str().unwrap().to_owned();
    let (code, _) = site.refused(&[&["--mount", &mount], &missing[..]].concat());
    assert_eq!((code, place.exists()), (3, false));
    site.ask(&bind);
    site.ask(&bind);
    assert_eq!(binds(&site), std::slice::from_ref(&place), "once");
    put(&site.secret("a"), "a-2").unwrap();
    assert!(holds(&site, "files/bound", "a-2"));
    site.ask(&["inject", "remove", place.to_str().unwrap()]);
    assert_nothing_is_left(&site);
    site.ask(&bind);
    site.stop();
    assert_nothing_is_left(&site);
    site.serve();
    site.ask(&bind);
    site.unmount(&[]);
    assert!(site.ended().expect("the daemon ends").success());
    assert_nothing_is_left(&site);
    put(&place, "theirs").unwrap();
    site.serve();
    let (code, said) = site.refused(&[&["--mount", &mount], &bind[..]].concat());
    assert!(code == 9 && said.contains("not put there by"), "{said}");
}

#[test]
fn without_root_there_is_no_bind_and_that_is_said() {
    // The helper that mounts for users wants one with a name.
    let Ok(Some(user)) = nix::unistd::User::from_name("nobody") else { return };
    let person = Person { gid: user.gid.as_raw(), ..Person::new(user.uid.as_raw()) };
    let Some(site) = Site::of(person.clone()) else { return };
    site.init();
    let files = site.path("files");
    person.run(|| fs::create_dir(&files).unwrap());
    let list = site.path("config/secretfs/injections.toml");
    write_injections(&site, BINDS);
    std::os::unix::fs::chown(&list, Some(person.uid), Some(person.gid)).unwrap();
    let mount = site.secret("").to_str().unwrap().to_owned();
    site.ok(&["up", &mount]);
    let secret = site.secret("a");
    person.run(|| put(&secret, "a-1").unwrap());
    wait_for(&site, "files/a", "failed");
    let shown = said(&site, "files/a");
    assert_eq!(shown["error"], "refused: only root may mount (EPERM)");
    let place = files.join("b").to_str().unwrap().to_owned();
    let (code, said) = site.refused(&["--mount", &mount, "inject", "file", "a", &place, "--bind"]);
    assert!(code == 9 && said.contains("only root may mount (EPERM)"), "{said}");
    assert_nothing_is_left(&site);
    site.unmount(&[]);
}

#[test]
fn a_consumer_is_told_when_nobody_is_given_the_old_version_any_more() {
    let consumer = r#"
        [[consumer]]
        name = "app"
        secrets = ["a"]
        notify = [{ kind = "command", argv = ["/bin/sh", "-c", "echo >> DIR/told"] }]
    "#;
    let Some(site) = begin_told(consumer) else { return };
    let frozen = || fs::read_to_string(site.secret("@snap/a")).unwrap();
    assert_eq!(frozen(), "a-1");
    put(&site.secret("a"), "a-2").unwrap();
    assert_eq!(frozen(), "a-1", "this process is still given its set");
    wait_for(&site, "app", "pending");
    eventually("it is told", || lines(&site, "told") == 1);
    assert_eq!(frozen(), "a-2", "and who was told gets the new one");
}

#[test]
fn a_notice_that_is_pending_when_all_is_killed_is_shown_so_and_given_afterwards() {
    let consumer = |interval: u32| {
        format!(
            "[[consumer]]\nname = \"app\"\nsecrets = [\"a\"]\nmin_interval_seconds = {interval}\n\
             notify = [{{ kind = \"command\", argv = [\"/bin/sh\", \"-c\", \"echo >> DIR/told\"] }}]\n"
        )
    };
    let Some(mut site) = begin_told(&consumer(0)) else { return };
    let reload = |site: &Site, interval| {
        write_injections(site, &consumer(interval));
        put(&site.secret(".control/reload"), "\n").unwrap();
    };
    for kill_all in [false, true] {
        let told = lines(&site, "told") + 1;
        put(&site.secret("a"), "first").unwrap();
        eventually("it is told", || lines(&site, "told") == told);
        wait_for(&site, "app", "current");
        reload(&site, 600);
        put(&site.secret("a"), "second").unwrap();
        wait_for(&site, "app", "pending");
        let before = said(&site, "app");
        if kill_all {
            site.kill();
            site.serve();
        } else {
            let server = site.pid();
            kill(Pid::from_raw(server.cast_signed()), Signal::SIGKILL).unwrap();
            eventually("another server", || site.health().is_some() && site.pid() != server);
        }
        assert_eq!(said(&site, "app"), before);
        assert_eq!(lines(&site, "told"), told, "the interval is not over");
        reload(&site, 0);
        eventually("it is told", || lines(&site, "told") > told);
        wait_for(&site, "app", "current");
        assert_eq!(lines(&site, "told"), told + 1);
        assert_ne!(said(&site, "app")["time"], before["time"]);
    }
}
