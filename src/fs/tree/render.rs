//! Files of `.templates` and `.oneiric`: who sees them, and opening them.
//!
//! That there is such a file is no secret to whoever has a right on anything; what is in it is decided,
//! recorded and decrypted at each open, secret by secret, for the caller who opens it.

use super::Tree;
use super::listing::item;
use super::lookup::Entry;
use super::open::{Opening, Place};
use crate::fs::Touched;
use crate::fs::attributes::{Attributes, FileKind, Owners};
use crate::fs::directory::Item;
use crate::fs::error::{FsError, Result};
use crate::fs::handle::{Content, Wipeable};
use crate::fs::node::Node;
use crate::fs::render::{self, MAX_BYTES, layer_text, template_text};
use crate::model::{Caller, Gid, SecretName};

impl Tree {
    pub(super) fn open_rendered(
        &self,
        mut place: Place<'_>,
        what: &render::Place,
    ) -> Result<Opening> {
        let Place { caller, want, .. } = place;
        if what.is_directory() {
            return Err(FsError::IsDirectory);
        }
        if want.write {
            return Err(FsError::Access);
        }
        self.check_rendered(caller, what)?;
        let set = self.renderings.current();
        let purpose = format!("for {}", what.path());
        let file = (place.inode, what, caller.uid);
        let note = |names| self.uses.note(file, names, |inode| self.inodes.node(inode).is_ok());
        let text = match what {
            render::Place::Layer(layer) => {
                let oneiric = set.oneiric.as_ref().ok_or(FsError::NotFound)?;
                layer_text(&self.broker, caller, (oneiric, layer, note), &purpose)?
            }
            render::Place::Template(name) => {
                let template = set.templates.get(name).ok_or(FsError::NotFound)?;
                template_text(&self.broker, caller, (template, note), &purpose)?
            }
            render::Place::Layers
            | render::Place::Project(_)
            | render::Place::Templates
            | render::Place::Xdg => return Err(FsError::IsDirectory),
        };
        place.ticket.hold(text.len() as u64)?;
        Ok(place.opening(Content::Values(Wipeable::new(text))))
    }

    pub(super) fn rendered_attributes(
        &self,
        caller: &Caller,
        what: &render::Place,
    ) -> Result<Attributes> {
        self.check_rendered(caller, what)?;
        Ok(self.show_rendered(caller, what))
    }

    fn show_rendered(&self, caller: &Caller, what: &render::Place) -> Attributes {
        let inode = self.rendered_inode(caller, what);
        let own = |kind, mode| Attributes::own(caller, inode, kind, mode, self.started);
        if what.is_directory() {
            own(FileKind::Directory, 0o500).shared(self.owners)
        } else {
            own(FileKind::File, 0o400).sized(MAX_BYTES)
        }
    }

    pub(super) fn rendered_items(
        &self,
        caller: &Caller,
        what: &render::Place,
        items: &mut Vec<Item>,
    ) -> Result<()> {
        self.check_rendered(caller, what)?;
        items.extend(self.renderings.current().children(what).into_iter().map(|(name, child)| {
            let kind = if child.is_directory() { FileKind::Directory } else { FileKind::File };
            item(&name, self.rendered_inode(caller, &child), kind)
        }));
        Ok(())
    }

    /// Has the files touched that a secret is in.
    pub(super) fn touch_rendered(&self, changed: &SecretName) {
        if self.owners != Owners::Caller {
            // The kernel would check the toucher's own permissions, by what it was shown of the file's owner.
            return;
        }
        for (place, uid) in self.uses.with(changed, |inode| self.inodes.node(inode).is_ok()) {
            self.touch.touch(Touched { path: place.path(), uid: Some(uid) }, None);
        }
    }

    /// Presents a place to the toucher, as whose it is.
    pub(super) fn rendered_to_touch(&self, place: render::Place) -> Result<Entry> {
        self.renderings.current().has(&place).then_some(()).ok_or(FsError::NotFound)?;
        let uid = self.touch.whose().ok_or(FsError::NotFound)?;
        let owner = Caller::with_ids(uid, Gid(uid.0));
        let shown = self.show_rendered(&owner, &place);
        Ok(Entry::new(Node::Rendered(place), shown))
    }

    /// Returns how long the text is that the caller has open. Some programs, nginx among them, ask for
    /// the size of what they have opened and want just as many bytes. What another thread has open may
    /// be of another moment.
    pub(super) fn rendered_size(&self, caller: &Caller, inode: u64) -> Option<u64> {
        self.inodes.marked(inode).into_iter().rev().find_map(|number| {
            let handle = self.handles.find(number).ok()?;
            let own = (handle.opener.uid, handle.opener.tid) == (caller.uid, caller.tid);
            let Content::Values(text) = &handle.content else { return None };
            own.then(|| text.get().ok().map(|text| text.len() as u64)).flatten()
        })
    }

    fn check_rendered(&self, caller: &Caller, what: &render::Place) -> Result<()> {
        if !self.broker.has_any_right(caller) {
            return Err(FsError::Access);
        }
        self.renderings.current().has(what).then_some(()).ok_or(FsError::NotFound)
    }

    /// Returns a file's inode number: one a caller, because the bytes are the caller's own.
    fn rendered_inode(&self, caller: &Caller, what: &render::Place) -> u64 {
        let path = what.path();
        if what.is_directory() {
            return self.broker.inode(&path).0;
        }
        self.broker.inode(&format!("{path}@{}", caller.uid)).0
    }
}
