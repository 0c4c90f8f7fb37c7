//! What the process that touches files for watchers may do: find a path, open it, close it.
//!
//! It is told apart by its process id and not by the policy, so it must get nothing that a caller
//! could want: no listing, no byte, no version.

use super::Tree;
use super::lookup::Entry;
use super::open::{Opening, Place, Want};
use crate::broker::{BrokerError, Found};
use crate::fs::attributes::Attributes;
use crate::fs::error::{FsError, Result};
use crate::fs::handle::Content;
use crate::fs::node::{Meaning, Node, meaning};
use crate::model::{Caller, Gid, Uid};

impl Tree {
    /// Tells whether a request is the toucher's.
    pub(in crate::fs) fn is_toucher(&self, tid: u32) -> bool {
        self.touch.is_toucher(tid)
    }

    /// Looks a path up, whoever may know of it.
    pub(in crate::fs) fn lookup_to_touch(&self, parent: u64, name: &[u8]) -> Result<Entry> {
        let path = match meaning(&*self.inodes.node(parent)?, name) {
            Meaning::Path(path) => path,
            Meaning::Rendered(place) => return self.rendered_to_touch(place),
            Meaning::Bad
            | Meaning::By(_)
            | Meaning::Control(_)
            | Meaning::Member { .. }
            | Meaning::Scratch(_)
            | Meaning::Trashed(_)
            | Meaning::View(_) => return Err(FsError::NotFound),
        };
        match self.broker.presence(&path) {
            Ok(Found::Directory(directory)) => {
                let shown =
                    Attributes::of_directory(&nobody(), false, directory.inode.0, self.started);
                Ok(Entry::new(Node::Directory(path), shown.shared(self.owners)))
            }
            Ok(Found::Secret(secret)) => {
                let shown = Attributes::of_secret(self.owners, &nobody(), &secret);
                Ok(Entry::new(Node::Secret(path), shown))
            }
            Err(BrokerError::NotFound(_)) => Err(FsError::NotFound),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens a secret's file, or one that secrets are in, for its close alone.
    pub(in crate::fs) fn open_to_touch(&self, inode: u64) -> Result<Opening> {
        let node = self.inodes.node(inode)?;
        let is_file = match &*node {
            Node::Secret(_) => true,
            Node::Rendered(place) => !place.is_directory(),
            Node::By(_)
            | Node::Control(_)
            | Node::Directory(_)
            | Node::Root
            | Node::Scratch(_)
            | Node::Trashed(_)
            | Node::View(_) => false,
        };
        is_file.then_some(()).ok_or(FsError::Access)?;
        let (caller, ticket) = (nobody(), self.quotas.take(nobody().uid.0)?);
        let want = Want { read: false, write: true, new: false, truncate: false };
        let place = Place { caller: &caller, inode, want, ticket };
        Ok(place.opening(Content::Bytes(Vec::new().into())).without_flush())
    }
}

/// Returns an owner for what is shown to the toucher: the overflow uid, which is nobody.
fn nobody() -> Caller {
    const OVERFLOW: u32 = 65_534;
    Caller::with_ids(Uid(OVERFLOW), Gid(OVERFLOW))
}
