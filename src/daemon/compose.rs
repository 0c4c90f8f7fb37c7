//! Where the parts are joined: each function is the one call on the part that does the work.
//!
//! The rest of the daemon and the command line know the parts through this file alone, so that the
//! parts can change their constructors without anybody else noticing.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::DaemonError;
use super::accounts::{HostAccounts, local_names};
use super::alerts::{self, Alerts};
use super::config::{
    Config, Durability, IoMode, KeyConfig, Layer, NamesMode, OnRestart, RouteConfig,
};
use super::credentials::CredentialSocket;
use super::init::PassphraseInput;
use super::injections::{self, Injections};
use super::keeper::message::FromServer;
use super::keys;
use super::supervision::{By, Supervision};
use super::timers::Task;
use super::touch::Toucher;
use super::trust;
use super::watch::Watch;
use super::wrapping;
use crate::anomaly;
use crate::audit;
use crate::backend::{Backend, BackendError};
use crate::broker::{
    Broker, BrokerError, LogSettings, Parts as BrokerParts, Progress, read_header, unpack_backup,
};
use crate::crypto::RootKey;
use crate::effect::{self, Effector, Orders, RemoteBackend};
use crate::fs::{self, control::Host};
use crate::identity::{self, Callers, Observer};
use crate::keysource::Wrapping;
use crate::model::{Caller, Clock, Gid, Needs, StoreId, Uid};
use crate::policy::{self, ExpectationResult, Policy, PolicyError};
use crate::rotation::{self, Rotator, Settings};
use crate::route::{Route, Routes};
use crate::store::{JournaledStore, Options, RedbStore, Store, StoreError};
use crate::system::{Channel, KeyCell, SecretBytes, SystemClock, close_from, name_process};

pub(super) use super::keys::new_slot;

/// The opened store with everything that serves it.
pub struct Parts {
    pub broker: Broker,
    /// Carries out what has to be done outside of the store.
    pub effects: Arc<Effector>,
    store: Arc<dyn Store>,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Parts(..)")
    }
}

impl Parts {
    /// Asks a key source for the root key, for `unseal`.
    pub fn unlock(
        &self,
        key: &KeyConfig,
        passphrase: &PassphraseInput,
    ) -> Result<RootKey, BrokerError> {
        Ok(keys::unlock(&*self.store, key, passphrase, &self.wrapping())?)
    }

    /// Returns who asks services to seal and open keys.
    pub(super) fn wrapping(&self) -> Arc<dyn Wrapping> {
        wrapping::by_effector(Arc::clone(&self.effects))
    }

    /// Returns the work that comes round.
    pub(super) fn housekeeping(&self) -> Vec<Task> {
        let task = |name, every, run: fn(&Broker) -> Result<(), BrokerError>| {
            let broker = self.broker.clone();
            let run = move || match run(&broker) {
                // Nothing can be done without keys, and nothing is late because of it.
                Ok(()) | Err(BrokerError::Sealed) => Ok(()),
                Err(error) => Err(super::error::chain(&error)),
            };
            Task { name, every, run: Box::new(run) }
        };
        vec![
            task("audit retention", DAY, Broker::prune_audit),
            task("grants that have ended", MOMENTS, |broker| broker.end_grants().map(drop)),
            task("indexes of the audit log", MOMENTS, |broker| broker.index_audit().map(drop)),
            task("trash retention", DAY, |broker| broker.purge_trash().map(drop)),
        ]
    }
}

/// Makes what rotates secrets, with whoever carries out what it does outside.
pub(super) fn rotator(parts: &Parts, settings: Settings) -> Rotator {
    let (broker, effects) = (parts.broker.clone(), Arc::clone(&parts.effects) as _);
    Rotator::new(rotation::Parts { broker, effects, clock: clock(), settings })
}

