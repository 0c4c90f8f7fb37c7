//! What one uid may have of the store: secrets and directories.

use super::*;

#[test]
fn a_uid_makes_no_more_secrets_than_its_share_and_the_trash_counts_until_it_is_purged() {
    let mut world = World::new();
    world.limits = Limits { secrets_per_uid: Some(2), ..Limits::default() };
    world.reopen().unwrap();
    let make = |world: &World, uid: u32, secret: &str| {
        let made = world.broker().write(&caller(uid), &name(secret), bytes(b"v"), &Put::default());
        made.map(drop)
    };
    make(&world, 1000, "app/a").unwrap();
    make(&world, 1000, "app/b").unwrap();
    let refused = make(&world, 1000, "app/c").unwrap_err();
    assert!(matches!(refused, BrokerError::Quota { limit: 2, what: "secrets", .. }), "{refused}");
    assert_eq!(world.outcomes("app/c"), [(Action::Write, Outcome::Failed)]);
    make(&world, 1000, "app/a").unwrap();
    (0..3).for_each(|n| make(&world, 0, &format!("x/{n}")).unwrap());
    world.broker().remove(&admin(), &name("app/b")).unwrap();
    world.reopen().unwrap();
    assert!(make(&world, 1000, "app/c").is_err(), "the trash counts");
    let id = world.broker().trash(&admin()).unwrap()[0].id;
    world.broker().destroy(&admin(), id).unwrap();
    make(&world, 1000, "app/c").unwrap();
    assert!(make(&world, 1000, "app/d").is_err());
}

#[test]
fn writers_that_share_a_commit_make_no_more_than_the_share_of_their_uid() {
    let mut world = World::new();
    world.limits = Limits { secrets_per_uid: Some(5), ..Limits::default() };
    world.reopen().unwrap();
    let broker = world.broker();
    std::thread::scope(|scope| {
        for n in 0..32 {
            scope.spawn(move || {
                let secret = name(&format!("app/k{n}"));
                let made = broker.write(&caller(1000), &secret, bytes(b"v"), &Put::default());
                assert!(matches!(made, Ok(_) | Err(BrokerError::Quota { .. })), "{made:?}");
            });
        }
    });
    assert_eq!(broker.share(Uid(1000)).unwrap().secrets, 5);
    assert_eq!(broker.statistics().secrets, 5);
}

#[test]
fn a_uid_makes_no_more_directories_than_its_share_and_who_made_one_outlives_a_restart_and_a_move() {
    let mut world = World::new();
    world.limits = Limits { directories_per_uid: Some(2), ..Limits::default() };
    world.reopen().unwrap();
    let make = |world: &World, uid: u32, path: &str| {
        world.broker().make_directory(&caller(uid), &name(path))
    };
    make(&world, 1002, "tree/a").unwrap();
    make(&world, 1002, "tree/b").unwrap();
    world.broker().rename(&admin(), &name("tree/a"), &name("tree/z"), Replace::Allowed).unwrap();
    world.reopen().unwrap();
    let refused = make(&world, 1002, "tree/c").unwrap_err();
    assert!(matches!(refused, BrokerError::Quota { what: "directories", .. }), "{refused}");
    (0..3).for_each(|n| make(&world, 0, &format!("d{n}")).unwrap());
    world.broker().remove_directory(&caller(1002), &name("tree/z")).unwrap();
    make(&world, 1002, "tree/c").unwrap();
}
