//! From a name to what stands there, for one caller.

use std::sync::Arc;

use super::Tree;
use crate::broker::{BrokerError, Found, Which};
use crate::fs::attributes::{Attributes, FileKind, mode_of};
use crate::fs::by::{By, link_target};
use crate::fs::control::{Control, Kind, TrashEntry, trash_entries};
use crate::fs::draft::Draft;
use crate::fs::error::{FsError, Result};
use crate::fs::inode::ROOT;
use crate::fs::node::{Meaning, Node, ScratchName, View, ViewKind, meaning};
use crate::fs::scratch::ScratchFile;
use crate::fs::views;
use crate::model::{Caller, GrantId, Level, SecretName};

/// A node and how it looks to a caller.
#[derive(Debug)]
pub(in crate::fs) struct Entry {
    pub(in crate::fs) node: Arc<Node>,
    pub(in crate::fs) attributes: Attributes,
}

impl Entry {
    pub(super) fn new(node: Node, attributes: Attributes) -> Self {
        Self { node: Arc::new(node), attributes }
    }
}

/// What stat(2) shows as the size of a short text that is made when it is opened.
const TEXT_BYTES: u64 = 4096;

impl Tree {
    /// Looks a name up. What is returned is counted by [`remember`](Self::remember).
    pub(in crate::fs) fn lookup(&self, caller: &Caller, parent: u64, name: &[u8]) -> Result<Entry> {
        let parent = self.inodes.node(parent)?;
        match self.resolve(caller, &parent, name) {
            Meaning::Bad => Err(FsError::NotFound),
            Meaning::By(by) => self.by_entry(caller, by),
            Meaning::Control(control) => {
                let attributes = self.control_attributes(caller, control)?;
                Ok(Entry::new(Node::Control(control), attributes))
            }
            Meaning::Member { set, name } => self.member_entry(caller, set, name),
            Meaning::Path(name) => self.path_entry(caller, &name),
            Meaning::Rendered(place) => {
                let attributes = self.rendered_attributes(caller, &place)?;
                Ok(Entry::new(Node::Rendered(place), attributes))
            }
            Meaning::Scratch(name) => {
                let file = self.scratch.find(caller.uid.0, &name).ok_or(FsError::NotFound)?;
                let attributes = self.scratch_attributes(caller, &file);
                Ok(Entry::new(Node::Scratch(file), attributes))
            }
            Meaning::Trashed(name) => {
                let found = self.trash_entry(caller, &name)?;
                let node = Node::Trashed(found.trashed.id);
                Ok(Entry::new(node, self.trash_attributes(caller, &found)))
            }
            Meaning::View(view) => {
                let attributes = self.view_attributes(caller, &view)?;
                Ok(Entry::new(Node::View(view), attributes))
            }
        }
    }

    /// Counts a lookup that the kernel is about to be told of.
    pub(in crate::fs) fn remember(&self, entry: &Entry) {
        self.inodes.remember(entry.attributes.inode, &entry.node);
    }

    /// Takes back lookups.
    pub(in crate::fs) fn forget(&self, inode: u64, count: u64) {
        self.inodes.forget(inode, count);
    }

    /// Tells what a name means to a caller: a scratch file of its own goes before a secret.
    pub(super) fn resolve(&self, caller: &Caller, parent: &Node, name: &[u8]) -> Meaning {
        let meaning = meaning(parent, name);
        if let Meaning::Path(path) = &meaning
            && !self.scratch.is_empty()
        {
            let scratch = scratch_name(path);
            if self.scratch.find(caller.uid.0, &scratch).is_some() {
                return Meaning::Scratch(scratch);
            }
        }
        meaning
    }

