//! From the configured key source to the root key.

use std::path::PathBuf;
use std::sync::Arc;

use super::DaemonError;
use super::config::KeyConfig;
use super::init::PassphraseInput;
use crate::broker::{BrokerError, read_header, root_key_fits};
use crate::crypto::{RootKey, Slot};
use crate::keysource::{KeySource, KeySourceError, PassphraseFrom, Wrapping};
use crate::model::StoreId;
use crate::store::Store;
use crate::system::{KeyCell, SecretBytes};

/// Opens the root key of a store with a key source.
pub(super) fn unlock(
    store: &dyn Store,
    key: &KeyConfig,
    passphrase: &PassphraseInput,
    wrapping: &Arc<dyn Wrapping>,
) -> Result<RootKey, UnlockError> {
    let header = read_header(store)?;
    Ok(source(key, passphrase, wrapping)?.unlock(&header)?)
}

/// Returns the key of a store that the server before has left; `None`: it has left none that fits.
pub(super) fn left(store: &dyn Store, cell: &KeyCell) -> Result<Option<RootKey>, UnlockError> {
    let keys = cell.keys()?;
    let was_open = !keys.is_empty();
    for key in keys {
        let root = RootKey::from_secret(key)?;
        if root_key_fits(store, &root)? {
            return Ok(Some(root));
        }
    }
    if was_open {
        tracing::error!("no key that the server before has left is the store's");
    }
    Ok(None)
}

/// Seals a root key for a key source: of a new store, or of one that gets a new root key.
pub(super) fn new_slot(
    (key, passphrase): (&KeyConfig, &PassphraseInput),
    wrapping: &Arc<dyn Wrapping>,
    store: StoreId,
    root: &RootKey,
) -> Result<Slot, String> {
    source(key, passphrase, wrapping)
        .and_then(|source| source.create_slot(store, root))
        .map_err(|error| super::error::chain(&error))
}

/// Why the root key could not be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnlockError {
    /// There is no header to unlock.
    #[error(transparent)]
    Header(#[from] BrokerError),
    #[error(transparent)]
    Source(#[from] KeySourceError),
}

impl From<crate::crypto::CryptoError> for UnlockError {
    fn from(error: crate::crypto::CryptoError) -> Self {
        Self::Source(error.into())
    }
}

impl From<crate::system::MemoryError> for UnlockError {
    fn from(error: crate::system::MemoryError) -> Self {
        crate::crypto::CryptoError::Memory(error).into()
    }
}

impl UnlockError {
    /// Tells whether the same may succeed a little later.
    pub(super) fn passes(&self) -> bool {
        matches!(self, Self::Source(KeySourceError::Service { passes: true, .. }))
    }

    /// Tells whether the only thing missing is a terminal to ask at.
    pub(super) fn nobody_to_ask(&self) -> bool {
        matches!(self, Self::Source(KeySourceError::NoTerminal(_)))
    }
}

impl From<UnlockError> for DaemonError {
    fn from(error: UnlockError) -> Self {
        match error {
            UnlockError::Header(error) => error.into(),
            UnlockError::Source(error) => Self::Key(super::error::chain(&error)),
        }
    }
}

impl From<UnlockError> for BrokerError {
    fn from(error: UnlockError) -> Self {
        match error {
            UnlockError::Header(error) => error,
            UnlockError::Source(KeySourceError::WrongKey) => {
                Self::Key(crate::crypto::CryptoError::WrongKey)
            }
            UnlockError::Source(error) => Self::Invalid(super::error::chain(&error)),
        }
    }
}

fn source(
    key: &KeyConfig,
    passphrase: &PassphraseInput,
    wrapping: &Arc<dyn Wrapping>,
) -> Result<KeySource, KeySourceError> {
    Ok(match key {
        KeyConfig::Backend(key) => KeySource::Wrapped(key.clone(), Arc::clone(wrapping)),
        KeyConfig::Credential { name, directory } => {
            // Where systemd sets no directory there is no credential, and the error names a path.
            let directory = directory.clone().unwrap_or_else(|| PathBuf::from("/run/credentials"));
            KeySource::SystemdCredential(name.clone(), directory)
        }
        KeyConfig::File(path) => KeySource::File(path.clone()),
        KeyConfig::Passphrase => KeySource::Passphrase(match passphrase {
            PassphraseInput::Ask => PassphraseFrom::Terminal,
            PassphraseInput::Descriptor(fd) => PassphraseFrom::Descriptor(*fd),
            PassphraseInput::Given(phrase) => {
                let copy = SecretBytes::copy_from(phrase.expose());
                PassphraseFrom::Given(copy.map_err(crate::crypto::CryptoError::Memory)?)
            }
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;

    #[test]
    fn a_store_without_a_header_is_damaged_and_never_unlocked() {
        let key = KeyConfig::File("/nonexistent".into());
        let wrapping = crate::daemon::wrapping::in_process(Default::default());
        let store = MemoryStore::new();
        let error = unlock(&store, &key, &PassphraseInput::Ask, &wrapping).unwrap_err();
        let damaged = |error: &BrokerError| error.to_string().contains("the header is missing");
        assert!(matches!(&error, UnlockError::Header(error) if damaged(error)));
    }

    #[test]
    fn of_the_keys_that_are_left_the_one_that_the_store_has_is_taken() {
        let store = MemoryStore::new();
        let source = SecretBytes::copy_from(&[7; 32]).unwrap();
        let clock = crate::system::SystemClock;
        let mut slot = |id, root: &RootKey| {
            let made = Slot::seal(id, crate::crypto::SlotKind::KeyFile, &source, root);
            made.map_err(|error| error.to_string())
        };
        let root = crate::broker::Broker::create(&store, &clock, &mut slot).unwrap();
        let its = || SecretBytes::copy_from(root.expose().expose()).unwrap();
        let other = || SecretBytes::copy_from(&[9; 32]).unwrap();
        let left = |first: SecretBytes, second: Option<SecretBytes>| {
            let cell = KeyCell::new().unwrap();
            cell.put(&first);
            second.iter().for_each(|key| cell.put_beside(key));
            left(&store, &cell)
                .unwrap()
                .is_some_and(|key| key.expose().constant_time_eq(root.expose()))
        };
        assert!(left(its(), None) && left(its(), Some(other())) && left(other(), Some(its())));
        assert!(!left(other(), None) && !left(other(), Some(other())));
        let empty = KeyCell::new().unwrap();
        assert!(super::left(&store, &empty).unwrap().is_none());
    }

    #[test]
    fn a_wrong_key_is_told_apart_from_a_missing_one() {
        let wrong = BrokerError::from(UnlockError::Source(KeySourceError::WrongKey));
        assert!(matches!(wrong, BrokerError::Key(crate::crypto::CryptoError::WrongKey)));
        let missing = KeySourceError::KeyFileMissing { path: "/k".into() };
        let missing = BrokerError::from(UnlockError::Source(missing));
        assert_eq!(missing.to_string(), "the key file /k is missing");
    }
}
