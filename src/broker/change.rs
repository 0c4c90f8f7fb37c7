//! Changes of the tree: rename, remove, directories.
//!
//! Each needs `delete` on the names that go and `write` on the names that come. A secret keeps its
//! id, history and metadata over a rename; a rename onto another secret is a new version of it.

use std::sync::Arc;

use super::allowance::Kind as Counted;
use super::batch::{Batch, Effect, Line};
use super::gate::{Asked, Grant};
use super::index::Made;
use super::read::value_key;
use super::record::SecretRecord;
use super::rotation::check_idle;
use super::write::{add_version, note, random_id};
use super::writer::Company;
use super::{Broker, BrokerError, Kind, Replace, Result};
use crate::audit::Action;
use crate::model::{Attributes, Caller, Level, SecretId, SecretName, Version};
use crate::store::Table;

impl Broker {
    /// Renames a secret or a directory.
    ///
    /// Onto an existing secret: a new version of the target, and the source with its history goes
    /// to the trash. Errors: `Denied`, `NotFound`, `Exists` (`Replace::Refused`), `IsDirectory`,
    /// `NotDirectory`, `NotEmpty`, `Invalid` (a directory into itself).
    pub fn rename(
        &self,
        caller: &Caller,
        from: &SecretName,
        to: &SecretName,
        replace: Replace,
    ) -> Result<()> {
        // Onto another secret, it is that one's new version.
        if [Action::Rename, Action::Write].iter().any(|made| self.done(caller, *made).is_some()) {
            return Ok(());
        }
        let (caller, from, to) = (caller.clone(), from.clone(), to.clone());
        self.inner.submit(Company::Alone, move |batch| match batch.kind_at(&from) {
            Some(Kind::Directory) => rename_directory(batch, &caller, &from, &to, replace),
            Some(Kind::Secret) | None => rename_secret(batch, &caller, &from, &to, replace),
        })
    }

    /// Moves a secret to the trash.
    pub fn remove(&self, caller: &Caller, name: &SecretName) -> Result<()> {
        if self.done(caller, Action::Delete).is_some() {
            return Ok(());
        }
        if let Some(upstream) = self.upstream_of(name) {
            return self.forward_remove(&*upstream, caller, name);
        }
        let (caller, name) = (caller.clone(), name.clone());
        self.inner.submit(Company::Shared, move |batch| {
            let asked = Asked { action: Action::Delete, name: &name, version: None };
            let (id, record, grant) = find(batch, &caller, Level::Delete, asked)?;
            check_idle(batch, id, &name)
                .map_err(|err| batch.inner.gate.failed(&caller, asked, err))?;
            discard(batch, &caller, Action::Delete, id, record, &grant)
        })
    }

    /// Makes an empty directory; needs `write` on some name that could lie below it.
    pub fn make_directory(&self, caller: &Caller, path: &SecretName) -> Result<()> {
        if self.done(caller, Action::CreateDirectory).is_some() {
            return Ok(());
        }
        let (caller, path) = (caller.clone(), path.clone());
        self.inner.submit(Company::Alone, move |batch| {
            let asked = Asked { action: Action::CreateDirectory, name: &path, version: None };
            batch.inner.gate.admit_below(&caller, asked)?;
            if batch.kind_at(&path).is_some() {
                return Err(BrokerError::Exists(path));
            }
            batch.check_place(&path)?;
            batch.check_allowance(&caller, Counted::Directory)?;
            let made = Made { id: random_id()?, created_by: Some(caller.uid) };
            batch.put_record(made.id, &made.record(path.clone()))?;
            batch.effect(Effect::SetMade(path.clone(), Some(made)));
            batch.line(plain_line(&caller, Action::CreateDirectory, &path));
            Ok(())
        })
    }

