//! What a takeover costs those who use the mount: the server is killed and replaced again and again
//! under eight readers, two processes that hold a handle, a writer and a follower of the events.
//!
//! `cargo bench --bench takeover [-- [--smoke] [--kills N] [--within MS]]`, as root. A stall is the longest open + read + close
//! that one reader had in hand at a kill, or began behind it and before the next one; what was in hand at several kills is
//! the first one's. A server is killed at a random moment within so many milliseconds (1,000) after it has come; with few
//! of them the next one often dies before it serves, and then stalls are of several starts. Everything that was read,
//! written and recorded is checked, and anything wrong ends the run.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::disallowed_methods,
    reason = "a benchmark is a program for people"
)]

mod support;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use support::Placement;

const READERS: usize = 8;
const HOLDERS: usize = 2;
/// Secrets that the writer writes in turn: a put costs more the more versions its secret has.
const WRITTEN: u64 = 64;
/// Operations that take less are no stalls, and are not kept.
const NO_STALL: Duration = Duration::from_millis(1);

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--client") {
        return client(&arguments[at + 1], Path::new(&arguments[at + 2]));
    }
    if !Path::new("/dev/fuse").exists() {
        println!("SKIP: needs /dev/fuse");
        return;
    }
    let smoke = arguments.iter().any(|argument| argument == "--smoke");
    let number = |flag: &str| {
        let at = arguments.iter().position(|argument| argument == flag)?;
        Some(arguments[at + 1].parse::<u64>().unwrap())
    };
    let kills = number("--kills").unwrap_or(if smoke { 10 } else { 1000 });
    let upgrades = (kills / 50).max(2);
    let within = number("--within").unwrap_or(1000);
    let directory = tempfile::tempdir().unwrap();
    let mounted = support::secretfs(Placement::Free, directory.path(), &[]);
    let world = World { home: directory.path(), mount: &mounted.mountpoint };
    for reader in 0..READERS {
        fs::write(world.mount.join(format!("r{reader}")), vec![b'x'; 64 << reader]).unwrap();
    }
    let mut clients: Vec<Client> =
        (0..READERS).map(|n| world.client("read", &format!("r{n}"))).collect();
    clients.extend((0..HOLDERS).map(|n| world.client("hold", &format!("r{n}"))));
    clients.push(world.client("write", "w"));
    let follower = Command::new("tail")
        .args(["-n", "+1", "-f"])
        .arg(world.mount.join(".control/events"))
        .stdout(File::create(directory.path().join("events")).unwrap())
        .spawn()
        .unwrap();
    let mut begun = Vec::new();
    let mut random = 0x7f3a_u64;
    for n in 0..kills {
        let server = world.server();
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        thread::sleep(Duration::from_micros((random >> 33) % (within * 1000)));
        begun.push((now(), "kills"));
        // Nothing else ends it; and if it has ended, another is there soon.
        kill(Pid::from_raw(server.cast_signed()), Signal::SIGKILL).unwrap();
        world.wait_for_another(server);
        if n % (kills / upgrades) == 0 {
            begun.push((now(), "upgrades"));
            world.upgrade();
        }
    }
    let ended = now();
    let ends: Vec<Ended> = clients.into_iter().map(Client::end).collect();
    world.check(&ends, follower);
    report(within, &begun, ended, &ends[..READERS]);
    println!(
        "{kills} kills and {upgrades} upgrades: no error, no wrong byte, no lost write, each open on record once"
    );
}

struct World<'a> {
    home: &'a Path,
    mount: &'a Path,
}

