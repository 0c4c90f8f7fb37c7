//! What every store promises: one function a claim, run over each implementation.

use std::ops::ControlFlow;
use std::sync::Barrier;
use std::time::Duration;

use crate::store::{JournaledStore, MemoryStore, Options, RedbStore, Snapshot, Store, Table};

/// So small a journal, taken over so often, that each claim meets every place an entry can be in.
const BUSY: Options = Options { half_bytes: 4 << 10, period: Duration::from_millis(1) };

macro_rules! claims {
    ($($claim:ident)*) => {
        mod memory {
            $(#[test]
            fn $claim() {
                super::$claim(&super::MemoryStore::new());
            })*
        }

        mod journaled {
            $(#[test]
            fn $claim() {
                let directory = tempfile::tempdir().unwrap();
                let path = directory.path().join("store");
                drop(super::RedbStore::create(&path).unwrap());
                super::$claim(&super::JournaledStore::open(&path, super::BUSY).unwrap());
            })*
        }

        mod redb {
            $(#[test]
            fn $claim() {
                let directory = tempfile::tempdir().unwrap();
                super::$claim(&super::RedbStore::create(&directory.path().join("store")).unwrap());
            })*
        }
    };
}

claims! {
    a_clear_empties_every_table
    a_commit_is_seen_at_once
    a_dropped_transaction_leaves_no_trace
    a_new_store_is_empty
    a_reopened_store_has_what_was_committed
    a_scan_stops_when_told
    a_scan_visits_a_prefix_in_key_order
    a_snapshot_does_not_change
    a_transaction_sees_its_own_changes
    an_empty_commit_changes_nothing
    keys_and_values_may_be_empty_and_of_any_bytes
    one_writer_at_a_time
    put_and_delete_return_what_was_there
    readers_do_not_wait_for_an_open_transaction
    readers_never_see_half_a_commit
    tables_are_apart
}

fn put(store: &dyn Store, table: Table, entries: &[(&[u8], &[u8])]) {
    let mut txn = store.begin().unwrap();
    for (key, value) in entries {
        txn.put(table, key, value).unwrap();
    }
    txn.commit().unwrap();
}

fn keys(snapshot: &dyn Snapshot, prefix: &[u8]) -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    let mut visit = |key: &[u8], _: &[u8]| {
        keys.push(key.to_vec());
        ControlFlow::Continue(())
    };
    snapshot.scan(Table::Records, prefix, &mut visit).unwrap();
    keys
}

fn a_new_store_is_empty(store: &dyn Store) {
    for table in Table::ALL {
        assert_eq!(store.snapshot().unwrap().len(table).unwrap(), 0);
        assert_eq!(store.get(table, b"").unwrap(), None);
    }
}

fn a_commit_is_seen_at_once(store: &dyn Store) {
    for n in 0..10_u8 {
        put(store, Table::Root, &[(b"k", &[n])]);
        assert_eq!(store.get(Table::Root, b"k").unwrap(), Some(vec![n]));
        assert_eq!(store.snapshot().unwrap().get(Table::Root, b"k").unwrap(), Some(vec![n]));
    }
}

fn an_empty_commit_changes_nothing(store: &dyn Store) {
    put(store, Table::Root, &[(b"k", b"v")]);
    store.begin().unwrap().commit().unwrap();
    assert_eq!(store.get(Table::Root, b"k").unwrap(), Some(b"v".to_vec()));
}

fn put_and_delete_return_what_was_there(store: &dyn Store) {
    let mut txn = store.begin().unwrap();
    assert_eq!(txn.put(Table::Values, b"k", b"one").unwrap(), None);
    assert_eq!(txn.put(Table::Values, b"k", b"two").unwrap(), Some(b"one".to_vec()));
    txn.set(Table::Values, b"k", b"three").unwrap();
    txn.set(Table::Values, b"new", b"one").unwrap();
    assert_eq!(txn.delete(Table::Values, b"k").unwrap(), Some(b"three".to_vec()));
    assert_eq!(txn.delete(Table::Values, b"k").unwrap(), None);
    txn.commit().unwrap();
    assert_eq!(store.get(Table::Values, b"k").unwrap(), None);
    assert_eq!(store.get(Table::Values, b"new").unwrap(), Some(b"one".to_vec()));
}

fn a_transaction_sees_its_own_changes(store: &dyn Store) {
    put(store, Table::Root, &[(b"old", b"v")]);
    let mut txn = store.begin().unwrap();
    txn.put(Table::Root, b"new", b"v").unwrap();
    txn.delete(Table::Root, b"old").unwrap();
    assert_eq!(txn.get(Table::Root, b"new").unwrap(), Some(b"v".to_vec()));
    assert_eq!(txn.get(Table::Root, b"old").unwrap(), None);
    assert_eq!(store.get(Table::Root, b"new").unwrap(), None);
}

fn tables_are_apart(store: &dyn Store) {
    let mut txn = store.begin().unwrap();
    for table in Table::ALL {
        assert_eq!(txn.put(table, b"k", &[table as u8]).unwrap(), None);
    }
    txn.commit().unwrap();
    for table in Table::ALL {
        assert_eq!(store.get(table, b"k").unwrap(), Some(vec![table as u8]));
        assert_eq!(store.snapshot().unwrap().len(table).unwrap(), 1);
    }
}

fn keys_and_values_may_be_empty_and_of_any_bytes(store: &dyn Store) {
    let big = vec![0xff; 1 << 20];
    put(store, Table::Values, &[(b"", b""), (&[0xff, 0x00], &big)]);
    assert_eq!(store.get(Table::Values, b"").unwrap(), Some(Vec::new()));
    assert_eq!(store.get(Table::Values, &[0xff, 0x00]).unwrap(), Some(big));
}

