//! One-time codes: what they elevate, that none counts twice, and that they cannot be guessed.

use super::lease::{QUARTER, ask, lines_of};
use super::*;
use crate::crypto::{Code, Seed};
use crate::model::Session;

const SECOND: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_secs(30);
const SEED: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";

/// The admins must be elevated, and so must 1000 to read `app/key`.
const MORE: &str = r#"
    [[binding]]
    role = "admin"
    uid = [1]
    [[guard]]
    names = ["**"]
    levels = ["admin"]
    require_mfa = true
    [[guard]]
    names = ["app/key"]
    levels = ["read"]
    require_mfa = true
"#;

fn world() -> World {
    let world = World::new();
    world.put("app/key", CANARY);
    world.put("app/other", CANARY);
    enforce(&world);
    world
}

fn enforce(world: &World) {
    let policy = Policy::parse(&format!("{POLICY}{MORE}"), &NumericIds).unwrap();
    world.broker().replace_policy(None, policy).unwrap();
}

/// A caller in a login session.
fn within(uid: u32, session: u32) -> Caller {
    Caller { session: Some(Session(session)), ..caller(uid) }
}

fn seed() -> Seed {
    Seed::from_base32(SEED.as_bytes()).unwrap()
}

/// The code of the step that is so many steps from now.
fn code(world: &World, steps: i64) -> Code {
    seed().code(Seed::step_at(world.clock.now()) + steps).unwrap()
}

fn wrong(world: &World) -> Code {
    let right: Vec<Code> = (-2..=2).map(|steps| code(world, steps)).collect();
    let mut all = (0..9).map(|digit| Code::parse(format!("12345{digit}").as_bytes()).unwrap());
    all.find(|code| !right.contains(code)).unwrap()
}

/// A world in which 0 and 1000 have enrolled by the code of the step before this.
fn enrolled() -> World {
    let world = world();
    for uid in [0, 1000] {
        world.broker().enrol(&within(uid, 7), seed(), code(&world, -1)).unwrap();
    }
    world
}

fn elevate(world: &World, uid: u32, code: Code) -> Result<crate::model::Timestamp> {
    world.broker().elevate(&within(uid, 7), code)
}

fn reads(world: &World, caller: &Caller) -> bool {
    world.broker().read(caller, &name("app/key"), Which::Current).is_ok()
}

fn reason(outcome: Result<crate::model::Timestamp>) -> String {
    let Err(BrokerError::Refused(reason)) = outcome else { panic!("{outcome:?}") };
    reason.into()
}

#[test]
fn a_guarded_name_opens_to_the_elevated_session_of_that_uid_alone_and_for_minutes() {
    let world = enrolled();
    assert!(!reads(&world, &within(1000, 7)));
    elevate(&world, 1000, code(&world, 0)).unwrap();
    assert!(reads(&world, &within(1000, 7)));
    assert!(!reads(&world, &within(1000, 8)) && !reads(&world, &caller(1000)));
    world.clock.advance(world.limits.elevation - SECOND);
    assert!(reads(&world, &within(1000, 7)));
    world.clock.advance(SECOND);
    assert!(!reads(&world, &within(1000, 7)));
    let refused = world.lines("app/key").pop().unwrap();
    assert_eq!(refused.rule.as_deref(), Some("guard 2"));
    assert!(refused.reason.unwrap().contains("secretfs elevate"));
}

#[test]
fn an_admin_who_is_not_elevated_commands_nothing_and_reads_what_is_not_guarded() {
    let world = enrolled();
    let seal = |caller: &Caller| world.broker().admit_control(caller, "status");
    assert!(matches!(seal(&within(0, 7)), Err(BrokerError::Refused(_))));
    assert!(world.broker().grant(&within(0, 7), ask("app/other", 1001)).is_err());
    assert!(world.broker().read(&within(0, 7), &name("app/other"), Which::Current).is_ok());
    elevate(&world, 0, code(&world, 0)).unwrap();
    assert!(seal(&within(0, 7)).is_ok() && seal(&within(0, 8)).is_err());
    assert!(world.broker().grant(&within(0, 7), ask("app/other", 1001)).is_ok());
}

