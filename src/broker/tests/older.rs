//! Secrets with more versions than a record lists.

use std::ops::ControlFlow;

use super::*;
use crate::versions::{PAGE, STEP};

/// So many that the oldest are in several pages.
const MANY: u64 = 800;

/// Returns the sizes of all entries of a table.
fn sizes(world: &World, table: Table) -> Vec<usize> {
    let mut sizes = Vec::new();
    let mut visit = |_: &[u8], sealed: &[u8]| {
        sizes.push(sealed.len());
        ControlFlow::Continue(())
    };
    world.store.snapshot().unwrap().scan(table, &[], &mut visit).unwrap();
    sizes
}

fn read(world: &World, which: Which) -> Result<Vec<u8>> {
    let opened = world.broker().read(&admin(), &name("app/key"), which)?;
    Ok(opened.value.expose().to_vec())
}

fn put(world: &World, stage: bool, value: u64) {
    let put = Put { stage, ..Put::default() };
    let value = bytes(value.to_string().as_bytes());
    world.broker().write(&admin(), &name("app/key"), value, &put).unwrap();
}

fn states(world: &World) -> Vec<(u64, &'static str)> {
    let (_, versions) = world.broker().history(&admin(), &name("app/key")).unwrap();
    versions.iter().map(|version| (version.version.0, version.state)).collect()
}

fn check_whole(world: &World, values: u64) {
    let verified = world.broker().verify(&admin(), &Progress::default()).unwrap();
    assert_eq!(verified.faults, [""; 0]);
    assert_eq!(verified.versions, values);
}

#[test]
fn every_version_stays_and_no_record_grows_with_their_number() {
    let mut world = World::new();
    (1..=MANY).for_each(|value| put(&world, false, value));
    let largest = sizes(&world, Table::Records).into_iter().max().unwrap();
    // Versions of at most 40 bytes each, beside the name and the metadata.
    assert!(largest < 2 * STEP * 40 + 200, "{largest}");
    assert_eq!(sizes(&world, Table::Records).len(), 1, "a start reads no page");
    world.reopen().unwrap();
    let borders = [1, 4, 5, 8].map(|pages| pages * PAGE as u64);
    for version in
        borders.into_iter().flat_map(|border| border - 1..border + 4).chain([1, 2, MANY - 1, MANY])
    {
        let value = read(&world, Which::Number(Version(version))).unwrap();
        assert_eq!(value, version.to_string().as_bytes());
    }
    assert!(read(&world, Which::Number(Version(MANY + 1))).is_err());
    assert!(read(&world, Which::Number(Version(0))).is_err());
    let previous = |version| if version == MANY { "current" } else { "previous" };
    assert!(states(&world).into_iter().eq((1..=MANY).map(|version| (version, previous(version)))));
    check_whole(&world, MANY);
}

#[test]
fn a_secret_with_many_versions_is_destroyed_with_all_of_them() {
    let world = World::new();
    (1..=MANY).for_each(|value| put(&world, false, value));
    world.broker().remove(&admin(), &name("app/key")).unwrap();
    let trashed = world.broker().trash(&admin()).unwrap();
    world.broker().destroy(&admin(), trashed[0].id).unwrap();
    for table in Table::SEALED {
        assert_eq!(sizes(&world, table), [0; 0], "{table:?}");
    }
    check_whole(&world, 0);
}

#[test]
fn a_page_that_is_gone_is_told_and_takes_no_other_version_with_it() {
    let world = World::new();
    (1..=MANY).for_each(|value| put(&world, false, value));
    let (id, mut first) = (name("app/key"), Vec::new());
    let mut visit = |key: &[u8], _: &[u8]| {
        first.extend_from_slice(key);
        ControlFlow::Continue(())
    };
    world.store.snapshot().unwrap().scan(Table::Records, &[], &mut visit).unwrap();
    // Under the id of its secret, the first half complemented.
    first[..8].iter_mut().for_each(|byte| *byte = !*byte);
    let mut txn = world.store.begin().unwrap();
    assert!(txn.delete(Table::Pages, &first).unwrap().is_some());
    txn.commit().unwrap();
    let damaged = |result| matches!(result, Err(BrokerError::Store(StoreError::Damaged(_))));
    assert!(damaged(read(&world, Which::Number(Version(3))).map(drop)));
    assert!(damaged(world.broker().history(&admin(), &id).map(drop)));
    assert_eq!(read(&world, Which::Number(Version(MANY - 1))).unwrap(), b"799");
    assert_eq!(read(&world, Which::Current).unwrap(), b"800");
    assert!(!world.broker().verify(&admin(), &Progress::default()).unwrap().faults.is_empty());
}

/// A long life, against a list of what should be there.
#[test]
fn whatever_is_published_staged_and_let_go_the_states_are_those_of_a_plain_list() {
    let mut world = World::new();
    let mut list: Vec<(u64, &str)> = Vec::new();
    put(&world, false, 1);
    list.push((1, "current"));
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for step in 2..=2_400 {
        // Xorshift: Marsaglia, "Xorshift RNGs", 2003.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        // From here on, values are let go: first all but many, then all but what a page that is not full holds, then all
        // but few, then none again.
        let keep = match step {
            900 => Some(Some(300)),
            1_200 => Some(Some(40)),
            1_500 => Some(Some(20)),
            1_800 => Some(Some(3)),
            2_100 => Some(None),
            _ => None,
        };
        if let Some(keep) = keep {
            world.limits.keep_versions = keep;
            world.reopen().unwrap();
        }
        // Long runs of staged versions that are given up lie between those that were published.
        let stage =
            if step / 300 % 2 == 0 { random.is_multiple_of(8) } else { !random.is_multiple_of(64) };
        put(&world, stage, step);
        if stage {
            list.iter_mut().filter(|it| it.1 == "pending").for_each(|it| it.1 = "destroyed");
            list.push((step, "pending"));
        } else {
            list.iter_mut().filter(|it| it.1 == "current").for_each(|it| it.1 = "previous");
            list.push((step, "current"));
            if let Some(keep) = world.limits.keep_versions {
                let surplus = list.iter().filter(|it| it.1 == "previous").count();
                let surplus = surplus.saturating_sub(keep as usize);
                let oldest = list.iter_mut().filter(|it| it.1 == "previous").take(surplus);
                oldest.for_each(|it| it.1 = "destroyed");
            }
        }
        if step % 300 == 0 {
            assert_eq!(states(&world), list, "after {step}");
            let kept = list.iter().filter(|it| it.1 != "destroyed");
            check_whole(&world, kept.count() as u64);
            for (version, state) in list.iter().step_by(13) {
                let found = read(&world, Which::Number(Version(*version)));
                assert_eq!(found.is_ok(), matches!(*state, "current" | "previous"), "{version}");
            }
        }
    }
}
