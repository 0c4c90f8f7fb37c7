//! open(2) and creat(2): here the policy is asked, and a version is pinned.

use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use super::Tree;
use super::lookup::{Entry, scratch_name};
use crate::broker::{BrokerError, Found, Kind as StoredKind, Put, Which};
use crate::fs::attributes::{Attributes, FileKind};
use crate::fs::control::{self, Backup, Command, Control, File, Kind, Patience, Restore};
use crate::fs::draft::Hold;
use crate::fs::error::{FsError, Result};
use crate::fs::handle::{Content, Handle, Pinned, Wipeable};
use crate::fs::node::{Meaning, Node, ScratchName, View, ViewKind};
use crate::fs::quota::Ticket;
use crate::fs::views::{Collection, Style};
use crate::fs::writer::Writer;
use crate::model::{Caller, Level, SecretName};

/// What an open asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::fs) struct Want {
    pub(in crate::fs) read: bool,
    pub(in crate::fs) write: bool,
    /// O_EXCL.
    pub(in crate::fs) new: bool,
    /// O_TRUNC, where the kernel leaves it to us.
    pub(in crate::fs) truncate: bool,
}

impl Want {
    /// Reads the flags of open(2).
    pub(in crate::fs) fn from_flags(flags: i32) -> Self {
        let mode = flags & libc::O_ACCMODE;
        Self {
            read: mode != libc::O_WRONLY,
            write: mode != libc::O_RDONLY,
            new: flags & libc::O_EXCL != 0,
            truncate: flags & libc::O_TRUNC != 0,
        }
    }
}

/// A handle that is not in the table yet: that happens when the answer is sent.
#[derive(Debug)]
pub(in crate::fs) struct Opening {
    handle: Handle,
    /// How many revocations there had been when it began; 0 where that was not looked at.
    revocations: u64,
    pub(in crate::fs) mode: OpenMode,
}

/// How the kernel is to treat a handle.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::fs) struct OpenMode {
    /// Reads and writes go past the page cache.
    pub(in crate::fs) direct: bool,
    /// close(2) has nothing to tell us.
    pub(in crate::fs) no_flush: bool,
    /// There is no position: reads take what comes next.
    pub(in crate::fs) stream: bool,
}

impl Tree {
    /// Tells whether an open may take long enough to be given to a worker.
    pub(in crate::fs) fn open_blocks(&self, inode: u64) -> bool {
        self.inodes.node(inode).is_ok_and(|node| {
            if let Node::View(view) = &*node {
                matches!(view.kind, ViewKind::Env | ViewKind::Json) || self.broker.reads_may_block()
            } else if let Node::Secret(_) = &*node {
                self.broker.reads_may_block()
            } else if let Node::Control(Control::File(file)) = &*node {
                matches!(file.kind, Kind::AuditLog | Kind::Backup | Kind::Restore)
            } else {
                matches!(*node, Node::Rendered(_))
            }
        })
    }

    /// Opens a node.
    pub(in crate::fs) fn open(&self, caller: &Caller, inode: u64, want: Want) -> Result<Opening> {
        let revocations = self.revocations.load(Ordering::SeqCst);
        let opening = self.open_node(caller, inode, want)?;
        Ok(Opening { revocations, ..opening })
    }

    fn open_node(&self, caller: &Caller, inode: u64, want: Want) -> Result<Opening> {
        let node = self.inodes.node(inode)?;
        let ticket = self.quotas.take(caller.uid.0)?;
        let place = Place { caller, inode, want, ticket };
        match &*node {
            Node::Control(Control::File(file)) => self.open_control(place, file),
            Node::Control(Control::Grant(_)) if want.write => Err(FsError::Access),
            Node::Control(Control::Grant(id)) => {
                let text = self.grant_text(caller, *id)?;
                Ok(place.opening(Content::Bytes(text.into_bytes().into())))
            }
            Node::Scratch(file) if file.uid == caller.uid.0 => {
                if want.truncate {
                    file.resize(0)?;
                }
                file.opened();
                Ok(place.opening(Content::Scratch(file.clone())))
            }
            Node::Scratch(_) | Node::Trashed(_) => Err(FsError::Access),
            Node::Secret(name) => self.open_secret(place, name, Which::Current, Put::default()),
            Node::View(view) => self.open_view(place, view),
            Node::Rendered(rendered) => self.open_rendered(place, rendered),
            Node::By(_) | Node::Control(_) | Node::Directory(_) | Node::Root => {
                Err(FsError::IsDirectory)
            }
        }
    }

