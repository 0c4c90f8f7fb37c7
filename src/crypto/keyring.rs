//! The keys of a store: one for its whole life, and a row of epochs.
//!
//! The lasting key gives those for the record set, fingerprints, inode numbers and the audit chain,
//! so these stay the same whatever is rotated. Each epoch gives one key that wraps data keys and one
//! for records. The root key seals this alone, so changing it rewrites nothing else.
//!
//! Sealed form: format (u16, 1) || key check (16) || nonce || ciphertext || tag; within it the
//! lasting key (32), then for each epoch, oldest first: number (u32), time of making in microseconds
//! (i64), key (32). Numbers are big-endian.

use std::fmt;
use std::sync::Arc;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::CryptoError;
use super::aead::{Cipher, KEY_BYTES, plain_len};
use super::context::{Context, Purpose};
use super::kdf::{MacKey, derive};
use super::root::{RootKey, random_key};
use crate::model::{Epoch, Inode, StoreId, Timestamp};
use crate::system::SecretBytes;
use crate::system::memory::with_clean_stack;

const FORMAT: u16 = 1;
const FORMAT_BYTES: usize = size_of::<u16>();
const CHECK_BYTES: usize = 16;
const EPOCH_BYTES: usize = size_of::<u32>() + size_of::<i64>() + KEY_BYTES;

/// Seals and opens everything in a store. All keys are in locked memory.
pub struct Keyring {
    pub(super) store: StoreId,
    pub(super) lasting: Arc<Lasting>,
    /// Oldest first.
    older: Vec<Arc<EpochKeys>>,
    active: Arc<EpochKeys>,
}

/// What never changes in the life of a store.
pub(super) struct Lasting {
    key: SecretBytes,
    audit: SecretBytes,
    pub(super) element: MacKey,
    fingerprint: MacKey,
    inode: MacKey,
    pub(super) root_record: MacKey,
}

pub(super) struct EpochKeys {
    pub(super) epoch: Epoch,
    created: Timestamp,
    key: SecretBytes,
    pub(super) metadata: Cipher,
    pub(super) wrapping: Cipher,
}

impl Keyring {
    /// Makes the keys of a new store, with the first epoch.
    pub fn generate(store: StoreId, now: Timestamp) -> Result<Self, CryptoError> {
        Ok(Self {
            store,
            lasting: Arc::new(Lasting::new(store, random_key()?)?),
            older: Vec::new(),
            active: Arc::new(EpochKeys::new(store, Epoch(1), now.as_microsecond(), random_key()?)?),
        })
    }

    /// Seals the keys under the root key.
    pub fn seal(&self, root: &RootKey) -> Result<Vec<u8>, CryptoError> {
        let plain = SecretBytes::with_len(KEY_BYTES + self.all().count() * EPOCH_BYTES, |room| {
            let mut rest = room;
            put(&mut rest, self.lasting.key.expose())?;
            for keys in self.all() {
                put(&mut rest, &keys.epoch.0.to_be_bytes())?;
                put(&mut rest, &keys.created.as_microsecond().to_be_bytes())?;
                put(&mut rest, keys.key.expose())?;
            }
            Ok::<_, CryptoError>(KEY_BYTES + self.all().count() * EPOCH_BYTES)
        })?;
        let mut sealed = FORMAT.to_be_bytes().to_vec();
        sealed.extend_from_slice(&check_value(self.store, root)?);
        let cipher = cipher(self.store, root)?;
        with_clean_stack(|| cipher.seal(&context(self.store), plain.expose(), &mut sealed))?;
        Ok(sealed)
    }

