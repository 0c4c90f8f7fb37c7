//! `@snap`: a link to a directory of versions that were current together.

use std::sync::Arc;

use super::Tree;
use super::listing::item;
use super::lookup::Entry;
use crate::broker::{Frozen, FrozenId};
use crate::fs::attributes::{Attributes, FileKind};
use crate::fs::directory::Item;
use crate::fs::error::{FsError, Result};
use crate::fs::node::{Node, View, ViewKind};
use crate::model::{Caller, SecretName};

impl Tree {
    /// Returns where the link in a directory leads the caller.
    pub(super) fn snap_target(
        &self,
        caller: &Caller,
        directory: Option<&SecretName>,
    ) -> Result<String> {
        self.directory_of_view(caller, directory)?;
        Ok(target(self.broker.freeze(caller, directory)?))
    }

    /// Presents the link.
    pub(super) fn snap_attributes(&self, caller: &Caller, inode: u64) -> Attributes {
        let link = Attributes::own(caller, inode, FileKind::Link, 0o777, self.started);
        link.shared(self.owners).sized(target(FrozenId(0)).len() as u64)
    }

    /// Presents a set as a directory.
    pub(super) fn frozen_attributes(
        &self,
        caller: &Caller,
        directory: Option<&SecretName>,
        id: FrozenId,
        inode: u64,
    ) -> Result<Attributes> {
        self.frozen(caller, directory, id)?;
        let set = Attributes::own(caller, inode, FileKind::Directory, 0o500, self.started);
        Ok(set.shared(self.owners))
    }

    /// Finds a secret of a set: its view by the version that it has there.
    pub(super) fn member_entry(
        &self,
        caller: &Caller,
        id: FrozenId,
        name: SecretName,
    ) -> Result<Entry> {
        let set = self.frozen(caller, name.parent().as_ref(), id)?;
        let version = set.version(name.leaf()).ok_or(FsError::NotFound)?;
        let view = View { of: Some(name), kind: ViewKind::Numbered(version) };
        let attributes = self.view_attributes(caller, &view)?;
        Ok(Entry::new(Node::View(view), attributes))
    }

    /// Lists a set: what the caller still may know of.
    pub(super) fn members(
        &self,
        caller: &Caller,
        directory: Option<&SecretName>,
        id: FrozenId,
    ) -> Result<Vec<Item>> {
        let set = self.frozen(caller, directory, id)?;
        let known = set.versions().filter_map(|(leaf, version)| {
            let name = SecretName::join(directory, leaf).ok()?;
            let may_know = self.broker.may_know(caller, &name);
            let view = View { of: Some(name), kind: ViewKind::Numbered(version) };
            may_know.then(|| item(leaf, self.view_inode(caller, &view), FileKind::File))
        });
        Ok(known.collect())
    }

    fn frozen(
        &self,
        caller: &Caller,
        directory: Option<&SecretName>,
        id: FrozenId,
    ) -> Result<Arc<Frozen>> {
        self.broker.frozen(caller, directory, id).ok_or(FsError::NotFound)
    }
}

/// Returns what the link holds.
fn target(id: FrozenId) -> String {
    format!("@{}", ViewKind::Frozen(id).word())
}
