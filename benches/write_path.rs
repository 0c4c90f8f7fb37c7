//! Acknowledged durable new versions a second, beside the disk's own fdatasync rate in the same run.
//!
//! `cargo bench --bench write_path [-- --smoke] [-- ROW]`, as root; ROW is a part of the name of the
//! only row to measure. Slices alternate. The reference appends 4 KiB to a preallocated file and calls
//! fdatasync, on the filesystem that holds the store. A writer goes round names of its own, and opens and closes
//! each; those with a handle keep it, as the reference does, and it makes a version at each fsync. The last row's
//! has one name, which gets many thousands of versions. Beside each rate stands the CPU time that a version took:
//! what a busy machine changes least.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a benchmark is a program for people"
)]

mod support;

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use secretfs::broker::Broker;
use secretfs::model::{Caller, Gid, Uid};
use secretfs::system::SecretBytes;
use support::{Placement, median};

/// Names that a writer goes round.
const NAMES: usize = 256;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let smoke = arguments.iter().any(|argument| argument == "--smoke");
    let only = arguments.iter().find(|argument| !argument.starts_with("--"));
    let (rounds, slice) =
        if smoke { (1, Duration::from_millis(200)) } else { (7, Duration::from_secs(1)) };
    // Not in /tmp, which may be memory.
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let alone = directory.path().join("alone");
    std::fs::create_dir(&alone).unwrap();
    let broker = support::broker(&alone);
    let mounted = support::secretfs(Placement::Free, directory.path(), &[]);
    let root = &mounted.mountpoint;
    let by_mount = |writer| go_round(writer, |name| put_through_mount(&root.join(name)));
    let by_handle = |writer| {
        let file = File::create(root.join(format!("kept-{writer}"))).unwrap();
        Box::new(move || put_by_handle(&file)) as Box<Put<'_>>
    };
    let by_broker = |writer| go_round(writer, |name| put_to_broker(&broker, name));
    let to_one_name = |_| Box::new(|| put_to_broker(&broker, "one")) as Box<Put<'_>>;
    let mut syncs = Vec::new();
    let rows = [
        ("1 writer, mount", 1, &by_mount as &Writer<'_>, Vec::new()),
        ("64 writers, mount", 64, &by_mount, Vec::new()),
        ("1 writer, mount, handle", 1, &by_handle, Vec::new()),
        ("64 writers, mount, handles", 64, &by_handle, Vec::new()),
        ("1 writer, broker alone", 1, &by_broker, Vec::new()),
        ("64 writers, broker alone", 64, &by_broker, Vec::new()),
        ("1 writer, broker, one name", 1, &to_one_name, Vec::new()),
    ];
    let mut rows: Vec<_> = rows
        .into_iter()
        .filter(|row| only.is_none_or(|only| row.0.contains(only.as_str())))
        .collect();
    for _ in 0..rounds {
        syncs.push(fdatasync_rate(directory.path(), slice));
        for (_, writers, writer, slices) in &mut rows {
            slices.push(measure(*writer, *writers, slice, mounted.pid()));
        }
    }
    let syncs = median(syncs);
    println!("{:26} {syncs:8.0} a second", "fdatasync of the disk");
    for (what, _, _, slices) in rows {
        let of = |figure: fn(&Slice) -> f64| median(slices.iter().map(figure).collect());
        let (rate, ours, daemon) = (of(|s| s.rate), of(|s| s.own_us), of(|s| s.daemon_us));
        println!(
            "{what:26} {rate:8.0} versions a second, {:.2} of it; us of CPU each: {ours:.0} here, \
             {daemon:.0} in the daemon",
            rate / syncs
        );
    }
    broker.close();
}

/// What one slice of a row has shown.
struct Slice {
    /// Versions a second.
    rate: f64,
    /// CPU time a version, of this process and of the daemon.
    own_us: f64,
    daemon_us: f64,
}

/// What the writer of that number does again and again.
type Writer<'a> = dyn Fn(usize) -> Box<Put<'a>> + Sync + 'a;

/// Makes a new version; returns once it is acknowledged.
type Put<'a> = dyn FnMut() + 'a;

fn go_round<'a>(writer: usize, put: impl Fn(&str) + 'a) -> Box<Put<'a>> {
    let mut numbers = (0..NAMES).cycle();
    Box::new(move || put(&format!("secret-{writer}-{}", numbers.next().unwrap())))
}

fn fdatasync_rate(directory: &Path, slice: Duration) -> f64 {
    let mut file = File::create(directory.join("reference")).unwrap();
    file.write_all(&vec![0; 64 << 20]).unwrap();
    file.sync_all().unwrap();
    let mut file = File::options().write(true).open(directory.join("reference")).unwrap();
    let (start, mut count) = (Instant::now(), 0);
    while start.elapsed() < slice {
        file.write_all(&[1; 4096]).unwrap();
        file.sync_data().unwrap();
        count += 1;
    }
    f64::from(count) / start.elapsed().as_secs_f64()
}

fn measure(writer: &Writer<'_>, writers: usize, slice: Duration, daemon: u32) -> Slice {
    let versions = AtomicU64::new(0);
    let before = [std::process::id(), daemon].map(cpu_micros);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for number in 0..writers {
            let versions = &versions;
            scope.spawn(move || {
                let mut put = writer(number);
                while start.elapsed() < slice {
                    put();
                    versions.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    let (seconds, versions) = (start.elapsed().as_secs_f64(), versions.into_inner() as f64);
    let after = [std::process::id(), daemon].map(cpu_micros);
    let [both_us, daemon_us] = [0, 1].map(|of| (after[of] - before[of]) / versions);
    let own_us = both_us - daemon_us;
    Slice { rate: versions / seconds, own_us, daemon_us }
}

/// Returns the CPU time of a process so far in microseconds, with threads that have ended and with
/// processes that it has started.
fn cpu_micros(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap().split_whitespace().collect();
    // proc_pid_stat(5) counts from 1 and has two fields before the name's end; in hundredths.
    let ticks: f64 = [14, 15].map(|field| fields[field - 3].parse::<f64>().unwrap()).iter().sum();
    ticks * 10_000.0 + support::children(pid).into_iter().map(cpu_micros).sum::<f64>()
}

fn put_through_mount(path: &Path) {
    let mut file = File::options().write(true).create(true).truncate(true).open(path).unwrap();
    file.write_all(&[b'x'; 100]).unwrap();
    // What close(2) answers is the acknowledgement, and dropping a file does not ask for it.
    nix::unistd::close(file).unwrap();
}

/// The same bytes over those of before; each time it is a version of its own.
fn put_by_handle(file: &File) {
    file.write_all_at(&[b'x'; 100], 0).unwrap();
    file.sync_data().unwrap();
}

fn put_to_broker(broker: &Broker, name: &str) {
    let caller = Caller::with_ids(Uid(0), Gid(0));
    let value = SecretBytes::copy_from(&[b'x'; 100]).unwrap();
    broker.write(&caller, &name.parse().unwrap(), value, &Default::default()).unwrap();
}