    /// Presents a node again; its name may be gone, or be another kind of thing by now.
    pub(super) fn present(
        &self,
        caller: &Caller,
        inode: u64,
        node: &Arc<Node>,
    ) -> Result<Attributes> {
        match &**node {
            Node::By(by) => Ok(self.by_entry(caller, by.clone())?.attributes),
            Node::Control(control) => self.control_attributes(caller, *control),
            Node::Directory(name) | Node::Secret(name) => {
                let entry = self.path_entry(caller, name)?;
                // The kernel cannot change an inode's type.
                let same = *entry.node == **node && entry.attributes.inode == inode;
                same.then_some(entry.attributes).ok_or(FsError::NotFound)
            }
            Node::Rendered(place) => self.rendered_attributes(caller, place),
            Node::Root => Ok(self.root_attributes(caller)),
            Node::Scratch(file) if file.uid == caller.uid.0 => {
                Ok(self.scratch_attributes(caller, file))
            }
            Node::Scratch(_) => Err(FsError::Access),
            Node::Trashed(id) => {
                let entries = trash_entries(self.broker.trash(caller)?);
                let found = entries.iter().find(|entry| entry.trashed.id == *id);
                Ok(self.trash_attributes(caller, found.ok_or(FsError::NotFound)?))
            }
            Node::View(view) => self.view_attributes(caller, view),
        }
    }

