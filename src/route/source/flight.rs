//! Who waits for a service: flights and lanes.
//!
//! Readers never call a service themselves. Whoever needs a secret joins its flight; a lane makes the request and
//! then calls all who wait for it. Lanes are threads that come as they are needed and go when nothing is
//! left to do, and there are no more than [`MAX_LANES`] of them, so that a service that hangs holds up
//! its own readers alone.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use parking_lot::MutexGuard;

use super::Source;
use crate::broker::{Done, Fault, Forward, ForwardDone, UpstreamError};
use crate::model::{SecretName, Timestamp};
use crate::route::verdict::{REMEMBERED, Verdict};

/// Requests that are made at one time for readers and writers.
const MAX_LANES: usize = 8;
/// Requests for readers that may wait; more are refused as if the service were not there.
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

impl Source {
    /// See [`Upstream::fetch`](crate::broker::Upstream::fetch).
    pub(in crate::route) fn fetch(self: &Arc<Self>, name: &SecretName, done: Done) {
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
    pub(super) fn refresh_soon(self: &Arc<Self>, name: &SecretName, now: Timestamp) {
        if self.verdicts.lock().of(name, now).is_some()
            || self.breaker.lock().refusal(self.uptime()).is_some()
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
    pub(in crate::route) fn put(
        self: &Arc<Self>,
        name: &SecretName,
        forward: Forward,
        done: ForwardDone,
    ) {
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
    pub(in crate::route) fn fetch_in_turn(&self, name: &SecretName) -> Result<(), UpstreamError> {
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
