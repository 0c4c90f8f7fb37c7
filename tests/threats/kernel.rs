//! What the mount itself gives away or can be hurt by (THREATS 1.4).
//!
//! Elsewhere: K1, K4 in `errno` and the K3 rows in `access`; a crawler that comes in and the flags of K13 in
//! `control`; K6 in `read_exact`; K8 in `fs::workers`; K9 for plaintext in `fs::quota`; K11 and K12 with
//! takeover; K2 in `benches/broker.rs`, since no test may assert a time.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::mman::MapFlags;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use super::common::syscall::Mapping;
use super::common::{self, Person, World, list, number, read};
use super::{APP, attack, full};

/// K1: numbers that could be counted up from one's own would tell of others.
#[test]
fn inode_numbers_of_names_made_one_after_the_other_are_not_in_a_row() {
    let Some(world) = World::start() else { return };
    let inode = |number: u32| {
        world.put(&format!("k{number}"), "example-value");
        common::inode(&world.path(&format!("k{number}")))
    };
    let inodes: Vec<u64> = (0..20).map(inode).collect();
    let near = inodes.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) < 1 << 32).count();
    assert!(near <= 1, "{inodes:?}");
}

/// K5: bytes made for one caller are never another's page.
#[test]
fn two_callers_that_map_one_view_see_each_their_own() {
    let Some(world) = World::with_policy(APP) else { return };
    world.put("app/k", "example-value");
    world.put("app/locked", "admins-alone");
    let map = || {
        let path = world.path("app/@json");
        let file = File::open(&path).unwrap();
        let mut text = read(&path).unwrap();
        if let Ok(mapping) = Mapping::new(&file, 4096, MapFlags::MAP_PRIVATE) {
            text.extend(mapping.bytes());
        }
        String::from_utf8(text).unwrap()
    };
    for _ in 0..if full() { 10_000 } else { 50 } {
        assert!(map().contains("admins-alone"));
        let theirs = Person::new(1000).run(map);
        assert!(theirs.contains("example-value") && !theirs.contains("admins-alone"));
    }
}

/// K7 and F9: a caller that stands still in the middle of a request holds nobody up; here one that is
/// stopped while it has the file open, and one whose own files in /proc hang for whoever reads them.
#[test]
fn a_caller_that_is_stopped_holds_nobody_up() {
    let Some(world) = World::with_policy(APP) else { return };
    world.put("app/k", "example-value");
    let script = format!("exec 3<{}; kill -STOP $$", world.path("app/k").display());
    let mut stopped: Vec<_> = (0..16)
        .map(|_| {
            let mut command = Person::new(1000).command("/bin/sh");
            command.args(["-c", &script]).stdin(Stdio::null()).process_group(0).spawn().unwrap()
        })
        .collect();
    for child in &stopped {
        let state = || fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
        common::eventually("stopped", || state().contains(") T "));
    }
    for _ in 0..50 {
        assert_eq!(
            Person::new(1000).run(|| read(&world.path("app/k"))),
            Ok(b"example-value".to_vec())
        );
    }
    for child in &mut stopped {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// K10.
#[test]
fn a_gigabyte_written_is_too_big_at_the_limit_and_takes_no_memory() {
    let Some(world) = World::start() else { return };
    world.put("k", "example-value");
    let before = resident(world.pid());
    let mut file = File::create(world.path("k")).unwrap();
    let block = vec![b'x'; 1 << 20];
    let mut written = 0_u64;
    let refused = loop {
        match file.write(&block) {
            Ok(more) => written += more as u64,
            Err(err) => break number(&err),
        }
        assert!(written <= 1 << 30);
    };
    let sparse = OpenOptions::new().write(true).open(world.path("k")).unwrap();
    let far = std::os::unix::fs::FileExt::write_at(&sparse, b"x", 1 << 30);
    assert_eq!(refused, libc::EFBIG);
    assert_eq!(far.map_err(|err| number(&err)), Err(libc::EFBIG));
    assert!(written <= 1 << 20, "{written}");
    let grown = resident(world.pid()).saturating_sub(before);
    assert!(grown < 16 << 20, "the daemon grew by {grown} bytes");
    drop((file, sparse));
}

/// Returns the resident memory of a process in bytes.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// K9 and K10.
#[test]
fn one_uid_runs_into_its_quotas_and_another_does_not_notice() {
    let Some(world) = World::with_policy(APP) else { return };
    world.put("app/k", "example-value");
    let greedy = Person::new(1000).run(|| {
        let scratch = (0..100)
            .map(|number| File::create(world.path(&format!("app/.scratch-{number}"))).map(drop))
            .find_map(|made| made.err().map(|err| number_of(&err)));
        (scratch, 0)
    });
    assert_eq!(greedy.0, Some(libc::EDQUOT));
    setrlimit(Resource::RLIMIT_NOFILE, 8192, 8192).unwrap();
    let refused = Person::new(1000).run(|| {
        let path = world.path("app/k");
        let mut held = Vec::new();
        let refused = loop {
            match File::open(&path) {
                Ok(file) => held.push(file),
                Err(err) => break number_of(&err),
            }
        };
        // Everybody else goes on meanwhile.
        (refused, held.len())
    });
    assert_eq!(refused, (libc::EMFILE, 4096));
    assert_eq!(world.get("app/k").unwrap(), b"example-value");
    assert!(
        Person::new(1000).run(|| read(&world.path("app/k"))).is_ok(),
        "what was closed counts still"
    );
}

fn number_of(err: &std::io::Error) -> i32 {
    number(err)
}

/// K13.
#[test]
fn nothing_on_the_mount_can_be_run() {
    let Some(world) = World::start() else { return };
    world.put("program", "#!/bin/sh\necho ran\n");
    let run = Command::new(world.path("program")).output();
    assert_eq!(run.map(|_| ()).map_err(|err| number(&err)), Err(libc::EACCES));
}

/// K14.
#[test]
fn a_crawler_that_stays_on_its_filesystem_opens_no_secret() {
    let Some(world) = World::start() else { return };
    world.put("a/k", "example-value");
    let reads = || world.audit().iter().filter(|line| line["action"] == "read").count();
    let before = reads();
    let crawl = format!("find {} -xdev -type f -exec cat {{}} +", world.outside("").display());
    let output = common::bounded(Command::new("sh").args(["-c", &crawl]));
    assert!(!String::from_utf8_lossy(&output.stdout).contains("example-value"));
    assert_eq!(reads(), before);
    let there = fs::metadata(world.path("")).unwrap().dev();
    assert_ne!(there, fs::metadata(world.outside("")).unwrap().dev());
}

/// K16.
#[test]
fn an_abort_of_the_daemon_leaves_no_core() {
    // Without a keeper, which would reap it.
    let config = "keeper = \"off\"";
    let Some(world) = World::with(crate::common::ROOT_IS_ADMIN, config) else { return };
    world.put("k", "example-value");
    let pid = Pid::from_raw(world.pid().cast_signed());
    kill(pid, Signal::SIGABRT).unwrap();
    // Left to be reaped by the world.
    let ended = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
    assert_eq!(ended, WaitStatus::Signaled(pid, Signal::SIGABRT, false));
}
