//! The tree of names in memory, so that lookup, stat and readdir touch neither disk nor key.
//!
//! Built from the sealed records when the store is opened, and changed only after a commit. A
//! million secrets must fit: an entry is boxed and small, and what few secrets have is behind one
//! more pointer.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use super::allowance::{Kind as Counted, Tally};
use super::record::{Record, SecretRecord};
use super::rotation::Stage;
use super::upstream::Held;
use super::{Kind, Pinned, Secret};
use crate::model::{
    Attributes, Gid, Injection, Inode, Levels, SecretId, SecretName, SecretType, Status, Timestamp,
    Uid, Version,
};

/// Every name, and what is in the trash.
#[derive(Debug, Default)]
pub(super) struct Index {
    root: Folder,
    trash: HashMap<SecretId, Discarded>,
    secrets: u64,
    tally: Tally,
    /// Secrets whose rotation has not come to its end.
    rotations: BTreeMap<SecretId, Stage>,
}

/// A secret in the trash.
#[derive(Clone, Debug)]
pub(super) struct Discarded {
    pub(super) name: SecretName,
    pub(super) number: u32,
    pub(super) created_by: Uid,
}

impl Discarded {
    pub(super) fn of(record: &SecretRecord) -> Self {
        let SecretRecord { name, trash_number, metadata, .. } = record;
        Self { name: name.clone(), number: *trash_number, created_by: metadata.created_by }
    }
}

/// The record of a directory that `mkdir` made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Made {
    pub(super) id: SecretId,
    /// `None`: it was made before this was noted.
    pub(super) created_by: Option<Uid>,
}

impl Made {
    /// Returns the record for a directory of that name.
    pub(super) fn record(self, name: SecretName) -> Record {
        match self.created_by {
            Some(created_by) => Record::MadeDirectory { name, created_by },
            None => Record::Directory(name),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Folder {
    children: BTreeMap<Box<str>, Node>,
    /// The record that keeps it alive while it is empty.
    made: Option<Made>,
}

#[derive(Debug)]
pub(super) enum Node {
    Folder(Box<Folder>),
    Secret(Box<Entry>),
}

/// A secret as the index knows it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) id: SecretId,
    pub(super) inode: Inode,
    pub(super) version: Version,
    pub(super) size: u64,
    pub(super) created: Timestamp,
    pub(super) modified: Timestamp,
    pub(super) secret_type: SecretType,
    pub(super) status: Status,
    pub(super) created_by: Uid,
    rare: Option<Box<Rare>>,
}

/// What most secrets do not have.
#[derive(Clone, Debug, Default, PartialEq)]
struct Rare {
    expires: Option<Timestamp>,
    owner: Option<Uid>,
    group: Option<Gid>,
    mode: Option<u16>,
    service: Option<Box<str>>,
    environment: Option<Box<str>>,
    tags: Vec<Box<str>>,
    injection: Injection,
    decoy: bool,
    /// Of a copy of another service's secret.
    held: Option<Arc<Held>>,
}

impl Entry {
    /// Returns the entry for a record; a record whose history has no current version has none.
    pub(super) fn of(id: SecretId, record: &SecretRecord, inode: Inode) -> Option<Self> {
        let current = record.history.current()?;
        let metadata = &record.metadata;
        let rare = Rare {
            expires: metadata.expires,
            owner: metadata.owner,
            group: metadata.group,
            mode: metadata.mode,
            service: metadata.attributes.service.clone(),
            environment: metadata.attributes.environment.clone(),
            tags: metadata.attributes.tags.clone(),
            injection: metadata.injection.clone(),
            decoy: metadata.decoy,
            held: record.remote.as_ref().map(Held::of),
        };
        Some(Self {
            id,
            inode,
            version: current.version,
            size: current.size,
            created: metadata.created,
            modified: metadata.modified,
            secret_type: metadata.attributes.secret_type,
            status: metadata.status,
            created_by: metadata.created_by,
            rare: (rare != Rare::default()).then(|| Box::new(rare)),
        })
    }

    pub(super) fn expires(&self) -> Option<Timestamp> {
        self.rare.as_ref().and_then(|rare| rare.expires)
    }

    /// Returns the status as of `now`: past `expires` it is `Expired`.
    pub(super) fn status_at(&self, now: Timestamp) -> Status {
        match (self.status, self.expires()) {
            (Status::Active | Status::Rotating, Some(expires)) if expires <= now => Status::Expired,
            (status, _) => status,
        }
    }

    /// Returns what programs know it by, where that is not its name.
    pub(super) fn injection(&self) -> Injection {
        self.rare.as_ref().map(|rare| rare.injection.clone()).unwrap_or_default()
    }

    /// Returns what rules may select it by.
    pub(super) fn attributes(&self) -> Attributes {
        let rare = self.rare.as_deref();
        Attributes {
            secret_type: self.secret_type,
            service: rare.and_then(|rare| rare.service.clone()),
            environment: rare.and_then(|rare| rare.environment.clone()),
            tags: rare.map(|rare| rare.tags.clone()).unwrap_or_default(),
        }
    }

    /// Tells whether nothing should ever open it.
    pub(super) fn is_decoy(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.decoy)
    }

    /// Returns what another service's secret it is a copy of.
    pub(super) fn held(&self) -> Option<&Held> {
        self.rare.as_deref()?.held.as_deref()
    }

    /// Returns the same, to be looked at without the index.
    pub(super) fn shared_held(&self) -> Option<Arc<Held>> {
        self.rare.as_deref()?.held.clone()
    }

    /// Returns what one caller with `levels` is shown.
    pub(super) fn shown(&self, levels: Levels, now: Timestamp) -> Secret {
        let pinned = self.rare.as_deref().and_then(|rare| {
            let Rare { owner, group, mode, .. } = rare;
            let any = owner.is_some() || group.is_some() || mode.is_some();
            any.then(|| Pinned {
                owner: owner.map(|uid| uid.0),
                group: group.map(|gid| gid.0),
                mode: *mode,
            })
        });
        Secret {
            id: self.id,
            inode: self.inode,
            version: self.version,
            size: self.size,
            created: self.created,
            modified: self.modified,
            secret_type: self.secret_type,
            status: self.status_at(now),
            levels,
            pinned,
        }
    }
}

impl Folder {
    /// Returns the children after the segment `after`, in name order.
    pub(super) fn after(&self, after: Option<&str>) -> impl Iterator<Item = (&str, &Node)> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.children
            .range::<str, _>((start, Bound::Unbounded))
            .map(|(segment, node)| (&**segment, node))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.children.is_empty()
    }