/// Joins the routes of the configuration with clients that the effector makes the calls for, and has the broker
/// fetch from them.
pub(super) fn routes(config: &Config, parts: &Parts) -> Result<Routes, DaemonError> {
    let route = |route: &RouteConfig| Route {
        path: route.path.clone(),
        backend: route.backend.clone(),
        client: Arc::new(RemoteBackend::new(Arc::clone(&parts.effects), &route.backend)),
        cache: route.cache,
    };
    let configured = config.routes.iter().map(route).collect();
    let routes = Routes::new(&parts.broker, &clock(), configured)?;
    if !config.routes.is_empty() {
        parts.broker.fetch_from(Arc::new(routes.clone()));
    }
    Ok(routes)
}

/// Makes what watches the log for anomalies.
pub(super) fn watch(config: &Config, parts: &Parts, settings: anomaly::Settings) -> Arc<Watch> {
    Watch::new(parts.broker.clone(), clock(), config.learned(), settings)
}

/// Makes what tells others of alerts and of the log.
pub(super) fn alerts(config: &Config, parts: &Parts, settings: alerts::Settings) -> Arc<Alerts> {
    let (broker, effects) = (parts.broker.clone(), Arc::clone(&parts.effects));
    Alerts::new(broker, effects, clock(), (config.delivered(), config.quarantined()), settings)
}

/// Makes what keeps files for programs.
pub(super) fn injections(
    config: &Config,
    parts: &Parts,
    settings: injections::Settings,
) -> Arc<Injections> {
    let parts = injections::Parts {
        broker: parts.broker.clone(),
        effects: Arc::clone(&parts.effects),
        clock: clock(),
        file: config.injected(),
        mountpoint: config.mountpoint.clone(),
    };
    Injections::new(parts, settings)
}

const DAY: Duration = Duration::from_secs(24 * 3600);

/// How soon it is on record that a grant has ended. It is in force no longer than it says in any case.
const MOMENTS: Duration = Duration::from_secs(5);

/// Stands for "for ever" where a duration is needed; far from any overflow.
const A_CENTURY: Duration = Duration::from_secs(36_525 * 24 * 3600);

/// Makes the store's file with a new root key, its slot, and the first keyring. Nothing is at `path`.
pub fn create_store(
    path: &Path,
    config: &Config,
    passphrase: &PassphraseInput,
) -> Result<StoreId, DaemonError> {
    let wrapping = wrapping::in_process(config.backends.clone());
    let store = RedbStore::create(path).map_err(BrokerError::from)?;
    let mut id = None;
    let mut slot = |store_id, root: &RootKey| {
        id = Some(store_id);
        new_slot((&config.key, passphrase), &wrapping, store_id, root)
    };
    Broker::create(&store, &SystemClock, &mut slot)?;
    id.ok_or_else(|| DaemonError::Key("no slot was made".into()))
}

/// What a start may do beyond the ordinary, because a person asked for it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Exceptions {
    /// Serves a store that is older than its audit log says.
    pub accept_rollback: bool,
}

/// Unlocks the key, opens store and audit log, and loads the index. Where a passphrase is needed and
/// there is nobody to ask, the store is opened sealed; and so it is behind a server that was sealed.
pub(super) fn open(
    config: &Config,
    policy: Policy,
    passphrase: &PassphraseInput,
    exceptions: Exceptions,
    (supervision, effects): (&Supervision, Arc<Effector>),
) -> Result<Parts, DaemonError> {
    let store = super::lock::patiently(
        || open_store(config),
        |error| matches!(error, DaemonError::Lock(_)),
    );
    let store: Arc<dyn Store> = Arc::new(store?);
    let mut parts = broker_parts(config, Arc::clone(&store), policy, exceptions);
    parts.log.options.start = Some(supervision.start_line());
    parts.log.options.taken_over = supervision.predecessor.is_some();
    let key = &supervision.key;
    let wrapping = wrapping::by_effector(Arc::clone(&effects));
    let unlock = || root_key(config, &*store, passphrase, (supervision, &wrapping));
    let broker = match wrapping::patiently(unlock, keys::UnlockError::passes) {
        Ok(Some(root)) => {
            let kept = SecretBytes::copy_from(root.expose().expose());
            let broker = Broker::open(parts, root)?;
            let kept = kept.map_err(|error| BrokerError::Key(error.into()))?;
            keep_key(config, key, |cell| cell.put(&kept));
            broker
        }
        Ok(None) => {
            tracing::warn!("sealed, as the server before was");
            Broker::open_sealed(parts)?
        }
        Err(error) if error.nobody_to_ask() => {
            tracing::warn!("there is nobody to ask for the passphrase: sealed until `unseal`");
            Broker::open_sealed(parts)?
        }
        Err(error) => return Err(error.into()),
    };
    let sealed = Arc::clone(key);
    broker.on_seal(Box::new(move || sealed.wipe()));
    Ok(Parts { broker, effects, store })
}

