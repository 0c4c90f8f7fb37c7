//! What is asked of a service, and what its answers are here.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Source;
use crate::backend::{self, Abilities, Backend, BackendError, Deadline, Fetched, Page, Which};
use crate::broker::{Arrival, BrokerError, Fault, RemoteVersion, TakenIn, UpstreamError};
use crate::model::{SecretName, Uid};
use crate::route::breaker::{Change, Lesson, jitter};
use crate::route::fault;
use crate::route::names::Listing;
use crate::route::verdict::{REMEMBERED, Verdict};

/// A list that has more names has no end.
const MOST_NAMES: usize = 1_000_000;
/// So many pages have as many names at the service that gives the fewest, 25 at a time.
const MOST_PAGES: usize = MOST_NAMES / 25;

impl Source {
    /// Fetches a secret and keeps what comes.
    pub(super) fn fetch_now(
        &self,
        name: &SecretName,
        until: Deadline,
    ) -> Result<(), UpstreamError> {
        let before = self.broker.remote_version(name);
        let known = before.filter(|before| *before.backend == *self.backend);
        match self.get(name, until) {
            Ok(fetched) => self.take_in(name, fetched, known),
            Err(error) => {
                if let (Fault::NotFound, Some(known)) = (error.fault, &known)
                    && let Err(error) = self.broker.note_gone(name, known)
                {
                    tracing::warn!(%name, %error, "a secret that is gone could not be removed");
                }
                Err(error)
            }
        }
    }

    /// Asks for a secret, of which nothing is kept.
    pub(super) fn get(&self, name: &SecretName, until: Deadline) -> Result<Fetched, UpstreamError> {
        self.ask(until, |client, deadline| client.get(self.below(name), &Which::Current, deadline))
    }

    fn take_in(
        &self,
        name: &SecretName,
        fetched: Fetched,
        known: Option<RemoteVersion>,
    ) -> Result<(), UpstreamError> {
        let Fetched { version, value, created, expires } = fetched;
        let arrival = Arrival {
            version: RemoteVersion::new(&self.backend, version.0, created),
            told_apart: self.abilities.get().is_some_and(|abilities| abilities.versions),
            value,
            known,
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
                if matches!(error, BrokerError::Rotating(_)) {
                    // Its rotation looks at it before it ends.
                    tracing::debug!(%name, "a version waits for the end of a rotation");
                } else {
                    tracing::warn!(%name, %error, "what a backend has answered is not kept");
                }
                Err(fault::of_store(&self.backend, &error))
            }
        }
    }

    /// Asks for all names, and notes which directories there are, or why that is not known.
    pub(in crate::route) fn list(&self) -> Result<Page, UpstreamError> {
        let listed = self.ask_pages();
        let mut directories = self.directories.lock();
        match &listed {
            Ok(all) => directories.replace(&all.names, self.uptime() + self.cache.negative),
            Err(error) => {
                let is_refused = matches!(error.fault, Fault::Denied | Fault::Unsupported);
                let listing =
                    if is_refused { Listing::Refused } else { Listing::Failed(error.clone()) };
                directories.fail(listing, self.uptime() + self.remembered(error));
            }
        }
        listed
    }

    /// Asks for all pages, and returns them as one.
    fn ask_pages(&self) -> Result<Page, UpstreamError> {
        let mut all = Page::default();
        for _ in 0..MOST_PAGES {
            let next = all.next.as_ref();
            let page = self.ask(self.soon(), |client, deadline| client.list(next, deadline))?;
            let is_stuck = page.next.is_some() && page.next == all.next;
            all.names.extend(page.names);
            all.changed.extend(page.changed);
            (all.behind, all.next) = (page.behind, page.next);
            if all.next.is_none() {
                return Ok(all);
            }
            if is_stuck || all.names.len() > MOST_NAMES {
                break;
            }
        }
        let error = BackendError::Invalid("its list has no end".into());
        Err(fault::of_service(&self.backend, &error))
    }

    /// Returns what the service can do, which may have to be asked for first.
    pub(super) fn able(&self, until: Deadline) -> Result<Abilities, UpstreamError> {
        if let Some(abilities) = self.abilities.get() {
            return Ok(*abilities);
        }
        let abilities = self.client.abilities(until);
        let abilities = abilities.map_err(|error| fault::of_service(&self.backend, &error))?;
        Ok(*self.abilities.get_or_init(|| abilities))
    }

    /// Makes one request, unless the service is left alone.
    pub(super) fn ask<T>(
        &self,
        until: Deadline,
        call: impl FnOnce(&dyn Backend, Deadline) -> backend::Result<T>,
    ) -> Result<T, UpstreamError> {
        let of_service = |error: &BackendError| fault::of_service(&self.backend, error);
        // What has waited here for too long is no failure of the service's.
        until.left().map_err(|error| of_service(&error))?;
        self.breaker.lock().admit(self.uptime())?;
        self.counts.requests.fetch_add(1, Ordering::Relaxed);
        let answer = call(&*self.client, until);
        if answer.is_ok() {
            // Whoever has answered says this at once.
            drop(self.able(until));
        }
        let lesson = match &answer {
            Ok(_)
            | Err(BackendError::Conflict | BackendError::Denied(_) | BackendError::NotFound) => {
                Lesson::Answered
            }
            // Mostly it was not even sent.
            Err(BackendError::Invalid(_) | BackendError::NoName | BackendError::Unsupported(_)) => {
                Lesson::Nothing
            }
            Err(error @ BackendError::Throttled { retry_after }) => {
                Lesson::Throttled(of_service(error), *retry_after)
            }
            // Where no credential is accepted, it is no use to ask for one secret after the other.
            Err(
                error @ (BackendError::Failed(_)
                | BackendError::TimedOut
                | BackendError::Unauthenticated(_)
                | BackendError::Unreachable(_)),
            ) => Lesson::Failed(of_service(error)),
        };
        self.learn(lesson);
        answer.map_err(|error| of_service(&error))
    }

    fn learn(&self, lesson: Lesson) {
        let why = match &lesson {
            Lesson::Answered | Lesson::Nothing => None,
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

    /// Returns when a request ends that begins now.
    pub(super) fn soon(&self) -> Deadline {
        Deadline::within(self.cache.timeout)
    }

    /// Returns for how long a failure is remembered.
    pub(super) fn remembered(&self, error: &UpstreamError) -> Duration {
        match error.fault {
            Fault::Conflict | Fault::TimedOut | Fault::Unreachable => REMEMBERED,
            // It does not change by itself.
            Fault::Denied
            | Fault::Invalid
            | Fault::NotFound
            | Fault::Unaccepted
            | Fault::Unsupported => self.cache.negative,
        }
    }

    pub(super) fn remember(&self, name: &SecretName, verdict: Verdict, time: Duration) {
        let now = self.uptime();
        self.verdicts.lock().remember(name, verdict, (now, now + time));
    }

    /// Remembers that there is no such secret; where nothing can be listed it is a directory then.
    pub(super) fn note_absent(&self, name: &SecretName) {
        let mut directories = self.directories.lock();
        if matches!(directories.listing(self.uptime()), Some(Listing::Refused)) {
            directories.presume(self.below(name));
        }
        drop(directories);
        self.remember(name, Verdict::NotThere, self.cache.negative);
    }
}