    /// Returns the record that `mkdir` made for it.
    pub(super) fn made(&self) -> Option<Made> {
        self.made
    }

    /// Calls `visit` for every secret below, with its name relative to this folder appended to `prefix`.
    pub(super) fn each_secret(&self, prefix: &mut String, visit: &mut dyn FnMut(&str, &Entry)) {
        for (segment, node) in &self.children {
            let length = prefix.len();
            if length > 0 {
                prefix.push('/');
            }
            prefix.push_str(segment);
            match node {
                Node::Folder(folder) => folder.each_secret(prefix, visit),
                Node::Secret(entry) => visit(prefix, entry),
            }
            prefix.truncate(length);
        }
    }

    /// Calls `visit` for every made directory below, with its name relative to this folder appended to `prefix`.
    pub(super) fn each_made(&self, prefix: &mut String, visit: &mut dyn FnMut(&str, Made)) {
        for (segment, node) in &self.children {
            let Node::Folder(folder) = node else { continue };
            let length = prefix.len();
            if length > 0 {
                prefix.push('/');
            }
            prefix.push_str(segment);
            if let Some(made) = folder.made {
                visit(prefix, made);
            }
            folder.each_made(prefix, visit);
            prefix.truncate(length);
        }
    }
}

impl Node {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Folder(_) => Kind::Directory,
            Self::Secret(_) => Kind::Secret,
        }
    }
}

