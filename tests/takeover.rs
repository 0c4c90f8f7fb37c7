//! A mount that outlives its server: killed, stopped, replaced, and nobody in it notices.
//!
//! `SECRETFS_CAMPAIGN=full` kills a thousand times instead of a few.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking, and its own environment says how much of it there is"
)]

mod common;
#[path = "takeover/spare.rs"]
mod spare;

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{Person, World, bounded, close, eventually, number, read, write};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

fn campaign(small: u64, full: u64) -> u64 {
    let asked = std::env::var("SECRETFS_CAMPAIGN").is_ok_and(|value| value == "full");
    if asked { full } else { small }
}

/// Kills the server again and again at moments that nobody chose.
struct Killer {
    state: u64,
}

impl Killer {
    fn new() -> Self {
        Self { state: 0x7f3a }
    }

    /// Returns a pause of up to 40 ms after the server has come up: some kills meet it as it starts.
    fn pause(&mut self) -> Duration {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        Duration::from_micros(self.state % 40_000)
    }

    fn kill(&mut self, world: &World, times: u64) {
        for _ in 0..times {
            let server = world.pid();
            thread::sleep(self.pause());
            signal(server, Signal::SIGKILL);
            // The lock tells the next server's pid; it is taken before the mount is.
            eventually("another server has the store", || world.pid() != server);
        }
    }
}

fn signal(pid: u32, signal: Signal) {
    // It may be gone.
    let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
}

/// Runs `act` in a thread for each number until `during` is over; returns what each counted.
fn beside(acts: &[&(dyn Fn(&AtomicBool) -> u64 + Sync)], during: impl FnOnce()) -> Vec<u64> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let running: Vec<_> = acts.iter().map(|act| scope.spawn(|| act(&stop))).collect();
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(during));
        stop.store(true, Ordering::SeqCst);
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Opens, reads, compares and closes until told to stop. Returns how many opens there were.
fn read_on(path: &Path, expected: &[u8], stop: &AtomicBool) -> u64 {
    let mut opens = 0;
    while !stop.load(Ordering::SeqCst) {
        let found =
            read(path).unwrap_or_else(|e| panic!("{}: {}", path.display(), common::word(e)));
        assert_eq!(found, expected, "{}", path.display());
        opens += 1;
    }
    opens
}

fn lines_of(world: &World) -> Vec<Value> {
    world.audit()
}

fn count(lines: &[Value], secret: &str, action: &str, outcome: &str) -> u64 {
    let fits = |line: &&Value| {
        line["secret"] == secret && line["action"] == action && line["outcome"] == outcome
    };
    lines.iter().filter(fits).count() as u64
}

fn assert_whole(world: &World) {
    let verified = world.control("admin", "audit-verify").unwrap();
    assert_eq!(verified["ok"], true, "{verified}");
    let verified = world.control("admin", "verify").unwrap();
    assert_eq!(verified["faults"], serde_json::json!([]), "{verified}");
}

#[test]
fn readers_and_their_handles_notice_no_kill_and_each_open_is_recorded_once() {
    let Some(world) = World::start() else { return };
    let values: Vec<(PathBuf, Vec<u8>)> = (0..4_u8)
        .map(|n| {
            let value = common::noise(n.into(), 100 + usize::from(n) * 3000);
            world.put(&format!("r/{n}"), &value);
            (world.path(&format!("r/{n}")), value)
        })
        .collect();
    world.put("held", "first");
    let held = File::open(world.path("held")).unwrap();
    world.put("held", "second");
    let before = lines_of(&world);
    let readers: Vec<_> = values
        .iter()
        .map(|(path, value)| move |stop: &AtomicBool| read_on(path, value, stop))
        .collect();
    let hold = |stop: &AtomicBool| {
        let mut reads = 0;
        while !stop.load(Ordering::SeqCst) {
            let mut bytes = [0; 16];
            let len = held.read_at(&mut bytes, 0).unwrap();
            assert_eq!(&bytes[..len], b"first");
            reads += 1;
        }
        reads
    };
    let mut acts: Vec<&(dyn Fn(&AtomicBool) -> u64 + Sync)> = vec![&hold];
    acts.extend(readers.iter().map(|reader| reader as &(dyn Fn(&AtomicBool) -> u64 + Sync)));
    let done = beside(&acts, || Killer::new().kill(&world, campaign(12, 1000)));
    let after = lines_of(&world);
    for (n, opens) in done.iter().skip(1).enumerate() {
        let secret = format!("r/{n}");
        let recorded = |lines| count(lines, &secret, "read", "allowed");
        assert_eq!(recorded(&after) - recorded(&before), *opens, "{secret}");
    }
    assert_eq!(count(&after, "held", "read", "allowed"), 1);
    assert_whole(&world);
    println!("{done:?} reads and opens");
}