    /// Puts a handle into the table. Returns its number. Errors: `TooManyHandles`.
    pub(in crate::fs) fn register(&self, opening: Opening) -> Result<u64> {
        let inode = opening.handle.inode;
        let writes = matches!(opening.handle.content, Content::Writer(_));
        let several = matches!(opening.handle.content, Content::Values(_));
        let pages = !opening.mode.direct;
        let secret = opening.handle.pinned().map(|pinned| pinned.id);
        let number = self.handles.insert(opening.handle)?;
        if let Some(secret) = secret
            && opening.revocations != self.revocations.load(Ordering::SeqCst)
            && self.broker.check_not_revoked(secret).is_err()
        {
            // It was revoked between the read and its place in the table.
            self.handles.revoke(secret);
        }
        if several && opening.revocations != self.revocations.load(Ordering::SeqCst) {
            // One that was may be among them.
            self.handles.revoke_several(number);
        }
        self.inodes.opened(inode, (writes || several).then_some(number));
        if pages {
            self.inodes.paged(inode);
        }
        Ok(number)
    }

    /// Creates a name and opens it.
    pub(in crate::fs) fn create(
        &self,
        caller: &Caller,
        parent: u64,
        name: &[u8],
        want: Want,
    ) -> Result<(Entry, Opening)> {
        let parent = self.inodes.node(parent)?;
        if !matches!(*parent, Node::Directory(_) | Node::Root) {
            return Err(FsError::NotPermitted);
        }
        match self.resolve(caller, &parent, name) {
            Meaning::Bad => Err(FsError::Invalid),
            Meaning::By(_) | Meaning::Control(_) | Meaning::Rendered(_) | Meaning::Trashed(_) => {
                Err(FsError::Exists)
            }
            Meaning::Member { .. } => Err(FsError::NotPermitted),
            Meaning::Path(path) if self.broker.levels(caller, &path).allow(Level::Write) => {
                self.create_secret(caller, &path, want)
            }
            Meaning::Path(path) => {
                // Not to be stored, but maybe to be renamed over a secret that the caller may write.
                if !self.may_write_in(caller, path.parent().as_ref())? {
                    self.broker.check(caller, Level::Write, &path)?;
                    return Err(FsError::Access);
                }
                self.create_scratch(caller, scratch_name(&path), want)
            }
            Meaning::Scratch(scratch) => {
                if !self.may_write_in(caller, scratch.directory.as_ref())? {
                    return Err(FsError::Access);
                }
                self.create_scratch(caller, scratch, want)
            }
            Meaning::View(view) => self.create_view(caller, &view, want),
        }
    }

    fn create_secret(
        &self,
        caller: &Caller,
        name: &SecretName,
        want: Want,
    ) -> Result<(Entry, Opening)> {
        let uid = caller.uid.0;
        match self.broker.look(caller, name) {
            Ok(Found::Directory(_)) => return Err(FsError::IsDirectory),
            Ok(Found::Secret(_)) if want.new => return Err(FsError::Exists),
            Ok(Found::Secret(_)) => {
                let entry = self.path_entry(caller, name)?;
                let ticket = self.quotas.take(uid)?;
                let place = Place { caller, inode: entry.attributes.inode, want, ticket };
                let opening = self.open_secret(place, name, Which::Current, Put::default())?;
                return Ok((entry, opening));
            }
            Err(BrokerError::NotFound(_)) => {}
            Err(error) => return Err(error.into()),
        }
        // The directory may have gone since the kernel looked it up.
        self.may_write_in(caller, name.parent().as_ref())?;
        self.broker.may_make_secret(caller)?;
        let ticket = self.quotas.take(uid)?;
        let now = self.clock.now();
        let hold = if want.new {
            self.drafts.create(uid, name, now)?
        } else {
            self.drafts.open(uid, name, now)?
        };
        let draft = self.drafts.find(uid, name).ok_or(FsError::NotFound)?;
        let entry = self.draft_entry(caller, name, &draft)?;
        let place = Place { caller, inode: entry.attributes.inode, want, ticket };
        let put = Put { create_new: want.new, ..Put::default() };
        Ok((entry, self.open_draft(place, name, put, hold)))
    }

