//! Rotations over a real broker, with a target that is a list of what it accepts and fails as it is told.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking, and a table is printed"
)]

mod outside;
#[path = "routed/store.rs"]
mod store;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use outside::{FAULTS, Fault, Kind, Target};
use secretfs::audit;
use secretfs::broker::{
    Broker, BrokerError, Limits, LogSettings, Parts as BrokerParts, Put, Which, read_header,
};
use secretfs::crypto::{RootKey, Slot, SlotKind};
use secretfs::model::{Caller, Gid, ManualClock, SecretName, StoreId, Timestamp, Uid, Version};
use secretfs::policy::{NumericIds, Policy};
use secretfs::rotation::{Options, Outcome, Parts, Rotator, Settings, StepName, ValueFrom};
use secretfs::store::{FailedCommit, MemoryStore};
use secretfs::system::SecretBytes;
use store::{Watched, copy, copy_log};

const POLICY: &str = r#"
    [[role]]
    name = "admin"
    allow = [{ names = ["**"], levels = ["admin"] }]
    [[role]]
    name = "writer"
    allow = [{ names = ["app/*"], levels = ["write"] }]
    [[role]]
    name = "reader"
    allow = [{ names = ["app/*"], levels = ["read"] }]
    [[binding]]
    role = "admin"
    uid = [0]
    [[binding]]
    role = "writer"
    uid = [1000]
    [[binding]]
    role = "reader"
    uid = [1001]
"#;

/// A target with one credential at a time, and one with two; nothing at all; and consumers to be told.
const SETTINGS: &str = r#"
    [[rotation]]
    names = ["app/single"]
    target = { kind = "exec", command = { argv = ["/bin/single"] } }
    notify = [{ kind = "signal", signal = "HUP", exe = "/bin/consumer" }]
    [[rotation]]
    names = ["app/double"]
    wait_adopted_seconds = 0
    target = { kind = "exec", command = { argv = ["/bin/double"] }, holds_two = true }
    notify = [{ kind = "signal", signal = "HUP", exe = "/bin/consumer" }]
    [[rotation]]
    names = ["app/plain"]
    [[rotation]]
    names = ["app/told"]
    notify = [{ kind = "signal", signal = "HUP", exe = "/bin/consumer" }]
    [[rotation]]
    names = ["app/due"]
    schedule = { every = "30d" }
"#;

fn caller(uid: u32) -> Caller {
    Caller::with_ids(Uid(uid), Gid(uid))
}

fn name(text: &str) -> SecretName {
    text.parse().unwrap()
}

fn bytes(value: &[u8]) -> SecretBytes {
    SecretBytes::copy_from(value).unwrap()
}

fn make_slot(store: StoreId, root: &RootKey) -> Result<Slot, String> {
    Slot::seal(store, SlotKind::KeyFile, &bytes(&[7; 32]), root).map_err(|err| err.to_string())
}

