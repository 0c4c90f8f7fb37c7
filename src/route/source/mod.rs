//! One service behind a route: where it stands in the tree, and whether a copy of one of its secrets may be served.
//!
//! Who asks for what, and who waits for it, is `flight`'s; the requests themselves are `request`'s and `change`'s.
//!
//! Locks: each is held for a look or a change in memory, and never while another one is taken.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::json;

use super::breaker::Breaker;
use super::names::{Directories, Listing};
use super::verdict::{Verdict, Verdicts};
use super::{Cache, Route};
use crate::backend::{Abilities, Backend};
use crate::broker::{Broker, Copy, Standing, UpstreamError};
use crate::model::{Clock, SecretName, Timestamp};

mod change;
mod flight;
mod request;
mod state;

pub use state::State;

use flight::Lanes;
use state::Counts;

/// By so much a clock may be set back without any consequence.
const TOLERANCE: Duration = Duration::from_secs(60);

/// One service behind one route.
pub(super) struct Source {
    path: SecretName,
    /// Routes that begin below this one.
    others: Vec<SecretName>,
    backend: Arc<str>,
    client: Arc<dyn Backend>,
    pub(super) cache: Cache,
    pub(super) broker: Broker,
    pub(super) clock: Arc<dyn Clock>,
    /// Known once it was needed, or the service has answered.
    abilities: OnceLock<Abilities>,
    breaker: Mutex<Breaker>,
    lanes: Mutex<Lanes>,
    verdicts: Mutex<Verdicts>,
    directories: Mutex<Directories>,
    counts: Counts,
}

impl Source {
    pub(super) fn new(
        broker: Broker,
        clock: Arc<dyn Clock>,
        route: Route,
        others: Vec<SecretName>,
    ) -> Self {
        let Route { path, backend, client, cache } = route;
        Self {
            path,
            others,
            backend: backend.into(),
            client,
            cache,
            broker,
            clock,
            abilities: OnceLock::new(),
            breaker: Mutex::default(),
            lanes: Mutex::default(),
            verdicts: Mutex::default(),
            directories: Mutex::default(),
            counts: Counts::default(),
        }
    }

    pub(super) fn path(&self) -> &SecretName {
        &self.path
    }

    pub(super) fn backend(&self) -> &str {
        &self.backend
    }

    pub(super) fn covers(&self, name: &SecretName) -> bool {
        name.is_below(&self.path)
    }

    /// Tells whether a name below the path is this route's and no longer one's.
    pub(super) fn owns(&self, name: &SecretName) -> bool {
        self.covers(name) && !self.others.iter().any(|other| other == name || name.is_below(other))
    }

    /// Returns the name as the service knows it.
    fn below<'n>(&self, name: &'n SecretName) -> &'n str {
        let rest = name.as_str().strip_prefix(self.path.as_str()).unwrap_or_default();
        rest.strip_prefix('/').unwrap_or_default()
    }

    /// Returns the name here of what the service knows as `below`, if it can be one.
    pub(super) fn name_of(&self, below: &str) -> Option<SecretName> {
        let name: SecretName = format!("{}/{below}", self.path).parse().ok()?;
        self.owns(&name).then_some(name)
    }

    /// See [`Upstream::standing`](crate::broker::Upstream::standing).
    pub(super) fn standing(
        self: &Arc<Self>,
        name: &SecretName,
        copy: Option<Copy<'_>>,
        now: Timestamp,
    ) -> Standing {
        let ours = copy.filter(|copy| *copy.version.backend == *self.backend);
        let age = ours.map(|copy| self.age(copy.confirmed, now));
        if let Some(age) = age
            && age <= self.cache.fresh
        {
            return Standing::AtHand;
        }
        if let Some(age) = age
            && age <= self.cache.fresh.saturating_add(self.cache.stale)
        {
            self.counts.stale_reads.fetch_add(1, Ordering::Relaxed);
            self.refresh_soon(name);
            return Standing::AtHand;
        }
        let verdict = self.verdicts.lock().of(name, self.uptime());
        match verdict {
            Some(Verdict::NotThere) => Standing::NotThere,
            Some(Verdict::Failing(error)) => Standing::Failing(error),
            None => self.unknown(),
        }
    }

    /// See [`Upstream::standing_of_directory`](crate::broker::Upstream::standing_of_directory).
    pub(super) fn standing_of_directory(&self, path: &SecretName) -> Standing {
        let listing = {
            let directories = self.directories.lock();
            if directories.contains(self.below(path)) {
                return Standing::AtHand;
            }
            directories.listing(self.uptime()).cloned()
        };
        match listing {
            Some(Listing::Failed(error)) => Standing::Failing(error),
            Some(Listing::Given) => Standing::NotThere,
            // It may have any directory.
            Some(Listing::Refused) => Standing::AtHand,
            None => self.unknown(),
        }
    }

    /// How it stands with what has to be asked for.
    fn unknown(&self) -> Standing {
        self.refusal().map_or(Standing::Elsewhere, Standing::Failing)
    }

    /// See [`Upstream::refusal`](crate::broker::Upstream::refusal).
    pub(super) fn refusal(&self) -> Option<UpstreamError> {
        self.breaker.lock().refusal(self.uptime()).cloned()
    }

    /// See [`Upstream::stale_for`](crate::broker::Upstream::stale_for).
    pub(super) fn stale_for(&self, copy: Copy<'_>, now: Timestamp) -> Option<Duration> {
        let past = self.age(copy.confirmed, now).checked_sub(self.cache.fresh)?;
        (!past.is_zero()).then_some(past)
    }

    /// Returns how long ago a copy was confirmed. One of the future is no longer fresh: the clock was set back.
    pub(super) fn age(&self, confirmed: Timestamp, now: Timestamp) -> Duration {
        if between(now, confirmed) > TOLERANCE {
            return self.cache.fresh.saturating_add(TOLERANCE);
        }
        between(confirmed, now)
    }

    pub(super) fn is_directory(&self, path: &SecretName) -> bool {
        self.directories.lock().contains(self.below(path))
    }

    /// See [`Upstream::explain`](crate::broker::Upstream::explain).
    pub(super) fn explain(&self) -> serde_json::Value {
        let mut cannot = vec!["rename", "stage"];
        if self.abilities.get().is_some_and(|abilities| !abilities.restore) {
            cannot.push("restore");
        }
        json!({ "name": &*self.backend, "route": self.path.as_str(), "cannot": cannot })
    }

    /// Returns from when on a service that is left alone is tried again, as time since the host's start.
    pub(super) fn rests_until(&self) -> Option<Duration> {
        self.breaker.lock().rests_until()
    }

    pub(super) fn uptime(&self) -> Duration {
        self.clock.uptime().elapsed
    }

    /// Forgets the names that it knows.
    pub(super) fn forget(&self) {
        *self.verdicts.lock() = Verdicts::default();
        *self.directories.lock() = Directories::default();
    }

    /// Returns why the service is left alone, if it is.
    pub(super) fn down(&self) -> Option<String> {
        self.breaker.lock().down().map(str::to_owned)
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { path, backend, .. } = self;
        f.debug_struct("Source")
            .field("path", path)
            .field("backend", backend)
            .finish_non_exhaustive()
    }
}

/// Returns the time from one moment to a later one.
fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}
