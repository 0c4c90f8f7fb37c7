//! Tests of what the parts promise together: whatever is changed or moved does not open.

use std::collections::HashSet;

use super::*;
use crate::model::{SecretId, StoreId, Timestamp, Version};
use crate::system::SecretBytes;
use crate::system::probe::{Role, canaries_in_memory, canary, role, run, setting};

/// Values sealed to look for a nonce or a data key that comes twice.
const UNIQUE: usize = 20_000;
const UNIQUE_FULL: usize = 200_000;

pub(super) fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<_> =
        text.chars().map(|c| u8::try_from(c.to_digit(16).unwrap()).unwrap()).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

pub(super) fn keyring(store: u8) -> Keyring {
    Keyring::generate(StoreId([store; 16]), at(1_000)).unwrap()
}

fn secret(bytes: &[u8]) -> SecretBytes {
    SecretBytes::copy_from(bytes).unwrap()
}

pub(super) fn slot() -> Slot {
    let root = RootKey::generate().unwrap();
    Slot::seal(StoreId([7; 16]), SlotKind::KeyFile, &secret(&[5; 32]), &root).unwrap()
}

const ID: SecretId = SecretId([3; 16]);

/// Calls `check` with each copy of `sealed` in which one bit of one byte is other, or that is
/// shorter.
fn each_change(sealed: &[u8], mut check: impl FnMut(&[u8], usize)) {
    for i in 0..sealed.len() {
        let mut changed = sealed.to_vec();
        changed[i] ^= 1 << (i % 8);
        check(&changed, i);
        check(&sealed[..i], i);
    }
    check(&[sealed, &[0]].concat(), sealed.len());
}

