//! Why a key source gave no root key; the messages say what to do.

use std::io;
use std::path::{Path, PathBuf};

use crate::crypto::CryptoError;
use crate::system::MemoryError;

/// One variant per thing the user can do about it.
#[derive(Debug, thiserror::Error)]
pub enum KeySourceError {
    /// Set the credential in the unit (`LoadCredentialEncrypted=`).
    #[error("the systemd credential {path} is missing: set LoadCredentialEncrypted= in the unit")]
    CredentialMissing { path: PathBuf },
    #[error("the systemd credential {name:?} cannot be used: {reason}")]
    CredentialUnusable { name: String, reason: &'static str },
    #[error(transparent)]
    Crypto(CryptoError),
    #[error("the passphrase is empty")]
    EmptyPassphrase,
    #[error("the key file {path} cannot be used: {reason}")]
    KeyFileMalformed { path: PathBuf, reason: &'static str },
    #[error("the key file {path} is missing")]
    KeyFileMissing { path: PathBuf },
    #[error("the key file {path} is open to other users (mode {mode:04o}), run: chmod 0400 {quoted}",
        quoted = quoted(path))]
    KeyFileMode { path: PathBuf, mode: u32 },
    #[error("the key file {path} belongs to user {owner} instead of {expected}, \
        run: chown {expected} {quoted}", quoted = quoted(path))]
    KeyFileOwner { path: PathBuf, owner: u32, expected: u32 },
    #[error("the header has no slot for the {0}")]
    NoSlot(String),
    #[error("there is no terminal to ask for the passphrase at: give it on a descriptor")]
    NoTerminal(#[source] io::Error),
    #[error("the two passphrases differ")]
    PassphrasesDiffer,
    #[error("the passphrase is longer than {max} bytes", max = super::passphrase::MAX_BYTES)]
    PassphraseTooLong,
    #[error("the passphrase cannot be read from the descriptor")]
    PassphraseUnreadable(#[source] io::Error),
    /// A service did not seal or open; `passes`: it may do so later.
    #[error("the backend {backend} gave no key: {why}")]
    Service { backend: String, why: String, passes: bool },
    #[error("{path} cannot be read or written")]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("the key is wrong")]
    WrongKey,
}

impl From<CryptoError> for KeySourceError {
    fn from(error: CryptoError) -> Self {
        match error {
            CryptoError::WrongKey => Self::WrongKey,
            CryptoError::Damaged
            | CryptoError::Malformed(_)
            | CryptoError::Memory(_)
            | CryptoError::NoRandom
            | CryptoError::TooLong
            | CryptoError::UnknownEpoch(_)
            | CryptoError::UnknownFormat(_)
            | CryptoError::WeakStretching => Self::Crypto(error),
        }
    }
}

impl From<MemoryError> for KeySourceError {
    fn from(error: MemoryError) -> Self {
        Self::Crypto(error.into())
    }
}

/// Writes a path so that a shell takes it as one word and not as an option.
fn quoted(path: &Path) -> String {
    format!("-- '{}'", path.display().to_string().replace('\'', r"'\''"))
}
