//! The broker over a store in memory, a real log and a real policy.

use std::collections::HashMap;
use std::io::Cursor;

use super::*;
use crate::audit::{Entry, Filter};
use crate::crypto::{Slot, SlotKind};
use crate::model::{Gid, Level, Levels, ManualClock, SecretName, Uid, Version};
use crate::policy::NumericIds;
use crate::store::{FailedCommit, MemoryStore, Snapshot, Store, Txn};
use crate::system::SecretBytes;

mod approval;
mod carrying;
mod damage;
mod elevation;
mod lease;
mod load;
mod log;
mod older;
mod power_cut;
mod quarantine;
mod set;
mod share;

const CANARY: &[u8] = b"canary-7f3a";
const POLICY: &str = r#"
    [[role]]
    name = "admin"
    allow = [{ names = ["**"], levels = ["admin"] }]
    [[role]]
    name = "app"
    allow = [
        { names = ["app/*"], levels = ["read", "write"] },
        { tags = ["shared"], levels = ["read"] },
    ]
    deny = [{ names = ["app/root"], levels = ["read", "write", "delete"] }]
    [[role]]
    name = "once"
    allow = [{ names = ["app/key"], levels = ["read"] }]
    [[role]]
    name = "tree"
    allow = [{ names = ["tree/**"], levels = ["write"] }]
    [[binding]]
    role = "tree"
    uid = [1002]
    [[binding]]
    role = "admin"
    uid = [0]
    [[binding]]
    role = "app"
    uid = [1000]
    [[binding]]
    id = "two-reads"
    role = "once"
    uid = [1001]
    max_uses = 2
"#;

/// A broker, and what it stands on.
struct World {
    broker: Option<Broker>,
    store: Arc<MemoryStore>,
    clock: Arc<ManualClock>,
    limits: Limits,
    directory: tempfile::TempDir,
}

fn caller(uid: u32) -> Caller {
    Caller::with_ids(Uid(uid), Gid(uid))
}

fn admin() -> Caller {
    caller(0)
}

fn name(text: &str) -> SecretName {
    text.parse().unwrap()
}

fn bytes(value: &[u8]) -> SecretBytes {
    SecretBytes::copy_from(value).unwrap()
}

fn key() -> SecretBytes {
    bytes(&[7; 32])
}

fn make_slot(store: StoreId, root: &RootKey) -> std::result::Result<Slot, String> {
    Slot::seal(store, SlotKind::KeyFile, &key(), root).map_err(|err| err.to_string())
}

impl World {
    fn new() -> Self {
        let store = Arc::new(MemoryStore::new());
        let clock = Arc::new(ManualClock::at(1_800_000_000));
        let root = Broker::create(&*store, &*clock, &mut make_slot).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let mut world = Self { broker: None, store, clock, limits: Limits::default(), directory };
        world.broker = Some(Broker::open(world.parts(), root).unwrap());
        world.wait_verified();
        world
    }

    fn parts(&self) -> Parts {
        Parts {
            store: Arc::<MemoryStore>::clone(&self.store),
            policy: Policy::parse(POLICY, &NumericIds).unwrap(),
            clock: Arc::<ManualClock>::clone(&self.clock),
            limits: self.limits.clone(),
            log: LogSettings {
                directory: self.directory.path().join("audit"),
                options: crate::audit::Options {
                    check_interval: Duration::ZERO,
                    // Nothing reaches the disk by chance.
                    sync_interval: Duration::from_secs(365 * 24 * 3600),
                    ..crate::audit::Options::default()
                },
                names: Arc::new(HashMap::<Uid, Arc<str>>::new()),
            },
            accept_rollback: false,
        }
    }

    fn root_key(&self) -> RootKey {
        let header = read_header(&*self.store).unwrap();
        header.slots[0].open(header.store, &key()).unwrap()
    }

    fn close(&mut self) {
        let broker = self.broker.take().unwrap();
        broker.close();
    }

