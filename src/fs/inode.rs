//! The nodes that the kernel knows, by node id.
//!
//! A node id is a keyed hash of a path, so a name that is removed and made again has the id it had
//! before, and a file that is bind-mounted alone follows its name. An entry lives as long as the
//! kernel holds lookups of it or handles on it. Each is in the journal before the kernel is told, so
//! that the next server knows it too.

use std::sync::Arc;

use super::error::{FsError, Result};
use super::journal::NodeLog;
use super::node::Node;
use super::numbered::Numbered;

/// The node id of the root.
pub(super) const ROOT: u64 = 1;

/// The table of nodes.
#[derive(Debug)]
pub(super) struct Inodes {
    entries: Numbered<Entry>,
    root: Arc<Node>,
    /// Lock order: its turn, then a part of `entries`.
    log: NodeLog,
}

#[derive(Debug)]
struct Entry {
    node: Arc<Node>,
    lookups: u64,
    /// The kernel has lookups that an earlier server counted: how many is not known.
    adopted: bool,
    handles: u32,
    /// Handles that are looked for by the inode: those that collect writes, and texts that were put
    /// together for who opened them.
    marked: Vec<u64>,
    /// Whether the kernel has asked for pages of its own cache since the last handle was opened.
    paged: bool,
}

impl Inodes {
    /// Returns a table that holds the root and what an earlier server has left in the log.
    pub(super) fn new(log: NodeLog) -> Self {
        let entries = Numbered::new();
        log.read(|inode, node| {
            let entry = Entry { adopted: true, ..Entry::of(Arc::new(node)) };
            entries.shard(inode).insert(inode, entry);
        });
        Self { entries, root: Arc::new(Node::Root), log }
    }

    /// Returns the node of an id. Errors: `Stale` for one that was forgotten.
    pub(super) fn node(&self, inode: u64) -> Result<Arc<Node>> {
        if inode == ROOT {
            return Ok(self.root.clone());
        }
        let shard = self.entries.shard(inode);
        shard.get(&inode).map(|entry| entry.node.clone()).ok_or(FsError::Stale)
    }

    /// Counts a lookup that the kernel is told of.
    pub(super) fn remember(&self, inode: u64, node: &Arc<Node>) {
        if inode == ROOT {
            return;
        }
        let mut shard = self.entries.shard(inode);
        if let Some(entry) = shard.get_mut(&inode).filter(|entry| *entry.node == **node) {
            entry.lookups += 1;
            return;
        }
        drop(shard);
        let mut turn = self.log.lock();
        let known = |keep: &mut dyn FnMut(u64, &Node)| {
            // Those in use first: if there is not room for all, others can be looked up again.
            for in_use in [true, false] {
                self.entries.for_each(|inode, entry| {
                    if (entry.handles > 0) == in_use {
                        keep(inode, &entry.node);
                    }
                });
            }
        };
        if !turn.append(inode, node, known) {
            tracing::debug!(inode, "not known to the next server");
        }
        let mut shard = self.entries.shard(inode);
        let entry = shard.entry(inode).or_insert_with(|| Entry::of(node.clone()));
        entry.lookups += 1;
        // The same path may have become a directory, or another trashed secret.
        entry.node = node.clone();
    }

    /// Takes back `count` lookups.
    pub(super) fn forget(&self, inode: u64, count: u64) {
        let mut shard = self.entries.shard(inode);
        if let Some(entry) = shard.get_mut(&inode) {
            // Where the count is not known, fewer than were counted since are some of those, and as
            // many or more are taken for all: the kernel forgets a node at once.
            entry.adopted &= count < entry.lookups;
            entry.lookups = entry.lookups.saturating_sub(count);
            if !entry.adopted && entry.lookups == 0 && entry.handles == 0 {
                shard.remove(&inode);
            }
        }
    }

    /// Counts a handle.
    pub(super) fn opened(&self, inode: u64, marked: Option<u64>) {
        if let Some(entry) = self.entries.shard(inode).get_mut(&inode) {
            entry.handles += 1;
            entry.marked.extend(marked);
        }
    }

    /// Tells whether somebody has it open.
    pub(super) fn is_open(&self, inode: u64) -> bool {
        self.entries.shard(inode).get(&inode).is_some_and(|entry| entry.handles > 0)
    }

