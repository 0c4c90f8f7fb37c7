//! Secrets that another service keeps: what the broker asks of whoever fetches them.
//!
//! A fetched value is a secret like every other here, sealed, recorded and read in the same way; its
//! record says beside that which version of the service's it is, and when that was last confirmed.
//! [`Upstream`] decides whether a copy may be served and does what is done at the service. It is asked
//! only once the policy has allowed a request, so that a caller without a right causes no traffic.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::index::{At, Entry};
use super::{Broker, BrokerError, Inner, Result};
use crate::audit::{Action, Event, Outcome};
use crate::model::{SecretName, Timestamp, micros};
use crate::system::SecretBytes;

/// Who fetches the secrets of other services. Nothing but [`Upstream::remove`] and
/// [`Upstream::restore`] may wait.
pub trait Upstream: Send + Sync {
    /// Returns the route that a name is below: the index of its configuration. `None`: the secret is
    /// kept here alone.
    fn route(&self, name: &SecretName) -> Option<usize>;

    /// Tells whether a copy (`None`: there is none) may be served. It is asked at each read.
    fn standing(&self, name: &SecretName, copy: Option<Copy<'_>>, now: Timestamp) -> Standing;

    /// Returns for how long a copy has been older than what is asked for anew.
    fn stale_for(&self, name: &SecretName, copy: Copy<'_>, now: Timestamp) -> Option<Duration>;

    /// Tells whether the service has names below a path.
    fn is_directory(&self, path: &SecretName) -> bool;

    /// Tells whether a path is a route's own, or above one.
    fn leads_to_route(&self, path: &SecretName) -> bool;

    /// Has the service asked for a secret; calls `done` when [`standing`](Self::standing) knows more.
    fn fetch(&self, name: &SecretName, done: Done);

    /// Has the service keep a value; calls `done` with the version that it is there.
    fn put(&self, name: &SecretName, forward: Forward, done: ForwardDone);

    /// Deletes a secret at the service.
    fn remove(&self, name: &SecretName) -> std::result::Result<(), UpstreamError>;

    /// Brings a deleted secret back at the service.
    fn restore(&self, name: &SecretName) -> std::result::Result<(), UpstreamError>;

    /// Says for `@why` who keeps a secret and what cannot be done there.
    fn explain(&self, name: &SecretName) -> Option<serde_json::Value>;
}

/// What is called when a fetch has come to its end, whichever that is.
pub type Done = Box<dyn FnOnce() + Send>;

/// What is called when the service has answered a put.
pub type ForwardDone =
    Box<dyn FnOnce(std::result::Result<RemoteVersion, UpstreamError>) + Send + 'static>;

/// What is kept here of a secret of another service.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Copy<'a> {
    pub backend: &'a str,
    /// The version's name at the service.
    pub version: &'a str,
    /// When the service last said that this is its current version.
    pub confirmed: Timestamp,
}

/// How it stands with a secret.
#[derive(Clone, Debug)]
pub enum Standing {
    /// The copy here is served.
    AtHand,
    /// It has to be fetched first.
    Elsewhere,
    /// It was tried just now, and this came of it.
    Failing(UpstreamError),
    /// It is kept here alone.
    Local,
    /// The service has said just now that there is none.
    NotThere,
}

/// A version at a service.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct RemoteVersion {
    pub backend: Box<str>,
    pub version: Box<str>,
}

/// A value on its way to a service.
#[derive(Clone, Debug)]
pub struct Forward {
    pub value: Arc<SecretBytes>,
    /// The version that the writer has asked for is the one of this copy, or there must be none: if the
    /// service has another by now, it fails. Else that other version is fetched, and the value put after it.
    pub strict: bool,
    /// The version that the copy here is of.
    pub known: Option<RemoteVersion>,
}

/// Why a service did not do what it was asked for.
#[derive(Clone, Debug, thiserror::Error)]
#[error("backend {backend}: {why}")]
pub struct UpstreamError {
    pub backend: Arc<str>,
    pub fault: Fault,
    pub why: String,
}

/// What kind of failure it was.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// The version there is another one than was expected.
    Conflict,
    /// The service knows this daemon and does not let it.
    Denied,
    /// It can never succeed as asked.
    Invalid,
    NotFound,
    TimedOut,
    /// The service does not accept this daemon's credential.
    Unaccepted,
    /// Nobody is there, or somebody who does not answer as they should.
    Unreachable,
    /// The service cannot do this at all.
    Unsupported,
}

/// What is remembered beside a secret's record.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Remote {
    pub(super) version: RemoteVersion,
    /// As of when the record was written; later ones are in the record of all confirmations.
    #[serde(with = "micros")]
    pub(super) confirmed: Timestamp,
}

