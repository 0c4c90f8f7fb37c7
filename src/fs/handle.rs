//! Open handles, and what each of them holds.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, RwLock};

use super::control::{Backup, Command, EventReader, HealthReader, Held, Restore};
use super::directory::Cursor;
use super::error::{FsError, Result};
use super::journal::{Fate, HandleSlots, Kept, KeptKind, Traits};
use super::numbered::Numbered;
use super::quota::Ticket;
use super::scratch::ScratchFile;
use super::writer::Writer;
use crate::broker::{Broker, BrokerError, Found, LogReader, Opened};
use crate::model::{Caller, SecretId, SecretName, Uid, Version};
use crate::system::SecretBytes;

/// The table of handles, each of which is in the journal too.
#[derive(Debug)]
pub(super) struct Handles {
    handles: Numbered<Arc<Handle>>,
    slots: HandleSlots,
}

/// One open file or directory.
#[derive(Debug)]
pub(super) struct Handle {
    /// 0 before it is in the table.
    pub(super) number: u64,
    pub(super) inode: u64,
    /// Who opened it, and in whose name it is written: RELEASE and late FLUSHes name nobody.
    pub(super) opener: Caller,
    pub(super) content: Content,
    /// Gives its part of the opener's share back when the handle goes.
    pub(super) ticket: Mutex<Ticket>,
}

/// What a handle reads and writes.
pub(super) enum Content {
    AuditLog(LogReader),
    Backup(Backup),
    /// Bytes that are no plaintext.
    Bytes(Arc<[u8]>),
    Command(Command),
    Directory(Mutex<Cursor>),
    Events(EventReader),
    /// It was an earlier server's, and what it held went with that.
    Gone(Gone),
    Health(HealthReader),
    /// A backup that is being taken.
    Restore(Arc<Restore>),
    Scratch(Arc<ScratchFile>),
    Secret(Pinned),
    /// A view made of several values.
    Values(Wipeable),
    Writer(Arc<Writer>),
}

/// A handle of an earlier server that cannot go on.
#[derive(Debug)]
pub(super) enum Gone {
    /// What it showed was made as it was opened.
    Passing,
    /// It was written to.
    Writer {
        /// Bytes were lost, and nobody has been told yet by close(2).
        unpublished: AtomicBool,
    },
}

/// The version that a handle reads until it is closed.
#[derive(Debug)]
pub(super) struct Pinned {
    pub(super) name: SecretName,
    pub(super) id: SecretId,
    pub(super) version: Version,
    value: Wipeable,
    /// Where a value that an earlier server had pinned comes from, when it is first asked for.
    again: Option<Broker>,
    /// Uids other than the opener's whose reads are on record.
    passed_on: Mutex<Vec<(Uid, PassedOn)>>,
}

/// Plaintext that goes when the store is sealed, or the secret is revoked.
#[derive(Debug)]
pub(super) struct Wipeable(RwLock<Plaintext>);

#[derive(Debug)]
enum Plaintext {
    Held(Arc<SecretBytes>),
    NotRead,
    Revoked,
    Wiped,
}

/// Bytes on their way to the kernel.
pub(super) enum Chunk {
    Owned(Vec<u8>),
    Secret(Arc<SecretBytes>, Range<usize>),
    Shared(Arc<[u8]>, Range<usize>),
}

impl Handles {
    /// Returns an empty table; what the slots hold is to be adopted.
    pub(super) fn new(slots: HandleSlots) -> Self {
        Self { handles: Numbered::new(), slots }
    }

    /// Returns what an earlier server has left, with the numbers.
    pub(super) fn left(&self) -> Vec<(u64, Kept)> {
        self.slots.all()
    }

    /// Adds a handle. Returns its number. Errors: `TooManyHandles`.
    pub(super) fn insert(&self, handle: Handle) -> Result<u64> {
        let number = self.slots.insert(&handle.kept()).ok_or(FsError::TooManyHandles)?;
        self.adopt(Handle { number, ..handle });
        Ok(number)
    }

    /// Adds a handle that has its number.
    pub(super) fn adopt(&self, handle: Handle) {
        self.handles.shard(handle.number).insert(handle.number, Arc::new(handle));
    }