    /// Removes an empty directory; needs `write` on some name that could lie below it.
    pub fn remove_directory(&self, caller: &Caller, path: &SecretName) -> Result<()> {
        if self.done(caller, Action::RemoveDirectory).is_some() {
            return Ok(());
        }
        let (caller, path) = (caller.clone(), path.clone());
        self.inner.submit(Company::Alone, move |batch| {
            let asked = Asked { action: Action::RemoveDirectory, name: &path, version: None };
            batch.inner.gate.admit_below(&caller, asked)?;
            batch.inner.check_no_route(&path)?;
            match batch.kind_at(&path) {
                None => return Err(BrokerError::NotFound(path)),
                Some(Kind::Secret) => return Err(BrokerError::NotDirectory(path)),
                Some(Kind::Directory) => {}
            }
            let made = {
                let index = batch.unlocked.index.read();
                let folder =
                    index.folder(Some(&path)).ok_or_else(|| BrokerError::NotFound(path.clone()))?;
                if !folder.is_empty() {
                    return Err(BrokerError::NotEmpty(path));
                }
                folder.made()
            };
            if let Some(made) = made {
                batch.delete(Table::Records, &made.id.0)?;
            }
            batch.effect(Effect::SetMade(path.clone(), None));
            batch.line(plain_line(&caller, Action::RemoveDirectory, &path));
            Ok(())
        })
    }
}

fn rename_secret(
    batch: &mut Batch<'_>,
    caller: &Caller,
    from: &SecretName,
    to: &SecretName,
    replace: Replace,
) -> Result<()> {
    let asked = Asked { action: Action::Rename, name: from, version: None };
    let (id, record, grant) = find(batch, caller, Level::Delete, asked)?;
    let target = batch.secret(to)?;
    let asked_target = Asked { action: Action::Rename, name: to, version: None };
    let attributes = match &target {
        Some((_, target)) => target.metadata.attributes.clone(),
        None => record.metadata.attributes.clone(),
    };
    let target_grant =
        batch.inner.gate.admit(caller, Level::Write, Some(&attributes), asked_target)?;
    if from == to {
        return Ok(());
    }
    batch.inner.check_routes(from, to)?;
    check_reads(batch, caller, (from, &record.metadata.attributes), (to, &attributes), asked)?;
    let concerned = [Some((id, from)), target.as_ref().map(|(id, _)| (*id, to))];
    let idle =
        concerned.into_iter().flatten().try_for_each(|(id, name)| check_idle(batch, id, name));
    idle.map_err(|err| batch.inner.gate.failed(caller, asked, err))?;
    match target {
        Some(_) if replace == Replace::Refused => Err(BrokerError::Exists(to.clone())),
        Some((target_id, target)) => {
            replace_secret(batch, caller, (id, record, &grant), (target_id, target, &target_grant))
        }
        None => {
            batch.check_place(to)?;
            let version = record.history.current().map_or(Version::FIRST, |entry| entry.version);
            note_rename(batch, caller, from, to, version, &grant);
            batch.vacate(from);
            batch.put_secret(id, SecretRecord { name: to.clone(), ..record })
        }
    }
}

/// Makes the source's value a new version of the target, whose metadata and history stay.
fn replace_secret(
    batch: &mut Batch<'_>,
    caller: &Caller,
    (id, record, grant): (SecretId, SecretRecord, &Grant),
    (target_id, mut target, target_grant): (SecretId, SecretRecord, &Grant),
) -> Result<()> {
    let missing = || BrokerError::NotFound(record.name.clone());
    let current = record.history.current().map(|entry| entry.version).ok_or_else(missing)?;
    let sealed = batch.get(Table::Values, &value_key(id, current))?.ok_or_else(missing)?;
    let value = batch.keyring.open_value(id, current, &sealed).map_err(BrokerError::Damaged)?;
    let version = add_version(batch, caller.uid, target_id, &mut target, &value, false)?;
    note_rename(batch, caller, &record.name, &target.name, version, grant);
    note(batch, caller, Action::Write, &target.name, version, target_grant);
    discard(batch, caller, Action::Delete, id, record, grant)?;
    batch.put_secret(target_id, target)
}

