//! Directories: opendir(3), readdir(3) and the links below `.by`.

use parking_lot::Mutex;

use super::Tree;
use super::open::{BATCH, Opening, Place, Want};
use crate::broker::Kind as StoredKind;
use crate::fs::attributes::FileKind;
use crate::fs::by::{By, FACETS, flat, is_entry_name, link_target};
use crate::fs::control::{self, Control, trash_entries};
use crate::fs::directory::{Cursor, Item, Stage};
use crate::fs::error::{FsError, Result};
use crate::fs::handle::Content;
use crate::fs::inode::ROOT;
use crate::fs::node::{Node, View, ViewKind};
use crate::model::{Caller, SecretName};

impl Tree {
    /// Opens a directory.
    pub(in crate::fs) fn open_directory(&self, caller: &Caller, inode: u64) -> Result<Opening> {
        let node = self.inodes.node(inode)?;
        if self.present(caller, inode, &node)?.kind != FileKind::Directory {
            return Err(FsError::NotDirectory);
        }
        let want = Want { read: true, write: false, new: false, truncate: false };
        let place = Place { caller, inode, want, ticket: self.quotas.take(caller.uid.0)? };
        let cursor = Content::Directory(Mutex::new(Cursor::new(node)));
        Ok(place.opening(cursor).through_page_cache())
    }

    /// Gives entries from `offset` on, each with the offset after it, until `give` says that it is
    /// full. They are those that the reader may know of, who need not be the opener.
    pub(in crate::fs) fn read_directory(
        &self,
        caller: &Caller,
        handle: u64,
        offset: u64,
        give: impl FnMut(&Item, u64) -> bool,
    ) -> Result<()> {
        let handle = self.handles.find(handle)?;
        let Content::Directory(cursor) = &handle.content else { return Err(FsError::NotDirectory) };
        let mut cursor = cursor.lock();
        let node = cursor.node.clone();
        cursor.walk(offset, |stage| self.fetch(caller, handle.inode, &node, stage), give)
    }

    /// Returns where a link points to.
    pub(in crate::fs) fn read_link(&self, caller: &Caller, inode: u64) -> Result<String> {
        let node = self.inodes.node(inode)?;
        match &*node {
            Node::By(By::Link { name, .. }) => {
                self.present(caller, inode, &node)?;
                Ok(link_target(name))
            }
            Node::View(View { of, kind: ViewKind::Snap }) => self.snap_target(caller, of.as_ref()),
            Node::By(_)
            | Node::Control(_)
            | Node::Directory(_)
            | Node::Rendered(_)
            | Node::Root
            | Node::Scratch(_)
            | Node::Secret(_)
            | Node::Trashed(_)
            | Node::View(_) => Err(FsError::Invalid),
        }
    }

    fn fetch(
        &self,
        caller: &Caller,
        inode: u64,
        node: &Node,
        stage: &Stage,
    ) -> Result<(Vec<Item>, Stage)> {
        let directory = match node {
            Node::Directory(name) => Some(name),
            Node::Root => None,
            Node::By(_)
            | Node::Control(_)
            | Node::Rendered(_)
            | Node::Scratch(_)
            | Node::Secret(_)
            | Node::Trashed(_)
            | Node::View(_) => return Ok((self.made_up(caller, inode, node)?, Stage::End)),
        };
        match stage {
            Stage::End => Ok((Vec::new(), Stage::End)),
            Stage::Own => Ok((self.own(caller, directory)?, Stage::End)),
            Stage::Start => {
                let mut items = dots(inode);
                if directory.is_none() {
                    items.push(item(".by", 5, FileKind::Directory));
                    items.push(item(".control", Control::Top.inode(0), FileKind::Directory));
                }
                Ok((items, Stage::Stored(None)))
            }
            Stage::Stored(after) => {
                let batch = self.broker.list(caller, directory, after.as_deref(), BATCH)?;
                let next = match batch.last() {
                    Some(last) if batch.len() == BATCH => Stage::Stored(Some(last.segment.clone())),
                    _ => Stage::Own,
                };
                let items = batch.into_iter().map(|entry| Item {
                    name: entry.segment,
                    inode: entry.inode.0,
                    kind: match entry.kind {
                        StoredKind::Directory => FileKind::Directory,
                        StoredKind::Secret => FileKind::File,
                    },
                });
                Ok((items.collect(), next))
            }
        }
    }

