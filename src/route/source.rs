//! One service behind a route: what is asked of it, and by whom.
//!
//! Readers never call it themselves. Whoever needs a secret joins its flight; a lane makes the request and
//! then calls all who wait for it. Lanes are threads that come as they are needed and go when nothing is
//! left to do, and there are no more than [`MAX_LANES`] of them, so that a service that hangs holds up
//! its own readers alone.
//!
//! Locks: each is held for a look or a change in memory and never while another one is taken, but for that of the list.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::json;

use super::breaker::{Breaker, Change, Lesson};
use super::names::Directories;
use super::{Cache, Route, fault};
use crate::backend::{
    Abilities, BackendError, Deadline, Expect, Fetched, PageToken, Put, Version, VersionId, Which,
};
use crate::broker::{
    Arrival, Broker, BrokerError, Copy, Done, Fault, Forward, ForwardDone, RemoteVersion, Standing,
    TakenIn, UpstreamError,
};
use crate::model::{Clock, SecretName, Timestamp, Uid};

/// Requests that are made at one time for readers and writers.
const MAX_LANES: usize = 8;
/// Requests for readers that may wait; more are refused as if the service were not there.
const MAX_QUEUE: usize = 10_000;
/// For how long readers are told what has just failed, before it is tried again.
const REMEMBERED: Duration = Duration::from_secs(1);
/// By so much a clock may be set back without any consequence.
const TOLERANCE: Duration = Duration::from_secs(60);
/// A list that is longer has no end.
const MOST_NAMES: usize = 1_000_000;
/// Names of which something is remembered.
const MAX_VERDICTS: usize = 10_000;

/// One service behind one route.
pub(super) struct Source {
    path: SecretName,
    /// Routes that begin below this one.
    others: Vec<SecretName>,
    backend: Arc<str>,
    client: Arc<dyn crate::backend::Backend>,
    pub(super) cache: Cache,
    pub(super) broker: Broker,
    pub(super) clock: Arc<dyn Clock>,
    /// Known once the service has answered.
    abilities: OnceLock<Abilities>,
    breaker: Mutex<Breaker>,
    lanes: Mutex<Lanes>,
    verdicts: Mutex<HashMap<SecretName, (Verdict, Timestamp)>>,
    directories: Mutex<Directories>,
    /// Held while the service is asked for its list because a name was not found.
    listing: Mutex<()>,
    counts: Counts,
}

/// What is counted since the start.
#[derive(Debug, Default)]
struct Counts {
    requests: AtomicU64,
    failures: AtomicU64,
    stale_reads: AtomicU64,
    unfit: AtomicU64,
}

/// How it stands with a service.
#[derive(Clone, Debug)]
pub struct State {
    pub backend: String,
    pub path: SecretName,
    /// Why it is left alone, if it is.
    pub down: Option<String>,
    pub copies: u64,
    /// How long ago the copy that has waited longest was confirmed.
    pub oldest: Duration,
    pub requests: u64,
    pub failures: u64,
    /// Reads that were served a copy which was not fresh.
    pub stale_reads: u64,
    /// Answers that cannot be kept here: too long, or in the place of something else.
    pub unfit: u64,
}

#[derive(Default)]
struct Lanes {
    flights: HashMap<SecretName, Flight>,
    /// What readers and writers wait for.
    urgent: VecDeque<Job>,
    /// Secrets that were served stale.
    background: VecDeque<SecretName>,
    running: usize,
}

/// A secret that is being fetched, or is going to be.
#[derive(Default)]
struct Flight {
    /// Nobody waits for a refresh.
    waiting: Vec<Done>,
    begun: bool,
}

enum Job {
    Fetch(SecretName),
    Run(Box<dyn FnOnce(&Source) + Send>),
}

