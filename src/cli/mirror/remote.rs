//! A service as a side of a copy.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::side::{After, Edition, Held, Mark, Tags};
use super::{Side, Trouble};
use crate::backend::{
    Abilities, Backend, BackendError, Deadline, Description, Expect, Put, Version, VersionId, Which,
};
use crate::system::SecretBytes;

/// How long one request may take. Nobody waits for it but the copy.
const REQUEST: Duration = Duration::from_secs(30);

/// What a version carries at AWS that is not current yet.
const STAGED: &str = "AWSPENDING";

/// From so many on, a service may have forgotten the oldest: AWS keeps about a hundred.
const MANY: usize = 100;

/// The secrets of one service below its prefix.
pub(crate) struct Remote {
    backend: Arc<dyn Backend>,
    abilities: Abilities,
}

impl Remote {
    pub(crate) fn new(backend: Arc<dyn Backend>) -> Result<Self, Trouble> {
        let abilities = backend.abilities(time())?;
        Ok(Self { backend, abilities })
    }
}

impl Side for Remote {
    fn keeps_versions(&self) -> bool {
        self.abilities.versions
    }

    fn is_tree(&self) -> bool {
        false
    }

    fn names(&self) -> Result<BTreeSet<String>, Trouble> {
        let mut names = BTreeSet::new();
        let mut next = None;
        loop {
            let page = self.backend.list(next.as_ref(), time())?;
            names.extend(page.names);
            if page.next.is_none() {
                return Ok(names);
            }
            if page.next == next {
                return Err(Trouble::Lost("the list of its names has no end".into()));
            }
            next = page.next;
        }
    }

    fn look(&self, name: &str) -> Result<Option<Held>, Trouble> {
        match self.backend.history(name, time()) {
            Err(BackendError::NotFound | BackendError::NoName) => Ok(None),
            known => Ok(Some(held(known?))),
        }
    }

    fn read(&self, name: &str, version: &VersionId) -> Result<SecretBytes, Trouble> {
        Ok(self.backend.get(name, &Which::Id(version.clone()), time())?.value)
    }

    fn refuses(&self, name: &str, bytes: Option<usize>) -> Option<String> {
        self.backend.takes(name, bytes).err().map(|error| error.to_string())
    }

    fn write(
        &self,
        name: &str,
        value: &SecretBytes,
        after: After<'_>,
    ) -> Result<VersionId, Trouble> {
        let expect = match after {
            After::Nothing => Expect::Absent,
            After::Version(id) => Expect::Version(id.clone()),
        };
        // Where it cannot compare, it was looked at right before.
        let expect = Some(expect).filter(|_| self.abilities.compare_and_set);
        let binary = std::str::from_utf8(value.expose()).is_err();
        let put = Put { expect, binary, ..Put::default() };
        Ok(self.backend.put(name, value, &put, time())?.id)
    }

    fn holds(&self, key: &str, _: &str) -> bool {
        self.abilities.tags && !is_services_own(key)
    }

    fn annotate(&self, name: &str, tags: &Tags) -> Result<(), Trouble> {
        let mut all = self.backend.describe(name, time())?.tags;
        all.extend(tags.iter().map(|(key, value)| (key.clone(), value.clone())));
        Ok(self.backend.tag(name, &all, time())?)
    }
}

/// Puts what a service says of a secret in the order of its history, the current version last.
fn held((description, mut versions): (Description, Vec<Version>)) -> Held {
    let is_first = |version: &Version| match version.id.0.parse::<u64>() {
        Ok(number) => number <= 1,
        Err(_) => versions.len() < MANY,
    };
    let is_whole = versions.first().is_some_and(is_first);
    let is_current = |version: &Version| Some(&version.id) == description.current.as_ref();
    // Its stage may have been moved back to an older one.
    if let Some(at) = versions.iter().position(is_current) {
        let current = versions.remove(at);
        versions.push(current);
    }
    let mark = |version: &Version| Mark {
        id: version.id.clone(),
        made: version.created.map(|time| time.to_string()).unwrap_or_default(),
    };
    let is_staged = |version: &Version| version.stages.iter().any(|stage| stage == STAGED);
    let current = versions.iter().find(|version| is_current(version)).map(mark);
    let gone = description.current.as_ref().map(|id| Mark { id: id.clone(), made: String::new() });
    let readable = versions.iter().filter(|version| version.readable);
    let published = readable.filter(|version| is_current(version) || !is_staged(version));
    let versions = published.map(|version| Edition { mark: mark(version), bytes: None });
    let mut tags: Tags =
        description.tags.into_iter().filter(|(key, _)| !is_services_own(key)).collect();
    let texts = [
        ("description", description.description),
        ("expires", description.expires.map(|time| time.to_string())),
    ];
    for (key, text) in texts {
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            tags.entry(key.to_owned()).or_insert(text);
        }
    }
    Held { current: current.or(gone), versions: versions.collect(), is_whole, tags }
}

/// Tags that AWS makes by itself.
fn is_services_own(key: &str) -> bool {
    key.starts_with("aws:")
}

fn time() -> Deadline {
    Deadline::within(REQUEST)
}

impl From<BackendError> for Trouble {
    fn from(error: BackendError) -> Self {
        let why = error.to_string();
        match error {
            BackendError::Conflict | BackendError::NotFound => Self::Changed,
            BackendError::Denied(_)
            | BackendError::Invalid(_)
            | BackendError::NoName
            | BackendError::Unsupported(_) => Self::Refused(why),
            BackendError::Failed(_) | BackendError::TimedOut | BackendError::Unreachable(_) => {
                Self::Passing { why, rest: None }
            }
            BackendError::Throttled { retry_after } => Self::Passing { why, rest: retry_after },
            BackendError::Unauthenticated(_) => Self::Lost(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(id: &str, stages: &[&str], readable: bool) -> Version {
        let stages = stages.iter().map(|stage| (*stage).to_owned()).collect();
        Version { id: VersionId(id.into()), created: None, stages, readable }
    }

    #[test]
    fn a_history_ends_with_what_is_current_and_has_no_version_that_is_staged_or_gone() {
        let description =
            Description { current: Some(VersionId("a".into())), ..Description::default() };
        let versions = vec![
            version("x", &[], false),
            version("a", &["AWSCURRENT"], true),
            version("b", &["AWSPREVIOUS"], true),
            version("c", &[STAGED], true),
        ];
        let held = held((description, versions));
        let ids: Vec<_> = held.versions.iter().map(|one| one.mark.id.0.as_str()).collect();
        assert_eq!(ids, ["b", "a"]);
        assert!(held.readable().is_some());
    }

    #[test]
    fn what_was_deleted_has_a_current_version_that_cannot_be_read() {
        let current = Some(VersionId("2".into()));
        let description = Description { current: current.clone(), ..Description::default() };
        let versions = vec![version("1", &[], true), version("2", &[], false)];
        let held = held((description, versions));
        assert_eq!(held.current.as_ref().map(|mark| &mark.id), current.as_ref());
        assert!(held.readable().is_none() && held.is_whole);
    }
}
