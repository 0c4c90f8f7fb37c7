//! What the rotation of a secret asks of another service that keeps it.
//!
//! Between staging and switch nothing of what the service has is taken in: its driver looks at it here, and says
//! what becomes of it.

use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use super::Subject;
use crate::broker::upstream::{
    Fault, Forward, Over, RemoteVersion, Seen, Told, Upstream, UpstreamError,
};
use crate::broker::{Broker, BrokerError, Put, Result};
use crate::model::{SecretName, Version};
use crate::store::StoreError;
use crate::system::SecretBytes;

/// What a service has of a secret whose next value is staged here.
#[derive(Debug)]
pub enum There {
    /// The value that is current here. `can_settle`: what is put after it keeps out what was sent before, and may
    /// still be on its way.
    Current { version: RemoteVersion, can_settle: bool },
    /// None, or none that can be kept here.
    Nothing,
    /// The value that is staged here.
    Staged(RemoteVersion),
    /// A value that somebody else has made.
    Theirs(RemoteVersion, SecretBytes),
}

impl Broker {
    /// Has what the service has of a secret become the current version here. Errors: `Upstream`, `Sealed`.
    pub fn renew(&self, name: &SecretName) -> Result<()> {
        self.ask_upstream(name, |upstream, done| upstream.renew(name, done))
    }

    /// Finds out what the service has of a secret of which `staged` is a staged version.
    ///
    /// Errors: `Upstream`, `Damaged`, `Sealed`, `Store`.
    pub fn look_there(&self, secret: &Subject, staged: Version) -> Result<There> {
        let name = &secret.name;
        let seen = self.ask_upstream(name, |upstream, done| upstream.look(name, done));
        let Seen { version, value, compares } = match seen {
            Err(BrokerError::Upstream(error)) if error.fault == Fault::NotFound => {
                return Ok(There::Nothing);
            }
            seen => seen?,
        };
        let is_version = |version| {
            let here = self.value_of(secret, version)?;
            Ok::<_, BrokerError>(here.constant_time_eq(&value))
        };
        if is_version(staged)? {
            return Ok(There::Staged(version));
        }
        if is_version(secret.current)? {
            let can_settle = compares && self.remote_version(name).as_ref() == Some(&version);
            return Ok(There::Current { version, can_settle });
        }
        let fits =
            self.check_size(value.len() as u64, &Put { allow_empty: true, ..Put::default() });
        Ok(if fits.is_ok() { There::Theirs(version, value) } else { There::Nothing })
    }

    /// Has the service keep the value of a version, after the one that was seen there. That it goes there is on record
    /// before, by [`Change::Forward`](super::Change::Forward). Errors: `Upstream`, `Damaged`, `Sealed`, `Store`.
    pub fn put_there(
        &self,
        secret: &Subject,
        version: Version,
        over: RemoteVersion,
    ) -> Result<RemoteVersion> {
        let value = Arc::new(self.value_of(secret, version)?);
        let forward = Forward { value, over: Over::Seen(over) };
        self.ask_upstream(&secret.name, |upstream, done| upstream.put(&secret.name, forward, done))
    }

    fn value_of(&self, secret: &Subject, version: Version) -> Result<SecretBytes> {
        self.inner.open_value(&*self.inner.unlocked()?, secret.id, version)
    }

    /// Asks who keeps a secret, and waits for the answer: that comes by the route's deadline.
    fn ask_upstream<T: Send + 'static>(
        &self,
        name: &SecretName,
        ask: impl FnOnce(&dyn Upstream, Told<T>),
    ) -> Result<T> {
        let kept_here = || BrokerError::Invalid(format!("{name} is kept by no other service"));
        let upstream = self.upstream_of(name).ok_or_else(kept_here)?;
        let (done, answer) = sync_channel::<std::result::Result<T, UpstreamError>>(1);
        // Whoever waits is there, or has panicked.
        ask(&*upstream, Box::new(move |told| done.send(told).unwrap_or_default()));
        Ok(answer.recv().map_err(|_| StoreError::Broken)??)
    }
}
