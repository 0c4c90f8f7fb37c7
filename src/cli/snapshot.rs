//! Values that were all current at one moment, and which versions they are.
//!
//! The versions are asked for before and after the values are read; if they differ, everything is read
//! again. So a certificate comes with its key, and a caller that watches for changes from the versions
//! on misses none.

use std::collections::{BTreeMap, BTreeSet};

use super::client::Client;
use super::error::{Failure, Kind};
use crate::model::SecretName;
use crate::system::SecretBytes;

/// Secrets that change faster than this many reads of them all are not waited for.
const TRIES: usize = 50;

/// The current version of each secret; `None` for one that is not there.
pub(crate) type Versions = BTreeMap<SecretName, Option<String>>;

/// Values of one moment.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub versions: Versions,
    values: BTreeMap<SecretName, SecretBytes>,
}

impl Snapshot {
    /// Reads all or nothing.
    pub(crate) fn read(client: &Client, names: &BTreeSet<SecretName>) -> Result<Self, Failure> {
        for _ in 0..TRIES {
            let before = versions(client, names);
            let values = names
                .iter()
                .map(|name| Ok((name.clone(), client.read_value(name, "")?)))
                .collect::<Result<_, Failure>>()?;
            if versions(client, names) == before {
                return Ok(Self { versions: before, values });
            }
        }
        let some = names.first().map(ToString::to_string).unwrap_or_default();
        Err(Failure::new(Kind::Rotation, some, "it, or one beside it, changes all the time"))
    }

    pub(crate) fn value(&self, name: &SecretName) -> Option<&SecretBytes> {
        self.values.get(name)
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = (&SecretName, &SecretBytes)> {
        self.values.iter()
    }
}

/// Returns which versions are current; that is no read of a value.
pub(crate) fn versions(client: &Client, names: &BTreeSet<SecretName>) -> Versions {
    names.iter().map(|name| (name.clone(), version(client, name))).collect()
}

/// The number alone would not do: a name that was removed and made again begins anew.
fn version(client: &Client, name: &SecretName) -> Option<String> {
    let (id, version) = (client.attribute(name, "id")?, client.attribute(name, "version")?);
    Some(format!("{id} {version}"))
}
