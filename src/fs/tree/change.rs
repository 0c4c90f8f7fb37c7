//! unlink(2), mkdir(2), rmdir(2) and link(2).

use super::Tree;
use super::lookup::Entry;
use crate::fs::error::{FsError, Result};
use crate::fs::node::{Meaning, Node};
use crate::model::Caller;

impl Tree {
    /// Removes a file: a secret goes to the trash, and what is in the trash is destroyed.
    pub(in crate::fs) fn unlink(&self, caller: &Caller, parent: u64, name: &[u8]) -> Result<()> {
        let parent = self.inodes.node(parent)?;
        match self.resolve(caller, &parent, name) {
            Meaning::Bad => Err(FsError::NotFound),
            Meaning::By(_)
            | Meaning::Control(_)
            | Meaning::Member { .. }
            | Meaning::Rendered(_)
            | Meaning::View(_) => Err(FsError::NotPermitted),
            Meaning::Path(name) => {
                if self.drafts.unlink(caller.uid.0, &name) {
                    return Ok(());
                }
                Ok(self.broker.remove(caller, &name)?)
            }
            Meaning::Scratch(name) => self.scratch.remove(caller.uid.0, &name),
            Meaning::Trashed(name) => {
                let entry = self.trash_entry(caller, &name)?;
                Ok(self.broker.destroy(caller, entry.trashed.id)?)
            }
        }
    }

    /// Makes a directory.
    pub(in crate::fs) fn make_directory(
        &self,
        caller: &Caller,
        parent: u64,
        name: &[u8],
    ) -> Result<Entry> {
        let parent = self.inodes.node(parent)?;
        match self.resolve(caller, &parent, name) {
            Meaning::Bad if matches!(*parent, Node::Directory(_) | Node::Root) => {
                Err(FsError::Invalid)
            }
            Meaning::Bad | Meaning::Member { .. } => Err(FsError::NotPermitted),
            Meaning::By(_) | Meaning::Control(_) | Meaning::Rendered(_) | Meaning::Trashed(_) => {
                Err(FsError::Exists)
            }
            Meaning::Path(path) => {
                if self.drafts.find(caller.uid.0, &path).is_some() {
                    return Err(FsError::Exists);
                }
                self.broker.make_directory(caller, &path)?;
                self.path_entry(caller, &path)
            }
            Meaning::Scratch(name) if self.scratch.find(caller.uid.0, &name).is_some() => {
                Err(FsError::Exists)
            }
            // An editor makes files, and a directory of that name could not be stored.
            Meaning::Scratch(_) | Meaning::View(_) => Err(FsError::Invalid),
        }
    }

    /// Removes an empty directory. Other callers' scratch files in it do not count: nobody may
    /// learn of them.
    pub(in crate::fs) fn remove_directory(
        &self,
        caller: &Caller,
        parent: u64,
        name: &[u8],
    ) -> Result<()> {
        let parent = self.inodes.node(parent)?;
        match self.resolve(caller, &parent, name) {
            Meaning::Bad => Err(FsError::NotFound),
            Meaning::By(_)
            | Meaning::Control(_)
            | Meaning::Member { .. }
            | Meaning::Rendered(_) => Err(FsError::NotPermitted),
            Meaning::Path(path) => {
                let uid = caller.uid.0;
                if !self.scratch.list(uid, Some(&path)).is_empty()
                    || !self.drafts.list(uid, Some(&path)).is_empty()
                {
                    return Err(FsError::NotEmpty);
                }
                self.broker.remove_directory(caller, &path)?;
                self.scratch.drop_below(&path);
                Ok(())
            }
            Meaning::Scratch(_) | Meaning::Trashed(_) | Meaning::View(_) => {
                Err(FsError::NotDirectory)
            }
        }
    }

    /// Refuses a link, and says so in the way that programs which use link(2) as a lock expect.
    pub(in crate::fs) fn refuse_link(
        &self,
        caller: &Caller,
        parent: u64,
        name: &[u8],
    ) -> Result<()> {
        match self.lookup(caller, parent, name) {
            Ok(_) => Err(FsError::Exists),
            Err(FsError::NotFound) => Err(FsError::NotPermitted),
            Err(error) => Err(error),
        }
    }
}
