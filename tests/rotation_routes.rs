//! Rotations of secrets that another service keeps: whatever fails, readers get what the service has, and the target
//! accepts that.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test file")]

mod outside;
mod routed;

use std::sync::Arc;
use std::time::{Duration, Instant};

use outside::{FAULTS, Fault, Kind, Target};
use parking_lot::Mutex;
use routed::service::{Failure, PutFault, Service, THEIRS};
use routed::{FRESH, Left, World, admin, name};
use secretfs::audit::Action;
use secretfs::broker::{BrokerError, Fault as Refusal, Put, Which};
use secretfs::model::Version;
use secretfs::rotation::{Options, Outcome, Parts, Rotator, Settings, StepName, ValueFrom};
use secretfs::store::FailedCommit;

/// A target with one credential at a time, one with two, and none.
const SETTINGS: &str = r#"
    [[rotation]]
    names = ["cloud/single"]
    target = { kind = "exec", command = { argv = ["/bin/single"] } }
    notify = [{ kind = "signal", signal = "HUP", exe = "/bin/consumer" }]
    [[rotation]]
    names = ["cloud/double"]
    wait_adopted_seconds = 0
    target = { kind = "exec", command = { argv = ["/bin/double"] }, holds_two = true }
    notify = [{ kind = "signal", signal = "HUP", exe = "/bin/consumer" }]
    [[rotation]]
    names = ["cloud/plain"]
    [[rotation]]
    names = ["cloud/due"]
    schedule = { every = "30d" }
"#;

const ALL: [&str; 3] = ["cloud/single", "cloud/double", "cloud/plain"];

/// A world whose secrets are rotated at a target.
struct Rotating {
    world: World,
    rotator: Rotator,
    target: Arc<Target>,
}

impl Rotating {
    fn new() -> Self {
        Self::with(Service::new())
    }

    /// With a service that has one value of everything, which the target accepts.
    fn with(service: Service) -> Self {
        for secret in ["single", "double", "plain", "due"] {
            service.set(secret, b"first");
        }
        let rotating = Self::over(World::patient(service));
        rotating.target.accepted.lock().push(b"first".to_vec());
        ALL.iter().for_each(|secret| assert_eq!(rotating.read(secret), b"first"));
        rotating
    }

    fn over(world: World) -> Self {
        let target = Arc::new(Target::default());
        let rotator = Rotator::new(Parts {
            broker: world.broker.clone(),
            effects: target.clone(),
            clock: world.clock.clone(),
            settings: Settings::parse(SETTINGS).unwrap(),
        });
        Self { world, rotator, target }
    }

    fn read(&self, secret: &str) -> Vec<u8> {
        self.world.broker.wait_unheld(&name(secret), Duration::from_secs(10)).unwrap();
        self.world.read(secret).unwrap()
    }

    fn there(&self, secret: &str) -> Vec<u8> {
        self.world.service.value(secret.strip_prefix("cloud/").unwrap()).unwrap()
    }

    fn rotate(&self, secret: &str) -> Outcome {
        self.rotate_as(secret, Options::default())
    }

    fn rotate_as(&self, secret: &str, options: Options) -> Outcome {
        let begun = self.rotator.rotate(&admin(), &name(secret), options).unwrap();
        self.wait(&begun.rotation)
    }

    fn wait(&self, rotation: &str) -> Outcome {
        self.rotator.wait(rotation, None, Duration::from_secs(20)).unwrap().outcome.unwrap()
    }

    /// Lets the service be there again, and time pass until nothing is left to be done.
    fn recover(&self) {
        self.world.service.fail(None);
        let mut now = Instant::now();
        for _ in 0..20 {
            self.world.pass(FRESH);
            self.world.turn();
            if self.world.broker.open_rotations().unwrap().is_empty() {
                return;
            }
            now += Duration::from_secs(3600);
            self.rotator.take_up_as_of(now);
            for state in self.rotator.at_work() {
                self.wait(&state.rotation);
            }
        }
        panic!("a rotation does not come to its end: {:?}", self.world.broker.open_rotations());
    }

