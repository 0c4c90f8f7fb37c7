//! Who waits for a service: flights and lanes.
//!
//! Readers never call a service themselves. Whoever needs a secret joins its flight; a lane makes the request and
//! then calls all who wait for it. Lanes are threads that come as they are needed and go when nothing is
//! left to do, and there are no more than [`MAX_LANES`] of them, so that a service that hangs holds up
//! its own readers alone.
//!
//! Of one secret one thing at a time is asked: a change has its turn until it is made here too, so that the order of
//! versions here is the service's.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use parking_lot::MutexGuard;

use super::Source;
use crate::broker::{Done, Fault, Sought, UpstreamError};
use crate::model::SecretName;
use crate::route::verdict::{REMEMBERED, Verdict};

/// Requests that are made at one time for readers and writers.
const MAX_LANES: usize = 8;
/// Requests that may wait for a lane, and changes for those of their secret before them; more are refused as if the
/// service were not there.
const MAX_QUEUE: usize = 10_000;

/// What waits for one service, and how many are at it.
#[derive(Default)]
pub(super) struct Lanes {
    flights: HashMap<SecretName, Flight>,
    /// What readers and writers wait for.
    urgent: VecDeque<Job>,
    /// Secrets that were served stale.
    background: VecDeque<SecretName>,
    running: usize,
    /// Who waits for the service's list, once somebody does.
    listing: Option<Vec<Done>>,
}

/// A secret of which something is asked, or is going to be.
#[derive(Default)]
struct Flight {
    /// Who is called after the next turn, whatever it was, and asks again.
    waiting: Vec<Done>,
    /// What comes before the next fetch, in the order in which it came.
    changes: VecDeque<Change>,
    /// It is somebody's turn.
    begun: bool,
}

/// A change at the service, or the failure of it where it has no turn.
pub(super) type Change = Box<dyn FnOnce(Result<&Source, UpstreamError>) + Send>;

enum Job {
    List,
    Turn(SecretName),
}

impl Source {
    /// See [`Upstream::fetch`](crate::broker::Upstream::fetch).
    pub(in crate::route) fn fetch(self: &Arc<Self>, sought: &Sought, done: Done) {
        match sought {
            Sought::Directory(_) => self.list_then(done),
            Sought::Secret(name) => self.fetch_secret(name, done),
        }
    }

    fn fetch_secret(self: &Arc<Self>, name: &SecretName, done: Done) {
        let lanes = self.lanes.lock();
        if !lanes.flights.contains_key(name) && lanes.urgent.len() >= MAX_QUEUE {
            drop(lanes);
            self.remember(name, Verdict::Failing(self.overrun()), REMEMBERED);
            return done();
        }
        self.board(lanes, name, |flight| flight.waiting.push(done));
    }

