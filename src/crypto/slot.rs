//! A slot: the root key, sealed for one key source.
//!
//! All parameters are associated data. AES-GCM is not committing (one ciphertext can be made to
//! open under two keys), and here several keys are tried on bytes that others may have written:
//! so a commitment to the key and the parameters is checked first, in constant time.

use serde::{Deserialize, Serialize};

use super::aead::{Cipher, KEY_BYTES, OVERHEAD_BYTES};
use super::context::{Context, Purpose};
use super::kdf::{MacKey, Stretching, derive};
use super::{CryptoError, RootKey, random};
use crate::model::StoreId;
use crate::system::SecretBytes;
use crate::system::memory::with_clean_stack;

/// The root key, sealed for one key source.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Slot {
    pub kind: SlotKind,
    commitment: [u8; 32],
    wrapped: Vec<u8>,
}

/// Which key source a slot is for, and what must be known to use it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum SlotKind {
    KeyFile,
    /// Stretched with Argon2id.
    Passphrase {
        salt: [u8; 16],
        memory_kib: u32,
        passes: u32,
        lanes: u32,
    },
    /// A credential of that name from systemd.
    SystemdCredential {
        name: String,
    },
    /// Bytes that a service has sealed under a key which never leaves it.
    Wrapped {
        /// The service's name in the configuration, and its key's there.
        backend: String,
        key: String,
        wrapped: String,
    },
}

impl SlotKind {
    /// Returns the kind of a new slot for a passphrase, with a random salt.
    pub fn passphrase(stretching: Stretching) -> Result<Self, CryptoError> {
        let Stretching { memory_kib, passes, lanes } = stretching;
        Ok(Self::Passphrase { salt: random::bytes()?, memory_kib, passes, lanes })
    }
}

impl SlotKind {
    /// Returns the words for it in `secretfs key status`.
    pub fn describe(&self) -> String {
        match self {
            Self::KeyFile => "key file".into(),
            Self::Passphrase { memory_kib, passes, lanes, .. } => {
                format!("passphrase (Argon2id, {memory_kib} KiB, {passes} passes, {lanes} lanes)")
            }
            Self::SystemdCredential { name } => format!("systemd credential {name}"),
            Self::Wrapped { backend, key, .. } => format!("key {key} of backend {backend}"),
        }
    }
}

impl Slot {
    /// Seals the root key under what the source gives: bytes that cannot be guessed, or a
    /// passphrase. `WeakStretching` if a passphrase's parameters are below the floor.
    pub fn seal(
        store: StoreId,
        kind: SlotKind,
        source: &SecretBytes,
        root: &RootKey,
    ) -> Result<Self, CryptoError> {
        let keys = with_clean_stack(|| SlotKeys::new(store, &kind, source))?;
        let context = context(store, &kind);
        let mut wrapped = Vec::new();
        with_clean_stack(|| keys.cipher.seal(&context, root.expose().expose(), &mut wrapped))?;
        Ok(Self { commitment: keys.commitment.mac(&[context.as_bytes()]), wrapped, kind })
    }

    /// Opens the root key. `WrongKey` if the source is another one or the parameters were changed,
    /// `WeakStretching` if they are below the floor, `Damaged` if the rest was changed.
    pub fn open(&self, store: StoreId, source: &SecretBytes) -> Result<RootKey, CryptoError> {
        if self.wrapped.len() != KEY_BYTES + OVERHEAD_BYTES {
            return Err(CryptoError::Malformed("a slot is of the wrong length"));
        }
        let keys = with_clean_stack(|| SlotKeys::new(store, &self.kind, source))?;
        let context = context(store, &self.kind);
        if !keys.commitment.verify(&[context.as_bytes()], &self.commitment) {
            return Err(CryptoError::WrongKey);
        }
        let key = SecretBytes::with_len(KEY_BYTES, |room| {
            with_clean_stack(|| keys.cipher.open(&context, &self.wrapped, room))?;
            Ok::<_, CryptoError>(room.len())
        })?;
        RootKey::from_secret(key)
    }
}

struct SlotKeys {
    cipher: Cipher,
    commitment: MacKey,
}

impl SlotKeys {
    fn new(store: StoreId, kind: &SlotKind, source: &SecretBytes) -> Result<Self, CryptoError> {
        let stretched;
        let material = match *kind {
            SlotKind::Passphrase { salt, memory_kib, passes, lanes } => {
                stretched = Stretching { memory_kib, passes, lanes }.stretch(source, &salt)?;
                stretched.expose()
            }
            SlotKind::KeyFile | SlotKind::SystemdCredential { .. } | SlotKind::Wrapped { .. } => {
                source.expose()
            }
        };
        Ok(Self {
            cipher: Cipher::new(derive(material, store, Purpose::SlotKey)?.expose())?,
            commitment: MacKey::derive(material, store, Purpose::CommitmentKey)?,
        })
    }
}

fn context(store: StoreId, kind: &SlotKind) -> Context {
    let context = Context::new(Purpose::Slot).bytes(&store.0);
    match kind {
        SlotKind::KeyFile => context.bytes(b"key-file"),
        SlotKind::Passphrase { salt, memory_kib, passes, lanes } => context
            .bytes(b"passphrase")
            .bytes(salt)
            .number(*memory_kib)
            .number(*passes)
            .number(*lanes),
        SlotKind::SystemdCredential { name } => {
            context.bytes(b"systemd-credential").bytes(name.as_bytes())
        }
        SlotKind::Wrapped { backend, key, wrapped } => context
            .bytes(b"wrapped")
            .bytes(backend.as_bytes())
            .bytes(key.as_bytes())
            .bytes(wrapped.as_bytes()),
    }
}