    /// Has somebody else make a version at the service while the target is changed.
    fn have_theirs_come_at_set(&self, secret: &str) {
        let (service, mut done) = (Arc::clone(&self.world.service), false);
        let below = secret.strip_prefix("cloud/").unwrap().to_owned();
        *self.target.watch.lock() = Some(Box::new(move |_| {
            if !std::mem::replace(&mut done, true) {
                service.set(&below, THEIRS);
            }
        }));
    }

    /// The one thing that must hold in the end, whatever has happened.
    fn assert_agreed(&self, secret: &str, case: &str) {
        let readers = self.read(secret);
        assert_eq!(readers, self.there(secret), "{case}: readers and the service");
        if secret != "cloud/plain" {
            let accepted = self.target.accepted.lock();
            assert_eq!(*accepted, [readers], "{case}: the target and readers");
        }
    }

    /// That it holds, that no version was made of anything twice, and that the next rotation goes well.
    fn assert_goes_on(&self, secret: &str, case: &str) {
        self.assert_agreed(secret, case);
        let before = self.read(secret);
        let versions = if before == b"first" { 1 } else { 2 };
        assert_eq!(self.versions(secret), versions, "{case}");
        self.world.service.fail_puts(&[]);
        self.target.faults.lock().clear();
        let next = self.rotate(secret);
        assert!(next.success, "{case}: the next one: {next:?}");
        self.assert_agreed(secret, case);
        assert_ne!(self.read(secret), before, "{case}");
    }

    /// How many versions were current once.
    fn versions(&self, secret: &str) -> usize {
        let (_, versions) = self.world.broker.history(&admin(), &name(secret)).unwrap();
        let published = ["current", "previous"];
        versions.iter().filter(|version| published.contains(&version.state)).count()
    }
}

fn steps(outcome: &Outcome) -> Vec<StepName> {
    outcome.steps.iter().map(|step| step.step).collect()
}

fn comparing(compares: bool) -> Service {
    let mut service = Service::new();
    service.abilities.compare_and_set = compares;
    service
}

#[test]
fn the_service_has_the_new_value_before_readers_do_and_it_is_one_version() {
    use StepName::{Forward, Generate, Notify, Retire, Set, Stage, Switch, Verify};
    for compares in [true, false] {
        let rotating = Rotating::with(comparing(compares));
        for secret in ALL {
            let outcome = rotating.rotate(secret);
            assert!(outcome.success && outcome.error.is_none(), "{outcome:?}");
            match secret {
                "cloud/plain" => {
                    assert_eq!(steps(&outcome), [Generate, Stage, Verify, Forward, Switch]);
                }
                _ => assert_eq!(
                    steps(&outcome),
                    [Generate, Stage, Set, Verify, Forward, Switch, Notify, Retire]
                ),
            }
            assert_eq!((outcome.old_version, outcome.new_version), (Version(1), Some(Version(2))));
            rotating.assert_agreed(secret, secret);
            assert_ne!(rotating.read(secret), b"first");
            rotating.recover();
            assert_eq!(rotating.versions(secret), 2, "it is fetched as what is here");
            let below = secret.strip_prefix("cloud/").unwrap();
            assert_eq!(rotating.world.service.history(below).len(), 2);
            *rotating.target.accepted.lock() = vec![b"first".to_vec()];
        }
        assert_eq!(rotating.world.lines(Action::Forward).len(), ALL.len());
    }
}

#[test]
fn what_was_never_fetched_is_rotated_over_what_the_service_has() {
    let rotating = Rotating::new();
    rotating.world.service.set("plain", b"second");
    let due = name("cloud/due");
    assert!(rotating.world.broker.current_version(&due).is_none());
    for secret in ["cloud/due", "cloud/plain"] {
        assert!(rotating.rotate(secret).success);
        assert_eq!(rotating.read(secret), rotating.there(secret));
    }
    let before = rotating.world.broker.read(&admin(), &name("cloud/plain"), Which::Previous);
    assert_eq!(before.unwrap().value.expose(), b"second");
    let none = rotating.rotator.rotate(&admin(), &name("cloud/none"), Options::default());
    assert!(matches!(none, Err(BrokerError::NotFound(_))), "{none:?}");
}

