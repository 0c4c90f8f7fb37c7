//! Open handles, and what each of them holds.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use super::control::{Backup, Command, EventReader, HealthReader, Restore};
use super::directory::Cursor;
use super::error::{FsError, Result};
use super::numbered::Numbered;
use super::quota::Ticket;
use super::scratch::ScratchFile;
use super::writer::Writer;
use crate::broker::{BrokerError, Opened};
use crate::model::{Caller, SecretName, Uid, Version};
use crate::system::SecretBytes;

/// The table of handles.
#[derive(Debug)]
pub(super) struct Handles {
    handles: Numbered<Arc<Handle>>,
    next: AtomicU64,
}

/// One open file or directory.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) inode: u64,
    /// Who opened it, and in whose name it is written: RELEASE and late FLUSHes name nobody.
    pub(super) opener: Caller,
    pub(super) content: Content,
    /// Gives its part of the opener's share back when the handle goes.
    pub(super) ticket: Mutex<Ticket>,
}

/// What a handle reads and writes.
pub(super) enum Content {
    AuditLog,
    Backup(Backup),
    /// Bytes that are no plaintext.
    Bytes(Arc<[u8]>),
    Command(Command),
    Directory(Mutex<Cursor>),
    Events(EventReader),
    Health(HealthReader),
    /// A backup that is being taken.
    Restore(Arc<Restore>),
    Scratch(Arc<ScratchFile>),
    Secret(Pinned),
    /// A view made of several values.
    Values(Wipeable),
    Writer(Writer),
}

/// The version that a handle reads until it is closed.
#[derive(Debug)]
pub(super) struct Pinned {
    pub(super) name: SecretName,
    pub(super) version: Version,
    value: Wipeable,
    /// Uids other than the opener's whose reads are on record.
    passed_on: Mutex<Vec<(Uid, PassedOn)>>,
}

/// Plaintext that goes when the store is sealed.
#[derive(Debug)]
pub(super) struct Wipeable(RwLock<Option<Arc<SecretBytes>>>);

/// Bytes on their way to the kernel.
pub(super) enum Chunk {
    Owned(Vec<u8>),
    Secret(Arc<SecretBytes>, Range<usize>),
    Shared(Arc<[u8]>, Range<usize>),
}

impl Handles {
    /// Returns an empty table.
    pub(super) fn new() -> Self {
        Self { handles: Numbered::new(), next: AtomicU64::new(1) }
    }

    /// Adds a handle. Returns its number.
    pub(super) fn insert(&self, handle: Handle) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.handles.shard(number).insert(number, Arc::new(handle));
        number
    }

    /// Returns a handle. Errors: `BadHandle`.
    pub(super) fn find(&self, number: u64) -> Result<Arc<Handle>> {
        self.handles.shard(number).get(&number).cloned().ok_or(FsError::BadHandle)
    }

    /// Takes a handle out.
    pub(super) fn remove(&self, number: u64) -> Option<Arc<Handle>> {
        self.handles.shard(number).remove(&number)
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
                Content::AuditLog
                | Content::Backup(_)
                | Content::Bytes(_)
                | Content::Command(_)
                | Content::Directory(_)
                | Content::Events(_)
                | Content::Health(_)
                | Content::Restore(_)
                | Content::Scratch(_) => {}
            }
        }
    }
}

/// What became of a reader who is not the opener.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum PassedOn {
    Allowed,
    Refused,
}

impl Pinned {
    /// Pins a version.
    pub(super) fn new(name: SecretName, opened: Opened) -> Self {
        let value = Wipeable::new(opened.value);
        Self { name, version: opened.version, value, passed_on: Mutex::default() }
    }

    /// Returns the value. Errors: `Sealed`.
    pub(super) fn value(&self) -> Result<Arc<SecretBytes>> {
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
        Self(RwLock::new(Some(Arc::new(value))))
    }

    /// Returns the plaintext. Errors: `Sealed`.
    pub(super) fn get(&self) -> Result<Arc<SecretBytes>> {
        self.0.read().clone().ok_or(FsError::Sealed)
    }

    fn wipe(&self) {
        *self.0.write() = None;
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
            Self::AuditLog => "AuditLog",
            Self::Backup(_) => "Backup",
            Self::Bytes(_) => "Bytes",
            Self::Command(_) => "Command",
            Self::Directory(_) => "Directory",
            Self::Events(_) => "Events",
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
        Pinned::new("k".parse().unwrap(), Opened { value, version: Version(1) })
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
