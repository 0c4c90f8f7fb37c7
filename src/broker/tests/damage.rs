//! Commits that fail, logs that are gone, records and stores that are older than they should be; new keys and backups.

use super::*;

#[test]
fn a_failed_commit_is_an_error_and_what_is_on_disk_decides_what_it_was_worth() {
    for (outcome, expected) in [(FailedCommit::Applied, "new"), (FailedCommit::Lost, "old")] {
        let world = World::new();
        world.put("app/key", b"old");
        world.store.fail_next_commit(outcome);
        let failed =
            world.broker().write(&admin(), &name("app/key"), bytes(b"new"), &Put::default());
        assert!(matches!(failed, Err(BrokerError::Store(_))));
        assert_eq!(world.read(0, "app/key").unwrap(), expected.as_bytes());
        assert!(world.lines("app/key").iter().any(|entry| entry.outcome == Outcome::Failed));
        world.put("app/key", b"newer");
        assert!(world.broker().verify(&admin(), &Progress::default()).unwrap().faults.is_empty());
    }
}

#[test]
fn nothing_opens_or_commits_when_the_log_is_gone() {
    let world = World::new();
    world.put("app/key", CANARY);
    let audit = world.directory.path().join("audit");
    for entry in std::fs::read_dir(&audit).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    assert!(matches!(world.read(0, "app/key"), Err(BrokerError::Audit(_))));
    let generation = world.broker().statistics().generation;
    assert!(world.broker().write(&admin(), &name("x"), bytes(b"x"), &Put::default()).is_err());
    assert_eq!(world.broker().statistics().generation, generation);
}

#[test]
fn an_older_copy_of_the_store_is_refused_unless_an_admin_accepts_it() {
    let mut world = World::new();
    world.put("app/key", b"one");
    let mut copy = Vec::new();
    write_backup(&*world.store, &mut copy).unwrap();
    for value in [b"two".as_slice(), b"three", b"four"] {
        world.put("app/key", value);
    }
    world.close();
    unpack_backup(&mut &copy[..], &*world.store).unwrap();
    let refused = Broker::open(world.parts(), world.root_key());
    assert!(matches!(refused, Err(BrokerError::Rollback { .. })));
    let accepted = Parts { accept_rollback: true, ..world.parts() };
    world.broker = Some(Broker::open(accepted, world.root_key()).unwrap());
    world.wait_verified();
    assert_eq!(world.read(0, "app/key").unwrap(), b"one");
    world.reopen().unwrap();
    assert_eq!(world.read(0, "app/key").unwrap(), b"one");
}

#[test]
fn a_record_or_value_that_is_deleted_or_put_back_alone_is_found() {
    let mut world = World::new();
    world.put("app/key", b"one");
    world.put("app/other", b"one");
    let mut entries = Vec::new();
    for table in [Table::Records, Table::Values] {
        let snapshot = world.store.snapshot().unwrap();
        snapshot
            .scan(table, &[], &mut |key, value| {
                entries.push((table, key.to_vec(), value.to_vec()));
                std::ops::ControlFlow::Continue(())
            })
            .unwrap();
    }
    world.put("app/key", b"two");
    for (table, key, old) in entries {
        world.close();
        let change = |value: Option<&[u8]>| {
            let mut txn = world.store.begin().unwrap();
            let before = match value {
                Some(value) => txn.put(table, &key, value),
                None => txn.delete(table, &key),
            };
            txn.commit().unwrap();
            before.unwrap()
        };
        let now = change(None);
        assert!(is_found(&world), "deleted from {table:?}");
        change(now.as_deref());
        if now.as_deref() != Some(&old[..]) {
            change(Some(&old));
            assert!(is_found(&world), "put back in {table:?}");
            change(now.as_deref());
        }
        world.broker = Some(Broker::open(world.parts(), world.root_key()).unwrap());
        world.wait_verified();
        assert_eq!(world.broker().statistics().integrity, "verified");
    }
}

/// Opens the store as it is; tells whether the fault was noticed.
fn is_found(world: &World) -> bool {
    let Ok(broker) = Broker::open(world.parts(), world.root_key()) else { return true };
    broker.wait_verified(Duration::from_secs(60)).unwrap();
    let silent = matches!(broker.look(&admin(), &name("app/none")), Err(BrokerError::NotFound(_)));
    broker.close();
    !silent
}

#[test]
fn a_new_epoch_and_a_new_root_key_leave_every_value_readable() {
    let mut world = World::new();
    for number in 0..1200 {
        world.put(&format!("app/key-{number}"), format!("value-{number}").as_bytes());
    }
    let epoch = world.broker().rotate_epoch(&admin()).unwrap();
    world.broker().rotate_root(&admin(), &mut make_slot).unwrap();
    let one_epoch = || {
        let status = world.broker().key_status(&admin()).unwrap();
        status["epochs"].as_array().unwrap().len() == 1
    };
    while !one_epoch() {
        std::thread::yield_now();
    }
    world.reopen().unwrap();
    let status = world.broker().key_status(&admin()).unwrap();
    assert_eq!(status["epochs"][0]["epoch"], epoch.0);
    assert_eq!(world.read(0, "app/key-1199").unwrap(), b"value-1199");
    assert!(world.broker().verify(&admin(), &Progress::default()).unwrap().faults.is_empty());
}

#[test]
fn an_epoch_that_has_sealed_as_often_as_it_may_is_followed_by_the_next() {
    let mut world = World::new();
    world.close();
    // So few that the re-wrap of what is there wears the next epoch, too: several change at once.
    let limits = Limits { seals_per_epoch: 100, ..Limits::default() };
    let parts = Parts { limits, ..world.parts() };
    world.broker = Some(Broker::open(parts, world.root_key()).unwrap());
    world.wait_verified();
    let active = || {
        let status = world.broker().key_status(&admin()).unwrap();
        let epochs = status["epochs"].as_array().unwrap().clone();
        epochs.last().unwrap()["epoch"].as_u64().unwrap()
    };
    let before = active();
    for number in 0..60 {
        world.put(&format!("app/key-{number}"), CANARY);
    }
    while active() < before + 5 {
        assert_eq!(world.read(0, "app/key-0").unwrap(), CANARY);
    }
    world.reopen().unwrap();
    assert_eq!(world.read(0, "app/key-59").unwrap(), CANARY);
    assert!(world.broker().verify(&admin(), &Progress::default()).unwrap().faults.is_empty());
}

#[test]
fn a_backup_brings_the_store_back_and_a_changed_one_nothing() {
    let mut world = World::new();
    world.put("app/key", b"one");
    let mut backup = Vec::new();
    world.broker().backup(&admin(), &mut backup).unwrap();
    world.put("app/key", b"two");
    world.put("app/new", b"new");
    let mut changed = backup.clone();
    let middle = changed.len() - 40;
    changed[middle] ^= 1;
    assert!(world.broker().restore_backup(&admin(), Cursor::new(changed)).is_err());
    let cut = backup[..backup.len() - 1].to_vec();
    assert!(world.broker().restore_backup(&admin(), Cursor::new(cut)).is_err());
    assert_eq!(world.read(0, "app/key").unwrap(), b"two");
    world.broker().restore_backup(&admin(), Cursor::new(backup)).unwrap();
    assert_eq!(world.read(0, "app/key").unwrap(), b"one");
    world.reopen().unwrap();
    assert!(matches!(world.read(0, "app/new"), Err(BrokerError::NotFound(_))));
}