#[test]
fn a_service_that_is_down_is_told_before_anything_is_done_at_the_target() {
    let rotating = Rotating::new();
    rotating.world.service.fail(Some(Failure::Down));
    for _ in 0..3 {
        let outcome = rotating.rotate("cloud/single");
        assert_eq!(steps(&outcome), [StepName::Generate]);
        assert!(outcome.error.unwrap().contains("backend vault"));
    }
    let refused = rotating.rotator.rotate(&admin(), &name("cloud/single"), Options::default());
    assert!(
        matches!(&refused, Err(BrokerError::Upstream(error)) if error.fault == Refusal::Unreachable),
        "{refused:?}"
    );
    assert!(rotating.target.asked.lock().is_empty());
    assert_eq!(rotating.read("cloud/single"), b"first");
    rotating.recover();
    assert!(rotating.rotate("cloud/single").success);
}

#[test]
fn while_it_is_between_staging_and_switch_nobody_here_changes_the_secret_and_readers_get_the_old_value()
 {
    let rotating = Rotating::new();
    rotating.target.fail(Kind::Set, Fault::HangsBefore, 1);
    rotating.target.fail(Kind::Undo, Fault::HangsBefore, 1);
    let outcome = rotating.rotate("cloud/single");
    assert!(!outcome.success && !outcome.rolled_back, "{outcome:?}");
    let busy = |result: Result<(), BrokerError>| matches!(result, Err(BrokerError::Rotating(_)));
    assert!(busy(rotating.world.write("cloud/single", b"x", &Put::default()).map(drop)));
    assert!(busy(rotating.world.broker.remove(&admin(), &name("cloud/single"))));
    rotating.world.service.set("single", THEIRS);
    rotating.world.pass(FRESH);
    rotating.world.turn();
    assert_eq!(rotating.read("cloud/single"), b"first", "the target does not accept theirs yet");
    rotating.recover();
    rotating.assert_agreed("cloud/single", "theirs");
    assert_eq!(rotating.read("cloud/single"), THEIRS);
    rotating.world.write("cloud/single", b"x", &Put::default()).unwrap();
}

#[test]
fn nothing_is_staged_by_hand_but_what_a_rotation_has_left_is_taken() {
    let rotating = Rotating::new();
    let pending = Options { value: ValueFrom::Pending, ..Options::default() };
    let refused = rotating.rotator.rotate(&admin(), &name("cloud/single"), pending.clone());
    assert!(matches!(refused, Err(BrokerError::Unsupported(_))), "{refused:?}");
    rotating.target.fail(Kind::Verify, Fault::Refuses, 1);
    let left =
        rotating.rotate_as("cloud/single", Options { rollback: false, ..Options::default() });
    assert!(!left.success && !left.rolled_back);
    assert_eq!(rotating.there("cloud/single"), b"first");
    assert!(rotating.rotate_as("cloud/single", pending).success);
    rotating.assert_agreed("cloud/single", "what was left");
}

#[test]
fn a_value_that_was_left_staged_and_comes_from_the_service_is_one_version() {
    let rotating = Rotating::new();
    rotating.world.service.fail_puts(&[PutFault::Done]);
    rotating.world.service.go_down_after_put();
    let left =
        rotating.rotate_as("cloud/single", Options { rollback: false, ..Options::default() });
    assert!(!left.success, "{left:?}");
    rotating.recover();
    rotating.assert_agreed("cloud/single", "left");
    assert_eq!(
        (rotating.versions("cloud/single"), rotating.read("cloud/single")),
        (2, rotating.there("cloud/single"))
    );
    assert_ne!(rotating.there("cloud/single"), b"first");
}

