//! Restoring a backup while no daemon runs.

use std::io::Read;

use super::config::Config;
use super::init::{PassphraseInput, check_policy};
use super::lock::StoreLock;
use super::{DaemonError, compose};
use crate::system::harden_process;

/// Replaces everything in the store by a backup. The policy decides whether the caller may, as it
/// would with a daemon, and the audit log tells of it.
pub fn offline(
    config: &Config,
    passphrase: &PassphraseInput,
    backup: &mut dyn Read,
) -> Result<(), DaemonError> {
    harden_process().map_err(DaemonError::io("closing the process to others"))?;
    if !config.store().exists() {
        return Err(DaemonError::NoStore(config.state_dir.clone()));
    }
    let _lock = StoreLock::take(&config.state_dir, "restoring a backup")?;
    let policy = check_policy(&config.policy)?;
    compose::restore_offline(config, policy, passphrase, backup)
}
