//! What is known of a secret besides its value.

use serde::{Deserialize, Serialize};

use super::{Gid, Injection, SecretType, Timestamp, Uid, micros, optional_micros};

/// The life cycle of a secret.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    #[default]
    Active,
    Expired,
    PendingDeletion,
    Revoked,
    Rotating,
}

impl Status {
    /// Every status, in the order in which they are listed.
    pub const ALL: [Self; 5] =
        [Self::Active, Self::Rotating, Self::Expired, Self::Revoked, Self::PendingDeletion];

    /// Returns the word for it, in listings and attributes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Expired => "expired",
            Self::PendingDeletion => "pending_deletion",
            Self::Revoked => "revoked",
            Self::Rotating => "rotating",
        }
    }
}

/// What a rule may select a secret by, and what `.by/` lists.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Attributes {
    pub secret_type: SecretType,
    pub service: Option<Box<str>>,
    pub environment: Option<Box<str>>,
    /// Sorted, without duplicates.
    pub tags: Vec<Box<str>>,
}

/// What users and the store know of a secret, beside its name and versions.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Metadata {
    pub attributes: Attributes,
    /// Stored status; `Expired` is derived from `expires` when it is asked for.
    pub status: Status,
    #[serde(with = "micros")]
    pub created: Timestamp,
    #[serde(with = "micros")]
    pub modified: Timestamp,
    pub created_by: Uid,
    #[serde(with = "optional_micros")]
    pub expires: Option<Timestamp>,
    #[serde(with = "optional_micros")]
    pub last_rotated: Option<Timestamp>,
    pub rotation_days: Option<u32>,
    pub description: Option<Box<str>>,
    pub owner_contact: Option<Box<str>>,
    /// Pinned ownership, for consumers that need a fixed answer instead of "the caller's own".
    pub owner: Option<Uid>,
    pub group: Option<Gid>,
    /// Pinned permission bits.
    pub mode: Option<u16>,
    /// Stored behind a record, and only where there is any: most secrets have none.
    #[serde(skip)]
    pub injection: Injection,
    /// Nothing should ever open it. Stored as `injection` is.
    #[serde(skip)]
    pub decoy: bool,
}
