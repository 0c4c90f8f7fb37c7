//! A broker with a route to a service that a test has in its hands, and a clock that stands still.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "shared by tests of which each uses a part"
)]

pub mod mount;
pub mod service;
pub mod store;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use secretfs::audit::{self, Entry, Filter};
use secretfs::broker::{Broker, BrokerError, Limits, LogSettings, Parts, Put, Which, read_header};
use secretfs::crypto::{Slot, SlotKind};
use secretfs::model::{Caller, Clock, Gid, ManualClock, SecretName, Uid, Version};
use secretfs::policy::{NumericIds, Policy};
use secretfs::route::{Cache, Refresher, Route, Routes};
use secretfs::store::MemoryStore;
use secretfs::system::SecretBytes;

use service::Service;
use store::{Watched, copy, copy_log};

/// The admin is uid 0; uid 1000 may read below the route's `app`, and nobody else anything.
pub const POLICY: &str = r#"
    [[role]]
    name = "admin"
    allow = [{ names = ["**"], levels = ["admin"] }]
    [[role]]
    name = "app"
    allow = [{ names = ["cloud/app/*"], levels = ["read"] }]
    [[binding]]
    role = "admin"
    uid = [0]
    [[binding]]
    role = "app"
    uid = [1000]
"#;

/// How long a copy is fresh, and how long stale.
pub const FRESH: Duration = Duration::from_secs(300);
pub const STALE: Duration = Duration::from_secs(3600);

pub struct World {
    pub broker: Broker,
    pub service: Arc<Service>,
    pub clock: Arc<ManualClock>,
    pub routes: Routes,
    refreshers: Mutex<Vec<Refresher>>,
    pub store: Arc<Watched>,
    cache: Cache,
    directory: tempfile::TempDir,
}

impl World {
    /// With secrets that are fetched as they are asked for.
    pub fn new() -> Self {
        Self::with(Service::new(), false)
    }

    /// With secrets that are fetched before.
    pub fn prefetching(service: Service) -> Self {
        Self::with(service, true)
    }

    pub fn with(service: Service, prefetch: bool) -> Self {
        let timeout = Duration::from_millis(100);
        Self::caching(service, Cache { prefetch, timeout, ..Cache::default() })
    }

    /// With a service that has all the time there is.
    pub fn patient(service: Service) -> Self {
        Self::caching(service, Cache { prefetch: false, timeout: LONG, ..Cache::default() })
    }

    fn caching(service: Service, cache: Cache) -> Self {
        let (store, clock) = (MemoryStore::new(), Arc::new(ManualClock::at(1_800_000_000)));
        drop(
            Broker::create(&store, &*clock, &mut |store, root| {
                Slot::seal(store, SlotKind::KeyFile, &key(), root).map_err(|err| err.to_string())
            })
            .unwrap(),
        );
        let cache = Cache { fresh: FRESH, stale: STALE, ..cache };
        Self::over(store, tempfile::tempdir().unwrap(), clock, (Arc::new(service), cache))
    }

    fn over(
        store: MemoryStore,
        directory: tempfile::TempDir,
        clock: Arc<ManualClock>,
        (service, cache): (Arc<Service>, Cache),
    ) -> Self {
        let store = Arc::new(Watched { inner: store, full: Mutex::default() });
        let (broker, routes) = begin(&store, &clock, directory.path(), (&service, cache));
        let refreshers = Mutex::new(routes.refreshers());
        Self { broker, service, clock, routes, refreshers, store, cache, directory }
    }

    /// Returns who sees what this daemon would leave.
    pub fn witness(&self) -> Witness {
        Witness {
            store: Arc::clone(&self.store),
            directory: self.directory.path().to_owned(),
            clock: Arc::clone(&self.clock),
            cache: self.cache,
            service: Arc::clone(&self.service),
        }
    }

    /// Starts a daemon over what another one has left.
    pub fn of(left: Left) -> Self {
        let Left { store, directory, clock, cache, service } = left;
        Self::over(store, directory, clock, (Arc::new(service), cache))
    }

    /// Ends the daemon and starts another one.
    pub fn restart(&mut self) {
        self.broker.close();
        let parts = (&self.store, &self.clock, self.directory.path());
        (self.broker, self.routes) = begin(parts.0, parts.1, parts.2, (&self.service, self.cache));
        *self.refreshers.lock() = self.routes.refreshers();
    }

