//! What a sealed record holds once it is opened.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::BrokerError;
use super::elevation::CodeRecord;
use super::lease::LeaseRecord;
use super::rotation::Stage;
use crate::model::{Metadata, SecretId, SecretName, Status, Timestamp, Uid, optional_micros};
use crate::store::StoreError;
use crate::versions::History;

/// One entry of the table of records. The variants' order is stored: add at the end only.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) enum Record {
    Secret(SecretRecord),
    /// A directory that `mkdir` made before it was noted by whom; see [`Record::MadeDirectory`].
    Directory(SecretName),
    /// How often each binding with `max_uses` was used.
    Uses(BTreeMap<Box<str>, u32>),
    /// A directory that `mkdir` made; others exist because of what is in them.
    MadeDirectory {
        name: SecretName,
        created_by: Uid,
    },
    /// What the last rotation of a secret has to remember; see [`rotation_id`].
    Rotation(RotationRecord),
    /// What an admin has granted for a time.
    Lease(LeaseRecord),
    /// What is kept of a user's one-time codes.
    Codes(CodeRecord),
}

/// What is kept of a secret's rotations, beside its record.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct RotationRecord {
    pub(super) secret: SecretId,
    pub(super) stage: Stage,
    /// The secret's status before the rotation that is under way.
    pub(super) before: Status,
    /// The driver's own words; nothing here reads them.
    pub(super) note: Box<str>,
}

/// Returns where the record of a secret's rotations lies: the complement of the secret's own id, so
/// that it is found without an index. Both are 16 random bytes.
pub(super) fn rotation_id(secret: SecretId) -> SecretId {
    SecretId(secret.0.map(|byte| !byte))
}

/// A secret without its values.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct SecretRecord {
    pub(super) name: SecretName,
    pub(super) metadata: Metadata,
    pub(super) history: History,
    /// When it was moved to the trash.
    #[serde(with = "optional_micros")]
    pub(super) deleted: Option<Timestamp>,
    /// Tells secrets in the trash that had one name apart: the first is 1, and a later one gets a
    /// higher number than those that are there.
    pub(super) trash_number: u32,
}

/// Where the one `Uses` record lies.
pub(super) const USES_ID: SecretId = SecretId([0xff; 16]);

impl Record {
    /// Returns the bytes to be sealed. They hold names and metadata, so they are wiped.
    pub(super) fn encode(&self) -> Result<Zeroizing<Vec<u8>>, BrokerError> {
        postcard::to_stdvec(self)
            .map(Zeroizing::new)
            .map_err(|err| BrokerError::Invalid(format!("a record cannot be encoded: {err}")))
    }

    /// Reads what `encode` wrote.
    pub(super) fn decode(plain: &[u8]) -> Result<Self, BrokerError> {
        postcard::from_bytes(plain)
            .map_err(|err| StoreError::Damaged(format!("a record cannot be decoded: {err}")).into())
    }
}
