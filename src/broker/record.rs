//! What a sealed record holds once it is opened.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::BrokerError;
use super::rotation::Stage;
use crate::model::{Metadata, SecretId, SecretName, Status, Timestamp, Uid, optional_micros};
use crate::store::StoreError;
use crate::versions::History;

/// One entry of the table of records. The variants' order is stored: add at the end only.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[expect(clippy::large_enum_variant, reason = "nearly all records are secrets")]
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

/// The number of a decoy's record: a secret's under another one, as if it were a variant of its own. So records of
/// ordinary secrets are as they always were, and an older release does not take a decoy for one of them.
const DECOY: u8 = 5;

impl Record {
    /// Returns the bytes to be sealed. They hold names and metadata, so they are wiped.
    pub(super) fn encode(&self) -> Result<Zeroizing<Vec<u8>>, BrokerError> {
        let encoded = postcard::to_stdvec(self).map(Zeroizing::new);
        let mut encoded = encoded
            .map_err(|err| BrokerError::Invalid(format!("a record cannot be encoded: {err}")))?;
        if let (
            Self::Secret(SecretRecord { metadata: Metadata { decoy: true, .. }, .. }),
            Some(kind),
        ) = (self, encoded.first_mut())
        {
            *kind = DECOY;
        }
        Ok(encoded)
    }

    /// Reads what `encode` wrote.
    pub(super) fn decode(plain: &[u8]) -> Result<Self, BrokerError> {
        let failed = |err| StoreError::Damaged(format!("a record cannot be decoded: {err}"));
        let Some((&DECOY, rest)) = plain.split_first() else {
            return Ok(postcard::from_bytes(plain).map_err(failed)?);
        };
        let mut record: SecretRecord = postcard::from_bytes(rest).map_err(failed)?;
        record.metadata.decoy = true;
        Ok(Self::Secret(record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Attributes;

    fn record(decoy: bool) -> Record {
        let now = Timestamp::UNIX_EPOCH;
        Record::Secret(SecretRecord {
            name: "prod/db".parse().unwrap(),
            metadata: Metadata {
                attributes: Attributes::default(),
                status: Status::Active,
                created: now,
                modified: now,
                created_by: Uid(0),
                expires: None,
                last_rotated: None,
                rotation_days: None,
                description: None,
                owner_contact: None,
                owner: None,
                group: None,
                mode: None,
                decoy,
            },
            history: History::default(),
            deleted: None,
            trash_number: 0,
        })
    }

    #[test]
    fn a_decoy_is_a_kind_of_record_of_its_own_and_others_are_as_they_were() {
        for decoy in [false, true] {
            let encoded = record(decoy).encode().unwrap();
            assert_eq!(encoded[0], if decoy { DECOY } else { 0 });
            assert_eq!(Record::decode(&encoded).unwrap(), record(decoy));
        }
        let plain = postcard::to_stdvec(&record(false)).unwrap();
        assert_eq!(*record(false).encode().unwrap(), plain);
    }
}