impl World<'_> {
    fn server(&self) -> u32 {
        loop {
            let lock = fs::read_to_string(self.home.join("data/secretfs/lock")).unwrap();
            match lock.split(' ').nth(1).and_then(|pid| pid.parse().ok()) {
                Some(pid) => return pid,
                None => thread::sleep(Duration::from_micros(200)),
            }
        }
    }

    fn wait_for_another(&self, server: u32) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.server() == server {
            assert!(Instant::now() < deadline, "nobody took over");
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn upgrade(&self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_secretfs"));
        command.arg("--mount").arg(self.mount).arg("upgrade").arg(env!("CARGO_BIN_EXE_secretfs"));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    fn client(&self, work: &str, name: &str) -> Client {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--client", work])
            .arg(self.mount.join(name))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Client { child, output, name: name.to_owned(), work: work.to_owned() }
    }

    /// Compares what the clients did with what is stored and recorded.
    fn check(&self, ends: &[Ended], mut follower: Child) {
        let mut counts = HashMap::new();
        let mut last = 0;
        for line in lines(&self.mount.join(".control/audit/log")) {
            last = line.seq;
            if let Some(secret) = line.secret {
                *counts.entry((secret, line.action, line.outcome)).or_insert(0_u64) += 1;
            }
        }
        let recorded = |name: &str, action: &str, outcome: &str| {
            counts.get(&(name.into(), action.into(), outcome.into())).copied().unwrap_or(0)
        };
        for reader in 0..READERS {
            let name = format!("r{reader}");
            let opens: u64 =
                ends.iter().filter(|end| end.name == name).map(|end| end.operations).sum();
            assert_eq!(recorded(&name, "read", "allowed"), opens, "opens of {name}");
        }
        let writer = ends.iter().find(|end| end.work == "write").unwrap();
        let versions = |n: u64| {
            let name = written(n);
            recorded(&name, "write", "allowed") - recorded(&name, "write", "failed")
        };
        assert_eq!((0..WRITTEN).map(versions).sum::<u64>(), writer.operations, "versions written");
        let followed = || lines(&self.home.join("events")).map(|line| line.seq).collect::<Vec<_>>();
        let deadline = Instant::now() + Duration::from_secs(30);
        while followed().last().is_none_or(|seq| *seq < last) {
            assert!(Instant::now() < deadline, "the follower has not seen the end");
            thread::sleep(Duration::from_millis(100));
        }
        drop(follower.kill());
        drop(follower.wait());
        let seqs = followed();
        let gaps = seqs.windows(2).filter(|pair| pair[1] != pair[0] + 1).count();
        println!(
            "events followed: {}, with {gaps} gaps (a slow follower loses lines, and is told)",
            seqs.len()
        );
        assert!(seqs.is_sorted_by(|a, b| a < b), "an event came twice");
    }
}

/// What is looked at of an audit line.
#[derive(serde::Deserialize)]
struct Line {
    seq: u64,
    action: String,
    outcome: String,
    secret: Option<String>,
}

/// Returns the lines of a file that are audit lines.
fn lines(path: &Path) -> impl Iterator<Item = Line> {
    let lines = BufReader::new(File::open(path).unwrap()).lines();
    lines.filter_map(|line| serde_json::from_str(&line.unwrap()).ok())
}

/// A process that uses the mount.
struct Client {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
    name: String,
    work: String,
}

struct Ended {
    name: String,
    work: String,
    operations: u64,
    /// When each long operation began, and how long it took, in nanoseconds.
    long: Vec<(u64, u64)>,
}

impl Client {
    fn end(mut self) -> Ended {
        drop(self.child.stdin.take());
        let mut operations = None;
        let mut long = Vec::new();
        for line in self.output.by_ref().lines() {
            let line = line.unwrap();
            let (word, rest) = line.split_once(' ').unwrap();
            if word == "done" {
                operations = rest.parse().ok();
            } else {
                long.push((word.parse().unwrap(), rest.parse().unwrap()));
            }
        }
        assert!(self.child.wait().unwrap().success(), "{} {} failed", self.work, self.name);
        let Self { name, work, .. } = self;
        Ended { name, work, operations: operations.unwrap(), long }
    }
}

/// Works until standard input is closed; then says what it did.
fn client(work: &str, path: &Path) {
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    thread::spawn(move || {
        drop(std::io::stdin().read(&mut [0]));
        drop(stop);
    });
    let running = || stopped.try_recv() != Err(std::sync::mpsc::TryRecvError::Disconnected);
    let mut long = Vec::new();
    let mut operations = 0_u64;
    match work {
        "read" => {
            let expected = fs::read(path).unwrap();
            operations += 1;
            while running() {
                let begun = now();
                assert_eq!(fs::read(path).unwrap(), expected);
                operations += 1;
                let took = now() - begun;
                if took > NO_STALL.as_nanos() as u64 {
                    long.push((begun, took));
                }
            }
        }
        "hold" => {
            let held = File::open(path).unwrap();
            operations += 1;
            let mut bytes = vec![0; 64];
            while running() {
                held.read_exact_at(&mut bytes, 0).unwrap();
                assert!(bytes.iter().all(|&byte| byte == b'x'));
                thread::sleep(Duration::from_millis(1));
            }
        }
        _ => {
            let mut last = 0_u64;
            while running() {
                last += 1;
                // Bytes that only a dead server had end in EIO, by design: they are written again.
                while let Err(err) = write(&path.with_file_name(written(last)), last) {
                    assert_eq!(err.raw_os_error(), Some(libc::EIO), "{err}");
                }
                operations += 1;
            }
            for value in last.saturating_sub(WRITTEN - 1).max(1)..=last {
                let read = fs::read_to_string(path.with_file_name(written(value))).unwrap();
                assert_eq!(read, value.to_string());
            }
        }
    }
    let mut out = std::io::stdout().lock();
    for (begun, took) in long {
        writeln!(out, "{begun} {took}").unwrap();
    }
    writeln!(out, "done {operations}").unwrap();
}

/// Returns the name of the secret that has the value `n`.
fn written(n: u64) -> String {
    format!("w{}", n % WRITTEN)
}

fn write(path: &Path, value: u64) -> std::io::Result<()> {
    let mut file = File::options().write(true).create(true).truncate(true).open(path)?;
    file.write_all(value.to_string().as_bytes())?;
    Ok(nix::unistd::close(std::os::fd::OwnedFd::from(file))?)
}

/// Returns a clock that all processes share, in nanoseconds.
fn now() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap();
    Duration::from(now).as_nanos() as u64
}

