//! Secrets of another service, all behind one trait: `HashiCorp` Vault, AWS Secrets Manager, Azure Key Vault.
//!
//! A [`Backend`] speaks one service's protocol and nothing else: it holds no cache, decides about no
//! caller and keeps no log. What a service cannot do it refuses with [`BackendError::Unsupported`].
//! Every call ends by its [`Deadline`]. No error, and nothing that is traced, holds a value or a token.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::model::Timestamp;
use crate::system::{MemoryError, SecretBytes};

#[cfg(feature = "aws")]
pub mod aws;
#[cfg(feature = "azure")]
pub mod azure;
#[cfg(any(feature = "aws", feature = "azure", feature = "vault"))]
mod check;
#[cfg(any(feature = "aws", feature = "azure", feature = "vault"))]
mod credential_file;
#[cfg(any(feature = "aws", feature = "azure", feature = "vault"))]
mod held;
#[cfg(any(feature = "aws", feature = "azure", feature = "vault"))]
pub mod http;
mod settings;
#[cfg(feature = "vault")]
pub mod vault;

pub use settings::{Settings, Variables};

/// A service that keeps secrets. Many threads may call at the same time.
///
/// Names are as on the mount, with `/` between directories and without the prefix that the
/// configuration names: the backend adds that, and maps what its service does not allow in a name.
pub trait Backend: Send + Sync {
    /// What the service can do beside get, put, list and delete. The service is not asked; but who speaks to it
    /// may have to begin first.
    fn abilities(&self, deadline: Deadline) -> Result<Abilities>;

    /// One version's value.
    fn get(&self, name: &str, which: &Which, deadline: Deadline) -> Result<Fetched>;

    /// Makes a new version, and the secret if there is none.
    fn put(
        &self,
        name: &str,
        value: &SecretBytes,
        put: &Put,
        deadline: Deadline,
    ) -> Result<Version>;

    /// What is known of a secret without its value.
    fn describe(&self, name: &str, deadline: Deadline) -> Result<Description>;

    /// Every version that the service still has, oldest first.
    fn versions(&self, name: &str, deadline: Deadline) -> Result<Vec<Version>>;

    /// What is known of a secret, and its versions: none of one that is deleted.
    fn history(&self, name: &str, deadline: Deadline) -> Result<(Description, Vec<Version>)> {
        let description = self.describe(name, deadline)?;
        let versions = match description.deleted {
            true => Vec::new(),
            false => self.versions(name, deadline)?,
        };
        Ok((description, versions))
    }

    /// One page of the names, all directories flattened; the first without a token. In no special order.
    fn list(&self, page: Option<&PageToken>, deadline: Deadline) -> Result<Page>;

    /// Replaces the tags.
    fn tag(&self, name: &str, tags: &BTreeMap<String, String>, deadline: Deadline) -> Result<()>;

    /// Moves a stage, such as `AWSPENDING`, to a version.
    fn stage(&self, name: &str, stage: &str, to: &VersionId, deadline: Deadline) -> Result<()>;

    /// Deletes a secret so that [`Self::restore`] can bring it back, where the service can.
    fn delete(&self, name: &str, deadline: Deadline) -> Result<()>;

    /// Brings a deleted secret back.
    fn restore(&self, name: &str, deadline: Deadline) -> Result<()>;

    /// Deletes a secret with all of its versions for ever, deleted before or not.
    fn destroy(&self, name: &str, deadline: Deadline) -> Result<()>;

    /// Refuses what the service can never hold, by its name and, where that is known, its size, as far as that can be
    /// said without asking the service. Errors: `Invalid`, `NoName`.
    fn takes(&self, _name: &str, _bytes: Option<usize>) -> Result<()> {
        Ok(())
    }

    /// What works here, one step after the other until one fails.
    fn check(&self, deadline: Deadline) -> Vec<Probe>;
}

/// A service that has keys which never leave it, and seals and opens small secrets under them.
pub trait KeyService: Send + Sync {
    /// Seals a key. What comes back is no secret.
    fn wrap(&self, key: &SecretBytes, deadline: Deadline) -> Result<String>;

    /// Opens what [`Self::wrap`] has given.
    fn unwrap(&self, wrapped: &str, deadline: Deadline) -> Result<SecretBytes>;
}

/// What a call gives.
pub type Result<T> = std::result::Result<T, BackendError>;

/// What a service can do.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Abilities {
    /// Older versions can be read.
    pub versions: bool,
    /// A version can carry a stage's name.
    pub stages: bool,
    /// [`Put::expect`] is obeyed.
    pub compare_and_set: bool,
    /// What was deleted can be brought back.
    pub restore: bool,
    pub tags: bool,
}