struct World {
    store: Arc<Watched>,
    broker: Broker,
    rotator: Rotator,
    target: Arc<Target>,
    clock: Arc<ManualClock>,
    directory: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let inner = MemoryStore::new();
        let clock = Arc::new(ManualClock::at(1_800_000_000));
        Broker::create(&inner, &*clock, &mut make_slot).unwrap();
        let world = Self::over(inner, clock, tempfile::tempdir().unwrap());
        for secret in ["app/single", "app/double", "app/plain", "app/told", "app/due"] {
            world.write(secret, b"first");
        }
        world.target.accepted.lock().push(b"first".to_vec());
        world
    }

    fn over(inner: MemoryStore, clock: Arc<ManualClock>, directory: tempfile::TempDir) -> Self {
        let store = Arc::new(Watched { inner, full: Mutex::default() });
        let header = read_header(&*store).unwrap();
        let root = header.slots[0].open(header.store, &bytes(&[7; 32])).unwrap();
        let broker =
            Broker::open(parts(&store, &clock, directory.path().join("audit")), root).unwrap();
        broker.wait_verified(Duration::from_secs(10)).unwrap();
        let target = Arc::new(Target::default());
        let rotator = Rotator::new(Parts {
            broker: broker.clone(),
            effects: target.clone(),
            clock: clock.clone(),
            settings: Settings::parse(SETTINGS).unwrap(),
        });
        Self { store, broker, rotator, target, clock, directory }
    }

    fn write(&self, secret: &str, value: &[u8]) {
        self.broker.write(&caller(0), &name(secret), bytes(value), &Put::default()).unwrap();
    }

    fn read(&self, secret: &str) -> Vec<u8> {
        let secret = name(secret);
        self.broker.wait_unheld(&secret, Duration::from_secs(10)).unwrap();
        self.broker.read(&caller(1001), &secret, Which::Current).unwrap().value.expose().to_vec()
    }

    fn rotate(&self, secret: &str) -> Outcome {
        self.rotate_as(secret, Options::default())
    }

    fn rotate_as(&self, secret: &str, options: Options) -> Outcome {
        let begun = self.rotator.rotate(&caller(1000), &name(secret), options).unwrap();
        self.wait(&begun.rotation)
    }

    fn wait(&self, rotation: &str) -> Outcome {
        self.rotator.wait(rotation, None, Duration::from_secs(20)).unwrap().outcome.unwrap()
    }

    /// Takes up what was left until nothing is, as if hours went by.
    fn take_up(&self) {
        let mut now = Instant::now();
        for _ in 0..20 {
            if self.broker.open_rotations().unwrap().is_empty() {
                return;
            }
            now += Duration::from_secs(3600);
            self.rotator.take_up_as_of(now);
            for state in self.rotator.at_work() {
                self.wait(&state.rotation);
            }
        }
        panic!("a rotation does not come to its end: {:?}", self.broker.open_rotations());
    }

    /// The one thing that must hold, whatever has happened.
    fn agrees(&self, secret: &str) -> bool {
        self.target.accepts(&self.read(secret))
    }
}

fn parts(store: &Arc<Watched>, clock: &Arc<ManualClock>, directory: PathBuf) -> BrokerParts {
    BrokerParts {
        store: store.clone(),
        policy: Policy::parse(POLICY, &NumericIds).unwrap(),
        clock: clock.clone(),
        limits: Limits::default(),
        log: LogSettings {
            directory,
            options: audit::Options::default(),
            names: Arc::new(HashMap::<Uid, Arc<str>>::new()),
        },
        accept_rollback: false,
    }
}

fn steps(outcome: &Outcome) -> Vec<StepName> {
    outcome.steps.iter().map(|step| step.step).collect()
}

#[test]
fn a_rotation_takes_each_step_in_order_and_says_so() {
    let world = World::new();
    for secret in ["app/single", "app/double"] {
        let outcome = world.rotate(secret);
        use StepName::{Generate, Notify, Retire, Set, Stage, Switch, Verify};
        assert_eq!(steps(&outcome), [Generate, Stage, Set, Verify, Switch, Notify, Retire]);
        assert!(outcome.success && outcome.verified && !outcome.rolled_back, "{outcome:?}");
        assert_eq!((outcome.old_version, outcome.new_version), (Version(1), Some(Version(2))));
        let value = world.read(secret);
        assert_ne!(value, b"first");
        assert_eq!(*world.target.accepted.lock(), [value]);
        *world.target.accepted.lock() = vec![b"first".to_vec()];
    }
}

#[test]
fn without_a_target_the_whole_switch_is_one_step() {
    let world = World::new();
    let generation = world.broker.statistics().generation;
    let outcome = world.rotate("app/plain");
    assert!(outcome.success && !outcome.verified, "{outcome:?}");
    assert_eq!(steps(&outcome), [StepName::Generate, StepName::Switch]);
    assert_eq!(world.broker.statistics().generation, generation + 1);
    let outcome = world.rotate("app/told");
    assert_eq!(steps(&outcome), [StepName::Generate, StepName::Switch, StepName::Notify]);
    assert!(world.broker.open_rotations().unwrap().is_empty());
}

