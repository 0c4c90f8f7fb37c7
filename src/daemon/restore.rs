//! Restoring a backup while no daemon runs.
//!
//! The backup becomes a file of its own, which is opened with the key source and verified as any
//! store is; only then does it take the old one's place, or an empty one. So it may be older than
//! the present root key, and the store may be gone.

use std::fs;
use std::io::Read;

use super::config::Config;
use super::init::{PassphraseInput, check_policy, remove_if_there};
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
    let _lock = StoreLock::take(&config.state_dir, "restoring a backup")?;
    let policy = check_policy(&config.policy)?;
    let unpacked = config.store().with_extension("restored");
    let outcome = compose::restore_offline(config, policy, passphrase, &unpacked, backup);
    if outcome.is_err() {
        // It is no store yet; a next try makes it anew.
        drop(fs::remove_file(&unpacked));
        return outcome;
    }
    // The old store has taken its journal over, if it was there; the new one makes its own.
    remove_if_there(&config.journal())?;
    let put_in_place = fs::rename(&unpacked, config.store())
        .and_then(|()| fs::File::open(&config.state_dir)?.sync_all());
    put_in_place.map_err(DaemonError::io("putting the restored store in its place"))
}
