//! Parts of the tree that another service keeps: what is asked of it and when, what is served meanwhile, and
//! what a failure of it means.

mod routed;

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use routed::mount::Mounted;
use routed::service::{Endless, Failure, Service};
use routed::{FRESH, STALE, World, admin, eventually, name};
use secretfs::audit::{Action, Outcome};
use secretfs::broker::{BrokerError, Fault, Found, Put, Replace, Sought};
use secretfs::model::{Caller, Gid, Uid};

const SECOND: Duration = Duration::from_secs(1);

fn secret(text: &str) -> Sought {
    Sought::Secret(name(text))
}

#[test]
fn what_was_fetched_once_is_served_from_here_while_it_is_fresh() {
    let world = World::new();
    world.service.set("key", b"canary-7f3a");
    assert_eq!(world.read("cloud/key").unwrap(), b"canary-7f3a");
    world.pass(FRESH);
    world.service.set("key", b"another");
    for _ in 0..10 {
        assert_eq!(world.read("cloud/key").unwrap(), b"canary-7f3a");
    }
    assert_eq!(world.service.all_calls(), 1);
}

#[test]
fn a_caller_without_a_right_causes_no_request_and_learns_nothing() {
    let world = World::new();
    world.service.set("app/key", b"v");
    world.service.set("other", b"v");
    for secret in ["cloud/app/key", "cloud/other", "cloud/none"] {
        let denied = world.read_as(1001, secret).unwrap_err();
        assert!(matches!(denied, BrokerError::Denied), "{denied}");
        let caller = Caller::with_ids(Uid(1001), Gid(1001));
        assert!(matches!(world.broker.look(&caller, &name(secret)), Err(BrokerError::Denied)));
    }
    assert!(matches!(world.read_as(1000, "cloud/other"), Err(BrokerError::Denied)));
    assert_eq!(world.service.all_calls(), 0);
    assert_eq!(world.read_as(1000, "cloud/app/key").unwrap(), b"v");
}

#[test]
fn a_thousand_who_wait_for_one_secret_make_one_request() {
    let world = World::new();
    world.service.set("key", b"v");
    world.service.hold();
    let landed = Arc::new(AtomicUsize::new(0));
    for _ in 0..1000 {
        let landed = Arc::clone(&landed);
        let done = move || {
            landed.fetch_add(1, Ordering::SeqCst);
        };
        world.broker.fetch_then(&secret("cloud/key"), Box::new(done));
    }
    world.service.let_go();
    eventually("all are called", || landed.load(Ordering::SeqCst) == 1000);
    assert_eq!(world.service.all_calls(), 1);
}

#[test]
fn a_thousand_readers_on_a_mount_make_one_request() {
    let Some(mounted) = Mounted::new(World::new()) else { return };
    mounted.world.service.set("key", b"canary-7f3a");
    mounted.world.service.hold();
    let path = mounted.path("cloud/key");
    std::thread::scope(|scope| {
        let read = || assert_eq!(std::fs::read(&path).unwrap(), b"canary-7f3a");
        let readers: Vec<_> = (0..1000)
            .map(|_| std::thread::Builder::new().stack_size(64 << 10).spawn_scoped(scope, read))
            .collect();
        eventually("the request is made", || mounted.world.service.all_calls() == 1);
        mounted.world.service.let_go();
        readers.into_iter().for_each(|reader| reader.unwrap().join().unwrap());
    });
    assert_eq!(mounted.world.service.all_calls(), 1);
    assert_eq!(mounted.world.lines(Action::Read).len(), 1000);
}

#[test]
fn what_is_stale_is_served_at_once_and_fetched_behind_the_readers_back() {
    let world = World::new();
    world.service.set("key", b"old");
    world.read("cloud/key").unwrap();
    world.service.set("key", b"new");
    world.pass(FRESH + SECOND);
    world.service.hold();
    assert_eq!(world.read("cloud/key").unwrap(), b"old");
    world.service.let_go();
    eventually("it is fetched", || world.read("cloud/key").unwrap() == b"new");
    assert_eq!(world.service.calls("get"), 2);
}

