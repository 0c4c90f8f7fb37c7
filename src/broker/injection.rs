//! Values for files that the daemon keeps for programs, as `injections.toml` says.
//!
//! No caller asks for them: the configuration does, and whoever can write that file decides. Each value that
//! leaves is on record before it does.

use std::collections::BTreeMap;

use super::read::Chosen;
use super::{Broker, BrokerError, Opened, Result, Which};
use crate::audit::{Action, Event, Outcome};
use crate::model::{SecretName, Status, Version};

impl Broker {
    /// Returns the current versions of the secrets whose names are wanted; those whose value is not to be had,
    /// because they are revoked or refused as expired, are not among them. Errors: `Sealed`.
    pub fn current_versions(
        &self,
        wanted: &dyn Fn(&SecretName) -> bool,
    ) -> Result<BTreeMap<SecretName, Version>> {
        let inner = &*self.inner;
        let unlocked = inner.unlocked()?;
        let (index, now) = (unlocked.index.read(), inner.gate.now());
        let mut found = BTreeMap::new();
        let Some(root) = index.folder(None) else { return Ok(found) };
        root.each_secret(&mut String::new(), &mut |name, entry| {
            let Ok(name) = name.parse::<SecretName>() else { return };
            if wanted(&name) && self.is_to_be_had(entry.status_at(now)) {
                found.insert(name, entry.version);
            }
        });
        Ok(found)
    }

    /// Tells whether there is a directory of that name. Errors: `Sealed`.
    pub fn has_directory(&self, name: &SecretName) -> Result<bool> {
        Ok(self.inner.unlocked()?.index.read().folder(Some(name)).is_some())
    }

    /// Reads the current value for a file that is kept; `what` is the reason on record.
    ///
    /// Errors: `NotFound`, `Revoked`, `Expired`, `Changing`, `Sealed`, `Audit`, `Store`.
    pub fn read_for_injection(&self, name: &SecretName, what: &str) -> Result<Opened> {
        let inner = &*self.inner;
        let unlocked = inner.unlocked()?;
        let now = inner.gate.now();
        let Chosen { id, version, status } = inner.choose(&unlocked, name, Which::Current, now)?;
        if !self.is_to_be_had(status) {
            return Err(match status {
                Status::Expired => BrokerError::Expired(name.clone()),
                Status::Active | Status::PendingDeletion | Status::Revoked | Status::Rotating => {
                    BrokerError::Revoked(name.clone())
                }
            });
        }
        inner.holds.check(id, name)?;
        inner.gate.record(&Event {
            secret: Some(name),
            version: Some(version),
            reason: Some(what),
            ..Event::new(Action::Read, Outcome::Allowed)
        })?;
        let value = inner.open_value(&unlocked, id, version)?;
        Ok(Opened { id, value, version })
    }

    fn is_to_be_had(&self, status: Status) -> bool {
        match status {
            Status::Active | Status::PendingDeletion | Status::Rotating => true,
            Status::Expired => !self.inner.limits.refuse_expired,
            Status::Revoked => false,
        }
    }
}