#[test]
fn what_is_due_by_the_schedule_goes_to_the_service() {
    let rotating = Rotating::new();
    rotating.read("cloud/due");
    rotating.world.pass(Duration::from_secs(400 * 24 * 3600));
    let begun = rotating.rotator.rotate_due().unwrap();
    assert_eq!(begun.len(), 1);
    assert!(rotating.wait(&begun[0].rotation).success);
    assert_eq!(rotating.read("cloud/due"), rotating.there("cloud/due"));
    assert_ne!(rotating.there("cloud/due"), b"first");
    assert!(rotating.rotator.rotate_due().unwrap().is_empty());
}

/// What the service does with what is put, and whether the rotation can succeed all the same.
const PUTS: [(&[PutFault], bool); 14] = {
    use PutFault::{AfterTheirs, Denied, Done, DoneBefore, Lost};
    [
        (&[], true),
        (&[Denied], false),
        (&[Done], true),
        (&[Lost], true),
        (&[Lost, Lost], false),
        (&[Lost, Denied], false),
        (&[DoneBefore(1)], true),
        (&[DoneBefore(2)], true),
        (&[DoneBefore(3)], true),
        (&[DoneBefore(5), Lost], false),
        (&[AfterTheirs], false),
        (&[Lost, AfterTheirs], false),
        (&[Lost, Lost, Lost, Done], false),
        (&[Lost, Lost, AfterTheirs], false),
    ]
};

#[test]
fn whatever_the_service_does_the_target_accepts_what_readers_get_and_that_is_what_it_has() {
    let mut cells = 0;
    for compares in [true, false] {
        for secret in ALL {
            for (puts, may_succeed) in PUTS {
                for goes_down in [false, true] {
                    // What comes late is kept out by comparing alone.
                    let late = puts.iter().any(|put| matches!(put, PutFault::DoneBefore(2..)));
                    if late && !compares {
                        continue;
                    }
                    let case =
                        format!("{secret} {puts:?}, compares: {compares}, down: {goes_down}");
                    let rotating = Rotating::with(comparing(compares));
                    rotating.world.service.fail_puts(puts);
                    if goes_down {
                        rotating.world.service.go_down_after_put();
                    }
                    let outcome = rotating.rotate(secret);
                    let case = format!("{case}: {outcome:?}");
                    assert!(may_succeed || !compares || !outcome.success, "{case}");
                    assert!(goes_down || !may_succeed || outcome.success, "{case}");
                    assert_eq!(outcome.success, outcome.error.is_none(), "{case}");
                    rotating.recover();
                    rotating.assert_agreed(secret, &case);
                    let theirs = compares && puts.contains(&PutFault::AfterTheirs);
                    assert!(!theirs || rotating.read(secret) == THEIRS, "{case}");
                    rotating.assert_goes_on(secret, &case);
                    cells += 1;
                }
            }
        }
    }
    assert_eq!(cells, 3 * 2 * (14 + 14 - 3));
}

#[test]
fn whatever_fails_at_the_target_and_whoever_writes_at_the_service_all_agree_in_the_end() {
    let puts: [&[PutFault]; 3] = [&[], &[PutFault::Lost, PutFault::Lost], &[PutFault::AfterTheirs]];
    let mut cells = 0;
    for secret in ["cloud/single", "cloud/double"] {
        for kind in [Kind::Set, Kind::Verify, Kind::Undo, Kind::Finish] {
            for fault in FAULTS {
                for puts in puts {
                    for theirs in [false, true] {
                        let case =
                            format!("{secret} {kind:?} {fault:?} {puts:?}, theirs: {theirs}");
                        let rotating = Rotating::new();
                        rotating.target.fail(kind, fault, if kind == Kind::Undo { 2 } else { 1 });
                        rotating.world.service.fail_puts(puts);
                        if theirs {
                            rotating.have_theirs_come_at_set(secret);
                        }
                        let outcome = rotating.rotate(secret);
                        rotating.recover();
                        let case = format!("{case}: {outcome:?}");
                        assert!(!theirs || rotating.read(secret) == THEIRS, "{case}");
                        rotating.assert_goes_on(secret, &case);
                        cells += 1;
                    }
                }
            }
        }
    }
    assert_eq!(cells, 2 * 4 * 5 * 3 * 2);
}

