//! What a side of a copy has to do, whichever it is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::backend::VersionId;
use crate::system::SecretBytes;

/// The store or a service, below one place. Names are relative to that place.
///
/// Many threads may call at the same time. No error holds a value.
pub(crate) trait Side: Sync {
    /// Whether older versions stay when a new one is made.
    fn keeps_versions(&self) -> bool;

    /// Whether a name of a secret cannot be one of a directory too.
    fn is_tree(&self) -> bool;

    /// Every name, also of what can be no secret elsewhere.
    fn names(&self) -> Result<BTreeSet<String>, Trouble>;

    /// What is known of a secret without its values; `None` if there is none.
    fn look(&self, name: &str) -> Result<Option<Held>, Trouble>;

    /// A version's value.
    fn read(&self, name: &str, version: &VersionId) -> Result<SecretBytes, Trouble>;

    /// Says why a secret of this name and size, where that is known, can never be here. Nobody is asked.
    fn refuses(&self, name: &str, bytes: Option<usize>) -> Option<String>;

    /// Makes a version after `after`, or the first one of a secret. Errors: `Changed`, if another one is current.
    fn write(
        &self,
        name: &str,
        value: &SecretBytes,
        after: After<'_>,
    ) -> Result<VersionId, Trouble>;

    /// Whether such a tag can be here.
    fn holds(&self, key: &str, value: &str) -> bool;

    /// Adds tags to those that are there.
    fn annotate(&self, name: &str, tags: &Tags) -> Result<(), Trouble>;
}

/// What is known of a secret beside its versions, in the words of services: a tag of the store's, which is a word, is one
/// with the value `true`, and `description`, `environment`, `expires` and `service` are tags of these names.
pub(crate) type Tags = BTreeMap<String, String>;

/// A secret without its values.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Held {
    /// The one that is current, whether it can be read or not.
    pub current: Option<Mark>,
    /// Those that can be read, oldest first.
    pub versions: Vec<Edition>,
    /// The first of them is the first that there ever was.
    pub is_whole: bool,
    pub tags: Tags,
}

impl Held {
    /// Returns the current version if it can be read: else it was deleted or disabled.
    pub(crate) fn readable(&self) -> Option<&Edition> {
        self.versions.last().filter(|last| Some(&last.mark) == self.current.as_ref())
    }
}

/// A version that can be read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Edition {
    pub mark: Mark,
    /// Where that is known without the value.
    pub bytes: Option<usize>,
}

/// Which version it is. A number alone would not do: a name that was destroyed and made again begins anew.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Mark {
    pub id: VersionId,
    /// What tells it from another one of that number: when it was made, or the secret's own id.
    pub made: String,
}

/// What a version is made after.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum After<'a> {
    /// There is no such secret.
    Nothing,
    Version(&'a VersionId),
}

/// Why a side did not do what it should.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum Trouble {
    /// Somebody has made another version meanwhile, or what was to be read is gone.
    #[error("it was changed meanwhile")]
    Changed,
    /// Nothing more can be done on this side by anybody in this run.
    #[error("{0}")]
    Lost(String),
    /// The same may work a little later.
    #[error("{why}")]
    Passing { why: String, rest: Option<Duration> },
    /// It will not work with this name.
    #[error("{0}")]
    Refused(String),
}
