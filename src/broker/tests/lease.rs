//! Grants over the policy of the tests: what they add, when they end, and what is on record of them.

use super::*;
use crate::audit::Event;
use crate::model::Request;
use crate::policy::{Uses, Whom};

const SECOND: Duration = Duration::from_secs(1);
pub(super) const QUARTER: Duration = Duration::from_secs(900);

/// An ask for a quarter of an hour of `read`, for one uid.
pub(super) fn ask(names: &str, uid: u32) -> Ask {
    Ask {
        names: names.parse().unwrap(),
        levels: [Level::Read].into_iter().collect(),
        whom: Whom { uids: vec![Uid(uid)], ..Whom::default() },
        lasting: Some(QUARTER),
        max_uses: None,
        reason: "incident 42".into(),
        break_glass: false,
    }
}

fn give(world: &World, ask: Ask) -> crate::model::GrantId {
    world.broker().grant(&admin(), ask).unwrap().id
}

pub(super) fn lines_of(world: &World, action: Action) -> Vec<Entry> {
    let directory = world.directory.path().join("audit");
    let all = crate::audit::query(&directory, &Filter::default()).unwrap();
    all.map(|entry| entry.unwrap()).filter(|entry| entry.action == action).collect()
}

fn used(world: &World, id: crate::model::GrantId) -> u32 {
    let grants = world.broker().grants(&admin()).unwrap();
    grants.iter().find(|grant| grant.id == id).unwrap().used
}

#[test]
fn a_grant_adds_to_the_policy_and_ends_to_the_second() {
    let world = World::new();
    world.put("other/key", CANARY);
    assert!(matches!(world.read(1000, "other/key"), Err(BrokerError::Denied)));
    let id = give(&world, ask("other/*", 1000));
    assert_eq!(world.read(1000, "other/key").unwrap(), CANARY);
    assert!(matches!(world.read(1001, "other/key"), Err(BrokerError::Denied)));
    world.clock.advance(QUARTER - SECOND);
    assert!(world.read(1000, "other/key").is_ok());
    world.clock.advance(SECOND);
    assert!(matches!(world.read(1000, "other/key"), Err(BrokerError::Denied)));
    let rules: Vec<_> = world.lines("other/key").into_iter().filter_map(|line| line.rule).collect();
    assert_eq!(rules.iter().filter(|rule| **rule == format!("grant:{id}")).count(), 2);
}

#[test]
fn what_a_caller_may_know_of_follows_its_grants() {
    let world = World::new();
    world.put("deep/er/key", CANARY);
    let broker = world.broker();
    let seen = || broker.list(&caller(1001), None, None, 9).unwrap().len();
    let looked = || broker.look(&caller(1001), &name("deep/er")).is_ok();
    assert!(seen() == 0 && !looked());
    give(&world, ask("deep/er/key", 1001));
    assert!(seen() == 1 && looked());
    world.clock.advance(QUARTER);
    assert!(seen() == 0 && !looked());
}

#[test]
fn a_deny_of_the_policy_wins_over_a_grant() {
    let world = World::new();
    world.put("app/root", CANARY);
    give(&world, ask("**", 1000));
    give(&world, ask("app/root", 1000));
    assert!(matches!(world.read(1000, "app/root"), Err(BrokerError::Denied)));
}

#[test]
fn a_grant_outlives_a_restart_and_a_new_policy_and_not_its_time() {
    let mut world = World::new();
    world.put("other/key", CANARY);
    give(&world, ask("other/key", 1001));
    world.reopen().unwrap();
    assert!(world.read(1001, "other/key").is_ok());
    let policy = Policy::parse(POLICY, &NumericIds).unwrap();
    world.broker().replace_policy(None, policy).unwrap();
    assert!(world.read(1001, "other/key").is_ok());
    world.clock.advance(QUARTER);
    world.reopen().unwrap();
    assert!(matches!(world.read(1001, "other/key"), Err(BrokerError::Denied)));
}

#[test]
fn setting_the_clock_back_lengthens_no_grant_also_over_a_restart() {
    let mut world = World::new();
    world.put("other/key", CANARY);
    give(&world, ask("other/key", 1001));
    world.clock.set(1_700_000_000);
    world.reopen().unwrap();
    assert!(world.read(1001, "other/key").is_ok(), "its time is not over");
    world.clock.advance(QUARTER);
    assert!(matches!(world.read(1001, "other/key"), Err(BrokerError::Denied)));
    world.reopen().unwrap();
    assert!(matches!(world.read(1001, "other/key"), Err(BrokerError::Denied)));
}