    /// Notes by which number those who poll a handle are woken.
    pub(super) fn set_poll(&self, handle: &Handle, poll: u64) {
        self.slots.set_poll(handle.number, poll);
    }

    /// Notes what has become of what was written to a handle.
    pub(super) fn set_fate(&self, handle: &Handle, fate: Fate) {
        self.slots.set_fate(handle.number, fate);
    }

    /// Returns a handle. Errors: `BadHandle`.
    pub(super) fn find(&self, number: u64) -> Result<Arc<Handle>> {
        self.handles.shard(number).get(&number).cloned().ok_or(FsError::BadHandle)
    }

    /// Takes a handle out.
    pub(super) fn remove(&self, number: u64) -> Option<Arc<Handle>> {
        self.slots.remove(number);
        self.handles.shard(number).remove(&number)
    }

    /// Calls `visit` with each handle; it must not open or close one.
    pub(super) fn for_each(&self, mut visit: impl FnMut(&Handle)) {
        self.handles.for_each(|_, handle| visit(handle));
    }

    /// Returns how many bytes the version of a file has that this user has open to read.
    pub(super) fn size_open_to(&self, uid: Uid, inode: u64) -> Option<u64> {
        let mut open: Option<Arc<Handle>> = None;
        self.handles.for_each(|_, handle| {
            if handle.inode == inode && handle.opener.uid == uid && handle.pinned().is_some() {
                open = Some(Arc::clone(handle));
            }
        });
        let value = open?.pinned()?.value().ok()?;
        Some(value.len() as u64)
    }

    /// Counts what is held open.
    pub(super) fn held(&self, broker: &Broker) -> Held {
        let (mut handles, mut versions) = (0, BTreeSet::new());
        self.handles.for_each(|_, handle| {
            handles += 1;
            versions.extend(handle.pinned().map(|pinned| (pinned.name.clone(), pinned.version)));
        });
        let is_current = |(name, version): &&(SecretName, Version)| matches!(broker.presence(name), Ok(Found::Secret(secret)) if secret.version == *version);
        let current = versions.iter().filter(is_current).count();
        let superseded = (versions.len() - current) as u64;
        Held { handles, versions: versions.len() as u64, superseded }
    }

    /// Forgets the plaintext of a revoked secret. What shows several secrets at once goes too: it does
    /// not say of which they are.
    pub(super) fn revoke(&self, secret: SecretId) {
        self.handles.for_each(|_, handle| {
            if let Content::Values(values) = &handle.content {
                values.revoke();
            } else if let Some(pinned) = handle.pinned().filter(|pinned| pinned.id == secret) {
                pinned.value.revoke();
            }
        });
    }

    /// Forgets what one handle shows of several secrets.
    pub(super) fn revoke_several(&self, number: u64) {
        if let Ok(handle) = self.find(number)
            && let Content::Values(values) = &handle.content
        {
            values.revoke();
        }
    }

    /// Forgets the plaintext of all handles.
    pub(super) fn seal(&self) {
        let mut all = Vec::new();
        self.handles.for_each(|_, handle| all.push(handle.clone()));
        for handle in all {
            match &handle.content {
                Content::Secret(pinned) => pinned.value.wipe(),
                Content::Values(values) => values.wipe(),
                Content::Writer(writer) => writer.wipe(),
                Content::AuditLog(_)
                | Content::Backup(_)
                | Content::Bytes(_)
                | Content::Command(_)
                | Content::Directory(_)
                | Content::Events(_)
                | Content::Gone(_)
                | Content::Health(_)
                | Content::Restore(_)
                | Content::Scratch(_) => {}
            }
        }
    }
}

