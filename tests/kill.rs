//! kill -9 of the daemon in the middle of writes and reads: what was acknowledged is there, whole and
//! on record, and the next start cleans up behind the last one.
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
mod site;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{DEADLINE, noise, write};
use site::Site;

const SEED: u64 = 0x7f3a;

/// Names that are written in a round, each by a thread of its own.
const WRITERS: u64 = 4;
/// Threads that open and read meanwhile, each a secret of its own.
const READERS: u64 = 2;

fn campaign(small: u64, full: u64) -> u64 {
    let asked = std::env::var("SECRETFS_CAMPAIGN").is_ok_and(|value| value == "full");
    if asked { full } else { small }
}

/// The value of a name's `count`-th write: it tells what it is, and its length and every byte of it
/// follow from that.
fn value(name: u64, count: u64) -> Vec<u8> {
    let length = 1 + (name * 7919 + count * 104_729) % 9000;
    let head = format!("{name} {count} ");
    [head.as_bytes(), &noise(name << 32 | count, usize::try_from(length).unwrap())].concat()
}

/// Tells which write a value is, if it is a whole one of that name.
fn count_of(name: u64, found: &[u8]) -> Option<u64> {
    let text = String::from_utf8_lossy(&found[..found.len().min(40)]).into_owned();
    let mut words = text.split(' ');
    let (of, count) = (words.next()?.parse::<u64>().ok()?, words.next()?.parse().ok()?);
    (of == name && found == value(name, count)).then_some(count)
}

/// What one name has been through: attempts that began, and those that were acknowledged.
#[derive(Default)]
struct Counts {
    begun: AtomicU64,
    done: AtomicU64,
}

impl Counts {
    fn range(&self) -> (u64, u64) {
        (self.done.load(Ordering::SeqCst), self.begun.load(Ordering::SeqCst))
    }

    /// Does something again and again until it fails.
    fn run(&self, stop: &AtomicBool, mut act: impl FnMut(u64) -> bool) {
        while !stop.load(Ordering::SeqCst) {
            let count = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
            if !act(count) {
                return;
            }
            self.done.fetch_add(1, Ordering::SeqCst);
        }
    }
}

struct Campaign {
    site: Site,
    /// By name: what has certainly been written and read, and what may have been.
    written: Vec<Counts>,
    read: Vec<Counts>,
    /// How far the log has been counted, and the lines counted by secret and action.
    log_offset: u64,
    lines: HashMap<(String, String), u64>,
}

impl Campaign {
    fn new(site: Site) -> Self {
        let counts = |n| (0..n).map(|_| Counts::default()).collect();
        Self {
            site,
            written: counts(WRITERS),
            read: counts(READERS),
            log_offset: 0,
            lines: HashMap::new(),
        }
    }

    /// Writes and reads until so many writes of this round were acknowledged, then kills the daemon.
    fn round(&mut self, acknowledged: u64) {
        let stop = AtomicBool::new(false);
        let total = |of: &[Counts]| of.iter().map(|counts| counts.range().0).sum::<u64>();
        let goal = total(&self.written) + acknowledged;
        let root = self.site.secret("");
        let (written, read) = (&self.written, &self.read);
        let site = &mut self.site;
        thread::scope(|scope| {
            for (name, counts) in (0..).zip(written) {
                let path = root.join(format!("w/{name}"));
                let stop = &stop;
                scope.spawn(move || {
                    counts.run(stop, |count| write(&path, &value(name, count)).is_ok())
                });
            }
            for (name, counts) in (0..).zip(read) {
                let path = root.join(format!("r/{name}"));
                let stop = &stop;
                // Only the open counts: it is what is recorded.
                scope.spawn(move || counts.run(stop, |_| File::open(&path).is_ok()));
            }
            let start = Instant::now();
            while total(written) < goal && start.elapsed() < DEADLINE {
                thread::sleep(Duration::from_micros(200));
            }
            site.kill();
            stop.store(true, Ordering::SeqCst);
        });
        assert!(total(&self.written) >= goal, "writes hung; the daemon said: {}", self.site.said());
    }

