//! The one way to a secret: decide, record, then open.
//!
//! Every front end calls [`Broker`] and nothing below it. The order is fixed by types: opening takes
//! a `Grant`, which only the `Gate` makes, after the policy has allowed the request;
//! and nothing is decrypted or committed before the log has taken the line that says so. If the log
//! cannot be written, there is no plaintext.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::{Mutex, RwLock};
use sha2::{Digest, Sha256};

use crate::audit::{Action, Anchor, AuditLog, Event, Head, Outcome, Rollback};
use crate::crypto::{Header, Keyring, RecordSet, RootKey};
use crate::model::{Caller, Clock, Generation, Inode, Needs, SecretId, SecretName, Seq, StoreId};
use crate::policy::Policy;
use crate::store::{Store, Table};

mod allowance;
mod answer;
mod arrival;
mod attributes;
mod backup;
mod batch;
mod cache;
mod carry;
mod change;
mod commit;
mod elevation;
mod error;
mod forward;
mod frozen;
mod gate;
mod holds;
mod index;
mod injection;
mod keys;
mod latency;
mod lease;
mod load;
mod log;
mod older;
mod quarantine;
mod query;
mod read;
mod record;
mod refusals;
mod replay;
mod root;
mod rotation;
mod search;
#[cfg(test)]
mod tests;
mod trash;
mod upstream;
mod verify;
mod write;
mod writer;

pub use answer::{
    Description, Directory, Facet, Found, Kind, Known, Listed, Notice, Opened, Origin, Pinned,
    Progress, Put, Replace, Secret, Share, Statistics, Trashed, Verification, VersionSummary,
    Which,
};
pub use arrival::{Arrival, KeptCopy, TakenIn};
pub use attributes::Inspect;
pub use backup::{unpack_backup, write_backup};
pub use error::{BrokerError, KeyError, StoreError};
pub use frozen::{Frozen, FrozenId};
pub use holds::Hold;
pub use keys::{MakeSlot, read_header, root_key_fits};
pub use latency::{BOUNDS_MICROS, Latencies};
pub use lease::{Ask, Granted};
pub use log::{LogReader, Reading};
pub use quarantine::Quarantine;
pub use rotation::{By, Change, Stage, Step, Subject, There};
pub use upstream::{
    Copy, Done, Expected, Fault, Forward, Over, RemoteVersion, Seen, Sought, Standing, Told,
    Upstream, UpstreamError,
};

use batch::Batch;
use cache::Cache;
use carry::{Carry, carried};
use frozen::FrozenSets;
use gate::Gate;
use holds::Holds;
use index::Index;
use keys::{HEADER_KEY, KEYRING_KEY, read_keyring};
use load::{Integrity, Verdict};
use replay::Replay;
use root::Root;
use writer::{Company, Writer};

type Result<T> = std::result::Result<T, BrokerError>;

/// What is run with the name of a secret that has changed.
pub type ChangeHook = Box<dyn Fn(&SecretName) + Send + Sync>;

/// What is run with a secret that was revoked.
pub type RevokeHook = Box<dyn Fn(SecretId) + Send + Sync>;

/// Serves secrets to callers. Cheap to clone: all parts are shared.
#[derive(Clone)]
pub struct Broker {
    inner: Arc<Inner>,
}

/// What a broker is made of.
pub struct Parts {
    pub store: Arc<dyn Store>,
    pub policy: Policy,
    pub clock: Arc<dyn Clock>,
    pub limits: Limits,
    /// Where the audit log lies; it is opened with a key from the store.
    pub log: LogSettings,
    /// Serves a store that is older than the log says. For an admin who has put it back on purpose.
    pub accept_rollback: bool,
}

/// How the audit log is kept.
pub struct LogSettings {
    pub directory: PathBuf,
    pub options: crate::audit::Options,
    pub names: Arc<dyn crate::audit::UserNames>,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts")
            .field("limits", &self.limits)
            .field("log", &self.log)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for LogSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogSettings").field("directory", &self.directory).finish_non_exhaustive()
    }
}

struct Inner {
    store: Arc<dyn Store>,
    gate: Gate,
    limits: Limits,
    log: LogSettings,
    accept_rollback: bool,
    clock: Arc<dyn Clock>,
    unlocked: ArcSwapOption<Unlocked>,
    verdict: Verdict,
    cache: Cache,
    writer: std::sync::OnceLock<Writer>,
    seal_hooks: Mutex<Vec<Box<dyn Fn() + Send + Sync>>>,
    change_hooks: Mutex<Vec<ChangeHook>>,
    commit_hooks: Mutex<Vec<ChangeHook>>,
    revoke_hooks: Mutex<Vec<RevokeHook>>,
    inspector: std::sync::OnceLock<Box<dyn Inspect>>,
    upstream: std::sync::OnceLock<Arc<dyn Upstream>>,
    holds: Arc<Holds>,
    frozen: Mutex<FrozenSets>,
    replay: Arc<Replay>,
    /// Segments of the log whose index was seen to be ours.
    indexed: Mutex<BTreeSet<Seq>>,
}

