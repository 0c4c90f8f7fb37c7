//! Questions about the tree: no value is decrypted, and only refusals are recorded.
//!
//! What a caller is told depends on the policy first: a name on which the caller has no right is
//! refused the same way whether it exists or not.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::gate::{Asked, Sight};
use super::index::{At, Entry, Node};
use super::record::SecretRecord;
use super::upstream::{Held, Unknown};
use super::{
    Broker, BrokerError, Description, Directory, Facet, Found, Inner, Known, Listed, Result,
    Secret, Unlocked, VersionSummary, Which,
};
use crate::audit::Action;
use crate::model::{Attributes, Caller, Injection, Inode, Level, Levels, SecretName, Timestamp};
use crate::policy::Target;

impl Broker {
    /// Returns what stands at `path`. Errors: `Denied` (recorded) when no rule of the caller
    /// matches, whether it exists or not; `NotFound`; `Verifying`; `Sealed`.
    pub fn look(&self, caller: &Caller, path: &SecretName) -> Result<Found> {
        let inner = &*self.inner;
        let sight = inner.gate.sight(caller);
        let asked = Asked { action: Action::Check, name: path, version: None };
        let refuse = || inner.gate.refuse(caller, asked, None, "no rule matches");
        let named = sight.levels_by_name(path);
        if named.is_empty() && !sight.by_attributes && !sight.may_enter(path) {
            return Err(refuse());
        }
        let unlocked = inner.unlocked()?;
        let index = unlocked.index.read();
        let absent = || inner.verdict.absent(BrokerError::NotFound(path.clone()));
        match index.at(path) {
            At::Secret(entry) => {
                let levels = if sight.by_attributes { sight.levels(path, entry) } else { named };
                if !levels.is_empty() {
                    return Ok(Found::Secret(entry.shown(levels, sight.now())));
                }
                // Whoever may pass through a directory of this name would be told that it is not
                // there; that a secret is there instead must look the same.
                if sight.may_enter(path) { Err(absent()) } else { Err(refuse()) }
            }
            At::Folder(folder) if sight.knows_folder(path, folder) => {
                Ok(Found::Directory(Directory {
                    inode: unlocked.keyring.load().inode(path.as_str()),
                    may_write: sight.may_write_below(Some(path)),
                }))
            }
            At::Folder(_) | At::Nothing if named.is_empty() && !sight.may_enter(path) => {
                Err(refuse())
            }
            At::Folder(_) => Err(absent()),
            At::Nothing => match inner.look_elsewhere(path, named, sight.now())? {
                Unknown::Directory if !sight.may_enter(path) => Err(absent()),
                Unknown::Directory => Ok(Found::Directory(Directory {
                    inode: unlocked.keyring.load().inode(path.as_str()),
                    may_write: sight.may_write_below(Some(path)),
                })),
                Unknown::Nothing => Err(absent()),
            },
        }
    }

    /// Returns what stands at `path`, without levels; asks no policy and records nothing. For the
    /// filesystem's own toucher, which is no caller.
    pub fn presence(&self, path: &SecretName) -> Result<Found> {
        let unlocked = self.inner.unlocked()?;
        let index = unlocked.index.read();
        match index.at(path) {
            At::Secret(entry) => {
                Ok(Found::Secret(entry.shown(Levels::NONE, self.inner.gate.now())))
            }
            At::Folder(_) => Ok(Found::Directory(Directory {
                inode: unlocked.keyring.load().inode(path.as_str()),
                may_write: false,
            })),
            At::Nothing => Err(BrokerError::NotFound(path.clone())),
        }
    }

    /// Tells whether the caller could write some name at all. Not recorded.
    pub fn may_write_below_root(&self, caller: &Caller) -> bool {
        self.inner.gate.sight(caller).may_write_below(None)
    }

    /// Returns up to `max` entries of a directory (`None` is the root) that the caller may know
    /// of, in name order, after the segment `after`.
    pub fn list(
        &self,
        caller: &Caller,
        directory: Option<&SecretName>,
        after: Option<&str>,
        max: usize,
    ) -> Result<Vec<Listed>> {
        let inner = &*self.inner;
        let sight = inner.gate.sight(caller);
        let unlocked = inner.unlocked()?;
        let index = unlocked.index.read();
        let folder = match (index.folder(directory), directory) {
            (Some(folder), _) => folder,
            (None, None) => return Err(BrokerError::Sealed),
            // Nothing of what a service has below it was asked for yet.
            (None, Some(path)) if inner.is_directory_elsewhere(&index.at(path), path) => {
                return Ok(Vec::new());
            }
            (None, Some(path)) => return Err(BrokerError::NotFound(path.clone())),
        };
        let keyring = unlocked.keyring.load();
        let known = folder.after(after).filter_map(|(segment, node)| {
            let path = SecretName::join(directory, segment).ok()?;
            let inode = match node {
                Node::Secret(entry) => {
                    (!sight.levels(&path, entry).is_empty()).then_some(entry.inode)
                }
                Node::Folder(below) => {
                    sight.knows_folder(&path, below).then(|| keyring.inode(path.as_str()))
                }
            }?;
            let injection = match node {
                Node::Folder(_) => Injection::default(),
                Node::Secret(entry) => entry.injection(),
            };
            Some(Listed { segment: segment.into(), kind: node.kind(), inode, injection })
        });
        Ok(known.take(max).collect())
    }

