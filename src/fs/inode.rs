//! The nodes that the kernel knows, by node id.
//!
//! A node id is a keyed hash of a path, so a name that is removed and made again has the id it had
//! before, and a file that is bind-mounted alone follows its name. An entry lives as long as the
//! kernel holds lookups of it or handles on it.

use std::sync::Arc;

use super::error::{FsError, Result};
use super::node::Node;
use super::numbered::Numbered;

/// The node id of the root.
pub(super) const ROOT: u64 = 1;

/// The table of nodes.
#[derive(Debug)]
pub(super) struct Inodes {
    entries: Numbered<Entry>,
    root: Arc<Node>,
}

#[derive(Debug)]
struct Entry {
    node: Arc<Node>,
    lookups: u64,
    handles: u32,
    /// Handles that collect writes.
    writers: Vec<u64>,
    /// Whether the kernel has asked for pages of its own cache since the last handle was opened.
    paged: bool,
}

impl Inodes {
    /// Returns a table that holds the root alone.
    pub(super) fn new() -> Self {
        Self { entries: Numbered::new(), root: Arc::new(Node::Root) }
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
        let entry = shard.entry(inode).or_insert_with(|| Entry {
            node: node.clone(),
            lookups: 0,
            handles: 0,
            writers: Vec::new(),
            paged: false,
        });
        entry.lookups += 1;
        // The same path may have become a directory, or another trashed secret.
        if *entry.node != **node {
            entry.node = node.clone();
        }
    }

    /// Takes back `count` lookups.
    pub(super) fn forget(&self, inode: u64, count: u64) {
        let mut shard = self.entries.shard(inode);
        if let Some(entry) = shard.get_mut(&inode) {
            entry.lookups = entry.lookups.saturating_sub(count);
            if entry.lookups == 0 && entry.handles == 0 {
                shard.remove(&inode);
            }
        }
    }

    /// Counts a handle.
    pub(super) fn opened(&self, inode: u64, writer: Option<u64>) {
        if let Some(entry) = self.entries.shard(inode).get_mut(&inode) {
            entry.handles += 1;
            entry.writers.extend(writer);
        }
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
        entry.writers.retain(|&writer| writer != handle);
        if entry.handles > 0 {
            return false;
        }
        let paged = std::mem::take(&mut entry.paged);
        if entry.lookups == 0 {
            shard.remove(&inode);
        }
        paged
    }

    /// Returns the handles that collect writes, newest last.
    pub(super) fn writers(&self, inode: u64) -> Vec<u64> {
        self.entries.shard(inode).get(&inode).map(|e| e.writers.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(name: &str) -> Arc<Node> {
        Arc::new(Node::Secret(name.parse().unwrap()))
    }

    #[test]
    fn a_node_is_known_until_every_lookup_is_taken_back() {
        let inodes = Inodes::new();
        inodes.remember(7, &secret("a"));
        inodes.remember(7, &secret("a"));
        inodes.forget(7, 1);
        assert!(inodes.node(7).is_ok());
        inodes.forget(7, 1);
        assert!(matches!(inodes.node(7), Err(FsError::Stale)));
    }

    #[test]
    fn a_forgotten_node_is_kept_for_its_handles() {
        let inodes = Inodes::new();
        inodes.remember(7, &secret("a"));
        inodes.opened(7, None);
        inodes.forget(7, 1);
        assert!(inodes.node(7).is_ok());
        inodes.released(7, 1);
        assert!(inodes.node(7).is_err());
    }

    #[test]
    fn pages_are_dropped_with_the_last_handle_and_only_if_there_are_any() {
        let inodes = Inodes::new();
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
        let inodes = Inodes::new();
        inodes.remember(7, &secret("a"));
        inodes.remember(7, &Arc::new(Node::Directory("a".parse().unwrap())));
        assert!(matches!(*inodes.node(7).unwrap(), Node::Directory(_)));
    }
}
