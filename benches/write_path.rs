//! Acknowledged durable new versions a second, beside the disk's own fdatasync rate in the same run.
//!
//! `cargo bench --bench write_path [-- --smoke]`, as root. Slices alternate. The reference appends
//! 4 KiB to a preallocated file and calls fdatasync, on the filesystem that holds the store.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a benchmark is a program for people"
)]

mod support;

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use support::{Placement, median};

fn main() {
    let smoke = std::env::args().any(|argument| argument == "--smoke");
    let (rounds, slice) =
        if smoke { (1, Duration::from_millis(200)) } else { (7, Duration::from_secs(1)) };
    // Not in /tmp, which may be memory.
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mounted = support::secretfs(Placement::Free, directory.path(), &[]);
    let (mut syncs, mut one, mut many) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        syncs.push(fdatasync_rate(directory.path(), slice));
        one.push(write_rate(&mounted.mountpoint, 1, slice));
        many.push(write_rate(&mounted.mountpoint, 64, slice));
    }
    let (syncs, one, many) = (median(syncs), median(one), median(many));
    println!("fdatasync of the disk {syncs:8.0} a second");
    println!("1 writer              {one:8.0} versions a second, {:.2} of it", one / syncs);
    println!("64 writers            {many:8.0} versions a second, {:.2} of it", many / syncs);
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

fn write_rate(mountpoint: &Path, writers: usize, slice: Duration) -> f64 {
    let versions = AtomicU64::new(0);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for writer in 0..writers {
            let (versions, path) = (&versions, mountpoint.join(format!("secret-{writer}")));
            scope.spawn(move || {
                while start.elapsed() < slice {
                    // `fs::write` returns before close(2) has answered, so the answer is asked for.
                    let mut file = File::options()
                        .write(true)
                        .create(true)
                        .truncate(true)
                        .open(&path)
                        .unwrap();
                    file.write_all(&[b'x'; 100]).unwrap();
                    file.sync_data().unwrap();
                    drop(file);
                    versions.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    versions.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64()
}
