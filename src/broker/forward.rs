//! Changes of secrets that another service keeps: decided and recorded here, done there, then made here.
//!
//! In that order, so that there is never a version here that the service does not have. What the service
//! refuses changes nothing. What it has done and could not be made here is fetched later as any other
//! change of its own.

use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use super::batch::{Batch, Line};
use super::change::{discard, find, find_trashed};
use super::gate::{Asked, Grant};
use super::record::SecretRecord;
use super::rotation::check_idle;
use super::trash::bring_back;
use super::upstream::{
    Expected, Fault, Forward, Over, Remote, RemoteVersion, Told, Upstream, UpstreamError,
};
use super::write::{add_version, check, new_record, note, random_id};
use super::writer::Company;
use super::{Broker, BrokerError, Inner, Kind, Put, Result};
use crate::audit::Action;
use crate::model::{Caller, Level, SecretId, SecretName, Version};
use crate::store::StoreError;
use crate::system::SecretBytes;

/// A change that was admitted and is not made yet.
struct Admitted {
    grant: Grant,
    over: Over,
}

impl Broker {
    /// Returns who keeps a name, if that is another service.
    pub(super) fn upstream_of(&self, name: &SecretName) -> Option<Arc<dyn Upstream>> {
        let upstream = self.inner.upstream.get()?;
        upstream.route(name).map(|_| Arc::clone(upstream))
    }

    /// Does as [`write_then`](Self::write_then) for a name that another service keeps.
    pub(super) fn forward_write(
        &self,
        upstream: Arc<dyn Upstream>,
        (caller, name): (&Caller, &SecretName),
        value: SecretBytes,
        put: &Put,
        done: impl FnOnce(Result<Version>) + Send + 'static,
    ) {
        let (caller, name, put) = (caller.clone(), name.clone(), put.clone());
        let value = Arc::new(value);
        let admit = {
            let (caller, name, put) = (caller.clone(), name.clone(), put.clone());
            move |batch: &mut Batch<'_>| admit_write(batch, &caller, &name, &put)
        };
        let broker = self.clone();
        self.inner.submit_then(Company::Shared, admit, move |admitted| {
            let Admitted { grant, over } = match admitted {
                Ok(admitted) => admitted,
                Err(err) => return done(Err(err)),
            };
            let exists = put.create_new.then(|| name.clone());
            let forward = Forward { value: Arc::clone(&value), over };
            let at = name.clone();
            let then = move |answer: std::result::Result<RemoteVersion, UpstreamError>| match answer
            {
                Ok(remote) => {
                    done(broker.make_forwarded((&caller, &name), value, (grant, remote)));
                }
                Err(err) => {
                    let is_there = exists.filter(|_| err.fault == Fault::Conflict);
                    let err = broker.not_forwarded(&caller, Action::Write, &name, err);
                    done(Err(is_there.map_or(err, BrokerError::Exists)));
                }
            };
            upstream.put(&at, forward, Box::new(then));
        });
    }

    /// Makes the version here that the service has by now. Returns once that is durable: until then nothing else is
    /// asked of the service about this secret.
    fn make_forwarded(
        &self,
        (caller, name): (&Caller, &SecretName),
        value: Arc<SecretBytes>,
        (grant, remote): (Grant, RemoteVersion),
    ) -> Result<Version> {
        let (caller, name) = (caller.clone(), name.clone());
        self.inner.submit(Company::Shared, move |batch| {
            let (id, mut record) = match batch.secret(&name)? {
                Some(existing) => existing,
                None => {
                    batch.check_place(&name)?;
                    (random_id()?, new_record(batch, caller.uid, &name, &value))
                }
            };
            check_idle(batch, id, &name)?;
            let version = add_version(batch, caller.uid, id, &mut record, &value, false)?;
            record.remote = Some(Remote { version: remote, confirmed: batch.now });
            note(batch, &caller, Action::Write, &name, version, &grant);
            batch.put_secret(id, record)?;
            Ok(version)
        })
    }