    fn create_scratch(
        &self,
        caller: &Caller,
        name: ScratchName,
        want: Want,
    ) -> Result<(Entry, Opening)> {
        let uid = caller.uid.0;
        let ticket = self.quotas.take(uid)?;
        let file = match self.scratch.find(uid, &name) {
            Some(_) if want.new => return Err(FsError::Exists),
            Some(file) => file,
            None => self.scratch.create(uid, name, self.clock.now())?,
        };
        if want.truncate {
            file.resize(0)?;
        }
        file.opened();
        let attributes = self.scratch_attributes(caller, &file);
        let place = Place { caller, inode: attributes.inode, want, ticket };
        let opening = place.opening(Content::Scratch(file.clone()));
        Ok((Entry::new(Node::Scratch(file), attributes), opening))
    }

    /// Creates `name@pending`: the one view that can be written before it is there.
    fn create_view(&self, caller: &Caller, view: &View, want: Want) -> Result<(Entry, Opening)> {
        let View { of: Some(of), kind: ViewKind::Pending } = view else {
            return Err(FsError::NotFound);
        };
        self.broker.check(caller, Level::Admin, of)?;
        let inode = self.view_inode(caller, view);
        let place = Place { caller, inode, want, ticket: self.quotas.take(caller.uid.0)? };
        let writer = self.writer(of, Put { stage: true, ..Put::default() }, &place);
        writer.truncate(0, || Ok(None))?;
        let now = self.clock.now();
        let attributes =
            Attributes::own(caller, inode, FileKind::File, 0o600, now).shared(self.owners);
        let opening = place.opening(Content::Writer(writer.into()));
        Ok((Entry::new(Node::View(view.clone()), attributes), opening))
    }

    fn open_secret(
        &self,
        mut place: Place<'_>,
        name: &SecretName,
        which: Which,
        put: Put,
    ) -> Result<Opening> {
        let Place { caller, want, .. } = place;
        if !want.write {
            return match self.broker.read(caller, name, which) {
                Ok(opened) => {
                    place.ticket.hold(opened.value.len() as u64)?;
                    let pinned = Pinned::new(name.clone(), opened);
                    let opening = place.opening(Content::Secret(pinned));
                    Ok(if self.cached { opening.through_page_cache() } else { opening })
                }
                Err(BrokerError::NotFound(_)) if which == Which::Current => {
                    self.drafts.find(caller.uid.0, name).ok_or(FsError::NotFound)?;
                    Ok(place.opening(Content::Bytes([].into())))
                }
                Err(error) => Err(error.into()),
            };
        }
        let level = if put.stage { Level::Admin } else { Level::Write };
        self.broker.check(caller, level, name)?;
        if which == Which::Current
            && let Some(hold) = self.drafts.hold(caller.uid.0, name)
        {
            return Ok(self.open_draft(place, name, put, hold));
        }
        let mut writer = self.writer(name, put, &place);
        if want.read {
            let opened = self.broker.read(caller, name, which)?;
            place.ticket.hold(opened.value.len() as u64)?;
            writer = writer.reading(Pinned::new(name.clone(), opened));
        }
        if want.truncate {
            writer.truncate(0, || Ok(None))?;
        }
        Ok(place.opening(Content::Writer(writer.into())))
    }

    fn open_draft(&self, place: Place<'_>, name: &SecretName, put: Put, hold: Hold) -> Opening {
        let writer = self.writer(name, put, &place).drafting(hold);
        place.opening(Content::Writer(writer.into()))
    }

    fn writer(&self, name: &SecretName, put: Put, place: &Place<'_>) -> Writer {
        let max_bytes = self.broker.limits().max_value_bytes;
        Writer::new(name.clone(), put, max_bytes).opened_by(place.caller.tid)
    }

    fn open_view(&self, mut place: Place<'_>, view: &View) -> Result<Opening> {
        let Place { caller, want, .. } = place;
        if let ViewKind::Env | ViewKind::Json = view.kind {
            return self.open_values(place, view.of.as_ref(), view.kind);
        }
        let of = view.of.as_ref().ok_or(FsError::IsDirectory)?;
        match view.kind {
            ViewKind::Env | ViewKind::Frozen(_) | ViewKind::Json | ViewKind::Snap => {
                Err(FsError::IsDirectory)
            }
            ViewKind::Expect(_) if !want.write => Err(FsError::Invalid),
            ViewKind::Expect(version) => {
                let put = Put { expect: Some(version), ..Put::default() };
                self.open_secret(place, of, Which::Current, put)
            }
            ViewKind::Pending => {
                let put = Put { stage: true, ..Put::default() };
                self.open_secret(place, of, Which::Pending, put)
            }
            ViewKind::Meta | ViewKind::Numbered(_) | ViewKind::Previous | ViewKind::Why
                if want.write =>
            {
                Err(FsError::Access)
            }
            ViewKind::Meta | ViewKind::Why => {
                let text = self.view_text(caller, of, view.kind)?;
                Ok(place.opening(Content::Bytes(text.into_bytes().into())))
            }
            ViewKind::Numbered(version) => {
                self.open_secret(place, of, Which::Number(version), Put::default())
            }
            ViewKind::Previous => {
                place.want.truncate = false;
                self.open_secret(place, of, Which::Previous, Put::default())
            }
        }
    }

