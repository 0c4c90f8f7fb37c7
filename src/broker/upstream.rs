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

use super::index::{At, Entry};
use super::{Broker, BrokerError, Inner, Result};
use crate::audit::{Action, Event, Outcome};
use crate::model::{Levels, SecretName, Timestamp, Version};
use crate::system::SecretBytes;

/// Who fetches the secrets of other services. Nothing may wait, but for what is called when a change is done.
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

    /// Tells how it stands with a path for who may know no more of it than whether it is a directory: of no secret is
    /// the value asked for. `AtHand`: it is one.
    fn standing_of_directory(&self, path: &SecretName) -> Standing;

    /// Tells whether a path is a route's own, or above one.
    fn leads_to_route(&self, path: &SecretName) -> bool;

    /// Has the service asked; calls `done` when [`standing`](Self::standing) knows more, or
    /// [`standing_of_directory`](Self::standing_of_directory).
    fn fetch(&self, sought: &Sought, done: Done);

    /// Returns why the service is left alone now, if it is.
    fn refusal(&self, name: &SecretName) -> Option<UpstreamError>;

    /// Has a secret fetched and kept, and tells what came of it.
    fn renew(&self, name: &SecretName, done: Told<()>);

    /// Tells what the service has of a secret, of which nothing is kept.
    fn look(&self, name: &SecretName, done: Told<Seen>);

    /// Has the service keep a value; tells the version that it is there.
    fn put(&self, name: &SecretName, forward: Forward, done: Told<RemoteVersion>);

    /// Has a secret deleted at the service.
    fn remove(&self, name: &SecretName, done: Told<()>);

    /// Has a deleted secret brought back at the service.
    fn restore(&self, name: &SecretName, done: Told<()>);

    /// Says for `@why` who keeps a secret and what cannot be done there.
    fn explain(&self, name: &SecretName) -> Option<serde_json::Value>;
}

/// What is called when a fetch has come to its end, whichever that is.
pub type Done = Box<dyn FnOnce() + Send>;

/// What is called when the service has made a change, on a thread that may wait, and before anything else is asked of
/// the service about that secret: what is made here by then is in the service's order. It is called on the
/// caller's thread, with an error, where nothing was begun.
pub type Told<T> = Box<dyn FnOnce(std::result::Result<T, UpstreamError>) + Send>;

/// What has to be asked of a service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Sought {
    /// Whether this is a directory, which its list says.
    Directory(SecretName),
    /// What stands there, and the value of a secret.
    Secret(SecretName),
}

impl Sought {
    /// Returns the name that was asked for.
    pub fn name(&self) -> &SecretName {
        let (Self::Directory(name) | Self::Secret(name)) = self;
        name
    }
}

/// What is kept here of a secret of another service.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Copy<'a> {
    pub version: &'a RemoteVersion,
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
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RemoteVersion {
    pub backend: Box<str>,
    /// Its name there.
    pub id: Box<str>,
    /// When it was made, if the service says that: numbers begin anew where a secret was destroyed and made again.
    pub created: Option<Timestamp>,
}

impl RemoteVersion {
    /// Names a version. Times are kept in microseconds.
    pub fn new(backend: &str, id: String, created: Option<Timestamp>) -> Self {
        let in_micros = |time: Timestamp| Timestamp::from_microsecond(time.as_microsecond()).ok();
        let (backend, id) = (backend.into(), id.into());
        Self { backend, id, created: created.and_then(in_micros) }
    }
}

/// A value on its way to a service.
#[derive(Clone, Debug)]
pub struct Forward {
    pub value: Arc<SecretBytes>,
    pub over: Over,
}

/// What has to be at the service when a value is put there.
#[derive(Clone, Debug)]
pub enum Over {
    /// Whatever is there, which is fetched before, and the value put after it.
    Anything,
    /// What its writer has asked for. Something else is fetched as well, and the value is not put.
    Expected(Expected),
    /// This version, which was seen there right before. Where the service cannot compare, that has to do.
    Seen(RemoteVersion),
}

/// What a service has.
#[derive(Debug)]
pub struct Seen {
    pub version: RemoteVersion,
    pub value: SecretBytes,
    /// Whether a version can be put that is none once somebody else has made another.
    pub compares: bool,
}

/// What was here when a writer was admitted who expects that; nothing of it: there must be none.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    pub version: Option<Version>,
    pub remote: Option<RemoteVersion>,
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

impl Fault {
    /// Tells whether the service has not done what it was asked for, nor will do it yet. A conflict does not: the
    /// version there may be what an earlier request has made.
    pub fn is_refusal(self) -> bool {
        match self {
            Self::Denied
            | Self::Invalid
            | Self::NotFound
            | Self::Unaccepted
            | Self::Unsupported => true,
            Self::Conflict | Self::TimedOut | Self::Unreachable => false,
        }
    }
}

/// What is remembered beside a secret's record.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Remote {
    pub(super) version: RemoteVersion,
    /// As of when the record was written; later ones are in the record of all confirmations.
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
        Copy { version: &self.version, confirmed: self.confirmed() }
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

    /// Has the service asked for what is [`Elsewhere`](BrokerError::Elsewhere), and calls `done` when it is worth
    /// asking again.
    pub fn fetch_then(&self, sought: &Sought, done: Done) {
        match self.inner.upstream.get() {
            Some(upstream) => upstream.fetch(sought, done),
            None => done(),
        }
    }

    /// Does so and waits. `Elsewhere` when it takes longer than `at_most`.
    pub fn fetch(&self, sought: &Sought, at_most: Duration) -> Result<()> {
        let (done, ended) = sync_channel(1);
        self.fetch_then(sought, Box::new(move || done.try_send(()).unwrap_or_default()));
        ended.recv_timeout(at_most).map_err(|_| BrokerError::Elsewhere(sought.clone()))
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
            Standing::Elsewhere => Err(BrokerError::Elsewhere(Sought::Secret(name.clone()))),
            Standing::Failing(error) => Err(error.into()),
            Standing::NotThere => Err(BrokerError::NotFound(name.clone())),
        }
    }

    /// Finds out what stands at a path of which the index knows nothing. For who has no right on the name itself, but
    /// may pass through a directory of that name, no value is asked for.
    pub(super) fn look_elsewhere(
        &self,
        path: &SecretName,
        levels: Levels,
        now: Timestamp,
    ) -> Result<Unknown> {
        let Some(upstream) = self.upstream.get() else { return Ok(Unknown::Nothing) };
        if levels.is_empty() {
            return match upstream.standing_of_directory(path) {
                Standing::AtHand => Ok(Unknown::Directory),
                Standing::Elsewhere => Err(BrokerError::Elsewhere(Sought::Directory(path.clone()))),
                Standing::Failing(error) => Err(error.into()),
                Standing::Local | Standing::NotThere => Ok(Unknown::Nothing),
            };
        }
        if upstream.is_directory(path) {
            return Ok(Unknown::Directory);
        }
        match self.check_at_hand(path, None, now) {
            Ok(()) | Err(BrokerError::NotFound(_)) => Ok(Unknown::Nothing),
            Err(error) => Err(error),
        }
    }

    /// Tells whether a path is a directory because a service has names below it, or may have.
    pub(super) fn is_directory_elsewhere(&self, at: &At<'_>, path: &SecretName) -> bool {
        matches!(at, At::Nothing)
            && self.upstream.get().is_some_and(|upstream| {
                matches!(upstream.standing_of_directory(path), Standing::AtHand)
            })
    }
}

/// What is at a path that the index does not know.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Unknown {
    Directory,
    Nothing,
}
