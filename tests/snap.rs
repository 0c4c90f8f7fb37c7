//! `@snap`: what one process opens through it was current at one moment.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test file: its helpers are tests too"
)]

mod common;

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use common::{Person, World, bounded, read};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const ADA: u32 = 61_501;

const ADA_READS_TLS: &str = r#"
[[role]]
name = "reader"
allow = [{ names = ["tls/key"], levels = ["read"] }]
[[binding]]
id = "ada"
role = "reader"
uid = [61501]
"#;

/// Reads two secrets of `tls` by names in a process of its own, with a change of both in between.
fn read_around_a_change(world: &World, first: &str, second: &str) -> String {
    let script = format!(
        "read -r one <tls/{first}; printf changed-key >tls/key; printf changed-cert >tls/cert\n\
         read -r two <tls/{second}; echo \"$one $two\""
    );
    let output = bounded(Command::new("bash").args(["-c", &script]).current_dir(world.path("")));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_process_reads_versions_that_were_current_together_and_the_next_one_those_of_then() {
    let Some(world) = World::start() else { return };
    world.put("tls/cert", "old-cert");
    world.put("tls/key", "old-key");
    assert_eq!(
        read_around_a_change(&world, "cert", "key"),
        "old-cert changed-key\n",
        "a torn pair"
    );
    world.put("tls/cert", "new-cert");
    world.put("tls/key", "new-key");
    assert_eq!(read_around_a_change(&world, "@snap/cert", "@snap/key"), "new-cert new-key\n");
    assert_eq!(
        read_around_a_change(&world, "@snap/key", "@snap/cert"),
        "changed-key changed-cert\n"
    );
}

#[test]
fn no_reader_of_a_pair_gets_two_versions_however_often_they_change() {
    let Some(world) = World::start() else { return };
    world.put("tls/both", "0");
    let done = AtomicBool::new(false);
    let script =
        "for turn in 1 2 3 4 5 6 7 8 9; do read -r one <tls/@snap/both; read -r two <tls/@snap/both
                  [ \"$one\" = \"$two\" ] || echo \"$one is not $two\"; done";
    let seen: Vec<String> = thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0;
            while !done.load(Ordering::SeqCst) {
                number += 1;
                world.put("tls/both", format!("{number}\n"));
            }
        });
        let readers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let run = |_| {
                        let mut shell = Command::new("bash");
                        let output =
                            bounded(shell.args(["-c", script]).current_dir(world.path("")));
                        String::from_utf8(output.stdout).unwrap()
                    };
                    (0..10).map(run).collect::<String>()
                })
            })
            .collect();
        let seen = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
        done.store(true, Ordering::SeqCst);
        seen
    });
    assert!(seen.iter().all(String::is_empty), "{seen:?}");
}

#[test]
fn a_set_is_a_directory_of_what_its_caller_may_know_and_nobody_else_s() {
    let Some(world) = World::with_policy(ADA_READS_TLS) else { return };
    for name in ["tls/cert", "tls/key", "tls/below/other", "top"] {
        world.put(name, name);
    }
    assert!(!world.list("tls").iter().any(|name| name.contains('@')), "it is not listed");
    assert!(fs::symlink_metadata(world.path("tls/@snap")).unwrap().is_symlink());
    assert!(fs::metadata(world.path("tls/@snap")).unwrap().is_dir());
    assert_eq!(world.list("tls/@snap"), ["cert", "key"]);
    assert_eq!(world.list("@snap"), ["top"]);
    assert_eq!(world.get("tls/@snap/key").unwrap(), b"tls/key");
    let shown = fs::metadata(world.path("tls/@snap/key")).unwrap();
    assert_eq!((shown.len(), shown.mode() & 0o777), (7, 0o400));
    let of_root = fs::read_link(world.path("tls/@snap")).unwrap();

    let ada = Person::new(ADA);
    let at = world.path("tls");
    let set = at.join(of_root);
    let (listed, other, cert) = ada.run(move || {
        let listed = common::list(&at.join("@snap")).unwrap();
        let other = common::list(&set);
        (listed, other, read(&at.join("@snap/cert")))
    });
    assert_eq!(listed, ["key"]);
    assert_eq!(other, Err(libc::ENOENT), "another user's set");
    assert_eq!(cert, Err(libc::ENOENT), "a secret that was not known when it was made");
    for missing in ["tls/key/@snap", "tls/@snap/none", "tls/@snap=0000000000000001", "none/@snap"] {
        assert!(world.get(missing).is_err(), "{missing}");
    }
    assert!(common::write(&world.path("tls/@snap/key"), b"x").is_err());
    assert!(common::write(&world.path("tls/@snap/new"), b"x").is_err());
    assert!(fs::remove_file(world.path("tls/@snap/key")).is_err());
    assert_eq!(world.audit_of("tls/key", "read", "allowed", 0).len(), 1);
}

#[test]
fn watchers_are_told_when_nobody_is_given_the_old_version_any_more() {
    let Some(world) = World::start() else { return };
    world.put("tls/key", "old");
    let watch = Inotify::init(InitFlags::IN_CLOEXEC).unwrap();
    watch.add_watch(&world.path("tls/key"), AddWatchFlags::IN_CLOSE_WRITE).unwrap();
    assert_eq!(world.get("tls/@snap/key").unwrap(), b"old");
    assert!(bounded(world.secretfs().args(["rotate", "tls/key"])).status.success());
    assert_eq!(world.get("tls/@snap/key").unwrap(), b"old", "this process is still given its set");
    let mut fds = [PollFd::new(watch.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, PollTimeout::try_from(common::DEADLINE).unwrap()), Ok(1));
    assert_ne!(
        world.get("tls/@snap/key").unwrap(),
        b"old",
        "and whoever was told gets the new one"
    );
}

#[test]
fn a_handle_of_a_set_outlives_the_server_and_a_path_through_the_set_does_not() {
    let Some(world) = World::start() else { return };
    world.put("tls/key", "old");
    let set = world.path("tls").join(fs::read_link(world.path("tls/@snap")).unwrap());
    let file = fs::File::open(set.join("key")).unwrap();
    kill(Pid::from_raw(i32::try_from(world.pid()).unwrap()), Signal::SIGKILL).unwrap();
    assert_eq!(std::io::read_to_string(&file).unwrap(), "old");
    assert_eq!(world.get("tls/@snap/key").unwrap(), b"old");
    assert_eq!(read(&set.join("key")), Err(libc::ENOENT));
}
