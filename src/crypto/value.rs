//! Values: each version sealed under a data key of its own, which an epoch's key wraps.
//!
//! Sealed form: epoch (u32, big-endian) || wrapped data key (60) || nonce || ciphertext || tag. Both
//! layers are bound to store, secret and version; the outer one to the epoch as well. The inner one
//! is not, so that a change of epoch wraps the data key anew and leaves the ciphertext as it is.

use std::fmt;

use super::CryptoError;
use super::aead::{Cipher, KEY_BYTES, NONCE_BYTES, Nonce, OVERHEAD_BYTES, plain_len};
use super::context::{Context, Purpose};
use super::keyring::{EpochKeys, Keyring};
use super::padding::{pad, padded_len, unpadded_len};
use super::random;
use super::root::random_secret;
use crate::model::{Epoch, SecretId, StoreId, Version};
use crate::system::SecretBytes;
use crate::system::memory::with_clean_stack;

const EPOCH_BYTES: usize = size_of::<u32>();
const WRAPPED_BYTES: usize = KEY_BYTES + OVERHEAD_BYTES;

/// Where a value belongs.
#[derive(Clone, Copy)]
struct Place {
    store: StoreId,
    secret: SecretId,
    version: Version,
}

impl Place {
    fn context(self, purpose: Purpose) -> Context {
        Context::new(purpose).bytes(&self.store.0).bytes(&self.secret.0).number(self.version.0)
    }

    fn content(self) -> Context {
        self.context(Purpose::Content)
    }

    fn data_key(self, epoch: Epoch) -> Context {
        self.context(Purpose::DataKey).number(epoch.0)
    }
}

impl Keyring {
    /// Seals a value for one place: that version of that secret. Its length is padded.
    pub fn seal_value(
        &self,
        secret: SecretId,
        version: Version,
        value: &SecretBytes,
    ) -> Result<Vec<u8>, CryptoError> {
        let place = Place { store: self.store, secret, version };
        with_clean_stack(|| self.seal_at(place, value))
    }

    fn seal_at(&self, place: Place, value: &SecretBytes) -> Result<Vec<u8>, CryptoError> {
        let padded = SecretBytes::with_len(padded_len(value.len())?, |room| {
            pad(value.expose(), room)?;
            Ok::<_, CryptoError>(room.len())
        })?;
        // All three by one system call, of which a put would make many.
        let drawn = random_secret(KEY_BYTES + 2 * NONCE_BYTES)?;
        let (data_key, nonces) = drawn.expose().split_at(KEY_BYTES);
        let (nonces, _) = nonces.as_chunks();
        let [wrapping, content] = nonces else { return Err(CryptoError::NoRandom) };
        let size = EPOCH_BYTES + WRAPPED_BYTES + OVERHEAD_BYTES + padded.len();
        let mut sealed = Vec::with_capacity(size);
        wrap(self.active_keys(), place, (data_key, wrapping), &mut sealed)?;
        let cipher = Cipher::new(data_key)?;
        cipher.seal_with(content, &place.content(), padded.expose(), &mut sealed)?;
        Ok(sealed)
    }

    /// Opens a value into locked memory. `Damaged` if it was changed or belongs elsewhere.
    pub fn open_value(
        &self,
        secret: SecretId,
        version: Version,
        sealed: &[u8],
    ) -> Result<SecretBytes, CryptoError> {
        let place = Place { store: self.store, secret, version };
        with_clean_stack(|| {
            let (cipher, content) = self.unwrap_at(place, sealed)?;
            open_content(&cipher, place, content)
        })
    }

    /// Unwraps the data key of a value that is to be opened often. `Damaged` as for
    /// [`open_value`](Self::open_value), but for the content, which is not opened yet.
    pub fn unwrap_value(
        &self,
        secret: SecretId,
        version: Version,
        sealed: &[u8],
    ) -> Result<UnwrappedValue, CryptoError> {
        let place = Place { store: self.store, secret, version };
        let (cipher, content) = with_clean_stack(|| self.unwrap_at(place, sealed))?;
        Ok(UnwrappedValue { place, cipher, content: content.into() })
    }

