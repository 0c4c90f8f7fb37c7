//! The store as a file: how it is made, found, locked, and how it grows.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use tempfile::TempDir;

use super::crash::create as create_on;
use super::disk::{Disk, Random};
use crate::store::{RedbStore, Store, StoreError, Table};

fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    (directory, path)
}

fn put(store: &dyn Store, key: &[u8], value: &[u8]) {
    let mut txn = store.begin().unwrap();
    txn.put(Table::Values, key, value).unwrap();
    txn.commit().unwrap();
}

#[test]
fn a_new_store_is_readable_by_its_owner_alone() {
    let (_directory, path) = place();
    let store = RedbStore::create(&path).unwrap();
    let metadata = std::fs::metadata(&path).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o600);
    assert_eq!(store.size_bytes().unwrap(), metadata.len());
}

#[test]
fn create_touches_nothing_that_exists() {
    let (directory, path) = place();
    File::create(&path).unwrap().write_all(b"example-value").unwrap();
    let link = directory.path().join("link");
    symlink(directory.path().join("nowhere"), &link).unwrap();
    for name in [&path, &link] {
        let Err(StoreError::Io(error)) = RedbStore::create(name) else { panic!("created") };
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    }
    assert_eq!(std::fs::read(&path).unwrap(), b"example-value");
    assert!(!directory.path().join("nowhere").exists());
}

#[test]
fn open_makes_no_file_and_follows_no_link() {
    let (directory, path) = place();
    let Err(StoreError::Io(error)) = RedbStore::open(&path) else { panic!("opened") };
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(!path.exists());
    drop(RedbStore::create(&path).unwrap());
    let link = directory.path().join("link");
    symlink(&path, &link).unwrap();
    assert!(matches!(RedbStore::open(&link), Err(StoreError::Io(_))));
}

#[test]
fn an_empty_file_is_damaged_and_stays_as_it_is() {
    let (_directory, path) = place();
    File::create(&path).unwrap();
    assert!(matches!(RedbStore::open(&path), Err(StoreError::Damaged(_))));
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
}

#[test]
fn what_is_no_regular_file_is_damaged() {
    let (_directory, path) = place();
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(matches!(RedbStore::open(&path), Err(StoreError::Damaged(_))));
}

#[test]
fn a_second_handle_is_locked_out_until_the_first_is_dropped() {
    let (_directory, path) = place();
    let first = RedbStore::create(&path).unwrap();
    assert!(matches!(RedbStore::open(&path), Err(StoreError::Locked)));
    first.recover().unwrap();
    assert!(matches!(RedbStore::open(&path), Err(StoreError::Locked)));
    put(&first, b"k", b"v");
    drop(first);
    let second = RedbStore::open(&path).unwrap();
    assert_eq!(second.get(Table::Values, b"k").unwrap(), Some(b"v".to_vec()));
}

#[test]
fn a_recovery_stays_with_its_file_when_the_path_leads_elsewhere() {
    let (directory, path) = place();
    let store = RedbStore::create(&path).unwrap();
    put(&store, b"k", b"v");
    std::fs::rename(&path, directory.path().join("moved")).unwrap();
    File::create(&path).unwrap();
    store.recover().unwrap();
    assert_eq!(store.get(Table::Values, b"k").unwrap(), Some(b"v".to_vec()));
}

#[test]
fn readers_wait_for_a_recovery_and_then_go_on() {
    const KEYS: u32 = 3_000;
    let disk = Disk::default();
    let store = create_on(&disk).unwrap();
    let mut txn = store.begin().unwrap();
    for n in 0..KEYS {
        txn.put(Table::Values, &n.to_be_bytes(), &[7; 300]).unwrap();
    }
    txn.commit().unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                // Far apart, so that most reads go to the disk after each recovery.
                for n in (0..KEYS).cycle().take_while(|_| !done.load(Ordering::Relaxed)) {
                    let key = (n * 997 % KEYS).to_be_bytes();
                    assert_eq!(store.get(Table::Values, &key).unwrap().unwrap(), [7; 300]);
                }
            });
        }
        (0..100).for_each(|_| store.recover().unwrap());
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_snapshot_from_before_a_recovery_is_right_or_broken() {
    let (_directory, path) = place();
    let store = RedbStore::create(&path).unwrap();
    put(&store, b"k", b"old");
    let snapshot = store.snapshot().unwrap();
    store.recover().unwrap();
    put(&store, b"k", b"new");
    match snapshot.get(Table::Values, b"k") {
        Ok(found) => assert_eq!(found, Some(b"old".to_vec())),
        Err(error) => assert!(matches!(error, StoreError::Broken), "{error}"),
    }
}

#[test]
fn overwriting_does_not_grow_the_file() {
    let disk = Disk::default();
    let store = create_on(&disk).unwrap();
    let mut random = Random(31);
    let mut overwrite = |commits| {
        for _ in 0..commits {
            let key = [u8::try_from(random.below(50)).unwrap()];
            put(&store, &key, &random.bytes(1_000));
        }
        store.size_bytes().unwrap()
    };
    let settled = overwrite(300);
    let later = overwrite(3_000);
    assert!(later <= settled * 3 / 2, "grew from {settled} to {later} bytes");
}
