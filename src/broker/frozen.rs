//! Sets of versions that were current together, so that a program which opens a certificate and then its
//! key gets a pair.
//!
//! A process that asks for a directory's set gets the same one for a while, its *window*. Who is to be told
//! of a change is told when the windows over it have ended, and so finds the new version.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::index::Node;
use super::{Broker, BrokerError, Result};
use crate::model::{Caller, SecretName, Timestamp, Uid, Version};

/// How long one process gets the same set.
const WINDOW: Duration = Duration::from_secs(5);
/// How long a set is there after it was last used.
const KEPT: Duration = Duration::from_secs(60);
/// How many secrets a set has at most, and all sets of one uid together.
const MAX_SECRETS: usize = 1 << 16;
/// How many sets a uid has at most. Another one takes the place of the one that was not used for longest.
const MAX_SETS: usize = 256;

/// The number of a set: random, so that it is no other one's after a restart either.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct FrozenId(pub u64);

/// The secrets directly in a directory that its caller could know of, with the versions that were current.
#[derive(Debug)]
pub struct Frozen {
    uid: Uid,
    directory: Option<SecretName>,
    versions: BTreeMap<Box<str>, Version>,
}

impl Frozen {
    /// Returns the version of a secret, by the last segment of its name.
    pub fn version(&self, leaf: &str) -> Option<Version> {
        self.versions.get(leaf).copied()
    }

    /// Returns the last segments of all names, sorted, with their versions.
    pub fn versions(&self) -> impl Iterator<Item = (&str, Version)> {
        self.versions.iter().map(|(leaf, version)| (&**leaf, *version))
    }
}

impl Broker {
    /// Freezes what is current in a directory (`None` is the root), or returns the set that the same
    /// process was given less than five seconds ago. Nothing is recorded: reading a version is.
    ///
    /// Errors: those of [`list`](Self::list); `Invalid` for a directory of more than 65,536 secrets.
    pub fn freeze(&self, caller: &Caller, directory: Option<&SecretName>) -> Result<FrozenId> {
        let process = caller.complete().process.map(|process| (process.pid, process.started));
        let place = Place { uid: caller.uid, process, directory: directory.cloned() };
        let mut sets = self.inner.frozen.lock();
        if let Some(id) = sets.window(&place, Instant::now()) {
            return Ok(id);
        }
        let versions = self.current(caller, directory)?;
        if versions.len() > MAX_SECRETS {
            return Err(BrokerError::Invalid(
                "the directory has too many secrets for a set".into(),
            ));
        }
        let [a, b, c, d, e, f, g, h, ..] = crate::crypto::random_id().map_err(BrokerError::Key)?;
        let id = FrozenId(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
        sets.open(place, id, versions, Instant::now());
        Ok(id)
    }

    /// Returns one of the caller's uid's own sets of a directory, while it is there.
    pub fn frozen(
        &self,
        caller: &Caller,
        directory: Option<&SecretName>,
        id: FrozenId,
    ) -> Option<Arc<Frozen>> {
        let set = self.inner.frozen.lock().find(id, Instant::now())?;
        (set.uid == caller.uid && set.directory.as_ref() == directory).then_some(set)
    }

    /// Returns when every process that goes by a set of now gets the current version of a secret, if some do:
    /// at most five seconds from now.
    pub fn thaws_at(&self, name: &SecretName) -> Option<Instant> {
        self.inner.frozen.lock().thaws_at(name, Instant::now())
    }

    /// Returns the versions that are current in a directory, by the last segment of their names.
    fn current(
        &self,
        caller: &Caller,
        directory: Option<&SecretName>,
    ) -> Result<BTreeMap<Box<str>, Version>> {
        let sight = self.inner.gate.sight(caller);
        let unlocked = self.inner.unlocked()?;
        let index = unlocked.index.read();
        let absent =
            || directory.map_or(BrokerError::Sealed, |path| BrokerError::NotFound(path.clone()));
        let folder = index.folder(directory).ok_or_else(absent)?;
        let known = folder.after(None).filter_map(|(leaf, node)| {
            let Node::Secret(entry) = node else { return None };
            let name = SecretName::join(directory, leaf).ok()?;
            (!sight.levels(&name, entry).is_empty()).then(|| (leaf.into(), entry.version))
        });
        Ok(known.collect())
    }
}

/// Whose window it is, and over which directory. Of who cannot be told apart all share one.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Place {
    uid: Uid,
    process: Option<(u32, Timestamp)>,
    directory: Option<SecretName>,
}

/// The sets and the windows over them.
#[derive(Debug, Default)]
pub(super) struct FrozenSets {
    sets: HashMap<FrozenId, (Arc<Frozen>, Instant)>,
    /// Each with its set and its end.
    windows: HashMap<Place, (FrozenId, Instant)>,
}

