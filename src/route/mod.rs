//! Parts of the tree that other services keep: which these are, and the copies of their secrets.
//!
//! [`Routes`] is the broker's [`Upstream`]. A copy that is *fresh* is served without asking. One that is
//! *stale* is served at once while it is fetched anew behind the reader's back; so what a service is down
//! for is noticed only by who asks for what was never here, or what is too old for that. Requests of
//! readers are made once however many wait (`source`), a service that fails is left alone for a while
//! (`breaker`), and what was served is confirmed before it is stale (`refresh`). All times are the
//! broker's clock's.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::Duration;

use crate::backend::Backend;
use crate::broker::{
    Broker, Copy, Done, Fault, Forward, RemoteVersion, Seen, Sought, Standing, Told, Upstream,
    UpstreamError,
};
use crate::model::{Clock, SecretName, Timestamp};

mod breaker;
mod fault;
mod marks;
mod names;
mod refresh;
mod source;
mod verdict;

pub use refresh::{Refresher, Refreshing};
pub use source::State;

use source::Source;

/// One part of the tree.
pub struct Route {
    /// What lies below this directory comes from the service.
    pub path: SecretName,
    /// The service's name in the configuration.
    pub backend: String,
    pub client: Arc<dyn Backend>,
    pub cache: Cache,
}

/// How long copies are good for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Cache {
    /// How long a copy is served without asking.
    pub fresh: Duration,
    /// How long it is served while the service cannot be asked.
    pub stale: Duration,
    /// How long it is remembered that there is no such secret.
    pub negative: Duration,
    /// All secrets are fetched before anybody asks for them, so that listings show them.
    pub prefetch: bool,
    /// How long the service has to answer.
    pub timeout: Duration,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            fresh: Duration::from_secs(300),
            stale: Duration::from_secs(24 * 3600),
            negative: Duration::from_secs(10),
            prefetch: true,
            // Below the deadline of a caller, who is to learn what has happened.
            timeout: Duration::from_secs(4),
        }
    }
}

/// Every route. Cheap to clone.
#[derive(Clone)]
pub struct Routes {
    /// The longest path first, so that the first that fits is the one.
    sources: Arc<[Arc<Source>]>,
}

impl Routes {
    /// Joins routes, and makes the directories at which they begin. Errors: a secret is in the way of one.
    pub fn new(
        broker: &Broker,
        clock: &Arc<dyn Clock>,
        mut routes: Vec<Route>,
    ) -> Result<Self, crate::broker::BrokerError> {
        routes.sort_by_key(|route| std::cmp::Reverse(route.path.as_str().len()));
        let inner: Vec<SecretName> = routes.iter().map(|route| route.path.clone()).collect();
        let source = |route: Route| {
            let below = |other: &&SecretName| other.is_below(&route.path);
            let others = inner.iter().filter(below).cloned().collect();
            Arc::new(Source::new(broker.clone(), Arc::clone(clock), route, others))
        };
        let paths: Vec<SecretName> = routes.iter().map(|route| route.path.clone()).collect();
        let sources: Arc<[Arc<Source>]> = routes.into_iter().map(source).collect();
        if !broker.is_sealed() {
            paths.iter().try_for_each(|path| broker.ensure_directory(path))?;
        }
        let held = Arc::clone(&sources);
        broker.on_seal(Box::new(move || held.iter().for_each(|source| source.forget())));
        Ok(Self { sources })
    }

    /// Starts the threads that keep copies fresh: one for each service.
    pub fn start(&self) -> std::io::Result<Refreshing> {
        Refreshing::start(&self.sources)
    }

    /// Returns what keeps copies fresh, one for each service, for who drives them by hand.
    pub fn refreshers(&self) -> Vec<Refresher> {
        self.sources.iter().map(|source| Refresher::new(Arc::clone(source))).collect()
    }

    /// Returns how it stands with each service, for status and metrics.
    pub fn states(&self) -> Vec<State> {
        self.sources.iter().map(|source| source.state()).collect()
    }

    /// Returns the services that are left alone, and why.
    pub fn down(&self) -> Vec<(String, String)> {
        let down = |source: &Arc<Source>| Some((source.backend().to_owned(), source.down()?));
        self.sources.iter().filter_map(down).collect()
    }

    fn source(&self, name: &SecretName) -> Option<&Arc<Source>> {
        self.sources.iter().find(|source| source.covers(name))
    }

    /// Returns the source of a name that is known to have one.
    fn expect(&self, name: &SecretName) -> Result<&Arc<Source>, UpstreamError> {
        self.source(name).ok_or_else(|| UpstreamError {
            backend: "none".into(),
            fault: Fault::Invalid,
            why: format!("{name} is below no route"),
        })
    }
}

impl Upstream for Routes {
    fn route(&self, name: &SecretName) -> Option<usize> {
        self.sources.iter().position(|source| source.covers(name))
    }

    fn standing(&self, name: &SecretName, copy: Option<Copy<'_>>, now: Timestamp) -> Standing {
        match self.source(name) {
            Some(source) => source.standing(name, copy, now),
            None => Standing::Local,
        }
    }

    fn stale_for(&self, name: &SecretName, copy: Copy<'_>, now: Timestamp) -> Option<Duration> {
        self.source(name)?.stale_for(copy, now)
    }

    fn is_directory(&self, path: &SecretName) -> bool {
        self.leads_to_route(path)
            || self.source(path).is_some_and(|source| source.is_directory(path))
    }

    fn standing_of_directory(&self, path: &SecretName) -> Standing {
        if self.leads_to_route(path) {
            return Standing::AtHand;
        }
        self.source(path).map_or(Standing::Local, |source| source.standing_of_directory(path))
    }

    fn leads_to_route(&self, path: &SecretName) -> bool {
        self.sources.iter().any(|source| source.path() == path || source.path().is_below(path))
    }

    fn fetch(&self, sought: &Sought, done: Done) {
        match self.source(sought.name()) {
            Some(source) => source.fetch(sought, done),
            None => done(),
        }
    }

    fn refusal(&self, name: &SecretName) -> Option<UpstreamError> {
        self.source(name)?.refusal()
    }

    fn renew(&self, name: &SecretName, done: Told<()>) {
        match self.expect(name) {
            Ok(source) => source.renew(name, done),
            Err(error) => done(Err(error)),
        }
    }

    fn look(&self, name: &SecretName, done: Told<Seen>) {
        match self.expect(name) {
            Ok(source) => source.look(name, done),
            Err(error) => done(Err(error)),
        }
    }

    fn put(&self, name: &SecretName, forward: Forward, done: Told<RemoteVersion>) {
        match self.expect(name) {
            Ok(source) => source.put(name, forward, done),
            Err(error) => done(Err(error)),
        }
    }

    fn remove(&self, name: &SecretName, done: Told<()>) {
        match self.expect(name) {
            Ok(source) => source.remove(name, done),
            Err(error) => done(Err(error)),
        }
    }

    fn restore(&self, name: &SecretName, done: Told<()>) {
        match self.expect(name) {
            Ok(source) => source.restore(name, done),
            Err(error) => done(Err(error)),
        }
    }

    fn explain(&self, name: &SecretName) -> Option<serde_json::Value> {
        Some(self.source(name)?.explain())
    }
}

impl std::fmt::Debug for Routes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let paths = self.sources.iter().map(|source| source.path());
        f.debug_list().entries(paths).finish()
    }
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { path, backend, cache, .. } = self;
        let mut shown = f.debug_struct("Route");
        shown.field("path", path).field("backend", backend).field("cache", cache);
        shown.finish_non_exhaustive()
    }
}
