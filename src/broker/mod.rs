//! The one way to a secret: decide, record, then open.
#![forbid(unsafe_code)]
#![allow(
    unused_variables,
    clippy::unimplemented,
    missing_debug_implementations,
    reason = "skeleton"
)]

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use crate::crypto::{RootKey, Slot};
use crate::model::{
    Caller, Epoch, Generation, Inode, Level, Levels, Metadata, Needs, SecretId, SecretName,
    SecretType, Seq, Status, StoreId, Timestamp, Version,
};
use crate::policy::Policy;
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

    /// Returns the root directory as the caller sees it. Errors: `Sealed`.
    pub fn look_root(&self, caller: &Caller) -> Result<Directory> {
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

    // -- The store as a whole; for admins of everything, each recorded as `control`. --------------

    /// Fails with `Denied` unless the caller is an admin of the store. Recorded either way as a
    /// control command named `command`.
    pub fn admit_control(&self, caller: &Caller, command: &str) -> Result<()> {
        unimplemented!()
    }

    /// Forgets the keys and the index, and with them every value in memory: see
    /// [`on_seal`](Self::on_seal).
    pub fn seal(&self, caller: &Caller) -> Result<()> {
        unimplemented!()
    }

    /// Takes the root key and loads the index again. `Key(WrongKey)` when it does not fit.
    pub fn unseal(&self, caller: &Caller, root: &RootKey) -> Result<()> {
        unimplemented!()
    }

    /// Registers what is run when the store is sealed.
    pub fn on_seal(&self, run: Box<dyn Fn() + Send + Sync>) {
        unimplemented!()
    }

    /// Replaces the policy by a parsed one.
    pub fn replace_policy(&self, caller: Option<&Caller>, policy: Policy) -> Result<()> {
        unimplemented!()
    }

    /// Checks every record, every value and the record set, the current ones, not a cached verdict.
    pub fn verify(&self, caller: &Caller) -> Result<Verification> {
        unimplemented!()
    }

    /// Verifies the whole audit log: where it ends, or where it breaks.
    pub fn verify_audit(&self, caller: &Caller) -> Result<serde_json::Value> {
        unimplemented!()
    }

    /// Returns the key sources, the epochs with their ages and how much is under each.
    pub fn key_status(&self, caller: &Caller) -> Result<serde_json::Value> {
        unimplemented!()
    }

    /// Starts a new epoch and re-wraps everything under it in the background.
    pub fn rotate_epoch(&self, caller: &Caller) -> Result<Epoch> {
        unimplemented!()
    }

    /// Makes a new root key, sealed for the key source by `slot`; rewrites the keyring and the
    /// header in one commit. Also changes the key source.
    pub fn rotate_root(
        &self,
        caller: &Caller,
        slot: &mut dyn FnMut(StoreId, &RootKey) -> std::result::Result<Slot, String>,
    ) -> Result<()> {
        unimplemented!()
    }

    /// Writes an encrypted, consistent copy of the store.
    pub fn backup(&self, caller: &Caller, out: &mut dyn Write) -> Result<()> {
        unimplemented!()
    }

    /// Replaces everything in the store by a backup of the same store, after it was verified.
    pub fn restore_backup(&self, caller: &Caller, from: &mut dyn Read) -> Result<()> {
        unimplemented!()
    }

    /// Counts and sizes for status and metrics.
    pub fn statistics(&self) -> Statistics {
        unimplemented!()
    }

    /// The size in bytes of the audit log as one file; needs admin.
    pub fn audit_log_size(&self, caller: &Caller) -> Result<u64> {
        unimplemented!()
    }

    /// Reads from the audit log as one file; needs admin.
    pub fn audit_log_read(&self, caller: &Caller, offset: u64, len: usize) -> Result<Vec<u8>> {
        unimplemented!()
    }

    /// Records that the audit log is opened for reading, by an admin.
    pub fn audit_log_open(&self, caller: &Caller) -> Result<()> {
        unimplemented!()
    }

    /// The head of the audit chain: `seq` and `mac`.
    pub fn audit_head(&self) -> serde_json::Value {
        unimplemented!()
    }

    /// Calls `notify` with each audit line as it is written. It must not block.
    pub fn subscribe(&self, notify: Box<dyn Fn(&Notice<'_>) + Send + Sync>) {
        unimplemented!()
    }

    /// Tells whether the caller may know of a name: has any level on it. Not recorded.
    pub fn may_know(&self, caller: &Caller, name: &SecretName) -> bool {
        unimplemented!()
    }

    /// Tells whether the caller is an admin of the store. Not recorded.
    pub fn is_admin(&self, caller: &Caller) -> bool {
        unimplemented!()
    }

    /// Returns which facts about callers the policy asks for.
    pub fn needs(&self) -> Needs {
        unimplemented!()
    }

    /// Limits that front ends keep too.
    pub fn limits(&self) -> &Limits {
        unimplemented!()
    }
}

/// An audit line as it happens.
#[derive(Debug)]
pub struct Notice<'a> {
    pub seq: Seq,
    pub secret: Option<&'a SecretName>,
    /// The JSON line without its newline.
    pub line: &'a str,
}

/// What [`Broker::verify`] found.
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
    pub secrets: u64,
    pub in_trash: u64,
    pub generation: u64,
    pub audit_seq: u64,
    pub reads_allowed: u64,
    pub reads_denied: u64,
    pub writes: u64,
    pub failures: u64,
}

/// Limits and periods from the configuration.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Largest value in bytes; 1 MiB, at most 16 MiB.
    pub max_value_bytes: u64,
    /// How long deleted secrets stay in the trash.
    pub trash_retention: Duration,
    /// How many earlier versions are kept a secret; `None` keeps all.
    pub keep_versions: Option<u32>,
    /// Whether a secret past `expires` is refused (EKEYEXPIRED) or served.
    pub refuse_expired: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_value_bytes: 1 << 20,
            trash_retention: Duration::from_secs(30 * 24 * 3600),
            keep_versions: None,
            refuse_expired: true,
        }
    }
}