#[test]
fn what_a_boot_leaves_of_a_grant_is_not_asked_of_the_clock_again() {
    let mut world = World::new();
    world.put("other/key", CANARY);
    give(&world, ask("other/key", 1001));
    world.clock.reboot();
    world.reopen().unwrap();
    world.clock.advance(SECOND * 2);
    // Back to just after it was given, and another start.
    world.clock.set(1_800_000_000);
    world.reopen().unwrap();
    assert!(world.read(1001, "other/key").is_ok());
    world.clock.advance(QUARTER - SECOND * 2);
    assert!(matches!(world.read(1001, "other/key"), Err(BrokerError::Denied)));
}

#[test]
fn the_uses_of_a_grant_are_counted_also_over_a_restart_and_forgotten_with_it() {
    let mut world = World::new();
    world.put("other/key", CANARY);
    let id = give(&world, Ask { max_uses: Some(2), ..ask("other/key", 1001) });
    assert!(world.read(1001, "other/key").is_ok());
    world.reopen().unwrap();
    assert_eq!(used(&world, id), 1);
    assert!(world.read(1001, "other/key").is_ok());
    assert!(matches!(world.read(1001, "other/key"), Err(BrokerError::Denied)));
    assert_eq!(world.broker().end_grants().unwrap(), 1);
    let ended = lines_of(&world, Action::GrantEnd);
    assert_eq!(ended[0].reason.as_deref(), Some("its uses are spent"));
    world.reopen().unwrap();
    assert!(world.broker().grants(&admin()).unwrap().is_empty());
    assert_eq!(world.broker().inner.gate.uses().used(&format!("grant:{id}")), 0);
    assert!(world.broker().verify(&admin(), &Progress::default()).unwrap().faults.is_empty());
}

#[test]
fn a_use_that_shares_its_transaction_with_the_end_of_its_grant_is_refused() {
    let world = World::new();
    world.put("other/key", CANARY);
    let id = give(&world, Ask { max_uses: Some(1), ..ask("other/key", 1001) });
    let revoke = || drop(world.broker().revoke_grant(&admin(), id).unwrap());
    // It was admitted while the policy in force still had the grant.
    let read = || {
        let read = world.read(1001, "other/key");
        assert!(matches!(read, Err(BrokerError::Denied)), "{read:?}");
    };
    world.together(&[&revoke, &read, &read]);
    assert_eq!(world.broker().inner.gate.uses().used(&format!("grant:{id}")), 0);
}

#[test]
fn a_grant_that_a_dying_server_did_not_commit_is_on_record_as_failed() {
    let mut world = World::new();
    let request = |resent| Some(Request { number: 7, resent });
    let asking = Caller { request: request(false), ..admin() };
    let unfinished = Event {
        caller: Some(&asking),
        detail: Some(serde_json::json!({ "grant": "3f0c9a51e7d2" })),
        ..Event::new(Action::Grant, Outcome::Allowed)
    };
    world.broker().inner.gate.record(&unfinished).unwrap();
    world.reopen().unwrap();
    world.broker().adopt(0, &[7].into()).unwrap();
    let lines = lines_of(&world, Action::Grant);
    let outcomes: Vec<Outcome> = lines.iter().map(|line| line.outcome).collect();
    assert_eq!(outcomes, [Outcome::Allowed, Outcome::Failed]);
    assert_eq!(lines[1].detail, lines[0].detail, "it says which");
}

#[test]
fn what_is_given_revoked_and_ended_is_on_record() {
    let world = World::new();
    let (first, second) =
        (give(&world, ask("other/key", 1001)), give(&world, ask("other/*", 1001)));
    world.broker().revoke_grant(&admin(), first).unwrap();
    world.clock.advance(QUARTER);
    assert_eq!(world.broker().end_grants().unwrap(), 1);
    assert_eq!(world.broker().end_grants().unwrap(), 0);
    let about = |action| {
        let lines = lines_of(&world, action);
        let ids = lines.iter().map(|line| line.detail.as_ref().unwrap()["grant"].clone());
        (ids.collect::<Vec<_>>(), lines)
    };
    let (first, second) = (first.to_string(), second.to_string());
    let (given, lines) = about(Action::Grant);
    assert_eq!(given, [&*first, &*second]);
    assert_eq!(lines[0].reason.as_deref(), Some("incident 42"));
    assert_eq!(lines[0].rule.as_deref(), Some("#2: admin allow 1"));
    assert_eq!(about(Action::GrantRevoke).0, [&*first]);
    assert_eq!(about(Action::GrantEnd).0, [&*second]);
}