    /// Lists what the caller alone sees.
    fn own(&self, caller: &Caller, directory: Option<&SecretName>) -> Result<Vec<Item>> {
        let uid = caller.uid.0;
        let mut items = Vec::new();
        for (name, file) in self.scratch.list(uid, directory) {
            let inode = self.scratch_attributes(caller, &file).inode;
            items.push(item(&name, inode, FileKind::File));
        }
        for name in self.drafts.list(uid, directory) {
            // Somebody else may have published that name: then it has been listed.
            if self.broker.look(caller, &name).is_err() {
                let inode = self.broker.inode(name.as_str()).0;
                items.push(item(name.leaf(), inode, FileKind::File));
            }
        }
        Ok(items)
    }

    fn made_up(&self, caller: &Caller, inode: u64, node: &Node) -> Result<Vec<Item>> {
        let mut items = dots(inode);
        match node {
            Node::By(by) => self.by_items(caller, by, &mut items)?,
            Node::Rendered(place) => self.rendered_items(caller, place, &mut items)?,
            Node::Control(Control::Grants) => {
                items.extend(self.broker.grants(caller)?.into_iter().map(|grant| {
                    let inode = Control::Grant(grant.id).inode(caller.uid.0);
                    item(&grant.id.to_string(), inode, FileKind::File)
                }));
            }
            Node::Control(Control::Trash) => {
                let entries = trash_entries(self.broker.trash(caller)?).into_iter();
                items.extend(
                    entries.map(|entry| item(&entry.name, entry.trashed.inode.0, FileKind::File)),
                );
            }
            Node::Control(place) => {
                items.extend(control::children(*place).into_iter().map(|(name, control)| {
                    let kind = match control {
                        Control::File(_) | Control::Grant(_) => FileKind::File,
                        Control::Audit | Control::Grants | Control::Top | Control::Trash => {
                            FileKind::Directory
                        }
                    };
                    item(name, control.inode(caller.uid.0), kind)
                }));
            }
            Node::View(View { of, kind: ViewKind::Frozen(id) }) => {
                items.extend(self.members(caller, of.as_ref(), *id)?);
            }
            Node::Directory(_)
            | Node::Root
            | Node::Scratch(_)
            | Node::Secret(_)
            | Node::Trashed(_)
            | Node::View(_) => return Err(FsError::NotDirectory),
        }
        Ok(items)
    }

    fn by_items(&self, caller: &Caller, by: &By, items: &mut Vec<Item>) -> Result<()> {
        let inode = |by: &By| self.broker.inode(&by.path()).0;
        match by {
            By::Facets => {
                items.extend(FACETS.into_iter().map(|(facet, word)| {
                    item(word, inode(&By::Values(facet)), FileKind::Directory)
                }))
            }
            By::Link { .. } => return Err(FsError::NotDirectory),
            By::Members { facet, value } => {
                for name in self.broker.facet_members(caller, *facet, value)? {
                    let entry = flat(&name);
                    // An entry holds 255 bytes; a longer name is reached by its path alone.
                    if entry.len() <= SecretName::MAX_SEGMENT_BYTES {
                        let link = By::Link { facet: *facet, value: value.clone(), name };
                        items.push(item(&entry, inode(&link), FileKind::Link));
                    }
                }
            }
            By::Values(facet) => {
                for value in self.broker.facet_values(caller, *facet)? {
                    if is_entry_name(&value) {
                        let members = By::Members { facet: *facet, value: value.clone() };
                        items.push(item(&value, inode(&members), FileKind::Directory));
                    }
                }
            }
        }
        Ok(())
    }
}

fn dots(inode: u64) -> Vec<Item> {
    vec![item(".", inode, FileKind::Directory), item("..", ROOT, FileKind::Directory)]
}

pub(super) fn item(name: &str, inode: u64, kind: FileKind) -> Item {
    Item { name: name.into(), inode, kind }
}