    fn reopen(&mut self) -> Result<()> {
        self.close();
        self.broker = Some(Broker::open(self.parts(), self.root_key())?);
        self.wait_verified();
        Ok(())
    }

    fn wait_verified(&self) {
        self.broker().wait_verified(Duration::from_secs(60)).unwrap();
    }

    fn broker(&self) -> &Broker {
        self.broker.as_ref().unwrap()
    }

    fn put(&self, secret: &str, value: &[u8]) -> Version {
        self.broker().write(&admin(), &name(secret), bytes(value), &Put::default()).unwrap()
    }

    fn read(&self, uid: u32, secret: &str) -> Result<Vec<u8>> {
        self.broker()
            .read(&caller(uid), &name(secret), Which::Current)
            .map(|opened| opened.value.expose().to_vec())
    }

    /// Makes changes that share one transaction, in this order.
    fn together(&self, changes: &[&(dyn Fn() + Sync)]) {
        let inner = &self.broker().inner;
        let wait = |jobs| {
            while inner.writer.get().unwrap().queued() != jobs {
                std::thread::yield_now();
            }
        };
        let (release, held) = std::sync::mpsc::channel::<()>();
        let hold = move |_: &mut super::batch::Batch<'_>| {
            held.recv().unwrap();
            Ok(())
        };
        inner.submit_then(super::writer::Company::Shared, hold, drop);
        wait(0);
        std::thread::scope(|scope| {
            for (number, change) in changes.iter().enumerate() {
                scope.spawn(change);
                wait(number + 1);
            }
            release.send(()).unwrap();
        });
    }

    /// The log's lines about one secret.
    fn lines(&self, secret: &str) -> Vec<Entry> {
        let filter = Filter { secret: Some(name(secret)), ..Filter::default() };
        let directory = self.directory.path().join("audit");
        crate::audit::query(&directory, &filter).unwrap().map(|entry| entry.unwrap()).collect()
    }

    fn outcomes(&self, secret: &str) -> Vec<(Action, Outcome)> {
        self.lines(secret).iter().map(|entry| (entry.action, entry.outcome)).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(broker) = self.broker.take() {
            broker.close();
        }
    }
}

#[test]
fn a_written_value_is_read_back_by_who_may_and_both_are_on_record() {
    let world = World::new();
    world.put("app/key", CANARY);
    assert_eq!(world.read(1000, "app/key").unwrap(), CANARY);
    assert_eq!(
        world.outcomes("app/key"),
        [(Action::Write, Outcome::Allowed), (Action::Read, Outcome::Allowed)]
    );
}

#[test]
fn a_refused_read_is_on_record_and_is_the_same_for_what_does_not_exist() {
    let world = World::new();
    world.put("other/key", CANARY);
    let forbidden = world.read(1000, "other/key").unwrap_err();
    let missing = world.read(1000, "other/none").unwrap_err();
    assert!(matches!(forbidden, BrokerError::Denied));
    assert_eq!(forbidden.to_string(), missing.to_string());
    assert_eq!(world.outcomes("other/key").last(), Some(&(Action::Read, Outcome::Denied)));
    assert_eq!(world.outcomes("other/none"), [(Action::Read, Outcome::Denied)]);
}

#[test]
fn looking_and_listing_tell_a_caller_only_what_it_may_know() {
    let world = World::new();
    for secret in ["app/key", "app/root", "other/key"] {
        world.put(secret, CANARY);
    }
    let broker = world.broker();
    let listed = |dir: Option<&str>| -> Vec<String> {
        let dir = dir.map(name);
        let listed = broker.list(&caller(1000), dir.as_ref(), None, 100).unwrap();
        listed.iter().map(|entry| entry.segment.to_string()).collect()
    };
    assert_eq!(listed(None), ["app"]);
    assert_eq!(listed(Some("app")), ["key"]);
    assert!(matches!(broker.look(&caller(1000), &name("app/key")), Ok(Found::Secret(_))));
    assert!(matches!(broker.look(&caller(1000), &name("app/none")), Err(BrokerError::NotFound(_))));
    assert!(matches!(broker.look(&caller(1000), &name("app/root")), Err(BrokerError::Denied)));
    assert!(matches!(broker.look(&caller(1000), &name("other")), Err(BrokerError::Denied)));
    assert!(matches!(broker.look(&caller(1000), &name("nowhere")), Err(BrokerError::Denied)));
}