/// Returns the key that the server before has left, or else what the key source gives. `None`: it
/// was sealed, or has left none that fits.
fn root_key(
    config: &Config,
    store: &dyn Store,
    passphrase: &PassphraseInput,
    (supervision, wrapping): (&Supervision, &Arc<dyn Wrapping>),
) -> Result<Option<RootKey>, keys::UnlockError> {
    if supervision.predecessor.is_none() {
        return keys::unlock(store, &config.key, passphrase, wrapping).map(Some);
    }
    keys::left(store, &supervision.key)
}

/// Leaves a key to the next server by `put`, where the configuration lets it have one.
pub(super) fn keep_key(config: &Config, cell: &KeyCell, put: impl FnOnce(&KeyCell)) {
    match config.on_restart {
        OnRestart::Keep => put(cell),
        OnRestart::Seal => cell.wipe(),
    }
}

fn broker_parts(
    config: &Config,
    store: Arc<dyn Store>,
    policy: Policy,
    exceptions: Exceptions,
) -> BrokerParts {
    BrokerParts {
        store,
        policy,
        clock: clock(),
        limits: config.limits.clone(),
        log: log_settings(config),
        accept_rollback: exceptions.accept_rollback,
    }
}

fn open_store(config: &Config) -> Result<JournaledStore, DaemonError> {
    JournaledStore::open(&config.store(), Options::default()).map_err(|error| match error {
        StoreError::Locked => super::lock::LockError::Held {
            state_dir: config.state_dir.clone(),
            holder: "a process that holds the store's file".into(),
        }
        .into(),
        StoreError::Broken | StoreError::Damaged(_) | StoreError::Io(_) => {
            BrokerError::from(error).into()
        }
    })
}

fn log_settings(config: &Config) -> LogSettings {
    let options = audit::Options {
        durability: match config.audit.durability {
            Durability::Synced => audit::Durability::Synced,
            Durability::Written => audit::Durability::Written,
        },
        retention: config.audit.retention.unwrap_or(A_CENTURY),
        segment_bytes: config.audit.segment_bytes,
        start: Some(serde_json::json!({ "version": env!("CARGO_PKG_VERSION") })),
        ..audit::Options::default()
    };
    LogSettings { directory: config.audit_dir(), options, names: Arc::new(local_names()) }
}

