//! The journal in front of redb: what it takes and gives back, and what a wrong or damaged one is.

use std::time::{Duration, Instant};

use super::crash::{Content, commit, content, create, journaled, open};
use super::disk::{Disk, Fault, Image, Op, Random, Which, campaign};
use crate::store::{JournaledStore, Options, RedbStore, Store, StoreError, Table};

/// Taken over when it is full, and not before.
const PATIENT: Options = Options { half_bytes: 32 << 10, period: Duration::MAX };

fn make(disk: &Disk) -> JournaledStore {
    journaled(create(disk).unwrap(), disk, PATIENT).unwrap()
}

fn reopen(image: Image) -> Result<JournaledStore, StoreError> {
    let disk = Disk::holding_both(image);
    journaled(open(&disk)?, &disk, PATIENT)
}

fn images(disk: &Disk) -> Image {
    [disk.image(), disk.journal().image()]
}

fn put(store: &dyn Store, number: u8) {
    let mut txn = store.begin().unwrap();
    txn.put(Table::Values, &[number], &[number; 600]).unwrap();
    txn.put(Table::Root, b"last", &[number]).unwrap();
    txn.commit().unwrap();
}

fn last(store: &dyn Store) -> Option<u8> {
    store.get(Table::Root, b"last").unwrap().map(|value| value[0])
}

/// What the disk holds while the store is open, after each of `count` commits: as after kill -9.
fn running(count: u8) -> Vec<Image> {
    let disk = Disk::default();
    let store = make(&disk);
    let image = |number| {
        put(&store, number);
        images(&disk)
    };
    (1..=count).map(image).collect()
}