#[test]
fn a_rule_by_tag_opens_a_secret_and_the_directories_above_it() {
    let world = World::new();
    world.put("other/deep/key", CANARY);
    world.put("other/deep/secret", CANARY);
    world
        .broker()
        .set_attribute(&admin(), &name("other/deep/key"), "tags", Some("shared"))
        .unwrap();
    assert_eq!(world.read(1000, "other/deep/key").unwrap(), CANARY);
    assert!(world.read(1000, "other/deep/secret").is_err());
    let listed = world.broker().list(&caller(1000), Some(&name("other/deep")), None, 9).unwrap();
    assert_eq!(listed.len(), 1);
}

#[test]
fn every_version_is_kept_and_read_by_its_number() {
    let world = World::new();
    for value in [b"one".as_slice(), b"two", b"three"] {
        world.put("app/key", value);
    }
    let read = |which| {
        let opened = world.broker().read(&admin(), &name("app/key"), which).unwrap();
        (opened.version, opened.value.expose().to_vec())
    };
    assert_eq!(read(Which::Number(Version(1))), (Version(1), b"one".to_vec()));
    assert_eq!(read(Which::Previous), (Version(2), b"two".to_vec()));
    assert_eq!(read(Which::Current), (Version(3), b"three".to_vec()));
}

#[test]
fn a_staged_version_is_an_admins_alone_until_it_is_promoted() {
    let world = World::new();
    world.put("app/key", b"old");
    let stage = Put { stage: true, ..Put::default() };
    let broker = world.broker();
    let staged = broker.write(&admin(), &name("app/key"), bytes(b"new"), &stage).unwrap();
    assert_eq!(world.read(1000, "app/key").unwrap(), b"old");
    let pending = |uid| broker.read(&caller(uid), &name("app/key"), Which::Pending);
    assert!(matches!(pending(1000), Err(BrokerError::Denied)));
    assert_eq!(pending(0).unwrap().value.expose(), b"new");
    let by_number = broker.read(&caller(1000), &name("app/key"), Which::Number(staged));
    assert!(matches!(by_number, Err(BrokerError::NotFound(_))));
    broker.promote(&admin(), &name("app/key")).unwrap();
    assert_eq!(world.read(1000, "app/key").unwrap(), b"new");
}

#[test]
fn an_expectation_that_does_not_hold_changes_nothing() {
    let world = World::new();
    world.put("app/key", b"one");
    world.put("app/key", b"two");
    let put = Put { expect: Some(Version(1)), ..Put::default() };
    let err = world.broker().write(&admin(), &name("app/key"), bytes(b"x"), &put).unwrap_err();
    assert!(matches!(err, BrokerError::ExpectationFailed { .. }));
    assert_eq!(world.read(0, "app/key").unwrap(), b"two");
}

#[test]
fn a_rename_keeps_the_history_and_onto_a_secret_makes_a_version_of_it() {
    let world = World::new();
    world.put("app/a", b"a1");
    world.put("app/a", b"a2");
    world.put("app/b", b"b1");
    let broker = world.broker();
    broker.rename(&admin(), &name("app/a"), &name("app/c"), Replace::Allowed).unwrap();
    assert_eq!(broker.history(&admin(), &name("app/c")).unwrap().1.len(), 2);
    let refused = broker.rename(&admin(), &name("app/c"), &name("app/b"), Replace::Refused);
    assert!(matches!(refused, Err(BrokerError::Exists(_))));
    broker.rename(&admin(), &name("app/c"), &name("app/b"), Replace::Allowed).unwrap();
    assert_eq!(world.read(0, "app/b").unwrap(), b"a2");
    assert_eq!(broker.history(&admin(), &name("app/b")).unwrap().1.len(), 2);
    assert_eq!(broker.trash(&admin()).unwrap()[0].name, name("app/c"));
}