#[test]
fn what_is_too_old_is_not_served() {
    let world = World::new();
    world.service.set("key", b"v");
    world.read("cloud/key").unwrap();
    world.service.fail(Some(Failure::Down));
    world.pass(FRESH + STALE);
    assert_eq!(world.read("cloud/key").unwrap(), b"v");
    world.pass(SECOND);
    let refused = world.read("cloud/key").unwrap_err();
    assert!(matches!(&refused, BrokerError::Upstream(error) if error.fault == Fault::Unreachable));
    assert_eq!(world.lines(Action::Read).last().unwrap().outcome, Outcome::Failed);
}

#[test]
fn a_refresh_comes_before_a_copy_is_stale_and_readers_never_wait() {
    let world = World::new();
    world.service.set("key", b"v");
    world.read("cloud/key").unwrap();
    world.turn();
    for _ in 0..20 {
        world.pass(FRESH / 4);
        world.turn();
        let calls = world.service.all_calls();
        assert_eq!(world.read("cloud/key").unwrap(), b"v");
        assert_eq!(world.service.all_calls(), calls, "a reader made a request");
    }
    assert!(world.service.calls("get") > 5);
    assert_eq!(world.routes.states()[0].stale_reads, 0);
}

#[test]
fn prefetching_shows_in_listings_what_nobody_has_asked_for() {
    let service = Service::new();
    for secret in ["a", "b/c", "b/d", "e", "f", "not a name"] {
        service.set(secret, secret.as_bytes());
    }
    let world = World::prefetching(service);
    world.turn();
    assert_eq!(world.list("cloud"), ["a", "b", "e", "f"]);
    assert_eq!(world.list("cloud/b"), ["c", "d"]);
    let calls = world.service.all_calls();
    assert_eq!(world.read("cloud/b/c").unwrap(), b"b/c");
    assert_eq!(world.service.all_calls(), calls);
    world.service.unset("a");
    world.service.set("g", b"g");
    world.pass(FRESH);
    world.turn();
    assert_eq!(world.list("cloud"), ["b", "e", "f", "g"]);
}

#[test]
fn a_directory_of_the_service_is_one_although_nothing_of_it_was_fetched() {
    let world = World::new();
    world.service.set("a/b/key", b"v");
    for path in ["cloud", "cloud/a", "cloud/a/b"] {
        let found = loop {
            match world.broker.look(&admin(), &name(path)) {
                Err(BrokerError::Elsewhere(sought)) => {
                    world.broker.fetch(&sought, routed::LONG).unwrap()
                }
                found => break found.unwrap(),
            }
        };
        assert!(matches!(found, Found::Directory(_)), "{path}");
        assert!(world.list(path).is_empty() || path == "cloud");
    }
    assert_eq!(world.service.calls("list"), 1);
    assert_eq!(world.read("cloud/a/b/key").unwrap(), b"v");
    assert!(matches!(world.read("cloud/a/none"), Err(BrokerError::NotFound(_))));
}

#[test]
fn where_nothing_can_be_listed_what_is_no_secret_is_a_directory() {
    let service = Service::new();
    service.set("a/key", b"v");
    service.deny_lists();
    let Some(mounted) = Mounted::new(World::with(service, true)) else { return };
    mounted.world.turn();
    assert_eq!(mounted.read("cloud/a/key").unwrap(), b"v");
    assert!(std::fs::metadata(mounted.path("cloud/a")).unwrap().is_dir());
    assert_eq!(mounted.world.service.calls("list"), 1, "that it is denied is remembered");
}

#[test]
fn that_there_is_none_is_remembered_for_a_moment() {
    let world = World::new();
    for _ in 0..10 {
        assert!(matches!(world.read("cloud/key"), Err(BrokerError::NotFound(_))));
    }
    assert_eq!(world.service.calls("get"), 1);
    world.service.set("key", b"v");
    world.pass(Duration::from_secs(11));
    assert_eq!(world.read("cloud/key").unwrap(), b"v");
}