#[test]
fn a_value_comes_back_as_it_was_at_every_length() {
    let keys = keyring(1);
    for len in [0, 1, 59, 60, 61, 1020, 1021, 65_536, 1_048_576] {
        let plain: Vec<u8> = (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect();
        let sealed = keys.seal_value(ID, Version(1), &secret(&plain)).unwrap();
        let opened = keys.open_value(ID, Version(1), &sealed).unwrap();
        assert_eq!(opened.expose(), plain);
        assert_eq!(Keyring::epoch_of(&sealed), Ok(Epoch(1)));
    }
}

#[test]
fn lengths_within_one_step_of_padding_look_alike() {
    let keys = keyring(1);
    let sealed_len = |len| keys.seal_value(ID, Version(1), &secret(&vec![1; len])).unwrap().len();
    assert_eq!(sealed_len(0), sealed_len(60));
    assert_ne!(sealed_len(60), sealed_len(61));
    let record_len = |len| keys.seal_record(ID, &vec![1; len]).unwrap().len();
    assert_eq!(record_len(61), record_len(124));
}

#[test]
fn every_change_of_a_value_is_refused() {
    let keys = keyring(1);
    let sealed = keys.seal_value(ID, Version(1), &secret(b"example-value")).unwrap();
    each_change(&sealed, |changed, i| {
        assert!(keys.open_value(ID, Version(1), changed).is_err(), "{i}");
    });
}

#[test]
fn every_change_of_a_record_is_refused() {
    let keys = keyring(1);
    let sealed = keys.seal_record(ID, b"prod/db").unwrap();
    assert_eq!(*keys.open_record(ID, &sealed).unwrap(), b"prod/db");
    each_change(&sealed, |changed, i| assert!(keys.open_record(ID, changed).is_err(), "{i}"));
}

#[test]
fn every_change_of_lines_is_refused() {
    let keys = keyring(1);
    let sealed = keys.seal_lines(7, b"{}\n").unwrap();
    assert_eq!(keys.open_lines(7, &sealed).unwrap(), b"{}\n");
    each_change(&sealed, |changed, i| assert!(keys.open_lines(7, changed).is_err(), "{i}"));
}

#[test]
fn every_change_of_a_keyring_is_damage_and_not_a_wrong_key() {
    let root = RootKey::generate().unwrap();
    let keys = keyring(1).with_new_epoch(at(2_000)).unwrap();
    let sealed = keys.seal(&root).unwrap();
    each_change(&sealed, |changed, i| {
        let error = Keyring::open(keys.store(), &root, changed).unwrap_err();
        let named = matches!(
            error,
            CryptoError::Damaged | CryptoError::Malformed(_) | CryptoError::UnknownFormat(_)
        );
        assert!(named, "{i}: {error}");
    });
}

#[test]
fn a_wrong_root_key_or_another_store_is_called_a_wrong_key() {
    let (root, other) = (RootKey::generate().unwrap(), RootKey::generate().unwrap());
    let sealed = keyring(1).seal(&root).unwrap();
    let open = |store, root| Keyring::open(StoreId([store; 16]), root, &sealed).err();
    assert_eq!(open(1, &root), None);
    assert_eq!(open(1, &other), Some(CryptoError::WrongKey));
    assert_eq!(open(2, &root), Some(CryptoError::WrongKey));
}

#[test]
fn every_change_of_a_slot_is_refused() {
    let source = secret(&[5; 32]);
    let header = Header { store: StoreId([7; 16]), slots: vec![slot()] };
    let open = |header: &Header| header.slots[0].open(header.store, &source);
    assert!(open(&header).is_ok());
    each_change(&header.encode().unwrap(), |changed, i| {
        // A header without slots, or one that does not decode, opens nothing.
        if let Ok(header) = Header::decode(changed) {
            assert!(header.slots.is_empty() || open(&header).is_err(), "{i}");
        }
    });
}

#[test]
fn a_slot_tells_a_wrong_source_from_damage() {
    let slot = slot();
    let open = |slot: &Slot, byte| slot.open(StoreId([7; 16]), &secret(&[byte; 32])).err();
    assert_eq!(open(&slot, 5), None);
    assert_eq!(open(&slot, 6), Some(CryptoError::WrongKey));
    let mut moved = slot;
    moved.kind = SlotKind::SystemdCredential { name: "root".into() };
    assert_eq!(open(&moved, 5), Some(CryptoError::WrongKey));
}

#[test]
fn a_passphrase_opens_its_slot_and_a_downgrade_of_its_parameters_does_not() {
    let (store, root) = (StoreId([1; 16]), RootKey::generate().unwrap());
    let passphrase = secret(b"example-value");
    let above = Stretching { passes: 4, ..Stretching::FLOOR };
    let kind = SlotKind::passphrase(above).unwrap();
    let slot = Slot::seal(store, kind.clone(), &passphrase, &root).unwrap();
    let opened = slot.open(store, &passphrase).unwrap();
    assert!(opened.expose().constant_time_eq(root.expose()));
    let with = |memory: u32, rounds: u32| {
        let SlotKind::Passphrase { salt, lanes, .. } = kind else { unreachable!() };
        let mut changed = slot.clone();
        changed.kind = SlotKind::Passphrase { salt, memory_kib: memory, passes: rounds, lanes };
        changed.open(store, &passphrase).err()
    };
    assert_eq!(with(8, 1), Some(CryptoError::WeakStretching));
    // Still allowed, but not what the slot was made with.
    assert_eq!(with(above.memory_kib, 3), Some(CryptoError::WrongKey));
    let weak = SlotKind::passphrase(Stretching { memory_kib: 1024, ..above }).unwrap();
    let refused = Slot::seal(store, weak, &passphrase, &root);
    assert_eq!(refused, Err(CryptoError::WeakStretching));
}

#[test]
fn a_root_key_of_another_length_is_refused() {
    assert!(RootKey::from_secret(secret(&[1; 31])).is_err());
    assert!(RootKey::from_secret(secret(&[1; 32])).is_ok());
}

/// Reads a line of the file of what release 1 of the format has sealed.
fn of_format_1(name: &str) -> Vec<u8> {
    let mut lines = include_str!("format-1.txt").lines();
    unhex(lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap())
}

#[test]
fn what_format_1_has_sealed_still_opens() {
    let header = Header::decode(&of_format_1("header")).unwrap();
    let sources = [secret(&[0x22; 32]), secret(b"example-value"), secret(&[0x22; 32])];
    let mut roots = header
        .slots
        .iter()
        .zip(&sources)
        .map(|(slot, source)| slot.open(header.store, source).unwrap());
    let root = roots.next().unwrap();
    assert!(roots.all(|other| other.expose().constant_time_eq(root.expose())));
    assert_eq!(root.expose().expose(), [0x11; 32]);
    let keys = Keyring::open(header.store, &root, &of_format_1("keyring")).unwrap();
    assert_eq!(keys.epochs(), [(Epoch(1), at(1_000)), (Epoch(2), at(2_000))]);
    let value = keys.open_value(ID, Version(7), &of_format_1("value")).unwrap();
    assert_eq!(value.expose(), b"example-value");
    assert_eq!(*keys.open_record(ID, &of_format_1("record")).unwrap(), b"prod/db");
    assert_eq!(keys.open_lines(7, &of_format_1("lines")).unwrap(), b"{}\n");
    assert_eq!(keys.fingerprint(&value).to_vec(), of_format_1("fingerprint"));
    assert_eq!(keys.audit_key().to_vec(), of_format_1("audit-key"));
    assert_eq!(keys.inode("prod/db").0.to_be_bytes().to_vec(), of_format_1("inode"));
    assert!(keys.verify(b"generation 7", &of_format_1("root-record-mac")));
    let mut set = RecordSet::default();
    set.add(&keys.element(3, b"key", b"value"));
    assert_eq!(set.sum.to_vec(), of_format_1("element"));
}

/// One sealed thing in its place.
#[derive(Clone, Copy, Debug)]
enum Place {
    Lines(u8, u8),
    Record(u8, u8),
    Value(u8, u8, u64),
}

fn places() -> Vec<Place> {
    let mut places = Vec::new();
    for store in 0..2 {
        for id in 0..5 {
            places.push(Place::Lines(store, id));
            places.push(Place::Record(store, id));
            places.extend((1..3).map(|version| Place::Value(store, id, version)));
        }
    }
    places
}

#[test]
fn nothing_opens_in_a_place_that_is_not_its_own() {
    // Two stores that share all keys, as a copy with another id would: only the id differs.
    let root = RootKey::generate().unwrap();
    let first = keyring(0);
    let mut second = Keyring::open(StoreId([0; 16]), &root, &first.seal(&root).unwrap()).unwrap();
    second.store = StoreId([1; 16]);
    let stores = [first, second];
    let seal = |place: &Place| match *place {
        Place::Lines(store, slot) => {
            stores[usize::from(store)].seal_lines(slot, b"example-value").unwrap()
        }
        Place::Record(store, id) => {
            stores[usize::from(store)].seal_record(SecretId([id; 16]), b"example-value").unwrap()
        }
        Place::Value(store, id, version) => stores[usize::from(store)]
            .seal_value(SecretId([id; 16]), Version(version), &secret(b"example-value"))
            .unwrap(),
    };
    let opens = |place: &Place, sealed: &[u8]| match *place {
        Place::Lines(store, slot) => stores[usize::from(store)].open_lines(slot, sealed).is_ok(),
        Place::Record(store, id) => {
            stores[usize::from(store)].open_record(SecretId([id; 16]), sealed).is_ok()
        }
        Place::Value(store, id, version) => stores[usize::from(store)]
            .open_value(SecretId([id; 16]), Version(version), sealed)
            .is_ok(),
    };
    let places = places();
    let sealed: Vec<_> = places.iter().map(seal).collect();
    assert_eq!(places.len(), 40);
    for (i, place) in places.iter().enumerate() {
        for (j, sealed) in sealed.iter().enumerate() {
            assert_eq!(opens(place, sealed), i == j, "{:?} at {place:?}", places[j]);
        }
    }
}

#[test]
fn the_wrapped_key_of_one_version_does_not_open_the_content_of_another() {
    let keys = keyring(1);
    let seal = |version| keys.seal_value(ID, Version(version), &secret(b"example-value")).unwrap();
    let (old, new) = (seal(1), seal(2));
    let spliced = [&old[..64], &new[64..]].concat();
    assert!((1..3).all(|version| keys.open_value(ID, Version(version), &spliced).is_err()));
    assert!(keys.open_value(ID, Version(2), &old).is_err());
}

#[test]
fn a_new_epoch_rewraps_values_and_the_old_one_can_go() {
    let before = keyring(1);
    let sealed = before.seal_value(ID, Version(1), &secret(b"example-value")).unwrap();
    assert_eq!(before.rewrap_value(ID, Version(1), &sealed), Ok(None));
    let both = before.with_new_epoch(at(2_000)).unwrap();
    assert_eq!(both.epochs(), [(Epoch(1), at(1_000)), (Epoch(2), at(2_000))]);
    assert!(both.open_value(ID, Version(1), &sealed).is_ok());
    let rewrapped = both.rewrap_value(ID, Version(1), &sealed).unwrap().unwrap();
    assert_eq!(rewrapped[64..], sealed[64..]);
    let after = both.without(&[Epoch(1)]);
    let opened = after.open_value(ID, Version(1), &rewrapped).unwrap();
    assert_eq!(opened.expose(), b"example-value");
    let gone = after.open_value(ID, Version(1), &sealed).unwrap_err();
    assert_eq!(gone, CryptoError::UnknownEpoch(Epoch(1)));
    assert!(both.rewrap_value(ID, Version(2), &sealed).is_err());
}

#[test]
fn epochs_are_numbered_on_when_the_older_ones_are_gone() {
    let keys = keyring(1).with_new_epoch(at(2_000)).unwrap().without(&[Epoch(1), Epoch(2)]);
    let next = keys.with_new_epoch(at(3_000)).unwrap();
    assert_eq!(next.epochs(), [(Epoch(2), at(2_000)), (Epoch(3), at(3_000))]);
}

#[test]
fn changing_the_root_key_changes_the_keyring_alone() {
    let (old, new) = (RootKey::generate().unwrap(), RootKey::generate().unwrap());
    let keys = keyring(1).with_new_epoch(at(2_000)).unwrap();
    let value = keys.seal_value(ID, Version(1), &secret(b"example-value")).unwrap();
    let reopened = Keyring::open(keys.store(), &old, &keys.seal(&old).unwrap()).unwrap();
    let moved = Keyring::open(keys.store(), &new, &reopened.seal(&new).unwrap()).unwrap();
    assert!(moved.open_value(ID, Version(1), &value).is_ok());
    assert_eq!(moved.epochs(), keys.epochs());
    assert_eq!(moved.audit_key(), keys.audit_key());
    assert_eq!(moved.inode("prod/db"), keys.inode("prod/db"));
    assert_eq!(moved.element(3, b"k", b"v"), keys.element(3, b"k", b"v"));
}

#[test]
fn fingerprints_are_equal_for_equal_values_of_one_store_only() {
    let keys = keyring(1);
    let fingerprint = keys.fingerprint(&secret(b"example-value"));
    assert_eq!(fingerprint, keys.fingerprint(&secret(b"example-value")));
    assert_ne!(fingerprint, keys.fingerprint(&secret(b"example-valuf")));
    assert_ne!(fingerprint, keyring(1).fingerprint(&secret(b"example-value")));
}

#[test]
fn inode_numbers_are_distinct_and_leave_the_root_free() {
    let keys = keyring(1);
    let inodes: HashSet<_> = (0..10_000).map(|i| keys.inode(&format!("prod/{i}"))).collect();
    assert_eq!(inodes.len(), 10_000);
    assert!(inodes.iter().all(|inode| (2..1 << 63).contains(&inode.0)));
}

#[test]
fn no_nonce_and_no_data_key_comes_twice() {
    let full = setting("SECRETFS_CAMPAIGN").as_deref() == Some("full");
    let count = if full { UNIQUE_FULL } else { UNIQUE };
    let (keys, value) = (keyring(1), secret(b"example-value"));
    let (mut nonces, mut data_keys) = (HashSet::new(), HashSet::new());
    for _ in 0..count {
        let sealed = keys.seal_value(ID, Version(1), &value).unwrap();
        assert!(nonces.insert(sealed[4..16].to_vec()) && nonces.insert(sealed[64..76].to_vec()));
        assert!(data_keys.insert(data_key_of(&keys, &sealed)));
        assert!(nonces.insert(keys.seal_record(ID, b"record").unwrap()[4..16].to_vec()));
    }
}

/// Returns the data key of a sealed value.
fn data_key_of(keys: &Keyring, sealed: &[u8]) -> [u8; 32] {
    let mut key = [0; 32];
    let context = context::Context::new(context::Purpose::DataKey)
        .bytes(&[1; 16])
        .bytes(&ID.0)
        .number(1_u64)
        .number(1_u64);
    keys.active_keys().wrapping.open(&context, &sealed[4..64], &mut key).unwrap();
    key
}

#[test]
fn debug_of_what_holds_keys_shows_none() {
    let root = RootKey::from_secret(secret(&[0xa7; 32])).unwrap();
    assert_eq!(format!("{root:?}"), "RootKey(..)");
    let keys = keyring(1);
    let shown = format!("{keys:?}");
    assert!(shown.starts_with("Keyring { store: StoreId(0101"), "{shown}");
    assert_eq!(shown.matches("Epoch").count(), 1);
    assert!(shown.len() < 150, "{shown}");
}

#[test]
fn a_keyring_can_be_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Keyring>();
    shared::<RootKey>();
}

#[test]
fn sealing_and_opening_leave_no_plaintext_behind() {
    let Role::Child(_) = role() else {
        let test = "crypto::tests::sealing_and_opening_leave_no_plaintext_behind";
        assert!(run(test, "alone").finish().success());
        return;
    };
    let keys = keyring(1);
    for len in [48, 1_000, 100_000] {
        let value = SecretBytes::with_len(len, |room| {
            room.iter_mut().enumerate().for_each(|(i, b)| *b = canary(i));
            Ok::<_, CryptoError>(room.len())
        });
        let value = value.unwrap();
        let sealed = keys.seal_value(ID, Version(1), &value).unwrap();
        let opened = keys.open_value(ID, Version(1), &sealed).unwrap();
        assert!(canaries_in_memory(48) >= 2, "the search finds nothing");
        drop((value, opened));
        assert_eq!(canaries_in_memory(48), 0, "{len}");
    }
}
