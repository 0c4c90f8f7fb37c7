//! Whoever has the store's file, and may write to it (THREATS 1.2): S1 to S7.
//!
//! Elsewhere: S8 with rotation; S9 in `crypto::tests` (a downgrade of the passphrase's parameters); bit
//! flips in `store::tests::damage`; one deletion and one replay in `broker::tests`.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use secretfs::audit::Options;
use secretfs::broker::{
    Broker, BrokerError, Limits, LogSettings, Parts, Put, Which, read_header, unpack_backup,
    write_backup,
};
use secretfs::crypto::{CryptoError, RootKey, Slot, SlotKind};
use secretfs::model::{
    Caller, Gid, ManualClock, Process, SecretName, StoreId, Timestamp, Uid, Version,
};
use secretfs::policy::{NumericIds, Policy};
use secretfs::store::{MemoryStore, RedbStore, Store, StoreError, Table};
use secretfs::system::SecretBytes;

use super::{common, full};

const WRITER: u32 = 1_953_719_668;

type Entry = (Table, Vec<u8>, Vec<u8>);

/// A store and the directory that its log lies in; a broker is opened over them when it is needed.
pub(super) struct Stored {
    pub(super) store: Arc<dyn Store>,
    pub(super) directory: tempfile::TempDir,
}

impl Stored {
    fn new() -> Self {
        Self::over(Arc::new(MemoryStore::new()))
    }

    fn over(store: Arc<dyn Store>) -> Self {
        Self::at(store, tempfile::tempdir().unwrap())
    }

    pub(super) fn at(store: Arc<dyn Store>, directory: tempfile::TempDir) -> Self {
        Broker::create(&*store, &ManualClock::at(1_800_000_000), &mut slot).unwrap();
        Self { store, directory }
    }

    fn parts(&self) -> Parts {
        let policy = "[[role]]\nname = \"admin\"\nallow = [{ names = [\"**\"], levels = [\"admin\"] }]\n\
                      [[binding]]\nrole = \"admin\"\nuid = [0, 1953719668]\n";
        Parts {
            store: self.store.clone(),
            policy: Policy::parse(policy, &NumericIds).unwrap(),
            clock: Arc::new(ManualClock::at(1_800_000_000)),
            limits: Limits::default(),
            log: LogSettings {
                directory: self.directory.path().join("audit"),
                options: Options::default(),
                names: Arc::new(HashMap::<Uid, Arc<str>>::new()),
            },
            accept_rollback: false,
        }
    }

    fn root_key(&self) -> RootKey {
        let header = read_header(&*self.store).unwrap();
        header.slots[0].open(header.store, &key()).unwrap()
    }

    pub(super) fn open(&self) -> Result<Broker, BrokerError> {
        let broker = Broker::open(self.parts(), self.root_key())?;
        broker.wait_verified(Duration::from_secs(60)).unwrap();
        Ok(broker)
    }

    /// Stores so many secrets with a value each.
    fn fill(&self, count: usize) {
        let broker = self.open().unwrap();
        for number in 0..count {
            put(&broker, &secret(number), format!("value-{number}").as_bytes());
        }
        broker.close();
    }

