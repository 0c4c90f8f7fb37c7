//! `.control/trash`: soft-deleted secrets, each as one entry.
//!
//! A name's slashes are shown as colons. Of several secrets that had one name, the first has the
//! plain entry and the later ones `~2`, `~3` and so on behind it. An entry keeps its name for as
//! long as it is there: what was chosen from a listing is what is destroyed.

use crate::broker::Trashed;
use crate::fs::by::flat;

/// One entry of the trash.
#[derive(Debug)]
pub(in crate::fs) struct Entry {
    pub(in crate::fs) name: String,
    pub(in crate::fs) trashed: Trashed,
}

/// Names the entries of a trash.
pub(in crate::fs) fn entries(trash: Vec<Trashed>) -> Vec<Entry> {
    trash.into_iter().map(|trashed| Entry { name: entry_name(&trashed), trashed }).collect()
}

fn entry_name(trashed: &Trashed) -> String {
    let flat = flat(&trashed.name);
    if trashed.number <= 1 { flat } else { format!("{flat}~{}", trashed.number) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Inode, SecretId, Timestamp};

    #[test]
    fn later_secrets_of_one_name_are_numbered_and_no_two_entries_are_alike() {
        let trashed = |name: &str, number| Trashed {
            id: SecretId([0; 16]),
            name: name.parse().unwrap(),
            number,
            deleted: Timestamp::UNIX_EPOCH,
            purge_after: Timestamp::UNIX_EPOCH,
            size: 1,
            inode: Inode(9),
        };
        let entries = entries(vec![trashed("a/b", 3), trashed("c", 1), trashed("a/b", 1)]);
        let names: Vec<_> = entries.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, ["a:b~3", "c", "a:b"]);
    }
}