    pub(super) fn path_entry(&self, caller: &Caller, name: &SecretName) -> Result<Entry> {
        match self.broker.look(caller, name) {
            Ok(Found::Directory(directory)) => Ok(Entry::new(
                Node::Directory(name.clone()),
                Attributes::of_directory(
                    caller,
                    directory.may_write,
                    directory.inode.0,
                    self.started,
                )
                .shared(self.owners),
            )),
            Ok(Found::Secret(secret)) => {
                let attributes = Attributes::of_secret(self.owners, caller, &secret);
                Ok(Entry::new(Node::Secret(name.clone()), attributes))
            }
            Err(BrokerError::NotFound(_)) => {
                let draft = self.drafts.find(caller.uid.0, name).ok_or(FsError::NotFound)?;
                self.draft_entry(caller, name, &draft)
            }
            // So that the name can be created: see `is_temporary`. It says so whether or not there
            // is such a secret.
            Err(BrokerError::Denied) if self.is_temporary(caller, name)? => Err(FsError::NotFound),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn draft_entry(
        &self,
        caller: &Caller,
        name: &SecretName,
        draft: &Draft,
    ) -> Result<Entry> {
        let mode = mode_of(self.broker.levels(caller, name));
        let inode = self.broker.inode(name.as_str()).0;
        let attributes = Attributes::own(caller, inode, FileKind::File, mode, draft.created)
            .shared(self.owners)
            .sized(draft.len());
        Ok(Entry::new(Node::Secret(name.clone()), attributes))
    }

    /// Returns the root's attributes; it can be looked at while sealed too, because
    /// `.control/unseal` must stay within reach.
    pub(super) fn root_attributes(&self, caller: &Caller) -> Attributes {
        let may_write = !self.broker.is_sealed() && self.broker.may_write_below_root(caller);
        Attributes::of_directory(caller, may_write, ROOT, self.started).shared(self.owners)
    }

    pub(super) fn scratch_attributes(&self, caller: &Caller, file: &ScratchFile) -> Attributes {
        let inode = self.broker.inode(&format!("scratch:{}", file.serial)).0;
        let (modified, mode) = file.presented();
        Attributes::own(caller, inode, FileKind::File, mode, modified).sized(file.len() as u64)
    }

    fn control_attributes(&self, caller: &Caller, control: Control) -> Result<Attributes> {
        let inode = control.inode(caller.uid.0);
        let own = |kind, mode| Attributes::own(caller, inode, kind, mode, self.started);
        match control {
            Control::Audit | Control::Grants | Control::Top => {
                Ok(own(FileKind::Directory, 0o500).shared(self.owners))
            }
            Control::Grant(id) => {
                let text = self.grant_text(caller, id)?;
                Ok(own(FileKind::File, 0o400).sized(text.len() as u64))
            }
            Control::Trash => Ok(own(FileKind::Directory, 0o700).shared(self.owners)),
            Control::File(file) => {
                let size = match file.kind {
                    Kind::AuditLog => self.broker.audit_log_size(caller)?,
                    Kind::Backup | Kind::Command(_) | Kind::Restore => 0,
                    Kind::Events => self.events.size(caller.uid.0),
                    Kind::Health | Kind::Text(_) => TEXT_BYTES,
                };
                Ok(own(FileKind::File, file.mode).sized(size))
            }
        }
    }

    fn by_entry(&self, caller: &Caller, by: By) -> Result<Entry> {
        let inode = if by == By::Facets { 5 } else { self.broker.inode(&by.path()).0 };
        let own = |kind, mode| Attributes::own(caller, inode, kind, mode, self.started);
        let attributes = match &by {
            By::Facets | By::Values(_) => own(FileKind::Directory, 0o500),
            By::Members { facet, value } => {
                let values = self.broker.facet_values(caller, *facet)?;
                values.contains(value).then_some(()).ok_or(FsError::NotFound)?;
                own(FileKind::Directory, 0o500)
            }
            By::Link { facet, value, name } => {
                let members = self.broker.facet_members(caller, *facet, value)?;
                members.contains(name).then_some(()).ok_or(FsError::NotFound)?;
                own(FileKind::Link, 0o777).sized(link_target(name).len() as u64)
            }
        };
        Ok(Entry::new(Node::By(by), attributes.shared(self.owners)))
    }

    /// Returns what `.control/grants/ID` shows.
    pub(super) fn grant_text(&self, caller: &Caller, id: GrantId) -> Result<String> {
        let grants = self.broker.grants(caller)?;
        let grant = grants.into_iter().find(|grant| grant.id == id).ok_or(FsError::NotFound)?;
        Ok(format!("{:#}\n", serde_json::json!(grant)))
    }

    /// Finds an entry of the trash by its listed name.
    pub(super) fn trash_entry(&self, caller: &Caller, name: &str) -> Result<TrashEntry> {
        let entries = trash_entries(self.broker.trash(caller)?);
        entries.into_iter().find(|entry| entry.name == name).ok_or(FsError::NotFound)
    }

    fn trash_attributes(&self, caller: &Caller, entry: &TrashEntry) -> Attributes {
        let trashed = &entry.trashed;
        Attributes::own(caller, trashed.inode.0, FileKind::File, 0, trashed.deleted)
            .shared(self.owners)
            .sized(trashed.size)
    }

    pub(super) fn view_attributes(&self, caller: &Caller, view: &View) -> Result<Attributes> {
        let inode = self.view_inode(caller, view);
        let file = |mode| Attributes::own(caller, inode, FileKind::File, mode, self.started);
        let directory = view.of.as_ref();
        let named = || directory.ok_or(FsError::NotFound);
        match view.kind {
            ViewKind::Env | ViewKind::Json => {
                self.directory_of_view(caller, directory)?;
                Ok(file(0o400).sized(views::MAX_BYTES))
            }
            ViewKind::Frozen(id) => self.frozen_attributes(caller, directory, id, inode),
            ViewKind::Meta | ViewKind::Why => {
                Ok(file(0o400).sized(self.view_text(caller, named()?, view.kind)?.len() as u64))
            }
            ViewKind::Expect(_)
            | ViewKind::Numbered(_)
            | ViewKind::Pending
            | ViewKind::Previous => self.version_attributes(caller, inode, named()?, view.kind),
            ViewKind::Snap => {
                self.directory_of_view(caller, directory)?;
                Ok(self.snap_attributes(caller, inode))
            }
        }
    }

    /// Checks that what a view of a directory looks at is one, which the caller may know of.
    pub(super) fn directory_of_view(
        &self,
        caller: &Caller,
        directory: Option<&SecretName>,
    ) -> Result<()> {
        match directory.map(|path| self.broker.look(caller, path)).transpose()? {
            None | Some(Found::Directory(_)) => Ok(()),
            Some(Found::Secret(_)) => Err(FsError::NotFound),
        }
    }

    fn version_attributes(
        &self,
        caller: &Caller,
        inode: u64,
        of: &SecretName,
        kind: ViewKind,
    ) -> Result<Attributes> {
        if kind == ViewKind::Pending {
            self.broker.check(caller, Level::Admin, of)?;
        }
        let which = match kind {
            ViewKind::Expect(_) => Which::Current,
            ViewKind::Numbered(version) => Which::Number(version),
            ViewKind::Pending => Which::Pending,
            ViewKind::Previous => Which::Previous,
            ViewKind::Env
            | ViewKind::Frozen(_)
            | ViewKind::Json
            | ViewKind::Meta
            | ViewKind::Snap
            | ViewKind::Why => return Err(FsError::NotFound),
        };
        let (secret, version) = self.broker.version(caller, of, which)?;
        // A version looks like its secret, but for what cannot be done with it.
        let shown = Attributes::of_secret(self.owners, caller, &secret);
        let mode = match kind {
            ViewKind::Expect(_) => shown.mode & 0o222,
            ViewKind::Numbered(_) | ViewKind::Previous => shown.mode & 0o444,
            ViewKind::Env
            | ViewKind::Frozen(_)
            | ViewKind::Json
            | ViewKind::Meta
            | ViewKind::Pending
            | ViewKind::Snap
            | ViewKind::Why => shown.mode,
        };
        let (size, modified) = (version.size, version.created);
        Ok(Attributes { inode, mode, size, modified, ..shown })
    }

    /// Returns the text of `@meta` or `@why`. `@why` answers for names that the caller may not know
    /// of too: what a policy says of a name does not depend on whether it exists.
    pub(super) fn view_text(
        &self,
        caller: &Caller,
        of: &SecretName,
        kind: ViewKind,
    ) -> Result<String> {
        let value = if kind == ViewKind::Why {
            self.broker.explain(caller, of)?
        } else {
            let (description, versions) = self.broker.history(caller, of)?;
            views::meta(of, &description, &versions)
        };
        Ok(format!("{value:#}\n"))
    }

    /// Returns a view's inode number: one a caller where the bytes are the caller's own, so that no
    /// page of one can be mapped by another.
    pub(super) fn view_inode(&self, caller: &Caller, view: &View) -> u64 {
        let of = view.of.as_ref().map_or("", SecretName::as_str);
        let kind = view.kind;
        let path = if kind.is_per_caller() {
            format!("{of}@{kind:?}@{}", caller.uid)
        } else {
            format!("{of}@{kind:?}")
        };
        self.broker.inode(&path).0
    }

    /// Tells whether a name on which the caller has no right looks like a temporary file beside a
    /// secret that it may write: such a program creates it, writes it and renames it over the
    /// secret. It then becomes a scratch file.
    fn is_temporary(&self, caller: &Caller, name: &SecretName) -> Result<bool> {
        if !self.may_write_in(caller, name.parent().as_ref())? {
            return Ok(false);
        }
        let leaf = name.leaf();
        let random = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if leaf.strip_prefix("tmp").is_some_and(|rest| rest.len() >= 6 && rest.chars().all(random))
        {
            return Ok(true);
        }
        // `password.k3Jx`, `password-new`, `password123`: what comes after the secret's own name
        // does not go on with the word.
        for (end, next) in leaf.char_indices().skip(1).filter(|(_, c)| !c.is_ascii_lowercase()) {
            let beside = leaf
                .get(..end)
                .and_then(|leaf| SecretName::join(name.parent().as_ref(), leaf).ok());
            let Some(beside) = beside.filter(|_| !next.is_control()) else { continue };
            if self.broker.levels(caller, &beside).allow(Level::Write) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Tells whether the caller may write anything below a directory.
    pub(super) fn may_write_in(&self, caller: &Caller, dir: Option<&SecretName>) -> Result<bool> {
        let found = match dir {
            None => return Ok(self.broker.may_write_below_root(caller)),
            Some(dir) => self.broker.look(caller, dir)?,
        };
        match found {
            Found::Directory(directory) => Ok(directory.may_write),
            Found::Secret(_) => Err(FsError::NotDirectory),
        }
    }
}

/// Returns the scratch name that stands where a path does.
pub(super) fn scratch_name(path: &SecretName) -> ScratchName {
    ScratchName { directory: path.parent(), leaf: path.leaf().into() }
}