/// How the store that was opened stands to what the log says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Accepted {
    AsItWas,
    /// It is an older copy, and an admin wants it so.
    OlderStore,
}

/// What is in memory while the store is unsealed.
struct Unlocked {
    store_id: StoreId,
    root_key: Mutex<RootKey>,
    keyring: ArcSwap<Keyring>,
    index: RwLock<Index>,
    /// As of the last commit.
    root: Mutex<Root>,
    /// Used by the writer alone.
    carry: Mutex<Carry>,
    /// Set while what is in memory may differ from what is on disk, after a failed commit. Held by
    /// the writer for the length of a batch; taken before `root` and `index`.
    stale: Mutex<bool>,
}

impl Broker {
    /// Makes a new store: its id, root key, keyring and first root. Fails when the store is not empty.
    pub fn create(
        store: &dyn Store,
        clock: &dyn Clock,
        slot: &mut MakeSlot<'_>,
    ) -> Result<RootKey> {
        if store.get(Table::Header, HEADER_KEY)?.is_some() {
            return Err(BrokerError::Invalid("there is a store already".into()));
        }
        let store_id = StoreId(crate::crypto::random_id().map_err(BrokerError::Key)?);
        let root_key = RootKey::generate().map_err(BrokerError::Key)?;
        let keyring = Keyring::generate(store_id, clock.now()).map_err(BrokerError::Key)?;
        let slot = slot(store_id, &root_key).map_err(BrokerError::Invalid)?;
        let entries = [
            (Table::Header, HEADER_KEY, Header { store: store_id, slots: vec![slot] }.encode()),
            (Table::Keyring, KEYRING_KEY, keyring.seal(&root_key)),
        ];
        let mut set = RecordSet::default();
        let mut txn = store.begin()?;
        for (table, key, value) in entries {
            let value = value.map_err(BrokerError::Key)?;
            set.add(&keyring.element(table as u8, key, &value));
            txn.put(table, key, &value)?;
        }
        let root = Root { generation: Generation(1), set, ..Root::default() };
        txn.put(Table::Root, Root::KEY, &root.encode(&keyring))?;
        txn.commit()?;
        Ok(root_key)
    }

    /// Opens a store with its root key.
    ///
    /// Errors: `Key(WrongKey)`; `Damaged`; `Rollback` when the store is older than the log says;
    /// `Audit` when the log was cut or changed.
    pub fn open(parts: Parts, root_key: RootKey) -> Result<Self> {
        let broker = Self::open_sealed(parts)?;
        broker.take_key(root_key)?;
        Ok(broker)
    }

    /// Opens a store without its key: everything is `Sealed` until [`unseal`](Self::unseal).
    pub fn open_sealed(parts: Parts) -> Result<Self> {
        let Parts { store, policy, clock, limits, log, accept_rollback } = parts;
        let replay = Arc::new(Replay::default());
        let inner = Arc::new(Inner {
            store,
            gate: Gate::new(policy, Arc::clone(&clock), Arc::clone(&replay)),
            limits,
            log,
            accept_rollback,
            clock,
            unlocked: ArcSwapOption::empty(),
            verdict: Verdict::pending(),
            cache: Cache::new(),
            writer: std::sync::OnceLock::new(),
            seal_hooks: Mutex::default(),
            change_hooks: Mutex::default(),
            commit_hooks: Mutex::default(),
            revoke_hooks: Mutex::default(),
            inspector: std::sync::OnceLock::new(),
            upstream: std::sync::OnceLock::new(),
            holds: Arc::default(),
            frozen: Mutex::default(),
            replay,
            indexed: Mutex::default(),
        });
        let writer = Writer::start(Arc::downgrade(&inner)).map_err(StoreError::Io)?;
        drop(inner.writer.set(writer));
        Ok(Self { inner })
    }

    /// Commits what waits and ends the log with a closing line. Later requests fail.
    pub fn close(&self) {
        if let Some(writer) = self.inner.writer.get() {
            writer.close();
        }
        if let Err(err) = self.inner.store.settle() {
            tracing::warn!(%err, "the next start takes over what the journal holds");
        }
        self.inner.gate.summarise_refusals();
        if let Ok(log) = self.inner.gate.log()
            && let Err(err) = log.close("the daemon ends")
        {
            tracing::error!(%err, "the audit log could not be closed");
        }
    }