    fn entries(&self, table: Table) -> Vec<Entry> {
        let mut entries = Vec::new();
        let mut keep = |key: &[u8], value: &[u8]| {
            entries.push((table, key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        };
        self.store.snapshot().unwrap().scan(table, &[], &mut keep).unwrap();
        entries
    }

    fn put_raw(&self, (table, key, value): &Entry) {
        let mut txn = self.store.begin().unwrap();
        txn.put(*table, key, value).unwrap();
        txn.commit().unwrap();
    }

    fn delete_raw(&self, (table, key, _): &Entry) {
        let mut txn = self.store.begin().unwrap();
        txn.delete(*table, key).unwrap();
        txn.commit().unwrap();
    }

    /// Tells whether a start says that something is wrong with the store.
    fn is_noticed(&self) -> bool {
        let Ok(broker) = self.open() else { return true };
        let noticed = broker.statistics().integrity != "verified";
        let silent = matches!(broker.look(&admin(), &name("none")), Err(BrokerError::NotFound(_)));
        broker.close();
        noticed && !silent
    }
}

fn slot(store: StoreId, root: &RootKey) -> Result<Slot, String> {
    Slot::seal(store, SlotKind::KeyFile, &key(), root).map_err(|err| err.to_string())
}

fn key() -> SecretBytes {
    SecretBytes::copy_from(&[7; 32]).unwrap()
}

fn admin() -> Caller {
    Caller::with_ids(Uid(0), Gid(0))
}

fn name(text: &str) -> SecretName {
    text.parse().unwrap()
}

fn secret(number: usize) -> String {
    format!("app/key-{number:04}")
}

pub(super) fn put(broker: &Broker, secret: &str, value: &[u8]) -> Version {
    let value = SecretBytes::copy_from(value).unwrap();
    broker.write(&admin(), &name(secret), value, &Put::default()).unwrap()
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

/// S1. The audit log holds names, uids and comms by design: it is for its owner and its readers.
#[test]
fn a_stolen_store_or_backup_holds_nothing_of_a_corpus_in_clear() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("store");
    let stored = Stored::over(Arc::new(RedbStore::create(&file).unwrap()));
    let broker = stored.open().unwrap();
    let caller = Caller {
        process: Some(Arc::new(Process {
            pid: 4242,
            started: Timestamp::UNIX_EPOCH,
            comm: b"corpus-comm".to_vec(),
            exe: None,
            unit: Some("system.slice/corpus-unit.service".into()),
            container: None,
        })),
        ..Caller::with_ids(Uid(WRITER), Gid(WRITER))
    };
    for number in 0..if full() { 1000 } else { 100 } {
        let secret = name(&format!("corpus-dir-{number}/corpus-name-{number}"));
        let value = SecretBytes::copy_from(format!("corpus-value-{number}").as_bytes()).unwrap();
        broker.write(&caller, &secret, value, &Put::default()).unwrap();
        for (attribute, text) in [
            ("description", "corpus-description"),
            ("tags", "corpus-tag"),
            ("service", "corpus-service"),
        ] {
            broker.set_attribute(&caller, &secret, attribute, Some(text)).unwrap();
        }
    }
    let mut backup = Vec::new();
    broker.backup(&admin(), &mut backup).unwrap();
    broker.close();
    let bytes = std::fs::read(&file).unwrap();
    for (what, bytes) in [("store", &bytes), ("backup", &backup)] {
        for clear in [&b"corpus-"[..], b"1953719668", &WRITER.to_le_bytes(), &WRITER.to_be_bytes()]
        {
            assert!(!contains(bytes, clear), "{what} holds {:?}", String::from_utf8_lossy(clear));
        }
    }
}

/// S2: every value in the place of every other.
#[test]
fn no_value_opens_in_the_place_of_another() {
    let stored = Stored::new();
    let count = if full() { 200 } else { 60 };
    stored.fill(count);
    let broker = stored.open().unwrap();
    let names: HashMap<Vec<u8>, SecretName> = (0..count)
        .map(|number| name(&secret(number)))
        .map(|name| (broker.describe(&admin(), &name).unwrap().secret.id.0.to_vec(), name))
        .collect();
    let values = stored.entries(Table::Values);
    let mut refused = 0;
    for (place, other) in pairs(&values) {
        stored.put_raw(&(Table::Values, place.1.clone(), other.2.clone()));
        let read = broker.read(&admin(), &names[&place.1[..16]], Which::Current);
        assert!(matches!(read, Err(BrokerError::Damaged(CryptoError::Damaged))), "{read:?}");
        refused += 1;
        stored.put_raw(place);
    }
    assert_eq!(refused, count * (count - 1));
    // What was put back reads again: none of the refusals came from something else.
    for (id, name) in &names {
        assert!(broker.read(&admin(), name, Which::Current).is_ok(), "{id:?}");
    }
    broker.close();
}

/// S2: every record in the place of every other.
#[test]
fn no_record_opens_in_the_place_of_another() {
    let stored = Stored::new();
    let count = if full() { 200 } else { 60 };
    stored.fill(count);
    let broker = stored.open().unwrap();
    let names: HashMap<Vec<u8>, SecretName> = (0..count)
        .map(|number| name(&secret(number)))
        .map(|name| (broker.describe(&admin(), &name).unwrap().secret.id.0.to_vec(), name))
        .collect();
    let records = stored.entries(Table::Records);
    let mut refused = 0;
    for (place, other) in pairs(&records) {
        stored.put_raw(&(Table::Records, place.1.clone(), other.2.clone()));
        assert!(broker.describe(&admin(), &names[&place.1]).is_err());
        refused += 1;
        stored.put_raw(place);
    }
    assert_eq!(refused, count * (count - 1));
    assert!(names.values().all(|name| broker.describe(&admin(), name).is_ok()));
    broker.close();
}

fn pairs(entries: &[Entry]) -> impl Iterator<Item = (&Entry, &Entry)> {
    let others = |place| entries.iter().map(move |other| (place, other));
    entries.iter().flat_map(others).filter(|(place, other)| place.1 != other.1)
}

/// S2 and S3 at the start: two entries exchanged, or one put back as it was, are noticed before
/// anybody is told that a name is not there.
#[test]
fn an_exchange_or_a_replay_is_noticed_at_the_next_start() {
    let stored = Stored::new();
    stored.fill(8);
    let tables = [Table::Records, Table::Values];
    let before: Vec<Entry> = tables.iter().flat_map(|table| stored.entries(*table)).collect();
    let broker = stored.open().unwrap();
    for number in 0..8 {
        put(&broker, &secret(number), b"newer");
    }
    broker.close();
    assert!(!stored.is_noticed());
    for old in &before {
        let now: Vec<_> =
            stored.entries(old.0).into_iter().filter(|entry| entry.1 == old.1).collect();
        stored.put_raw(old);
        assert_eq!(stored.is_noticed(), now[0].2 != old.2, "{:?}", old.0);
        stored.put_raw(&now[0]);
    }
    for table in tables {
        let entries = stored.entries(table);
        let (first, second) = (&entries[0], &entries[1]);
        stored.put_raw(&(table, first.1.clone(), second.2.clone()));
        stored.put_raw(&(table, second.1.clone(), first.2.clone()));
        assert!(stored.is_noticed(), "{table:?}");
        stored.put_raw(first);
        stored.put_raw(second);
    }
    assert!(!stored.is_noticed());
}

/// S4.
#[test]
fn a_store_of_any_earlier_generation_is_refused() {
    let stored = Stored::new();
    let generations = if full() { 100 } else { 20 };
    let mut copies = Vec::new();
    for number in 0..generations {
        let mut copy = Vec::new();
        write_backup(&*stored.store, &mut copy).unwrap();
        copies.push(copy);
        let broker = stored.open().unwrap();
        put(&broker, "app/key", format!("{number}").as_bytes());
        broker.close();
    }
    let mut newest = Vec::new();
    write_backup(&*stored.store, &mut newest).unwrap();
    for (number, copy) in copies.iter().enumerate() {
        unpack_backup(&mut &copy[..], &*stored.store).unwrap();
        let opened = stored.open();
        // The very first has no head of the log in it, and the log's own anchors tell.
        assert!(matches!(opened, Err(BrokerError::Rollback { .. })), "{number}: {opened:?}");
    }
    unpack_backup(&mut &newest[..], &*stored.store).unwrap();
    stored.open().unwrap().close();
}

/// S5: any entry but the header's, which has to be there for anything to open, and the lines that
/// commits have carried, which the log has.
#[test]
fn the_deletion_of_any_entry_is_noticed() {
    let stored = Stored::new();
    stored.fill(if full() { 500 } else { 60 });
    let tables = [Table::Keyring, Table::Root, Table::Records, Table::Values];
    let mut entries: Vec<Entry> = tables.iter().flat_map(|table| stored.entries(*table)).collect();
    entries.retain(|(table, key, _)| *table != Table::Root || key == b"root");
    for entry in &entries {
        stored.delete_raw(entry);
        assert!(stored.is_noticed(), "{:?}", entry.0);
        stored.put_raw(entry);
    }
    assert!(entries.len() > 100 && !stored.is_noticed());
}

/// S6, for whole stores; `store::tests::damage` has flips.
#[test]
fn a_truncated_store_is_damaged_and_never_an_empty_one() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("store");
    let stored = Stored::over(Arc::new(RedbStore::create(&file).unwrap()));
    stored.fill(20);
    drop(stored);
    let whole = std::fs::read(&file).unwrap();
    let cuts = if full() { 10_000 } else { 200 };
    for cut in (0..cuts).map(|nth| whole.len() * nth / cuts) {
        std::fs::write(&file, &whole[..cut]).unwrap();
        match RedbStore::open(&file) {
            Err(StoreError::Damaged(_) | StoreError::Io(_)) => {}
            Err(other) => panic!("cut at {cut}: {other:?}"),
            Ok(store) => assert!(is_whole(&store), "cut at {cut}"),
        }
    }
}

/// Tells whether a store that opened holds all 20 secrets.
fn is_whole(store: &dyn Store) -> bool {
    let snapshot = store.snapshot().unwrap();
    snapshot.len(Table::Records).unwrap() == 20 && snapshot.len(Table::Values).unwrap() == 20
}

/// S7.
#[test]
fn another_valid_store_in_the_place_of_ours_is_refused() {
    let (ours, theirs) = (Stored::new(), Stored::new());
    ours.fill(3);
    theirs.fill(5);
    let swapped = Parts { store: theirs.store.clone(), ..ours.parts() };
    let with_our_key = Broker::open(swapped, ours.root_key());
    assert!(
        matches!(with_our_key, Err(BrokerError::Key(CryptoError::WrongKey))),
        "{with_our_key:?}"
    );
    let swapped = Parts { store: theirs.store.clone(), ..ours.parts() };
    let with_its_own = Broker::open(swapped, theirs.root_key());
    assert!(with_its_own.is_err(), "it was opened beside the log of another store");
    assert!(ours.open().is_ok());
}

/// S1, in memory: a core that root forces out of the daemon holds no value that was read. It holds names,
/// for the index is in ordinary memory; and after a write it may hold what each thread was last sent,
/// for fuser does not wipe its buffers (DECISIONS 11). So the daemon that wrote is not the one looked at.
#[test]
fn a_core_that_root_forces_holds_no_value_that_was_read() {
    if !Path::new("/usr/bin/gcore").exists() {
        return common::skip("no gcore here");
    }
    let Some(mut world) = common::World::start() else { return };
    // Put together at run time: this program's own text is no witness.
    let canary = ["canary", "-in-core-", "7f3a"].concat();
    let secrets: Vec<String> = (0..50).map(|number| format!("k{number}")).collect();
    for secret in &secrets {
        world.put(secret, &canary);
    }
    world.kill_and_restart();
    let held: Vec<_> =
        secrets.iter().map(|secret| std::fs::File::open(world.path(secret)).unwrap()).collect();
    assert!(secrets.iter().all(|secret| world.get(secret).unwrap() == canary.as_bytes()));
    let pid = world.pid().to_string();
    let mut gcore = std::process::Command::new("gcore");
    let output = common::bounded(gcore.arg("-o").arg(world.outside("core")).arg(&pid));
    let core = std::fs::read(world.outside(&format!("core.{pid}")));
    let core = core.unwrap_or_else(|err| panic!("{err}: {output:?}"));
    assert!(core.len() > 1 << 20);
    assert!(contains(&core, b"secretfs"), "this is no core of ours");
    assert!(!contains(&core, canary.as_bytes()), "a value is in the core");
    drop(held);
}
