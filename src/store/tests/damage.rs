//! The store on a damaged file: an error, or content that the layer above must authenticate.
//!
//! redb does not verify checksums when it reads, so a flipped bit may change a value or hide an
//! entry without an error. What must not happen here: a panic, and a file that opens as a new,
//! empty store.

use super::crash::{Content, content, create, open};
use super::disk::{Disk, Random, campaign};
use crate::store::{Store, StoreError, Table};

/// A store that was closed in order, as most are when they are damaged.
fn closed_store() -> Vec<u8> {
    let disk = Disk::default();
    let store = create(&disk).unwrap();
    let mut random = Random(11);
    for n in 0..20_u8 {
        let mut txn = store.begin().unwrap();
        for table in Table::ALL {
            txn.put(table, &[n, 0], &random.bytes(250)).unwrap();
            txn.put(table, &[n, 1], &random.bytes(100)).unwrap();
        }
        let big = random.bytes(10_000);
        txn.put(Table::Values, &[n % 3, 2], &big).unwrap();
        txn.commit().unwrap();
    }
    drop(store);
    disk.image()
}

/// Uses the store in every way; errors are expected.
fn use_all_of(store: &dyn Store) -> Result<(), StoreError> {
    let found = content(store)?;
    for (table, key) in found.keys() {
        store.get(*table, key)?;
    }
    let txn = store.begin()?;
    for (table, key) in found.keys() {
        txn.get(*table, key)?;
    }
    drop(txn);
    let changed = change(store, &found);
    if changed.is_err() {
        assert!(matches!(store.begin().err(), Some(StoreError::Broken)));
    }
    changed
}

fn change(store: &dyn Store, found: &Content) -> Result<(), StoreError> {
    let mut txn = store.begin()?;
    for (at, (table, key)) in found.keys().enumerate() {
        match at % 2 {
            0 => txn.put(*table, key, b"example-value")?,
            _ => txn.delete(*table, key)?,
        };
    }
    txn.commit()?;
    let mut txn = store.begin()?;
    txn.clear()?;
    txn.commit()
}

#[test]
fn a_flipped_bit_never_panics_and_never_makes_an_empty_store() {
    let image = closed_store();
    let expected = content(&open(&Disk::holding(image.clone())).unwrap()).unwrap();
    // Most of a small file is free space, which a flip cannot harm.
    let used: Vec<usize> = (0..image.len()).filter(|&at| image[at] != 0).collect();
    let mut random = Random(21);
    let (mut refused, mut failed, mut wrong, mut harmless) = (0, 0, 0, 0);
    for _ in 0..campaign(2_000, 100_000) {
        // Every second one in the header and the first pages, where the roots are.
        let reach = if random.below(2) == 0 { 16 << 10 } else { image.len() };
        let at = used[random.below(used.partition_point(|&at| at < reach))];
        let mut damaged = image.clone();
        damaged[at] ^= 1 << random.below(8);
        let Ok(store) = open(&Disk::holding(damaged)) else {
            refused += 1;
            continue;
        };
        let found = content(&store);
        assert!(
            !found.as_ref().is_ok_and(Content::is_empty),
            "seed 21: a flip at byte {at} made an empty store"
        );
        match use_all_of(&store) {
            Err(_) => failed += 1,
            Ok(()) if found.is_ok_and(|found| found == expected) => harmless += 1,
            Ok(()) => wrong += 1,
        }
        // Whatever happened, the store can be asked to recover, and answers.
        store.recover().ok();
    }
    println!(
        "{refused} refused, {failed} failed in use, {wrong} silently wrong, {harmless} harmless"
    );
    assert!(refused > 0 && failed > 0 && wrong > 0);
}

#[test]
fn a_truncated_file_is_damaged() {
    let image = closed_store();
    let mut random = Random(22);
    let lengths = [0, 1, 8, 9, 511, 512, 4095, 4096, image.len() - 1];
    let more = (lengths.len()..campaign(300, 10_000)).map(|_| random.below(image.len()));
    for length in lengths.into_iter().chain(more) {
        let opened = open(&Disk::holding(image[..length].to_vec()));
        assert!(
            matches!(opened.as_ref().err(), Some(StoreError::Damaged(_))),
            "cut to {length} of {}: {opened:?}",
            image.len()
        );
    }
}

#[test]
fn a_file_of_other_bytes_is_damaged() {
    let mut random = Random(23);
    for length in [1, 100, 4096, 100_000] {
        for bytes in [vec![0; length], random.bytes(length)] {
            let opened = open(&Disk::holding(bytes));
            assert!(matches!(opened.err(), Some(StoreError::Damaged(_))));
        }
    }
}

/// Returns a store without the table of that name.
fn store_without(table: &str) -> Disk {
    let disk = Disk::default();
    drop(create(&disk).unwrap());
    let database = redb::Builder::new().create_with_backend(disk.clone()).unwrap();
    let txn = database.begin_write().unwrap();
    let table: redb::TableDefinition<'_, &[u8], &[u8]> = redb::TableDefinition::new(table);
    assert!(txn.delete_table(table).unwrap());
    txn.commit().unwrap();
    disk
}

#[test]
fn a_store_without_one_of_the_tables_is_damaged() {
    for table in ["header", "keyring", "root", "records", "values"] {
        let opened = open(&store_without(table));
        assert!(matches!(opened.err(), Some(StoreError::Damaged(_))), "{table}");
    }
}

#[test]
fn a_store_from_before_there_were_pages_gets_their_table() {
    let store = open(&store_without("pages")).unwrap();
    let mut txn = store.begin().unwrap();
    assert_eq!(txn.put(Table::Pages, b"page", b"versions").unwrap(), None);
    txn.commit().unwrap();
    assert_eq!(store.get(Table::Pages, b"page").unwrap().as_deref(), Some(&b"versions"[..]));
}
