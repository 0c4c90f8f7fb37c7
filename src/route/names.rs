//! Which directories a service has, as of its last listing.
//!
//! A path on the way to a secret is looked up before the secret is, and whether it is a directory the service
//! says by its list alone. One that does not let us list may have any directory: then what is no secret is one.

use std::collections::HashSet;

use crate::model::Timestamp;

/// Paths that were taken for directories beyond a listing's; more are forgotten.
const MAX_PRESUMED: usize = 10_000;

/// The directories, as paths below the route.
#[derive(Debug, Default)]
pub(super) struct Directories {
    known: HashSet<Box<str>>,
    presumed: HashSet<Box<str>>,
    /// When the service was last asked for its list.
    pub(super) asked: Option<Timestamp>,
    pub(super) may_list: bool,
}

impl Directories {
    pub(super) fn contains(&self, path: &str) -> bool {
        self.known.contains(path) || self.presumed.contains(path)
    }

    /// Takes a whole listing.
    pub(super) fn replace(&mut self, names: &[String], now: Timestamp) {
        self.known.clear();
        self.presumed.clear();
        for name in names {
            let ends = name.match_indices('/').map(|(end, _)| end);
            for directory in ends.filter_map(|end| name.get(..end)) {
                if !self.known.contains(directory) {
                    self.known.insert(directory.into());
                }
            }
        }
        (self.asked, self.may_list) = (Some(now), true);
    }

    /// Notes that the service does not let us list.
    pub(super) fn refuse(&mut self, now: Timestamp) {
        (self.asked, self.may_list) = (Some(now), false);
    }

    /// Takes a path for a directory, since the service says only that it is no secret.
    pub(super) fn presume(&mut self, path: &str) {
        if self.presumed.len() >= MAX_PRESUMED {
            self.presumed.clear();
        }
        self.presumed.insert(path.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_name_but_its_last_is_a_directory() {
        let mut directories = Directories::default();
        let names = ["a/b/c", "a/d", "e"].map(str::to_owned);
        directories.replace(&names, Timestamp::UNIX_EPOCH);
        assert!(directories.contains("a") && directories.contains("a/b"));
        assert!(!directories.contains("a/b/c") && !directories.contains("e"));
        directories.presume("x");
        assert!(directories.contains("x"));
        directories.replace(&[], Timestamp::UNIX_EPOCH);
        assert!(!directories.contains("a") && !directories.contains("x"));
    }
}