#[test]
fn reads_go_on_while_the_service_is_down_also_after_a_restart_and_one_refresh_makes_all_fresh() {
    let service = Service::new();
    for number in 0..20 {
        service.set(&format!("key{number}"), b"old");
    }
    let mut world = World::prefetching(service);
    world.turn();
    world.service.fail(Some(Failure::Down));
    let all_served = |world: &World| {
        (0..20).for_each(|number| {
            assert_eq!(world.read(&format!("cloud/key{number}")).unwrap(), b"old");
        });
    };
    for minute in 0..10 {
        world.pass(Duration::from_secs(60));
        world.turn();
        all_served(&world);
        if minute == 4 {
            world.restart();
            all_served(&world);
        }
    }
    assert!(world.routes.states()[0].down.is_some());
    world.service.fail(None);
    (0..20).for_each(|number| world.service.set(&format!("key{number}"), b"new"));
    world.pass(Duration::from_secs(60));
    world.turn();
    assert!((0..20).all(|number| world.read(&format!("cloud/key{number}")).unwrap() == b"new"));
    assert_eq!(world.routes.states()[0].down, None);
    assert_eq!(world.routes.states()[0].oldest, Duration::ZERO);
}

#[test]
fn how_long_a_copy_may_still_be_served_is_known_after_a_restart() {
    let mut world = World::new();
    world.service.set("key", b"v");
    world.read("cloud/key").unwrap();
    world.pass(FRESH);
    world.turn();
    world.service.fail(Some(Failure::Down));
    // Counted from the refresh, which made no version.
    world.pass(STALE + FRESH);
    world.restart();
    assert_eq!(world.read("cloud/key").unwrap(), b"v");
    world.pass(SECOND);
    world.restart();
    assert!(world.read("cloud/key").is_err());
}

#[test]
fn a_clock_that_is_set_back_makes_no_copy_fresh_for_longer() {
    let world = World::new();
    world.service.set("key", b"old");
    world.read("cloud/key").unwrap();
    world.service.set("key", b"new");
    world.clock.set(1_700_000_000);
    assert_eq!(world.read("cloud/key").unwrap(), b"old");
    eventually("it is fetched", || world.read("cloud/key").unwrap() == b"new");
    let calls = world.service.all_calls();
    assert_eq!(world.read("cloud/key").unwrap(), b"new");
    assert_eq!(world.service.all_calls(), calls, "it is fresh now");
}

#[test]
fn each_failure_has_its_errno_and_what_is_here_is_served_all_the_while() {
    let Some(mounted) = Mounted::new(World::new()) else { return };
    let world = &mounted.world;
    let table = [
        (Failure::Denied, libc::EACCES),
        (Failure::Down, libc::EHOSTUNREACH),
        (Failure::Failed, libc::EHOSTUNREACH),
        (Failure::NotFound, libc::ENOENT),
        (Failure::Slow, libc::ETIMEDOUT),
        (Failure::Throttled, libc::EHOSTUNREACH),
        (Failure::Unauthenticated, libc::EKEYREJECTED),
    ];
    for (failure, errno) in table {
        let [cold, fresh, stale] =
            ["cold", "fresh", "stale"].map(|state| format!("{failure:?}-{state}"));
        [&cold, &fresh, &stale].iter().for_each(|secret| world.service.set(secret, b"v"));
        let at = |secret: &str| format!("cloud/{secret}");
        mounted.read(&at(&stale)).unwrap();
        world.pass(FRESH + SECOND);
        mounted.read(&at(&fresh)).unwrap();
        world.service.fail(Some(failure));
        for _ in 0..5 {
            assert_eq!(mounted.read(&at(&cold)).unwrap_err(), errno, "{failure:?}");
            assert_eq!(mounted.read(&at(&fresh)).unwrap(), b"v", "{failure:?}");
        }
        if failure != Failure::NotFound {
            assert_eq!(mounted.read(&at(&stale)).unwrap(), b"v", "{failure:?}");
        }
        world.service.fail(None);
        world.pass(Duration::from_secs(120));
        assert_eq!(mounted.read(&at(&cold)).unwrap(), b"v", "{failure:?}");
    }
}