#[test]
fn it_takes_write_and_the_rest_is_refused_before_anything_happens() {
    let world = World::new();
    let rotate =
        |uid, secret: &str| world.rotator.rotate(&caller(uid), &name(secret), Options::default());
    assert!(matches!(rotate(1001, "app/single"), Err(BrokerError::Denied)));
    assert!(matches!(rotate(1000, "other/x"), Err(BrokerError::Denied)));
    assert!(matches!(rotate(1000, "app/none"), Err(BrokerError::NotFound(_))));
    let pending = Options { value: ValueFrom::Pending, ..Options::default() };
    let refused = world.rotator.rotate(&caller(1000), &name("app/plain"), pending);
    assert!(matches!(refused, Err(BrokerError::Invalid(_))));
    assert!(world.target.asked.lock().is_empty());
}

#[test]
fn a_staged_value_is_what_becomes_current() {
    let world = World::new();
    let stage = Put { stage: true, ..Put::default() };
    for secret in ["app/single", "app/plain"] {
        world.broker.write(&caller(0), &name(secret), bytes(b"given"), &stage).unwrap();
        let options = Options { value: ValueFrom::Pending, ..Options::default() };
        let outcome = world.rotate_as(secret, options);
        assert!(outcome.success, "{outcome:?}");
        assert_eq!(world.read(secret), b"given");
    }
    assert!(world.target.accepts(b"given"));
}

#[test]
fn a_given_value_that_does_not_work_stays_staged_for_who_gave_it() {
    let world = World::new();
    let stage = Put { stage: true, ..Put::default() };
    world.broker.write(&caller(0), &name("app/single"), bytes(b"given"), &stage).unwrap();
    world.target.fail(Kind::Verify, Fault::Refuses, 1);
    let options = Options { value: ValueFrom::Pending, ..Options::default() };
    let outcome = world.rotate_as("app/single", options.clone());
    assert!(!outcome.success && outcome.rolled_back && world.agrees("app/single"), "{outcome:?}");
    let staged = world.broker.read(&caller(0), &name("app/single"), Which::Pending).unwrap();
    assert_eq!(staged.value.expose(), b"given");
    assert!(world.rotate_as("app/single", options).success);
    assert_eq!(world.read("app/single"), b"given");
}

#[test]
fn while_it_is_between_staging_and_switch_nobody_else_changes_the_secret() {
    let world = World::new();
    let single = name("app/single");
    world.target.fail(Kind::Set, Fault::HangsBefore, u32::MAX);
    world.target.fail(Kind::Undo, Fault::HangsBefore, 3);
    let outcome = world.rotate("app/single");
    assert!(!outcome.success && !outcome.rolled_back, "{outcome:?}");
    let busy = |result: Result<(), BrokerError>| matches!(result, Err(BrokerError::Rotating(_)));
    let write = world.broker.write(&caller(0), &single, bytes(b"x"), &Put::default());
    assert!(busy(write.map(drop)));
    assert!(busy(world.broker.remove(&caller(0), &single)));
    assert!(busy(world.broker.promote(&caller(0), &single).map(drop)));
    let to = name("app/other");
    let replace = secretfs::broker::Replace::Refused;
    assert!(busy(world.broker.rename(&caller(0), &single, &to, replace)));
    let again = world.rotator.rotate(&caller(1000), &single, Options::default());
    assert!(busy(again.map(drop)));
    assert_eq!(world.read("app/single"), b"first");
    world.take_up();
    assert!(world.agrees("app/single"));
    world.write("app/single", b"x");
}

#[test]
fn a_secret_can_be_revoked_whatever_its_rotation_does() {
    let world = World::new();
    world.target.fail(Kind::Set, Fault::HangsBefore, u32::MAX);
    world.target.fail(Kind::Undo, Fault::HangsBefore, 1);
    world.rotate("app/single");
    let single = name("app/single");
    world.broker.set_attribute(&caller(0), &single, "status", Some("revoked")).unwrap();
    let read = || world.broker.read(&caller(1001), &single, Which::Current);
    assert!(matches!(read(), Err(BrokerError::Revoked(_))));
    world.take_up();
    assert!(matches!(read(), Err(BrokerError::Revoked(_))), "giving up is no new value");
}

