//! The nodes that the kernel knows by their ids, as a log that is written anew when it is large.
//!
//! A record is appended when a node is first told to the kernel, not at each lookup. What was
//! forgotten is left out when the log is written anew, into its other half. Where so much is known that
//! this makes no room, it is not done again for a while: nodes are left out instead, and nobody is held
//! up. A node that is left out costs whoever has it open nothing but ESTALE after a takeover.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use super::NODES;
use crate::fs::node::Node;
use crate::system::SharedMap;

/// Size of one half in bytes; takes memory only as far as it is written.
const HALF: usize = 64 << 20;
/// Which half counts.
const AT_ACTIVE: usize = NODES;

/// Size of this part in bytes.
pub(super) const BYTES: usize = 4096 + 2 * HALF;

/// The id and the length of what follows.
const HEAD: usize = 8 + 2;

/// The log.
#[derive(Debug)]
pub(in crate::fs) struct NodeLog {
    map: Arc<SharedMap>,
    /// How many nodes are to be left out before the log is written anew.
    turn: Mutex<u32>,
}

/// Nodes that are left out between two tries to make room: writing anew takes as long as a few hundred
/// thousand appends.
const LEFT_OUT: u32 = 1 << 18;

/// The right to append: one thread at a time.
#[derive(Debug)]
pub(in crate::fs) struct Appending<'a> {
    log: &'a NodeLog,
    left_out: MutexGuard<'a, u32>,
}

impl NodeLog {
    pub(super) fn new(map: Arc<SharedMap>) -> Self {
        Self { map, turn: Mutex::new(0) }
    }

    /// Waits for its turn.
    pub(in crate::fs) fn lock(&self) -> Appending<'_> {
        Appending { log: self, left_out: self.turn.lock() }
    }

    /// Calls `found` with each node of the log; a later one of the same id counts.
    pub(in crate::fs) fn read(&self, mut found: impl FnMut(u64, Node)) {
        let half = self.active();
        let mut bytes = vec![0; self.len(half)];
        self.map.read(at_half(half), &mut bytes);
        let mut rest = bytes.as_slice();
        while let Some((head, after)) = rest.split_first_chunk::<HEAD>() {
            let [a, b, c, d, e, f, g, h, low, high] = *head;
            let len = usize::from(u16::from_le_bytes([low, high]));
            let Some((text, after)) = after.split_at_checked(len) else { return };
            if let Some(node) = std::str::from_utf8(text).ok().and_then(Node::from_kept) {
                found(u64::from_le_bytes([a, b, c, d, e, f, g, h]), node);
            }
            rest = after;
        }
    }

    fn active(&self) -> usize {
        usize::from(self.map.load(AT_ACTIVE) == 1)
    }

    fn len(&self, half: usize) -> usize {
        usize::try_from(self.map.load(at_len(half))).unwrap_or(0).min(HALF)
    }

    fn append(&self, half: usize, id: u64, text: &str) -> bool {
        let (at, Ok(len)) = (self.len(half), u16::try_from(text.len())) else { return false };
        let end = at + HEAD + text.len();
        if end > HALF {
            return false;
        }
        let place = at_half(half) + at;
        self.map.write(place, &id.to_le_bytes());
        self.map.write(place + 8, &len.to_le_bytes());
        self.map.write(place + HEAD, text.as_bytes());
        // Last: what the length reaches is whole.
        self.map.store(at_len(half), end as u64);
        true
    }
}

impl Appending<'_> {
    /// Appends a node, unless it is one that ends with the server. When there is no room, writes
    /// the log anew with what `known` gives. Returns whether the node is in it.
    pub(in crate::fs) fn append(
        &mut self,
        id: u64,
        node: &Node,
        known: impl FnOnce(&mut dyn FnMut(u64, &Node)),
    ) -> bool {
        let Some(text) = node.to_kept() else { return true };
        if self.log.append(self.log.active(), id, &text) {
            return true;
        }
        if *self.left_out > 0 {
            *self.left_out -= 1;
            return false;
        }
        let other = 1 - self.log.active();
        self.log.map.store(at_len(other), 0);
        known(&mut |id, node| {
            if let Some(text) = node.to_kept() {
                self.log.append(other, id, &text);
            }
        });
        self.log.map.store(AT_ACTIVE, other as u64);
        let is_in = self.log.append(other, id, &text);
        if self.log.len(other) > HALF / 4 * 3 {
            tracing::warn!("more nodes are known than a next server can be told of");
            *self.left_out = LEFT_OUT;
        }
        is_in
    }
}

/// Where it stands how far a half is written.
const fn at_len(half: usize) -> usize {
    NODES + 8 + 8 * half
}

const fn at_half(half: usize) -> usize {
    NODES + 4096 + half * HALF
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::journal::Journal;

    fn secret(name: &str) -> Node {
        Node::Secret(name.parse().unwrap())
    }

    fn nodes(log: &NodeLog) -> Vec<(u64, Node)> {
        let mut all = Vec::new();
        log.read(|id, node| all.push((id, node)));
        all
    }

    #[test]
    fn the_next_server_reads_every_node_in_order() {
        let journal = Journal::new().unwrap();
        let log = journal.nodes();
        for (id, name) in [(7, "prod/db"), (9, "a")] {
            assert!(log.lock().append(id, &secret(name), |_| panic!("there is room")));
        }
        assert_eq!(nodes(&journal.nodes()), [(7, secret("prod/db")), (9, secret("a"))]);
    }

    #[test]
    fn a_full_log_is_written_anew_with_what_is_still_known() {
        let journal = Journal::new().unwrap();
        let log = journal.nodes();
        let long = secret(&"x".repeat(250));
        let mut anew = 0;
        for id in 0..600_000 {
            let mut turn = log.lock();
            assert!(turn.append(id, &long, |keep| {
                anew += 1;
                keep(1, &secret("kept"));
            }));
        }
        assert_eq!(anew, 2);
        let all = nodes(&journal.nodes());
        assert_eq!(all[0], (1, secret("kept")));
        assert_eq!(all.last(), Some(&(599_999, long)));
    }

    #[test]
    fn a_log_in_which_nothing_can_be_left_out_is_not_written_anew_for_each_node() {
        let journal = Journal::new().unwrap();
        let log = journal.nodes();
        let long = secret(&"x".repeat(250));
        let known = 300_000;
        let mut anew = 0;
        for id in 0..known + 1_000 {
            log.lock().append(id, &long, |keep| {
                anew += 1;
                (0..known).for_each(|id| keep(id, &long));
            });
        }
        assert_eq!(anew, 1);
    }
}