#[test]
fn no_code_is_taken_twice_or_out_of_its_time_also_after_a_restart() {
    let mut world = enrolled();
    let used = code(&world, 0);
    elevate(&world, 1000, used).unwrap();
    assert_eq!(reason(elevate(&world, 1000, used)), "the code is wrong, or was used");
    assert!(elevate(&world, 1000, code(&world, -1)).is_err(), "the one that enrolled");
    world.reopen().unwrap();
    enforce(&world);
    assert!(!reads(&world, &within(1000, 7)), "a restart ends what is elevated");
    assert!(elevate(&world, 1000, used).is_err());
    world.clock.advance(STEP * 3);
    for steps in [-2, 2] {
        assert!(elevate(&world, 0, code(&world, steps)).is_err(), "{steps}");
    }
    elevate(&world, 1000, code(&world, -1)).unwrap();
    elevate(&world, 1000, code(&world, 1)).unwrap();
    assert!(elevate(&world, 1000, code(&world, 0)).is_err(), "a later one was taken");
}

#[test]
fn guessing_is_slowed_down_more_and_more_also_over_a_restart() {
    let mut world = enrolled();
    let guess = |world: &World| reason(elevate(world, 1000, wrong(world)));
    let (no, wait) = ("the code is wrong, or was used", "there were too many wrong codes: wait");
    for _ in 0..5 {
        assert_eq!(guess(&world), no);
    }
    assert_eq!(guess(&world), wait);
    assert_eq!(reason(elevate(&world, 1000, code(&world, 0))), wait, "the right one, too");
    world.reopen().unwrap();
    enforce(&world);
    world.clock.advance(Duration::from_secs(59));
    assert_eq!(guess(&world), wait);
    world.clock.advance(SECOND);
    for _ in 0..5 {
        assert_eq!(guess(&world), no);
    }
    world.clock.advance(Duration::from_secs(119));
    assert_eq!(guess(&world), wait);
    world.clock.advance(SECOND);
    elevate(&world, 1000, code(&world, 0)).unwrap();
    // An hour at most, whatever went before: a day of guessing is worth some hundred tries.
    let (mut tries, start) = (0, world.clock.now());
    while world.clock.now().duration_since(start).as_hours() < 24 {
        match guess(&world) {
            found if found == no => tries += 1,
            _ => world.clock.advance(Duration::from_secs(60)),
        }
    }
    assert!(tries < 200, "{tries}");
    assert!(elevate(&world, 0, code(&world, 0)).is_ok(), "nobody else is slowed down");
}

#[test]
fn without_a_session_or_a_seed_nobody_is_elevated() {
    let world = enrolled();
    let broker = world.broker();
    let none = broker.elevate(&caller(1000), code(&world, 0));
    assert_eq!(reason(none), "there is no login session to elevate");
    assert!(reason(elevate(&world, 1, code(&world, 0))).contains("--enrol"));
    let denied = lines_of(&world, Action::Elevate);
    assert_eq!(denied.iter().filter(|line| line.outcome == Outcome::Denied).count(), 2);
}

#[test]
fn a_seed_is_taken_with_a_code_of_it_alone_and_replaced_by_the_elevated_alone() {
    let world = world();
    let broker = world.broker();
    let me = within(1000, 7);
    assert!(matches!(broker.enrol(&me, seed(), wrong(&world)), Err(BrokerError::Invalid(_))));
    let nobody = broker.enrol(&within(4000, 7), seed(), code(&world, 0));
    assert!(broker.admit_enrolment(&within(4000, 7)).is_err());
    broker.admit_enrolment(&me).unwrap();
    assert!(matches!(nobody, Err(BrokerError::Refused(_))), "who has no rule fills no store");
    broker.enrol(&me, seed(), code(&world, -1)).unwrap();
    let other = || Seed::from_base32(b"MFRGGZDFMZTWQ2LKNNWG23TPOBYXE43U").unwrap();
    let others = |steps| other().code(Seed::step_at(world.clock.now()) + steps).unwrap();
    let stolen = broker.enrol(&me, other(), others(0));
    assert!(matches!(stolen, Err(BrokerError::Refused(_))));
    assert!(broker.admit_enrolment(&me).is_err(), "no seed is shown for nothing");
    elevate(&world, 1000, code(&world, 0)).unwrap();
    broker.admit_enrolment(&me).unwrap();
    broker.enrol(&me, other(), others(0)).unwrap();
    assert!(elevate(&world, 1000, code(&world, 1)).is_err());
    elevate(&world, 1000, others(1)).unwrap();
    elevated_admin_verifies(&world);
}

