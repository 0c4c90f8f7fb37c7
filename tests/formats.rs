//! A store of every released format opens, with all that was in it.
#![expect(clippy::unwrap_used, reason = "a test file")]

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use secretfs::audit::Options;
use secretfs::broker::{
    Broker, Kind, Limits, LogSettings, Parts, Progress, Which, read_header, unpack_backup,
};
use secretfs::keysource::KeySource;
use secretfs::model::{Caller, Gid, SecretName, Uid, Version};
use secretfs::policy::{NumericIds, Policy, initial};
use secretfs::store::MemoryStore;
use secretfs::system::SystemClock;

#[test]
fn a_store_of_format_1_opens_with_its_values_versions_metadata_and_trash() {
    let opened = Opened::fixture("format-1");
    let broker = &opened.broker;
    assert_eq!(opened.value("api-key", Which::Current), b"example-value-2");
    assert_eq!(opened.value("api-key", Which::Number(Version(1))), b"example-value-1");
    assert_eq!(opened.value("prod/db/password", Which::Current), b"example-password");
    let described = broker.describe(&admin(), &name("api-key")).unwrap();
    assert_eq!(described.metadata.attributes.tags, ["shared".into(), "web".into()]);
    let listed = broker.list(&admin(), None, None, 10).unwrap();
    let empty = listed.iter().find(|entry| &*entry.segment == "empty").unwrap();
    assert_eq!(empty.kind, Kind::Directory);
    assert_eq!(broker.trash(&admin()).unwrap()[0].name, name("removed"));
    assert!(broker.verify(&admin(), &Progress::default()).unwrap().faults.is_empty());
}

struct Opened {
    broker: Broker,
    _directory: tempfile::TempDir,
}

impl Opened {
    fn fixture(format: &str) -> Self {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/stores").join(format);
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(MemoryStore::new());
        unpack_backup(&mut &*fs::read(fixture.join("store.backup")).unwrap(), &*store).unwrap();
        // Git keeps no mode, and a key file that others may read is refused.
        let key = directory.path().join("root.key");
        fs::copy(fixture.join("root.key"), &key).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o400)).unwrap();
        let root = KeySource::File(key).unlock(&read_header(&*store).unwrap()).unwrap();
        let parts = Parts {
            store,
            policy: Policy::parse(&initial(&[Uid(0)]), &NumericIds).unwrap(),
            clock: Arc::new(SystemClock),
            limits: Limits::default(),
            log: LogSettings {
                directory: directory.path().join("audit"),
                options: Options::default(),
                names: Arc::new(HashMap::<Uid, Arc<str>>::new()),
            },
            // The log of the store's own time is not here.
            accept_rollback: true,
        };
        let broker = Broker::open(parts, root).unwrap();
        broker.wait_verified(Duration::from_secs(60)).unwrap();
        Self { broker, _directory: directory }
    }

    fn value(&self, secret: &str, which: Which) -> Vec<u8> {
        let opened = self.broker.read(&admin(), &name(secret), which).unwrap();
        opened.value.expose().to_vec()
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.broker.close();
    }
}

fn admin() -> Caller {
    Caller::with_ids(Uid(0), Gid(0))
}

fn name(text: &str) -> SecretName {
    text.parse().unwrap()
}