impl Handle {
    /// Returns what the next server has to know.
    fn kept(&self) -> Kept {
        let process = self.opener.process.as_ref();
        let mut kept = Kept {
            inode: self.inode,
            kind: KeptKind::Passing,
            uid: self.opener.uid.0,
            gid: self.opener.gid.0,
            tid: self.opener.tid.unwrap_or(0),
            started: process.map_or(0, |process| process.started.as_microsecond()),
            secret: SecretId::default(),
            version: Version::default(),
            plaintext: self.ticket.lock().plaintext(),
            poll: 0,
            fate: Fate::Fresh,
            traits: Traits::default(),
        };
        let pinned = match &self.content {
            Content::AuditLog(_) => return Kept { kind: KeptKind::AuditLog, ..kept },
            Content::Directory(_) => return Kept { kind: KeptKind::Directory, ..kept },
            Content::Events(_) => return Kept { kind: KeptKind::Events, ..kept },
            Content::Health(_) => return Kept { kind: KeptKind::Health, ..kept },
            Content::Scratch(_) => return Kept { kind: KeptKind::Scratch, ..kept },
            Content::Backup(_)
            | Content::Bytes(_)
            | Content::Command(_)
            | Content::Gone(_)
            | Content::Restore(_)
            | Content::Values(_) => return kept,
            Content::Secret(pinned) => {
                kept.kind = KeptKind::Secret;
                Some(pinned)
            }
            Content::Writer(writer) => {
                kept.kind = KeptKind::Writer;
                (kept.fate, kept.traits) = (writer.fate(), writer.traits());
                writer.pinned()
            }
        };
        if let Some(pinned) = pinned {
            (kept.secret, kept.version) = (pinned.id, pinned.version);
        }
        kept
    }
}

impl Handle {
    /// Returns the version that it reads from.
    pub(super) fn pinned(&self) -> Option<&Pinned> {
        if let Content::Secret(pinned) = &self.content {
            Some(pinned)
        } else if let Content::Writer(writer) = &self.content {
            writer.pinned()
        } else {
            None
        }
    }
}

/// What became of a reader who is not the opener.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum PassedOn {
    Allowed,
    Refused,
}

impl Gone {
    /// Returns what reading and writing it end with.
    pub(super) fn error(&self) -> FsError {
        match self {
            Self::Passing => FsError::Stale,
            Self::Writer { .. } => FsError::Lost,
        }
    }

    /// Tells whether bytes were lost of which nobody knows yet.
    pub(super) fn is_unpublished(&self) -> bool {
        match self {
            Self::Passing => false,
            Self::Writer { unpublished } => unpublished.load(Ordering::Relaxed),
        }
    }

    /// Notes that what was written was published by the server that died.
    pub(super) fn was_published(&self) {
        if let Self::Writer { unpublished } = self {
            unpublished.store(false, Ordering::Relaxed);
        }
    }
}

impl Pinned {
    /// Pins a version.
    pub(super) fn new(name: SecretName, opened: Opened) -> Self {
        let Opened { id, value, version } = opened;
        let value = Wipeable::new(value);
        Self { name, id, version, value, again: None, passed_on: Mutex::default() }
    }

    /// Pins a version that an earlier server had pinned, and has recorded.
    pub(super) fn again(name: SecretName, kept: &Kept, broker: Broker) -> Self {
        Self {
            name,
            id: kept.secret,
            version: kept.version,
            value: Wipeable(RwLock::new(Plaintext::NotRead)),
            again: Some(broker),
            passed_on: Mutex::default(),
        }
    }

    /// Returns the value. Errors: `Revoked`, `Sealed`, and those of reading it again.
    pub(super) fn value(&self) -> Result<Arc<SecretBytes>> {
        if let Some(broker) = &self.again {
            self.value.read_once(|| Ok(broker.read_again(self.id, self.version)?))?;
        }
        self.value.get()
    }

    /// Forgets the value.
    pub(super) fn wipe(&self) {
        self.value.wipe();
    }

    /// Has `record` ask for and record a reader who is not the opener, once; a refusal holds for
    /// as long as the handle.
    pub(super) fn pass_on(&self, reader: Uid, record: impl FnOnce() -> Result<()>) -> Result<()> {
        let known =
            self.passed_on.lock().iter().find(|(uid, _)| *uid == reader).map(|known| known.1);
        match known {
            Some(PassedOn::Allowed) => return Ok(()),
            Some(PassedOn::Refused) => return Err(FsError::Access),
            None => {}
        }
        let verdict = match record() {
            Ok(()) => PassedOn::Allowed,
            Err(FsError::Broker(BrokerError::Denied)) => PassedOn::Refused,
            // Not an answer about the reader: to be asked again.
            Err(error) => return Err(error),
        };
        self.passed_on.lock().push((reader, verdict));
        if verdict == PassedOn::Allowed { Ok(()) } else { Err(FsError::Access) }
    }
}

