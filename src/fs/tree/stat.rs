//! stat(2), access(2), and the changes of attributes that are none.

use std::sync::Arc;

use super::Tree;
use crate::fs::attributes::{Attributes, FileKind};
use crate::fs::error::{FsError, Result};
use crate::fs::handle::{Content, Handle};
use crate::fs::node::{Node, View};
use crate::fs::writer::Writer;
use crate::model::{Caller, Level, SecretName};
use crate::system::SecretBytes;

/// What a SETATTR asks for.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::fs) struct Change {
    pub(in crate::fs) mode: Option<u32>,
    pub(in crate::fs) uid: Option<u32>,
    pub(in crate::fs) gid: Option<u32>,
    pub(in crate::fs) size: Option<u64>,
}

impl Tree {
    /// Presents a node. A handle that has collected bytes shows how many they are.
    pub(in crate::fs) fn attributes(
        &self,
        caller: &Caller,
        inode: u64,
        handle: Option<u64>,
    ) -> Result<Attributes> {
        let node = self.inodes.node(inode)?;
        if let Some(attributes) = self.attributes_of_open(caller, inode, &node) {
            return Ok(attributes);
        }
        let attributes = self.present(caller, inode, &node)?;
        let handle = handle.and_then(|number| self.handles.find(number).ok());
        if let Some(Content::Writer(writer)) = handle.as_deref().map(|handle| &handle.content)
            && let Some(bytes) = writer.len()
        {
            return Ok(attributes.sized(bytes));
        }
        let rendered =
            matches!(*node, Node::Rendered(_)).then(|| self.rendered_size(caller, inode));
        Ok(attributes.sized(rendered.flatten().unwrap_or(attributes.size)))
    }

    /// Presents what the caller has open by a right that it has no more: it was the last of its counted reads,
    /// or the right's time is over. What is open stays so, and most programs ask for the size of what they have
    /// opened (fstat(2), of which the kernel does not say by which handle). That it was opened is on record.
    fn attributes_of_open(&self, caller: &Caller, inode: u64, node: &Node) -> Option<Attributes> {
        let size = if let Node::Secret(name) | Node::View(View { of: Some(name), .. }) = node {
            if !self.inodes.is_open(inode) || self.broker.levels(caller, name).allow(Level::Read) {
                return None;
            }
            self.handles.size_open_to(caller.uid, inode)?
        } else if let Node::Rendered(_) = node {
            self.rendered_size(caller, inode)?
        } else {
            return None;
        };
        let shown = Attributes::own(caller, inode, FileKind::File, 0o400, self.started);
        Some(shown.shared(self.owners).sized(size))
    }

    /// Checks access(2). `mask` has the bits of R_OK, W_OK and X_OK.
    pub(in crate::fs) fn access(&self, caller: &Caller, inode: u64, mask: i32) -> Result<()> {
        let shown = self.attributes(caller, inode, None)?;
        let executable = if shown.kind == FileKind::Directory { libc::X_OK } else { 0 };
        let refused = |bit, mode| mask & bit != 0 && shown.mode & mode == 0;
        if mask & libc::X_OK & !executable != 0
            || refused(libc::R_OK, 0o444)
            || refused(libc::W_OK, 0o222)
        {
            return Err(FsError::Access);
        }
        Ok(())
    }

