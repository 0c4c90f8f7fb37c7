//! Searches of a long audit log with its indexes, what those cost, and whether appending suffers.
//!
//! `cargo bench --bench audit_index [-- --smoke] [-- --lines N]`. A log of 10 million lines is written: 100,000
//! secrets of which few are read much, 2,000 users, a line each 0.26 s of 30 days. Appending is measured in
//! slices, in turns without and with a thread that builds indexes all the time, which the daemon does not: it
//! builds one each 5 s at most. The log is read from memory as far as that goes, as it would be on a server.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a benchmark is a program for people"
)]

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use secretfs::audit::{
    Action, AuditKey, AuditLog, Event, Filter, Find, Index, Indexes, Options, Outcome,
    complete_segments, find, index_of,
};
use secretfs::model::{
    Caller, Clock, Exe, Gid, ManualClock, Process, SecretName, Seq, Timestamp, Uid,
};
use zeroize::Zeroizing;

const BEGIN: i64 = 1_790_000_000;
const MONTH: Duration = Duration::from_secs(30 * 24 * 3600);
const SLICES: u64 = 20;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let smoke = arguments.iter().any(|argument| argument == "--smoke");
    let lines = arguments.iter().skip_while(|argument| *argument != "--lines").nth(1);
    let lines =
        lines.map_or(if smoke { 40_000 } else { 10_000_000 }, |lines| lines.parse().unwrap());
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let dir = directory.path().join("audit");
    let clock = Arc::new(ManualClock::at(BEGIN));
    let step = MONTH / u32::try_from(lines).unwrap();
    let world = World::new();
    let segment_bytes = if smoke { 2 << 20 } else { 64 << 20 };
    let log = AuditLog::open(
        &dir,
        AuditKey::new(Zeroizing::new([42; 32])),
        None,
        Options { segment_bytes, ..Options::default() },
        Arc::clone(&clock) as Arc<dyn Clock>,
        Arc::new(HashMap::<Uid, Arc<str>>::new()),
    )
    .unwrap();
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for slice in 0..SLICES {
        let numbers = slice * lines / SLICES..(slice + 1) * lines / SLICES;
        let append = || {
            let count = numbers.end - numbers.start;
            let begun = Instant::now();
            for number in numbers.clone() {
                world.append(&log, number);
                clock.advance(step);
            }
            count as f64 / begun.elapsed().as_secs_f64()
        };
        if slice % 2 == 0 {
            alone.push(append());
        } else {
            beside.push(while_indexing(&dir, append));
        }
    }
    let (alone, beside) = (median(alone), median(beside));
    println!("appending alone            {alone:12.0} lines a second");
    println!(
        "beside a busy index thread {beside:12.0} lines a second, {:.3} of it",
        beside / alone
    );
    report(&dir, &world);
    drop(log);
}

/// Builds all indexes and searches with and without them.
fn report(dir: &Path, world: &World) {
    let complete = complete_segments(dir).unwrap();
    let begun = Instant::now();
    let mut indexed: u64 = 0;
    let mut indexes: HashMap<Seq, Vec<u8>> = HashMap::new();
    for first in &complete {
        let index = index_of(dir, *first).unwrap();
        indexes.insert(*first, postcard::to_stdvec(&index).unwrap());
        indexed += fs::metadata(segment(dir, *first)).unwrap().len();
    }
    let took = begun.elapsed().as_secs_f64();
    let bytes: usize = indexes.values().map(Vec::len).sum();
    println!(
        "{} indexes in {took:.1} s: {:.1} MB of {:.0} MB, {:.2} %",
        indexes.len(),
        bytes as f64 / 1e6,
        indexed as f64 / 1e6,
        bytes as f64 * 100.0 / indexed as f64
    );
    // As the daemon does, each search decodes what it needs; only unsealing is left out.
    let with = |first: Seq| postcard::from_bytes::<Index>(indexes.get(&first)?).ok();
    let without = |_: Seq| None;
    let time = |hours: i64| Some(Timestamp::from_second(BEGIN + hours * 3600).unwrap());
    let any = Filter::default;
    let filters = [
        ("one secret, seldom read", Filter { secret: Some(world.name(77_777)), ..any() }),
        ("one secret, often read", Filter { secret: Some(world.name(3)), ..any() }),
        ("a directory", Filter { secret_prefix: Some("team-7/app-7".parse().unwrap()), ..any() }),
        ("one user", Filter { uid: Some(Uid(10_777)), ..any() }),
        ("an hour", Filter { since: time(300), until: time(301), ..any() }),
        (
            "the refusals of a user on a day",
            Filter {
                uid: Some(Uid(10_003)),
                outcome: Some(Outcome::Denied),
                since: time(240),
                until: time(264),
                ..any()
            },
        ),
    ];
    println!(
        "{:34} {:>8} {:>10} {:>10} {:>12} {:>8}",
        "search", "lines", "read, MB", "with, s", "without, s", "ratio"
    );
    for (what, filter) in filters {
        let (found, read, quick) = search(dir, &filter, &with);
        let (expected, _, slow) = search(dir, &filter, &without);
        assert_eq!(found, expected, "{what}: lines differ");
        let megabytes = read as f64 / 1e6;
        println!(
            "{what:34} {found:8} {megabytes:10.1} {quick:10.3} {slow:12.3} {:8.1}",
            slow / quick
        );
    }
}