    /// Returns the values of a facet among the secrets that the caller may know of, sorted.
    pub fn facet_values(&self, caller: &Caller, facet: Facet) -> Result<Vec<Box<str>>> {
        let mut values = BTreeSet::new();
        let now = self.inner.gate.now();
        self.each_known(caller, None, &mut |_, entry, _| values.extend(facet.values(entry, now)))?;
        Ok(values.into_iter().collect())
    }

    /// Returns the names of the secrets with that value of a facet that the caller may know of, sorted.
    pub fn facet_members(
        &self,
        caller: &Caller,
        facet: Facet,
        value: &str,
    ) -> Result<Vec<SecretName>> {
        let mut members = Vec::new();
        let now = self.inner.gate.now();
        self.each_known(caller, None, &mut |name, entry, _| {
            if facet.values(entry, now).iter().any(|found| **found == *value) {
                members.push(name.clone());
            }
        })?;
        Ok(members)
    }

    /// Returns the secrets below a directory (`None`: all) that the caller may know of, by name. A
    /// directory that is not there has none. Errors: `Verifying`, for until then some may be missing.
    pub fn known(&self, caller: &Caller, directory: Option<&SecretName>) -> Result<Vec<Known>> {
        let _unlocked = self.inner.unlocked()?;
        self.inner.verdict.check()?;
        let mut found = Vec::new();
        self.each_known(caller, directory, &mut |name, entry, levels| {
            found.push(Known { name: name.clone(), levels, injection: entry.injection() });
        })?;
        Ok(found)
    }

    /// Tells whether the caller has a right on any name there could be. Not recorded.
    pub fn has_any_right(&self, caller: &Caller) -> bool {
        self.inner.gate.sight(caller).may_know_any()
    }

    /// Returns everything but values and versions. Needs any level on the name.
    pub fn describe(&self, caller: &Caller, name: &SecretName) -> Result<Description> {
        let (secret, unlocked) = (self.look_at_secret(caller, name)?, self.inner.unlocked()?);
        let record = self.inner.secret_record(&unlocked, secret.id)?;
        Ok(self.description(&unlocked, name, (secret, record)))
    }