    /// Starts the daemon again and asserts everything that was promised.
    fn check(&mut self, round: u64) {
        let mount = self.site.secret("");
        let stale = fs::metadata(&mount).map_err(|err| err.raw_os_error().unwrap());
        assert_eq!(stale.err(), Some(libc::ENOTCONN), "round {round}: a dead mount is left behind");
        self.site.serve();
        self.count_log();
        for name in 0..WRITERS {
            self.check_written(round, name);
        }
        for name in 0..READERS {
            let (done, begun) = self.read[usize::try_from(name).unwrap()].range();
            let lines = self.lines_of(&format!("r/{name}"), "read");
            assert!(
                (done..=begun).contains(&lines),
                "round {round}, r/{name}: {done} opens completed, {begun} began, {lines} on record"
            );
        }
        self.site.assert_whole();
    }

    fn check_written(&mut self, round: u64, name: u64) {
        let counts = &self.written[usize::try_from(name).unwrap()];
        let (done, begun) = counts.range();
        let path = self.site.secret(&format!("w/{name}"));
        if done == 0 && common::read(&path) == Err(libc::ENOENT) {
            // Its first write was cut off, and leaves nothing.
            counts.begun.store(0, Ordering::SeqCst);
            return;
        }
        let found = fs::read(&path).unwrap_or_else(|err| {
            panic!("round {round}, w/{name}: {done} acknowledged, but {err}")
        });
        let current = count_of(name, &found).unwrap_or_else(|| {
            panic!("round {round}, w/{name}: {} bytes, not a whole version", found.len())
        });
        assert!(
            (done..=begun).contains(&current),
            "round {round}, w/{name}: {current} is not in {done}..={begun}"
        );
        let version = xattr::get(&path, "user.secretfs.version").unwrap().unwrap();
        let version: u64 = String::from_utf8(version).unwrap().parse().unwrap();
        // One version a write, whether it was acknowledged or only on its way: none twice, none lost.
        let lines = self.lines_of(&format!("w/{name}"), "write");
        assert!(
            lines >= version,
            "round {round}, w/{name}: version {version}, {lines} writes on record"
        );
        // An attempt that was cut off either is a version or is not; from now on it is known which.
        let counts = &self.written[usize::try_from(name).unwrap()];
        counts.begun.store(current, Ordering::SeqCst);
        counts.done.store(current, Ordering::SeqCst);
        assert_eq!(version, current, "round {round}, w/{name}");
        if current > 1 {
            let previous =
                fs::read(self.site.secret(&format!("w/{name}@{}", version - 1))).unwrap();
            assert_eq!(
                count_of(name, &previous),
                Some(current - 1),
                "round {round}, w/{name}@previous"
            );
        }
    }

    fn lines_of(&self, secret: &str, action: &str) -> u64 {
        self.lines.get(&(secret.to_owned(), action.to_owned())).copied().unwrap_or_default()
    }

    /// Counts what the log has got since the last time.
    fn count_log(&mut self) {
        let mut log = File::open(self.site.secret(".control/audit/log")).unwrap();
        log.seek(SeekFrom::Start(self.log_offset)).unwrap();
        let mut text = String::new();
        log.read_to_string(&mut text).unwrap();
        self.log_offset += text.len() as u64;
        for line in common::parse_lines(text.as_bytes()) {
            if line["outcome"] != "allowed" {
                continue;
            }
            let word = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
            *self.lines.entry((word("secret"), word("action"))).or_default() += 1;
        }
    }
}

fn prepare(site: &Site) {
    fs::create_dir(site.secret("w")).unwrap();
    fs::create_dir(site.secret("r")).unwrap();
    for name in 0..READERS {
        write(&site.secret(&format!("r/{name}")), b"example-value").unwrap();
    }
}

#[test]
fn after_each_kill_every_acknowledged_write_is_there_whole_and_on_record() {
    // A fresh site now and then, so that the log stays short enough to be verified each time.
    const ROUNDS_A_SITE: u64 = 50;
    let rounds = campaign(20, 1000);
    println!("seed {SEED:#x}, {rounds} rounds");
    let mut random = noise(SEED, usize::try_from(rounds).unwrap()).into_iter();
    let mut current: Option<Campaign> = None;
    for round in 0..rounds {
        if round % ROUNDS_A_SITE == 0 {
            let Some(mut site) = Site::new() else { return };
            site.serve();
            prepare(&site);
            current = Some(Campaign::new(site));
        }
        let campaign = current.as_mut().unwrap();
        campaign.round(1 + u64::from(random.next().unwrap()) % 60);
        campaign.check(round);
    }
}

