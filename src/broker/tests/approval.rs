//! Grants that other admins must approve, and those that somebody takes in an emergency.

use super::lease::{QUARTER, ask, lines_of};
use super::*;
use crate::model::GrantId;
use crate::policy::Whom;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Two more admins, two readers of a guarded name, and somebody on call.
const MORE: &str = r#"
    [[role]]
    name = "keeper"
    allow = [{ names = ["root/*"], levels = ["read"] }]
    [[role]]
    name = "oncall"
    allow = [{ names = ["prod/*", "root/*"], levels = ["read"] }]
    [[binding]]
    role = "admin"
    uid = [1, 2]
    [[binding]]
    role = "keeper"
    uid = [1000, 1003]
    [[binding]]
    id = "oncall"
    role = "oncall"
    uid = [1004]
    break_glass = "10m"
    [[guard]]
    names = ["root/*"]
    levels = ["read"]
    approvers = 1
    [[guard]]
    names = ["root/both"]
    levels = ["read"]
    approvers = 2
"#;

fn world() -> World {
    let world = World::new();
    enforce(&world);
    for secret in ["root/key", "root/both", "prod/key"] {
        world.put(secret, CANARY);
    }
    world
}

fn enforce(world: &World) {
    let policy = Policy::parse(&format!("{POLICY}{MORE}"), &NumericIds).unwrap();
    world.broker().replace_policy(None, policy).unwrap();
}

/// An ask for oneself.
fn own(names: &str) -> Ask {
    Ask { whom: Whom::default(), ..ask(names, 0) }
}

fn asked(world: &World, uid: u32, ask: Ask) -> Granted {
    world.broker().grant(&caller(uid), ask).unwrap()
}

fn approve(world: &World, uid: u32, id: GrantId) -> Result<Granted> {
    world.broker().approve_grant(&caller(uid), id)
}

#[test]
fn a_guarded_name_opens_to_nobody_until_another_admin_approves() {
    let world = world();
    for uid in [0, 1, 1000] {
        assert!(matches!(world.read(uid, "root/key"), Err(BrokerError::Denied)), "{uid}");
    }
    let request = asked(&world, 1000, own("root/key"));
    assert_eq!(request.state, "waiting");
    assert!(matches!(world.read(1000, "root/key"), Err(BrokerError::Denied)));
    assert_eq!(approve(&world, 0, request.id).unwrap().state, "in force");
    assert_eq!(world.read(1000, "root/key").unwrap(), CANARY);
    assert!(matches!(world.read(1003, "root/key"), Err(BrokerError::Denied)));
    world.clock.advance(QUARTER);
    assert!(matches!(world.read(1000, "root/key"), Err(BrokerError::Denied)));
}

#[test]
fn neither_who_asks_nor_who_gets_it_approves_and_nobody_twice() {
    let world = world();
    let for_oneself = asked(&world, 0, own("root/key")).id;
    assert!(matches!(approve(&world, 0, for_oneself), Err(BrokerError::Refused(_))));
    let for_another = asked(&world, 0, ask("root/key", 1)).id;
    for uid in [0, 1] {
        assert!(matches!(approve(&world, uid, for_another), Err(BrokerError::Refused(_))));
    }
    assert!(matches!(approve(&world, 1000, for_another), Err(BrokerError::Refused(_))));
    let by_two = asked(&world, 1000, own("root/both")).id;
    assert_eq!(approve(&world, 0, by_two).unwrap().state, "waiting");
    assert!(matches!(approve(&world, 0, by_two), Err(BrokerError::Invalid(_))));
    assert_eq!(approve(&world, 1, by_two).unwrap().state, "in force");
    let refused = lines_of(&world, Action::GrantApprove);
    assert_eq!(refused.iter().filter(|line| line.outcome == Outcome::Denied).count(), 4);
}

#[test]
fn a_grant_over_a_pattern_opens_no_guarded_name() {
    let world = world();
    let given = asked(&world, 0, ask("**", 1003));
    assert_eq!(given.state, "in force");
    assert!(world.read(1003, "prod/key").is_ok());
    assert!(matches!(world.read(1003, "root/key"), Err(BrokerError::Denied)));
}

#[test]
fn who_has_no_rule_for_a_name_cannot_even_ask() {
    let world = world();
    let stranger = world.broker().grant(&caller(1001), own("root/key"));
    assert!(matches!(stranger, Err(BrokerError::Denied)));
    let more = Ask { levels: [Level::Read, Level::Write].into_iter().collect(), ..own("root/key") };
    assert!(matches!(world.broker().grant(&caller(1000), more), Err(BrokerError::Denied)));
    let for_another = world.broker().grant(&caller(1000), ask("root/key", 1003));
    assert!(matches!(for_another, Err(BrokerError::Refused(_))));
    assert!(world.broker().grants(&admin()).unwrap().is_empty());
}

#[test]
fn a_request_waits_over_a_restart_and_not_for_ever() {
    let mut world = world();
    let id = asked(&world, 1000, own("root/key")).id;
    world.reopen().unwrap();
    enforce(&world);
    assert_eq!(world.broker().grants(&caller(1000)).unwrap()[0].state, "waiting");
    world.clock.advance(DAY);
    assert!(matches!(approve(&world, 0, id), Err(BrokerError::Invalid(_))));
    assert_eq!(world.broker().end_grants().unwrap(), 1);
    let ended = lines_of(&world, Action::GrantEnd);
    assert_eq!(ended[0].reason.as_deref(), Some("nobody has approved it in time"));
}