fn report(within: u64, begun: &[(u64, &'static str)], ended: u64, readers: &[Ended]) {
    let mut longest = vec![[0; READERS]; begun.len()];
    for (reader, Ended { long, .. }) in readers.iter().enumerate() {
        for (at, took) in long.iter().filter(|(at, _)| *at < ended) {
            let next = begun.partition_point(|(kill, _)| kill < at);
            let in_hand = begun.get(next).is_some_and(|(kill, _)| *kill < at + took);
            let Some(cause) = (if in_hand { Some(next) } else { next.checked_sub(1) }) else {
                continue;
            };
            longest[cause][reader] = longest[cause][reader].max(*took);
        }
    }
    let of_each = |((_, what), longest): (&(u64, &'static str), &[u64; READERS])| {
        longest.map(|took| (*what, took as f64 / 1e6))
    };
    let stalls: Vec<_> = begun.iter().zip(&longest).flat_map(of_each).collect();
    let opens: u64 = readers.iter().map(|reader| reader.operations).sum();
    println!("{opens} opens; stalls in ms, of servers killed within {within} ms:");
    let among = |what: &str, stalls: &[(&str, f64)]| {
        let mut sorted: Vec<f64> = stalls.iter().map(|(_, stall)| *stall).collect();
        sorted.sort_by(f64::total_cmp);
        let at = |part: f64| sorted[((sorted.len() - 1) as f64 * part) as usize];
        println!(
            "  {what:12} median {:6.1}, p90 {:6.1}, p99 {:6.1}, longest {:6.1}",
            at(0.5),
            at(0.9),
            at(0.99),
            at(1.0)
        );
    };
    among("all", &stalls);
    for kind in ["kills", "upgrades"] {
        let of_kind = |(what, _): &&(&str, f64)| *what == kind;
        among(kind, &stalls.iter().filter(of_kind).copied().collect::<Vec<_>>());
    }
    // Whether they grow with what a start finds.
    among("first tenth", &stalls[..stalls.len() / 10]);
    among("last tenth", &stalls[stalls.len() - stalls.len() / 10..]);
}
