//! Keeps copies fresh, so that readers never wait: a thread for each service.
//!
//! Twice in the time that a copy is fresh all that have not been confirmed since the turn before are asked
//! for, but for what the service's list says has not changed. A turn that meets a service which is down ends, and
//! the next one begins when that is tried again; so everything is fresh one turn after it is back. What was
//! confirmed is written down at the end of a turn, in one commit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::breaker::jitter;
use super::marks::Marks;
use super::source::Source;
use crate::backend::Page;
use crate::broker::{BrokerError, Fault, KeptCopy, UpstreamError};
use crate::model::{SecretName, Timestamp};

/// How often it is looked whether a turn is due.
const LOOK: Duration = Duration::from_secs(1);

/// The running threads; dropping it stops them after the request at hand.
#[derive(Debug)]
pub struct Refreshing {
    stops: Vec<Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl Refreshing {
    pub(super) fn start(sources: &[Arc<Source>]) -> std::io::Result<Self> {
        let mut started = Self { stops: Vec::new(), threads: Vec::new() };
        for source in sources {
            let (stop, stopped) = mpsc::channel::<()>();
            let mut refresher = Refresher::new(Arc::clone(source));
            let goes_on = move |time| match stopped.recv_timeout(time) {
                Err(RecvTimeoutError::Timeout) => true,
                Ok(()) | Err(RecvTimeoutError::Disconnected) => false,
            };
            let run = move || {
                loop {
                    refresher.turn(&|| goes_on(Duration::ZERO));
                    if !goes_on(LOOK) {
                        return;
                    }
                }
            };
            let thread = thread::Builder::new().name("refresh".into()).spawn(run)?;
            started.stops.push(stop);
            started.threads.push(thread);
        }
        Ok(started)
    }
}

impl Drop for Refreshing {
    fn drop(&mut self) {
        self.stops.clear();
        for thread in self.threads.drain(..) {
            // One that panicked has been reported by the panic hook.
            drop(thread.join());
        }
    }
}

/// Keeps one service's copies fresh.
#[derive(Debug)]
pub struct Refresher {
    source: Arc<Source>,
    /// The directory at which the route begins was made.
    begun: bool,
    /// Since the host's start.
    due: Duration,
    marks: Marks,
}

impl Refresher {
    pub(super) fn new(source: Arc<Source>) -> Self {
        Self { source, begun: false, due: Duration::ZERO, marks: Marks::default() }
    }

    /// Does what is due; breaks off when `goes_on` says so.
    pub fn turn(&mut self, goes_on: &dyn Fn() -> bool) {
        let source = Arc::clone(&self.source);
        let now = source.uptime();
        // While the store is sealed nothing can be kept.
        if now < self.due || source.broker.is_sealed() {
            return;
        }
        if !self.begun {
            // It was not where the store was sealed at the start.
            match source.broker.ensure_directory(source.path()) {
                Ok(()) => self.begun = true,
                Err(error) => tracing::warn!(path = %source.path(), %error, "no route begins"),
            }
        }
        let (outcome, confirmed) = self.refresh(goes_on);
        let period = source.cache.fresh / 2;
        self.due = now + period + period.mul_f64(jitter() / 10.0);
        if let Err(error) = outcome {
            tracing::debug!(%error, "a turn ends early");
            // Soon after the service may be asked again, where it is left alone.
            self.due = source.rests_until().unwrap_or(now + LOOK).max(now + LOOK);
        }
        if confirmed && let Err(error) = source.broker.save_confirmations() {
            tracing::warn!(%error, "when copies were confirmed is not written down");
        }
    }

    /// Asks for what has waited longest first; with whether anything was confirmed.
    fn refresh(&mut self, goes_on: &dyn Fn() -> bool) -> (Result<(), UpstreamError>, bool) {
        let Due { names, changed, mut confirmed } = match self.due() {
            Ok(due) => due,
            Err(error) => return (Err(error), false),
        };
        for name in names {
            if !goes_on() {
                break;
            }
            match self.source.fetch_in_turn(&name) {
                Ok(()) => {
                    confirmed = true;
                    if let Some(changed) = changed.get(&name) {
                        self.marks.note_fetched(&name, *changed);
                    }
                }
                Err(error) => match error.fault {
                    Fault::TimedOut | Fault::Unaccepted | Fault::Unreachable => {
                        return (Err(error), confirmed);
                    }
                    Fault::Conflict
                    | Fault::Denied
                    | Fault::Invalid
                    | Fault::NotFound
                    | Fault::Unsupported => {
                        tracing::debug!(%name, %error, "not fetched");
                    }
                },
            }
        }
        (Ok(()), confirmed)
    }

    /// Finds out what is to be asked for, and confirms what has not changed by the list's word.
    fn due(&mut self) -> Result<Due, UpstreamError> {
        let source = &*self.source;
        let mut due = Due::default();
        let mut copies = match source.broker.copies(source.backend()) {
            Ok(copies) => copies,
            Err(BrokerError::Sealed) => return Ok(due),
            Err(error) => {
                tracing::warn!(%error, "copies are not known");
                return Ok(due);
            }
        };
        copies.retain(|copy| source.owns(&copy.name));
        copies.sort_by_key(|copy| copy.confirmed);
        let here: BTreeSet<SecretName> = copies.iter().map(|copy| copy.name.clone()).collect();
        let listed = if source.cache.prefetch { list(source)? } else { Page::default() };
        let named =
            |(below, changed): (String, Timestamp)| Some((source.name_of(&below)?, changed));
        due.changed = listed.changed.into_iter().filter_map(named).collect();
        self.marks.keep(&due.changed);
        let now = source.clock.now();
        // A list that is behind says nothing of what has happened since.
        let as_of = now.checked_sub(listed.behind).unwrap_or(now);
        let is_due = |confirmed| source.age(confirmed, now) >= source.cache.fresh / 2;
        for KeptCopy { name, confirmed } in copies {
            if !is_due(confirmed) {
                continue;
            }
            let changed = due.changed.get(&name);
            let unchanged = changed.is_some_and(|at| self.marks.is_unchanged(&name, *at));
            if unchanged && confirmed < as_of && !is_due(as_of) {
                source.broker.confirm_copy(&name, as_of);
                due.confirmed = true;
            } else {
                due.names.push(name);
            }
        }
        let listed = listed.names.iter().filter_map(|below| source.name_of(below));
        due.names.extend(listed.filter(|name| !here.contains(name)));
        Ok(due)
    }
}

/// What a turn has to do.
#[derive(Default)]
struct Due {
    /// What is asked for, in the order in which it is.
    names: Vec<SecretName>,
    /// When each secret was changed, where the list says that.
    changed: BTreeMap<SecretName, Timestamp>,
    /// Whether the list alone has confirmed anything.
    confirmed: bool,
}

/// Asks for the list; where there is none to be had, what is here is refreshed all the same.
fn list(source: &Source) -> Result<Page, UpstreamError> {
    match source.list() {
        Err(error)
            if matches!(error.fault, Fault::Denied | Fault::Invalid | Fault::Unsupported) =>
        {
            tracing::warn!(%error, "a backend does not list its names: nothing is prefetched");
            Ok(Page::default())
        }
        listed => listed,
    }
}