fn rename_directory(
    batch: &mut Batch<'_>,
    caller: &Caller,
    from: &SecretName,
    to: &SecretName,
    replace: Replace,
) -> Result<()> {
    if from == to {
        return Ok(());
    }
    if to.is_below(from) {
        return Err(BrokerError::Invalid("a directory cannot be moved into itself".into()));
    }
    let asked = Asked { action: Action::Rename, name: from, version: None };
    batch.inner.gate.admit_below(caller, asked)?;
    batch.inner.check_routes(from, to)?;
    let replaced = check_directory_target(batch, to, replace)?;
    let (secrets, made) = below(batch, from);
    let gate = &batch.inner.gate;
    let mut moves = Vec::new();
    for (name, id) in secrets {
        let target = moved(&name, from, to)?;
        let record = batch.secret_record(id)?;
        let attributes = Some(&record.metadata.attributes);
        let asked = Asked { action: Action::Rename, name: &name, version: None };
        let grant = gate.admit(caller, Level::Delete, attributes, asked)?;
        check_idle(batch, id, &name).map_err(|err| gate.failed(caller, asked, err))?;
        let same = &record.metadata.attributes;
        check_reads(batch, caller, (&name, same), (&target, same), asked)?;
        let _allowed: Grant =
            gate.admit(caller, Level::Write, attributes, Asked { name: &target, ..asked })?;
        moves.push((id, record, target, grant));
    }
    for (path, _) in &made {
        let asked = Asked { action: Action::Rename, name: path, version: None };
        gate.admit_below(caller, asked)?;
        gate.admit_below(caller, Asked { name: &moved(path, from, to)?, ..asked })?;
    }
    if let Some(replaced) = replaced {
        batch.delete(Table::Records, &replaced.id.0)?;
        batch.effect(Effect::SetMade(to.clone(), None));
    }
    for (id, record, target, grant) in moves {
        let version = record.history.current().map_or(Version::FIRST, |entry| entry.version);
        note_rename(batch, caller, &record.name, &target, version, &grant);
        batch.vacate(&record.name);
        batch.put_secret(id, SecretRecord { name: target, ..record })?;
    }
    for (path, made) in made {
        let target = moved(&path, from, to)?;
        batch.put_record(made.id, &made.record(target.clone()))?;
        batch.effect(Effect::SetMade(path, None));
        batch.effect(Effect::SetMade(target, Some(made)));
    }
    Ok(())
}

/// Checks that a directory can come to `to`; returns the record of an empty one that it replaces.
fn check_directory_target(
    batch: &Batch<'_>,
    to: &SecretName,
    replace: Replace,
) -> Result<Option<Made>> {
    match batch.kind_at(to) {
        None => return batch.check_place(to).map(|()| None),
        Some(Kind::Secret) => return Err(BrokerError::NotDirectory(to.clone())),
        Some(Kind::Directory) if replace == Replace::Refused => {
            return Err(BrokerError::Exists(to.clone()));
        }
        Some(Kind::Directory) => {}
    }
    let index = batch.unlocked.index.read();
    let folder = index.folder(Some(to)).ok_or_else(|| BrokerError::NotFound(to.clone()))?;
    if folder.is_empty() { Ok(folder.made()) } else { Err(BrokerError::NotEmpty(to.clone())) }
}

/// Fails if a move would let its caller read what it could not read before: the levels do not imply
/// each other, so `delete` on one name and `read` on another must not add up to it. Nor does anything
/// move out of a guard, for whoever reads its new name would not have to meet it.
pub(super) fn check_reads(
    batch: &Batch<'_>,
    caller: &Caller,
    from: (&SecretName, &Attributes),
    to: (&SecretName, &Attributes),
    asked: Asked<'_>,
) -> Result<()> {
    let gate = &batch.inner.gate;
    let reads = |(name, attributes)| gate.levels(caller, name, attributes).allow(Level::Read);
    if reads(to) && !reads(from) {
        return Err(gate.refuse(caller, asked, None, "the caller may not read what it would move"));
    }
    if gate.leaves_guard(from.0, to.0) {
        return Err(gate.refuse(
            caller,
            asked,
            None,
            "it would leave a guard of the policy behind",
        ));
    }
    Ok(())
}