#[test]
fn two_at_once_of_one_secret_are_refused_and_of_two_are_not() {
    let world = World::new();
    let (inside, entered) = std::sync::mpsc::channel();
    let (leave, may_leave) = std::sync::mpsc::channel::<()>();
    *world.target.watch.lock() = Some(Box::new(move |_| {
        // Nobody listens any more, or speaks, once the test has seen enough.
        let _ = (inside.send(()), may_leave.recv());
    }));
    let begun =
        world.rotator.rotate(&caller(1000), &name("app/single"), Options::default()).unwrap();
    entered.recv().unwrap();
    let again = world.rotator.rotate(&caller(1000), &name("app/single"), Options::default());
    assert!(matches!(again, Err(BrokerError::Rotating(_))));
    assert!(world.rotate("app/plain").success);
    drop(leave);
    assert!(world.wait(&begun.rotation).success);
}

#[test]
fn readers_wait_while_a_target_with_one_credential_is_changed() {
    let world = World::new();
    let broker = world.broker.clone();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let record = seen.clone();
    *world.target.watch.lock() = Some(Box::new(move |_| {
        let held = broker.read(&caller(1001), &name("app/single"), Which::Current);
        let free = broker.read(&caller(1001), &name("app/double"), Which::Current);
        record.lock().push((matches!(held, Err(BrokerError::Changing(_))), free.is_ok()));
    }));
    assert!(world.rotate("app/single").success);
    let seen = seen.lock();
    // Set and verify, before and after each; then they are free again.
    assert_eq!(seen[..4], [(true, true); 4]);
    assert!(seen[4..].iter().all(|seen| *seen == (false, true)));
}

#[test]
fn whatever_fails_the_target_accepts_what_readers_get() {
    let mut cells = 0;
    println!("{:11} {:7} {:11} {:22} then", "target", "step", "fault", "and the rollback");
    for secret in ["app/single", "app/double"] {
        for kind in [Kind::Set, Kind::Verify, Kind::Finish, Kind::Notify] {
            for fault in FAULTS {
                for undo in [None, Some(Fault::Refuses), Some(Fault::HangsAfter)] {
                    let world = World::new();
                    world.target.fail(kind, fault, 1);
                    if let Some(undo) = undo {
                        world.target.fail(Kind::Undo, undo, 2);
                    }
                    let outcome = world.rotate(secret);
                    world.take_up();
                    assert!(world.agrees(secret), "{secret} {kind:?} {fault:?}: {outcome:?}");
                    let new = world.read(secret) != b"first";
                    assert_eq!(outcome.success, new, "{secret} {kind:?} {fault:?}: {outcome:?}");
                    assert_eq!(world.target.accepted.lock().len(), 1, "the other one is retired");
                    assert!(outcome.error.is_some());
                    let rollback = undo.map_or("works".into(), |undo| format!("{undo:?} twice"));
                    let readers = if new { "the new value" } else { "the old value" };
                    let (kind_name, fault_name) = (format!("{kind:?}"), format!("{fault:?}"));
                    println!("{secret:11} {kind_name:7} {fault_name:11} {rollback:22} {readers}");
                    let before = world.read(secret);
                    let next = world.rotate(secret);
                    assert!(next.success, "{secret} {kind:?} {fault:?}: the next one: {next:?}");
                    assert!(next.new_version > Some(Version(2)), "numbers only grow");
                    assert_ne!(world.read(secret), before);
                    cells += 1;
                }
            }
        }
    }
    assert_eq!(cells, 120);
}