#[test]
fn a_service_that_is_down_is_left_alone_and_its_going_and_coming_are_on_record() {
    let world = World::new();
    world.service.fail(Some(Failure::Down));
    for number in 0..50 {
        assert!(world.read(&format!("cloud/key{number}")).is_err());
    }
    assert_eq!(world.service.all_calls(), 3);
    let states = world.routes.states();
    assert!(states[0].down.is_some() && states[0].failures == 3);
    world.service.fail(None);
    world.service.set("key", b"v");
    world.pass(Duration::from_secs(60));
    assert_eq!(world.read("cloud/key").unwrap(), b"v");
    let outcomes: Vec<_> =
        world.lines(Action::BackendConnection).iter().map(|line| line.outcome).collect();
    assert_eq!(outcomes, [Outcome::Failed, Outcome::Allowed]);
}

#[test]
fn a_service_that_asks_for_rest_gets_it() {
    let world = World::new();
    world.service.fail(Some(Failure::Throttled));
    world.read("cloud/a").unwrap_err();
    world.service.fail(None);
    world.service.set("a", b"v");
    world.pass(Duration::from_secs(19));
    assert!(world.read("cloud/a").is_err());
    assert_eq!(world.service.all_calls(), 1);
    // What it has asked for, and no more than a quarter on top.
    world.pass(Duration::from_secs(6));
    assert_eq!(world.read("cloud/a").unwrap(), b"v");
}

#[test]
fn watchers_are_told_of_a_version_that_was_made_there() {
    let Some(mounted) = Mounted::new(World::new()) else { return };
    let world = &mounted.world;
    world.service.set("key", b"old");
    mounted.read("cloud/key").unwrap();
    world.pass(FRESH);
    world.turn();
    assert!(mounted.touched.0.lock().is_empty(), "nothing has changed");
    world.service.set("key", b"new");
    world.pass(FRESH);
    world.turn();
    assert_eq!(*mounted.touched.0.lock(), ["cloud/key"]);
    assert_eq!(mounted.read("cloud/key@previous").unwrap(), b"old");
}

#[test]
fn how_long_a_secret_has_been_stale_is_an_attribute() {
    let Some(mounted) = Mounted::new(World::new()) else { return };
    mounted.world.service.set("key", b"v");
    mounted.read("cloud/key").unwrap();
    let stale = || {
        let value = xattr::get(mounted.path("cloud/key"), "user.secretfs.stale_seconds").unwrap();
        value.map(|value| String::from_utf8(value).unwrap())
    };
    assert_eq!(stale(), None);
    mounted.world.service.fail(Some(Failure::Down));
    mounted.world.pass(FRESH + Duration::from_secs(42));
    assert_eq!(stale().as_deref(), Some("42"));
}

#[test]
fn a_write_is_the_services_first_and_then_ours() {
    let Some(mounted) = Mounted::new(World::new()) else { return };
    mounted.write("cloud/new", b"one");
    mounted.write("cloud/new", b"two");
    assert_eq!(mounted.world.service.value("new").unwrap(), b"two");
    let gets = mounted.world.service.calls("get");
    assert_eq!(mounted.read("cloud/new").unwrap(), b"two");
    assert_eq!(mounted.world.service.calls("get"), gets, "what was written is here");
    assert_eq!(mounted.world.lines(Action::Forward).len(), 2);
}