/// What is remembered of a name for a moment.
#[derive(Clone, Debug)]
enum Verdict {
    Failing(UpstreamError),
    NotThere,
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
            listing: Mutex::default(),
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
        let ours = copy.filter(|copy| *copy.backend == *self.backend);
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
            self.refresh_soon(name, now);
            return Standing::AtHand;
        }
        match self.verdict(name, now) {
            Some(Verdict::NotThere) => Standing::NotThere,
            Some(Verdict::Failing(error)) => Standing::Failing(error),
            None => match self.breaker.lock().refusal(self.uptime()) {
                Some(why) => Standing::Failing(why.clone()),
                None => Standing::Elsewhere,
            },
        }
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

    /// See [`Upstream::fetch`](crate::broker::Upstream::fetch).
    pub(super) fn fetch(self: &Arc<Self>, name: &SecretName, done: Done) {
        let mut lanes = self.lanes.lock();
        if let Some(flight) = lanes.flights.get_mut(name) {
            // A refresh that waits for its turn does not any more.
            let hurries = flight.waiting.is_empty() && !flight.begun;
            flight.waiting.push(done);
            if hurries {
                lanes.urgent.push_back(Job::Fetch(name.clone()));
                self.staff(lanes);
            }
            return;
        }
        if lanes.urgent.len() >= MAX_QUEUE {
            drop(lanes);
            self.remember(name, Verdict::Failing(self.overrun()), REMEMBERED);
            return done();
        }
        let flight = Flight { waiting: vec![done], begun: false };
        lanes.flights.insert(name.clone(), flight);
        lanes.urgent.push_back(Job::Fetch(name.clone()));
        self.staff(lanes);
    }

    /// Has a copy fetched anew that somebody has just been served.
    fn refresh_soon(self: &Arc<Self>, name: &SecretName, now: Timestamp) {
        if self.verdict(name, now).is_some() || self.breaker.lock().refusal(self.uptime()).is_some()
        {
            return;
        }
        let mut lanes = self.lanes.lock();
        if lanes.flights.contains_key(name) || lanes.background.len() >= MAX_QUEUE {
            return;
        }
        lanes.flights.insert(name.clone(), Flight::default());
        lanes.background.push_back(name.clone());
        self.staff(lanes);
    }

    /// See [`Upstream::put`](crate::broker::Upstream::put).
    pub(super) fn put(self: &Arc<Self>, name: &SecretName, forward: Forward, done: ForwardDone) {
        let mut lanes = self.lanes.lock();
        if lanes.urgent.len() >= MAX_QUEUE {
            drop(lanes);
            return done(Err(self.overrun()));
        }
        let name = name.clone();
        let run = move |source: &Self| done(source.put_now(&name, &forward));
        lanes.urgent.push_back(Job::Run(Box::new(run)));
        self.staff(lanes);
    }

    fn overrun(&self) -> UpstreamError {
        let why = "too many requests wait for it".to_owned();
        UpstreamError { backend: Arc::clone(&self.backend), fault: Fault::Unreachable, why }
    }

    /// Sees to it that somebody does what was queued.
    fn staff(self: &Arc<Self>, mut lanes: parking_lot::MutexGuard<'_, Lanes>) {
        if lanes.running >= MAX_LANES {
            return;
        }
        lanes.running += 1;
        drop(lanes);
        let source = Arc::clone(self);
        let spawned = thread::Builder::new().name("route".into()).spawn(move || source.work());
        if let Err(error) = spawned {
            tracing::error!(%error, "no thread for requests to a backend");
            // Whoever waits gets an answer from the others, or at the deadline.
            self.lanes.lock().running -= 1;
        }
    }

    /// Does what waits. A request that panics has been reported by the panic hook, and is the only one that ends.
    fn work(&self) {
        while catch_unwind(AssertUnwindSafe(|| self.work_one())).unwrap_or(true) {}
    }

    /// Does the next thing that waits. Returns whether there was one.
    fn work_one(&self) -> bool {
        let job = {
            let mut lanes = self.lanes.lock();
            let job = lanes.urgent.pop_front();
            match job.or_else(|| lanes.background.pop_front().map(Job::Fetch)) {
                Some(job) => job,
                None => {
                    lanes.running -= 1;
                    return false;
                }
            }
        };
        match job {
            Job::Run(run) => run(self),
            Job::Fetch(name) => {
                let begins = match self.lanes.lock().flights.get_mut(&name) {
                    Some(flight) => !std::mem::replace(&mut flight.begun, true),
                    // It was in the queue twice.
                    None => false,
                };
                if begins {
                    // Who waits asks again, and hears what is remembered.
                    drop(self.land(&name));
                }
            }
        }
        true
    }

    /// Fetches a secret in its turn, unless somebody is at it.
    pub(super) fn fetch_in_turn(&self, name: &SecretName) -> Result<(), UpstreamError> {
        {
            let mut lanes = self.lanes.lock();
            if lanes.flights.get(name).is_some_and(|flight| flight.begun) {
                return Ok(());
            }
            lanes.flights.entry(name.clone()).or_default().begun = true;
        }
        self.land(name)
    }

    /// Ends a flight that has begun: fetches the secret, and then calls who waits for it.
    fn land(&self, name: &SecretName) -> Result<(), UpstreamError> {
        let _landing = Landing { source: self, name };
        self.resolve(name)
    }

    /// Finds out what stands at a name, so that it can be said.
    fn resolve(&self, name: &SecretName) -> Result<(), UpstreamError> {
        let outcome = self.fetch_now(name);
        match &outcome {
            Ok(()) => drop(self.verdicts.lock().remove(name)),
            Err(error) => match error.fault {
                Fault::NotFound => {
                    self.remember(name, Verdict::NotThere, self.cache.negative);
                    self.find_directory(name);
                }
                Fault::Conflict | Fault::TimedOut | Fault::Unreachable => {
                    self.remember(name, Verdict::Failing(error.clone()), REMEMBERED);
                }
                // It does not change by itself.
                Fault::Denied | Fault::Invalid | Fault::Unaccepted | Fault::Unsupported => {
                    self.remember(name, Verdict::Failing(error.clone()), self.cache.negative);
                }
            },
        }
        outcome
    }

    /// Finds out whether what is no secret is a directory.
    fn find_directory(&self, path: &SecretName) {
        // One list answers everybody who waits for it.
        let _one_at_a_time = self.listing.lock();
        let now = self.clock.now();
        let asked = self.directories.lock().asked;
        let age = asked.map(|asked| between(asked, now));
        if age.is_none_or(|age| age > self.cache.negative) {
            // What it fails with is noted there.
            drop(self.list());
        }
        let mut directories = self.directories.lock();
        if directories.asked.is_some() && !directories.may_list {
            directories.presume(self.below(path));
        }
    }

    /// Fetches a secret and keeps what comes.
    pub(super) fn fetch_now(&self, name: &SecretName) -> Result<(), UpstreamError> {
        let before = self.broker.remote_version(name);
        let known = before.as_ref().filter(|before| *before.backend == *self.backend);
        let which = Which::Current;
        let fetched = self.ask(|client, deadline| client.get(self.below(name), &which, deadline));
        match fetched {
            Ok(fetched) => self.take_in(name, fetched, known),
            Err(error) => {
                if let (Fault::NotFound, Some(known)) = (error.fault, known)
                    && let Err(error) = self.broker.note_gone(name, known)
                {
                    tracing::warn!(%name, %error, "a secret that is gone could not be removed");
                }
                Err(error)
            }
        }
    }

    fn take_in(
        &self,
        name: &SecretName,
        fetched: Fetched,
        known: Option<&RemoteVersion>,
    ) -> Result<(), UpstreamError> {
        let Fetched { version, value, created, expires } = fetched;
        let arrival = Arrival {
            version: self.remote(version, created),
            told_apart: self.abilities.get().is_some_and(|abilities| abilities.versions),
            value,
            known: known.map(|known| known.version.clone()),
            expires,
            created_by: Uid(nix::unistd::geteuid().as_raw()),
        };
        match self.broker.take_in(name, arrival) {
            Ok(TakenIn::Confirmed | TakenIn::Made(_) | TakenIn::Overtaken) => Ok(()),
            Err(error) => {
                let unfit = matches!(
                    error,
                    BrokerError::IsDirectory(_)
                        | BrokerError::NotDirectory(_)
                        | BrokerError::TooBig { .. }
                );
                self.counts.unfit.fetch_add(u64::from(unfit), Ordering::Relaxed);
                tracing::warn!(%name, %error, "what a backend has answered is not kept");
                Err(fault::of_store(&self.backend, &error))
            }
        }
    }

    /// Names a version. With its time: numbers begin anew where a secret was destroyed and made again.
    fn remote(&self, id: VersionId, created: Option<Timestamp>) -> RemoteVersion {
        let version = match created {
            Some(created) => format!("{} {created}", id.0),
            None => id.0,
        };
        RemoteVersion { backend: (&*self.backend).into(), version: version.into() }
    }

    fn put_now(
        &self,
        name: &SecretName,
        forward: &Forward,
    ) -> Result<RemoteVersion, UpstreamError> {
        let ours = forward.known.as_ref().filter(|known| *known.backend == *self.backend);
        let mut known = ours.map(|known| known.version.clone());
        let binary = std::str::from_utf8(forward.value.expose()).is_err();
        let compares = self.client.abilities().compare_and_set;
        let put_after = |known: Option<&str>| {
            let expected = known.map_or(Expect::Absent, |named| Expect::Version(id_in(named)));
            let put = Put { expect: compares.then_some(expected), binary, expires: None };
            self.ask(|client, deadline| {
                client.put(self.below(name), &forward.value, &put, deadline)
            })
        };
        let mut outcome = put_after(known.as_deref());
        let mut is_strict = forward.strict;
        if let Err(error) = &outcome
            && error.fault == Fault::Conflict
        {
            // It has another version by now. It is fetched in either case: whoever asked for the one before
            // looks at it next, and whoever did not loses nothing of it.
            match self.fetch_now(name) {
                Ok(()) => known = self.broker.remote_version(name).map(|now| now.version),
                Err(error) if error.fault == Fault::NotFound => {
                    // One that was deleted there still counts as the version to come after.
                    let deleted = self.deleted_version(name)?;
                    is_strict &= deleted.is_none() || forward.known.is_some();
                    known = deleted;
                }
                Err(error) => return Err(error),
            }
            if !is_strict {
                outcome = put_after(known.as_deref());
            }
        }
        let Version { id, created, .. } = outcome?;
        self.verdicts.lock().remove(name);
        Ok(self.remote(id, created))
    }

    /// Returns the last version of a secret that is deleted there and can come back.
    fn deleted_version(&self, name: &SecretName) -> Result<Option<Box<str>>, UpstreamError> {
        match self.ask(|client, deadline| client.describe(self.below(name), deadline)) {
            Ok(found) => Ok(found.current.filter(|_| found.deleted).map(|id| id.0.into())),
            Err(error) if error.fault == Fault::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// See [`Upstream::remove`](crate::broker::Upstream::remove).
    pub(super) fn remove(&self, name: &SecretName) -> Result<(), UpstreamError> {
        match self.ask(|client, deadline| client.delete(self.below(name), deadline)) {
            // That is what was wanted.
            Err(error) if error.fault == Fault::NotFound => {}
            outcome => outcome?,
        }
        self.remember(name, Verdict::NotThere, self.cache.negative);
        Ok(())
    }

    /// See [`Upstream::restore`](crate::broker::Upstream::restore).
    pub(super) fn restore(&self, name: &SecretName) -> Result<(), UpstreamError> {
        if !self.client.abilities().restore {
            let error = BackendError::Unsupported("what was deleted does not come back".into());
            return Err(fault::of_service(&self.backend, &error));
        }
        self.ask(|client, deadline| client.restore(self.below(name), deadline))?;
        self.verdicts.lock().remove(name);
        Ok(())
    }

    /// See [`Upstream::explain`](crate::broker::Upstream::explain).
    pub(super) fn explain(&self) -> serde_json::Value {
        let mut cannot = vec!["rename", "rotate", "stage"];
        if self.abilities.get().is_some_and(|abilities| !abilities.restore) {
            cannot.push("restore");
        }
        json!({ "name": &*self.backend, "route": self.path.as_str(), "cannot": cannot })
    }

    /// Asks for all names. What is no directory here any more is none from then on.
    pub(super) fn list(&self) -> Result<Vec<String>, UpstreamError> {
        let mut names = Vec::new();
        let mut next: Option<PageToken> = None;
        loop {
            let page = self.ask(|client, deadline| client.list(next.as_ref(), deadline));
            match page {
                Ok(page) if names.len() + page.names.len() > MOST_NAMES => {
                    let error = BackendError::Failed("its list has no end".into());
                    return Err(fault::of_service(&self.backend, &error));
                }
                Ok(page) => {
                    names.extend(page.names);
                    next = page.next;
                }
                Err(error) => {
                    if matches!(error.fault, Fault::Denied | Fault::Unsupported) {
                        self.directories.lock().refuse(self.clock.now());
                    }
                    return Err(error);
                }
            }
            if next.is_none() {
                break;
            }
        }
        self.directories.lock().replace(&names, self.clock.now());
        Ok(names)
    }

    /// Makes one request, unless the service is left alone.
    fn ask<T>(
        &self,
        call: impl FnOnce(&dyn crate::backend::Backend, Deadline) -> crate::backend::Result<T>,
    ) -> Result<T, UpstreamError> {
        self.breaker.lock().admit(self.uptime())?;
        self.counts.requests.fetch_add(1, Ordering::Relaxed);
        let answer = call(&*self.client, Deadline::within(self.cache.timeout));
        if answer.is_ok() {
            self.abilities.get_or_init(|| self.client.abilities());
        }
        let error = answer.as_ref().err().map(|error| fault::of_service(&self.backend, error));
        let lesson = match (&answer, error.clone()) {
            (Err(BackendError::Throttled { retry_after }), Some(error)) => {
                Lesson::Throttled(error, *retry_after)
            }
            (Err(failure), Some(error)) if failure.is_passing() || is_unaccepted(failure) => {
                Lesson::Failed(error)
            }
            (Ok(_) | Err(_), _) => Lesson::Answered,
        };
        self.learn(lesson);
        match (answer, error) {
            (Ok(answer), _) => Ok(answer),
            (Err(_), Some(error)) => Err(error),
            (Err(failure), None) => Err(fault::of_service(&self.backend, &failure)),
        }
    }

    fn learn(&self, lesson: Lesson) {
        let why = match &lesson {
            Lesson::Answered => None,
            Lesson::Failed(error) | Lesson::Throttled(error, _) => {
                self.counts.failures.fetch_add(1, Ordering::Relaxed);
                Some(error.why.clone())
            }
        };
        let change = self.breaker.lock().learn(lesson, self.uptime(), jitter());
        let backend = self.backend();
        match change {
            Change::None => return,
            Change::Down => {
                tracing::warn!(backend, why = why.as_deref(), "a backend is down");
            }
            Change::Up => tracing::info!(backend, "a backend answers again"),
        }
        let fault = why.as_deref().filter(|_| change == Change::Down);
        if let Err(error) = self.broker.note_backend(backend, fault) {
            tracing::warn!(%error, "that a backend went or came is not on record");
        }
    }

    /// Returns from when on a service that is left alone is tried again, as time since the host's start.
    pub(super) fn rests_until(&self) -> Option<Duration> {
        self.breaker.lock().rests_until()
    }

    pub(super) fn uptime(&self) -> Duration {
        self.clock.uptime().elapsed
    }

    fn remember(&self, name: &SecretName, verdict: Verdict, time: Duration) {
        let now = self.clock.now();
        let until = now.checked_add(time).unwrap_or(Timestamp::MAX);
        let mut verdicts = self.verdicts.lock();
        if verdicts.len() >= MAX_VERDICTS {
            verdicts.retain(|_, (_, until)| *until > now);
        }
        if verdicts.len() >= MAX_VERDICTS {
            verdicts.clear();
        }
        verdicts.insert(name.clone(), (verdict, until));
    }

    fn verdict(&self, name: &SecretName, now: Timestamp) -> Option<Verdict> {
        let verdicts = self.verdicts.lock();
        let (verdict, until) = verdicts.get(name)?;
        (*until > now).then(|| verdict.clone())
    }

    /// Forgets the names that it knows.
    pub(super) fn forget(&self) {
        self.verdicts.lock().clear();
        *self.directories.lock() = Directories::default();
    }

    /// Returns why the service is left alone, if it is.
    pub(super) fn down(&self) -> Option<String> {
        self.breaker.lock().down().map(str::to_owned)
    }

    /// See [`Routes::states`](super::Routes::states).
    pub(super) fn state(&self) -> State {
        let now = self.clock.now();
        let copies = self.broker.copies(&self.backend).unwrap_or_default();
        let oldest = copies.iter().map(|copy| self.age(copy.confirmed, now)).max();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        State {
            backend: self.backend().to_owned(),
            path: self.path.clone(),
            down: self.down(),
            copies: copies.len() as u64,
            oldest: oldest.unwrap_or_default(),
            requests: count(&self.counts.requests),
            failures: count(&self.counts.failures),
            stale_reads: count(&self.counts.stale_reads),
            unfit: count(&self.counts.unfit),
        }
    }
}

/// Returns the service's own name of a version, as [`Source::remote`] has put it before the time.
fn id_in(named: &str) -> VersionId {
    VersionId(named.split(' ').next().unwrap_or(named).to_owned())
}

/// Tells whether the service accepts nothing from us: it is no use to ask for one secret after the other.
fn is_unaccepted(failure: &BackendError) -> bool {
    matches!(failure, BackendError::Unauthenticated(_))
}

/// A flight that has begun. However it ends, nobody waits for it any longer.
struct Landing<'a> {
    source: &'a Source,
    name: &'a SecretName,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        let flight = self.source.lanes.lock().flights.remove(self.name).unwrap_or_default();
        flight.waiting.into_iter().for_each(|done| done());
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

/// Returns a number from 0 to 1 that others do not have.
pub(super) fn jitter() -> f64 {
    let mut bytes = [0; 2];
    // Without randomness all come at one moment, which is the worst of it.
    getrandom::fill(&mut bytes).unwrap_or_default();
    f64::from(u16::from_le_bytes(bytes)) / f64::from(u16::MAX)
}