fn a_scan_visits_a_prefix_in_key_order(store: &dyn Store) {
    let entries: Vec<&[u8]> = vec![b"b\xff", b"a", b"b", b"c", b"ba", b"b\x00"];
    for key in &entries {
        put(store, Table::Records, &[(key, b"v")]);
    }
    let snapshot = store.snapshot().unwrap();
    assert_eq!(keys(&*snapshot, b"b"), [&b"b"[..], b"b\x00", b"ba", b"b\xff"]);
    assert_eq!(keys(&*snapshot, b"").len(), entries.len());
    assert_eq!(keys(&*snapshot, b"bb"), Vec::<Vec<u8>>::new());
}

fn a_scan_stops_when_told(store: &dyn Store) {
    put(store, Table::Records, &[(b"a", b"1"), (b"b", b"2"), (b"c", b"3")]);
    let mut seen = Vec::new();
    let mut visit = |_: &[u8], value: &[u8]| {
        seen.push(value.to_vec());
        if seen.len() == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    store.snapshot().unwrap().scan(Table::Records, b"", &mut visit).unwrap();
    assert_eq!(seen, [b"1", b"2"]);
}

fn a_snapshot_does_not_change(store: &dyn Store) {
    put(store, Table::Records, &[(b"kept", b"old"), (b"gone", b"old")]);
    let snapshot = store.snapshot().unwrap();
    let mut txn = store.begin().unwrap();
    txn.put(Table::Records, b"kept", b"new").unwrap();
    txn.delete(Table::Records, b"gone").unwrap();
    txn.commit().unwrap();
    put(store, Table::Records, &[(b"more", b"new")]);
    assert_eq!(snapshot.get(Table::Records, b"kept").unwrap(), Some(b"old".to_vec()));
    assert_eq!(keys(&*snapshot, b""), [b"gone", b"kept"]);
    assert_eq!(snapshot.len(Table::Records).unwrap(), 2);
}

fn a_dropped_transaction_leaves_no_trace(store: &dyn Store) {
    put(store, Table::Records, &[(b"a", b"1"), (b"b", b"2")]);
    let mut txn = store.begin().unwrap();
    txn.clear().unwrap();
    txn.put(Table::Records, b"c", b"3").unwrap();
    drop(txn);
    assert_eq!(keys(&*store.snapshot().unwrap(), b""), [b"a", b"b"]);
    put(store, Table::Records, &[(b"d", b"4")]);
    assert_eq!(keys(&*store.snapshot().unwrap(), b""), [b"a", b"b", b"d"]);
}

fn a_clear_empties_every_table(store: &dyn Store) {
    for table in Table::ALL {
        put(store, table, &[(b"old", b"v")]);
    }
    let mut txn = store.begin().unwrap();
    txn.clear().unwrap();
    assert_eq!(txn.put(Table::Root, b"old", b"new").unwrap(), None);
    txn.commit().unwrap();
    let snapshot = store.snapshot().unwrap();
    assert_eq!(Table::ALL.map(|table| snapshot.len(table).unwrap()), [0, 0, 1, 0, 0, 0]);
}

fn a_reopened_store_has_what_was_committed(store: &dyn Store) {
    put(store, Table::Records, &[(b"a", b"1")]);
    store.recover().unwrap();
    put(store, Table::Records, &[(b"b", b"2")]);
    store.recover().unwrap();
    assert_eq!(keys(&*store.snapshot().unwrap(), b""), [b"a", b"b"]);
    assert_eq!(store.get(Table::Records, b"b").unwrap(), Some(b"2".to_vec()));
}

fn one_writer_at_a_time(store: &dyn Store) {
    let add_one = || {
        let mut txn = store.begin().unwrap();
        let count = txn.get(Table::Root, b"count").unwrap().map_or(0, |value| value[0]);
        txn.put(Table::Root, b"count", &[count + 1]).unwrap();
        txn.commit().unwrap();
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..25).for_each(|_| add_one()));
        }
    });
    assert_eq!(store.get(Table::Root, b"count").unwrap(), Some(vec![100]));
}

/// Would never end if they did.
fn readers_do_not_wait_for_an_open_transaction(store: &dyn Store) {
    put(store, Table::Root, &[(b"k", b"old")]);
    let mut txn = store.begin().unwrap();
    txn.put(Table::Root, b"k", b"new").unwrap();
    let read = || store.get(Table::Root, b"k").unwrap();
    let found = std::thread::scope(|scope| scope.spawn(read).join().unwrap());
    assert_eq!(found, Some(b"old".to_vec()));
    txn.commit().unwrap();
}

fn readers_never_see_half_a_commit(store: &dyn Store) {
    put(store, Table::Records, &[(b"a", &[0]), (b"b", &[0])]);
    let start = Barrier::new(4);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                start.wait();
                let mut last = None;
                // Ends with the writer's last commit.
                while last != Some(vec![200]) {
                    let snapshot = store.snapshot().unwrap();
                    let both = [b"a", b"b"].map(|k| snapshot.get(Table::Records, k).unwrap());
                    assert_eq!(both[0], both[1]);
                    assert!(both[0] >= last, "went back");
                    last.clone_from(&both[0]);
                }
            });
        }
        start.wait();
        for n in 1..=200_u8 {
            put(store, Table::Records, &[(b"a", &[n]), (b"b", &[n])]);
        }
    });
}