type Named<T> = Vec<(SecretName, T)>;

/// Returns the secrets below a directory, and the made directories at and below it.
fn below(batch: &Batch<'_>, directory: &SecretName) -> (Named<SecretId>, Named<Made>) {
    let (mut secrets, mut made) = (Named::new(), Named::new());
    let index = batch.unlocked.index.read();
    let Some(folder) = index.folder(Some(directory)) else { return (secrets, made) };
    if let Some(record) = folder.made() {
        made.push((directory.clone(), record));
    }
    let mut prefix = directory.to_string();
    // Names in the index were parsed when they came in, so none is lost to `ok` here.
    folder.each_secret(&mut prefix, &mut |name, entry| {
        secrets.extend(name.parse().ok().map(|name| (name, entry.id)));
    });
    folder.each_made(&mut prefix, &mut |path, record| {
        made.extend(path.parse().ok().map(|path| (path, record)))
    });
    (secrets, made)
}

/// Returns the name that `name`, which is `from` or lies below it, has at or below `to`.
fn moved(name: &SecretName, from: &SecretName, to: &SecretName) -> Result<SecretName> {
    let rest = name.as_str().strip_prefix(from.as_str()).unwrap_or_default();
    Ok(format!("{to}{rest}").parse()?)
}

/// Finds a secret and checks one level on it.
pub(super) fn find(
    batch: &Batch<'_>,
    caller: &Caller,
    level: Level,
    asked: Asked<'_>,
) -> Result<(SecretId, SecretRecord, Grant)> {
    let existing = batch.secret(asked.name)?;
    let attributes = existing.as_ref().map(|(_, record)| &record.metadata.attributes);
    let grant = batch.inner.gate.admit(caller, level, attributes, asked)?;
    let absent = || batch.inner.verdict.absent(BrokerError::NotFound(asked.name.clone()));
    let (id, record) = existing.ok_or_else(absent)?;
    Ok((id, record, grant))
}

/// Moves a secret to the trash.
pub(super) fn discard(
    batch: &mut Batch<'_>,
    caller: &Caller,
    action: Action,
    id: SecretId,
    mut record: SecretRecord,
    grant: &Grant,
) -> Result<()> {
    let version = record.history.current().map_or(Version::FIRST, |entry| entry.version);
    record.discard(batch.now, batch.next_trash_number(&record.name));
    note(batch, caller, action, &record.name.clone(), version, grant);
    batch.put_secret(id, record)
}

fn note_rename(
    batch: &mut Batch<'_>,
    caller: &Caller,
    from: &SecretName,
    to: &SecretName,
    version: Version,
    grant: &Grant,
) {
    batch.line(Line {
        action: Action::Rename,
        caller: Some(caller.clone()),
        name: Some(from.clone()),
        version: Some(version),
        rule: Some(Arc::clone(&grant.rule)),
        reason: Some(format!("to {to}")),
        detail: None,
    });
}

fn plain_line(caller: &Caller, action: Action, path: &SecretName) -> Line {
    let (caller, name) = (Some(caller.clone()), Some(path.clone()));
    Line { action, caller, name, version: None, rule: None, reason: None, detail: None }
}

/// Finds a secret in the trash and checks `delete` on the name that it had.
pub(super) fn find_trashed(
    batch: &Batch<'_>,
    caller: &Caller,
    action: Action,
    id: SecretId,
) -> Result<(SecretRecord, Grant)> {
    let name = batch.unlocked.index.read().trashed(id).cloned();
    // An id is 16 random bytes that only who may see the trash has learned: no name to hide.
    let name =
        name.ok_or_else(|| BrokerError::Invalid("there is no such secret in the trash".into()))?;
    let record = batch.secret_record(id)?;
    let asked = Asked { action, name: &name, version: None };
    let grant =
        batch.inner.gate.admit(caller, Level::Delete, Some(&record.metadata.attributes), asked)?;
    Ok((record, grant))
}
