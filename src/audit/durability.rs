//! Group commit: many appenders wait, one fdatasync serves them all.
//!
//! Lock order: the lock of [`GroupCommit`] is never held while the log's own lock is taken.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::backlog::Backlog;
use super::chain::Head;
use super::segments;
use crate::model::Seq;
use crate::system::Mapping;

/// What an append has reached when it returns.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Durability {
    /// The disk: an fdatasync covers the line.
    Synced,
    /// The kernel: it survives any death of the process, and a power cut after a second at most.
    #[default]
    Written,
}

/// What is done to a segment, apart so that tests can count and record it and let it fail. What one does not say
/// otherwise is as the system does it.
pub trait Disk: fmt::Debug + Send + Sync {
    /// Cuts a file, and what is kept for it beyond its end.
    fn cut(&self, file: &File, bytes: u64) -> io::Result<()> {
        file.set_len(bytes)
    }

    /// Makes creations and removals in a directory durable.
    fn sync_directory(&self, dir: &Path) -> io::Result<()> {
        segments::sync_directory(dir)
    }

    /// Writes all bytes at `offset`: through the mapping where there is one, which never makes a file
    /// longer.
    fn write(
        &self,
        file: &File,
        mapping: Option<&mut Mapping>,
        offset: u64,
        bytes: &[u8],
    ) -> io::Result<()> {
        match (mapping, usize::try_from(offset)) {
            (Some(mapping), Ok(offset)) => mapping.write(offset, bytes),
            _ => file.write_all_at(bytes, offset),
        }
    }

    /// Makes what was written durable: fdatasync(2).
    fn sync(&self, file: &File) -> io::Result<()>;
}

/// The disk itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemDisk;

impl Disk for SystemDisk {
    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }
}

/// Knows how far the log is on disk, and shares the way there.
#[derive(Debug)]
pub(super) struct GroupCommit {
    state: Mutex<State>,
    done: Condvar,
}

#[derive(Debug)]
struct State {
    synced: Head,
    /// Somebody is in fdatasync; the others wait for what it finds.
    leading: bool,
}

/// A segment and a head that is written to it or to one before it, all of which are synced or in the backlog.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) file: Arc<File>,
    pub(super) head: Head,
    pub(super) backlog: Arc<Backlog>,
}

impl Target {
    /// Makes durable what was written before the call.
    pub(super) fn sync(&self, disk: &dyn Disk) -> io::Result<()> {
        if self.backlog.settle(disk, &self.file)? { Ok(()) } else { disk.sync(&self.file) }
    }
}

impl GroupCommit {
    pub(super) fn new(synced: Head) -> Self {
        Self { state: Mutex::new(State { synced, leading: false }), done: Condvar::new() }
    }

    /// Returns the last head that is known to be on disk.
    pub(super) fn synced(&self) -> Head {
        self.state.lock().synced
    }

    /// Returns once an fdatasync covers `seq`. `target` is asked for what to sync by whoever leads, after
    /// it has become the leader, so that one fdatasync takes in every line written until then.
    pub(super) fn wait<E>(
        &self,
        seq: Seq,
        disk: &dyn Disk,
        target: impl Fn() -> Result<Target, E>,
        failed: impl Fn(io::Error) -> E,
    ) -> Result<Head, E> {
        let mut state = self.state.lock();
        while state.leading && state.synced.seq < seq {
            self.done.wait(&mut state);
        }
        if state.synced.seq >= seq {
            return Ok(state.synced);
        }
        state.leading = true;
        drop(state);

        let result = target().and_then(|target| {
            target.sync(disk).map_err(failed)?;
            Ok(target.head)
        });

        let mut state = self.state.lock();
        state.leading = false;
        if let Ok(head) = &result
            && head.seq > state.synced.seq
        {
            state.synced = *head;
        }
        self.done.notify_all();
        result
    }
}