impl Wipeable {
    /// Takes plaintext in.
    pub(super) fn new(value: SecretBytes) -> Self {
        Self(RwLock::new(Plaintext::Held(Arc::new(value))))
    }

    /// Returns the plaintext. Errors: `Revoked`, `Sealed`.
    pub(super) fn get(&self) -> Result<Arc<SecretBytes>> {
        match &*self.0.read() {
            Plaintext::Held(value) => Ok(value.clone()),
            Plaintext::Revoked => Err(FsError::Revoked),
            Plaintext::NotRead | Plaintext::Wiped => Err(FsError::Sealed),
        }
    }

    fn read_once(&self, read: impl FnOnce() -> Result<SecretBytes>) -> Result<()> {
        if !matches!(*self.0.read(), Plaintext::NotRead) {
            return Ok(());
        }
        let value = read()?;
        let mut held = self.0.write();
        // Sealing may have come between.
        if matches!(*held, Plaintext::NotRead) {
            *held = Plaintext::Held(Arc::new(value));
        }
        Ok(())
    }

    fn wipe(&self) {
        *self.0.write() = Plaintext::Wiped;
    }

    fn revoke(&self) {
        *self.0.write() = Plaintext::Revoked;
    }
}

impl Chunk {
    /// Returns the bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Owned(bytes) => bytes,
            Self::Secret(bytes, range) => bytes.expose().get(range.clone()).unwrap_or_default(),
            Self::Shared(bytes, range) => bytes.get(range.clone()).unwrap_or_default(),
        }
    }
}

/// Returns the part of `len` bytes that a read of `size` bytes at `offset` asks for.
pub(super) fn part(len: usize, offset: u64, size: usize) -> Range<usize> {
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(len);
    start..start.saturating_add(size).min(len)
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AuditLog(_) => "AuditLog",
            Self::Backup(_) => "Backup",
            Self::Bytes(_) => "Bytes",
            Self::Command(_) => "Command",
            Self::Directory(_) => "Directory",
            Self::Events(_) => "Events",
            Self::Gone(_) => "Gone",
            Self::Health(_) => "Health",
            Self::Restore(_) => "Restore",
            Self::Scratch(_) => "Scratch",
            Self::Secret(_) => "Secret",
            Self::Values(_) => "Values",
            Self::Writer(_) => "Writer",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pinned() -> Pinned {
        let value = SecretBytes::copy_from(b"canary-7f3a").unwrap();
        let id = SecretId::default();
        Pinned::new("k".parse().unwrap(), Opened { id, value, version: Version(1) })
    }

    #[test]
    fn reads_are_cut_at_the_end_of_the_value() {
        assert_eq!(part(10, 0, 4), 0..4);
        assert_eq!(part(10, 8, 4), 8..10);
        assert!(part(10, 10, 4).is_empty() && part(10, u64::MAX, usize::MAX).is_empty());
    }

    #[test]
    fn a_passed_on_handle_is_asked_for_and_recorded_once_a_reader() {
        let (pinned, mut records) = (pinned(), 0);
        for _ in 0..3 {
            let refused = pinned.pass_on(Uid(2), || {
                records += 1;
                Err(BrokerError::Denied.into())
            });
            assert!(matches!(refused, Err(FsError::Access)));
        }
        for _ in 0..3 {
            let allowed = pinned.pass_on(Uid(3), || {
                records += 1;
                Ok(())
            });
            assert!(allowed.is_ok());
        }
        assert_eq!(records, 2);
    }

    #[test]
    fn after_a_seal_the_value_is_gone_and_debug_never_showed_it() {
        let pinned = pinned();
        assert!(!format!("{pinned:?}").contains("canary"));
        pinned.wipe();
        assert!(matches!(pinned.value(), Err(FsError::Sealed)));
    }
}
