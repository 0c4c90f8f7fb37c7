//! What is asked of a service, and what its answers are here.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Source, between};
use crate::backend::{self, Backend, BackendError, Deadline, Fetched, PageToken, VersionId, Which};
use crate::broker::{Arrival, BrokerError, Fault, RemoteVersion, TakenIn, UpstreamError};
use crate::model::{SecretName, Timestamp, Uid};
use crate::route::breaker::{Change, Lesson, jitter};
use crate::route::fault;
use crate::route::verdict::{REMEMBERED, Verdict};

/// A list that is longer has no end.
const MOST_NAMES: usize = 1_000_000;

impl Source {
    /// Finds out what stands at a name, so that it can be said.
    pub(super) fn resolve(&self, name: &SecretName) -> Result<(), UpstreamError> {
        let outcome = self.fetch_now(name);
        match &outcome {
            Ok(()) => self.verdicts.lock().forget(name),
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
    pub(super) fn remote(&self, id: VersionId, created: Option<Timestamp>) -> RemoteVersion {
        let version = match created {
            Some(created) => format!("{} {created}", id.0),
            None => id.0,
        };
        RemoteVersion { backend: (&*self.backend).into(), version: version.into() }
    }

    /// Asks for all names. What is no directory here any more is none from then on.
    pub(in crate::route) fn list(&self) -> Result<Vec<String>, UpstreamError> {
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
    pub(super) fn ask<T>(
        &self,
        call: impl FnOnce(&dyn Backend, Deadline) -> backend::Result<T>,
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

    pub(super) fn remember(&self, name: &SecretName, verdict: Verdict, time: Duration) {
        self.verdicts.lock().remember(name, verdict, (self.clock.now(), time));
    }
}

/// Tells whether the service accepts nothing from us: it is no use to ask for one secret after the other.
fn is_unaccepted(failure: &BackendError) -> bool {
    matches!(failure, BackendError::Unauthenticated(_))
}