/// A version's name at its service: a number, a UUID or 32 hexadecimal digits.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct VersionId(pub String);

/// Which version of a secret.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum Which {
    #[default]
    Current,
    Id(VersionId),
    /// The one that carries this stage, such as `AWSPREVIOUS`.
    Stage(String),
}

/// A version, without its value.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Version {
    pub id: VersionId,
    /// When the service says that it was made.
    pub created: Option<Timestamp>,
    /// Empty where the service has no stages.
    pub stages: Vec<String>,
    /// Whether its value can be read: neither deleted, destroyed nor disabled.
    pub readable: bool,
}

/// A value as the service has it.
#[derive(Debug)]
pub struct Fetched {
    pub version: VersionId,
    pub value: SecretBytes,
    pub created: Option<Timestamp>,
    /// From when on it may not be used any more.
    pub expires: Option<Timestamp>,
}

/// How a version is put.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Put {
    /// Fails with [`BackendError::Conflict`] unless this is the current version, or there is none.
    pub expect: Option<Expect>,
    /// The value is not text: a service that keeps both apart is told so.
    pub binary: bool,
    pub expires: Option<Timestamp>,
}

/// What a compare-and-set compares with.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Expect {
    Absent,
    Version(VersionId),
}

/// A secret, without its value.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Description {
    pub current: Option<VersionId>,
    pub created: Option<Timestamp>,
    pub changed: Option<Timestamp>,
    pub expires: Option<Timestamp>,
    pub description: Option<String>,
    pub tags: BTreeMap<String, String>,
    /// It was deleted and can be brought back.
    pub deleted: bool,
}

/// Where the next page begins, in the service's own words.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct PageToken(pub String);

/// A page of names.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Page {
    pub names: Vec<String>,
    /// When each of them was changed last, in whatever way, where the list says that.
    pub changed: BTreeMap<String, Timestamp>,
    /// How far behind the service that may be.
    pub behind: Duration,
    /// `None` on the last page.
    pub next: Option<PageToken>,
}

impl Page {
    /// Adds a name, and when it was changed if that is known.
    #[cfg(any(feature = "aws", feature = "azure"))]
    fn add(&mut self, name: &str, changed: Option<Timestamp>) {
        if let Some(changed) = changed {
            self.changed.insert(name.to_owned(), changed);
        }
        self.names.push(name.to_owned());
    }
}

/// One thing that was tried.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Probe {
    /// What was tried: `reachable`, `authenticated`, `may list`, `may read`, `clock`.
    pub what: &'static str,
    pub worked: bool,
    /// What was found, for people, such as the latency or the skew.
    pub note: String,
}

/// When a call ends at the latest.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Instant);

impl Deadline {
    /// So far from now.
    #[must_use]
    pub fn within(time: Duration) -> Self {
        let now = Instant::now();
        Self(now.checked_add(time).unwrap_or(now))
    }

    /// What is left, and [`BackendError::TimedOut`] when nothing is.
    pub fn left(self) -> Result<Duration> {
        let left = self.0.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(BackendError::TimedOut) } else { Ok(left) }
    }
}

/// Why a call failed. No word is a value, a token or a part of an answer's body.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, thiserror::Error)]
pub enum BackendError {
    /// There is no such secret, version or stage.
    #[error("there is none")]
    NotFound,
    /// No secret there can have this name, and so the service was not asked.
    #[error("no secret can have this name there")]
    NoName,
    /// The service knows who asks and does not allow it.
    #[error("the service denies it: {0}")]
    Denied(String),
    /// The service does not accept who asks: a wrong, expired or revoked credential.
    #[error("the service does not accept the credential: {0}")]
    Unauthenticated(String),
    /// The current version is not the expected one.
    #[error("the current version is not the expected one")]
    Conflict,
    /// The service cannot do this at all.
    #[error("the service cannot do this: {0}")]
    Unsupported(String),
    /// It can never succeed as asked: a bad name, a value that is too long, a wrong setting.
    #[error("{0}")]
    Invalid(String),
    /// The service asks to be left alone for so long.
    #[error("the service is busy")]
    Throttled { retry_after: Option<Duration> },
    /// Nobody is there, or it is not who it should be.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// The service has failed, or answers what cannot be understood.
    #[error("the service has failed: {0}")]
    Failed(String),
    #[error("it took too long")]
    TimedOut,
}

impl From<MemoryError> for BackendError {
    fn from(error: MemoryError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl BackendError {
    /// Whether the same call may succeed later without anybody's doing.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::Throttled { .. } | Self::Unreachable(_) | Self::Failed(_) | Self::TimedOut
        )
    }
}
