//! The file below the store: how it is made, opened, shared and opened anew.
//!
//! A recovery uses the descriptor that the store was opened with, never the path: the path may lead
//! elsewhere by then, and a sandboxed server may no longer open files. It also makes the kernel
//! forget what it cached of the file, for after a failed `fsync` the page cache holds, as clean,
//! pages that never reached the disk.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Bound;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};

use super::StoreError;

/// A backend that the store keeps in hand after redb has taken it.
#[derive(Clone, Debug)]
pub(super) struct SharedBackend(Arc<dyn StorageBackend>);

/// Makes the backend again, once the former one is closed.
pub(super) type Reopen = dyn Fn() -> io::Result<SharedBackend> + Send + Sync;

impl SharedBackend {
    pub(super) fn new(backend: impl StorageBackend) -> Self {
        Self(Arc::new(backend))
    }
}

/// Makes a file that only its owner may read or write; fails if anything has that name.
pub(super) fn create_file(path: &Path) -> Result<File, StoreError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)?;
    Ok(file)
}

/// Opens a regular file, not through a symbolic link.
pub(super) fn open_file(path: &Path) -> Result<File, StoreError> {
    let file =
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOFOLLOW).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(StoreError::Damaged("it is not a regular file".into()));
    }
    Ok(file)
}

/// Opens a regular file, not through a symbolic link; makes it, durably, where there is none.
pub(super) fn open_or_create(path: &Path) -> Result<File, StoreError> {
    match open_file(path) {
        Err(StoreError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
            let file = create_file(path)?;
            sync_directory_of(path)?;
            Ok(file)
        }
        opened => opened,
    }
}

/// Makes the entry of a new file in its directory durable.
pub(super) fn sync_directory_of(path: &Path) -> Result<(), StoreError> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(parent)?.sync_all()?;
    Ok(())
}

/// Returns the backend over a file, and how to make it again.
pub(super) fn over_file(file: File) -> Result<(SharedBackend, Box<Reopen>), StoreError> {
    let first = file_backend(&file)?;
    let reopen = move || {
        // What is still dirty must reach the disk before anyone takes it for committed; what is
        // clean, truly or after a failed fsync, must be read from the disk. Where the advice is
        // not heeded, the cached pages are what the next fsync-less reader would see as well.
        file.sync_data()?;
        if let Err(error) = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED) {
            tracing::debug!(%error, "the store's cached pages stay");
        }
        file_backend(&file)
    };
    Ok((first, Box::new(reopen)))
}

fn file_backend(file: &File) -> io::Result<SharedBackend> {
    let backend = FileBackend::new(file.try_clone()?).map_err(io::Error::other)?;
    Ok(SharedBackend::new(backend))
}

/// Delegates everything: a lock method left out would silently mean "no locking".
impl StorageBackend for SharedBackend {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.0.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.query_lock_range(start, end)
    }
}
