//! The one way to a secret: decide, record, then open.
#![forbid(unsafe_code)]
#![allow(
    unused_variables,
    clippy::unimplemented,
    missing_debug_implementations,
    reason = "skeleton"
)]

use std::sync::Arc;
use std::time::Duration;

use crate::model::{
    Caller, Inode, Level, Levels, Metadata, SecretId, SecretName, SecretType, Status, Timestamp,
    Version,
};
use crate::system::SecretBytes;

mod error;

pub use error::BrokerError;

type Result<T> = std::result::Result<T, BrokerError>;

/// Serves secrets to callers. Cheap to clone: all parts are shared.
#[derive(Clone)]
pub struct Broker {
    inner: Arc<()>,
}

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
    pub modified: Timestamp,
    /// Directories below it that the caller may know of are not counted: link counts tell nothing.
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

/// An entry of a listing.
#[derive(Clone, Debug)]
pub struct Listed {
    pub segment: Box<str>,
    pub kind: Kind,
    pub inode: Inode,
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
#[derive(Clone, Debug, serde::Serialize)]
pub struct VersionSummary {
    pub version: Version,
    /// `pending`, `current`, `previous` or `destroyed`.
    pub state: &'static str,
    pub created: Timestamp,
    pub created_by: u32,
    pub size: u64,
}

/// Everything that may be told of a secret without its value.
#[derive(Clone, Debug)]
pub struct Description {
    pub secret: Secret,
    pub metadata: Metadata,
    pub versions: Vec<VersionSummary>,
    /// Keyed: equal for equal values within one store, and says nothing else. Lower-case hex.
    pub fingerprint: String,
}

/// A soft-deleted secret.
#[derive(Clone, Debug)]
pub struct Trashed {
    pub id: SecretId,
    pub name: SecretName,
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

impl Broker {
    // -- Questions: nothing is decrypted, only refusals are recorded. ------------------------

    /// Returns what stands at `path`. Errors: `Denied` (recorded) when no rule of the caller
    /// matches, whether it exists or not; `NotFound`; `Verifying`; `Sealed`.
    pub fn look(&self, caller: &Caller, path: &SecretName) -> Result<Found> {
        unimplemented!()
    }

    /// Returns up to `max` entries of a directory (`None` is the root) that the caller may know
    /// of, in name order, after the segment `after`.
    pub fn list(
        &self,
        caller: &Caller,
        directory: Option<&SecretName>,
        after: Option<&str>,
        max: usize,
    ) -> Result<Vec<Listed>> {
        unimplemented!()
    }

    /// Returns the values of a facet among the secrets that the caller may know of, sorted.
    pub fn facet_values(&self, caller: &Caller, facet: Facet) -> Result<Vec<Box<str>>> {
        unimplemented!()
    }

    /// Returns the names of the secrets with that value of a facet that the caller may know of, sorted.
    pub fn facet_members(
        &self,
        caller: &Caller,
        facet: Facet,
        value: &str,
    ) -> Result<Vec<SecretName>> {
        unimplemented!()
    }

    /// Returns everything but the value. Needs any level on the name.
    pub fn describe(&self, caller: &Caller, name: &SecretName) -> Result<Description> {
        unimplemented!()
    }

    /// Returns what `caller` may do with `name` and which rule says so, as JSON.
    pub fn explain(&self, caller: &Caller, name: &SecretName) -> Result<serde_json::Value> {
        unimplemented!()
    }

    /// Returns the levels that the caller has on a name, whether it exists or not. Not recorded.
    pub fn levels(&self, caller: &Caller, name: &SecretName) -> Result<Levels> {
        unimplemented!()
    }

    /// Checks a level on a name; a refusal is recorded, a consent is not.
    pub fn check(&self, caller: &Caller, level: Level, name: &SecretName) -> Result<()> {
        unimplemented!()
    }

    /// Returns the inode number of any path of the tree, virtual ones included: a keyed hash, so it
    /// is the same for the life of the store and tells nothing of other names. Never 0 or 1.
    pub fn inode(&self, path: &str) -> Inode {
        unimplemented!()
    }

    /// Waits until the record set is verified, so that "not found" is the truth.
    pub fn wait_verified(&self, at_most: Duration) -> Result<()> {
        unimplemented!()
    }

    /// Tells whether the keys are out of memory.
    pub fn is_sealed(&self) -> bool {
        unimplemented!()
    }

    // -- Values. -----------------------------------------------------------------------------

    /// Reads a version: asks the policy, writes the record, decrypts.
    pub fn read(&self, caller: &Caller, name: &SecretName, which: Which) -> Result<Opened> {
        unimplemented!()
    }

    /// Records that a handle opened by another uid is read by `caller`, who must have `read`.
    pub fn read_passed_on(
        &self,
        caller: &Caller,
        name: &SecretName,
        version: Version,
    ) -> Result<()> {
        unimplemented!()
    }

    /// Reads the current value as the base of an append or a partial overwrite. Needs `write`, is
    /// recorded, and must not be shown to a caller without `read`. `None`: there is no such secret.
    pub fn base(&self, caller: &Caller, name: &SecretName) -> Result<Option<Opened>> {
        unimplemented!()
    }

    /// Makes a new version (and the secret, where there is none). Returns once it is durable: call
    /// it from a thread that may block.
    pub fn write(
        &self,
        caller: &Caller,
        name: &SecretName,
        value: SecretBytes,
        put: &Put,
    ) -> Result<Version> {
        unimplemented!()
    }

    // -- Changes of the tree; all block until durable. ---------------------------------------

    /// Renames a secret or a directory; needs delete on the old names and write on the new ones.
    /// Onto an existing secret: a new version of the target, and the source goes to the trash.
    /// From `name@pending` semantics: see [`promote`](Self::promote).
    pub fn rename(
        &self,
        caller: &Caller,
        from: &SecretName,
        to: &SecretName,
        replace: Replace,
    ) -> Result<()> {
        unimplemented!()
    }

    /// Publishes the pending version; for admins only.
    pub fn promote(&self, caller: &Caller, name: &SecretName) -> Result<Version> {
        unimplemented!()
    }

    /// Moves a secret to the trash.
    pub fn remove(&self, caller: &Caller, name: &SecretName) -> Result<()> {
        unimplemented!()
    }

    /// Makes an empty directory; needs write on names below it.
    pub fn make_directory(&self, caller: &Caller, path: &SecretName) -> Result<()> {
        unimplemented!()
    }

    /// Removes an empty directory.
    pub fn remove_directory(&self, caller: &Caller, path: &SecretName) -> Result<()> {
        unimplemented!()
    }

    /// Sets (or with `None` clears) one piece of metadata, by its attribute's name without the
    /// `user.secretfs.` prefix. `Invalid` for a bad value or one that users cannot set.
    pub fn set_attribute(
        &self,
        caller: &Caller,
        name: &SecretName,
        attribute: &str,
        value: Option<&str>,
    ) -> Result<()> {
        unimplemented!()
    }

    /// Returns what is in the trash and the caller may delete, newest first.
    pub fn trash(&self, caller: &Caller) -> Result<Vec<Trashed>> {
        unimplemented!()
    }

    /// Brings a secret back from the trash, to its old name or to another one.
    pub fn restore(&self, caller: &Caller, id: SecretId, to: Option<&SecretName>) -> Result<()> {
        unimplemented!()
    }

    /// Destroys a secret in the trash for good.
    pub fn destroy(&self, caller: &Caller, id: SecretId) -> Result<()> {
        unimplemented!()
    }
}