#[test]
fn an_approved_grant_lasts_from_its_approval_over_a_restart_and_no_longer() {
    let mut world = world();
    let id = asked(&world, 1000, own("root/key")).id;
    world.clock.advance(DAY / 2);
    approve(&world, 0, id).unwrap();
    world.reopen().unwrap();
    enforce(&world);
    world.clock.advance(QUARTER - Duration::from_secs(1));
    assert!(world.read(1000, "root/key").is_ok());
    world.clock.advance(Duration::from_secs(1));
    assert!(matches!(world.read(1000, "root/key"), Err(BrokerError::Denied)));
}

#[test]
fn who_has_asked_may_take_it_back_and_another_may_not() {
    let world = world();
    let id = asked(&world, 1000, own("root/key")).id;
    let another = world.broker().revoke_grant(&caller(1003), id);
    assert!(matches!(another, Err(BrokerError::Refused(_))));
    world.broker().revoke_grant(&caller(1000), id).unwrap();
    assert!(world.broker().grants(&admin()).unwrap().is_empty());
}

#[test]
fn one_user_does_not_fill_the_list_with_requests() {
    let world = world();
    let fill = || (0..100).map(|_| world.broker().grant(&caller(1000), own("root/key")));
    assert_eq!(fill().filter(|outcome| outcome.is_ok()).count(), 20);
    asked(&world, 1003, own("root/key"));
    asked(&world, 0, ask("root/key", 1000));
}

#[test]
fn requests_that_share_a_commit_are_no_more_than_those_of_one_user_may_be() {
    let world = world();
    let given = std::thread::scope(|scope| {
        let ask = || world.broker().grant(&caller(1000), own("root/key")).is_ok();
        let asking: Vec<_> = (0..64).map(|_| scope.spawn(ask)).collect();
        asking.into_iter().filter_map(|asking| asking.join().unwrap().then_some(())).count()
    });
    assert_eq!(given, 20);
    assert_eq!(world.broker().grants(&admin()).unwrap().len(), 20);
}

#[test]
fn in_an_emergency_somebody_takes_what_the_policy_offers_for_a_time_and_it_is_marked() {
    let world = world();
    assert!(matches!(world.read(1004, "prod/key"), Err(BrokerError::Denied)));
    let taking = || Ask { break_glass: true, lasting: None, ..own("prod/key") };
    let taken = asked(&world, 1004, taking());
    assert_eq!((taken.seconds, taken.break_glass.as_deref()), (600, Some("oncall")));
    assert_eq!(world.read(1004, "prod/key").unwrap(), CANARY);
    let marked = lines_of(&world, Action::BreakGlass);
    assert_eq!(marked[0].reason.as_deref(), Some("incident 42"));
    assert_eq!(marked[0].rule.as_deref(), Some("oncall"));
    assert_eq!(marked[0].secret, Some(name("prod/key")));
    world.clock.advance(Duration::from_secs(600));
    assert!(matches!(world.read(1004, "prod/key"), Err(BrokerError::Denied)));
    let longer = Ask { lasting: Some(DAY), ..taking() };
    assert_eq!(asked(&world, 1004, longer).seconds, 600, "no longer than the policy says");
}

#[test]
fn nobody_takes_more_than_the_policy_offers_or_without_a_reason() {
    let world = world();
    let taking = |names: &str| Ask { break_glass: true, ..own(names) };
    let take = |uid: u32, ask: Ask| world.broker().grant(&caller(uid), ask).unwrap_err();
    assert!(matches!(take(1004, taking("app/key")), BrokerError::Denied));
    assert!(matches!(take(1000, taking("prod/key")), BrokerError::Denied));
    assert!(matches!(take(1004, taking("root/key")), BrokerError::Denied), "it is guarded");
    let write = Ask { levels: [Level::Write].into_iter().collect(), ..taking("prod/key") };
    assert!(matches!(take(1004, write), BrokerError::Denied));
    assert!(matches!(take(1004, taking("prod/*")), BrokerError::Invalid(_)));
    let silent = Ask { reason: "".into(), ..taking("prod/key") };
    assert!(matches!(take(1004, silent), BrokerError::Invalid(_)));
    let for_another = Ask { break_glass: true, ..ask("prod/key", 1000) };
    assert!(matches!(take(1004, for_another), BrokerError::Invalid(_)));
    let refused = lines_of(&world, Action::BreakGlass);
    assert_eq!(refused.iter().filter(|line| line.outcome == Outcome::Denied).count(), 4);
}

#[test]
fn nobody_moves_a_secret_out_of_its_guard() {
    let world = world();
    let policy = format!(
        "{POLICY}{MORE}[[role]]\nname = \"mover\"\n\
         allow = [{{ names = [\"root/*\", \"open/*\"], levels = [\"write\", \"delete\"] }}]\n\
         [[binding]]\nrole = \"mover\"\nuid = [1005]\n"
    );
    world.broker().replace_policy(None, Policy::parse(&policy, &NumericIds).unwrap()).unwrap();
    let rename = |uid, to: &str| {
        world.broker().rename(&caller(uid), &name("root/key"), &name(to), Replace::Refused)
    };
    for uid in [0, 1005] {
        assert!(matches!(rename(uid, "open/key"), Err(BrokerError::Denied)), "{uid}");
    }
    rename(1005, "root/other").unwrap();
    let line = world.lines("root/key").pop().unwrap();
    assert_eq!(line.outcome, Outcome::Allowed);
}