impl FrozenSets {
    /// Forgets everything, names included.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    fn window(&mut self, place: &Place, now: Instant) -> Option<FrozenId> {
        let (id, ends) = *self.windows.get(place)?;
        // The set may have made room for another one.
        (ends > now && self.find(id, now).is_some()).then_some(id)
    }

    fn open(
        &mut self,
        place: Place,
        id: FrozenId,
        versions: BTreeMap<Box<str>, Version>,
        now: Instant,
    ) {
        self.make_room(place.uid, versions.len(), now);
        let set = Frozen { uid: place.uid, directory: place.directory.clone(), versions };
        self.sets.insert(id, (Arc::new(set), now));
        self.windows.insert(place, (id, now + WINDOW));
    }

    /// Finds a set, which is kept for longer by that.
    fn find(&mut self, id: FrozenId, now: Instant) -> Option<Arc<Frozen>> {
        let (set, used) = self.sets.get_mut(&id)?;
        if *used + KEPT <= now {
            return None;
        }
        *used = now;
        Some(Arc::clone(set))
    }

    fn thaws_at(&self, name: &SecretName, now: Instant) -> Option<Instant> {
        let parent = name.parent();
        let over = self.windows.iter().filter(|(place, _)| place.directory == parent);
        over.map(|(_, (_, ends))| *ends).filter(|ends| *ends > now).max()
    }

    fn make_room(&mut self, uid: Uid, more: usize, now: Instant) {
        self.sets.retain(|_, (_, used)| *used + KEPT > now);
        let of_uid = self.sets.iter().filter(|(_, (set, _))| set.uid == uid);
        let mut oldest: Vec<_> =
            of_uid.map(|(id, (set, used))| (*used, *id, set.versions.len())).collect();
        oldest.sort_unstable();
        let mut held = more + oldest.iter().map(|(_, _, len)| len).sum::<usize>();
        let mut count = 1 + oldest.len();
        for (_, id, len) in oldest {
            if held <= MAX_SECRETS && count <= MAX_SETS {
                break;
            }
            self.sets.remove(&id);
            held -= len;
            count -= 1;
        }
        let sets = &self.sets;
        self.windows.retain(|_, (id, ends)| *ends > now && sets.contains_key(id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(uid: u32, pid: u32) -> Place {
        let process = Some((pid, Timestamp::UNIX_EPOCH));
        Place { uid: Uid(uid), process, directory: Some("tls".parse().unwrap()) }
    }

    fn versions(count: usize) -> BTreeMap<Box<str>, Version> {
        (0..count).map(|number| (number.to_string().into(), Version(7))).collect()
    }

    #[test]
    fn a_process_gets_one_set_for_five_seconds_and_then_another() {
        let (mut sets, start) = (FrozenSets::default(), Instant::now());
        sets.open(place(1, 10), FrozenId(1), versions(2), start);
        for millis in [0, 1_000, 4_999] {
            let now = start + Duration::from_millis(millis);
            assert_eq!(sets.window(&place(1, 10), now), Some(FrozenId(1)));
        }
        assert_eq!(sets.window(&place(1, 10), start + WINDOW), None);
        assert_eq!(sets.window(&place(1, 11), start), None, "another process");
        assert_eq!(sets.window(&place(2, 10), start), None, "another user");
    }

    #[test]
    fn who_is_told_of_a_change_is_told_when_the_last_window_over_it_has_ended() {
        let (mut sets, start) = (FrozenSets::default(), Instant::now());
        let second = start + Duration::from_secs(1);
        sets.open(place(1, 10), FrozenId(1), versions(1), start);
        sets.open(place(1, 11), FrozenId(2), versions(1), second);
        let name = "tls/site".parse().unwrap();
        assert_eq!(sets.thaws_at(&name, second), Some(second + WINDOW));
        assert_eq!(sets.thaws_at(&"site".parse().unwrap(), second), None);
        assert_eq!(sets.thaws_at(&name, second + WINDOW), None);
    }

    #[test]
    fn a_set_that_is_not_used_is_gone_after_a_minute() {
        let (mut sets, start) = (FrozenSets::default(), Instant::now());
        sets.open(place(1, 10), FrozenId(1), versions(1), start);
        let later = start + Duration::from_secs(50);
        assert!(sets.find(FrozenId(1), later).is_some());
        assert!(sets.find(FrozenId(1), later + Duration::from_secs(59)).is_some());
        assert!(sets.find(FrozenId(1), later + Duration::from_secs(119)).is_none());
        sets.open(place(1, 11), FrozenId(2), versions(1), later + Duration::from_secs(119));
        assert_eq!((sets.sets.len(), sets.windows.len()), (1, 1));
    }

    #[test]
    fn the_sets_of_a_uid_are_bounded_and_others_lose_nothing() {
        let (mut sets, start) = (FrozenSets::default(), Instant::now());
        sets.open(place(9, 1), FrozenId(1), versions(1), start);
        for pid in 0..512 {
            let now = start + Duration::from_millis(pid.into());
            sets.open(place(1, pid), FrozenId(100 + u64::from(pid)), versions(1), now);
        }
        assert_eq!((sets.sets.len(), sets.windows.len()), (MAX_SETS + 1, MAX_SETS + 1));
        sets.open(place(1, 9999), FrozenId(2), versions(MAX_SECRETS), start);
        assert_eq!(sets.sets.len(), 2, "one of each uid");
        assert_eq!(sets.window(&place(1, 5), start), None, "its set is gone");
    }
}
