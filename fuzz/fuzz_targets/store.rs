//! Any bytes as a record that authenticates: what its writer, a later release or a bug of ours, sealed.
#![no_main]

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use secretfs::audit::Options;
use secretfs::broker::{Broker, Limits, LogSettings, Parts, read_header};
use secretfs::crypto::{Keyring, RootKey, Slot, SlotKind};
use secretfs::model::{Caller, Gid, ManualClock, SecretId, StoreId, Uid};
use secretfs::policy::{NumericIds, Policy};
use secretfs::store::{MemoryStore, Store, Table};
use secretfs::system::SecretBytes;

const ID: SecretId = SecretId([1; 16]);

static STORE: LazyLock<(Arc<MemoryStore>, Keyring, tempfile::TempDir)> = LazyLock::new(|| {
    let store = Arc::new(MemoryStore::new());
    let root = Broker::create(&*store, &ManualClock::at(0), &mut slot).unwrap();
    let header = read_header(&*store).unwrap();
    let sealed = store.get(Table::Keyring, b"keyring").unwrap().unwrap();
    let keyring = Keyring::open(header.store, &root, &sealed).unwrap();
    (store, keyring, tempfile::tempdir().unwrap())
});

fuzz_target!(|bytes: &[u8]| {
    let (store, keyring, directory) = &*STORE;
    let mut txn = store.begin().unwrap();
    txn.put(Table::Records, &ID.0, &keyring.seal_record(ID, bytes).unwrap()).unwrap();
    txn.commit().unwrap();
    let parts = Parts {
        store: store.clone(),
        policy: Policy::parse("", &NumericIds).unwrap(),
        clock: Arc::new(ManualClock::at(0)),
        limits: Limits::default(),
        log: LogSettings {
            directory: directory.path().join("audit"),
            options: Options::default(),
            names: Arc::new(HashMap::<Uid, Arc<str>>::new()),
        },
        accept_rollback: false,
    };
    let header = read_header(&**store).unwrap();
    let root = header.slots[0].open(header.store, &key()).unwrap();
    let Ok(broker) = Broker::open(parts, root) else { return };
    let _ = broker.list(&Caller::with_ids(Uid(0), Gid(0)), None, None, 10);
    broker.close();
});

fn key() -> SecretBytes {
    SecretBytes::copy_from(&[7; 32]).unwrap()
}

fn slot(store: StoreId, root: &RootKey) -> Result<Slot, String> {
    Slot::seal(store, SlotKind::KeyFile, &key(), root).map_err(|err| err.to_string())
}
