//! Where the root key comes from: a key file, a passphrase, a credential of systemd, or a service's key.
//!
//! A source gives bytes, and a slot of the store's header holds the root key sealed under them. No
//! source is tried that the configuration does not name, and none has a fallback.
#![forbid(unsafe_code)]

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

mod credential;
mod error;
mod key_file;
mod passphrase;
#[cfg(test)]
mod tests;

pub use error::KeySourceError;
pub use passphrase::PassphraseFrom;

use crate::crypto::{CryptoError, Header, RootKey, Slot, SlotKind, Stretching};
use crate::model::StoreId;
use crate::system::SecretBytes;

/// One place from which a root key can be had.
pub enum KeySource {
    /// 64 hexadecimal digits (32 bytes) and a newline, readable by the daemon's user alone.
    File(PathBuf),
    Passphrase(PassphraseFrom),
    /// The name of the credential, and the directory that `$CREDENTIALS_DIRECTORY` names.
    SystemdCredential(String, PathBuf),
    /// Random bytes that a service seals and opens, and who asks it.
    Wrapped(WrappingKey, Arc<dyn Wrapping>),
}

/// A key that never leaves the service that has it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WrappingKey {
    /// The service's name in the configuration.
    pub backend: String,
    pub name: String,
}

/// Asks services to seal and open.
pub trait Wrapping: Send + Sync {
    /// Seals. What comes back is no secret.
    fn wrap(&self, key: &WrappingKey, plain: &SecretBytes) -> Result<String, KeySourceError>;

    /// Opens what [`Self::wrap`] has given.
    fn unwrap(&self, key: &WrappingKey, wrapped: &str) -> Result<SecretBytes, KeySourceError>;
}

/// Makes a key file, unless there is one. Returns whether it was made.
pub fn make_key_file(path: &Path) -> Result<bool, KeySourceError> {
    let is_there = path.symlink_metadata().is_ok();
    key_file::read_or_create(path).map(|_| !is_there)
}

impl KeySource {
    /// Seals a root key for this source. Makes the key file if there is none; asks twice for a
    /// passphrase at a terminal, and stretches it with the default cost.
    pub fn create_slot(&self, store: StoreId, root: &RootKey) -> Result<Slot, KeySourceError> {
        self.create_slot_with(store, root, Stretching::DEFAULT)
    }

    /// As [`create_slot`](Self::create_slot), with another cost of trying a passphrase.
    pub fn create_slot_with(
        &self,
        store: StoreId,
        root: &RootKey,
        stretching: Stretching,
    ) -> Result<Slot, KeySourceError> {
        let seal = |kind, source: &SecretBytes| Ok(Slot::seal(store, kind, source, root)?);
        match self {
            Self::File(path) => seal(SlotKind::KeyFile, &key_file::read_or_create(path)?),
            Self::Passphrase(from) => {
                from.ask_for_new(|source| seal(SlotKind::passphrase(stretching)?, source))
            }
            Self::SystemdCredential(name, directory) => {
                let kind = SlotKind::SystemdCredential { name: name.clone() };
                seal(kind, &credential::read(name, directory)?)
            }
            Self::Wrapped(key, by) => {
                let plain = RootKey::generate()?;
                let kind = SlotKind::Wrapped {
                    backend: key.backend.clone(),
                    key: key.name.clone(),
                    wrapped: by.wrap(key, plain.expose())?,
                };
                seal(kind, plain.expose())
            }
        }
    }

    /// Opens the root key from the slots of this kind. `NoSlot` if there are none, `WrongKey` if
    /// none of them opens.
    pub fn unlock(&self, header: &Header) -> Result<RootKey, KeySourceError> {
        let fitting: Vec<&Slot> =
            header.slots.iter().filter(|slot| self.fits(&slot.kind)).collect();
        // Before anybody is asked for a passphrase that cannot help.
        if fitting.is_empty() {
            return Err(KeySourceError::NoSlot(self.to_string()));
        }
        match self {
            Self::File(path) => open_any(header, &fitting, &key_file::read(path)?),
            Self::Passphrase(from) => from.ask(|source| open_any(header, &fitting, source)),
            Self::SystemdCredential(name, directory) => {
                open_any(header, &fitting, &credential::read(name, directory)?)
            }
            Self::Wrapped(key, by) => open_wrapped(header, &fitting, key, &**by),
        }
    }

    fn fits(&self, kind: &SlotKind) -> bool {
        match (self, kind) {
            (Self::File(_), SlotKind::KeyFile)
            | (Self::Passphrase(_), SlotKind::Passphrase { .. }) => true,
            (Self::SystemdCredential(name, _), SlotKind::SystemdCredential { name: other }) => {
                name == other
            }
            (Self::Wrapped(key, _), SlotKind::Wrapped { backend, key: name, .. }) => {
                *backend == key.backend && *name == key.name
            }
            (
                Self::File(_)
                | Self::Passphrase(_)
                | Self::SystemdCredential(..)
                | Self::Wrapped(..),
                _,
            ) => false,
        }
    }
}

/// Has each slot's own bytes opened.
fn open_wrapped(
    header: &Header,
    slots: &[&Slot],
    key: &WrappingKey,
    by: &dyn Wrapping,
) -> Result<RootKey, KeySourceError> {
    let mut last = KeySourceError::WrongKey;
    for slot in slots {
        let SlotKind::Wrapped { wrapped, .. } = &slot.kind else { continue };
        let opened = by.unwrap(key, wrapped).and_then(|plain| open_any(header, &[slot], &plain));
        match opened {
            Ok(root) => return Ok(root),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn open_any(
    header: &Header,
    slots: &[&Slot],
    source: &SecretBytes,
) -> Result<RootKey, KeySourceError> {
    let mut first_error = None;
    for slot in slots {
        match slot.open(header.store, source) {
            Ok(root) => return Ok(root),
            // Another slot of the kind may be the right one; a damaged one is worth telling of.
            Err(CryptoError::WrongKey) => {}
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    Err(first_error.map_or(KeySourceError::WrongKey, KeySourceError::Crypto))
}

/// Names the source as in a message; never shows what it gives.
impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "key file {}", path.display()),
            Self::Passphrase(_) => f.write_str("passphrase"),
            Self::SystemdCredential(name, _) => write!(f, "systemd credential {name}"),
            Self::Wrapped(key, _) => write!(f, "key {} of backend {}", key.name, key.backend),
        }
    }
}

impl fmt::Debug for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeySource({self})")
    }
}
