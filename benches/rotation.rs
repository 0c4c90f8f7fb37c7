//! What a rotation costs beside a plain durable put, and what ten thousand at once cost a reader.
//!
//! `cargo bench --bench rotation [-- --smoke | -- SECRETS]`: how many are due at once, 10,000 unless said. Both go through one mount, in turns, so that what the machine
//! does meanwhile falls on both. A put is open, write and close; a rotation is one command of
//! `.control/rotate`, without a target: a value is made and switched to.
#![expect(
    clippy::cast_precision_loss,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark is a program for people"
)]

mod support;

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{Placement, median, secretfs};

fn main() {
    let smoke = std::env::args().any(|argument| argument == "--smoke");
    let home = tempfile::tempdir().unwrap();
    let mounted = secretfs(Placement::Free, home.path(), &[]);
    let mount = &mounted.mountpoint;
    put(mount, "key");
    let rounds = if smoke { 20 } else { 2000 };
    let (mut puts, mut rotations) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        puts.push(timed(|| put(mount, "key")));
        rotations.push(timed(|| drop(command(mount, "key"))));
    }
    let (put_time, rotation) = (median(puts), median(rotations));
    println!("a durable put        {:8.0} us", put_time * 1e6);
    println!(
        "a rotation           {:8.0} us, {:.2} of a put (at most 4)",
        rotation * 1e6,
        rotation / put_time
    );
    let many = std::env::args().filter_map(|argument| argument.parse().ok()).next();
    let many = many.unwrap_or(if smoke { 100 } else { 10_000 });
    at_once(&home.path().join("config/secretfs"), mount, many);
}

/// Has many secrets rotated because all are due, and reads another one meanwhile.
fn at_once(config: &Path, mount: &Path, secrets: usize) {
    std::fs::create_dir(mount.join("due")).unwrap();
    for number in 0..secrets {
        put(mount, &format!("due/key-{number}"));
    }
    plan(config, mount, "schedule = { every = \"1s\" }\n");
    thread::sleep(Duration::from_secs(2));
    let quiet = read_until(mount, |reads| reads >= 20_000.min(secrets * 20));
    let done = AtomicBool::new(false);
    let (busy, took) = thread::scope(|scope| {
        let begun = Instant::now();
        let rotated = scope.spawn(|| {
            let begun = command(mount, "{\"all_due\": true}");
            assert_eq!(begun["begun"].as_array().unwrap().len(), secrets);
            // Else they are due again before the last one is done.
            plan(config, mount, "");
            while !command(mount, "{\"due\": true}")["at_work"].as_array().unwrap().is_empty() {
                thread::sleep(Duration::from_millis(50));
            }
            done.store(true, Ordering::SeqCst);
        });
        let busy = read_until(mount, |_| done.load(Ordering::SeqCst));
        rotated.join().unwrap();
        (busy, begun.elapsed())
    });
    let (before, during) = (p99(quiet), p99(busy));
    println!("{secrets} rotations at once {:8.1} s", took.as_secs_f64());
    println!(
        "a reader's p99       {:8.0} us before, {:.0} us during: {:.2} of it (at most 2)",
        before * 1e6,
        during * 1e6,
        during / before
    );
}

/// Has the secrets below `due` rotated like this.
fn plan(config: &Path, mount: &Path, schedule: &str) {
    let text = format!("[[rotation]]\nnames = [\"due/*\"]\n{schedule}");
    File::create(config.join("rotation.toml")).unwrap().write_all(text.as_bytes()).unwrap();
    ask(mount, "reload", "\n");
}

/// Reads until `enough` of the number of reads; returns the seconds of each.
fn read_until(mount: &Path, enough: impl Fn(usize) -> bool) -> Vec<f64> {
    let (path, mut times) = (mount.join("key"), Vec::new());
    while !enough(times.len()) {
        times.push(timed(|| drop(std::fs::read(&path).unwrap())));
    }
    times
}

fn p99(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() * 99 / 100]
}

fn timed(run: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    run();
    begun.elapsed().as_nanos() as f64 / 1e9
}

fn put(mount: &Path, name: &str) {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).open(mount.join(name)).unwrap();
    file.write_all(&[b'x'; 32]).unwrap();
    nix::unistd::close(file).unwrap();
}

fn command(mount: &Path, command: &str) -> Value {
    serde_json::from_str(&ask(mount, "rotate", command)).unwrap()
}

fn ask(mount: &Path, file: &str, command: &str) -> String {
    let path = mount.join(".control").join(file);
    let mut file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    assert_eq!(file.write(command.as_bytes()).unwrap(), command.len());
    let mut reply = String::new();
    file.read_to_string(&mut reply).unwrap();
    reply
}
