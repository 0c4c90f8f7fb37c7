//! What the broker is asked and what it answers: plain values, none of them a secret but `Opened`'s.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::latency::Latencies;
use crate::model::{
    Generation, Injection, Inode, Levels, Metadata, SecretId, SecretName, SecretType, Seq, Status,
    Timestamp, Version,
};
use crate::system::SecretBytes;

/// What stands at a path, for a caller who may know of it.
#[derive(Clone, Debug)]
pub enum Found {
    Directory(Directory),
    Secret(Secret),
}

/// A directory as one caller sees it.
#[derive(Clone, Debug)]
pub struct Directory {
    pub inode: Inode,
    /// Whether the caller may write some name below it.
    pub may_write: bool,
}

/// A secret as one caller sees it: no value, no decryption.
#[derive(Clone, Debug)]
pub struct Secret {
    pub id: SecretId,
    pub inode: Inode,
    pub version: Version,
    /// Size in bytes of the current value.
    pub size: u64,
    pub created: Timestamp,
    pub modified: Timestamp,
    pub secret_type: SecretType,
    pub status: Status,
    /// What the caller may do with it.
    pub levels: Levels,
    pub pinned: Option<Pinned>,
}

/// Ownership that an administrator has fixed for one secret.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Pinned {
    pub owner: Option<u32>,
    pub group: Option<u32>,
    pub mode: Option<u16>,
}

/// A secret that a caller may know of, and what programs know it by.
#[derive(Clone, Debug)]
pub struct Known {
    pub name: SecretName,
    /// What the caller may do with it.
    pub levels: Levels,
    pub injection: Injection,
}

/// An entry of a listing.
#[derive(Clone, Debug)]
pub struct Listed {
    pub segment: Box<str>,
    pub kind: Kind,
    pub inode: Inode,
    /// What programs know a secret by.
    pub injection: Injection,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    Directory,
    Secret,
}

/// Which version of a secret is asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Which {
    Current,
    Number(Version),
    /// The staged one; for admins only.
    Pending,
    /// The newest version before the current one.
    Previous,
}

/// A value that was read: allowed, on record, decrypted.
#[derive(Debug)]
pub struct Opened {
    pub id: SecretId,
    pub value: SecretBytes,
    pub version: Version,
}

/// How a new version is to be made.
#[derive(Clone, Debug, Default)]
pub struct Put {
    /// The version that must be current when this one is published.
    pub expect: Option<Version>,
    /// Fails if the secret exists.
    pub create_new: bool,
    /// Allows a value of no bytes.
    pub allow_empty: bool,
    /// Stages the value as `@pending` instead of publishing it; for admins only.
    pub stage: bool,
    pub origin: Origin,
}

/// Where a version comes from, which settles whose duty it is that watchers learn of it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Origin {
    /// The daemon itself: nobody closes a file for it, so it is announced.
    Daemon,
    /// A handle on the mount, whose close the kernel tells of.
    #[default]
    Handle,
}

/// What `.by/` groups secrets by.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Facet {
    Environment,
    Service,
    Status,
    Tag,
    Type,
}

/// A version in a secret's history.
#[derive(Clone, Debug, Eq, PartialEq, serde::Serialize)]
pub struct VersionSummary {
    pub version: Version,
    /// `pending`, `current`, `previous` or `destroyed`.
    pub state: &'static str,
    pub created: Timestamp,
    pub created_by: u32,
    pub size: u64,
}

impl VersionSummary {
    pub(super) fn of(entry: &crate::versions::Entry) -> Self {
        let crate::versions::Entry { version, state, created, created_by, size, .. } = *entry;
        Self { version, state: state.as_str(), created, created_by: created_by.0, size }
    }
}

/// Everything that may be told of a secret without its values and versions.
#[derive(Clone, Debug)]
pub struct Description {
    pub secret: Secret,
    pub metadata: Metadata,
    /// For how long a copy of another service's secret has waited to be fetched anew.
    pub stale: Option<Duration>,
    /// Keyed: equal for equal values within one store, and says nothing else. Lower-case hex.
    pub fingerprint: String,
}

/// A soft-deleted secret.
#[derive(Clone, Debug)]
pub struct Trashed {
    pub id: SecretId,
    pub name: SecretName,
    /// Tells those that had one name apart, from 1; a later one has a higher number.
    pub number: u32,
    pub deleted: Timestamp,
    pub purge_after: Timestamp,
    pub size: u64,
    pub inode: Inode,
}

/// Whether a rename may replace what stands at its target.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Replace {
    Allowed,
    Refused,
}

/// An audit line as it happens.
#[derive(Debug)]
pub struct Notice<'a> {
    pub seq: Seq,
    pub secret: Option<&'a SecretName>,
    /// The JSON line without its newline.
    pub line: &'a [u8],
}

/// What [`Broker::verify`](super::Broker::verify) found.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Verification {
    pub secrets: u64,
    pub versions: u64,
    pub generation: Generation,
    /// One line a fault; empty when all is well.
    pub faults: Vec<String>,
}

/// Counts and sizes.
#[derive(Clone, Debug, Default)]
pub struct Statistics {
    pub sealed: bool,
    /// `verifying`, `verified` or what is wrong.
    pub integrity: String,
    /// Why the audit log takes no lines, and so nothing is served; `None` when it does.
    pub audit_fault: Option<String>,
    pub secrets: u64,
    pub in_trash: u64,
    pub generation: u64,
    pub audit_seq: u64,
    pub reads_allowed: u64,
    pub refused: u64,
    pub writes: u64,
    pub failures: u64,
    /// From the decision on a read to its value.
    pub opens: Latencies,
    /// From a change that is asked for to its being durable, or refused.
    pub commits: Latencies,
    /// Lines of the log that may not be on disk yet.
    pub audit_unsynced: u64,
    /// Users who are kept from everything for a while.
    pub quarantined: u64,
}

/// How much of the store one uid has made.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Share {
    /// Those in the trash too.
    pub secrets: u64,
    /// Those that `mkdir` made.
    pub directories: u64,
}

/// How far a long check is, in entries; 0 of 0 where that is not known.
#[derive(Debug, Default)]
pub struct Progress {
    done: AtomicU64,
    total: AtomicU64,
}

impl Progress {
    /// Says how many there are.
    pub fn expect(&self, total: u64) {
        self.total.store(total, Ordering::Relaxed);
    }

    /// Counts one more.
    pub fn advance(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns how many are done, and of how many.
    pub fn so_far(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }
}