    /// Tells whether the keys are out of memory.
    pub fn is_sealed(&self) -> bool {
        self.inner.unlocked.load().is_none()
    }

    /// Fails with `Denied` unless the caller is an admin of the store. Recorded either way as a
    /// control command named `command`.
    pub fn admit_control(&self, caller: &Caller, command: &str) -> Result<()> {
        self.inner.gate.admit_control(caller, command).map(drop)
    }

    /// Admits and records a command by which nobody gets what is not theirs already.
    pub fn admit_own(&self, caller: &Caller, command: &str) -> Result<()> {
        self.inner.gate.admit_own(caller, command)
    }

    /// Forgets the keys and the index, and with them every value in memory: see
    /// [`on_seal`](Self::on_seal).
    pub fn seal(&self, caller: &Caller) -> Result<()> {
        let inner = &*self.inner;
        let _admitted = inner.gate.admit_control(caller, "seal")?;
        inner.unlocked.store(None);
        inner.cache.clear();
        inner.frozen.lock().clear();
        inner.gate.replace_leases(BTreeMap::new());
        inner.gate.elevations().clear();
        inner.verdict.set(Integrity::Pending);
        for hook in &*inner.seal_hooks.lock() {
            hook();
        }
        inner
            .gate
            .record(&Event { caller: Some(caller), ..Event::new(Action::Seal, Outcome::Allowed) })
    }

    /// Takes the root key and loads the index again. `Key(WrongKey)` when it does not fit.
    pub fn unseal(&self, caller: &Caller, root_key: RootKey) -> Result<()> {
        let inner = &*self.inner;
        match inner.gate.admit_unseal(caller) {
            Ok(_) => {}
            // Before the first unseal there is no log to tell; the line follows below.
            Err(BrokerError::Sealed) if inner.gate.may_unseal(caller) => {}
            Err(BrokerError::Sealed) => return Err(BrokerError::Denied),
            Err(err) => return Err(err),
        }
        if let Err(err) = self.take_key(root_key) {
            self.note_failed_control(caller, "unseal", &err);
            return Err(err);
        }
        inner
            .gate
            .record(&Event { caller: Some(caller), ..Event::new(Action::Unseal, Outcome::Allowed) })
    }

    /// Records that a command on the store failed. The command's answer is an error already, so a
    /// log that cannot take the line does not change it.
    pub fn note_failed_control(&self, caller: &Caller, command: &str, err: &BrokerError) {
        let reason = format!("{command}: {err}");
        drop(self.inner.gate.record(&Event {
            caller: Some(caller),
            reason: Some(&reason),
            ..Event::new(Action::Control, Outcome::Failed)
        }));
    }

    fn take_key(&self, root_key: RootKey) -> Result<()> {
        let accepted = self.inner.unlock(root_key)?;
        if accepted == Accepted::OlderStore {
            // The next start must find a generation that the log has not passed.
            self.inner.submit(Company::Alone, |batch| {
                batch.commit_anyway();
                Ok(())
            })?;
        }
        if let Err(err) = self.inner.keep_terms() {
            tracing::warn!(%err, "how long grants last is not written down");
        }
        load::verify_in_background(&self.inner).map_err(StoreError::Io)?;
        keys::rewrap_in_background(&self.inner)
    }

    /// Registers what is run when the store is sealed.
    pub fn on_seal(&self, run: Box<dyn Fn() + Send + Sync>) {
        self.inner.seal_hooks.lock().push(run);
    }

    /// Registers what is run when a secret has a new current version that no handle was written for:
    /// see [`Put::origin`]. It must not wait; the version can be read by then.
    pub fn on_change(&self, run: ChangeHook) {
        self.inner.change_hooks.lock().push(run);
    }

    /// Registers what is run with each secret that a commit, or the restore of a backup, has changed in
    /// whatever way: made, given a version, an attribute or another name, removed; once that can be seen.
    /// It must not wait.
    pub fn on_commit(&self, run: ChangeHook) {
        self.inner.commit_hooks.lock().push(run);
    }

    /// Registers what is run when a secret was revoked, once that is durable. It must not wait.
    pub fn on_revoke(&self, run: RevokeHook) {
        self.inner.revoke_hooks.lock().push(run);
    }

