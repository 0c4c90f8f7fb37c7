//! A damaged store, in process and therefore many times: whatever bit of its file or its journal is
//! flipped and wherever they are cut, it is detected or harmless. No value is wrong, no secret is
//! missing in silence, nothing panics.
//!
//! redb does not verify what it reads, so this is what the broker's authentication must hold.
//! `SECRETFS_CAMPAIGN=full` raises the counts.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking, writes files that no crash threatens, and reads its own environment"
)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use secretfs::audit;
use secretfs::broker::{
    Broker, BrokerError, Limits, LogSettings, Parts, Put, Replace, Which, read_header,
};
use secretfs::crypto::{RootKey, Slot, SlotKind};
use secretfs::model::{Caller, Gid, ManualClock, SecretName, StoreId, Uid, Version};
use secretfs::policy::{NumericIds, Policy};
use secretfs::store::{JournaledStore, Options, RedbStore, Store};
use secretfs::system::SecretBytes;

const SEED: u64 = 0x7f3a_0001;

const POLICY: &str = r#"
[[role]]
name = "admin"
allow = [{ names = ["**"], levels = ["admin"] }]

[[binding]]
role = "admin"
uid = [0]
"#;

fn campaign(small: usize, full: usize) -> usize {
    let asked = std::env::var("SECRETFS_CAMPAIGN").is_ok_and(|value| value == "full");
    if asked { full } else { small }
}

fn admin() -> Caller {
    Caller::with_ids(Uid(0), Gid(0))
}

fn name(text: &str) -> SecretName {
    text.parse().unwrap()
}

fn key() -> SecretBytes {
    SecretBytes::copy_from(&[7; 32]).unwrap()
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(1_800_000_000))
}

const STORE: &str = "store.redb";
const JOURNAL: &str = "store.journal";

/// Small, so that it goes round; taken over when it is full, and not before.
const OPTIONS: Options = Options { half_bytes: 16 << 10, period: Duration::MAX };

fn open(directory: &Path) -> Result<Broker, BrokerError> {
    open_over(Arc::new(JournaledStore::open(&directory.join(STORE), OPTIONS)?), directory)
}

fn open_over(store: Arc<dyn Store>, directory: &Path) -> Result<Broker, BrokerError> {
    let header = read_header(&*store)?;
    let slot = header.slots.first().ok_or_else(|| BrokerError::Invalid("no slot".into()))?;
    let root = slot.open(header.store, &key()).map_err(BrokerError::Key)?;
    let parts = Parts {
        store,
        policy: Policy::parse(POLICY, &NumericIds).unwrap(),
        clock: clock(),
        limits: Limits::default(),
        log: LogSettings {
            directory: directory.join("audit"),
            options: audit::Options { segment_bytes: 1 << 20, ..audit::Options::default() },
            names: Arc::new(HashMap::<Uid, Arc<str>>::new()),
        },
        accept_rollback: false,
    };
    let broker = Broker::open(parts, root)?;
    broker.wait_verified(Duration::from_secs(60))?;
    Ok(broker)
}

/// A store that was used, with its log, and what is in it: by name and version.
struct Original {
    directory: tempfile::TempDir,
    values: BTreeMap<(String, u64), Vec<u8>>,
}

/// How the daemon came to its end.
#[derive(Clone, Copy, PartialEq)]
enum End {
    InOrder,
    /// The last commits are in the journal alone.
    Killed,
}

impl Original {
    fn make(end: End) -> Self {
        let mut original = Self { directory: memory(), values: BTreeMap::new() };
        let used = memory();
        let directory = used.path();
        let store = RedbStore::create(&directory.join(STORE)).unwrap();
        let mut slot = |store: StoreId, root: &RootKey| {
            Slot::seal(store, SlotKind::KeyFile, &key(), root).map_err(|err| err.to_string())
        };
        drop(Broker::create(&store, &*clock(), &mut slot).unwrap());
        drop(store);
        let store = Arc::new(JournaledStore::open(&directory.join(STORE), OPTIONS).unwrap());
        let broker = open_over(store.clone(), directory).unwrap();
        let mut random = Random(11);
        for n in 0..12 {
            for _ in 0..3 {
                original.put(&broker, &format!("app/s{n}"), random.bytes(20 + n * 150));
            }
        }
        original.put(&broker, "large", random.bytes(60_000));
        original.put(&broker, "moved", random.bytes(100));
        broker.rename(&admin(), &name("moved"), &name("prod/db/moved"), Replace::Refused).unwrap();
        let moved = original.values.remove(&("moved".into(), 1)).unwrap();
        original.values.insert(("prod/db/moved".into(), 1), moved);
        store.settle().unwrap();
        for n in 0..3 {
            original.put(&broker, &format!("app/s{n}"), random.bytes(100));
        }
        if end == End::Killed {
            copy(directory, original.directory.path());
        }
        broker.close();
        drop((broker, store));
        if end == End::InOrder {
            copy(directory, original.directory.path());
        }
        original
    }

