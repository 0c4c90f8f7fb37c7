//! `.control/trash`: soft-deleted secrets, each as one entry.
//!
//! A name's slashes are shown as colons. Of several secrets that had one name, the newest has the
//! plain entry and the older ones `~2`, `~3` and so on behind it.

use std::collections::HashMap;

use crate::broker::Trashed;
use crate::fs::by::flat;
use crate::model::SecretName;

/// One entry of the trash.
#[derive(Debug)]
pub(in crate::fs) struct Entry {
    pub(in crate::fs) name: String,
    pub(in crate::fs) trashed: Trashed,
}

/// Names the entries of a trash, which is listed newest first.
pub(in crate::fs) fn entries(trash: Vec<Trashed>) -> Vec<Entry> {
    let mut seen: HashMap<SecretName, u32> = HashMap::new();
    let name = |trashed: Trashed| {
        let nth = seen.entry(trashed.name.clone()).or_default();
        *nth += 1;
        let flat = flat(&trashed.name);
        let name = if *nth == 1 { flat } else { format!("{flat}~{nth}") };
        Entry { name, trashed }
    };
    trash.into_iter().map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Inode, SecretId, Timestamp};

    #[test]
    fn older_secrets_of_one_name_are_numbered_and_no_two_entries_are_alike() {
        let trashed = |name: &str| Trashed {
            id: SecretId([0; 16]),
            name: name.parse().unwrap(),
            deleted: Timestamp::UNIX_EPOCH,
            purge_after: Timestamp::UNIX_EPOCH,
            size: 1,
            inode: Inode(9),
        };
        let entries = entries(vec![trashed("a/b"), trashed("c"), trashed("a/b"), trashed("a/b")]);
        let names: Vec<_> = entries.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, ["a:b", "c", "a:b~2", "a:b~3"]);
    }
}