    /// Replaces the policy by a parsed one. `None` for the caller: the daemon itself, on a signal.
    pub fn replace_policy(&self, caller: Option<&Caller>, policy: Policy) -> Result<()> {
        let inner = &*self.inner;
        if let Some(caller) = caller {
            let _admitted = inner.gate.admit_control(caller, "reload")?;
        }
        match inner
            .gate
            .record(&Event { caller, ..Event::new(Action::PolicyReload, Outcome::Allowed) })
        {
            // Sealed since the start: nothing can be granted under either policy.
            Ok(()) | Err(BrokerError::Sealed) => {}
            Err(err) => return Err(err),
        }
        inner.gate.replace_policy(policy);
        Ok(())
    }

    /// Says what is wrong with the log or the store as a whole, if anything is.
    pub fn fault(&self) -> Option<String> {
        let is_sealed = self.inner.unlocked.load().is_none();
        self.audit_fault().or_else(|| match self.inner.verdict.state() {
            Integrity::Faulty(what) if !is_sealed => Some(what),
            Integrity::Faulty(_) | Integrity::Pending | Integrity::Verified => None,
        })
    }

    fn audit_fault(&self) -> Option<String> {
        let log = self.inner.gate.log().ok()?;
        log.fault()
    }

    /// Counts and sizes for status and metrics.
    pub fn statistics(&self) -> Statistics {
        let inner = &*self.inner;
        let unlocked = inner.unlocked.load_full();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut statistics = Statistics {
            sealed: unlocked.is_none(),
            integrity: match inner.verdict.state() {
                Integrity::Faulty(what) => what,
                Integrity::Pending => "verifying".into(),
                Integrity::Verified => "verified".into(),
            },
            audit_fault: self.audit_fault(),
            audit_seq: inner.gate.log().map(|log| log.head().seq.0).unwrap_or(0),
            reads_allowed: count(&inner.gate.counts.reads),
            refused: count(&inner.gate.counts.refused),
            writes: count(&inner.gate.counts.writes),
            failures: count(&inner.gate.counts.failures),
            opens: inner.gate.counts.opens.now(),
            commits: inner.gate.counts.commits.now(),
            audit_unsynced: inner
                .gate
                .log()
                .map(|log| log.head().seq.0.saturating_sub(log.synced_head().seq.0))
                .unwrap_or(0),
            quarantined: self.quarantines().len() as u64,
            ..Statistics::default()
        };
        if let Some(unlocked) = unlocked {
            let index = unlocked.index.read();
            statistics.secrets = index.secrets();
            statistics.in_trash = index.trash().count() as u64;
            statistics.generation = unlocked.root.lock().generation.0;
        }
        statistics
    }

    /// Tells whether the caller is an admin of the store. Not recorded.
    pub fn is_admin(&self, caller: &Caller) -> bool {
        self.inner.gate.is_admin(caller)
    }

    /// Tells whether the caller may unseal the store. Not recorded.
    pub fn may_unseal(&self, caller: &Caller) -> bool {
        self.inner.gate.may_unseal(caller)
    }

    /// Returns which facts about callers the policy asks for.
    pub fn needs(&self) -> Needs {
        self.inner.gate.policy().needs()
    }

    /// Limits that front ends keep too.
    pub fn limits(&self) -> &Limits {
        &self.inner.limits
    }
}

impl Inner {
    fn announce(&self, name: &SecretName) {
        self.change_hooks.lock().iter().for_each(|run| run(name));
    }

    fn unlocked(&self) -> Result<Arc<Unlocked>> {
        self.unlocked.load_full().ok_or(BrokerError::Sealed)
    }