    /// Does as [`remove`](Self::remove).
    pub(super) fn forward_remove(
        &self,
        upstream: &dyn Upstream,
        caller: &Caller,
        name: &SecretName,
    ) -> Result<()> {
        let (by, at) = (caller.clone(), name.clone());
        self.inner.submit(Company::Shared, move |batch| {
            let asked = Asked { action: Action::Delete, name: &at, version: None };
            let (id, record, grant) = find(batch, &by, Level::Delete, asked)?;
            check_idle(batch, id, &at).map_err(|err| batch.inner.gate.failed(&by, asked, err))?;
            let version = record.history.current().map(|entry| entry.version);
            forward_line(batch, &by, &at, version, &grant, "to be deleted");
            Ok(())
        })?;
        let (by, at) = (caller.clone(), name.clone());
        let discard = move |batch: &mut Batch<'_>| {
            if batch.secret(&at)?.is_none() {
                // The refresh has seen already that it is gone.
                return Ok(());
            }
            let asked = Asked { action: Action::Delete, name: &at, version: None };
            let (id, record, grant) = find(batch, &by, Level::Delete, asked)?;
            discard(batch, &by, Action::Delete, id, record, &grant)
        };
        let asked = Asked { action: Action::Delete, name, version: None };
        self.once_changed(caller, asked, (Company::Shared, discard), |told| {
            upstream.remove(name, told);
        })
    }

    /// Does as [`restore`](Self::restore), to the name that the secret had.
    pub(super) fn forward_restore(
        &self,
        upstream: &dyn Upstream,
        caller: &Caller,
        (id, name): (SecretId, &SecretName),
    ) -> Result<()> {
        let (by, at) = (caller.clone(), name.clone());
        self.inner.submit(Company::Alone, move |batch| {
            let (record, grant) = find_trashed(batch, &by, Action::Restore, id)?;
            let attributes = record.metadata.attributes.clone();
            let asked = Asked { action: Action::Restore, name: &at, version: None };
            let _granted = batch.inner.gate.admit(&by, Level::Write, Some(&attributes), asked)?;
            match batch.kind_at(&at) {
                Some(Kind::Directory | Kind::Secret) => return Err(BrokerError::Exists(at)),
                None => batch.check_place(&at)?,
            }
            let version = record.history.current().map(|entry| entry.version);
            forward_line(batch, &by, &at, version, &grant, "to be restored");
            Ok(())
        })?;
        let (by, at) = (caller.clone(), name.clone());
        let bring_back = move |batch: &mut Batch<'_>| {
            // The refresh may have brought it back by itself.
            if batch.unlocked.index.read().trashed(id).is_none() && batch.secret(&at)?.is_some() {
                return Ok(());
            }
            bring_back(batch, &by, id, Some(&at))
        };
        let asked = Asked { action: Action::Restore, name, version: None };
        self.once_changed(caller, asked, (Company::Alone, bring_back), |told| {
            upstream.restore(name, told);
        })
    }

    /// Waits until a service has made a change, and the same is made here; `ask` is what asks the service.
    fn once_changed(
        &self,
        caller: &Caller,
        asked: Asked<'_>,
        (company, change): (Company, impl FnOnce(&mut Batch<'_>) -> Result<()> + Send + 'static),
        ask: impl FnOnce(Told<()>),
    ) -> Result<()> {
        let (done, outcome) = sync_channel(1);
        let broker = self.clone();
        ask(Box::new(move |answer| {
            let answer = answer.map(|()| broker.inner.submit(company, change));
            // Whoever waits is there, or has panicked.
            done.send(answer).unwrap_or_default();
        }));
        match outcome.recv() {
            Ok(Ok(changed)) => changed,
            Ok(Err(err)) => Err(self.inner.gate.failed(caller, asked, err.into())),
            Err(_) => Err(StoreError::Broken.into()),
        }
    }

    /// Where a secret that is to be brought back is kept by another service, or would be.
    pub(super) fn restored_elsewhere(
        &self,
        id: SecretId,
        to: Option<&SecretName>,
    ) -> Result<Option<(Arc<dyn Upstream>, SecretName)>> {
        let Some(upstream) = self.inner.upstream.get() else { return Ok(None) };
        let from = self.inner.unlocked()?.index.read().trashed(id).cloned();
        // Whether there is such a secret is for the operation to say.
        let Some(from) = from else { return Ok(None) };
        let to = to.unwrap_or(&from);
        match (upstream.route(&from), upstream.route(to)) {
            (None, None) => Ok(None),
            (Some(here), Some(there)) if here == there && *to == from => {
                Ok(Some((Arc::clone(upstream), from)))
            }
            (Some(here), Some(there)) if here == there => Err(cannot_rename()),
            _ => Err(BrokerError::OtherRoute(from)),
        }
    }

    /// Fails for a name that another service keeps, with what cannot be done there, once the caller may have it done.
    pub(super) fn check_kept_here(
        &self,
        caller: &Caller,
        level: Level,
        name: &SecretName,
        what: &str,
    ) -> Result<()> {
        if !self.is_routed(name) {
            return Ok(());
        }
        self.check(caller, level, name)?;
        Err(BrokerError::Unsupported(format!("{name} is kept by another service: {what}")))
    }

    fn not_forwarded(
        &self,
        caller: &Caller,
        action: Action,
        name: &SecretName,
        err: UpstreamError,
    ) -> BrokerError {
        let asked = Asked { action, name, version: None };
        self.inner.gate.failed(caller, asked, err.into())
    }
}

