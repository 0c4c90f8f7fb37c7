//! What is changed at a service: put, removed and brought back there.

use super::Source;
use crate::backend::{BackendError, Expect, Put, Version, VersionId};
use crate::broker::{Fault, Forward, RemoteVersion, UpstreamError};
use crate::model::SecretName;
use crate::route::fault;
use crate::route::verdict::Verdict;

impl Source {
    pub(super) fn put_now(
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
        self.verdicts.lock().forget(name);
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
    pub(in crate::route) fn remove(&self, name: &SecretName) -> Result<(), UpstreamError> {
        match self.ask(|client, deadline| client.delete(self.below(name), deadline)) {
            // That is what was wanted.
            Err(error) if error.fault == Fault::NotFound => {}
            outcome => outcome?,
        }
        self.remember(name, Verdict::NotThere, self.cache.negative);
        Ok(())
    }

    /// See [`Upstream::restore`](crate::broker::Upstream::restore).
    pub(in crate::route) fn restore(&self, name: &SecretName) -> Result<(), UpstreamError> {
        if !self.client.abilities().restore {
            let error = BackendError::Unsupported("what was deleted does not come back".into());
            return Err(fault::of_service(&self.backend, &error));
        }
        self.ask(|client, deadline| client.restore(self.below(name), deadline))?;
        self.verdicts.lock().forget(name);
        Ok(())
    }
}

/// Returns the service's own name of a version, as [`Source::remote`] has put it before the time.
fn id_in(named: &str) -> VersionId {
    VersionId(named.split(' ').next().unwrap_or(named).to_owned())
}