    fn put(&mut self, broker: &Broker, secret: &str, value: Vec<u8>) {
        let bytes = SecretBytes::copy_from(&value).unwrap();
        let version = broker.write(&admin(), &name(secret), bytes, &Put::default()).unwrap();
        self.values.insert((secret.to_owned(), version.0), value);
    }

    fn image(&self, file: &str) -> Vec<u8> {
        fs::read(self.directory.path().join(file)).unwrap()
    }

    fn names(&self) -> BTreeSet<&str> {
        self.values.keys().map(|(secret, _)| secret.as_str()).collect()
    }

    /// Opens a copy in which one file has these bytes, beside a copy of the log, and uses it in every
    /// way.
    fn judge(&self, file: &str, image: &[u8]) -> Finding {
        let directory = memory();
        copy(self.directory.path(), directory.path());
        fs::write(directory.path().join(file), image).unwrap();
        let used = catch_unwind(AssertUnwindSafe(|| self.use_all_of(directory.path())));
        used.unwrap_or_else(|_| Finding::Wrong("a panic".into()))
    }

    fn use_all_of(&self, directory: &Path) -> Finding {
        let Ok(broker) = open(directory) else { return Finding::Refused };
        let whole = broker.statistics().integrity == "verified";
        let mut detected = !whole;
        for ((secret, version), value) in &self.values {
            let number = Version(*version);
            match broker.read(&admin(), &name(secret), Which::Number(number)) {
                Ok(opened) if opened.value.expose() == value => {}
                Ok(_) => return Finding::Wrong(format!("{secret}@{version} has another value")),
                Err(BrokerError::NotFound(_)) => {
                    return Finding::Wrong(format!("{secret}@{version} is missing in silence"));
                }
                Err(_) => detected = true,
            }
        }
        match listed(&broker, None) {
            Ok(found) => {
                let names: BTreeSet<&str> = found.iter().map(String::as_str).collect();
                if names != self.names() && whole {
                    return Finding::Wrong(format!("listed in silence: {names:?}"));
                }
            }
            Err(_) => detected = true,
        }
        // A write goes on or fails; what was acknowledged can be read.
        let value = SecretBytes::copy_from(b"canary-7f3a").unwrap();
        match broker.write(&admin(), &name("app/s1"), value, &Put::default()) {
            Ok(_) => match broker.read(&admin(), &name("app/s1"), Which::Current) {
                Ok(opened) if opened.value.expose() == b"canary-7f3a" => {}
                other => return Finding::Wrong(format!("written, but then {other:?}")),
            },
            Err(_) => detected = true,
        }
        let faults = broker
            .verify(&admin(), &secretfs::broker::Progress::default())
            .map(|found| found.faults);
        broker.close();
        match faults {
            Ok(faults) if faults.is_empty() && !detected => Finding::Harmless,
            // What reads did not meet, `secretfs verify` did.
            Ok(_) | Err(_) => Finding::Detected,
        }
    }
}

/// What a damage came to.
#[derive(Debug)]
enum Finding {
    Detected,
    Harmless,
    /// The store does not open.
    Refused,
    /// What must never be.
    Wrong(String),
}

fn listed(broker: &Broker, directory: Option<&SecretName>) -> Result<Vec<String>, BrokerError> {
    let mut names = Vec::new();
    for entry in broker.list(&admin(), directory, None, usize::MAX)? {
        let path = SecretName::join(directory, &entry.segment)?;
        match entry.kind {
            secretfs::broker::Kind::Directory => names.extend(listed(broker, Some(&path))?),
            secretfs::broker::Kind::Secret => names.push(path.to_string()),
        }
    }
    Ok(names)
}

/// Copies a store with its journal and its log.
fn copy(from: &Path, to: &Path) {
    for file in [STORE, JOURNAL] {
        fs::copy(from.join(file), to.join(file)).unwrap();
    }
    fs::create_dir(to.join("audit")).unwrap();
    for segment in fs::read_dir(from.join("audit")).unwrap() {
        let segment = segment.unwrap();
        fs::copy(segment.path(), to.join("audit").join(segment.file_name())).unwrap();
    }
}

fn memory() -> tempfile::TempDir {
    let shm = PathBuf::from("/dev/shm");
    let parent = if shm.is_dir() { shm } else { std::env::temp_dir() };
    tempfile::Builder::new().prefix("secretfs-damage-").tempdir_in(parent).unwrap()
}

/// Xorshift from a fixed seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next().to_le_bytes()[3]).collect()
    }
}

/// What is done to the image: bits are flipped, and it is cut.
#[derive(Debug)]
struct Damage {
    flips: Vec<(usize, u8)>,
    length: usize,
}

impl Damage {
    fn apply(&self, image: &[u8]) -> Vec<u8> {
        let mut damaged = image[..self.length].to_vec();
        self.flips.iter().for_each(|&(at, mask)| damaged[at] ^= mask);
        damaged
    }
}