#[test]
fn every_change_is_made_once_whenever_the_server_is_killed() {
    // A server makes the rules of a scan with the first attribute that is set, which takes as long as one lives here.
    let config = "scan_on_write = false\n";
    let Some(world) = World::with(common::ROOT_IS_ADMIN, config) else { return };
    fs::create_dir(world.path("c")).unwrap();
    let steps = [AtomicU64::new(0), AtomicU64::new(0)];
    let change = |name: &'static str, number: usize| {
        let (root, steps) = (world.path("c"), &steps[number]);
        move |stop: &AtomicBool| {
            let (dir, moved) = (root.join(name), root.join(format!("{name}-moved")));
            let mut rounds = 0;
            while !stop.load(Ordering::SeqCst) {
                let step = |what: &str, done: std::io::Result<()>| {
                    done.unwrap_or_else(|err| panic!("{what} of round {rounds}: {err}"));
                    steps.fetch_add(1, Ordering::SeqCst);
                };
                step("mkdir", fs::create_dir(&dir));
                publish(&dir.join("s"), format!("{name} {rounds}").as_bytes());
                let comment = format!("{rounds}");
                step(
                    "setxattr",
                    xattr::set(dir.join("s"), "user.secretfs.description", comment.as_bytes()),
                );
                step("rename", fs::rename(&dir, &moved));
                step("unlink", fs::remove_file(moved.join("s")));
                step("rmdir", fs::remove_dir(&moved));
                rounds += 1;
            }
            rounds
        }
    };
    let (one, two) = (change("one", 0), change("two", 1));
    let mut killer = Killer::new();
    let done = beside(&[&one, &two], || {
        for _ in 0..campaign(5, 250) {
            killer.kill(&world, 4);
            // What is in hand at eight kills is refused, by design: each change may be so at four.
            let before = steps.each_ref().map(|steps| steps.load(Ordering::SeqCst));
            let go_on =
                |(steps, before): (&AtomicU64, &u64)| steps.load(Ordering::SeqCst) > *before;
            eventually("both go on", || steps.iter().zip(&before).all(go_on));
        }
    });
    let lines = lines_of(&world);
    for (name, rounds) in ["one", "two"].iter().zip(&done) {
        let made = |secret: &str, action| {
            count(&lines, secret, action, "allowed") - count(&lines, secret, action, "failed")
        };
        assert_eq!(made(&format!("c/{name}"), "create_directory"), *rounds, "{name}");
        assert_eq!(made(&format!("c/{name}-moved/s"), "delete"), *rounds, "{name}");
        assert_eq!(made(&format!("c/{name}-moved"), "remove_directory"), *rounds, "{name}");
        assert_eq!(made(&format!("c/{name}/s"), "set_attribute"), *rounds, "{name}");
    }
    assert_whole(&world);
    println!("{done:?} rounds");
}

/// Writes until it is acknowledged: what was in a dead server's memory ends in EIO.
fn publish(path: &Path, value: &[u8]) {
    while let Err(errno) = write(path, value) {
        assert_eq!(errno, libc::EIO, "{}: {}", path.display(), common::word(errno));
    }
}