/// The same in the index, where the time moves on between commits.
#[derive(Debug)]
pub(super) struct Held {
    version: RemoteVersion,
    confirmed: AtomicI64,
}

impl Held {
    pub(super) fn of(remote: &Remote) -> Arc<Self> {
        let confirmed = AtomicI64::new(remote.confirmed.as_microsecond());
        Arc::new(Self { version: remote.version.clone(), confirmed })
    }

    pub(super) fn copy(&self) -> Copy<'_> {
        Copy {
            backend: &self.version.backend,
            version: &self.version.version,
            confirmed: self.confirmed(),
        }
    }

    pub(super) fn is_of(&self, version: &RemoteVersion) -> bool {
        self.version == *version
    }

    fn confirmed(&self) -> Timestamp {
        let micros = self.confirmed.load(Ordering::Relaxed);
        Timestamp::from_microsecond(micros).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// Notes that the service has said so again. It may seem earlier than the last time: clocks are set back.
    pub(super) fn confirm(&self, at: Timestamp) {
        self.confirmed.store(at.as_microsecond(), Ordering::Relaxed);
    }

    /// Takes over what is known of the entry that this one replaces.
    pub(super) fn follow(&self, before: &Self) {
        if self.version == before.version {
            self.confirm(before.confirmed());
        }
    }
}

/// The time is no part of what an entry is.
impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        self.version == other.version
    }
}

impl Broker {
    /// Has secrets come from other services, from now on. Only the first one to come counts.
    pub fn fetch_from(&self, upstream: Arc<dyn Upstream>) {
        // It is one daemon's, which calls this once.
        drop(self.inner.upstream.set(upstream));
    }

    /// Tells whether a name is kept by another service.
    pub fn is_routed(&self, name: &SecretName) -> bool {
        self.inner.upstream.get().is_some_and(|upstream| upstream.route(name).is_some())
    }

    /// Has a secret fetched that is [`Elsewhere`](BrokerError::Elsewhere), and calls `done` when it is worth
    /// asking again.
    pub fn fetch_then(&self, name: &SecretName, done: Done) {
        match self.inner.upstream.get() {
            Some(upstream) => upstream.fetch(name, done),
            None => done(),
        }
    }

    /// Does so and waits. `Elsewhere` when it takes longer than `at_most`.
    pub fn fetch(&self, name: &SecretName, at_most: Duration) -> Result<()> {
        let (done, ended) = sync_channel(1);
        self.fetch_then(name, Box::new(move || done.try_send(()).unwrap_or_default()));
        ended.recv_timeout(at_most).map_err(|_| BrokerError::Elsewhere(name.clone()))
    }

    /// Records that a service cannot be reached, or can again.
    pub fn note_backend(&self, backend: &str, fault: Option<&str>) -> Result<()> {
        let outcome = if fault.is_some() { Outcome::Failed } else { Outcome::Allowed };
        self.inner.gate.record(&Event {
            reason: Some(fault.unwrap_or("it answers again")),
            detail: Some(serde_json::json!({ "backend": backend })),
            ..Event::new(Action::BackendConnection, outcome)
        })
    }
}

impl Inner {
    /// Fails where a secret that another service keeps is not here, or too old to be served.
    pub(super) fn check_at_hand(
        &self,
        name: &SecretName,
        entry: Option<&Entry>,
        now: Timestamp,
    ) -> Result<()> {
        let Some(upstream) = self.upstream.get() else { return Ok(()) };
        let copy = entry.and_then(Entry::held).map(Held::copy);
        match upstream.standing(name, copy, now) {
            Standing::AtHand | Standing::Local => Ok(()),
            Standing::Elsewhere => Err(BrokerError::Elsewhere(name.clone())),
            Standing::Failing(error) => Err(error.into()),
            Standing::NotThere => Err(BrokerError::NotFound(name.clone())),
        }
    }

    /// Finds out what stands at a path of which the index knows nothing.
    pub(super) fn look_elsewhere(&self, path: &SecretName, now: Timestamp) -> Result<Unknown> {
        let Some(upstream) = self.upstream.get() else { return Ok(Unknown::Nothing) };
        if upstream.is_directory(path) {
            return Ok(Unknown::Directory);
        }
        match self.check_at_hand(path, None, now) {
            Ok(()) | Err(BrokerError::NotFound(_)) => Ok(Unknown::Nothing),
            Err(error) => Err(error),
        }
    }

    /// Tells whether a path is a directory because a service has names below it.
    pub(super) fn is_directory_elsewhere(&self, at: &At<'_>, path: &SecretName) -> bool {
        matches!(at, At::Nothing)
            && self.upstream.get().is_some_and(|upstream| upstream.is_directory(path))
    }
}

/// What is at a path that the index does not know.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Unknown {
    Directory,
    Nothing,
}
