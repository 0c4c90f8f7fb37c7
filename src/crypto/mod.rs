//! Sealing and opening, pure: no I/O besides random bytes.
#![forbid(unsafe_code)]

/// Why something did not open.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CryptoError {
    #[error("the bytes do not authenticate")]
    Damaged,
    #[error("malformed: {0}")]
    Malformed(&'static str),
    #[error("the operating system gave no random bytes")]
    NoRandom,
    #[error("sealed under epoch {0}, which this keyring does not hold")]
    UnknownEpoch(crate::model::Epoch),
    #[error("the key is wrong")]
    WrongKey,
}

/// Skeleton.
#[derive(Debug)]
pub struct RootKey;
/// Skeleton.
#[derive(Debug)]
pub struct Slot;