#[test]
fn no_acknowledged_write_is_lost_or_made_twice_and_no_half_one_is_published() {
    let Some(world) = World::start() else { return };
    let value = |n: u64| format!("{n} {}", "x".repeat(usize::try_from(n % 7000).unwrap()));
    world.put("w", value(0));
    let (acknowledged, refused) = (AtomicU64::new(0), AtomicU64::new(0));
    let path = world.path("w");
    let writer = |stop: &AtomicBool| {
        let mut n = 0;
        while !stop.load(Ordering::SeqCst) {
            n += 1;
            match write(&path, value(n).as_bytes()) {
                Ok(()) => acknowledged.store(n, Ordering::SeqCst),
                Err(errno) => {
                    assert_eq!(errno, libc::EIO, "{}", common::word(errno));
                    refused.fetch_add(1, Ordering::SeqCst);
                }
            }
        }
        n
    };
    let reader = |stop: &AtomicBool| {
        let mut last = 0;
        while !stop.load(Ordering::SeqCst) {
            let least = acknowledged.load(Ordering::SeqCst);
            let found = String::from_utf8(read(&path).unwrap()).unwrap();
            let n = found.split(' ').next().unwrap().parse().unwrap();
            assert_eq!(found, value(n), "a half version");
            assert!(n >= least.max(last), "{n} after {last}, {least} acknowledged");
            last = n;
        }
        last
    };
    let done = beside(&[&writer, &reader], || Killer::new().kill(&world, campaign(20, 1000)));
    let lines = lines_of(&world);
    let made = count(&lines, "w", "write", "allowed") - count(&lines, "w", "write", "failed");
    assert_eq!(made, world.version("w"), "versions and what the log says");
    assert_eq!(made, 1 + done[0] - refused.load(Ordering::SeqCst), "acknowledged and made");
    assert_whole(&world);
    println!("{done:?}, {refused:?} refused");
}

#[test]
fn whoever_follows_the_events_sees_each_line_once() {
    let Some(world) = World::start() else { return };
    world.put("a", "value");
    let mut events = File::open(world.path(".control/events")).unwrap();
    let path = world.path("a");
    let reader = |stop: &AtomicBool| {
        let mut opens = 0;
        while !stop.load(Ordering::SeqCst) {
            read(&path).unwrap();
            opens += 1;
            thread::sleep(Duration::from_millis(2));
        }
        opens
    };
    let seen = std::sync::Mutex::new(Vec::new());
    let follow = |stop: &AtomicBool| {
        let mut events = events.try_clone().unwrap();
        let mut all = seen.lock().unwrap();
        while !stop.load(Ordering::SeqCst) {
            events.read_to_end(&mut all).unwrap();
            thread::sleep(Duration::from_millis(1));
        }
        0
    };
    beside(&[&reader, &follow], || {
        Killer::new().kill(&world, campaign(12, 200));
        // However few of those servers have lived for long enough to serve.
        (0..12).for_each(|_| drop(read(&path).unwrap()));
    });
    let last = lines_of(&world).last().unwrap()["seq"].as_u64().unwrap();
    let mut all = seen.into_inner().unwrap();
    let seqs = |all: &[u8]| -> Vec<u64> {
        let end = all.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
        let lines = all[..end].split(|&b| b == b'\n').filter(|line| !line.is_empty());
        lines
            .map(|line| serde_json::from_slice::<Value>(line).unwrap()["seq"].as_u64().unwrap())
            .collect()
    };
    eventually("the last line has come", || {
        events.read_to_end(&mut all).unwrap();
        seqs(&all).last().is_some_and(|seq| *seq >= last)
    });
    let seqs = seqs(&all);
    for pair in seqs.windows(2) {
        assert_eq!(pair[1], pair[0] + 1, "a line is missing or came twice");
    }
    assert!(seqs.len() >= 12, "{}", seqs.len());
    // An offset keeps its meaning: the file can be read again from where it began to be held.
    let end = events.stream_position().unwrap();
    assert!(events.seek(SeekFrom::End(0)).unwrap() >= end);
}