    fn unwrap_at<'a>(
        &self,
        place: Place,
        sealed: &'a [u8],
    ) -> Result<(Cipher, &'a [u8]), CryptoError> {
        let (epoch, wrapped, content) = split(sealed)?;
        let data_key = unwrap(self.keys(epoch)?, place, wrapped)?;
        Ok((Cipher::new(data_key.expose())?, content))
    }

    /// Wraps a value's data key under the active epoch; `None` if it is so already. The content is
    /// not opened.
    pub fn rewrap_value(
        &self,
        secret: SecretId,
        version: Version,
        sealed: &[u8],
    ) -> Result<Option<Vec<u8>>, CryptoError> {
        let place = Place { store: self.store, secret, version };
        let (epoch, wrapped, content) = split(sealed)?;
        if epoch == self.active() {
            return Ok(None);
        }
        let mut rewrapped = Vec::with_capacity(sealed.len());
        with_clean_stack(|| {
            let data_key = unwrap(self.keys(epoch)?, place, wrapped)?;
            let nonce = random::bytes()?;
            wrap(self.active_keys(), place, (data_key.expose(), &nonce), &mut rewrapped)
        })?;
        rewrapped.extend_from_slice(content);
        Ok(Some(rewrapped))
    }

    /// Returns the epoch under which a value or a record is sealed.
    pub fn epoch_of(sealed: &[u8]) -> Result<Epoch, CryptoError> {
        split_epoch(sealed).map(|(epoch, _)| epoch)
    }
}

/// A value that is still sealed, with its data key ready for use in locked memory.
pub struct UnwrappedValue {
    place: Place,
    cipher: Cipher,
    content: Box<[u8]>,
}

impl UnwrappedValue {
    /// Opens the value into locked memory. `Damaged` if it was changed or belongs elsewhere.
    pub fn open(&self) -> Result<SecretBytes, CryptoError> {
        with_clean_stack(|| open_content(&self.cipher, self.place, &self.content))
    }
}

impl fmt::Debug for UnwrappedValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UnwrappedValue(..)")
    }
}

fn open_content(cipher: &Cipher, place: Place, content: &[u8]) -> Result<SecretBytes, CryptoError> {
    SecretBytes::with_len(plain_len(content)?, |room| {
        cipher.open(&place.content(), content, room)?;
        unpadded_len(room)
    })
}

/// Splits the epoch off the front of sealed bytes.
pub(super) fn split_epoch(sealed: &[u8]) -> Result<(Epoch, &[u8]), CryptoError> {
    let (epoch, rest) =
        sealed.split_first_chunk().ok_or(CryptoError::Malformed("too few bytes"))?;
    Ok((Epoch(u32::from_be_bytes(*epoch)), rest))
}

fn split(sealed: &[u8]) -> Result<(Epoch, &[u8], &[u8]), CryptoError> {
    let (epoch, rest) = split_epoch(sealed)?;
    let (wrapped, content) =
        rest.split_at_checked(WRAPPED_BYTES).ok_or(CryptoError::Malformed("too few bytes"))?;
    Ok((epoch, wrapped, content))
}

/// Appends the epoch and the data key, wrapped under a nonce that was drawn for it.
fn wrap(
    keys: &EpochKeys,
    place: Place,
    (data_key, nonce): (&[u8], &Nonce),
    out: &mut Vec<u8>,
) -> Result<(), CryptoError> {
    out.extend_from_slice(&keys.epoch.0.to_be_bytes());
    keys.wrapping.seal_with(nonce, &place.data_key(keys.epoch), data_key, out)
}

fn unwrap(keys: &EpochKeys, place: Place, wrapped: &[u8]) -> Result<SecretBytes, CryptoError> {
    SecretBytes::with_len(KEY_BYTES, |room| {
        keys.wrapping.open(&place.data_key(keys.epoch), wrapped, room)?;
        Ok(room.len())
    })
}