    /// Sets the length of what a handle has collected, and otherwise takes only an owner and a mode
    /// that are presented already. Times are the store's: what is asked for is not kept, and is no
    /// error, because `mv`, `tar` and `rsync` ask for it with every file. Returns the attributes as readers see them: a truncation is not one yet.
    pub(in crate::fs) fn set_attributes(
        &self,
        caller: &Caller,
        inode: u64,
        handle: Option<u64>,
        change: Change,
    ) -> Result<Attributes> {
        let node = self.inodes.node(inode)?;
        let shown = self.present(caller, inode, &node)?;
        if let Some(size) = change.size {
            self.truncate(caller, inode, &node, handle, size, &shown)?;
        }
        if let Node::Scratch(file) = &*node {
            change
                .mode
                .iter()
                .for_each(|mode| file.set_mode(u16::try_from(mode & 0o777).unwrap_or(0)));
        } else {
            let same_mode = change.mode.is_none_or(|mode| mode & 0o7777 == u32::from(shown.mode));
            same_mode.then_some(()).ok_or(FsError::NotPermitted)?;
        }
        if change.uid.is_some_and(|uid| uid != shown.uid)
            || change.gid.is_some_and(|gid| gid != shown.gid)
        {
            return Err(FsError::NotPermitted);
        }
        self.present(caller, inode, &node)
    }

    fn truncate(
        &self,
        caller: &Caller,
        inode: u64,
        node: &Arc<Node>,
        handle: Option<u64>,
        size: u64,
        shown: &Attributes,
    ) -> Result<()> {
        if let Some(number) = handle {
            return self.truncate_handle(&*self.handles.find(number)?, size);
        }
        match &**node {
            Node::Secret(name) | Node::View(View { of: Some(name), .. }) => {
                // O_TRUNC comes right after the OPEN, from the same thread, and names no handle.
                for number in self.inodes.marked(inode).into_iter().rev() {
                    let handle = self.handles.find(number)?;
                    if let Content::Writer(writer) = &handle.content
                        && handle.opener.uid == caller.uid
                        && writer.awaits_truncation(caller.tid)
                    {
                        return self.truncate_writer(&handle, writer, size);
                    }
                }
                self.broker.check(caller, Level::Write, name)?;
                // Truncation alone publishes nothing, so any other length would not be kept.
                let kept = size == 0 || size == shown.size;
                kept.then_some(()).ok_or(FsError::NotPermitted)
            }
            Node::Scratch(file) => file.resize(self.checked_size(size)?),
            Node::Control(_) => Ok(()),
            Node::By(_)
            | Node::Directory(_)
            | Node::Rendered(_)
            | Node::Root
            | Node::Trashed(_)
            | Node::View(_) => Err(FsError::NotPermitted),
        }
    }

    fn truncate_handle(&self, handle: &Handle, size: u64) -> Result<()> {
        match &handle.content {
            Content::Command(_) => Ok(()),
            Content::Gone(gone) => Err(gone.error()),
            Content::Restore(restore) if size == 0 => restore.clear(),
            Content::Scratch(file) => file.resize(self.checked_size(size)?),
            Content::Writer(writer) => {
                handle.ticket.lock().hold(self.checked_size(size)? as u64)?;
                self.truncate_writer(handle, writer, size)
            }
            Content::AuditLog(_)
            | Content::Backup(_)
            | Content::Bytes(_)
            | Content::Directory(_)
            | Content::Events(_)
            | Content::Health(_)
            | Content::Restore(_)
            | Content::Secret(_)
            | Content::Values(_) => Err(FsError::Invalid),
        }
    }

    fn truncate_writer(&self, handle: &Handle, writer: &Writer, size: u64) -> Result<()> {
        writer.truncate(size, || self.base(&handle.opener, &writer.name()))?;
        self.handles.set_fate(handle, writer.fate());
        Ok(())
    }

    /// Reads what an append or a partial overwrite starts from.
    pub(super) fn base(&self, opener: &Caller, name: &SecretName) -> Result<Option<SecretBytes>> {
        Ok(self.broker.base(opener, name)?.map(|opened| opened.value))
    }

    pub(super) fn max_bytes(&self) -> usize {
        usize::try_from(self.broker.limits().max_value_bytes).unwrap_or(usize::MAX)
    }

    fn checked_size(&self, size: u64) -> Result<usize> {
        let size = usize::try_from(size).ok().filter(|size| *size <= self.max_bytes());
        size.ok_or(FsError::TooBig)
    }
}