    /// Notes that bytes went to the kernel's page cache.
    pub(super) fn paged(&self, inode: u64) {
        if let Some(entry) = self.entries.shard(inode).get_mut(&inode) {
            entry.paged = true;
        }
    }

    /// Returns the inodes that may have pages in the kernel's cache now.
    pub(super) fn with_pages(&self) -> Vec<u64> {
        let mut inodes = Vec::new();
        self.entries.for_each(|inode, entry| inodes.extend(entry.paged.then_some(inode)));
        inodes
    }

    /// Takes back a handle. Returns whether pages of the inode have to be dropped now.
    pub(super) fn released(&self, inode: u64, handle: u64) -> bool {
        let mut shard = self.entries.shard(inode);
        let Some(entry) = shard.get_mut(&inode) else { return false };
        entry.handles = entry.handles.saturating_sub(1);
        entry.marked.retain(|&marked| marked != handle);
        if entry.handles > 0 {
            return false;
        }
        let paged = std::mem::take(&mut entry.paged);
        if entry.lookups == 0 && !entry.adopted {
            shard.remove(&inode);
        }
        paged
    }

    /// Returns the marked handles, newest last.
    pub(super) fn marked(&self, inode: u64) -> Vec<u64> {
        self.entries.shard(inode).get(&inode).map(|e| e.marked.clone()).unwrap_or_default()
    }
}

impl Entry {
    fn of(node: Arc<Node>) -> Self {
        Self { node, lookups: 0, adopted: false, handles: 0, marked: Vec::new(), paged: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::journal::Journal;

    fn inodes() -> Inodes {
        Inodes::new(Journal::new().unwrap().nodes())
    }

    #[test]
    fn the_next_server_knows_every_node_until_the_kernel_forgets_it() {
        let journal = Journal::new().unwrap();
        let first = Inodes::new(journal.nodes());
        first.remember(7, &secret("a"));
        first.remember(8, &secret("b"));
        first.remember(8, &secret("c"));
        let next = Inodes::new(journal.nodes());
        assert_eq!(*next.node(8).unwrap(), *secret("c"));
        next.remember(7, &secret("a"));
        next.remember(7, &secret("a"));
        next.forget(7, 1);
        assert!(next.node(7).is_ok());
        next.forget(7, 5);
        assert!(next.node(7).is_err());
        next.opened(8, None);
        next.released(8, 1);
        assert!(next.node(8).is_ok(), "the kernel still has lookups of it");
        next.forget(8, 1);
        assert!(next.node(8).is_err());
    }

    fn secret(name: &str) -> Arc<Node> {
        Arc::new(Node::Secret(name.parse().unwrap()))
    }

    #[test]
    fn a_node_is_known_until_every_lookup_is_taken_back() {
        let inodes = inodes();
        inodes.remember(7, &secret("a"));
        inodes.remember(7, &secret("a"));
        inodes.forget(7, 1);
        assert!(inodes.node(7).is_ok());
        inodes.forget(7, 1);
        assert!(matches!(inodes.node(7), Err(FsError::Stale)));
    }

    #[test]
    fn a_forgotten_node_is_kept_for_its_handles() {
        let inodes = inodes();
        inodes.remember(7, &secret("a"));
        inodes.opened(7, None);
        inodes.forget(7, 1);
        assert!(inodes.node(7).is_ok());
        inodes.released(7, 1);
        assert!(inodes.node(7).is_err());
    }

    #[test]
    fn pages_are_dropped_with_the_last_handle_and_only_if_there_are_any() {
        let inodes = inodes();
        inodes.remember(7, &secret("a"));
        inodes.opened(7, None);
        inodes.opened(7, Some(2));
        inodes.paged(7);
        assert_eq!(inodes.with_pages(), [7]);
        assert!(!inodes.released(7, 1));
        assert!(inodes.released(7, 2));
        assert!(inodes.with_pages().is_empty());
        inodes.opened(7, None);
        assert!(!inodes.released(7, 3));
    }

    #[test]
    fn an_id_whose_name_was_made_again_serves_the_new_node() {
        let inodes = inodes();
        inodes.remember(7, &secret("a"));
        inodes.remember(7, &Arc::new(Node::Directory("a".parse().unwrap())));
        assert!(matches!(*inodes.node(7).unwrap(), Node::Directory(_)));
    }
}
