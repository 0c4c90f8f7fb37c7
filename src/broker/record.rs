//! What a sealed record holds once it is opened.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::BrokerError;
use super::elevation::CodeRecord;
use super::lease::LeaseRecord;
use super::rotation::Stage;
use super::upstream::Remote;
use crate::model::{
    Injection, Metadata, SecretId, SecretName, Status, Timestamp, Uid, optional_micros,
};
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
    /// When copies of other services' secrets were last confirmed, in microseconds since 1970.
    Confirmed(BTreeMap<SecretId, i64>),
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
    /// What of another service it is a copy of. Stored behind the record, as [`Later`] is.
    #[serde(skip)]
    pub(super) remote: Option<Remote>,
}

/// Where the one `Uses` record lies.
pub(super) const USES_ID: SecretId = SecretId([0xff; 16]);

/// Where the one `Confirmed` record lies.
pub(super) const CONFIRMED_ID: SecretId = SecretId([0xfe; 16]);

/// What was added to a secret's record later. It is written behind it, where any of it is set, so that records
/// without it are as they always were. Behind it, where the secret is a copy, stands its [`Remote`].
#[derive(Debug, Default, Deserialize, PartialEq, Serialize)]
struct Later {
    injection: Injection,
    decoy: bool,
}

impl Record {
    /// Returns the bytes to be sealed. They hold names and metadata, so they are wiped.
    pub(super) fn encode(&self) -> Result<Zeroizing<Vec<u8>>, BrokerError> {
        let unfit = |err| BrokerError::Invalid(format!("a record cannot be encoded: {err}"));
        let bytes = postcard::to_stdvec(self).map(Zeroizing::new).map_err(unfit)?;
        let Self::Secret(SecretRecord { metadata, remote, .. }) = self else { return Ok(bytes) };
        let later = Later { injection: metadata.injection.clone(), decoy: metadata.decoy };
        if later == Later::default() && remote.is_none() {
            return Ok(bytes);
        }
        let more = postcard::to_stdvec(&later).map(Zeroizing::new).map_err(unfit)?;
        let last = match remote {
            Some(remote) => postcard::to_stdvec(remote).map_err(unfit)?,
            None => Vec::new(),
        };
        Ok(Zeroizing::new([bytes.as_slice(), more.as_slice(), last.as_slice()].concat()))
    }

    /// Reads what `encode` wrote.
    pub(super) fn decode(plain: &[u8]) -> Result<Self, BrokerError> {
        let damaged = |err| StoreError::Damaged(format!("a record cannot be decoded: {err}"));
        let (mut record, rest) = postcard::take_from_bytes(plain).map_err(damaged)?;
        if let Self::Secret(SecretRecord { metadata, remote, .. }) = &mut record
            && !rest.is_empty()
        {
            let (Later { injection, decoy }, rest) =
                postcard::take_from_bytes(rest).map_err(damaged)?;
            (metadata.injection, metadata.decoy) = (injection, decoy);
            if !rest.is_empty() {
                *remote = Some(postcard::from_bytes(rest).map_err(damaged)?);
            }
        }
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::RemoteVersion;
    use crate::model::{Attributes, Injection};

    fn record(injection: Injection, decoy: bool) -> Record {
        let at = Timestamp::UNIX_EPOCH;
        Record::Secret(SecretRecord {
            name: "app/key".parse().unwrap(),
            metadata: Metadata {
                attributes: Attributes::default(),
                status: Status::Active,
                created: at,
                modified: at,
                created_by: Uid(0),
                expires: None,
                last_rotated: None,
                rotation_days: None,
                description: None,
                owner_contact: None,
                owner: None,
                group: None,
                mode: None,
                injection,
                decoy,
            },
            history: History::default(),
            deleted: None,
            trash_number: 0,
            remote: None,
        })
    }

    #[test]
    fn a_copy_of_another_service_comes_back_as_one() {
        let version = RemoteVersion { backend: "aws".into(), version: "7".into() };
        let from = Remote { version, confirmed: Timestamp::from_second(5).unwrap() };
        for decoy in [false, true] {
            let mut copy = record(Injection::default(), decoy);
            if let Record::Secret(record) = &mut copy {
                record.remote = Some(from.clone());
            }
            let bytes = copy.encode().unwrap();
            assert_eq!(Record::decode(&bytes).unwrap(), copy);
            assert!(Record::decode(&bytes[..bytes.len() - 1]).is_err());
        }
    }

    #[test]
    fn a_record_without_what_came_later_is_as_it_always_was_and_one_with_it_comes_back() {
        let plain = record(Injection::default(), false);
        assert_eq!(*plain.encode().unwrap(), postcard::to_stdvec(&plain).unwrap());
        let oneiric_path = Some("auth.secret".parse().unwrap());
        for (env_name, decoy) in
            [(None, false), (None, true), (Some("API_KEY".parse().unwrap()), true)]
        {
            let named = record(Injection { env_name, oneiric_path: oneiric_path.clone() }, decoy);
            let bytes = named.encode().unwrap();
            assert_eq!(Record::decode(&bytes).unwrap(), named);
            assert!(Record::decode(&bytes[..bytes.len() - 1]).is_err());
        }
        let decoy = record(Injection::default(), true);
        assert_eq!(Record::decode(&decoy.encode().unwrap()).unwrap(), decoy);
    }
}
