//! What was removed and can still come back.

use super::batch::{Batch, Effect};
use super::change::{check_reads, find_trashed};
use super::gate::Asked;
use super::read::value_key;
use super::record::SecretRecord;
use super::rotation::forget;
use super::write::note;
use super::writer::Company;
use super::{Broker, BrokerError, Result, Trashed};
use crate::audit::Action;
use crate::model::{Caller, Level, SecretId, SecretName, Timestamp, Version};
use crate::store::Table;
use crate::versions::State;

impl Broker {
    /// Returns what is in the trash and the caller may delete, newest first.
    pub fn trash(&self, caller: &Caller) -> Result<Vec<Trashed>> {
        let inner = &*self.inner;
        let unlocked = inner.unlocked()?;
        let names: Vec<(SecretId, SecretName)> =
            unlocked.index.read().trash().map(|(id, name)| (id, name.clone())).collect();
        let mut trashed = Vec::new();
        for (id, name) in names {
            let record = inner.secret_record(&unlocked, id)?;
            let Some(deleted) = record.deleted else { continue };
            let levels = inner.gate.levels(caller, &name, &record.metadata.attributes);
            if levels.allow(Level::Delete) {
                trashed.push(Trashed {
                    id,
                    inode: unlocked.keyring.load().inode(&format!(".control/trash/{id}")),
                    deleted,
                    purge_after: self.purge_after(deleted),
                    number: record.trash_number,
                    size: record.history.current().map_or(0, |entry| entry.size),
                    name,
                });
            }
        }
        trashed.sort_by(|a, b| b.deleted.cmp(&a.deleted).then_with(|| a.name.cmp(&b.name)));
        Ok(trashed)
    }

    /// Brings a secret back from the trash, to its old name or to another one. Needs `delete` on
    /// the name that it had and `write` on the one that it gets.
    pub fn restore(&self, caller: &Caller, id: SecretId, to: Option<&SecretName>) -> Result<()> {
        if self.done(caller, Action::Restore).is_some() {
            return Ok(());
        }
        if let Some((upstream, name)) = self.restored_elsewhere(id, to)? {
            return self.forward_restore(&*upstream, caller, (id, &name));
        }
        let (caller, to) = (caller.clone(), to.cloned());
        self.inner.submit(Company::Alone, move |batch| bring_back(batch, &caller, id, to.as_ref()))
    }

    /// Destroys a secret in the trash for good: its record and every value.
    pub fn destroy(&self, caller: &Caller, id: SecretId) -> Result<()> {
        if self.done(caller, Action::Destroy).is_some() {
            return Ok(());
        }
        let caller = caller.clone();
        self.inner.submit(Company::Shared, move |batch| {
            let (record, grant) = find_trashed(batch, &caller, Action::Destroy, id)?;
            note(batch, &caller, Action::Destroy, &record.name, current_version(&record), &grant);
            destroy(batch, id, &record)
        })
    }

    /// Destroys what has been in the trash for longer than the retention. Returns how many secrets.
    pub fn purge_trash(&self) -> Result<u64> {
        let unlocked = self.inner.unlocked()?;
        let ids: Vec<SecretId> = unlocked.index.read().trash().map(|(id, _)| id).collect();
        let mut purged = 0;
        for id in ids {
            let record = self.inner.secret_record(&unlocked, id)?;
            let due = record
                .deleted
                .is_some_and(|deleted| self.purge_after(deleted) <= self.inner.gate.now());
            if !due {
                continue;
            }
            self.inner.submit(Company::Shared, move |batch| {
                if batch.unlocked.index.read().trashed(id).is_none() {
                    return Ok(());
                }
                let record = batch.secret_record(id)?;
                batch.line(super::batch::Line {
                    action: Action::Destroy,
                    caller: None,
                    name: Some(record.name.clone()),
                    version: Some(current_version(&record)),
                    rule: None,
                    reason: Some("the trash's retention is over".into()),
                    detail: None,
                });
                destroy(batch, id, &record)
            })?;
            purged += 1;
        }
        Ok(purged)
    }

    fn purge_after(&self, deleted: Timestamp) -> Timestamp {
        deleted.checked_add(self.inner.limits.trash_retention).unwrap_or(Timestamp::MAX)
    }
}

/// Brings a secret back, to its old name or to another one.
pub(super) fn bring_back(
    batch: &mut Batch<'_>,
    caller: &Caller,
    id: SecretId,
    to: Option<&SecretName>,
) -> Result<()> {
    let (mut record, grant) = find_trashed(batch, caller, Action::Restore, id)?;
    let to = to.unwrap_or(&record.name).clone();
    let attributes = record.metadata.attributes.clone();
    let asked = Asked { action: Action::Restore, name: &to, version: None };
    let grant_target = batch.inner.gate.admit(caller, Level::Write, Some(&attributes), asked)?;
    check_reads(batch, caller, (&record.name, &attributes), (&to, &attributes), asked)?;
    if batch.kind_at(&to).is_some() {
        return Err(BrokerError::Exists(to));
    }
    batch.check_place(&to)?;
    let version = current_version(&record);
    note(batch, caller, Action::Restore, &record.name.clone(), version, &grant);
    if to != record.name {
        note(batch, caller, Action::Restore, &to, version, &grant_target);
    }
    record.bring_back();
    record.name = to;
    batch.effect(Effect::RemoveTrashed(id));
    batch.put_secret(id, record)
}

fn destroy(batch: &mut Batch<'_>, id: SecretId, record: &SecretRecord) -> Result<()> {
    let versions = batch.every_version(id, &record.history)?;
    for entry in versions.iter().filter(|entry| entry.state != State::Destroyed) {
        batch.delete(Table::Values, &value_key(id, entry.version))?;
    }
    batch.delete_pages(id, &record.history)?;
    batch.delete(Table::Records, &id.0)?;
    forget(batch, id)?;
    batch.effect(Effect::RemoveTrashed(id));
    Ok(())
}

fn current_version(record: &SecretRecord) -> Version {
    record.history.current().map_or(Version::FIRST, |entry| entry.version)
}
