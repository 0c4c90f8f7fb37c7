//! Grants on a real mount: by the command line and by `.control/grant`, over a killed daemon, to the second.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test file: its helpers are tests too"
)]

mod common;

use std::io::Read;
use std::process::Output;
use std::time::{Duration, Instant};

use common::{DEADLINE, Person, World, bounded, control, list, read, word, write};
use secretfs::model::{Clock, Timestamp};
use secretfs::system::SystemClock;
use serde_json::Value;

const ADA: u32 = 61_001;
const BOB: u32 = 61_002;

fn reads(world: &World, uid: u32, name: &str) -> Result<Vec<u8>, i32> {
    let path = world.path(name);
    Person::new(uid).run(|| read(&path))
}

/// Runs the command line as root, who is the admin.
fn secretfs(world: &World, args: &[&str]) -> Output {
    let mut command = world.secretfs();
    bounded(command.arg("--json").args(args))
}

fn answer(world: &World, args: &[&str]) -> Value {
    let output = secretfs(world, args);
    assert!(output.status.success(), "{args:?}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Grants Ada `read` on `name` and returns the grant's id.
fn grant(world: &World, lasting: &str) -> String {
    let given = answer(
        world,
        &["grant", "name", "read", "--uid", "61001", "--for", lasting, "--reason", "a test"],
    );
    given["id"].as_str().unwrap().to_owned()
}

/// Another admin, somebody who reads `name` with an approval, and somebody on call.
const GUARDED: &str = r#"
[[role]]
name = "all"
allow = [{ names = ["**"], levels = ["admin"] }]
[[role]]
name = "reader"
allow = [{ names = ["name"], levels = ["read"] }]
[[role]]
name = "oncall"
allow = [{ names = ["other"], levels = ["read"] }]
[[binding]]
role = "all"
uid = [61003]
[[binding]]
role = "reader"
uid = [61001]
[[binding]]
id = "oncall"
role = "oncall"
uid = [61002]
break_glass = "10m"
[[guard]]
names = ["name"]
levels = ["read"]
approvers = 1
"#;

/// Runs the command line as somebody, and returns its output.
fn secretfs_as(world: &World, uid: u32, args: &[&str]) -> Output {
    let mut command = Person::new(uid).command(env!("CARGO_BIN_EXE_secretfs"));
    bounded(command.args(["--json", "--mount", world.mountpoint()]).args(args))
}

fn world() -> Option<World> {
    let world = World::start()?;
    world.put("name", "example-value");
    Some(world)
}

#[test]
fn a_grant_of_the_command_line_lets_its_uid_read_until_it_is_revoked() {
    let Some(world) = world() else { return };
    assert_eq!(reads(&world, ADA, "name"), Err(libc::EACCES));
    let id = grant(&world, "15m");
    assert_eq!(reads(&world, ADA, "name").unwrap(), b"example-value");
    assert_eq!(reads(&world, BOB, "name"), Err(libc::EACCES));
    let listed = answer(&world, &["grant", "list"]);
    assert_eq!(listed[0]["id"], *id);
    assert_eq!(listed[0]["whom"], "uid 61001");
    answer(&world, &["grant", "revoke", &id]);
    assert_eq!(reads(&world, ADA, "name"), Err(libc::EACCES));
    assert_eq!(answer(&world, &["grant", "list"]), serde_json::json!([]));
    let used = world.audit_of("name", "read", "allowed", ADA);
    assert_eq!(used[0]["rule"], format!("grant:{id}"));
}

#[test]
fn a_grant_ends_to_the_second_over_a_killed_daemon() {
    let Some(mut world) = world() else { return };
    let command = "name levels=read uid=61001 for=8s reason=test";
    let given = control(&world.path(".control/grant"), command).unwrap();
    let until: Timestamp = given["until"].as_str().unwrap().parse().unwrap();
    world.kill_and_restart();
    let start = Instant::now();
    let (mut before, mut after) = (0, 0);
    while after == 0 {
        let (asked, outcome) = (SystemClock.now(), reads(&world, ADA, "name"));
        let answered = SystemClock.now();
        match outcome {
            Ok(_) => {
                assert!(asked < until, "it was read {:?} late", asked - until);
                before += 1;
            }
            Err(errno) => {
                assert_eq!(word(errno), word(libc::EACCES));
                assert!(answered >= until, "it ended {:?} early", until - answered);
                after += 1;
            }
        }
        assert!(start.elapsed() < DEADLINE, "it never ended");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(before > 0, "it was in force after the restart");
    world.kill_and_restart();
    assert_eq!(reads(&world, ADA, "name"), Err(libc::EACCES));
}

#[test]
fn an_acknowledged_grant_and_its_uses_survive_a_killed_daemon() {
    let Some(mut world) = world() else { return };
    let command = "name levels=read uid=61001 for=15m uses=2 reason=test";
    control(&world.path(".control/grant"), command).unwrap();
    world.kill_and_restart();
    assert!(reads(&world, ADA, "name").is_ok());
    world.kill_and_restart();
    assert!(reads(&world, ADA, "name").is_ok());
    world.kill_and_restart();
    assert_eq!(reads(&world, ADA, "name"), Err(libc::EACCES));
}

#[test]
fn the_last_use_of_a_grant_is_one_for_a_program_that_asks_for_the_size_of_what_it_has_opened() {
    let Some(world) = world() else { return };
    let command = "name levels=read uid=61001 for=15m uses=2 reason=test";
    control(&world.path(".control/grant"), command).unwrap();
    let file = world.path("name");
    let cat = |path: &str| bounded(Person::new(ADA).command("cat").arg(path));
    for path in [file.to_str().unwrap().to_owned(), format!("{}@1", file.display())] {
        let output = cat(&path);
        assert_eq!(output.stdout, b"example-value", "{path}: {output:?}");
    }
    assert!(!cat(file.to_str().unwrap()).status.success());
    assert_eq!(world.audit_of("name", "read", "allowed", ADA).len(), 2);
}

#[test]
fn a_file_that_is_open_stays_so_when_its_grant_is_revoked() {
    let Some(world) = world() else { return };
    let id = grant(&world, "15m");
    let (path, revoke) = (world.path("name"), world.path(".control/revoke"));
    let ada = Person::new(0);
    let value = ada.run(|| {
        let as_uid = |uid| nix::unistd::seteuid(nix::unistd::Uid::from_raw(uid)).unwrap();
        as_uid(ADA);
        let mut file = std::fs::File::open(&path).unwrap();
        as_uid(0);
        control(&revoke, &id).unwrap();
        as_uid(ADA);
        assert_eq!(read(&path), Err(libc::EACCES));
        assert_eq!(file.metadata().unwrap().len(), b"example-value".len() as u64);
        let mut value = Vec::new();
        file.read_to_end(&mut value).unwrap();
        value
    });
    assert_eq!(value, b"example-value");
}

#[test]
fn the_directory_of_grants_shows_admins_all_and_others_their_own() {
    let Some(world) = world() else { return };
    let id = grant(&world, "15m");
    assert_eq!(world.list(".control/grants"), [&*id]);
    let shown: Value =
        serde_json::from_slice(&world.get(&format!(".control/grants/{id}")).unwrap()).unwrap();
    assert_eq!(shown["names"], "name");
    assert_eq!(shown["reason"], "a test");
    let directory = world.path(".control/grants");
    let listed = |uid| Person::new(uid).run(|| list(&directory)).unwrap();
    assert_eq!(listed(ADA), [&*id]);
    assert_eq!(listed(BOB), [""; 0]);
    let file = directory.join(&id);
    assert_eq!(Person::new(BOB).run(|| read(&file)), Err(libc::ENOENT));
    assert!(std::fs::remove_file(&file).is_err() && write(&file, b"x").is_err());
}

#[test]
fn a_grant_is_refused_to_whom_is_no_admin_and_where_it_says_too_little() {
    let Some(world) = world() else { return };
    let file = world.path(".control/grant");
    let asked = |uid: u32, command: &str| {
        Person::new(uid).run(|| control(&file, command).map(drop).map_err(|refusal| refusal.errno))
    };
    assert_eq!(asked(ADA, "name levels=read uid=61001 for=15m reason=x"), Err(libc::EACCES));
    for bad in [
        "name levels=read uid=61001 reason=x",
        "name levels=read uid=61001 for=15m",
        "name levels=all uid=61001 for=15m reason=x",
        "name levels=read uid=no-such-user-7f3a for=15m reason=x",
        "name levels=read exe=/bin/cat for=15m reason=x",
    ] {
        assert_eq!(asked(0, bad), Err(libc::EINVAL), "{bad}");
    }
    assert_eq!(world.list(".control/grants"), [""; 0]);
    let refused = |line: &&Value| line["action"] == "grant" && line["outcome"] == "denied";
    assert_eq!(world.audit().iter().filter(refused).count(), 1);
}

#[test]
fn a_second_admin_approves_by_the_command_line_and_no_other_process_of_the_first() {
    let Some(world) = World::with_policy(GUARDED) else { return };
    world.put("name", "example-value");
    assert_eq!(world.get("name"), Err(libc::EACCES), "root is an admin, and guarded against");
    let asked = ["grant", "name", "read", "--uid", "61001", "--for", "15m", "--reason", "a test"];
    let request = answer(&world, &asked);
    assert_eq!(request["state"], "waiting");
    let id = request["id"].as_str().unwrap();
    assert_eq!(world.list(".control/grants"), [id]);
    assert_eq!(reads(&world, ADA, "name"), Err(libc::EACCES));
    for uid in [0, ADA, BOB] {
        let refused = secretfs_as(&world, uid, &["grant", "approve", id]);
        assert_eq!(refused.status.code(), Some(5), "{uid}: {refused:?}");
    }
    let approved = secretfs_as(&world, 61_003, &["grant", "approve", id]);
    assert!(approved.status.success(), "{approved:?}");
    assert_eq!(reads(&world, ADA, "name").unwrap(), b"example-value");
    assert_eq!(world.get("name"), Err(libc::EACCES));
    let by = world.audit_of("name", "grant_approve", "allowed", 61_003);
    assert_eq!(by[0]["detail"]["grant"], id);
    let why: Value = serde_json::from_slice(&world.get("name@why").unwrap()).unwrap();
    assert_eq!(why["levels"][0]["rule"], "guard 1");
}

#[test]
fn an_emergency_needs_a_reason_and_raises_an_event() {
    let Some(world) = World::with_policy(GUARDED) else { return };
    world.put("other", "example-value");
    let mut events = std::fs::File::open(world.path(".control/events")).unwrap();
    let take = ["grant", "other", "read", "--break-glass"];
    let silent = secretfs_as(&world, BOB, &take);
    assert_eq!(silent.status.code(), Some(2), "{silent:?}");
    assert_eq!(reads(&world, BOB, "other"), Err(libc::EACCES));
    let taken = secretfs_as(&world, BOB, &[&take[..], &["--reason", "the site is down"]].concat());
    assert!(taken.status.success(), "{taken:?}");
    assert_eq!(reads(&world, BOB, "other").unwrap(), b"example-value");
    let mut text = String::new();
    common::eventually("the event is there", || {
        events.read_to_string(&mut text).unwrap();
        text.contains("break_glass")
    });
    let event: Value =
        serde_json::from_str(text.lines().find(|line| line.contains("break_glass")).unwrap())
            .unwrap();
    assert_eq!(event["reason"], "the site is down");
    assert_eq!((&event["uid"], &event["secret"]), (&BOB.into(), &"other".into()));
    let stranger = secretfs_as(&world, ADA, &[&take[..], &["--reason", "curious"]].concat());
    assert_eq!(stranger.status.code(), Some(5), "{stranger:?}");
}
