//! A start with so many secrets that a second thread builds the index.

use std::ops::ControlFlow;

use super::*;

/// Several batches, and a part of one.
const MANY: usize = 1_300;

fn world_with_many() -> World {
    let world = World::new();
    for number in 0..MANY {
        world.put(&format!("d{}/s{number}", number % 7), &vec![b'x'; 1 + number % 50]);
    }
    world
}

#[test]
fn a_start_finds_every_secret_as_it_was_left() {
    let mut world = world_with_many();
    for number in (0..MANY).step_by(100) {
        world.broker().remove(&admin(), &name(&format!("d{}/s{number}", number % 7))).unwrap();
    }
    world.broker().make_directory(&admin(), &name("empty")).unwrap();
    let look = |world: &World| {
        let of = |number: usize| {
            let path = name(&format!("d{}/s{number}", number % 7));
            match world.broker().presence(&path) {
                Ok(Found::Secret(secret)) => Some((secret.version, secret.size, secret.inode)),
                Ok(Found::Directory(_)) | Err(_) => None,
            }
        };
        let secrets: Vec<_> = (0..MANY).map(of).collect();
        let empty = world.broker().presence(&name("empty")).is_ok();
        (secrets, empty, world.broker().trash(&admin()).unwrap().len())
    };
    let before = look(&world);
    assert_eq!(before.0.iter().flatten().count(), 1_287);
    assert_eq!((before.1, before.2), (true, 13));
    world.reopen().unwrap();
    assert!(look(&world) == before);
    assert_eq!(world.read(0, "d4/s1299").unwrap(), [b'x'; 50]);
}

#[test]
fn a_record_that_does_not_open_stops_the_start_wherever_it_comes() {
    let mut world = world_with_many();
    let mut keys = Vec::new();
    let mut visit = |key: &[u8], sealed: &[u8]| {
        keys.push((key.to_vec(), sealed.to_vec()));
        ControlFlow::Continue(())
    };
    world.store.snapshot().unwrap().scan(Table::Records, &[], &mut visit).unwrap();
    world.close();
    for (key, sealed) in [0, 511, 512, 700, 1_299].map(|place| &keys[place]) {
        let put = |sealed: &[u8]| {
            let mut txn = world.store.begin().unwrap();
            txn.put(Table::Records, key, sealed).unwrap();
            txn.commit().unwrap();
        };
        let mut changed = sealed.clone();
        *changed.last_mut().unwrap() ^= 1;
        put(&changed);
        assert!(matches!(
            Broker::open(world.parts(), world.root_key()),
            Err(BrokerError::Damaged(_))
        ));
        put(sealed);
    }
    world.broker = Some(Broker::open(world.parts(), world.root_key()).unwrap());
    assert_eq!(world.read(0, "d0/s0").unwrap(), b"x");
}
