//! What many secrets cost: start, memory, lookup, a listing of 1,000, and the start after a crash.
//!
//! `cargo bench --bench scale [-- --smoke]`, as root. Stores of 10,000, 100,000 and 1,000,000 secrets
//! in directories of 1,000, filled through the library. Before the crash, half a second of writes.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a benchmark is a program for people, and writes files that no crash threatens"
)]

mod support;

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use secretfs::audit::Options;
use secretfs::broker::{Broker, Limits, LogSettings, Parts, Put, read_header};
use secretfs::keysource::KeySource;
use secretfs::model::{Caller, Gid, Uid};
use secretfs::policy::{NumericIds, Policy, initial};
use secretfs::store::{JournaledStore, Store};
use secretfs::system::{SecretBytes, SystemClock};
use support::{Placement, median};

const BY_DIRECTORY: usize = 1000;
const HALF_A_SECOND: Duration = Duration::from_millis(500);

fn main() {
    let smoke = std::env::args().any(|argument| argument == "--smoke");
    let sizes: &[usize] = if smoke { &[2_000] } else { &[10_000, 100_000, 1_000_000] };
    println!(
        "{:>9} {:>10} {:>12} {:>9} {:>12} {:>10} {:>10}",
        "secrets", "start ms", "crashed ms", "RSS MiB", "bytes each", "stat us", "ls ms"
    );
    let empty = measure(0).memory;
    for &secrets in sizes {
        let found = measure(secrets);
        let each = (found.memory.saturating_sub(empty)) as f64 / secrets as f64;
        println!(
            "{secrets:>9} {:>10.1} {:>12.1} {:>9.1} {each:>12.0} {:>10.1} {:>10.2}",
            found.start,
            found.crashed,
            found.memory as f64 / 1048576.0,
            found.stat,
            found.listing
        );
    }
}

struct Found {
    /// Milliseconds from exec to the first answer, after a clean end and after SIGKILL.
    start: f64,
    crashed: f64,
    /// Anonymous memory of all processes in bytes, so without the store's file in the page cache.
    memory: usize,
    /// Median microseconds.
    stat: f64,
    /// Median milliseconds.
    listing: f64,
}

fn measure(secrets: usize) -> Found {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let home = directory.path();
    drop(support::secretfs(Placement::Free, home, &[]));
    fill(home, secrets);
    let begun = Instant::now();
    let mounted = support::secretfs(Placement::Free, home, &[]);
    fs::symlink_metadata(&mounted.mountpoint).unwrap();
    let start = begun.elapsed().as_secs_f64() * 1e3;
    let directories = (secrets / BY_DIRECTORY).max(1);
    let path = |number: usize| mounted.mountpoint.join(name(number % secrets.max(1)));
    let (mut stats, mut listings) = (Vec::new(), Vec::new());
    if secrets > 0 {
        for number in 0..2000 {
            let begun = Instant::now();
            fs::symlink_metadata(path(number * 7919)).unwrap();
            stats.push(begun.elapsed().as_secs_f64() * 1e6);
        }
        for number in 0..10 {
            let begun = Instant::now();
            let listed =
                fs::read_dir(mounted.mountpoint.join(format!("team-{:05}", number % directories)))
                    .unwrap()
                    .count();
            assert_eq!(listed, BY_DIRECTORY);
            listings.push(begun.elapsed().as_secs_f64() * 1e3);
        }
    } else {
        stats.push(0.0);
        listings.push(0.0);
    }
    let memory = anonymous_memory(mounted.pid());
    write_for(&mounted.mountpoint, HALF_A_SECOND);
    mounted.crash();
    let begun = Instant::now();
    let mounted = support::secretfs(Placement::Free, home, &[]);
    fs::symlink_metadata(&mounted.mountpoint).unwrap();
    let crashed = begun.elapsed().as_secs_f64() * 1e3;
    Found { start, crashed, memory, stat: median(stats), listing: median(listings) }
}

/// Leaves commits in the journal: they are taken over each second.
fn write_for(mountpoint: &Path, time: Duration) {
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for writer in 0..16 {
            let path = mountpoint.join(format!("new-{writer}"));
            scope.spawn(move || {
                while begun.elapsed() < time {
                    fs::write(&path, [b'x'; 100]).unwrap();
                }
            });
        }
    });
}

fn name(number: usize) -> String {
    format!("team-{:05}/service-{:05}-password", number / BY_DIRECTORY, number % BY_DIRECTORY)
}

/// Returns what a process and all that it has started have: the keeper, the server, its spare and their helpers.
fn anonymous_memory(pid: u32) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    let own = line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024;
    own + support::children(pid).into_iter().map(anonymous_memory).sum::<usize>()
}

/// Puts secrets into a store that no daemon has open.
fn fill(home: &Path, secrets: usize) {
    let state = home.join("data/secretfs");
    let store =
        JournaledStore::open(&state.join("store.redb"), secretfs::store::Options::default());
    let store: Arc<dyn Store> = Arc::new(store.unwrap());
    let root = KeySource::File(home.join("config/secretfs/root.key"))
        .unlock(&read_header(&*store).unwrap())
        .unwrap();
    let parts = Parts {
        store,
        policy: Policy::parse(&initial(&[Uid(0)]), &NumericIds).unwrap(),
        clock: Arc::new(SystemClock),
        limits: Limits::default(),
        log: LogSettings {
            directory: state.join("audit"),
            options: Options::default(),
            names: Arc::new(HashMap::<Uid, Arc<str>>::new()),
        },
        accept_rollback: false,
    };
    let broker = Broker::open(parts, root).unwrap();
    let caller = Caller::with_ids(Uid(0), Gid(0));
    std::thread::scope(|scope| {
        for worker in 0..64 {
            let (broker, caller) = (&broker, &caller);
            scope.spawn(move || {
                for number in (worker..secrets).step_by(64) {
                    let value = SecretBytes::copy_from(&[b'x'; 40]).unwrap();
                    broker
                        .write(caller, &name(number).parse().unwrap(), value, &Put::default())
                        .unwrap();
                }
            });
        }
    });
    broker.close();
}