#[test]
fn what_the_service_refuses_fails_the_close_and_changes_nothing() {
    let Some(mounted) = Mounted::new(World::new()) else { return };
    let world = &mounted.world;
    world.service.set("key", b"old");
    mounted.read("cloud/key").unwrap();
    world.service.fail(Some(Failure::Down));
    let mut file =
        File::options().write(true).truncate(true).open(mounted.path("cloud/key")).unwrap();
    std::io::Write::write_all(&mut file, b"new").unwrap();
    let closed = nix::unistd::close(std::os::fd::OwnedFd::from(file));
    assert_eq!(closed, Err(nix::errno::Errno::EHOSTUNREACH));
    assert_eq!(mounted.read("cloud/key").unwrap(), b"old");
    assert_eq!(
        std::fs::remove_file(mounted.path("cloud/key")).unwrap_err().raw_os_error(),
        Some(libc::EHOSTUNREACH)
    );
    assert_eq!(mounted.read("cloud/key").unwrap(), b"old");
    let failed = |action| world.lines(action).iter().any(|line| line.outcome == Outcome::Failed);
    assert!(failed(Action::Write) && failed(Action::Delete));
}

#[test]
fn a_write_over_a_version_that_is_not_known_here_loses_nothing_and_one_that_expects_fails() {
    let world = World::new();
    world.service.set("key", b"one");
    world.read("cloud/key").unwrap();
    world.service.set("key", b"two");
    let expect = Put { expect: Some(secretfs::model::Version(1)), ..Put::default() };
    let conflict = world.write("cloud/key", b"three", &expect).unwrap_err();
    assert!(matches!(&conflict, BrokerError::Upstream(error) if error.fault == Fault::Conflict));
    assert_eq!(world.read("cloud/key").unwrap(), b"two", "it is looked at next");
    world.service.set("key", b"three");
    let version = world.write("cloud/key", b"four", &Put::default()).unwrap();
    assert_eq!((version.0, world.service.value("key").unwrap()), (4, b"four".to_vec()));
    let three = world.broker.read(
        &admin(),
        &name("cloud/key"),
        secretfs::broker::Which::Number(secretfs::model::Version(3)),
    );
    assert_eq!(three.unwrap().value.expose(), b"three");
}

#[test]
fn what_somebody_has_made_there_meanwhile_is_not_made_anew() {
    let world = World::new();
    assert!(world.read("cloud/key").is_err());
    world.service.set("key", b"theirs");
    let new = Put { create_new: true, ..Put::default() };
    let refused = world.write("cloud/key", b"ours", &new);
    assert!(matches!(refused, Err(BrokerError::Exists(_))), "{refused:?}");
    assert_eq!(world.read("cloud/key").unwrap(), b"theirs");
}

#[test]
fn a_request_that_comes_too_late_is_on_record_as_nobodys_read() {
    let Some(mounted) = Mounted::with_deadline(World::new(), SECOND) else { return };
    let world = &mounted.world;
    world.service.set("key", b"v");
    mounted.read("cloud/key").unwrap();
    // Too old: the name is known, and it is the open that has to wait.
    world.pass(FRESH + STALE + SECOND);
    world.service.hold();
    assert_eq!(mounted.read("cloud/key").unwrap_err(), libc::ETIMEDOUT);
    world.service.let_go();
    eventually("it is confirmed", || world.routes.states()[0].oldest.is_zero());
    // Whoever waits for the same flight now is called after the one who was late, or finds it ended.
    world.broker.fetch(&secret("cloud/key"), routed::LONG).unwrap();
    assert_eq!(world.lines(Action::Read).len(), 1);
    assert_eq!(mounted.read("cloud/key").unwrap(), b"v");
}

#[test]
fn a_removed_secret_is_gone_there_too_and_comes_back_from_there() {
    let world = World::new();
    world.service.set("key", b"v");
    world.read("cloud/key").unwrap();
    world.broker.remove(&admin(), &name("cloud/key")).unwrap();
    assert_eq!(world.service.value("key"), None);
    assert!(matches!(world.read("cloud/key"), Err(BrokerError::NotFound(_))));
    let trashed = world.broker.trash(&admin()).unwrap();
    world.broker.restore(&admin(), trashed[0].id, None).unwrap();
    assert_eq!(world.service.value("key").unwrap(), b"v");
    assert_eq!(world.read("cloud/key").unwrap(), b"v");
}

