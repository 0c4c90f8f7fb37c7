//! Why the broker refused or failed.

use super::{Sought, UpstreamError};
use crate::audit::AuditError;
use crate::crypto::CryptoError;
use crate::model::{Generation, NameError, SecretName, Uid, Version};
use crate::policy::PolicyError;
/// What a front end meets inside a [`BrokerError`].
pub use crate::{crypto::CryptoError as KeyError, store::StoreError};

/// One variant per thing a caller can do about it. Messages may name a secret, never quote it.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    #[error("refused: the request could not be recorded")]
    Audit(#[from] AuditError),
    /// It can be asked again in a moment.
    #[error("{0}")]
    Busy(&'static str),
    /// Its readers wait for a moment: see [`Broker::wait_unheld`](super::Broker::wait_unheld).
    #[error("{0} is being changed where it is used")]
    Changing(SecretName),
    #[error("the value is damaged or was moved")]
    Damaged(#[source] CryptoError),
    #[error("access denied")]
    Denied,
    /// Another service keeps it, and has to be asked first: see [`Broker::fetch`](super::Broker::fetch).
    #[error("{} has to be fetched from its backend", .0.name())]
    Elsewhere(Sought),
    #[error("{0} already exists")]
    Exists(SecretName),
    #[error("{0} is past its expiry")]
    Expired(SecretName),
    #[error("version {expected} was expected to be the current one")]
    ExpectationFailed { expected: Version },
    #[error("{0}")]
    Invalid(String),
    #[error("{0} is a directory")]
    IsDirectory(SecretName),
    #[error(transparent)]
    Key(CryptoError),
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("directory {0} is not empty")]
    NotEmpty(SecretName),
    #[error("{0} is not a directory")]
    NotDirectory(SecretName),
    #[error("{0} does not exist")]
    NotFound(SecretName),
    /// It would have to go from one service to another.
    #[error("{0} is kept elsewhere than where it would go")]
    OtherRoute(SecretName),
    #[error(transparent)]
    Policy(#[from] PolicyError),
    #[error("uid {uid} has made {limit} {what}, as many as {setting} allows")]
    Quota { uid: Uid, what: &'static str, limit: u64, setting: &'static str },
    /// The policy allows it, and something else is missing or speaks against it.
    #[error("access denied: {0}")]
    Refused(Box<str>),
    #[error("{0} was revoked")]
    Revoked(SecretName),
    #[error(
        "the store is of generation {store}, but the audit log has seen {log}: an older copy was put back"
    )]
    Rollback { store: Generation, log: Generation },
    #[error("a rotation of {0} is running")]
    Rotating(SecretName),
    /// It was begun, and readers get the value that they got before.
    #[error("{why}")]
    RotationFailed { why: String, outcome: Box<serde_json::Value> },
    #[error("sealed: the store's key is not in memory")]
    Sealed,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the value is {bytes} bytes, more than the limit of {limit}")]
    TooBig { bytes: u64, limit: u64 },
    /// Whoever keeps the secret cannot do this.
    #[error("{0}")]
    Unsupported(String),
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// Whether it was done is not known.
    #[error("{0}")]
    Unfinished(String),
    /// The record set has not been verified yet, so "not found" cannot be said. See
    /// [`Broker::wait_verified`](super::Broker::wait_verified).
    #[error("the store is still being verified")]
    Verifying,
}

impl BrokerError {
    /// Tells whether something that is stored is not what was stored.
    pub(super) fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged(_) | Self::Store(StoreError::Damaged(_)))
    }
}
