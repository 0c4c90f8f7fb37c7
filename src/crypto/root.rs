//! The root key: seals the keyring and nothing else.

use std::fmt;

use super::aead::KEY_BYTES;
use super::{CryptoError, random};
use crate::system::SecretBytes;

/// 32 bytes from which the whole store opens.
pub struct RootKey(SecretBytes);

impl RootKey {
    /// Makes a new key from random bytes.
    pub fn generate() -> Result<Self, CryptoError> {
        random_key().map(Self)
    }

    /// Takes 32 bytes that are a root key; `Malformed` for another length.
    pub fn from_secret(secret: SecretBytes) -> Result<Self, CryptoError> {
        if secret.len() == KEY_BYTES {
            Ok(Self(secret))
        } else {
            Err(CryptoError::Malformed("a root key has 32 bytes"))
        }
    }

    /// Lends out the key's bytes: to seal them, and for key sources that hold the root key itself.
    pub(crate) fn expose(&self) -> &SecretBytes {
        &self.0
    }
}

impl fmt::Debug for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RootKey(..)")
    }
}

/// Makes 32 random bytes in locked memory.
pub(super) fn random_key() -> Result<SecretBytes, CryptoError> {
    random_secret(KEY_BYTES)
}

/// Makes so many random bytes in locked memory.
pub(super) fn random_secret(len: usize) -> Result<SecretBytes, CryptoError> {
    SecretBytes::with_len(len, |room| {
        random::fill_random(room)?;
        Ok(room.len())
    })
}
