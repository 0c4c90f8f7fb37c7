//! Sealing and opening, pure: no I/O besides random bytes.
//!
//! A root key seals a [`Keyring`]; the keyring seals values and records, and authenticates the set
//! of them. A [`Header`] holds the root key once for each key source. AES-256-GCM, HMAC-SHA256,
//! HKDF and Argon2id; every key has one purpose, and whatever is sealed is bound to its place.
#![forbid(unsafe_code)]

mod aead;
mod context;
mod header;
mod kdf;
mod keyring;
mod padding;
mod random;
mod record;
mod record_set;
mod root;
mod slot;
#[cfg(test)]
mod tests;
mod totp;
mod value;

pub use header::Header;
pub use kdf::Stretching;
pub use keyring::Keyring;
pub use random::{fill_random, random_id};
pub use record_set::{Element, RecordSet};
pub use root::RootKey;
pub use slot::{Slot, SlotKind};
pub use totp::{Code, Seed};
pub use value::UnwrappedValue;

use crate::model::Epoch;
use crate::system::MemoryError;

/// Why something did not open, or could not be sealed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CryptoError {
    #[error("the bytes do not authenticate")]
    Damaged,
    #[error("malformed: {0}")]
    Malformed(&'static str),
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error("the operating system gave no random bytes")]
    NoRandom,
    #[error("there are too many bytes to seal")]
    TooLong,
    #[error("sealed under epoch {0}, which this keyring does not hold")]
    UnknownEpoch(Epoch),
    #[error("format version {0} is not known to this release")]
    UnknownFormat(u16),
    /// Less than the floor of [`Stretching`]: a default would be a downgrade by whoever can write
    /// to the header.
    #[error("the parameters of the passphrase are below the floor")]
    WeakStretching,
    #[error("the key is wrong")]
    WrongKey,
}