#[test]
fn a_full_disk_at_any_commit_leaves_target_and_readers_agreed() {
    for secret in ["app/single", "app/double", "app/plain", "app/told"] {
        for before in 0..5 {
            for fails in [1, 4] {
                for lost in [FailedCommit::Lost, FailedCommit::Applied] {
                    let world = World::new();
                    *world.store.full.lock() = Some((before, fails, lost));
                    let outcome = world.rotate(secret);
                    *world.store.full.lock() = None;
                    world.take_up();
                    let case = format!("{secret}, {before} commits, {fails} {lost:?}: {outcome:?}");
                    if secret == "app/single" || secret == "app/double" {
                        assert!(world.agrees(secret), "{case}");
                    }
                    assert!(world.rotate(secret).success, "{case}");
                }
            }
        }
    }
}

/// A moment at which the server could have been killed.
struct Moment {
    store: MemoryStore,
    directory: tempfile::TempDir,
    accepted: Vec<Vec<u8>>,
}

#[test]
fn a_server_killed_at_any_moment_leaves_what_the_next_one_brings_to_an_end() {
    let mut moments_seen = 0;
    for secret in ["app/single", "app/double"] {
        for fault in [None, Some(Kind::Set), Some(Kind::Verify), Some(Kind::Finish)] {
            let world = World::new();
            if let Some(kind) = fault {
                world.target.fail(kind, Fault::HangsAfter, 1);
            }
            let moments = Arc::new(Mutex::new(Vec::new()));
            let (store, kept) = (world.store.clone(), moments.clone());
            let directory = world.directory.path().to_owned();
            *world.target.watch.lock() = Some(Box::new(move |accepted| {
                let (store, directory) = (copy(&*store), copy_log(&directory));
                kept.lock().push(Moment { store, directory, accepted: accepted.to_vec() });
            }));
            world.rotate(secret);
            *world.target.watch.lock() = None;
            for (number, moment) in moments.lock().drain(..).enumerate() {
                let next = World::over(moment.store, world.clock.clone(), moment.directory);
                *next.target.accepted.lock() = moment.accepted;
                next.take_up();
                assert!(next.agrees(secret), "{secret}, {fault:?}, killed at {number}");
                assert_eq!(next.target.accepted.lock().len(), 1, "{secret} at {number}");
                assert!(next.rotate(secret).success, "{secret} at {number}");
                moments_seen += 1;
            }
        }
    }
    assert!(moments_seen >= 50, "{moments_seen}");
}

#[test]
fn without_rollback_everything_is_left_for_an_administrator() {
    let world = World::new();
    world.target.fail(Kind::Verify, Fault::Refuses, 1);
    let options = Options { rollback: false, ..Options::default() };
    let outcome = world.rotate_as("app/single", options);
    assert!(!outcome.success && !outcome.rolled_back);
    assert_eq!(world.read("app/single"), b"first");
    assert!(!world.target.accepts(b"first"), "it is as the failed step has left it");
    let staged = world.broker.read(&caller(0), &name("app/single"), Which::Pending).unwrap();
    assert!(world.target.accepts(staged.value.expose()));
    let options = Options { value: ValueFrom::Pending, ..Options::default() };
    assert!(world.rotate_as("app/single", options).success);
    assert!(world.agrees("app/single"));
}

#[test]
fn without_verification_none_is_claimed() {
    let world = World::new();
    world.target.fail(Kind::Verify, Fault::Refuses, u32::MAX);
    let outcome = world.rotate_as("app/single", Options { verify: false, ..Options::default() });
    assert!(outcome.success && !outcome.verified && outcome.verified_by.is_none());
}

#[test]
fn consumers_that_could_not_be_told_keep_the_old_value_valid_until_they_are() {
    let world = World::new();
    world.target.fail(Kind::Notify, Fault::Refuses, 2);
    let outcome = world.rotate("app/double");
    assert!(outcome.success && outcome.error.unwrap().contains("stays valid"));
    assert!(world.target.accepts(b"first") && world.agrees("app/double"));
    world.take_up();
    assert!(!world.target.accepts(b"first") && world.agrees("app/double"));
}

