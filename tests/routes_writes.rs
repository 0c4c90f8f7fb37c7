//! Writes to what another service keeps: in whose order, by when, and over what.

mod routed;

use std::time::{Duration, Instant};

use routed::service::{Failure, Service};
use routed::{World, admin, eventually, name};
use secretfs::backend::Abilities;
use secretfs::broker::{BrokerError, Fault, Put, Which};
use secretfs::model::Version;

#[test]
fn two_writers_at_once_have_the_services_order_here_too() {
    for compares in [true, false] {
        let mut service = Service::new();
        service.abilities.compare_and_set = compares;
        let world = World::patient(service);
        let broker = world.broker.clone();
        // The first writer hears late of what the service has done: once the second one is done, or had time to be.
        world.service.after_put(move |value| {
            let start = Instant::now();
            let is_second_here = || broker.current_version(&name("cloud/key")).is_some();
            while value == b"first"
                && start.elapsed() < Duration::from_millis(300)
                && !is_second_here()
            {
                std::thread::yield_now();
            }
        });
        std::thread::scope(|scope| {
            let first = scope.spawn(|| world.write("cloud/key", b"first", &Put::default()));
            eventually("the first is there", || world.service.value("key").is_some());
            world.write("cloud/key", b"second", &Put::default()).unwrap();
            first.join().unwrap().unwrap();
        });
        let theirs = world.service.value("key").unwrap();
        assert_eq!(world.read("cloud/key").unwrap(), theirs, "compares: {compares}");
        assert_eq!(world.broker.current_version(&name("cloud/key")).unwrap().0, 2);
    }
}

#[test]
fn many_writers_at_once_leave_the_services_history_here() {
    let world = World::patient(Service::new());
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let world = &world;
            scope.spawn(move || {
                for number in 0..10 {
                    let value = format!("{writer} {number}");
                    world.write("cloud/key", value.as_bytes(), &Put::default()).unwrap();
                }
            });
        }
    });
    let theirs = world.service.history("key");
    assert_eq!(theirs.len(), 80);
    for (number, value) in (1..).zip(theirs) {
        let which = Which::Number(Version(number));
        let here = world.broker.read(&admin(), &name("cloud/key"), which).unwrap();
        assert_eq!(here.value.expose(), value, "version {number}");
    }
}

#[test]
fn a_write_as_a_whole_has_one_deadline() {
    let world = World::new();
    world.service.set("key", b"one");
    world.read("cloud/key").unwrap();
    world.service.set("key", b"two");
    world.service.fail(Some(Failure::Late));
    let late = world.write("cloud/key", b"three", &Put::default()).unwrap_err();
    assert!(
        matches!(&late, BrokerError::Upstream(error) if error.fault == Fault::TimedOut),
        "{late}"
    );
    let calls = ["get", "put"].map(|what| world.service.calls(what));
    assert_eq!(calls, [1, 1], "nothing more is asked once it is over");
}

#[test]
fn what_a_service_can_do_is_asked_and_not_guessed() {
    let world = World::new();
    world.service.set("key", b"theirs");
    world.service.keep_abilities_secret(true);
    let new = Put { create_new: true, ..Put::default() };
    let refused = world.write("cloud/key", b"ours", &new).unwrap_err();
    assert!(matches!(&refused, BrokerError::Upstream(error) if error.fault == Fault::Unreachable));
    assert_eq!(world.service.all_calls(), 0);
    world.service.keep_abilities_secret(false);
    let refused = world.write("cloud/key", b"ours", &new);
    assert!(matches!(refused, Err(BrokerError::Exists(_))), "{refused:?}");
    assert_eq!(world.service.value("key").unwrap(), b"theirs");
}

#[test]
fn where_the_service_cannot_compare_it_is_looked_at_right_before() {
    let mut service = Service::new();
    service.abilities = Abilities::default();
    let world = World::with(service, false);
    world.service.set("key", b"theirs");
    let new = Put { create_new: true, ..Put::default() };
    let refused = world.write("cloud/key", b"ours", &new);
    assert!(matches!(refused, Err(BrokerError::Exists(_))), "{refused:?}");
    assert_eq!(world.read("cloud/key").unwrap(), b"theirs");
    world.service.set("key", b"theirs too");
    let expect = Put { expect: Some(Version(1)), ..Put::default() };
    let conflict = world.write("cloud/key", b"ours", &expect).unwrap_err();
    assert!(matches!(&conflict, BrokerError::Upstream(error) if error.fault == Fault::Conflict));
    assert_eq!(world.read("cloud/key").unwrap(), b"theirs too");
    assert_eq!(world.service.calls("put"), 0);
    let expect = Put { expect: Some(Version(2)), ..Put::default() };
    world.write("cloud/key", b"ours", &expect).unwrap();
    world.write("cloud/new", b"ours", &new).unwrap();
    assert_eq!(world.service.value("key").unwrap(), b"ours");
}