/// Judges damages on every core and counts what they came to.
fn judge_all(what: &str, original: &Original, file: &str, damages: &[Damage]) -> [u64; 3] {
    let image = original.image(file);
    let (next, counts) = (AtomicU64::new(0), [const { AtomicU64::new(0) }; 3]);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(damage) =
                    damages.get(usize::try_from(next.fetch_add(1, Ordering::Relaxed)).unwrap())
                {
                    let at = match original.judge(file, &damage.apply(&image)) {
                        Finding::Refused => 0,
                        Finding::Detected => 1,
                        Finding::Harmless => 2,
                        Finding::Wrong(why) => panic!("seed {SEED:#x}, {file}, {damage:?}: {why}"),
                    };
                    counts[at].fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    let [refused, detected, harmless] = counts.map(AtomicU64::into_inner);
    println!("{what}: {refused} refused, {detected} detected, {harmless} harmless");
    [refused, detected, harmless]
}

/// Returns a bit: of the whole file, of its used bytes, or of its first pages, in turn.
fn bit(random: &mut Random, used: &[usize], length: usize) -> (usize, u8) {
    let at = match random.below(3) {
        0 => random.below(length),
        1 => used[random.below(used.len())],
        _ => random.below(16 << 10),
    };
    (at, 1 << random.below(8))
}

fn flip(original: &Original, file: &str, seed: u64, flips: usize) -> [u64; 3] {
    let image = original.image(file);
    let used: Vec<usize> = (0..image.len()).filter(|&at| image[at] != 0).collect();
    let mut random = Random(seed);
    let damages: Vec<_> = (0..flips)
        .map(|_| {
            let flips = vec![bit(&mut random, &used, image.len())];
            Damage { flips, length: image.len() }
        })
        .collect();
    judge_all("flips", original, file, &damages)
}

#[test]
fn a_flipped_bit_is_detected_or_harmless() {
    let original = Original::make(End::InOrder);
    let [refused, detected, harmless] = flip(&original, STORE, SEED, campaign(5_000, 50_000));
    assert!(refused + detected > 0 && harmless > 0, "some of each, or nothing was tried");
}

#[test]
fn a_flipped_bit_of_what_a_killed_daemon_left_is_detected_or_harmless() {
    let original = Original::make(End::Killed);
    for (file, seed) in [(STORE, SEED + 3), (JOURNAL, SEED + 4)] {
        let [refused, detected, harmless] = flip(&original, file, seed, campaign(1_000, 25_000));
        assert!(refused + detected > 0 && harmless > 0, "{file}: some of each");
    }
}

#[test]
fn several_flipped_bits_are_detected_or_harmless() {
    let original = Original::make(End::InOrder);
    let image = original.image(STORE);
    let used: Vec<usize> = (0..image.len()).filter(|&at| image[at] != 0).collect();
    let mut random = Random(SEED + 1);
    let damages: Vec<_> = (0..campaign(500, 5_000))
        .map(|_| {
            let flips: Vec<_> =
                (0..2 + random.below(30)).map(|_| bit(&mut random, &used, image.len())).collect();
            Damage { flips, length: image.len() }
        })
        .collect();
    let [refused, detected, _] = judge_all("several flips", &original, STORE, &damages);
    assert!(refused + detected > 0);
}

#[test]
fn a_cut_file_is_refused_at_every_length() {
    let original = Original::make(End::InOrder);
    let length = original.image(STORE).len();
    let mut random = Random(SEED + 2);
    let mut lengths = vec![0, 1, 511, 512, 4095, 4096, 4097, length / 2, length - 4096, length - 1];
    lengths.extend((lengths.len()..campaign(300, 3_000)).map(|_| random.below(length)));
    let damages: Vec<_> =
        lengths.into_iter().map(|length| Damage { flips: Vec::new(), length }).collect();
    let [_, detected, harmless] = judge_all("cuts", &original, STORE, &damages);
    assert_eq!((detected, harmless), (0, 0), "a cut file opened");
}

#[test]
fn a_cut_journal_that_holds_commits_is_refused_at_every_length() {
    let original = Original::make(End::Killed);
    let length = original.image(JOURNAL).len();
    let mut random = Random(SEED + 5);
    let mut lengths = vec![0, 1, 63, 64, 512, 4095, 4096, 4097, length / 2, length - 1];
    lengths.extend((lengths.len()..campaign(50, 3_000)).map(|_| random.below(length)));
    let damages: Vec<_> =
        lengths.into_iter().map(|length| Damage { flips: Vec::new(), length }).collect();
    let [_, detected, harmless] = judge_all("cuts", &original, JOURNAL, &damages);
    assert_eq!((detected, harmless), (0, 0), "a store without its last commits opened");
}

#[test]
fn undamaged_files_are_found_whole() {
    for end in [End::InOrder, End::Killed] {
        let original = Original::make(end);
        let finding = original.judge(STORE, &original.image(STORE));
        assert!(matches!(finding, Finding::Harmless), "{finding:?}");
    }
}
