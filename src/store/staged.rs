//! A file whose first changes wait until there is another one.
//!
//! redb notes in the file's header that it was opened, and waits for the disk: twice, after a crash. A start need not
//! wait for that, for nothing relies on it before something else is written. So what is written to the file while it
//! is being opened stays in memory, with the syncs in between; and it is done, in the same order, before the next
//! write. What a crash may leave of the file is what it may leave without the delay.

use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;
use redb::{BackendError, StorageBackend};

use super::backend::SharedBackend;

/// What is kept in memory at most; more than a header is that of a repair, which has no reason to wait.
const MOST_BYTES: usize = 64 << 10;

/// A backend in front of another one.
#[derive(Clone, Debug)]
pub(super) struct Staged(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    behind: SharedBackend,
    /// Whether there may be anything on the stage. It becomes false under the stage's lock, and stays so.
    is_staging: AtomicBool,
    stage: RwLock<Stage>,
}

#[derive(Debug, Default)]
struct Stage {
    /// The file is open: the next change is made, after those before.
    is_open: bool,
    changes: Vec<Change>,
    bytes: usize,
    /// A change failed: what is on disk is not known, and nothing may follow it.
    failed: Option<io::ErrorKind>,
}

#[derive(Debug)]
enum Change {
    Sync,
    Write(u64, Vec<u8>),
}

impl Staged {
    /// Keeps back what is written from now on until [`opened`](Self::opened).
    pub(super) fn new(behind: SharedBackend) -> Self {
        let (is_staging, stage) = (AtomicBool::new(true), RwLock::default());
        Self(Arc::new(Shared { behind, is_staging, stage }))
    }

    /// Takes note that what comes next is not of the opening any more.
    pub(super) fn opened(&self) {
        self.0.stage.write().is_open = true;
    }

    /// Makes the changes that were kept back. Returns once those are durable that were synced.
    pub(super) fn perform(&self) -> io::Result<()> {
        if self.is_staging() { self.0.perform(&mut self.0.stage.write()) } else { Ok(()) }
    }

    fn is_staging(&self) -> bool {
        self.0.is_staging.load(Ordering::Acquire)
    }

    /// Keeps a change back; false says that it is to be made now.
    fn keeps(&self, bytes: usize, change: impl FnOnce() -> Change) -> io::Result<bool> {
        if !self.is_staging() {
            return Ok(false);
        }
        let mut stage = self.0.stage.write();
        stage.bytes += bytes;
        if stage.is_open || stage.bytes > MOST_BYTES {
            self.0.perform(&mut stage)?;
            return Ok(false);
        }
        stage.changes.push(change());
        Ok(true)
    }
}

impl Shared {
    fn perform(&self, stage: &mut Stage) -> io::Result<()> {
        if let Some(kind) = stage.failed {
            return Err(kind.into());
        }
        for change in stage.changes.drain(..) {
            let made = match change {
                Change::Sync => self.behind.sync_data(),
                Change::Write(offset, data) => self.behind.write(offset, &data),
            };
            if let Err(error) = made {
                stage.failed = Some(error.kind());
                return Err(error);
            }
        }
        self.is_staging.store(false, Ordering::Release);
        Ok(())
    }
}

impl StorageBackend for Staged {
    fn len(&self) -> io::Result<u64> {
        self.0.behind.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if !self.is_staging() {
            return self.0.behind.read(offset, out);
        }
        let stage = self.0.stage.read();
        self.0.behind.read(offset, out)?;
        for change in &stage.changes {
            if let Change::Write(start, data) = change {
                lay_over(out, offset, data, *start);
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.perform()?;
        self.0.behind.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.keeps(0, || Change::Sync)? { Ok(()) } else { self.0.behind.sync_data() }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if self.keeps(data.len(), || Change::Write(offset, data.to_vec()))? {
            Ok(())
        } else {
            self.0.behind.write(offset, data)
        }
    }

    fn close(&self) -> io::Result<()> {
        self.0.behind.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.behind.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.0.behind.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.behind.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.behind.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.behind.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.behind.query_lock_range(start, end)
    }
}

/// Puts the part of `data`, which stands at `start`, that lies in what was read at `offset` over it.
fn lay_over(out: &mut [u8], offset: u64, data: &[u8], start: u64) {
    let from = start.max(offset);
    let to = (start + data.len() as u64).min(offset + out.len() as u64);
    let place =
        |base: u64| Some(usize::try_from(from - base).ok()?..usize::try_from(to - base).ok()?);
    if from < to
        && let Some(out) = place(offset).and_then(|place| out.get_mut(place))
        && let Some(data) = place(start).and_then(|place| data.get(place))
    {
        out.copy_from_slice(data);
    }
}