#[test]
fn a_daemon_killed_before_it_served_leaves_nothing_that_stops_the_next_start() {
    let rounds = campaign(10, 200);
    println!("seed {SEED:#x}, {rounds} rounds");
    let Some(mut site) = Site::new() else { return };
    site.serve();
    write(&site.secret("s"), b"example-value").unwrap();
    site.stop();
    for moment in noise(SEED, usize::try_from(rounds).unwrap()) {
        let mut command = site.foreground("mount", &[]);
        let child = command.stdout(site.log()).stderr(site.log()).spawn().unwrap();
        // From before the store is opened to after the mount: whatever it is doing then.
        thread::sleep(Duration::from_micros(u64::from(moment) * 400));
        site.kill_child(child);
    }
    site.serve();
    assert_eq!(fs::read(site.secret("s")).unwrap(), b"example-value");
    site.assert_whole();
}

#[test]
fn a_daemon_killed_the_moment_its_mount_appears_dies_and_can_be_followed() {
    // A thread that asks its own mount something cannot be killed once the others are dead.
    let rounds = campaign(30, 1_000);
    let Some(mut site) = Site::new() else { return };
    site.init();
    for _ in 0..rounds {
        let mut command = site.foreground("mount", &[]);
        let child = command.stdout(site.log()).stderr(site.log()).spawn().unwrap();
        let start = Instant::now();
        while !site.is_mounted() && start.elapsed() < DEADLINE {}
        site.kill_child(child);
        // The table alone: the mount may be dead.
        nix::mount::umount2(&site.secret(""), nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
    site.serve();
    site.assert_whole();
}

#[test]
fn a_store_is_made_whole_by_a_second_up_whenever_the_first_was_killed() {
    let rounds = campaign(10, 200);
    println!("seed {SEED:#x}, {rounds} rounds");
    for moment in noise(SEED + 1, usize::try_from(rounds).unwrap()) {
        let Some(mut site) = Site::new() else { return };
        let child =
            site.foreground("up", &[]).stdout(site.log()).stderr(site.log()).spawn().unwrap();
        thread::sleep(Duration::from_micros(u64::from(moment) * 300));
        site.kill_child(child);
        site.serve();
        write(&site.secret("s"), b"example-value").unwrap();
        site.assert_whole();
    }
}

#[test]
fn a_crash_with_many_secrets_is_followed_by_a_start_with_all_of_them() {
    const THREADS: u64 = 32;
    let secrets = campaign(2_000, 100_000);
    let Some(mut site) = Site::new() else { return };
    site.serve();
    let root = site.secret("");
    for directory in 0..THREADS {
        fs::create_dir(root.join(directory.to_string())).unwrap();
    }
    thread::scope(|scope| {
        for directory in 0..THREADS {
            let root = &root;
            let names = (directory..secrets).step_by(usize::try_from(THREADS).unwrap());
            scope.spawn(move || {
                names.for_each(|name| write(&path(root, name), &small(name)).unwrap())
            });
        }
    });
    site.kill();
    site.serve();
    let listed: usize =
        (0..THREADS).map(|n| fs::read_dir(root.join(n.to_string())).unwrap().count()).sum();
    assert_eq!(listed as u64, secrets);
    for name in (0..secrets).step_by(7) {
        assert_eq!(fs::read(path(&root, name)).unwrap(), small(name), "{name}");
    }
    assert!(!root.join("0/none").exists());
    site.assert_whole();

    fn path(root: &Path, name: u64) -> std::path::PathBuf {
        root.join(format!("{}/s{name}", name % THREADS))
    }
    fn small(name: u64) -> Vec<u8> {
        format!("example-value {name}").into_bytes()
    }
}

#[test]
fn a_reader_that_held_a_secret_open_gets_an_error_and_not_another_value() {
    let Some(mut site) = Site::new() else { return };
    site.serve();
    write(&site.secret("s"), b"example-value").unwrap();
    let mut held = File::open(site.secret("s")).unwrap();
    let mut half_written = File::create(site.secret("half")).unwrap();
    std::io::Write::write_all(&mut half_written, b"half of it").unwrap();
    site.kill();
    let mut text = Vec::new();
    let error = held.read_to_end(&mut text).unwrap_err().raw_os_error();
    assert!([Some(libc::ENOTCONN), Some(libc::ECONNABORTED)].contains(&error), "{error:?}");
    assert!(common::close(half_written).is_err(), "an unpublished write is not acknowledged");
    site.serve();
    assert!(!site.secret("half").exists());
    assert_eq!(fs::read(site.secret("s")).unwrap(), b"example-value");
}