/// Returns how many lines fit, how many bytes of lines were looked at, and how long it took to find and parse them
/// all.
fn search(dir: &Path, filter: &Filter, indexes: &Indexes<'_>) -> (usize, u64, f64) {
    let begun = Instant::now();
    let mut search = Find { filter: filter.clone(), max_bytes: 1 << 20, max_read: 128 << 20 };
    let (mut count, mut read) = (0, 0);
    loop {
        let page = find(dir, &search, indexes).unwrap();
        count += page.lines.iter().filter(|byte| **byte == b'\n').count();
        read += page.read;
        match page.next {
            Some(next) => search.filter.after = Some(next),
            None => return (count, read, begun.elapsed().as_secs_f64()),
        }
    }
}

/// Does something while indexes of the segments that are there are built over and over.
fn while_indexing<T>(dir: &Path, act: impl FnOnce() -> T) -> T {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Acquire) {
                match complete_segments(dir).unwrap().last() {
                    Some(first) => drop(index_of(dir, *first).unwrap()),
                    None => thread::sleep(Duration::from_millis(1)),
                }
            }
        });
        let done = act();
        stop.store(true, Ordering::Release);
        done
    })
}

fn segment(dir: &Path, first: Seq) -> PathBuf {
    dir.join(format!("{:020}.jsonl", first.0))
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}

/// Who reads what.
struct World {
    callers: Vec<Caller>,
    names: Vec<SecretName>,
}

impl World {
    fn new() -> Self {
        let caller = |number: u32| {
            let process = Process {
                pid: 4000 + number,
                started: Timestamp::from_second(BEGIN - 1000).unwrap(),
                comm: format!("app-{}", number % 50).into_bytes(),
                exe: Some(Exe {
                    path: format!("/usr/bin/app-{}", number % 50).into(),
                    sha256: None,
                }),
                unit: Some(format!("system.slice/app-{}.service", number % 200).into()),
                container: None,
            };
            let ids = Caller::with_ids(Uid(10_000 + number), Gid(10_000));
            Caller { tid: Some(4000 + number), process: Some(Arc::new(process)), ..ids }
        };
        let name = |number: u32| {
            let (team, app) = (number % 40, number % 400);
            format!("team-{team}/app-{app}/secret-{number}").parse().unwrap()
        };
        Self { callers: (0..2000).map(caller).collect(), names: (0..100_000).map(name).collect() }
    }

    fn name(&self, number: usize) -> SecretName {
        self.names.get(number).unwrap().clone()
    }

    fn append(&self, log: &AuditLog, number: u64) {
        // Numbers that look random and are the same each time.
        let noise = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        let noise = noise.wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 16;
        let pick = |noise: u64, of: usize| usize::try_from(noise % of as u64).unwrap();
        // Half of all reads are of a hundredth of the secrets.
        let among = if noise & 1 == 0 { self.names.len() / 100 } else { self.names.len() };
        let secret = self.names.get(pick(noise >> 1, among));
        let caller = self.callers.get(pick(noise >> 20, self.callers.len()));
        let outcome = if noise % 50 == 7 { Outcome::Denied } else { Outcome::Allowed };
        let event = Event {
            secret,
            caller,
            rule: Some("apps: reader allow 1"),
            ..Event::new(Action::Read, outcome)
        };
        log.append(&event).unwrap();
    }
}