#[test]
fn what_is_due_is_rotated_once_and_failures_are_backed_off() {
    let world = World::new();
    assert!(world.rotator.rotate_due().unwrap().is_empty());
    let due = world.rotator.due().unwrap();
    assert_eq!(due.len(), 1);
    assert_eq!((due[0].secret.as_str(), &*due[0].reason), ("app/due", "age"));
    world.clock.advance(Duration::from_secs(400 * 24 * 3600));
    let begun = world.rotator.rotate_due().unwrap();
    assert_eq!(begun.len(), 1);
    assert!(world.wait(&begun[0].rotation).success);
    assert!(world.rotator.rotate_due().unwrap().is_empty(), "what was missed is done once");
    assert_ne!(world.read("app/due"), b"first");
}

#[test]
fn an_expiry_moves_with_the_value() {
    let world = World::new();
    let plain = name("app/plain");
    let end = "2027-02-14T08:00:00Z";
    world.broker.set_attribute(&caller(0), &plain, "expires", Some(end)).unwrap();
    world.clock.advance(Duration::from_secs(10 * 24 * 3600));
    assert!(world.rotate("app/plain").success);
    let moved = world.broker.subject(&plain).unwrap().metadata.expires.unwrap();
    assert_eq!(moved.to_string(), "2027-02-24T08:00:00Z");
}

#[test]
fn a_value_that_was_made_under_a_clock_too_far_ahead_ages_all_the_same() {
    let ahead = World::new();
    ahead.clock.advance(Duration::from_secs(3650 * 24 * 3600));
    ahead.write("app/due", b"second");
    let (store, log) = (copy(&*ahead.store), copy_log(ahead.directory.path()));
    let world = World::over(store, Arc::new(ManualClock::at(1_800_000_000)), log);
    let due = name("app/due");
    assert!(world.rotator.rotate_due().unwrap().is_empty());
    let since = world.broker.subject(&due).unwrap().metadata.last_rotated.unwrap();
    assert!(since < "2027-02-01T00:00:00Z".parse::<Timestamp>().unwrap(), "{since}");
    world.clock.advance(Duration::from_secs(40 * 24 * 3600));
    let begun = world.rotator.rotate_due().unwrap();
    assert!(world.wait(&begun[0].rotation).success);
}

#[test]
fn the_outcome_is_remembered_with_the_secret_and_in_the_log() {
    let world = World::new();
    world.target.fail(Kind::Set, Fault::Refuses, 1);
    let failed = world.rotate("app/single");
    let done = world.rotate("app/single");
    let history = world.rotator.history(&caller(1001), &name("app/single")).unwrap();
    assert_eq!(history, [done, failed.clone()]);
    assert!(matches!(
        world.rotator.history(&caller(1002), &name("app/single")),
        Err(BrokerError::Denied)
    ));
    world.broker.close();
    let lines = audit::query(&world.directory.path().join("audit"), &audit::Filter::default());
    let recorded: Vec<Outcome> = lines
        .unwrap()
        .map(Result::unwrap)
        .filter(|entry| entry.action == audit::Action::Rotate)
        .filter_map(|entry| serde_json::from_value(entry.detail?).ok())
        .collect();
    assert_eq!(recorded[0].rotation, failed.rotation);
    assert_eq!(recorded.len(), 2);
    assert!(Timestamp::UNIX_EPOCH < recorded[0].finished);
}

#[test]
fn no_value_is_in_any_result_note_or_line() {
    let world = World::new();
    world.write("app/single", b"canary-7f3a");
    *world.target.accepted.lock() = vec![b"canary-7f3a".to_vec()];
    let outcome = world.rotate("app/single");
    let new = String::from_utf8(world.read("app/single")).unwrap();
    let note = world.broker.subject(&name("app/single")).unwrap().note;
    world.broker.close();
    let mut texts = vec![format!("{outcome:?}"), note.into()];
    for file in std::fs::read_dir(world.directory.path().join("audit")).unwrap() {
        texts.push(String::from_utf8_lossy(&std::fs::read(file.unwrap().path()).unwrap()).into());
    }
    for text in texts {
        assert!(!text.contains("canary-7f3a") && !text.contains(&new), "{text}");
    }
}