#[test]
fn a_directory_moves_with_all_that_is_in_it() {
    let mut world = World::new();
    world.put("app/x/one", b"1");
    world.put("app/x/two", b"2");
    world.broker().make_directory(&admin(), &name("app/x/empty")).unwrap();
    world.broker().rename(&admin(), &name("app/x"), &name("new"), Replace::Allowed).unwrap();
    world.reopen().unwrap();
    assert_eq!(world.read(0, "new/two").unwrap(), b"2");
    let listed = world.broker().list(&admin(), Some(&name("new")), None, 9).unwrap();
    assert_eq!(listed.len(), 3);
    assert!(matches!(world.broker().look(&admin(), &name("app")), Err(BrokerError::NotFound(_))));
}

#[test]
fn a_removed_secret_is_in_the_trash_until_it_is_restored_or_purged() {
    let world = World::new();
    let broker = world.broker();
    world.put("app/a", CANARY);
    world.put("app/b", CANARY);
    broker.remove(&admin(), &name("app/a")).unwrap();
    assert!(matches!(world.read(0, "app/a"), Err(BrokerError::NotFound(_))));
    let trashed = broker.trash(&admin()).unwrap();
    broker.restore(&admin(), trashed[0].id, None).unwrap();
    assert_eq!(world.read(0, "app/a").unwrap(), CANARY);
    broker.remove(&admin(), &name("app/b")).unwrap();
    world.clock.advance(Duration::from_secs(31 * 24 * 3600));
    assert_eq!(broker.purge_trash().unwrap(), 1);
    assert!(broker.trash(&admin()).unwrap().is_empty());
    assert!(broker.verify(&admin(), &Progress::default()).unwrap().faults.is_empty());
}

#[test]
fn a_binding_is_spent_after_its_uses_also_over_a_restart() {
    let mut world = World::new();
    world.put("app/key", CANARY);
    assert!(world.read(1001, "app/key").is_ok());
    world.reopen().unwrap();
    assert!(world.read(1001, "app/key").is_ok());
    assert!(matches!(world.read(1001, "app/key"), Err(BrokerError::Denied)));
}

#[test]
fn metadata_that_is_objected_to_is_not_stored_and_only_who_may_set_it_hears_why() {
    struct NoColour;
    impl Inspect for NoColour {
        fn inspect(&self, what: &str, text: &str) -> std::result::Result<(), String> {
            if text.contains("blue") { Err(format!("a colour in {what}")) } else { Ok(()) }
        }
    }
    let world = World::new();
    world.put("app/key", b"v");
    world.broker().inspect_with(Box::new(NoColour));
    let set = |by: &Caller, value| {
        world.broker().set_attribute(by, &name("app/key"), "description", Some(value))
    };
    set(&admin(), "green").unwrap();
    let refused = set(&admin(), "blue").unwrap_err();
    assert!(
        matches!(&refused, BrokerError::Invalid(why) if why.contains("a colour in description"))
    );
    assert!(matches!(set(&caller(4242), "blue"), Err(BrokerError::Denied)));
    let kept = world.broker().describe(&admin(), &name("app/key")).unwrap();
    assert_eq!(kept.metadata.description.as_deref(), Some("green"));
}

