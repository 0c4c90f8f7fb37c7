//! Of which secrets the files are made that callers have opened, so that who watches one is told.
//!
//! It lasts as long as the kernel knows a file, which a watch sees to. A server that takes over begins without.

use std::collections::{BTreeSet, HashMap};

use parking_lot::Mutex;

use super::Place;
use crate::model::{SecretName, Uid};

/// The files, by their inodes: one a caller.
#[derive(Debug, Default)]
pub(in crate::fs) struct Uses(Mutex<HashMap<u64, Use>>);

#[derive(Debug)]
struct Use {
    place: Place,
    uid: Uid,
    names: BTreeSet<SecretName>,
}

impl Uses {
    /// Notes what a file is made of, before it is. Those that are not `known` any more are forgotten.
    pub(in crate::fs) fn note(
        &self,
        (inode, place, uid): (u64, &Place, Uid),
        names: BTreeSet<SecretName>,
        known: impl Fn(u64) -> bool,
    ) {
        let mut uses = self.0.lock();
        // Only a new file makes it grow, and so only a new one pays.
        if !uses.contains_key(&inode) && uses.len() >= uses.capacity() {
            uses.retain(|inode, _| known(*inode));
        }
        uses.insert(inode, Use { place: place.clone(), uid, names });
    }

    /// Returns the files that a secret is in, each with whose it is.
    pub(in crate::fs) fn with(
        &self,
        name: &SecretName,
        known: impl Fn(u64) -> bool,
    ) -> Vec<(Place, Uid)> {
        let uses = self.0.lock();
        let found = uses.iter().filter(|(inode, used)| used.names.contains(name) && known(**inode));
        found.map(|(_, used)| (used.place.clone(), used.uid)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_found_by_what_is_in_it_as_long_as_it_is_known() {
        let uses = Uses::default();
        let name = |text: &str| text.parse::<SecretName>().unwrap();
        uses.note((7, &Place::Template("t".into()), Uid(1)), [name("a"), name("b")].into(), |_| {
            true
        });
        uses.note((8, &Place::Layers, Uid(2)), [name("b")].into(), |_| true);
        let uids = |text: &str| {
            let mut uids: Vec<u32> =
                uses.with(&name(text), |_| true).iter().map(|(_, uid)| uid.0).collect();
            uids.sort_unstable();
            uids
        };
        assert_eq!((uids("a"), uids("b"), uids("c")), (vec![1], vec![1, 2], vec![]));
        assert!(uses.with(&name("a"), |_| false).is_empty());
        for inode in 100..1000 {
            uses.note((inode, &Place::Templates, Uid(3)), [name("d")].into(), |known| {
                known == inode
            });
        }
        assert!(uses.0.lock().len() < 20, "what the kernel has forgotten does not add up");
    }
}