/// Makes a store at `path` out of a backup, on behalf of whoever runs this process: opens it with the
/// key source, asks the policy, and verifies it. The log goes on where it was.
pub fn restore_offline(
    config: &Config,
    policy: Policy,
    passphrase: &PassphraseInput,
    path: &Path,
    backup: &mut dyn Read,
) -> Result<(), DaemonError> {
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(DaemonError::io("removing what an earlier try left")(error)),
    }
    let store: Arc<dyn Store> = Arc::new(RedbStore::create(path).map_err(BrokerError::from)?);
    unpack_backup(backup, &*store)?;
    check_same_store(config, &*store)?;
    let wrapping = wrapping::in_process(config.backends.clone());
    let root =
        keys::unlock(&*store, &config.key, passphrase, &wrapping).map_err(DaemonError::from)?;
    let exceptions = Exceptions { accept_rollback: true };
    let broker = Broker::open(broker_parts(config, Arc::clone(&store), policy, exceptions), root)?;
    let uid = Uid(nix::unistd::getuid().as_raw());
    let caller = Caller::with_ids(uid, Gid(nix::unistd::getgid().as_raw()));
    let outcome = broker.admit_control(&caller, "backup-restore").and_then(|()| {
        let found = broker.verify(&caller, &Progress::default())?;
        match found.faults.first() {
            None => Ok(()),
            Some(fault) => Err(StoreError::Damaged(fault.clone()).into()),
        }
    });
    broker.close();
    Ok(outcome?)
}

/// A backup of another store would make the audit log that lies here somebody else's.
fn check_same_store(config: &Config, restored: &dyn Store) -> Result<(), DaemonError> {
    if !config.store().exists() {
        return Ok(());
    }
    let present = open_store(config)?;
    if read_header(&present)?.store == read_header(restored)?.store {
        return Ok(());
    }
    let why = format!(
        "this is a backup of another store than {}; move that one and {} away first",
        config.store().display(),
        config.audit_dir().display()
    );
    Err(BrokerError::Invalid(why).into())
}

/// The served mount, and what lives as long as it is mounted.
#[derive(Debug)]
pub struct Mounted {
    tree: Arc<fs::Tree>,
    session: JoinHandle<()>,
    _credentials: Option<CredentialSocket>,
}

impl Mounted {
    /// Waits for the session's threads, after the unmount.
    pub fn join(self) {
        if self.session.join().is_err() {
            tracing::error!("the session's thread panicked");
        }
    }

    /// Returns the tree, for whoever looks after it.
    pub(super) fn tree(&self) -> &Arc<fs::Tree> {
        &self.tree
    }
}

/// Serves the tree in threads of its own; `on_end` is called when the session has ended for whatever
/// reason.
pub(super) fn serve(
    config: &Config,
    parts: &Parts,
    (supervision, device): (&Supervision, &OwnedFd),
    (observer, host, renderings): (Observer, Arc<dyn Host>, Arc<fs::Renderings>),
    on_end: Box<dyn FnOnce() + Send>,
) -> io::Result<Mounted> {
    let observer = Arc::new(observer);
    let touch = Arc::new(Toucher::start(Arc::clone(&observer), config.mountpoint.clone())?);
    let callers = Callers::new(identity::Options::default(), Some(observer), clock());
    let callers = Arc::new(callers);
    let tree = fs::Tree::new(fs::Parts {
        broker: parts.broker.clone(),
        host,
        clock: clock(),
        touch,
        renderings,
        cached: config.io == IoMode::Cached,
        owners: owners(config.names),
        deadline: config.deadline,
        journal: Arc::clone(&supervision.journal),
    });
    let identify = Identification { callers: Arc::clone(&callers), broker: parts.broker.clone() };
    let options = fs::Options {
        threads: config.threads,
        deadline: config.deadline,
        predecessor: supervision.predecessor,
    };
    let credentials = config.credentials.as_ref().map(|credentials| {
        CredentialSocket::start(credentials, &parts.broker, &callers, config.deadline).map_err(
            |error| {
                let path = credentials.socket.display();
                io::Error::new(error.kind(), format!("the credential socket {path}: {error}"))
            },
        )
    });
    let credentials = credentials.transpose()?;
    let mount = fs::serve(Arc::clone(&tree), Arc::new(identify), &options, device)?;
    let session = thread::Builder::new().name("mount".into()).spawn(move || {
        if let Err(error) = mount.wait() {
            tracing::error!(%error, "the session ended with an error");
        }
        on_end();
    })?;
    Ok(Mounted { tree, session, _credentials: credentials })
}