    /// Queues a change for the writer; see [`Writer::submit`].
    fn submit<T, F>(&self, company: Company, apply: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Batch<'_>) -> Result<T> + Send + 'static,
    {
        if self.unlocked.load().is_none() {
            return Err(BrokerError::Sealed);
        }
        let writer = self.writer.get().ok_or(StoreError::Broken)?;
        let begun = Instant::now();
        let outcome = writer.submit(company, apply);
        self.gate.counts.commits.add(begun.elapsed());
        outcome
    }

    /// Queues a change; see [`Writer::submit_then`].
    fn submit_then<T, F, D>(&self, company: Company, apply: F, done: D)
    where
        T: Send + 'static,
        F: FnOnce(&mut Batch<'_>) -> Result<T> + Send + 'static,
        D: FnOnce(Result<T>) + Send + 'static,
    {
        if self.unlocked.load().is_none() {
            return done(Err(BrokerError::Sealed));
        }
        let (commits, begun) = (Arc::clone(&self.gate.counts.commits), Instant::now());
        let done = move |result: Result<T>| {
            commits.add(begun.elapsed());
            done(result);
        };
        match self.writer.get() {
            Some(writer) => writer.submit_then(company, apply, done),
            None => done(Err(StoreError::Broken.into())),
        }
    }

    fn unlock(&self, root_key: RootKey) -> Result<Accepted> {
        let header = read_header(&*self.store)?;
        let sealed = read_keyring(&*self.store)?;
        let keyring = Keyring::open(header.store, &root_key, &sealed).map_err(BrokerError::Key)?;
        let mut loaded = load::load(&*self.store, &keyring)?;
        self.replay.anchored_at(loaded.root.audit.seq);
        let accepted = self.start_log(header.store, &keyring, &mut loaded.root)?;
        self.store.await_durable()?;
        self.gate.uses().replace(loaded.uses);
        self.gate.replace_leases(lease::resumed(loaded.leases, self.moment()));
        // A code that was being committed when the store was sealed may have elevated somebody after that.
        self.gate.elevations().clear();
        self.verdict.set(Integrity::Pending);
        self.unlocked.store(Some(Arc::new(Unlocked {
            store_id: header.store,
            root_key: Mutex::new(root_key),
            keyring: ArcSwap::from_pointee(keyring),
            index: RwLock::new(loaded.index),
            root: Mutex::new(loaded.root),
            carry: Mutex::default(),
            stale: Mutex::new(false),
        })));
        Ok(accepted)
    }

    /// Opens the log at the first unseal, and finds out whether the store is an older copy.
    fn start_log(&self, store: StoreId, keyring: &Keyring, root: &mut Root) -> Result<Accepted> {
        if self.gate.log().is_ok() {
            return Ok(Accepted::AsItWas);
        }
        let key = crate::audit::AuditKey::new(keyring.audit_key());
        let anchor = match root.audit {
            Head::EMPTY => None,
            head => Some(Anchor { head, carried: carried(&*self.store.snapshot()?, keyring)? }),
        };
        let LogSettings { directory, options, names } = &self.log;
        let rollback = if self.accept_rollback { Rollback::Accept } else { Rollback::Refuse };
        let options = crate::audit::Options { rollback, store: Some(store), ..options.clone() };
        let log = AuditLog::open(
            directory,
            key,
            anchor,
            options,
            Arc::clone(&self.clock),
            Arc::clone(names),
        )?;
        let logged = log.highest_generation().unwrap_or_default();
        let mut accepted = Accepted::AsItWas;
        if logged > root.generation {
            if !self.accept_rollback {
                return Err(BrokerError::Rollback { store: root.generation, log: logged });
            }
            let reason = format!("generation {} taken up again behind {logged}", root.generation);
            log.append(&Event {
                reason: Some(&reason),
                ..Event::new(Action::Restore, Outcome::Allowed)
            })?;
            root.generation = logged;
            accepted = Accepted::OlderStore;
        }
        self.gate.start_log(log);
        Ok(accepted)
    }

    fn reads_may_block(&self) -> bool {
        self.log.options.durability == crate::audit::Durability::Synced
            || self.gate.policy().limits_uses()
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").field("sealed", &self.is_sealed()).finish_non_exhaustive()
    }
}

/// Returns the inode number of one of the filesystem's own paths: a plain hash, never 0 or 1.
fn public_inode(path: &str) -> Inode {
    let digest = Sha256::digest(path.as_bytes());
    let number = digest.iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    Inode((number >> 1).max(2))
}

/// Limits and periods from the configuration.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Largest value in bytes; 1 MiB, at most 16 MiB.
    pub max_value_bytes: u64,
    /// How long deleted secrets stay in the trash.
    pub trash_retention: Duration,
    /// How many earlier versions are kept a secret; `None` keeps all.
    pub keep_versions: Option<u32>,
    /// How often something may be sealed under one epoch before the next one is begun by itself.
    pub seals_per_epoch: u64,
    /// How long a login session stays elevated.
    pub elevation: Duration,
    /// Whether a secret past `expires` is refused (EKEYEXPIRED) or served.
    pub refuse_expired: bool,
    /// How many secrets may be there that one uid has made, the trash included; `None`: any number.
    /// Admins of the store are exempt.
    pub secrets_per_uid: Option<u64>,
    /// The same for directories that were made by `mkdir`.
    pub directories_per_uid: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_value_bytes: 1 << 20,
            trash_retention: Duration::from_secs(30 * 24 * 3600),
            keep_versions: None,
            // Half of the 2^32 of NIST SP 800-38D: a batch may still be on its way.
            seals_per_epoch: 1 << 31,
            elevation: Duration::from_secs(10 * 60),
            refuse_expired: true,
            secrets_per_uid: Some(100_000),
            directories_per_uid: Some(10_000),
        }
    }
}