fn damaged(opened: Result<JournaledStore, StoreError>) -> String {
    match opened {
        Err(StoreError::Damaged(what)) => what,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_commit_is_one_write_and_one_sync_of_the_journal() {
    let disk = Disk::default();
    let store = make(&disk);
    disk.record();
    for number in 1..=5 {
        put(&store, number);
        let log = disk.log();
        assert!(
            matches!(&log[..], [Op::Write(Which::Journal, ..), Op::Sync(Which::Journal)]),
            "{log:?}"
        );
    }
}

/// The header of redb's file says that it is open; nothing relies on that before something else is written.
#[test]
fn an_opening_behind_a_kill_writes_nothing_and_syncs_the_frames_that_redb_lacks() {
    let disk = Disk::default();
    let store = make(&disk);
    let taken_over =
        || open(&Disk::holding(disk.image())).unwrap().progress().unwrap().unwrap().commit;
    let mut number = 0;
    let deadline = Instant::now() + Duration::from_secs(60);
    // Full once; what redb has is in the journal as well.
    while taken_over() == 0 {
        assert!(Instant::now() < deadline, "the journal is not taken over");
        number += u8::from(number < 25);
        put(&store, number);
    }
    let killed = Disk::holding_both(images(&disk));
    killed.record();
    let again = journaled(open(&killed).unwrap(), &killed, PATIENT).unwrap();
    again.await_durable().unwrap();
    let log = killed.log();
    assert!(matches!(&log[..], [Op::Sync(Which::Journal)]), "{log:?}");
    put(&again, 99);
    let log = killed.log();
    assert!(
        matches!(
            &log[..],
            [
                Op::Write(Which::Store, 0, _),
                Op::Sync(Which::Store),
                ..,
                Op::Sync(Which::Store),
                Op::Write(Which::Journal, ..),
                Op::Sync(Which::Journal)
            ]
        ),
        "{log:?}"
    );
}

#[test]
fn what_is_acknowledged_comes_back_however_much_of_it_redb_has() {
    let disk = Disk::default();
    let store = make(&disk);
    // Goes round both halves several times.
    for number in 1..=200 {
        put(&store, number);
        if number % 5 == 0 {
            let again = reopen(images(&disk)).unwrap();
            assert_eq!(content(&again).unwrap(), content(&store).unwrap());
            put(&again, 0);
        }
    }
}

#[test]
fn a_store_that_was_closed_has_all_in_its_file_and_an_older_copy_stays_older() {
    let disk = Disk::default();
    let store = make(&disk);
    put(&store, 1);
    store.settle().unwrap();
    let older = disk.image();
    put(&store, 2);
    drop(store);
    assert_eq!(last(&open(&Disk::holding(disk.image())).unwrap()), Some(2));
    let back = reopen([older, disk.journal().image()]).unwrap();
    assert_eq!(last(&back), Some(1), "the journal's void frames were taken");
}

#[test]
fn a_store_without_a_journal_opens_and_gets_one() {
    let disk = Disk::default();
    let base = create(&disk).unwrap();
    put(&base, 1);
    drop(base);
    let store = journaled(open(&disk).unwrap(), &disk, PATIENT).unwrap();
    put(&store, 2);
    assert_eq!(content(&store).unwrap().len(), 3);
    assert_eq!(last(&reopen(images(&disk)).unwrap()), Some(2));
}

#[test]
fn the_journal_of_another_store_is_refused_unless_it_is_empty() {
    let [ours, theirs] = [running(3), running(5)].map(|images| images.last().unwrap().clone());
    let [[store, _], [_, journal]] = [&ours, &theirs];
    let what = damaged(reopen([store.clone(), journal.clone()]));
    assert!(what.contains("another store's"), "{what}");
    // One that a store without a journal finds beside it, too.
    let disk = Disk::default();
    drop(create(&disk).unwrap());
    damaged(reopen([disk.image(), journal.clone()]));
    let disk = Disk::holding_both(theirs.clone());
    drop(journaled(open(&disk).unwrap(), &disk, PATIENT).unwrap());
    let store = reopen([store.clone(), disk.journal().image()]).unwrap();
    put(&store, 9);
    assert_eq!(last(&store), Some(9));
}

#[test]
fn without_its_journal_a_store_is_what_its_file_has() {
    let [store, journal] = running(100).last().unwrap().clone();
    let taken_over = last(&open(&Disk::holding(store.clone())).unwrap()).unwrap();
    assert!(taken_over < 100);
    // Never made to the end is as good as not there.
    let unfinished = vec![0; journal.len()];
    for journal in [Vec::new(), journal[..100].to_vec(), unfinished] {
        let opened = reopen([store.clone(), journal]).unwrap();
        assert_eq!(last(&opened), Some(taken_over));
        put(&opened, 101);
    }
}

#[test]
fn a_journal_of_another_time_is_found_where_commits_are_missing() {
    let images = running(100);
    let [newest, _] = &images[99];
    let [_, newest_journal] = &images[99];
    let taken_over = last(&open(&Disk::holding(newest.clone())).unwrap()).unwrap();
    let (mut refused, mut led_on) = (0, 0);
    for [store, journal] in &images {
        // An older journal has nothing that is new, or less that is.
        let opened = reopen([newest.clone(), journal.clone()]).unwrap();
        assert!(last(&opened) >= Some(taken_over));
        drop(opened);
        // An older store is led on to the newest state, or found out.
        match reopen([store.clone(), newest_journal.clone()]) {
            Ok(opened) => {
                assert_eq!(last(&opened), Some(100));
                led_on += 1;
            }
            opened => {
                let what = damaged(opened);
                assert!(what.contains("not of the same time"), "{what}");
                refused += 1;
            }
        }
    }
    assert!(refused > 0 && led_on > 0, "{refused} refused, {led_on} led on");
}

#[test]
fn a_flipped_bit_of_the_journal_costs_no_commit_but_a_last_one_and_none_in_the_middle() {
    let disk = Disk::default();
    let store = make(&disk);
    let mut contents = vec![Content::new()];
    let mut random = Random(41);
    for _ in 0..40 {
        let mut next = contents.last().unwrap().clone();
        commit(&store, &mut random, &mut next).unwrap();
        contents.push(next);
    }
    let [image, journal] = images(&disk);
    let used: Vec<usize> = (0..journal.len()).filter(|&at| journal[at] != 0).collect();
    let (mut refused, mut whole, mut cut) = (0, 0, 0);
    for _ in 0..campaign(2_000, 50_000) {
        let mut damaged = journal.clone();
        // Every second one in the header.
        let reach = if random.below(2) == 0 { 1024 } else { journal.len() };
        let at = used[random.below(used.partition_point(|&at| at < reach))];
        damaged[at] ^= 1 << random.below(8);
        match reopen([image.clone(), damaged]) {
            Err(StoreError::Damaged(_)) => refused += 1,
            Err(error) => panic!("seed 41, byte {at}: {error}"),
            Ok(opened) => match contents.iter().rev().position(|c| *c == content(&opened).unwrap())
            {
                Some(0) => whole += 1,
                Some(1) => cut += 1,
                found => panic!("seed 41, byte {at}: {found:?} commits are missing"),
            },
        }
    }
    println!("{refused} refused, {whole} harmless, {cut} cost the last commit");
    assert!(refused > 0 && whole > 0 && cut > 0);
}

#[test]
fn a_journal_that_was_cut_is_damaged() {
    let [store, journal] = running(20).last().unwrap().clone();
    let mut random = Random(42);
    for _ in 0..campaign(100, 5_000) {
        let length = 4096 + random.below(journal.len() - 4096);
        damaged(reopen([store.clone(), journal[..length].to_vec()]));
    }
}

#[test]
fn bytes_that_are_no_journal_are_damaged() {
    let [store, journal] = running(1).last().unwrap().clone();
    damaged(reopen([store, Random(43).bytes(journal.len())]));
}

#[test]
fn a_store_that_takes_nothing_over_is_told_to_the_next_writer_and_loses_nothing() {
    let disk = Disk::default();
    let store = make(&disk);
    disk.refuse(libc::ENOSPC);
    let mut acknowledged = 0;
    let error = loop {
        let mut txn = match store.begin() {
            Ok(txn) => txn,
            Err(error) => break error,
        };
        txn.put(Table::Values, b"k", &[acknowledged; 600]).unwrap();
        match txn.commit() {
            Ok(()) => acknowledged += 1,
            Err(error) => break error,
        }
        assert!(acknowledged < 200, "it never gets full");
    };
    assert!(
        matches!(&error, StoreError::Io(io) if io.kind() == std::io::ErrorKind::StorageFull),
        "{error:?}"
    );
    let expected = vec![acknowledged - 1; 600];
    let read = |store: &dyn Store| store.get(Table::Values, b"k").unwrap().unwrap();
    assert_eq!(read(&store), expected, "reads go on");
    assert!(store.recover().is_err());
    assert_eq!(read(&reopen(images(&disk)).unwrap()), expected);
    disk.heal();
    store.recover().unwrap();
    assert_eq!(read(&store), expected);
    put(&store, 7);
    drop(store);
    assert_eq!(read(&open(&disk).unwrap()), expected);
}

#[test]
fn what_the_store_did_not_take_over_is_tried_again() {
    let disk = Disk::default();
    let options = Options { period: Duration::from_millis(1), ..PATIENT };
    let store = journaled(create(&disk).unwrap(), &disk, options).unwrap();
    put(&store, 1);
    store.settle().unwrap();
    disk.fail(Fault { at: disk.operations() + 8, errno: libc::ENOSPC, lasting: false });
    put(&store, 2);
    let begun = Instant::now();
    while store.settle().is_err() {
        assert!(begun.elapsed() < Duration::from_secs(60), "it was not tried again");
    }
    let read = |key: u8| store.get(Table::Values, &[key]).unwrap().unwrap();
    assert_eq!((read(1), read(2)), (vec![1; 600], vec![2; 600]));
    drop(store);
    assert_eq!(last(&open(&disk).unwrap()), Some(2));
}

#[test]
fn a_commit_that_the_journal_does_not_take_is_unknown_until_the_recovery() {
    let disk = Disk::default();
    let store = make(&disk);
    put(&store, 1);
    disk.journal().refuse(libc::EIO);
    let mut txn = store.begin().unwrap();
    txn.put(Table::Root, b"last", &[2]).unwrap();
    assert!(matches!(txn.commit(), Err(StoreError::Io(_))));
    assert!(matches!(store.begin().err(), Some(StoreError::Broken)));
    assert_eq!(last(&store), Some(1));
    disk.heal();
    store.recover().unwrap();
    let found = last(&store);
    assert!(found == Some(1) || found == Some(2));
    put(&store, 3);
    assert_eq!(last(&reopen(images(&disk)).unwrap()), Some(3));
}

#[test]
fn a_transaction_that_the_journal_cannot_hold_is_one_of_redb() {
    let disk = Disk::default();
    let store = make(&disk);
    put(&store, 1);
    let mut txn = store.begin().unwrap();
    for number in 2..=200 {
        assert_eq!(txn.put(Table::Values, &[number], &[number; 600]).unwrap(), None);
    }
    assert_eq!(txn.get(Table::Values, &[1]).unwrap(), Some(vec![1; 600]));
    assert_eq!(txn.delete(Table::Values, &[1]).unwrap(), Some(vec![1; 600]));
    drop(txn);
    assert_eq!(content(&store).unwrap().len(), 2, "dropped, it leaves no trace");
    let mut txn = store.begin().unwrap();
    for number in 2..=200 {
        txn.put(Table::Values, &[number], &[number; 600]).unwrap();
    }
    txn.commit().unwrap();
    put(&store, 201);
    let expected = content(&store).unwrap();
    assert_eq!(expected.len(), 202);
    assert_eq!(content(&reopen(images(&disk)).unwrap()).unwrap(), expected);
}

#[test]
fn the_journal_is_readable_by_its_owner_alone_and_no_link_is_followed() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    drop(RedbStore::create(&path).unwrap());
    let elsewhere = directory.path().join("elsewhere");
    let journal = crate::store::journal_of(&path);
    symlink(&elsewhere, &journal).unwrap();
    assert!(matches!(JournaledStore::open(&path, PATIENT), Err(StoreError::Io(_))));
    assert!(!elsewhere.exists());
    std::fs::remove_file(&journal).unwrap();
    drop(JournaledStore::open(&path, PATIENT).unwrap());
    let mode = std::fs::metadata(&journal).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
}