#[test]
fn a_handle_goes_on_as_far_as_its_bytes_outlive_the_server() {
    let Some(world) = World::start() else { return };
    world.put("d/a", "value");
    let fresh = OpenOptions::new().write(true).truncate(true).open(world.path("d/a")).unwrap();
    let mut new =
        OpenOptions::new().write(true).create_new(true).open(world.path("d/new")).unwrap();
    let mut dirty = OpenOptions::new().write(true).open(world.path("d/a")).unwrap();
    dirty.write_all(b"lost").unwrap();
    let mut published = OpenOptions::new().write(true).open(world.path("d/a")).unwrap();
    published.write_all(b"first").unwrap();
    published.sync_all().unwrap();
    let status = File::open(world.path(".control/status")).unwrap();
    let log = File::open(world.path(".control/audit/log")).unwrap();
    let mut directory = fs::read_dir(world.path("d")).unwrap();
    replace(&world, Signal::SIGKILL);
    let path = world.path("d/a");
    assert_eq!(Person::new(1234).run(|| read(&path)), Err(libc::EACCES));
    let errno = |done: std::io::Result<usize>| done.map_err(|err| number(&err));
    assert_eq!(errno(status.read_at(&mut [0; 64], 0)), Err(libc::ESTALE));
    assert!(log.read_at(&mut [0; 64], 0).unwrap() > 0);
    assert!(directory.all(|entry| entry.is_ok()));
    assert_eq!(errno(dirty.write(b"more")), Err(libc::EIO));
    assert_eq!(close(dirty), Err(libc::EIO));
    assert_eq!(errno(published.write(b"more")), Err(libc::EIO), "it would be a half version");
    assert_eq!(close(published), Ok(()), "what it had written is there");
    assert_eq!(world.get("d/a").unwrap(), b"first");
    new.write_all(b"made").unwrap();
    assert_eq!(close(new), Ok(()));
    assert_eq!(world.get("d/new").unwrap(), b"made");
    (&fresh).write_all(b"second").unwrap();
    assert_eq!(close(fresh), Ok(()));
    assert_eq!(world.get("d/a").unwrap(), b"second");
}

/// Ends the server by a signal and waits for the next one to serve.
fn replace(world: &World, by: Signal) {
    let server = world.pid();
    signal(server, by);
    eventually("another server has the store", || world.pid() != server);
    assert_eq!(world.get(".control/health").unwrap(), b"ok\n");
}

#[test]
fn a_server_that_hangs_is_replaced_and_its_callers_get_their_bytes() {
    let config = "watchdog_seconds = 1";
    let Some(world) = World::with(common::ROOT_IS_ADMIN, config) else { return };
    world.put("a", "value");
    for round in 0..campaign(3, 100) {
        let server = world.pid();
        signal(server, Signal::SIGSTOP);
        eventually("the server is stopped", || state(server) == Some('T'));
        let begun = Instant::now();
        assert_eq!(world.get("a").unwrap(), b"value", "round {round}");
        assert_ne!(world.pid(), server);
        println!("round {round}: {:?}", begun.elapsed());
    }
}

#[test]
fn a_key_that_was_typed_once_outlives_the_server_and_a_sealed_store_stays_sealed() {
    // On a machine with as much else to do, the stretching of a passphrase alone takes longer than the default.
    let config = "deadline_seconds = 60";
    let Some(world) = World::with(common::ROOT_IS_ADMIN, config) else { return };
    world.put("a", "value");
    let change =
        r#"{"do": "key-change-source", "source": "passphrase", "passphrase": "correct horse"}"#;
    world.control("admin", change).unwrap();
    replace(&world, Signal::SIGKILL);
    assert_eq!(world.get("a").unwrap(), b"value");
    world.control("seal", "\n").unwrap();
    let server = world.pid();
    signal(server, Signal::SIGKILL);
    eventually("another server has the store", || world.pid() != server);
    assert_eq!(world.get(".control/health").unwrap(), b"sealed\n");
    assert_eq!(world.get("a"), Err(libc::ENOKEY));
    world.control("unseal", "correct horse\n").unwrap();
    replace(&world, Signal::SIGKILL);
    assert_eq!(world.get("a").unwrap(), b"value");
}