/// The old seed is gone from the store, and the new one is accounted for.
fn elevated_admin_verifies(world: &World) {
    world.broker().enrol(&within(0, 7), seed(), code(world, -1)).unwrap();
    elevate(world, 0, code(world, 0)).unwrap();
    let found = world.broker().verify(&within(0, 7), &Progress::default()).unwrap();
    assert!(found.faults.is_empty(), "{:?}", found.faults);
    // Two secrets and two seeds.
    assert_eq!(found.versions, 4);
}

#[test]
fn a_lost_seed_is_forgotten_by_an_elevated_admin_and_ones_own_not_by_a_stolen_session() {
    let world = enrolled();
    let broker = world.broker();
    assert!(broker.forget_seed(&within(0, 7), Uid(1000)).is_err());
    elevate(&world, 1000, code(&world, 0)).unwrap();
    elevate(&world, 0, code(&world, 0)).unwrap();
    broker.forget_seed(&within(0, 7), Uid(1000)).unwrap();
    assert!(!reads(&world, &within(1000, 7)), "what it had elevated ends with it");
    broker.enrol(&within(1000, 7), seed(), code(&world, 0)).unwrap();
    broker.end_elevation(&within(0, 7));
    // Were admins not guarded, a stolen session of one could still not bring a seed of its own.
    let policy = Policy::parse(POLICY, &NumericIds).unwrap();
    broker.replace_policy(None, policy).unwrap();
    let own = broker.forget_seed(&within(0, 7), Uid(0));
    assert!(matches!(own, Err(BrokerError::Refused(_))));
}

#[test]
fn a_code_that_is_taken_just_before_its_seed_is_forgotten_elevates_nobody() {
    let world = enrolled();
    elevate(&world, 0, code(&world, 0)).unwrap();
    let take = || assert!(elevate(&world, 1000, code(&world, 0)).is_ok());
    let forget = || world.broker().forget_seed(&within(0, 7), Uid(1000)).unwrap();
    world.together(&[&take, &forget]);
    assert!(!reads(&world, &within(1000, 7)));
}

#[test]
fn elevation_can_be_ended_and_ends_when_the_store_is_sealed() {
    let world = enrolled();
    elevate(&world, 1000, code(&world, 0)).unwrap();
    world.broker().end_elevation(&within(1000, 7));
    assert!(!reads(&world, &within(1000, 7)));
    elevate(&world, 0, code(&world, 0)).unwrap();
    world.broker().seal(&within(0, 7)).unwrap();
    assert!(world.broker().elevated_until(&within(0, 7)).is_none());
}

#[test]
fn a_sealed_store_is_unsealed_by_an_admin_whom_nobody_can_elevate_meanwhile() {
    let world = enrolled();
    elevate(&world, 0, code(&world, 0)).unwrap();
    world.broker().seal(&within(0, 7)).unwrap();
    let unseal = |caller: &Caller| world.broker().unseal(caller, world.root_key());
    assert!(matches!(unseal(&caller(1000)), Err(BrokerError::Denied)));
    unseal(&within(0, 7)).unwrap();
    assert!(world.broker().admit_control(&within(0, 7), "status").is_err(), "elevated for nothing");
}

#[test]
fn setting_the_clock_back_lengthens_no_elevation_and_brings_no_code_back() {
    let world = enrolled();
    let used = code(&world, 0);
    elevate(&world, 1000, used).unwrap();
    world.clock.set(1_800_000_000 - 3600);
    assert!(elevate(&world, 1000, code(&world, 0)).is_err());
    world.clock.advance(QUARTER);
    assert!(!reads(&world, &within(1000, 7)));
}

#[test]
fn a_code_where_nothing_asks_for_one_is_refused_as_such() {
    let world = World::new();
    let outcome = world.broker().elevate(&within(0, 7), Code::parse(b"123456").unwrap());
    assert!(matches!(outcome, Err(BrokerError::Invalid(_))));
}