/// What stands at a path.
pub(super) enum At<'a> {
    Nothing,
    Folder(&'a Folder),
    Secret(&'a Entry),
}

impl Index {
    /// Returns what stands at a path; a secret on the way to it counts as nothing.
    pub(super) fn at(&self, path: &SecretName) -> At<'_> {
        let mut folder = &self.root;
        let mut segments = path.segments().peekable();
        while let Some(segment) = segments.next() {
            match folder.children.get(segment) {
                Some(Node::Folder(next)) => folder = next,
                Some(Node::Secret(entry)) if segments.peek().is_none() => return At::Secret(entry),
                _ => return At::Nothing,
            }
        }
        At::Folder(folder)
    }

    /// Returns the secret at a path.
    pub(super) fn secret(&self, name: &SecretName) -> Option<&Entry> {
        match self.at(name) {
            At::Secret(entry) => Some(entry),
            At::Nothing | At::Folder(_) => None,
        }
    }

    /// Returns a directory; `None` for the path is the root.
    pub(super) fn folder(&self, path: Option<&SecretName>) -> Option<&Folder> {
        let Some(path) = path else { return Some(&self.root) };
        match self.at(path) {
            At::Folder(folder) => Some(folder),
            At::Nothing | At::Secret(_) => None,
        }
    }

    /// Puts a secret in its place, making the directories above it.
    pub(super) fn insert(&mut self, name: &SecretName, entry: Entry) {
        self.tally.add(Counted::Secret, entry.created_by);
        let folder = self.folder_mut(name.parent().as_ref());
        let before = folder.children.insert(name.leaf().into(), Node::Secret(Box::new(entry)));
        match before {
            Some(Node::Secret(before)) => self.tally.take(Counted::Secret, before.created_by),
            Some(Node::Folder(_)) | None => self.secrets += 1,
        }
    }

    /// Takes a secret out, and the directories that existed only because of it.
    pub(super) fn remove(&mut self, name: &SecretName) {
        let folder = self.folder_mut(name.parent().as_ref());
        if let Some(Node::Secret(before)) = folder.children.remove(name.leaf()) {
            self.secrets -= 1;
            self.tally.take(Counted::Secret, before.created_by);
        }
        self.drop_empty(name.parent());
    }

    /// Records that `mkdir` made a directory, or that it no longer is one that was made.
    pub(super) fn set_made(&mut self, path: &SecretName, made: Option<Made>) {
        let folder = self.folder_mut(Some(path));
        let before = std::mem::replace(&mut folder.made, made);
        let creator = |made: Option<Made>| made.and_then(|made| made.created_by);
        creator(made).iter().for_each(|uid| self.tally.add(Counted::Directory, *uid));
        creator(before).iter().for_each(|uid| self.tally.take(Counted::Directory, *uid));
        self.drop_empty(Some(path.clone()));
    }

    pub(super) fn insert_trashed(&mut self, id: SecretId, discarded: Discarded) {
        self.tally.add(Counted::Secret, discarded.created_by);
        if let Some(before) = self.trash.insert(id, discarded) {
            self.tally.take(Counted::Secret, before.created_by);
        }
    }

    pub(super) fn remove_trashed(&mut self, id: SecretId) {
        if let Some(before) = self.trash.remove(&id) {
            self.tally.take(Counted::Secret, before.created_by);
        }
    }

    /// Returns the name that a secret in the trash had.
    pub(super) fn trashed(&self, id: SecretId) -> Option<&SecretName> {
        self.trash.get(&id).map(|discarded| &discarded.name)
    }

    /// Returns the highest number in the trash of those that had a name; 0 if there is none.
    pub(super) fn last_trash_number(&self, name: &SecretName) -> u32 {
        let of_name = self.trash.values().filter(|discarded| discarded.name == *name);
        of_name.map(|discarded| discarded.number).max().unwrap_or(0)
    }

    pub(super) fn trash(&self) -> impl Iterator<Item = (SecretId, &SecretName)> {
        self.trash.iter().map(|(id, discarded)| (*id, &discarded.name))
    }

    pub(super) fn set_rotation(&mut self, id: SecretId, stage: Stage) {
        if stage == Stage::Ended {
            self.rotations.remove(&id);
        } else {
            self.rotations.insert(id, stage);
        }
    }

    /// Returns how far a secret's rotation is.
    pub(super) fn rotation(&self, id: SecretId) -> Stage {
        self.rotations.get(&id).copied().unwrap_or_default()
    }

    /// Returns the secrets whose rotation has not come to its end.
    pub(super) fn open_rotations(&self) -> impl Iterator<Item = SecretId> {
        self.rotations.keys().copied()
    }

    /// Returns how much each uid has made.
    pub(super) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Returns how many secrets there are, the trash not counted.
    pub(super) fn secrets(&self) -> u64 {
        self.secrets
    }

    fn folder_mut(&mut self, path: Option<&SecretName>) -> &mut Folder {
        let mut folder = &mut self.root;
        for segment in path.into_iter().flat_map(SecretName::segments) {
            let node = folder
                .children
                .entry(segment.into())
                .or_insert_with(|| Node::Folder(Box::default()));
            // A secret where a directory has to be is refused before anything is committed, so
            // replacing one here cannot happen; it would be healed by the next start.
            if let Node::Secret(_) = node {
                *node = Node::Folder(Box::default());
            }
            let Node::Folder(next) = node else { unreachable!("made a folder just above") };
            folder = next;
        }
        folder
    }

    /// Removes directories from `path` upwards while nothing keeps them.
    fn drop_empty(&mut self, mut path: Option<SecretName>) {
        while let Some(name) = path {
            let keep = self
                .folder(Some(&name))
                .is_none_or(|folder| folder.made.is_some() || !folder.is_empty());
            if keep {
                return;
            }
            self.folder_mut(name.parent().as_ref()).children.remove(name.leaf());
            path = name.parent();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry {
            id: SecretId([1; 16]),
            inode: Inode(7),
            version: Version::FIRST,
            size: 3,
            created: Timestamp::UNIX_EPOCH,
            modified: Timestamp::UNIX_EPOCH,
            secret_type: SecretType::ApiKey,
            status: Status::Active,
            created_by: Uid(7),
            rare: None,
        }
    }

    fn name(text: &str) -> SecretName {
        text.parse().unwrap()
    }

    fn made() -> Made {
        Made { id: SecretId([2; 16]), created_by: Some(Uid(7)) }
    }

    #[test]
    fn a_directory_lives_as_long_as_something_is_in_it() {
        let mut index = Index::default();
        index.insert(&name("a/b/c"), entry());
        assert!(index.folder(Some(&name("a/b"))).is_some());
        index.remove(&name("a/b/c"));
        assert!(index.folder(Some(&name("a"))).is_none());
        assert_eq!(index.secrets(), 0);
    }

    #[test]
    fn a_made_directory_outlives_its_last_secret() {
        let mut index = Index::default();
        index.set_made(&name("a"), Some(made()));
        index.insert(&name("a/b"), entry());
        index.remove(&name("a/b"));
        assert!(index.folder(Some(&name("a"))).is_some());
        index.set_made(&name("a"), None);
        assert!(index.folder(Some(&name("a"))).is_none());
    }

    #[test]
    fn what_a_uid_has_made_is_counted_where_it_is_in_tree_or_trash_until_it_is_gone() {
        let mut index = Index::default();
        let count = |index: &Index, kind| index.tally().of(kind, Uid(7));
        index.insert(&name("a/b"), entry());
        index.insert(&name("a/b"), entry());
        assert_eq!(count(&index, Counted::Secret), 1);
        index.remove(&name("a/b"));
        let discarded = Discarded { name: name("a/b"), number: 1, created_by: Uid(7) };
        index.insert_trashed(entry().id, discarded);
        assert_eq!(count(&index, Counted::Secret), 1);
        index.remove_trashed(entry().id);
        index.remove_trashed(entry().id);
        assert_eq!(count(&index, Counted::Secret), 0);
        index.set_made(&name("a"), Some(made()));
        index.set_made(&name("a"), Some(Made { created_by: None, ..made() }));
        assert_eq!(count(&index, Counted::Directory), 0, "an old record counts for nobody");
        index.set_made(&name("b"), Some(made()));
        assert_eq!(count(&index, Counted::Directory), 1);
        index.set_made(&name("b"), None);
        assert_eq!(count(&index, Counted::Directory), 0);
    }

    #[test]
    fn a_listing_goes_on_after_the_segment_it_ended_with() {
        let mut index = Index::default();
        for leaf in ["a", "b", "c"] {
            index.insert(&name(leaf), entry());
        }
        let rest: Vec<_> =
            index.folder(None).unwrap().after(Some("a")).map(|(segment, _)| segment).collect();
        assert_eq!(rest, ["b", "c"]);
    }

    #[test]
    fn a_secret_is_no_directory_for_what_would_lie_below_it() {
        let mut index = Index::default();
        index.insert(&name("a"), entry());
        assert!(matches!(index.at(&name("a/b")), At::Nothing));
    }
}
