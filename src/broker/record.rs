//! What a sealed record holds once it is opened.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::BrokerError;
use super::elevation::CodeRecord;
use super::lease::LeaseRecord;
use super::older::OlderRecord;
use super::rotation::Stage;
use super::upstream::{Remote, RemoteVersion};
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
    /// Versions of long ago of a secret.
    Older(OlderRecord),
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

impl SecretRecord {
    /// Moves it to the trash. One that was revoked stays so.
    pub(super) fn discard(&mut self, now: Timestamp, trash_number: u32) {
        self.deleted = Some(now);
        self.trash_number = trash_number;
        if self.metadata.status != Status::Revoked {
            self.metadata.status = Status::PendingDeletion;
        }
    }

    /// Takes it out of the trash; tells whether it was there. Only a new value makes one that was revoked active.
    pub(super) fn bring_back(&mut self) -> bool {
        if self.metadata.status == Status::PendingDeletion {
            self.metadata.status = Status::Active;
        }
        self.deleted.take().is_some()
    }
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

/// How a [`Remote`] is written. Behind it stands when the service's version was made, in microseconds since 1970, if that is
/// known. Records from before that have it as text, after a space, in `id`.
#[derive(Debug, Deserialize, Serialize)]
struct StoredRemote<'a> {
    backend: &'a str,
    id: &'a str,
    confirmed: i64,
}

impl Remote {
    fn encode(&self) -> postcard::Result<Vec<u8>> {
        let Self { version: RemoteVersion { backend, id, created }, confirmed } = self;
        let stored = StoredRemote { backend, id, confirmed: confirmed.as_microsecond() };
        postcard::to_stdvec(&(stored, created.map(Timestamp::as_microsecond)))
    }

    fn decode(bytes: &[u8]) -> postcard::Result<Self> {
        let time = |micros| {
            Timestamp::from_microsecond(micros).map_err(|_| postcard::Error::DeserializeBadEncoding)
        };
        let (StoredRemote { backend, id, confirmed }, rest) = postcard::take_from_bytes(bytes)?;
        let (id, created) = if rest.is_empty() {
            let both = id.split_once(' ').and_then(|(id, made)| Some((id, made.parse().ok()?)));
            both.map_or((id, None), |(id, made)| (id, Some(made)))
        } else {
            (id, postcard::from_bytes::<Option<i64>>(rest)?.map(time).transpose()?)
        };
        let version = RemoteVersion::new(backend, id.to_owned(), created);
        Ok(Self { version, confirmed: time(confirmed)? })
    }
}

impl Record {
    /// Returns the bytes to be sealed. They hold names and metadata, so they are wiped.
    pub(super) fn encode(&self) -> Result<Zeroizing<Vec<u8>>, BrokerError> {
        /// More than nearly every record takes: one that grows leaves copies behind that nobody wipes.
        const ORDINARY: usize = 3 << 10;
        let unfit = |err| BrokerError::Invalid(format!("a record cannot be encoded: {err}"));
        let bytes = postcard::to_extend(self, Vec::with_capacity(ORDINARY));
        let bytes = bytes.map(Zeroizing::new).map_err(unfit)?;
        let Self::Secret(SecretRecord { metadata, remote, .. }) = self else { return Ok(bytes) };
        let later = Later { injection: metadata.injection.clone(), decoy: metadata.decoy };
        if later == Later::default() && remote.is_none() {
            return Ok(bytes);
        }
        let more = postcard::to_stdvec(&later).map(Zeroizing::new).map_err(unfit)?;
        let last = match remote {
            Some(remote) => remote.encode().map_err(unfit)?,
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
                *remote = Some(Remote::decode(rest).map_err(damaged)?);
            }
        }
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
        let from = remote(Some("2026-11-29T06:00:00.123456Z"));
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

    fn remote(created: Option<&str>) -> Remote {
        let created = created.map(|text| text.parse().unwrap());
        let version = RemoteVersion::new("aws", "7".into(), created);
        Remote { version, confirmed: Timestamp::from_second(5).unwrap() }
    }

    #[test]
    fn a_copy_from_before_its_version_s_time_stood_by_itself_comes_back_with_it() {
        let made = Some("2026-11-29T06:00:00.123456789Z");
        for (text, expected) in
            [("7", remote(None)), ("7 2026-11-29T06:00:00.123456789Z", remote(made))]
        {
            let old = StoredRemote { backend: "aws", id: text, confirmed: 5_000_000 };
            let old = postcard::to_stdvec(&old).unwrap();
            assert_eq!(Remote::decode(&old).unwrap(), expected);
            assert_eq!(Remote::decode(&expected.encode().unwrap()).unwrap(), expected);
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
