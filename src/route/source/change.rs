//! What is changed at a service: put, removed and brought back there; and what is asked on the way to it.
//!
//! A change has one deadline, which begins when it is asked for: whoever waits for it hears what came of it, and
//! one that has waited for its turn for too long is not made at all.

use std::sync::Arc;

use super::Source;
use crate::backend::{BackendError, Deadline, Expect, Fetched, Put, Version, VersionId};
use crate::broker::{Expected, Fault, Forward, Over, RemoteVersion, Seen, Told, UpstreamError};
use crate::model::SecretName;
use crate::route::fault;
use crate::route::verdict::Verdict;

impl Source {
    /// See [`Upstream::put`](crate::broker::Upstream::put).
    pub(in crate::route) fn put(
        self: &Arc<Self>,
        name: &SecretName,
        forward: Forward,
        done: Told<RemoteVersion>,
    ) {
        self.change_then(name, done, move |source, name, until| {
            source.put_now(name, &forward, until)
        });
    }

    /// See [`Upstream::remove`](crate::broker::Upstream::remove).
    pub(in crate::route) fn remove(self: &Arc<Self>, name: &SecretName, done: Told<()>) {
        self.change_then(name, done, Self::remove_now);
    }

    /// See [`Upstream::restore`](crate::broker::Upstream::restore).
    pub(in crate::route) fn restore(self: &Arc<Self>, name: &SecretName, done: Told<()>) {
        self.change_then(name, done, Self::restore_now);
    }

    /// See [`Upstream::renew`](crate::broker::Upstream::renew).
    pub(in crate::route) fn renew(self: &Arc<Self>, name: &SecretName, done: Told<()>) {
        self.change_then(name, done, Self::fetch_now);
    }

    /// See [`Upstream::look`](crate::broker::Upstream::look).
    pub(in crate::route) fn look(self: &Arc<Self>, name: &SecretName, done: Told<Seen>) {
        self.change_then(name, done, |source, name, until| {
            let Fetched { version, value, created, .. } = source.get(name, until)?;
            let compares = source.able(until)?.compare_and_set;
            let version = RemoteVersion::new(&source.backend, version.0, created);
            Ok(Seen { version, value, compares })
        });
    }

    /// Makes a change when it is its turn, and has the turn last until it is made here too.
    fn change_then<T: 'static>(
        self: &Arc<Self>,
        name: &SecretName,
        done: Told<T>,
        change: impl FnOnce(&Self, &SecretName, Deadline) -> Result<T, UpstreamError> + Send + 'static,
    ) {
        let (at, until) = (name.clone(), self.soon());
        let turn = move |source: Result<&Self, UpstreamError>| {
            done(source.and_then(|source| change(source, &at, until)));
        };
        self.change(name, Box::new(turn));
    }

    fn put_now(
        &self,
        name: &SecretName,
        forward: &Forward,
        until: Deadline,
    ) -> Result<RemoteVersion, UpstreamError> {
        let compares = self.able(until)?.compare_and_set;
        let known = match &forward.over {
            // As of now: another change has come before this one, maybe.
            Over::Anything => self.broker.remote_version(name),
            Over::Expected(expected) => {
                if !compares {
                    self.look_first(name, expected, until)?;
                }
                expected.remote.clone()
            }
            Over::Seen(version) => Some(version.clone()),
        };
        let known = known.filter(|known| *known.backend == *self.backend).map(|known| known.id);
        let put_after = |known: Option<Box<str>>| {
            let after = known.map_or(Expect::Absent, |id| Expect::Version(VersionId(id.into())));
            let put = Put {
                expect: compares.then_some(after),
                binary: std::str::from_utf8(forward.value.expose()).is_err(),
                expires: None,
            };
            self.ask(until, |client, deadline| {
                client.put(self.below(name), &forward.value, &put, deadline)
            })
        };
        let made = match (put_after(known), &forward.over) {
            (Err(conflict), Over::Anything | Over::Expected(_))
                if conflict.fault == Fault::Conflict =>
            {
                put_after(self.next_after(conflict, (name, &forward.over), until)?)
            }
            (made, _) => made,
        };
        let Version { id, created, .. } = made?;
        self.verdicts.lock().forget(name);
        Ok(RemoteVersion::new(&self.backend, id.0, created))
    }

    /// Returns after which version a value is put, where the service has another one than was known; fails with the
    /// conflict where the writer has expected that one.
    ///
    /// What is there is fetched in either case: whoever expected the one before looks at it next, and whoever
    /// did not loses nothing of it.
    fn next_after(
        &self,
        conflict: UpstreamError,
        (name, over): (&SecretName, &Over),
        until: Deadline,
    ) -> Result<Option<Box<str>>, UpstreamError> {
        let expected = match over {
            Over::Expected(expected) => Some(expected),
            Over::Anything | Over::Seen(_) => None,
        };
        let (next, is_as_expected) = match self.fetch_now(name, until) {
            Ok(()) => (self.broker.remote_version(name).map(|now| now.id), false),
            Err(error) if error.fault == Fault::NotFound => {
                // One that was deleted there still counts as the version to come after.
                let deleted = self.deleted_version(name, until)?;
                let was_none = expected.is_some_and(|expected| expected.remote.is_none());
                let is_as_expected = was_none && deleted.is_some();
                (deleted, is_as_expected)
            }
            Err(error) => return Err(error),
        };
        if expected.is_none() || is_as_expected { Ok(next) } else { Err(conflict) }
    }

    /// Fails where something else is there than the writer expects. It is the nearest there is to comparing, where
    /// the service does not: what comes between this and the put is lost.
    fn look_first(
        &self,
        name: &SecretName,
        expected: &Expected,
        until: Deadline,
    ) -> Result<(), UpstreamError> {
        match self.fetch_now(name, until) {
            Err(error) if error.fault != Fault::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        if self.broker.current_version(name) == expected.version {
            return Ok(());
        }
        Err(fault::of_service(&self.backend, &BackendError::Conflict))
    }

    /// Returns the last version of a secret that is deleted there and can come back.
    fn deleted_version(
        &self,
        name: &SecretName,
        until: Deadline,
    ) -> Result<Option<Box<str>>, UpstreamError> {
        match self.ask(until, |client, deadline| client.describe(self.below(name), deadline)) {
            Ok(found) => Ok(found.current.filter(|_| found.deleted).map(|id| id.0.into())),
            Err(error) if error.fault == Fault::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn remove_now(&self, name: &SecretName, until: Deadline) -> Result<(), UpstreamError> {
        match self.ask(until, |client, deadline| client.delete(self.below(name), deadline)) {
            // That is what was wanted.
            Err(error) if error.fault == Fault::NotFound => {}
            outcome => outcome?,
        }
        self.remember(name, Verdict::NotThere, self.cache.negative);
        Ok(())
    }

    fn restore_now(&self, name: &SecretName, until: Deadline) -> Result<(), UpstreamError> {
        if !self.able(until)?.restore {
            let error = BackendError::Unsupported("what was deleted does not come back".into());
            return Err(fault::of_service(&self.backend, &error));
        }
        self.ask(until, |client, deadline| client.restore(self.below(name), deadline))?;
        self.verdicts.lock().forget(name);
        Ok(())
    }
}