#[test]
fn a_revoked_grant_allows_nothing_more_and_is_gone() {
    let world = World::new();
    world.put("other/key", CANARY);
    let id = give(&world, ask("other/key", 1001));
    assert!(world.read(1001, "other/key").is_ok());
    world.broker().revoke_grant(&admin(), id).unwrap();
    assert!(matches!(world.read(1001, "other/key"), Err(BrokerError::Denied)));
    let again = world.broker().revoke_grant(&admin(), id).unwrap_err();
    assert!(again.to_string().contains("no grant"), "{again}");
}

#[test]
fn only_an_admin_by_the_policy_gives_and_revokes() {
    let world = World::new();
    let stranger = world.broker().grant(&caller(1000), ask("other/key", 1000));
    assert!(matches!(stranger, Err(BrokerError::Refused(_))));
    let id = give(&world, Ask { levels: [Level::Admin].into_iter().collect(), ..ask("**", 1001) });
    assert!(world.broker().is_admin(&caller(1001)));
    let passed_on = world.broker().grant(&caller(1001), ask("other/key", 1000));
    assert!(matches!(passed_on, Err(BrokerError::Refused(_))));
    assert!(matches!(world.broker().revoke_grant(&caller(1000), id), Err(BrokerError::Refused(_))));
    let refused = lines_of(&world, Action::Grant);
    let refused: Vec<_> = refused.iter().filter(|line| line.outcome != Outcome::Allowed).collect();
    assert_eq!(refused.len(), 2);
}

#[test]
fn grants_are_shown_to_admins_and_to_those_whom_they_name() {
    let world = World::new();
    give(&world, ask("other/key", 1001));
    let shown = |uid| world.broker().grants(&caller(uid)).unwrap().len();
    assert_eq!([shown(0), shown(1000), shown(1001)], [1, 0, 1]);
    world.clock.advance(QUARTER);
    assert_eq!(shown(0), 0);
}

#[test]
fn a_sealed_store_shows_no_grant_and_has_them_back_unsealed() {
    let world = World::new();
    world.put("other/key", CANARY);
    give(&world, ask("other/key", 1001));
    world.broker().seal(&admin()).unwrap();
    assert!(matches!(world.broker().grants(&admin()), Err(BrokerError::Sealed)));
    assert!(matches!(world.broker().look(&caller(1001), &name("other")), Err(BrokerError::Denied)));
    world.broker().unseal(&admin(), world.root_key()).unwrap();
    assert!(world.read(1001, "other/key").is_ok());
}

#[test]
fn a_grant_of_nothing_to_nobody_for_ever_or_without_a_reason_is_refused() {
    let world = World::new();
    let refused = |ask: Ask| {
        let err = world.broker().grant(&admin(), ask).unwrap_err();
        assert!(matches!(err, BrokerError::Invalid(_)), "{err}");
    };
    let good = || ask("other/key", 1001);
    refused(Ask { levels: Levels::NONE, ..good() });
    refused(Ask { whom: Whom { exes: vec!["/bin/cat".into()], ..Whom::default() }, ..good() });
    refused(Ask { lasting: Some(Duration::ZERO), ..good() });
    refused(Ask { lasting: Some(Duration::from_secs(31 * 24 * 3600)), ..good() });
    refused(Ask { lasting: None, ..good() });
    refused(Ask { reason: " ".into(), ..good() });
    refused(Ask { reason: "x".repeat(257).into(), ..good() });
    refused(Ask { max_uses: Some(0), ..good() });
    refused(Ask { max_uses: Some(1), levels: [Level::Write].into_iter().collect(), ..good() });
    assert!(world.broker().grants(&admin()).unwrap().is_empty());
}

#[test]
fn the_store_knows_no_name_of_a_grant_without_its_key() {
    let world = World::new();
    give(&world, ask("quite-a-name/*", 1001));
    let mut found = false;
    let snapshot = world.store.snapshot().unwrap();
    for table in Table::ALL {
        let look = &mut |_: &[u8], value: &[u8]| {
            found |= value.windows(12).any(|part| part == b"quite-a-name");
            std::ops::ControlFlow::Continue(())
        };
        snapshot.scan(table, &[], look).unwrap();
    }
    assert!(!found);
}