#[test]
fn a_name_that_was_removed_is_written_again_also_where_nothing_may_stand() {
    let world = World::new();
    world.service.set("key", b"v");
    world.read("cloud/key").unwrap();
    for create_new in [false, true] {
        world.broker.remove(&admin(), &name("cloud/key")).unwrap();
        let put = Put { create_new, ..Put::default() };
        world.write("cloud/key", b"again", &put).unwrap();
        assert_eq!(world.service.value("key").unwrap(), b"again");
        assert_eq!(world.read("cloud/key").unwrap(), b"again");
    }
}

#[test]
fn without_versions_there_a_new_value_is_told_by_itself() {
    let mut service = Service::new();
    service.abilities = secretfs::backend::Abilities::default();
    let world = World::with(service, false);
    world.service.set("key", b"one");
    assert_eq!(world.read("cloud/key").unwrap(), b"one");
    world.service.set("key", b"two");
    world.pass(FRESH);
    world.turn();
    assert_eq!(world.read("cloud/key").unwrap(), b"two");
    world.write("cloud/key", b"three", &Put::default()).unwrap();
    assert_eq!(world.read("cloud/key").unwrap(), b"three");
    let versions = || world.broker.history(&admin(), &name("cloud/key")).unwrap().1.len();
    assert_eq!(versions(), 3);
    world.pass(FRESH);
    world.turn();
    assert_eq!(versions(), 3, "the same value is no new version");
}

#[test]
fn what_the_service_has_lost_goes_to_the_trash_and_comes_back_as_what_it_was() {
    let world = World::new();
    world.service.set("key", b"v");
    world.read("cloud/key").unwrap();
    world.broker.set_attribute(&admin(), &name("cloud/key"), "tags", Some("kept")).unwrap();
    world.service.unset("key");
    world.pass(FRESH);
    world.turn();
    assert!(matches!(world.read("cloud/key"), Err(BrokerError::NotFound(_))));
    assert_eq!(world.broker.trash(&admin()).unwrap().len(), 1);
    world.service.set("key", b"v");
    world.pass(FRESH);
    assert_eq!(world.read("cloud/key").unwrap(), b"v");
    let described = world.broker.describe(&admin(), &name("cloud/key")).unwrap();
    assert_eq!(described.metadata.attributes.tags, ["kept".into()]);
    assert!(world.broker.trash(&admin()).unwrap().is_empty());
}

#[test]
fn a_rename_across_a_border_is_a_copy_and_one_within_is_refused() {
    let Some(mounted) = Mounted::new(World::new()) else { return };
    mounted.world.service.set("key", b"v");
    mounted.read("cloud/key").unwrap();
    mounted.write("local", b"here");
    let rename = |from: &str, to: &str| {
        let renamed = std::fs::rename(mounted.path(from), mounted.path(to));
        renamed.map_err(|error| error.raw_os_error().unwrap())
    };
    assert_eq!(rename("cloud/key", "here"), Err(libc::EXDEV));
    assert_eq!(rename("local", "cloud/local"), Err(libc::EXDEV));
    assert_eq!(rename("cloud/key", "cloud/other"), Err(libc::EOPNOTSUPP));
    assert_eq!(rename("cloud", "cloudy"), Err(libc::EBUSY));
    let rmdir = std::fs::remove_dir(mounted.path("cloud"));
    assert_eq!(rmdir.unwrap_err().raw_os_error(), Some(libc::EBUSY));
    let moved = std::process::Command::new("mv")
        .args([mounted.path("cloud/key"), mounted.path("moved")])
        .output();
    assert!(moved.unwrap().status.success());
    assert_eq!(mounted.read("moved").unwrap(), b"v");
    assert_eq!(mounted.world.service.value("key"), None);
    let why = String::from_utf8(mounted.read("cloud/key@why").unwrap()).unwrap();
    assert!(why.contains("\"vault\"") && why.contains("rename"), "{why}");
}