    /// Does what the refreshers' threads do when a turn is due.
    pub fn turn(&self) {
        self.refreshers.lock().iter_mut().for_each(|refresher| refresher.turn(&|| true));
    }

    pub fn pass(&self, time: Duration) {
        self.clock.advance(time);
    }

    /// Reads as a worker of the mount does.
    pub fn read_as(&self, uid: u32, secret: &str) -> Result<Vec<u8>, BrokerError> {
        let caller = Caller::with_ids(Uid(uid), Gid(uid));
        loop {
            match self.broker.read(&caller, &name(secret), Which::Current) {
                Ok(opened) => return Ok(opened.value.expose().to_vec()),
                Err(BrokerError::Elsewhere(sought)) => self.broker.fetch(&sought, LONG)?,
                Err(error) => return Err(error),
            }
        }
    }

    pub fn read(&self, secret: &str) -> Result<Vec<u8>, BrokerError> {
        self.read_as(0, secret)
    }

    pub fn write(&self, secret: &str, value: &[u8], put: &Put) -> Result<Version, BrokerError> {
        let value = SecretBytes::copy_from(value).unwrap();
        self.broker.write(&admin(), &name(secret), value, put)
    }

    /// The names in a directory.
    pub fn list(&self, directory: &str) -> Vec<String> {
        let listed = self.broker.list(&admin(), Some(&name(directory)), None, 1000).unwrap();
        listed.into_iter().map(|entry| entry.segment.into()).collect()
    }

    /// The log's lines with an action.
    pub fn lines(&self, action: audit::Action) -> Vec<Entry> {
        let all = audit::query(&self.directory.path().join("audit"), &Filter::default()).unwrap();
        all.map(Result::unwrap).filter(|entry| entry.action == action).collect()
    }
}

/// Sees what a daemon would leave.
pub struct Witness {
    store: Arc<Watched>,
    directory: PathBuf,
    clock: Arc<ManualClock>,
    cache: Cache,
    service: Arc<Service>,
}

impl Witness {
    /// What a daemon finds that is started after this one was killed right now.
    pub fn left(&self) -> Left {
        Left {
            store: copy(&*self.store),
            directory: copy_log(&self.directory),
            clock: Arc::clone(&self.clock),
            cache: self.cache,
            service: self.service.copy(),
        }
    }
}

/// See [`Witness::left`].
pub struct Left {
    store: MemoryStore,
    directory: tempfile::TempDir,
    clock: Arc<ManualClock>,
    cache: Cache,
    service: Service,
}

impl Drop for World {
    fn drop(&mut self) {
        self.service.let_go();
        self.broker.close();
    }
}

/// Long enough for anything, on a machine that is busy.
pub const LONG: Duration = Duration::from_secs(60);

pub fn name(text: &str) -> SecretName {
    text.parse().unwrap()
}

pub fn admin() -> Caller {
    Caller::with_ids(Uid(0), Gid(0))
}

/// Waits until something holds.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !holds() {
        assert!(start.elapsed() < LONG, "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn key() -> SecretBytes {
    SecretBytes::copy_from(&[7; 32]).unwrap()
}

fn begin(
    store: &Arc<Watched>,
    clock: &Arc<ManualClock>,
    directory: &Path,
    (service, cache): (&Arc<Service>, Cache),
) -> (Broker, Routes) {
    let parts = Parts {
        store: Arc::<Watched>::clone(store),
        policy: Policy::parse(POLICY, &NumericIds).unwrap(),
        clock: Arc::<ManualClock>::clone(clock),
        limits: Limits::default(),
        log: LogSettings {
            directory: directory.join("audit"),
            options: audit::Options::default(),
            names: Arc::new(HashMap::<Uid, Arc<str>>::new()),
        },
        accept_rollback: false,
    };
    let header = read_header(&**store).unwrap();
    let root = header.slots[0].open(header.store, &key()).unwrap();
    let broker = Broker::open(parts, root).unwrap();
    broker.wait_verified(LONG).unwrap();
    let route = Route {
        path: name("cloud"),
        backend: "vault".into(),
        client: Arc::<Service>::clone(service),
        cache,
    };
    let ticks: Arc<dyn Clock> = Arc::<ManualClock>::clone(clock);
    let routes = Routes::new(&broker, &ticks, vec![route]).unwrap();
    broker.fetch_from(Arc::new(routes.clone()));
    (broker, routes)
}