pub(super) fn owners(names: NamesMode) -> fs::Owners {
    match names {
        NamesMode::Hidden => fs::Owners::Fixed {
            uid: nix::unistd::geteuid().as_raw(),
            gid: nix::unistd::getegid().as_raw(),
        },
        NamesMode::Own => fs::Owners::Caller,
    }
}

/// Finds out about callers what the policy in force asks for.
struct Identification {
    callers: Arc<Callers>,
    broker: Broker,
}

impl fs::Identify for Identification {
    fn identify(&self, uid: u32, gid: u32, tid: u32) -> Caller {
        self.callers.identify(Uid(uid), Gid(gid), tid, self.broker.needs())
    }

    fn glimpse(&self, uid: u32, gid: u32, tid: u32) -> Caller {
        if self.broker.needs() != Needs::default() {
            return self.identify(uid, gid, tid);
        }
        Caller {
            tid: (tid != 0).then_some(tid),
            finder: Some(Arc::<Callers>::clone(&self.callers)),
            ..Caller::with_ids(Uid(uid), Gid(gid))
        }
    }
}

/// Returns who carries out what is done outside of the store: a process that systemd starts where it holds
/// the mount, or the keeper, or this program itself. None of them does before there is an order.
pub(super) fn effects(by: &By, config: &Config) -> Arc<Effector> {
    Arc::new(match by {
        By::Keeper(channel) => {
            let keeper = Arc::clone(channel);
            let ask = move |end: Channel| keeper.send_along(&FromServer::Effector, end.as_fd());
            Effector::of_parent(Box::new(ask))
        }
        By::Nobody => {
            let arguments = effector_arguments(config);
            let arguments: Vec<&OsStr> = arguments.iter().map(OsString::as_os_str).collect();
            // Not by its path: the file there may be another one by now.
            Effector::of_program(Path::new("/proc/self/exe"), &arguments)
        }
        By::Systemd => Effector::at_socket(Path::new(EFFECTOR_SOCKET)),
    })
}

/// Returns with what an effector is started.
pub(super) fn effector_arguments(config: &Config) -> Vec<OsString> {
    let orders = Orders {
        rotation: config.rotation.clone(),
        injections: Some(config.injections.clone()),
        alerts: Some(config.alerts.clone()),
        mountpoint: Some(config.mountpoint.clone()),
        backends: Some(config.file.clone()),
        namespace: None,
    };
    [&["effector".into()], order_arguments(&orders).as_slice()].concat()
}

fn order_arguments(orders: &Orders) -> Vec<OsString> {
    let Orders { rotation, injections, alerts, mountpoint, backends, namespace } = orders;
    let pairs = [
        ("--rotation", Some(rotation)),
        ("--injections", injections.as_ref()),
        ("--alerts", alerts.as_ref()),
        ("--mountpoint", mountpoint.as_ref()),
        ("--backends", backends.as_ref()),
        ("--namespace", namespace.as_ref()),
    ];
    let given = pairs.into_iter().filter_map(|(name, path)| Some([name.into(), path?.into()]));
    given.flatten().collect()
}

/// Where `secretfs-effector.socket` listens.
const EFFECTOR_SOCKET: &str = "/run/secretfs-effector";

/// Is the effector, or with an order of it: the hidden subcommand's whole life.
pub fn serve_effector(part: EffectorPart) -> io::Result<()> {
    name_process(c"secretfs")?;
    // Behind the channel there may be what whoever started the server had open: no program may have it.
    close_from(4)?;
    let (channel, program) = (Channel::inherited()?, Path::new("/proc/self/exe"));
    match part {
        EffectorPart::Order(orders) => {
            let mut search = std::process::Command::new(program);
            search.args(["effector", "--search"]);
            let open = |name: &str| open_backend(&orders, name);
            let ask_service = wrapping::carry_out(orders.backends.clone());
            effect::carry_out_one(channel, &orders, search, (&open, &ask_service))
        }
        EffectorPart::Search => effect::search_as_caller(channel, super::search::report),
        EffectorPart::Whole(orders) => {
            let orders = order_arguments(&orders);
            let mut arguments = ["effector", "--order"].map(OsStr::new).to_vec();
            arguments.extend(orders.iter().map(OsString::as_os_str));
            effect::serve(&channel, program, &arguments)
        }
    }
}

