//! rename(2): how editors and careful programs replace a secret.

use super::Tree;
use super::lookup::scratch_name;
use crate::broker::{BrokerError, Found, Put, Replace, Which};
use crate::fs::error::{FsError, Result};
use crate::fs::node::{Meaning, ScratchName, View, ViewKind};
use crate::fs::scratch::Origin;
use crate::fs::writer::Edition;
use crate::model::{Caller, Level, SecretName};

/// One rename.
#[derive(Clone, Debug)]
pub(in crate::fs) struct Renaming {
    pub(in crate::fs) parent: u64,
    pub(in crate::fs) name: Box<[u8]>,
    pub(in crate::fs) new_parent: u64,
    pub(in crate::fs) new_name: Box<[u8]>,
    pub(in crate::fs) replace: Replace,
}

impl Tree {
    /// Renames; may block.
    pub(in crate::fs) fn rename(&self, caller: &Caller, renaming: &Renaming) -> Result<()> {
        let from = self.inodes.node(renaming.parent)?;
        let to = self.inodes.node(renaming.new_parent)?;
        let from = self.resolve(caller, &from, &renaming.name);
        let to = self.resolve(caller, &to, &renaming.new_name);
        let replace = renaming.replace;
        match (from, to) {
            (Meaning::Bad, _) => Err(FsError::NotFound),
            (_, Meaning::Bad) => Err(FsError::Invalid),
            (from, to) if from == to => Ok(()),
            (Meaning::Path(from), Meaning::Path(to)) => self.move_path(caller, &from, &to, replace),
            (Meaning::Path(from), Meaning::Scratch(to)) => {
                self.set_aside(caller, &from, to, replace)
            }
            (Meaning::Scratch(from), Meaning::Path(to)) => self.keep(caller, &from, &to, replace),
            (Meaning::Scratch(from), Meaning::Scratch(to)) => {
                self.move_scratch(caller, &from, to, replace)
            }
            (Meaning::Scratch(from), Meaning::View(View { of: Some(to), kind })) => {
                let put = match kind {
                    ViewKind::Expect(version) => Put { expect: Some(version), ..Put::default() },
                    ViewKind::Pending => Put { stage: true, ..Put::default() },
                    ViewKind::Env
                    | ViewKind::Frozen(_)
                    | ViewKind::Json
                    | ViewKind::Meta
                    | ViewKind::Numbered(_)
                    | ViewKind::Previous
                    | ViewKind::Snap
                    | ViewKind::Why => return Err(FsError::NotPermitted),
                };
                self.publish_scratch(caller, &from, &to, put)
            }
            (Meaning::View(View { of: Some(of), kind: ViewKind::Pending }), Meaning::Path(to))
                if of == to =>
            {
                self.broker.promote(caller, &of)?;
                Ok(())
            }
            (Meaning::Trashed(entry), Meaning::Path(to)) => {
                let entry = self.trash_entry(caller, &entry)?;
                Ok(self.broker.restore(caller, entry.trashed.id, Some(&to))?)
            }
            _ => Err(FsError::NotPermitted),
        }
    }

    /// A secret, a draft or a directory gets another name.
    fn move_path(
        &self,
        caller: &Caller,
        from: &SecretName,
        to: &SecretName,
        replace: Replace,
    ) -> Result<()> {
        let uid = caller.uid.0;
        if self.drafts.find(uid, from).is_some() {
            self.broker.check(caller, Level::Write, to)?;
            let taken = match self.broker.look(caller, to) {
                Ok(Found::Directory(_)) => return Err(FsError::IsDirectory),
                Ok(Found::Secret(_)) => true,
                Err(BrokerError::NotFound(_)) => self.drafts.find(uid, to).is_some(),
                Err(error) => return Err(error.into()),
            };
            if taken && replace == Replace::Refused {
                return Err(FsError::Exists);
            }
            // What the handle writes is published under the new name when it is closed.
            self.drafts.rename(uid, from, to);
            return Ok(());
        }
        self.broker.rename(caller, from, to, replace)?;
        // Whatever was a draft of that name is replaced, and scratch files do not move along.
        self.drafts.unlink(uid, to);
        self.scratch.drop_below(from);
        Ok(())
    }

    /// A secret is renamed to a name that is never stored, as editors do for a backup: its value
    /// goes there for the caller alone, and the secret to the trash.
    fn set_aside(
        &self,
        caller: &Caller,
        from: &SecretName,
        to: ScratchName,
        replace: Replace,
    ) -> Result<()> {
        let uid = caller.uid.0;
        if self.drafts.find(uid, from).is_some() {
            return Err(FsError::NotPermitted);
        }
        let Found::Secret(secret) = self.broker.look(caller, from)? else {
            return Err(FsError::Invalid);
        };
        self.broker.check(caller, Level::Delete, from)?;
        if self.scratch.find(uid, &to).is_some() {
            if replace == Replace::Refused {
                return Err(FsError::Exists);
            }
            self.scratch.remove(uid, &to)?;
        }
        let opened = self.broker.read(caller, from, Which::Current)?;
        let file = self.scratch.create(uid, to.clone(), self.clock.now())?;
        let copied = file.write(Some(0), opened.value.expose(), usize::MAX, self.clock.now());
        let removed = copied.and_then(|()| Ok(self.broker.remove(caller, from)?));
        if let Err(error) = removed {
            self.scratch.remove(uid, &to)?;
            return Err(error);
        }
        file.set_origin(Origin { id: secret.id, name: from.clone() });
        Ok(())
    }

    /// A scratch file is renamed over a secret: that is its next version.
    fn keep(
        &self,
        caller: &Caller,
        from: &ScratchName,
        to: &SecretName,
        replace: Replace,
    ) -> Result<()> {
        if !self.broker.levels(caller, to).allow(Level::Write) {
            // A name on which the caller has some right is a secret's, there or not.
            let unknown = self.broker.levels(caller, to).is_empty();
            if unknown && self.may_write_in(caller, to.parent().as_ref())? {
                return self.move_scratch(caller, from, scratch_name(to), replace);
            }
            self.broker.check(caller, Level::Write, to)?;
        }
        let create_new = replace == Replace::Refused;
        self.publish_scratch(caller, from, to, Put { create_new, ..Put::default() })?;
        self.drafts.unlink(caller.uid.0, to);
        Ok(())
    }

    fn publish_scratch(
        &self,
        caller: &Caller,
        from: &ScratchName,
        to: &SecretName,
        put: Put,
    ) -> Result<()> {
        let uid = caller.uid.0;
        let file = self.scratch.find(uid, from).ok_or(FsError::NotFound)?;
        let value = file.read(0, usize::MAX)?;
        self.publish(caller, Edition { name: to.clone(), value, put })?;
        self.scratch.remove(uid, from)
    }

    fn move_scratch(
        &self,
        caller: &Caller,
        from: &ScratchName,
        to: ScratchName,
        replace: Replace,
    ) -> Result<()> {
        let uid = caller.uid.0;
        if replace == Replace::Refused && self.scratch.find(uid, &to).is_some() {
            return Err(FsError::Exists);
        }
        self.scratch.rename(uid, from, to)
    }
}
