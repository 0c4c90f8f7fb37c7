//! Which directories a service has, as of its last listing.
//!
//! A path on the way to a secret is looked up before the secret is, and whether it is a directory the service
//! says by its list alone. One that does not let us list may have any directory: then what is no secret is one.

use std::collections::HashSet;
use std::time::Duration;

use crate::broker::UpstreamError;

/// Paths that were taken for directories beyond a listing's; more are forgotten.
const MAX_PRESUMED: usize = 10_000;

/// What came of the last request for the list.
#[derive(Clone, Debug)]
pub(super) enum Listing {
    Failed(UpstreamError),
    Given,
    /// The service does not let us list.
    Refused,
}

/// The directories, as paths below the route. Times are those since the host's start.
#[derive(Debug, Default)]
pub(super) struct Directories {
    known: HashSet<Box<str>>,
    presumed: HashSet<Box<str>>,
    /// And until when it is not asked for anew.
    last: Option<(Listing, Duration)>,
}

impl Directories {
    pub(super) fn contains(&self, path: &str) -> bool {
        self.known.contains(path) || self.presumed.contains(path)
    }

    /// Returns what came of the list, if it was asked for just now.
    pub(super) fn listing(&self, now: Duration) -> Option<&Listing> {
        self.last.as_ref().filter(|(_, until)| now <= *until).map(|(listing, _)| listing)
    }

    /// Takes a whole listing. What is no directory in it is none any more.
    pub(super) fn replace(&mut self, names: &[String], until: Duration) {
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
        self.last = Some((Listing::Given, until));
    }

    /// Notes that there is no list to be had.
    pub(super) fn fail(&mut self, listing: Listing, until: Duration) {
        self.last = Some((listing, until));
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
        directories.replace(&names, Duration::ZERO);
        assert!(directories.contains("a") && directories.contains("a/b"));
        assert!(!directories.contains("a/b/c") && !directories.contains("e"));
        directories.presume("x");
        assert!(directories.contains("x"));
        directories.replace(&[], Duration::ZERO);
        assert!(!directories.contains("a") && !directories.contains("x"));
    }
}