#[test]
fn a_revoked_or_expired_secret_is_not_read_until_it_has_a_new_value() {
    let world = World::new();
    world.put("app/key", b"old");
    let set = |attribute, value| {
        world.broker().set_attribute(&admin(), &name("app/key"), attribute, Some(value)).unwrap();
    };
    set("status", "revoked");
    assert!(matches!(world.read(0, "app/key"), Err(BrokerError::Revoked(_))));
    world.put("app/key", b"new");
    assert_eq!(world.read(0, "app/key").unwrap(), b"new");
    set("expires", "2027-01-31");
    world.clock.advance(Duration::from_secs(365 * 24 * 3600));
    assert!(matches!(world.read(0, "app/key"), Err(BrokerError::Expired(_))));
    assert_eq!(world.outcomes("app/key").last(), Some(&(Action::Read, Outcome::Failed)));
}

#[test]
fn a_revoked_secret_comes_back_from_the_trash_as_one() {
    let world = World::new();
    world.put("app/key", b"leaked");
    let broker = world.broker();
    broker.set_attribute(&admin(), &name("app/key"), "status", Some("revoked")).unwrap();
    broker.remove(&admin(), &name("app/key")).unwrap();
    let trashed = broker.trash(&admin()).unwrap()[0].id;
    broker.restore(&admin(), trashed, None).unwrap();
    assert!(matches!(world.read(0, "app/key"), Err(BrokerError::Revoked(_))));
    world.put("app/key", b"new");
    assert_eq!(world.read(0, "app/key").unwrap(), b"new");
}

#[test]
fn sealed_means_no_value_no_name_and_no_change() {
    let world = World::new();
    world.put("app/key", CANARY);
    world.broker().seal(&admin()).unwrap();
    assert!(matches!(world.read(0, "app/key"), Err(BrokerError::Sealed)));
    assert!(matches!(world.broker().look(&admin(), &name("app/key")), Err(BrokerError::Sealed)));
    let write = world.broker().write(&admin(), &name("app/x"), bytes(b"x"), &Put::default());
    assert!(matches!(write, Err(BrokerError::Sealed)));
    assert!(world.broker().unseal(&caller(1000), world.root_key()).is_err());
    world.broker().unseal(&admin(), world.root_key()).unwrap();
    assert_eq!(world.read(0, "app/key").unwrap(), CANARY);
}

#[test]
fn many_writers_at_once_lose_no_version() {
    let world = World::new();
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let world = &world;
            scope.spawn(move || {
                for round in 0..25 {
                    world.put("app/key", format!("{writer}-{round}").as_bytes());
                }
            });
        }
    });
    let (_, versions) = world.broker().history(&admin(), &name("app/key")).unwrap();
    assert_eq!(versions.len(), 200);
    assert_eq!(versions.last().unwrap().version, Version(200));
}

#[test]
fn the_store_holds_no_name_and_no_value_in_clear() {
    let world = World::new();
    world.put("app/peculiar-name", CANARY);
    let mut copy = Vec::new();
    write_backup(&*world.store, &mut copy).unwrap();
    for clear in [CANARY, b"peculiar-name", b"app/"] {
        assert!(!copy.windows(clear.len()).any(|window| window == clear));
    }
}

#[test]
fn a_flood_of_refusals_is_summarised_and_grants_are_not() {
    let world = World::new();
    world.put("app/key", CANARY);
    for _ in 0..200 {
        assert!(world.read(1000, "other/none").is_err());
        world.read(1000, "app/key").unwrap();
    }
    let reads = world.lines("app/key").iter().filter(|entry| entry.action == Action::Read).count();
    assert_eq!(reads, 200);
    assert_eq!(world.lines("other/none").len(), 50);
}

#[test]
fn only_an_admin_of_the_whole_store_may_run_commands_on_it() {
    let world = World::new();
    let stranger = caller(1000);
    let broker = world.broker();
    assert!(matches!(broker.seal(&stranger), Err(BrokerError::Denied)));
    assert!(matches!(broker.verify(&stranger, &Progress::default()), Err(BrokerError::Denied)));
    assert!(matches!(broker.backup(&stranger, &mut Vec::new()), Err(BrokerError::Denied)));
    assert!(matches!(broker.rotate_epoch(&stranger), Err(BrokerError::Denied)));
    assert!(!broker.is_sealed());
    assert!(matches!(
        broker.check(&stranger, Level::Admin, &name("app/key")),
        Err(BrokerError::Denied)
    ));
}