#[test]
fn the_store_stays_open_whenever_a_server_is_killed_that_changes_its_root_key() {
    let Some(world) = World::start() else { return };
    world.put("a", "value");
    let rotate = |stop: &AtomicBool| {
        let mut rotated = 0;
        while !stop.load(Ordering::SeqCst) {
            rotated += u64::from(world.control("admin", r#"{"do": "key-rotate-root"}"#).is_ok());
        }
        rotated
    };
    let mut killer = Killer::new();
    let rotated = beside(&[&rotate], || {
        for round in 0..campaign(20, 300) {
            killer.kill(&world, 1);
            assert_eq!(world.get("a").unwrap(), b"value", "round {round}");
        }
    });
    assert!(rotated[0] > 0);
    assert_whole(&world);
}

#[test]
fn with_on_restart_seal_the_next_server_has_no_key() {
    let config = "on_restart = \"seal\"";
    let Some(world) = World::with(common::ROOT_IS_ADMIN, config) else { return };
    world.put("a", "value");
    let server = world.pid();
    signal(server, Signal::SIGKILL);
    eventually("another server has the store", || world.pid() != server);
    assert_eq!(world.get("a"), Err(libc::ENOKEY));
    world.control("unseal", "\n").unwrap();
    assert_eq!(world.get("a").unwrap(), b"value");
}

#[test]
fn an_upgrade_loses_nothing_and_a_program_that_does_not_serve_is_given_up() {
    let Some(world) = World::start() else { return };
    world.put("a", "value");
    world.put("w", "0");
    let held = File::open(world.path("a")).unwrap();
    let program = world.outside("secretfs-next");
    fs::copy(env!("CARGO_BIN_EXE_secretfs"), &program).unwrap();
    let (a, w) = (world.path("a"), world.path("w"));
    let reader = |stop: &AtomicBool| read_on(&a, b"value", stop);
    let writer = |stop: &AtomicBool| {
        let mut n = 0;
        while !stop.load(Ordering::SeqCst) {
            n += 1;
            write(&w, n.to_string().as_bytes()).unwrap_or_else(|e| panic!("{}", common::word(e)));
        }
        n
    };
    let done = beside(&[&reader, &writer], || {
        for _ in 0..campaign(3, 20) {
            let upgraded = bounded(world.secretfs().arg("upgrade").arg(&program));
            assert!(upgraded.status.success(), "{upgraded:?}");
        }
    });
    assert_eq!(world.get("w").unwrap(), done[1].to_string().as_bytes());
    let bad = world.outside("no-secretfs");
    fs::copy("/bin/false", &bad).unwrap();
    let upgraded = bounded(world.secretfs().arg("upgrade").arg(&bad));
    assert!(!upgraded.status.success(), "{upgraded:?}");
    assert_eq!(world.get("a").unwrap(), b"value");
    let mut bytes = [0; 5];
    held.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"value");
    assert_whole(&world);
}

#[test]
fn a_program_that_others_could_change_is_not_upgraded_to() {
    let Some(world) = World::start() else { return };
    let program = world.outside("writable");
    fs::copy(env!("CARGO_BIN_EXE_secretfs"), &program).unwrap();
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let server = world.pid();
    let upgraded = bounded(world.secretfs().arg("upgrade").arg(&program));
    assert!(!upgraded.status.success(), "{upgraded:?}");
    assert_eq!(world.pid(), server);
}

#[test]
fn a_request_that_ends_servers_is_refused_after_the_second() {
    // On a machine with as much else to do, the stretching of a passphrase alone takes longer than the default.
    let config = "deadline_seconds = 60";
    let Some(world) = World::with(common::ROOT_IS_ADMIN, config) else { return };
    let change =
        r#"{"do": "key-change-source", "source": "passphrase", "passphrase": "correct horse"}"#;
    world.control("admin", change).unwrap();
    world.control("seal", "\n").unwrap();
    // To stretch a passphrase takes long enough to end the server meanwhile.
    let unseal = world.path(".control/unseal");
    let first = world.pid();
    let asked = thread::spawn(move || {
        let mut file = OpenOptions::new().read(true).write(true).open(unseal).unwrap();
        file.write(b"wrong guess\n").map_err(|err| number(&err))
    });
    let working = || world.said().matches("took over").count();
    for death in 0..3 {
        let server = world.pid();
        // By then it has begun: nothing else keeps the server busy.
        eventually("the server works", || cpu_ticks(server) > 5 || asked.is_finished());
        if asked.is_finished() {
            break;
        }
        signal(server, Signal::SIGABRT);
        eventually("another server took over", || working() > death);
    }
    assert!(matches!(asked.join().unwrap(), Err(libc::EIO | libc::ESTALE)));
    assert_ne!(world.pid(), first);
    assert!(working() <= 2, "{}", world.said());
}

/// Returns a process's state, as proc(5) has it.
fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(") ").next()?.chars().next()
}