    /// Reads all secrets of a directory that the caller may read, each on record.
    fn open_values(
        &self,
        mut place: Place<'_>,
        directory: Option<&SecretName>,
        kind: ViewKind,
    ) -> Result<Opening> {
        let Place { caller, want, .. } = place;
        if want.write {
            return Err(FsError::Access);
        }
        let style = if kind == ViewKind::Env { Style::Env } else { Style::Json };
        let mut view = Collection::new(style)?;
        let mut after = None;
        loop {
            let batch = self.broker.list(caller, directory, after.as_deref(), BATCH)?;
            for entry in batch.iter().filter(|entry| entry.kind == StoredKind::Secret) {
                let name =
                    SecretName::join(directory, &entry.segment).map_err(BrokerError::Name)?;
                if self.broker.levels(caller, &name).allow(Level::Read) {
                    // One that cannot be read fails the whole: a missing variable is worse.
                    let opened = self.broker.read(caller, &name, Which::Current)?;
                    let variable = entry.injection.env_name.as_ref();
                    view.add((name.leaf(), variable), opened.value.expose())?;
                }
            }
            match batch.last() {
                Some(last) if batch.len() == BATCH => after = Some(last.segment.clone()),
                _ => break,
            }
        }
        let values = view.finish()?;
        place.ticket.hold(values.len() as u64)?;
        Ok(place.opening(Content::Values(Wipeable::new(values))))
    }

    fn open_control(&self, place: Place<'_>, file: &'static File) -> Result<Opening> {
        let Place { caller, want, .. } = place;
        let refused =
            (want.write && file.mode & 0o200 == 0) || (want.read && file.mode & 0o400 == 0);
        if refused {
            return Err(FsError::Access);
        }
        let content = match file.kind {
            Kind::AuditLog => Content::AuditLog(self.broker.audit_log_open(caller)?),
            Kind::Backup => {
                let (host, patience) = (self.host.clone(), Patience::default());
                Content::Backup(Backup::begin(host, caller, patience, self.patience())?)
            }
            Kind::Command(_) => Content::Command(Command::on(file).ok_or(FsError::Fault)?),
            Kind::Events => Content::Events(self.events.open(caller)?),
            Kind::Health => Content::Health(self.health.open()),
            Kind::Restore => {
                // A stranger must not fill the disk with what will be refused in the end.
                if !self.broker.is_admin(caller) {
                    self.broker.admit_control(caller, "restore")?;
                }
                if want.write {
                    Content::Restore(Restore::new(self.host.spool()?))
                } else {
                    Content::Bytes(self.last_restore.text().into_bytes().into())
                }
            }
            Kind::Text(text) => {
                let text = control::text(text, &self.broker, &*self.host, caller)?;
                Content::Bytes(text.into_bytes().into())
            }
        };
        Ok(place.opening(content))
    }
}

/// Entries that are asked for at one time.
pub(super) const BATCH: usize = 256;

/// Where a handle is being opened, by whom and for what.
pub(super) struct Place<'a> {
    pub(super) caller: &'a Caller,
    pub(super) inode: u64,
    pub(super) want: Want,
    pub(super) ticket: Ticket,
}

impl Place<'_> {
    pub(super) fn opening(self, content: Content) -> Opening {
        let mode = OpenMode {
            direct: true,
            no_flush: !self.want.write,
            stream: matches!(content, Content::Command(_)),
        };
        let handle = Handle {
            number: 0,
            inode: self.inode,
            opener: self.caller.clone(),
            content,
            ticket: Mutex::new(self.ticket),
        };
        Opening { handle, revocations: 0, mode }
    }
}

impl Opening {
    pub(super) fn through_page_cache(self) -> Self {
        Self { mode: OpenMode { direct: false, ..self.mode }, ..self }
    }

    pub(super) fn without_flush(self) -> Self {
        Self { mode: OpenMode { no_flush: true, ..self.mode }, ..self }
    }
}