#[test]
fn a_service_that_restores_nothing_says_so_and_nothing_is_staged() {
    let mut service = Service::new();
    service.abilities.restore = false;
    let world = World::with(service, false);
    world.service.set("key", b"v");
    world.read("cloud/key").unwrap();
    let staged = world.write("cloud/key", b"x", &Put { stage: true, ..Put::default() });
    assert!(matches!(staged, Err(BrokerError::Unsupported(_))));
    world.broker.remove(&admin(), &name("cloud/key")).unwrap();
    let trashed = world.broker.trash(&admin()).unwrap();
    let restored = world.broker.restore(&admin(), trashed[0].id, None).unwrap_err();
    assert!(matches!(&restored, BrokerError::Upstream(error) if error.fault == Fault::Unsupported));
    let renamed = world.broker.rename(&admin(), &name("cloud/key"), &name("key"), Replace::Allowed);
    assert!(renamed.is_err());
}

#[test]
fn a_revoked_secret_that_was_gone_for_a_while_stays_revoked_until_it_has_a_new_value() {
    let world = World::new();
    world.service.set("key", b"leaked");
    world.read("cloud/key").unwrap();
    world.broker.set_attribute(&admin(), &name("cloud/key"), "status", Some("revoked")).unwrap();
    let is_revoked = || matches!(world.read("cloud/key"), Err(BrokerError::Revoked(_)));
    assert!(is_revoked());
    world.service.unset("key");
    world.pass(FRESH);
    world.turn();
    assert!(matches!(world.read("cloud/key"), Err(BrokerError::NotFound(_))));
    world.service.set("key", b"leaked");
    world.pass(FRESH);
    assert!(is_revoked(), "it is the value that was revoked");
    world.service.set("key", b"new");
    world.pass(FRESH);
    world.turn();
    assert_eq!(world.read("cloud/key").unwrap(), b"new");
}

#[test]
fn what_is_refused_without_being_asked_for_says_nothing_of_the_service() {
    let world = World::new();
    world.service.fail(Some(Failure::Down));
    for number in 0..3 {
        world.read(&format!("cloud/key{number}")).unwrap_err();
    }
    world.pass(Duration::from_secs(60));
    world.service.fail(Some(Failure::Invalid));
    let refused = world.read("cloud/key").unwrap_err();
    assert!(matches!(&refused, BrokerError::Upstream(error) if error.fault == Fault::Invalid));
    assert!(world.routes.states()[0].down.is_some(), "nobody has answered");
    world.service.fail(None);
    world.service.set("other", b"v");
    assert_eq!(world.read("cloud/other").unwrap(), b"v", "the next one tries it");
    assert!(world.routes.states()[0].down.is_none());
}

#[test]
fn a_list_without_an_end_is_given_up_and_not_begun_anew_by_each_miss() {
    for endless in [Endless::NewPages, Endless::SamePage] {
        let world = World::prefetching(Service::new());
        world.service.set("key", b"old");
        world.read("cloud/key").unwrap();
        world.service.list_without_end(Some(endless));
        assert!(matches!(world.read("cloud/none"), Err(BrokerError::NotFound(_))));
        let lists = world.service.calls("list");
        assert!(lists <= 40_000, "{lists}");
        for number in 0..5 {
            let missed = world.read(&format!("cloud/none{number}"));
            assert!(matches!(missed, Err(BrokerError::NotFound(_))));
        }
        assert_eq!(world.service.calls("list"), lists);
        // What is here is refreshed all the same.
        world.service.set("key", b"new");
        world.pass(FRESH);
        world.turn();
        assert_eq!(world.read("cloud/key").unwrap(), b"new");
    }
}