/// Makes the client of a service as the administrator has configured it, whatever the server says of it.
fn open_backend(orders: &Orders, name: &str) -> Result<Arc<dyn Backend>, BackendError> {
    let invalid = |why: String| BackendError::Invalid(why);
    let path = orders.backends.as_ref();
    let path = path.ok_or_else(|| invalid("the effector has no list of backends".into()))?;
    let text = trust::read(path).map_err(|error| invalid(error.to_string()))?;
    let layer = Layer::parse(&text).map_err(|fault| invalid(fault.message))?;
    let settings = layer.backend.get(name);
    let settings =
        settings.ok_or_else(|| invalid(format!("{} has no backend {name}", path.display())))?;
    // The server's environment is not ours, and has no token for us.
    settings.open(&|_| None)
}

/// Which of its processes one is. Most are told what may be ordered.
#[derive(Clone, Debug)]
pub enum EffectorPart {
    /// Carries out one order.
    Order(Orders),
    /// Takes the place of a caller.
    Search,
    /// Starts the others.
    Whole(Orders),
}

/// Gets the helper process that reads `/proc/<tid>/exe` from who holds the mount, and may give it the capability
/// that we do not have: systemd, or the keeper. Else it is this very program. Before any thread.
pub(super) fn start_observer(by: &By) -> io::Result<Observer> {
    let socket = Path::new(OBSERVER_SOCKET);
    match by {
        By::Keeper(channel) => {
            let keeper = Arc::clone(channel);
            Observer::of_parent(Box::new(move |end| {
                keeper.send_along(&FromServer::Observer, end.as_fd())
            }))
        }
        By::Systemd if socket.exists() => Observer::connect(socket),
        // Not by its path: the file there may be another one by now.
        By::Nobody | By::Systemd => Observer::spawn(Path::new("/proc/self/exe")),
    }
}

/// Returns with what an observer is started.
pub(super) fn observer_arguments() -> [OsString; 1] {
    ["observer".into()]
}

/// Where `secretfs-observer.socket` listens.
const OBSERVER_SOCKET: &str = "/run/secretfs-observer";

/// Is the observer: the hidden subcommand's whole life.
pub fn serve_observer() -> io::Result<()> {
    name_process(c"secretfs")?;
    identity::observer::serve(Channel::inherited()?)
}

/// Answers EIO to everything: the hidden subcommand's whole life.
pub fn serve_refusals() -> io::Result<()> {
    name_process(c"secretfs")?;
    let mut descriptors = Channel::inherited()?.receive_descriptors()?.into_iter();
    let mut next = || descriptors.next().ok_or(io::ErrorKind::InvalidData);
    let (device, journal) = (next()?, fs::Journal::from_memory(next()?)?);
    fs::refuse(&device, &journal)
}

/// Parses a policy with the host's users and groups.
pub fn parse_policy(text: &str) -> Result<Policy, PolicyError> {
    Policy::parse(text, &HostAccounts)
}

/// Makes a key file, unless there is one. Returns whether it was made.
pub fn make_key_file(path: &Path) -> Result<bool, DaemonError> {
    crate::keysource::make_key_file(path)
        .map_err(|error| DaemonError::Key(super::error::chain(&error)))
}

/// Returns the policy of a new store.
pub fn initial_policy(admins: &[Uid]) -> String {
    policy::initial(admins)
}

/// Runs the expectations written beside a policy.
pub fn policy_expectations(text: &str) -> Result<Vec<ExpectationResult>, PolicyError> {
    Ok(parse_policy(text)?.run_expectations(clock().now()))
}

/// Returns the wall clock.
pub fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock)
}