/// A store that counts what is asked of it, and lets the verification wait while a test holds it.
struct Watched {
    inner: Arc<MemoryStore>,
    asked: AtomicU64,
    held: Arc<Mutex<()>>,
}

impl Store for Watched {
    fn get(&self, table: Table, key: &[u8]) -> std::result::Result<Option<Vec<u8>>, StoreError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.inner.get(table, key)
    }

    fn snapshot(&self) -> std::result::Result<Box<dyn Snapshot + '_>, StoreError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if std::thread::current().name() == Some("secretfs-verify") {
            drop(self.held.lock());
        }
        self.inner.snapshot()
    }

    fn begin(&self) -> std::result::Result<Box<dyn Txn + '_>, StoreError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.inner.begin()
    }

    fn recover(&self) -> std::result::Result<(), StoreError> {
        self.inner.recover()
    }
}

impl World {
    /// Opens the world's store anew with an eye on it.
    fn watch(&mut self, held: &Arc<Mutex<()>>) -> Arc<Watched> {
        self.close();
        let (inner, asked) = (self.store.clone(), AtomicU64::new(0));
        let watched = Arc::new(Watched { inner, asked, held: held.clone() });
        let store: Arc<dyn Store> = watched.clone();
        let parts = Parts { store, ..self.parts() };
        self.broker = Some(Broker::open(parts, self.root_key()).unwrap());
        watched
    }
}

#[test]
fn a_name_that_is_not_found_waits_for_the_verification_and_one_that_is_there_does_not() {
    let mut world = World::new();
    world.put("app/key", CANARY);
    let hold = Arc::new(Mutex::new(()));
    let held = hold.lock();
    let _watched = world.watch(&hold);
    let broker = world.broker();
    assert_eq!(world.read(1000, "app/key").unwrap(), CANARY);
    assert!(matches!(broker.look(&caller(1000), &name("app/key")), Ok(Found::Secret(_))));
    let looked = |secret: &str| broker.look(&caller(1000), &name(secret)).map(drop);
    assert!(matches!(world.read(1000, "app/absent"), Err(BrokerError::Verifying)));
    assert!(matches!(looked("app/absent"), Err(BrokerError::Verifying)));
    let waited = broker.wait_verified(Duration::from_millis(10));
    assert!(matches!(waited, Err(BrokerError::Verifying)), "the deadline bounds it");
    // What a caller may not know of is refused at once: that answer does not depend on the store.
    assert!(matches!(world.read(1000, "other/absent"), Err(BrokerError::Denied)));
    drop(held);
    world.wait_verified();
    assert!(matches!(world.read(1000, "app/absent"), Err(BrokerError::NotFound(_))));
    assert!(matches!(looked("app/absent"), Err(BrokerError::NotFound(_))));
}

#[test]
fn what_is_refused_never_asks_the_store_be_it_hidden_or_absent() {
    let mut world = World::new();
    for number in 0..20 {
        world.put(&format!("other/key-{number}"), CANARY);
    }
    let watched = world.watch(&Arc::default());
    world.wait_verified();
    let before = watched.asked.load(Ordering::SeqCst);
    let broker = world.broker();
    for secret in ["other/key-7", "other/absent"] {
        let (caller, name) = (caller(1000), name(secret));
        let refused = [
            broker.look(&caller, &name).map(drop),
            broker.read(&caller, &name, Which::Current).map(drop),
            broker.read(&caller, &name, Which::Number(Version(1))).map(drop),
            broker.check(&caller, Level::Write, &name),
            broker.describe(&caller, &name).map(drop),
        ];
        assert!(refused.iter().all(|refused| matches!(refused, Err(BrokerError::Denied))));
    }
    assert_eq!(watched.asked.load(Ordering::SeqCst), before);
}