impl Inner {
    /// Fails where a rename would concern what another service keeps.
    pub(super) fn check_routes(&self, from: &SecretName, to: &SecretName) -> Result<()> {
        let Some(upstream) = self.upstream.get() else { return Ok(()) };
        if [from, to].into_iter().any(|path| upstream.leads_to_route(path)) {
            return Err(BrokerError::Busy("a route of the configuration begins there"));
        }
        match (upstream.route(from), upstream.route(to)) {
            (None, None) => Ok(()),
            (Some(here), Some(there)) if here == there => Err(cannot_rename()),
            _ => Err(BrokerError::OtherRoute(from.clone())),
        }
    }

    /// Fails where a directory is a route's.
    pub(super) fn check_no_route(&self, path: &SecretName) -> Result<()> {
        match self.upstream.get() {
            Some(upstream) if upstream.leads_to_route(path) => {
                Err(BrokerError::Busy("a route of the configuration begins there"))
            }
            Some(_) | None => Ok(()),
        }
    }
}

fn cannot_rename() -> BrokerError {
    BrokerError::Unsupported("another service keeps it, which cannot rename a secret".into())
}

/// Decides whether a version may be made, and writes that it is on its way.
fn admit_write(
    batch: &mut Batch<'_>,
    caller: &Caller,
    name: &SecretName,
    put: &Put,
) -> Result<Admitted> {
    let existing = batch.secret(name)?;
    let attributes = existing.as_ref().map(|(_, record)| &record.metadata.attributes);
    let asked = Asked { action: Action::Write, name, version: None };
    let gate = &batch.inner.gate;
    let grant = gate.admit(caller, Level::Write, attributes, asked)?;
    let checked = match put.stage {
        true => Err(BrokerError::Unsupported("another service keeps it: nothing is staged".into())),
        false => check(batch, (caller, name), existing.as_ref(), put),
    };
    checked.map_err(|err| gate.failed(caller, asked, err))?;
    let expects = put.expect.is_some() || put.create_new;
    let over = match existing {
        _ if !expects => Over::Anything,
        Some((_, SecretRecord { history, remote, .. })) => Over::Expected(Expected {
            version: history.current().map(|entry| entry.version),
            remote: remote.map(|remote| remote.version),
        }),
        None => Over::Expected(Expected::default()),
    };
    forward_line(batch, caller, name, None, &grant, "to be written");
    Ok(Admitted { grant, over })
}

fn forward_line(
    batch: &mut Batch<'_>,
    caller: &Caller,
    name: &SecretName,
    version: Option<Version>,
    grant: &Grant,
    what: &str,
) {
    batch.line(Line {
        action: Action::Forward,
        caller: Some(caller.clone()),
        name: Some(name.clone()),
        version,
        rule: Some(Arc::clone(&grant.rule)),
        reason: Some(what.into()),
        detail: None,
    });
}
