//! What the broker's part of an open costs, without FUSE: policy, record, decryption.
//!
//! `cargo bench --bench broker [-- --smoke]` prints nanoseconds a call as medians of rounds.
#![expect(
    clippy::cast_precision_loss,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark is a program for people"
)]

mod support;

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use secretfs::audit::{Action, AuditKey, AuditLog, Event, Options, Outcome};
use secretfs::broker::{Broker, Put, Which};
use secretfs::crypto::Keyring;
use secretfs::model::{Caller, Clock, Gid, SecretId, SecretName, StoreId, Uid, Version};
use secretfs::system::{SecretBytes, SystemClock};

fn main() {
    let smoke = std::env::args().any(|argument| argument == "--smoke");
    let (rounds, calls) = if smoke { (3, 100) } else { (21, 20_000) };
    let directory = tempfile::tempdir().unwrap();
    let broker = support::broker(directory.path());
    let caller = Caller::with_ids(Uid(0), Gid(0));
    let name: SecretName = "prod/db/password".parse().unwrap();
    let value = SecretBytes::copy_from(&[b'x'; 100]).unwrap();
    broker.write(&caller, &name, value, &Put::default()).unwrap();

    let measure = |what: &str, run: &dyn Fn()| {
        let mut times: Vec<f64> = (0..rounds)
            .map(|_| {
                let start = Instant::now();
                (0..calls).for_each(|_| run());
                start.elapsed().as_nanos() as f64 / f64::from(calls)
            })
            .collect();
        times.sort_by(f64::total_cmp);
        println!("{what:32} {:8.0} ns", times[times.len() / 2]);
    };
    measure("look (a LOOKUP)", &|| {
        black_box(broker.look(&caller, &name).unwrap());
    });
    measure("read (an OPEN)", &|| {
        black_box(broker.read(&caller, &name, Which::Current).unwrap());
    });
    compare_refusals(&broker, if smoke { 200 } else { 100_000 });
    broker.close();

    let keyring = Keyring::generate(StoreId([1; 16]), SystemClock.now()).unwrap();
    let (id, version) = (SecretId([2; 16]), Version(1));
    let sealed =
        keyring.seal_value(id, version, &SecretBytes::copy_from(&[b'x'; 100]).unwrap()).unwrap();
    measure("  of it: decryption", &|| {
        black_box(keyring.open_value(id, version, &sealed).unwrap());
    });
    let log = AuditLog::open(
        &directory.path().join("other-audit"),
        AuditKey::new(keyring.audit_key()),
        None,
        Options::default(),
        Arc::new(SystemClock),
        Arc::new(HashMap::<Uid, Arc<str>>::new()),
    )
    .unwrap();
    let event = Event {
        caller: Some(&caller),
        secret: Some(&name),
        version: Some(version),
        rule: Some("admin"),
        ..Event::new(Action::Read, Outcome::Allowed)
    };
    measure("  of it: the record", &|| {
        black_box(log.append(&event).unwrap());
    });
}

/// THREATS K2: does the time of a refusal tell whether there is such a secret? Lookups of a caller without
/// any rule, of a name that exists and of one that does not, taken in turns.
fn compare_refusals(broker: &Broker, lookups: usize) {
    let denied = Caller::with_ids(Uid(1000), Gid(1000));
    for (what, names) in [
        ("hidden and absent", ["prod/db/password", "prod/db/passwore"]),
        // What the machine makes of two names of which neither is there.
        ("absent and absent", ["prod/db/passworf", "prod/db/passwore"]),
    ] {
        let [one, other] = time_refusals(broker, &denied, names, lookups);
        let medians = [&one, &other].map(|times| times[times.len() / 2]);
        println!(
            "refused, {what}: {:.0} and {:.0} ns, Welch's t {:.2} over 2 x {lookups}",
            medians[0],
            medians[1],
            welch(&one, &other)
        );
    }
}

/// Returns sorted nanoseconds of the lookups of each name, without the slowest hundredth: what the
/// machine did meanwhile is no signal.
fn time_refusals(
    broker: &Broker,
    denied: &Caller,
    names: [&str; 2],
    lookups: usize,
) -> [Vec<f64>; 2] {
    let mut times = [Vec::with_capacity(lookups), Vec::with_capacity(lookups)];
    for number in 0..lookups * 2 {
        // Which one is first changes from pair to pair.
        let which = (number + number / 2) % 2;
        // Anew each time, as a request brings it: no name has a better place in memory.
        let name: SecretName = black_box(names[which]).parse().unwrap();
        let start = Instant::now();
        black_box(broker.look(denied, black_box(&name)).unwrap_err());
        times[which].push(start.elapsed().as_nanos() as f64);
    }
    times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times.truncate(times.len() - times.len() / 100);
        times
    })
}

/// Returns Welch's t of two samples.
fn welch(one: &[f64], other: &[f64]) -> f64 {
    let moments = |sample: &[f64]| {
        let count = sample.len() as f64;
        let mean = sample.iter().sum::<f64>() / count;
        let variance = sample.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (count - 1.0);
        (mean, variance / count)
    };
    let ((mean, error), (other_mean, other_error)) = (moments(one), moments(other));
    (mean - other_mean) / (error + other_error).sqrt()
}