/// Returns how much processor time a process has used, in clock ticks.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split(' ').collect();
    fields.get(12).and_then(|ticks| ticks.parse().ok()).unwrap_or(0)
}

/// Returns where the server's threads have the kernel put the requests that they wait for.
fn request_buffers(server: u32) -> Vec<usize> {
    let threads = fs::read_dir(format!("/proc/{server}/task")).unwrap();
    let buffer = |thread: PathBuf| {
        let comm = fs::read_to_string(thread.join("comm")).ok()?;
        comm.starts_with("fuser-").then_some(())?;
        // Its number and arguments, where it waits in one: proc_pid_syscall(5).
        let call = fs::read_to_string(thread.join("syscall")).ok()?;
        let mut words = call.split(' ');
        (words.next()?.parse() == Ok(libc::SYS_read)).then_some(())?;
        usize::from_str_radix(words.nth(1)?.trim_start_matches("0x"), 16).ok()
    };
    threads.filter_map(|thread| buffer(thread.unwrap().path())).collect()
}

#[test]
fn requests_are_taken_where_a_page_begins_so_that_none_lies_in_two() {
    let Some(world) = World::start() else { return };
    for _ in 0..3 {
        let mut buffers = Vec::new();
        eventually("a thread waits for requests", || {
            buffers = request_buffers(world.pid());
            !buffers.is_empty()
        });
        let into_page = |buffer: &usize| buffer % 4096;
        assert!(buffers.iter().map(into_page).all(|offset| offset <= 64), "{buffers:x?}");
        replace(&world, Signal::SIGKILL);
    }
}

#[test]
fn status_and_log_tell_of_a_takeover() {
    let Some(world) = World::start() else { return };
    replace(&world, Signal::SIGKILL);
    let status = String::from_utf8(world.get(".control/status").unwrap()).unwrap();
    let pairs: HashMap<_, _> = status.lines().filter_map(|line| line.split_once(": ")).collect();
    assert_eq!((pairs["keeper"], pairs["server_generation"]), ("keeper", "2"));
    assert_eq!((pairs["restarts"], pairs["last_end"]), ("1", "killed"));
    assert!(["memfd", "memfd_secret"].contains(&pairs["key_memory"]));
    let lines = lines_of(&world);
    let starts: Vec<_> = lines.iter().filter(|line| line["action"] == "start").collect();
    let said = |line: &Value| line["detail"]["start"]["daemon"].clone();
    let start = |line: &Value| {
        let text = line["detail"].to_string();
        (text.contains("\"generation\":2"), text.contains("\"killed\""))
    };
    assert_eq!(starts.len(), 2, "{starts:?}");
    assert_eq!(start(starts[1]), (true, true), "{}", said(starts[1]));
}

#[test]
fn without_a_keeper_the_mount_dies_with_the_server() {
    let config = "keeper = \"off\"";
    let Some(world) = World::with(common::ROOT_IS_ADMIN, config) else { return };
    world.put("a", "value");
    signal(world.pid(), Signal::SIGKILL);
    eventually("the mount is dead", || world.get("a") == Err(libc::ENOTCONN));
}

#[test]
fn a_server_does_not_outlive_its_keeper() {
    let Some(world) = World::start() else { return };
    world.put("a", "value");
    signal(world.keeper(), Signal::SIGKILL);
    eventually("the mount is dead", || world.get("a") == Err(libc::ENOTCONN));
}

#[test]
fn a_store_that_cannot_be_served_any_more_is_answered_eio_and_served_again_when_it_can_be() {
    let Some(world) = World::start() else { return };
    world.put("a", "value");
    let policy = fs::read(world.policy_file()).unwrap();
    common::write_file(&world.policy_file(), b"this is no policy");
    signal(world.pid(), Signal::SIGKILL);
    // Waits for the keeper's patience, and not for ever.
    assert_eq!(world.get("a"), Err(libc::EIO));
    common::write_file(&world.policy_file(), &policy);
    let begun = Instant::now();
    while world.get("a") != Ok(b"value".to_vec()) {
        assert!(begun.elapsed() < Duration::from_secs(60), "{}", world.said());
        thread::sleep(Duration::from_millis(20));
    }
}