    fn description(
        &self,
        unlocked: &Unlocked,
        name: &SecretName,
        (secret, record): (Secret, SecretRecord),
    ) -> Description {
        let copy = secret_copy(unlocked, name);
        let now = self.inner.gate.now();
        let stale = self
            .inner
            .upstream
            .get()
            .zip(copy.as_deref())
            .and_then(|(upstream, held)| upstream.stale_for(name, held.copy(), now));
        let fingerprint =
            record.history.current().map(|entry| entry.fingerprint).unwrap_or_default();
        Description {
            secret,
            metadata: record.metadata,
            stale,
            fingerprint: fingerprint.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }

    /// Does so with every version that there ever was, oldest first, as of the same time.
    pub fn history(
        &self,
        caller: &Caller,
        name: &SecretName,
    ) -> Result<(Description, Vec<VersionSummary>)> {
        let (secret, unlocked) = (self.look_at_secret(caller, name)?, self.inner.unlocked()?);
        let (record, versions) = self.inner.every_version(&unlocked, secret.id)?;
        let versions = versions.iter().map(VersionSummary::of).collect();
        Ok((self.description(&unlocked, name, (secret, record)), versions))
    }

    /// Returns one version whose value still exists, and its secret. Needs any level on the name.
    pub fn version(
        &self,
        caller: &Caller,
        name: &SecretName,
        which: Which,
    ) -> Result<(Secret, VersionSummary)> {
        let (secret, unlocked) = (self.look_at_secret(caller, name)?, self.inner.unlocked()?);
        let version = self.inner.find_version(&unlocked, secret.id, which)?;
        let version = version.ok_or_else(|| BrokerError::NotFound(name.clone()))?;
        Ok((secret, VersionSummary::of(&version)))
    }

    fn look_at_secret(&self, caller: &Caller, name: &SecretName) -> Result<Secret> {
        match self.look(caller, name)? {
            Found::Secret(secret) => Ok(secret),
            Found::Directory(_) => Err(BrokerError::IsDirectory(name.clone())),
        }
    }

    /// Returns what `caller` may do with `name` and which rule says so, as JSON. It says nothing of
    /// whether the name exists to a caller without any right on it.
    pub fn explain(&self, caller: &Caller, name: &SecretName) -> Result<serde_json::Value> {
        let attributes = self.inner.attributes_for(&self.inner.gate.sight(caller), name);
        let target = Target::Secret { name, attributes: attributes.as_ref() };
        let mut explanation = self.inner.gate.explain(caller, target);
        // What the others' bindings ask for is for admins; what decided is for its caller.
        if !self.inner.gate.is_admin(caller) {
            explanation.bindings.clear();
        }
        let mut shown = serde_json::to_value(explanation).map_err(|err| {
            BrokerError::Invalid(format!("the explanation cannot be shown: {err}"))
        })?;
        // Who keeps a name is in the configuration: it says nothing of whether there is such a secret.
        if let Some(backend) = self.inner.upstream.get().and_then(|upstream| upstream.explain(name))
            && let Some(shown) = shown.as_object_mut()
        {
            shown.insert("backend".into(), backend);
        }
        Ok(shown)
    }

    /// Returns the levels that the caller has on a name, whether it exists or not. Not recorded.
    pub fn levels(&self, caller: &Caller, name: &SecretName) -> Levels {
        let sight = self.inner.gate.sight(caller);
        if sight.by_attributes
            && let Some(unlocked) = self.inner.unlocked.load().as_deref()
            && let Some(entry) = unlocked.index.read().secret(name)
        {
            return sight.levels(name, entry);
        }
        sight.levels_by_name(name)
    }

    /// Tells whether the caller may know of a name: has any level on it. Not recorded.
    pub fn may_know(&self, caller: &Caller, name: &SecretName) -> bool {
        !self.levels(caller, name).is_empty()
    }

    /// Tells whether a secret is a decoy. It is for the daemon's own use, and not known while sealed.
    pub fn is_decoy(&self, name: &SecretName) -> bool {
        let Ok(unlocked) = self.inner.unlocked() else { return false };
        unlocked.index.read().secret(name).is_some_and(Entry::is_decoy)
    }

    /// Checks a level on a name; a refusal is recorded, a consent is not.
    pub fn check(&self, caller: &Caller, level: Level, name: &SecretName) -> Result<()> {
        let sight = self.inner.gate.sight(caller);
        let attributes = self.inner.attributes_for(&sight, name);
        let asked = Asked { action: Action::Check, name, version: None };
        self.inner.gate.admit_by(&sight, level, attributes.as_ref(), asked).map(drop)
    }

    /// Returns the inode number of any path of the tree, virtual ones included. Never 0 or 1.
    ///
    /// Names of secrets are hashed with the store's key, so a number is the same for the life of
    /// the store and tells nothing of other names. Dot-led paths are the filesystem's own, are
    /// needed while the store is sealed too, and hide nothing.
    pub fn inode(&self, path: &str) -> Inode {
        match self.inner.unlocked.load().as_deref() {
            Some(unlocked) if !path.starts_with('.') => unlocked.keyring.load().inode(path),
            _ => super::public_inode(path),
        }
    }

    /// Waits until the record set is verified, so that "not found" is the truth.
    pub fn wait_verified(&self, at_most: Duration) -> Result<()> {
        self.inner.verdict.wait(at_most)
    }

    fn each_known(
        &self,
        caller: &Caller,
        directory: Option<&SecretName>,
        visit: &mut dyn FnMut(&SecretName, &Entry, Levels),
    ) -> Result<()> {
        let sight = self.inner.gate.sight(caller);
        let unlocked = self.inner.unlocked()?;
        let index = unlocked.index.read();
        let Some(folder) = index.folder(directory) else { return Ok(()) };
        let mut prefix = directory.map(ToString::to_string).unwrap_or_default();
        folder.each_secret(&mut prefix, &mut |name, entry| {
            let Ok(name) = name.parse::<SecretName>() else { return };
            let levels = sight.levels(&name, entry);
            if !levels.is_empty() {
                visit(&name, entry, levels);
            }
        });
        Ok(())
    }
}

impl Inner {
    /// Returns the attributes of a secret where the policy's answer to the caller can depend on
    /// them; otherwise the index is not even looked at.
    pub(super) fn attributes_for(
        &self,
        sight: &Sight<'_>,
        name: &SecretName,
    ) -> Option<Attributes> {
        if sight.by_attributes { self.attributes(name) } else { None }
    }

    /// Returns the attributes of a secret, if it exists.
    pub(super) fn attributes(&self, name: &SecretName) -> Option<Attributes> {
        let unlocked = self.unlocked.load();
        let index = unlocked.as_deref()?.index.read();
        index.secret(name).map(Entry::attributes)
    }
}

/// Returns what another service's secret one is a copy of.
fn secret_copy(unlocked: &Unlocked, name: &SecretName) -> Option<Arc<Held>> {
    unlocked.index.read().secret(name).and_then(Entry::shared_held)
}

impl Facet {
    fn values(self, entry: &Entry, now: Timestamp) -> Vec<Box<str>> {
        let attributes = || entry.attributes();
        match self {
            Self::Environment => attributes().environment.into_iter().collect(),
            Self::Service => attributes().service.into_iter().collect(),
            Self::Status => vec![entry.status_at(now).as_str().into()],
            Self::Tag => attributes().tags,
            Self::Type => vec![entry.secret_type.as_str().into()],
        }
    }
}