    /// Opens the keys of `store`. `WrongKey` if they were sealed under another root key or for
    /// another store, `Damaged` or `Malformed` if the bytes were changed.
    pub fn open(store: StoreId, root: &RootKey, sealed: &[u8]) -> Result<Self, CryptoError> {
        let short = CryptoError::Malformed("the keyring is too short");
        let (format, rest) = sealed.split_first_chunk::<FORMAT_BYTES>().ok_or(short.clone())?;
        if u16::from_be_bytes(*format) != FORMAT {
            return Err(CryptoError::UnknownFormat(u16::from_be_bytes(*format)));
        }
        let (check, rest) = rest.split_first_chunk::<CHECK_BYTES>().ok_or(short)?;
        let key_fits = bool::from(check_value(store, root)?.ct_eq(check));
        let opened = SecretBytes::with_len(plain_len(rest)?, |room| {
            let cipher = cipher(store, root)?;
            with_clean_stack(|| cipher.open(&context(store), rest, room))?;
            Ok(room.len())
        });
        // The check value is apart from the sealed part, so that of the two one tells on the other.
        match (key_fits, opened) {
            (true, Ok(plain)) => Self::decode(store, plain.expose()),
            (false, Err(CryptoError::Damaged)) => Err(CryptoError::WrongKey),
            (false, Ok(_)) => Err(CryptoError::Damaged),
            (_, Err(error)) => Err(error),
        }
    }

    fn decode(store: StoreId, mut plain: &[u8]) -> Result<Self, CryptoError> {
        let lasting = Lasting::new(store, SecretBytes::copy_from(take::<KEY_BYTES>(&mut plain)?)?)?;
        let mut epochs: Vec<Arc<EpochKeys>> = Vec::new();
        while !plain.is_empty() {
            let epoch = Epoch(u32::from_be_bytes(*take(&mut plain)?));
            let created = i64::from_be_bytes(*take(&mut plain)?);
            let key = SecretBytes::copy_from(take::<KEY_BYTES>(&mut plain)?)?;
            if epochs.last().is_some_and(|last| last.epoch >= epoch) {
                return Err(CryptoError::Malformed("the epochs are out of order"));
            }
            epochs.push(Arc::new(EpochKeys::new(store, epoch, created, key)?));
        }
        let active = epochs.pop().ok_or(CryptoError::Malformed("the keyring has no epoch"))?;
        Ok(Self { store, lasting: Arc::new(lasting), older: epochs, active })
    }

    /// Returns the store that these are the keys of.
    pub fn store(&self) -> StoreId {
        self.store
    }

    /// Returns the epoch under which everything new is sealed.
    pub fn active(&self) -> Epoch {
        self.active.epoch
    }

    /// Returns the epochs and when they were made, oldest first.
    pub fn epochs(&self) -> Vec<(Epoch, Timestamp)> {
        self.all().map(|keys| (keys.epoch, keys.created)).collect()
    }

    /// Returns a keyring with one more epoch, which is the active one.
    pub fn with_new_epoch(&self, now: Timestamp) -> Result<Self, CryptoError> {
        let next = self.active.epoch.0.checked_add(1).ok_or(CryptoError::TooLong)?;
        let keys = EpochKeys::new(self.store, Epoch(next), now.as_microsecond(), random_key()?)?;
        Ok(Self {
            store: self.store,
            lasting: Arc::clone(&self.lasting),
            older: self.all().map(Arc::clone).collect(),
            active: Arc::new(keys),
        })
    }

    /// Returns a keyring without some epochs, under which nothing is sealed any more. The active
    /// one stays.
    #[must_use]
    pub fn without(&self, epochs: &[Epoch]) -> Self {
        let others = self.older.iter().filter(|keys| !epochs.contains(&keys.epoch));
        Self {
            store: self.store,
            lasting: Arc::clone(&self.lasting),
            older: others.map(Arc::clone).collect(),
            active: Arc::clone(&self.active),
        }
    }

    /// Returns a keyed hash of a value: equal for equal values within one store, random otherwise.
    pub fn fingerprint(&self, value: &SecretBytes) -> [u8; 16] {
        let mac = self.lasting.fingerprint.mac(&[value.expose()]);
        mac.first_chunk().copied().unwrap_or_default()
    }