#[test]
fn what_somebody_else_has_made_goes_to_the_target_and_to_readers_also_where_that_refuses_it() {
    for secret in ["cloud/single", "cloud/double"] {
        for fault in FAULTS {
            let rotating = Rotating::new();
            let (service, target) = (&rotating.world.service, rotating.target.clone());
            service.fail_puts(&[PutFault::AfterTheirs]);
            let (theirs, mut armed) = (Arc::clone(service), false);
            let below = secret.strip_prefix("cloud/").unwrap();
            service.watch(Some(Box::new(move || {
                // The rotation's own value is set by then.
                if !armed && theirs.value(below).unwrap() == THEIRS {
                    armed = true;
                    target.fail(Kind::Set, fault, 1);
                }
            })));
            let outcome = rotating.rotate(secret);
            assert!(!outcome.success, "{outcome:?}");
            rotating.recover();
            assert_eq!(rotating.read(secret), THEIRS, "{outcome:?}");
            if fault == Fault::Refuses {
                assert_eq!(*rotating.target.accepted.lock(), [b"first".to_vec()]);
                assert!(outcome.error.unwrap().contains("does not accept"));
            } else {
                rotating.assert_goes_on(secret, &format!("{outcome:?}"));
            }
        }
    }
}

#[test]
fn a_full_disk_at_any_commit_leaves_service_target_and_readers_agreed() {
    let puts: [&[PutFault]; 4] =
        [&[], &[PutFault::Denied], &[PutFault::Lost, PutFault::Lost], &[PutFault::AfterTheirs]];
    for secret in ["cloud/single", "cloud/plain"] {
        for puts in puts {
            for before in 0..9 {
                for fails in [1, 4] {
                    for lost in [FailedCommit::Lost, FailedCommit::Applied] {
                        let rotating = Rotating::new();
                        rotating.world.service.fail_puts(puts);
                        *rotating.world.store.full.lock() = Some((before, fails, lost));
                        let outcome = rotating.rotate(secret);
                        *rotating.world.store.full.lock() = None;
                        let case =
                            format!("{secret} {puts:?} {before} {fails} {lost:?}: {outcome:?}");
                        rotating.recover();
                        rotating.assert_goes_on(secret, &case);
                    }
                }
            }
        }
    }
}

/// A moment at which the daemon could have been killed.
struct Moment {
    left: Left,
    accepted: Vec<Vec<u8>>,
}

#[test]
fn a_daemon_killed_at_any_moment_leaves_what_the_next_one_brings_to_an_end() {
    let mut seen = 0;
    for secret in ALL {
        for (puts, _) in PUTS {
            let rotating = Rotating::new();
            rotating.world.service.fail_puts(puts);
            let moments = Arc::new(Mutex::new(Vec::new()));
            let (kept, witness) = (moments.clone(), rotating.world.witness());
            *rotating.target.watch.lock() = Some(Box::new(move |accepted| {
                kept.lock().push(Moment { left: witness.left(), accepted: accepted.to_vec() });
            }));
            let (kept, witness) = (moments.clone(), rotating.world.witness());
            let target = rotating.target.clone();
            rotating.world.service.watch(Some(Box::new(move || {
                let accepted = target.accepted.lock().clone();
                kept.lock().push(Moment { left: witness.left(), accepted });
            })));
            rotating.rotate(secret);
            *rotating.target.watch.lock() = None;
            rotating.world.service.watch(None);
            for (number, moment) in moments.lock().drain(..).enumerate() {
                let next = Rotating::over(World::of(moment.left));
                *next.target.accepted.lock() = moment.accepted;
                next.recover();
                next.assert_goes_on(secret, &format!("{secret} {puts:?}, killed at {number}"));
                seen += 1;
            }
        }
    }
    assert!(seen >= 300, "{seen}");
}
