//! Quarantines and the clock: what it shows lets nobody in early.

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn held(lasting: Duration) -> World {
    let world = World::new();
    world.put("app/key", CANARY);
    hold(&world, lasting);
    world
}

fn hold(world: &World, lasting: Duration) {
    world.broker().quarantine(None, Uid(1000), lasting, ("a test", None)).unwrap();
}

fn reads(world: &World) -> bool {
    world.read(1000, "app/key").is_ok()
}

#[test]
fn a_quarantine_ends_to_the_second_and_a_clock_that_is_set_back_prolongs_none() {
    let world = held(HOUR);
    world.clock.set(1_700_000_000);
    world.clock.advance(HOUR - Duration::from_secs(1));
    assert!(!reads(&world));
    world.clock.advance(Duration::from_secs(1));
    assert!(reads(&world));
    assert!(world.broker().end_quarantines().unwrap());
    assert!(world.broker().quarantines().is_empty());
}

#[test]
fn of_two_the_one_that_lasts_longer_holds_though_the_clock_was_set_back_in_between() {
    let world = held(HOUR);
    world.clock.set(1_700_000_000);
    hold(&world, HOUR * 24);
    world.clock.advance(HOUR * 2);
    world.broker().end_quarantines().unwrap();
    assert!(!reads(&world));
    hold(&world, HOUR);
    world.clock.advance(HOUR * 2);
    assert!(!reads(&world), "a shorter one takes nothing from it");
    world.clock.advance(HOUR * 20);
    assert!(reads(&world));
}

#[test]
fn after_a_boot_a_clock_that_shows_an_earlier_time_lets_nobody_out() {
    let mut world = held(HOUR);
    let kept = world.broker().quarantines();
    world.clock.reboot();
    world.clock.set(5);
    world.reopen().unwrap();
    world.broker().resume_quarantines(kept);
    assert!(!reads(&world));
    world.clock.set(1_800_003_600);
    assert!(reads(&world), "its time is over");
}