#[test]
fn who_may_only_pass_has_no_value_fetched_and_finds_the_directories() {
    let look = |world: &World, path: &str| {
        let caller = Caller::with_ids(Uid(1000), Gid(1000));
        loop {
            match world.broker.look(&caller, &name(path)) {
                Err(BrokerError::Elsewhere(sought)) => {
                    world.broker.fetch(&sought, routed::LONG).unwrap()
                }
                found => return found,
            }
        }
    };
    let world = World::new();
    world.service.set("app/key", b"v");
    assert!(matches!(look(&world, "cloud/app"), Ok(Found::Directory(_))));
    assert!(matches!(look(&world, "cloud/app/key"), Ok(Found::Secret(_))));
    assert_eq!(["get", "list"].map(|what| world.service.calls(what)), [1, 1]);
    // A secret in the place of the directory is none of theirs.
    let world = World::new();
    world.service.set("app", b"v");
    assert!(matches!(look(&world, "cloud/app"), Err(BrokerError::NotFound(_))));
    assert_eq!(["get", "list"].map(|what| world.service.calls(what)), [0, 1]);
    // Where nothing can be listed it may be one.
    let service = Service::new();
    service.set("app/key", b"v");
    service.deny_lists();
    let world = World::with(service, false);
    assert!(matches!(look(&world, "cloud/app"), Ok(Found::Directory(_))));
    let caller = Caller::with_ids(Uid(1000), Gid(1000));
    assert!(world.broker.list(&caller, Some(&name("cloud/app")), None, 9).unwrap().is_empty());
    assert_eq!(world.read_as(1000, "cloud/app/key").unwrap(), b"v");
    assert_eq!(["get", "list"].map(|what| world.service.calls(what)), [1, 1]);
    let denied = || world.lines(Action::Check).iter().any(|line| line.outcome == Outcome::Denied);
    assert!(!denied(), "what one may pass through is no refusal");
    assert!(
        world.lines(Action::Read).iter().all(|line| line.secret == Some(name("cloud/app/key")))
    );
}

#[test]
fn what_the_list_says_has_not_changed_is_not_asked_for() {
    let mut service = Service::new();
    service.tells_changes = Some(Duration::ZERO);
    (0..30).for_each(|number| service.set(&format!("key{number}"), b"old"));
    let world = World::prefetching(service);
    let gets_of_a_turn = || {
        let before = world.service.calls("get");
        world.turn();
        world.pass(FRESH);
        world.service.calls("get") - before
    };
    assert_eq!(gets_of_a_turn(), 30);
    world.service.set_at_once("key1", b"in the same second");
    assert_eq!(gets_of_a_turn(), 30, "the time of a change is not exact");
    assert_eq!(world.read("cloud/key1").unwrap(), b"in the same second");
    assert_eq!(gets_of_a_turn(), 0);
    assert_eq!(world.routes.states()[0].oldest, FRESH, "all were confirmed in that turn");
    world.service.set("key2", b"new");
    assert_eq!(gets_of_a_turn(), 1);
    assert_eq!(world.read("cloud/key2").unwrap(), b"new");
    world.write("cloud/key3", b"ours", &Put::default()).unwrap();
    world.service.unset("key4");
    assert_eq!(
        gets_of_a_turn(),
        2,
        "the second time of key2, and what is gone; what is put is fresh"
    );
    assert!(matches!(world.read("cloud/key4"), Err(BrokerError::NotFound(_))));
}

#[test]
fn a_list_that_is_behind_confirms_nothing_that_would_be_due_again() {
    for (behind, gets) in [(FRESH / 4, 0), (FRESH / 2, 5)] {
        let mut service = Service::new();
        service.tells_changes = Some(behind);
        (0..5).for_each(|number| service.set(&format!("key{number}"), b"v"));
        let world = World::prefetching(service);
        for _ in 0..2 {
            world.turn();
            world.pass(FRESH);
        }
        let before = world.service.calls("get");
        world.turn();
        assert_eq!(world.service.calls("get") - before, gets);
        let oldest = world.routes.states()[0].oldest;
        assert_eq!(oldest, if gets == 0 { behind } else { Duration::ZERO });
    }
}
