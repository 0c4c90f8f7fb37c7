//! Several secrets read as one, and what programs know them by.

use std::collections::BTreeSet;

use super::*;
use crate::model::Injection;

fn read_set(world: &World, uid: u32, names: &[&str]) -> Result<Vec<Vec<u8>>> {
    let names: BTreeSet<_> = names.iter().map(|text| name(text)).collect();
    let values = world.broker().read_set(&caller(uid), &names, ("for a test", 1024))?;
    Ok(values.values().map(|value| value.expose().to_vec()).collect())
}

#[test]
fn a_set_is_read_whole_and_each_of_it_is_on_record_with_its_purpose() {
    let world = World::new();
    world.put("app/a", b"1");
    world.put("app/b", b"2");
    assert_eq!(read_set(&world, 1000, &["app/b", "app/a"]).unwrap(), [b"1", b"2"]);
    for secret in ["app/a", "app/b"] {
        let last = world.lines(secret).pop().unwrap();
        assert_eq!((last.action, last.outcome), (Action::Read, Outcome::Allowed));
        assert_eq!(last.reason.as_deref(), Some("for a test"));
    }
}

#[test]
fn one_that_cannot_be_read_leaves_no_record_that_another_was() {
    let world = World::new();
    world.put("app/a", CANARY);
    world.put("app/z", &[b'x'; 1024]);
    world.put("app/root", CANARY);
    world.put("app/revoked", CANARY);
    let revoked = name("app/revoked");
    world.broker().set_attribute(&admin(), &revoked, "status", Some("revoked")).unwrap();
    let with = |other: &str| read_set(&world, 1000, &["app/a", other]).unwrap_err();
    assert!(matches!(with("app/root"), BrokerError::Denied));
    assert!(matches!(with("app/absent"), BrokerError::NotFound(_)));
    assert!(matches!(with("app/revoked"), BrokerError::Revoked(_)));
    assert!(matches!(with("app/z"), BrokerError::TooBig { .. }));
    assert_eq!(world.outcomes("app/a"), [(Action::Write, Outcome::Allowed)]);
    assert!(world.outcomes("app/root").contains(&(Action::Read, Outcome::Denied)));
}

#[test]
fn each_secret_of_a_set_takes_a_use_and_a_spent_binding_gives_nothing() {
    let world = World::new();
    world.put("app/key", CANARY);
    for _ in 0..2 {
        assert!(read_set(&world, 1001, &["app/key"]).is_ok());
    }
    assert!(matches!(read_set(&world, 1001, &["app/key"]), Err(BrokerError::Denied)));
}

#[test]
fn the_names_that_programs_know_a_secret_by_are_an_admin_s_and_outlive_a_restart() {
    let mut world = World::new();
    world.put("app/key", CANARY);
    world.put("app/other", CANARY);
    let set = |world: &World, uid, attribute, value| {
        world.broker().set_attribute(&caller(uid), &name("app/key"), attribute, value)
    };
    for attribute in ["env_name", "oneiric_path"] {
        let refused = set(&world, 1000, attribute, Some("LD_PRELOAD"));
        assert!(matches!(refused, Err(BrokerError::Denied)), "a writer is no admin");
    }
    set(&world, 0, "env_name", Some("API_KEY")).unwrap();
    set(&world, 0, "oneiric_path", Some("auth.secret")).unwrap();
    for (attribute, bad) in [("env_name", "a-b"), ("oneiric_path", "secrets.inline.x")] {
        let refused = set(&world, 0, attribute, Some(bad));
        assert!(matches!(refused, Err(BrokerError::Invalid(_))), "{bad}");
    }
    world.reopen().unwrap();
    let known = world.broker().known(&caller(1000), Some(&name("app"))).unwrap();
    let known: Vec<_> = known.into_iter().map(|one| (one.name, one.injection)).collect();
    let injection = Injection {
        env_name: Some("API_KEY".parse().unwrap()),
        oneiric_path: Some("auth.secret".parse().unwrap()),
    };
    assert_eq!(
        known,
        [(name("app/key"), injection.clone()), (name("app/other"), Injection::default())]
    );
    let described = world.broker().describe(&admin(), &name("app/key")).unwrap();
    assert_eq!(described.metadata.injection, injection);
    set(&world, 0, "env_name", None).unwrap();
    set(&world, 0, "oneiric_path", Some("")).unwrap();
    world.reopen().unwrap();
    let described = world.broker().describe(&admin(), &name("app/key")).unwrap();
    assert_eq!(described.metadata.injection, Injection::default());
}
