//! Where the parts are joined: each function is the one call on the part that does the work.
//!
//! The rest of the daemon and the command line know the parts through this file alone, so that the
//! parts can change their constructors without anybody else noticing.
#![allow(
    unused_variables,
    clippy::unimplemented,
    reason = "to be joined when the parts are there; then this attribute goes"
)]

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use super::DaemonError;
use super::config::{Config, KeyConfig};
use super::init::PassphraseInput;
use super::timers::Task;
use crate::broker::{Broker, BrokerError};
use crate::crypto::{RootKey, Slot};
use crate::fs::control::Host;
use crate::model::{Clock, StoreId, Uid};
use crate::policy::{Policy, PolicyError};

/// The opened store with everything that serves it.
pub struct Parts {
    pub broker: Broker,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Parts(..)")
    }
}

impl Parts {
    /// Asks the key source again, for `unseal`: reads the header and unlocks it.
    pub fn unlock(
        &self,
        key: &KeyConfig,
        passphrase: &PassphraseInput,
    ) -> Result<RootKey, BrokerError> {
        unimplemented!("KeySource::unlock(&header)")
    }

    /// Returns the work that comes round daily: pruning the audit log, purging the trash.
    pub fn housekeeping(&self, config: &Config) -> Vec<Task> {
        unimplemented!()
    }
}

/// Makes a slot for the key source. For the root key's rotation and a change of source.
pub fn new_slot(
    key: &KeyConfig,
    passphrase: &PassphraseInput,
    store: StoreId,
    root: &RootKey,
) -> Result<Slot, String> {
    unimplemented!("KeySource::create_slot(store, root)")
}

/// Makes the store's file with a new root key, its slot, and the first keyring. Nothing is at `path`.
pub fn create_store(
    path: &Path,
    key: &KeyConfig,
    passphrase: &PassphraseInput,
) -> Result<StoreId, DaemonError> {
    unimplemented!("RootKey::generate, create_slot, RedbStore::create, Header")
}

/// Unlocks the key, opens store and audit log, loads the index. `StoreError::Locked` and wrong keys
/// become errors that say so.
pub fn open(
    config: &Config,
    policy: Policy,
    passphrase: &PassphraseInput,
) -> Result<Parts, DaemonError> {
    unimplemented!()
}

/// Replaces the content of the store by a backup while nothing is mounted.
pub fn restore_offline(
    config: &Config,
    policy: Policy,
    passphrase: &PassphraseInput,
    backup: &mut dyn Read,
) -> Result<(), DaemonError> {
    unimplemented!()
}

/// A mount that serves until it is unmounted. Dropping it neither unmounts nor waits.
#[derive(Debug)]
pub struct Mounted;

impl Mounted {
    /// Waits for the session's threads, after the unmount.
    pub fn join(self) {
        unimplemented!()
    }
}

/// Mounts the tree and serves it in threads of its own; `on_end` is called when the session has
/// ended for whatever reason.
pub fn mount(
    config: &Config,
    parts: &Parts,
    observer: Observer,
    host: Arc<dyn Host>,
    on_end: Box<dyn FnOnce() + Send>,
) -> io::Result<Mounted> {
    unimplemented!("identity::Callers, fs::Tree, fuse mount with subtype=secretfs")
}

/// The helper process that reads `/proc/<tid>/exe`.
#[derive(Debug)]
pub struct Observer;

/// Starts the observer, from this very program. Before any thread.
pub fn start_observer() -> io::Result<Observer> {
    unimplemented!("identity::Observer::spawn(/proc/self/exe)")
}

/// Is the observer: the hidden subcommand's whole life.
pub fn serve_observer() -> io::Result<()> {
    unimplemented!("identity::observer::serve(fd)")
}

/// Makes this process one that leaves no core and cannot be traced.
pub fn harden() -> io::Result<()> {
    crate::system::harden_process()
}

/// Parses a policy with the host's users and groups.
pub fn parse_policy(text: &str) -> Result<Policy, PolicyError> {
    unimplemented!("Policy::parse(text, &users)")
}

/// Returns the policy of a new store.
pub fn initial_policy(admins: &[Uid]) -> String {
    unimplemented!("policy::initial(admins)")
}

/// Runs the expectations written beside a policy: the number that held, and one line for each that
/// did not.
pub fn policy_expectations(text: &str) -> Result<(usize, Vec<String>), PolicyError> {
    unimplemented!("policy::run_expectations")
}

/// Tells whether a name's last segment is an editor's scratch name, which never becomes a secret.
pub fn is_scratch_name(leaf: &str) -> bool {
    unimplemented!("fs knows")
}

/// Returns the wall clock.
pub fn clock() -> Arc<dyn Clock> {
    unimplemented!()
}