    /// Has a copy fetched anew that somebody has just been served.
    pub(super) fn refresh_soon(self: &Arc<Self>, name: &SecretName) {
        let now = self.uptime();
        if self.verdicts.lock().of(name, now).is_some()
            || self.breaker.lock().refusal(now).is_some()
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

    /// Has a change made when it is its turn.
    pub(super) fn change(self: &Arc<Self>, name: &SecretName, change: Change) {
        let lanes = self.lanes.lock();
        let before = lanes.flights.get(name).map_or(0, |flight| flight.changes.len());
        if lanes.urgent.len().max(before) >= MAX_QUEUE {
            drop(lanes);
            return change(Err(self.overrun()));
        }
        self.board(lanes, name, |flight| flight.changes.push_back(change));
    }

    /// Joins a secret's flight, and sees to it that it has its turn.
    fn board(
        self: &Arc<Self>,
        mut lanes: MutexGuard<'_, Lanes>,
        name: &SecretName,
        join: impl FnOnce(&mut Flight),
    ) {
        let flight = lanes.flights.entry(name.clone()).or_default();
        let hurries = !flight.is_urgent();
        join(flight);
        if hurries {
            lanes.urgent.push_back(Job::Turn(name.clone()));
            self.staff(lanes);
        }
    }

    /// Has the service asked for its list; one answers everybody who waits for it.
    fn list_then(self: &Arc<Self>, done: Done) {
        let mut lanes = self.lanes.lock();
        let is_asked = lanes.listing.is_some();
        lanes.listing.get_or_insert_default().push(done);
        if !is_asked {
            lanes.urgent.push_back(Job::List);
            self.staff(lanes);
        }
    }

    fn overrun(&self) -> UpstreamError {
        let why = "too many requests wait for it".to_owned();
        UpstreamError { backend: Arc::clone(&self.backend), fault: Fault::Unreachable, why }
    }

    /// Sees to it that somebody does what was queued.
    fn staff(self: &Arc<Self>, mut lanes: MutexGuard<'_, Lanes>) {
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
    fn work(self: &Arc<Self>) {
        while catch_unwind(AssertUnwindSafe(|| self.work_one())).unwrap_or(true) {}
    }

    /// Does the next thing that waits. Returns whether there was one.
    fn work_one(self: &Arc<Self>) -> bool {
        let job = {
            let mut lanes = self.lanes.lock();
            let job = lanes.urgent.pop_front();
            match job.or_else(|| lanes.background.pop_front().map(Job::Turn)) {
                Some(job) => job,
                None => {
                    lanes.running -= 1;
                    return false;
                }
            }
        };
        match job {
            Job::List => {
                let _listed = Listed(self);
                // What came of it is noted there.
                drop(self.list());
            }
            Job::Turn(name) => self.take_turn(name),
        }
        true
    }

    /// Does what comes next for a secret, unless somebody is at it.
    fn take_turn(self: &Arc<Self>, name: SecretName) {
        let change = match self.lanes.lock().flights.get_mut(&name) {
            Some(flight) if !flight.begun => {
                flight.begun = true;
                flight.changes.pop_front()
            }
            // It was in the queue twice.
            Some(_) | None => return,
        };
        let landing = Landing { source: Arc::clone(self), name };
        match change {
            Some(change) => change(Ok(&**self)),
            // Who waits asks again, and hears what is remembered.
            None => drop(self.resolve(landing)),
        }
    }

    /// Fetches a secret for nobody who waits, unless somebody is at it.
    pub(in crate::route) fn fetch_in_turn(
        self: &Arc<Self>,
        name: &SecretName,
    ) -> Result<(), UpstreamError> {
        {
            let mut lanes = self.lanes.lock();
            let flight = lanes.flights.entry(name.clone()).or_default();
            if std::mem::replace(&mut flight.begun, true) {
                return Ok(());
            }
        }
        self.resolve(Landing { source: Arc::clone(self), name: name.clone() })
    }

    /// Finds out what stands at a name, so that it can be said.
    fn resolve(self: &Arc<Self>, landing: Landing) -> Result<(), UpstreamError> {
        let outcome = self.fetch_now(&landing.name, self.soon());
        match &outcome {
            Ok(()) => self.verdicts.lock().forget(&landing.name),
            Err(error) if error.fault == Fault::NotFound => self.find_directory(landing),
            Err(error) => {
                let time = self.remembered(error);
                self.remember(&landing.name, Verdict::Failing(error.clone()), time);
            }
        }
        outcome
    }

    /// Finds out whether what is no secret is a directory, if somebody waits for that. No lane is held by
    /// those who wait for a list.
    fn find_directory(self: &Arc<Self>, landing: Landing) {
        let is_known = self.directories.lock().listing(self.uptime()).is_some();
        if is_known || !landing.is_awaited() {
            return self.note_absent(&landing.name);
        }
        let source = Arc::clone(self);
        self.list_then(Box::new(move || {
            source.note_absent(&landing.name);
            drop(landing);
        }));
    }
}

impl Flight {
    /// Tells whether a lane has it already, or is going to as soon as there is one.
    fn is_urgent(&self) -> bool {
        self.begun || !self.waiting.is_empty() || !self.changes.is_empty()
    }
}

/// A turn that has begun. However it ends, nobody waits for it any longer, and what comes next is next.
struct Landing {
    source: Arc<Source>,
    name: SecretName,
}

impl Landing {
    fn is_awaited(&self) -> bool {
        let lanes = self.source.lanes.lock();
        lanes.flights.get(&self.name).is_some_and(|flight| !flight.waiting.is_empty())
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        let mut lanes = self.source.lanes.lock();
        let Some(flight) = lanes.flights.get_mut(&self.name) else { return };
        flight.begun = false;
        let waiting = std::mem::take(&mut flight.waiting);
        if flight.changes.is_empty() {
            lanes.flights.remove(&self.name);
            drop(lanes);
        } else {
            lanes.urgent.push_back(Job::Turn(self.name.clone()));
            self.source.staff(lanes);
        }
        waiting.into_iter().for_each(|done| done());
    }
}

/// A request for the list that has begun. However it ends, nobody waits for it any longer.
struct Listed<'a>(&'a Source);

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        let waiting = self.0.lanes.lock().listing.take();
        waiting.into_iter().flatten().for_each(|done| done());
    }
}