    /// Returns the inode number of a path: a keyed hash of 63 bits, never 0 or 1 (1 is the root).
    pub fn inode(&self, path: &str) -> Inode {
        let mac = self.lasting.inode.mac(&[path.as_bytes()]);
        let number = u64::from_be_bytes(mac.first_chunk().copied().unwrap_or_default()) >> 1;
        Inode(number.max(2))
    }

    /// Returns the key that authenticates the chain of the audit log.
    pub fn audit_key(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.lasting.audit.expose().first_chunk().copied().unwrap_or_default())
    }

    pub(super) fn active_keys(&self) -> &EpochKeys {
        &self.active
    }

    pub(super) fn keys(&self, epoch: Epoch) -> Result<&EpochKeys, CryptoError> {
        // The active one first: almost everything is sealed under it.
        let mut all = std::iter::once(&self.active).chain(&self.older);
        let found = all.find(|keys| keys.epoch == epoch);
        found.map(|keys| &**keys).ok_or(CryptoError::UnknownEpoch(epoch))
    }

    fn all(&self) -> impl Iterator<Item = &Arc<EpochKeys>> {
        self.older.iter().chain([&self.active])
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let epochs = self.epochs();
        f.debug_struct("Keyring").field("store", &self.store).field("epochs", &epochs).finish()
    }
}

impl Lasting {
    fn new(store: StoreId, key: SecretBytes) -> Result<Self, CryptoError> {
        let mac = |purpose| with_clean_stack(|| MacKey::derive(key.expose(), store, purpose));
        Ok(Self {
            audit: with_clean_stack(|| derive(key.expose(), store, Purpose::AuditKey))?,
            element: mac(Purpose::ElementKey)?,
            fingerprint: mac(Purpose::FingerprintKey)?,
            inode: mac(Purpose::InodeKey)?,
            root_record: mac(Purpose::RootRecordKey)?,
            key,
        })
    }
}

impl EpochKeys {
    fn new(
        store: StoreId,
        epoch: Epoch,
        created_micros: i64,
        key: SecretBytes,
    ) -> Result<Self, CryptoError> {
        let cipher = |purpose| {
            with_clean_stack(|| Cipher::new(derive(key.expose(), store, purpose)?.expose()))
        };
        Ok(Self {
            epoch,
            // Whole microseconds are stored, so that is what a new epoch shows as well.
            created: Timestamp::from_microsecond(created_micros)
                .map_err(|_| CryptoError::Malformed("an epoch's time"))?,
            metadata: cipher(Purpose::MetadataKey)?,
            wrapping: cipher(Purpose::WrappingKey)?,
            key,
        })
    }
}

fn cipher(store: StoreId, root: &RootKey) -> Result<Cipher, CryptoError> {
    with_clean_stack(|| {
        Cipher::new(derive(root.expose().expose(), store, Purpose::KeyringKey)?.expose())
    })
}

fn context(store: StoreId) -> Context {
    Context::new(Purpose::Keyring).bytes(&store.0).number(FORMAT)
}

/// Tells whether a root key is the right one, and nothing else about it.
fn check_value(store: StoreId, root: &RootKey) -> Result<[u8; CHECK_BYTES], CryptoError> {
    let mac = MacKey::derive(root.expose().expose(), store, Purpose::CheckKey)?.mac(&[&store.0]);
    Ok(mac.first_chunk().copied().unwrap_or_default())
}

fn put(rest: &mut &mut [u8], bytes: &[u8]) -> Result<(), CryptoError> {
    let room = rest.split_off_mut(..bytes.len()).ok_or(CryptoError::TooLong)?;
    room.copy_from_slice(bytes);
    Ok(())
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Result<&'a [u8; N], CryptoError> {
    let (chunk, after) =
        rest.split_first_chunk().ok_or(CryptoError::Malformed("the keyring is cut short"))?;
    *rest = after;
    Ok(chunk)
}
