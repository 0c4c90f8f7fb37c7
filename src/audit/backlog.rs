//! What a start leaves to be made durable beside the first requests.
//!
//! A process that is killed leaves its segment with zeros behind the lines, and with lines that may not be on disk.
//! The next one begins a segment of its own at once. Then it makes the old one durable, the directory, its own; and
//! only then takes the zeros away. So zeros at the end of a segment that another one follows say that a power cut may
//! have come in between, and taken lines of it: then nothing behind them was promised to anybody to be durable, and
//! [`recover`](super::recovery::recover) drops it. Any other segment with a successor is on disk.
//!
//! Where callers wait for the start, it leaves the check of what is before the store's anchor, too.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use super::chain::{AuditKey, Head};
use super::durability::Disk;
use super::segments::SegmentFile;
use super::verify::{Check, Place};

/// Nothing of the log counts as durable before it is settled.
#[derive(Debug, Default)]
pub(super) struct Backlog(Mutex<Option<Pending>>);

#[derive(Debug)]
struct Pending {
    /// The oldest first.
    ended: Vec<Unfinished>,
    directory: PathBuf,
}

/// A segment that a process has left as it was when it died.
#[derive(Debug)]
pub(super) struct Unfinished {
    pub(super) file: File,
    /// Where its last line ends.
    pub(super) bytes: u64,
    /// Where not all of its lines are checked yet.
    pub(super) unchecked: Option<Unchecked>,
}

/// A segment of which a start has checked the lines behind the store's anchor alone.
#[derive(Debug)]
pub(super) struct Unchecked {
    pub(super) segment: SegmentFile,
    pub(super) key: Arc<AuditKey>,
    pub(super) anchor: Head,
}

impl Unchecked {
    fn check(&self) -> io::Result<()> {
        let Self { segment, key, anchor } = self;
        let check =
            Check { segment, key, expected: None, place: Place::Crashed, anchor: Some(anchor) };
        check.run_in_turn().map(drop).map_err(io::Error::other)
    }
}

impl Backlog {
    /// Of segments that another one now follows, in the order of their lines.
    pub(super) fn of(ended: Vec<Unfinished>, directory: PathBuf) -> Self {
        Self(Mutex::new((!ended.is_empty()).then_some(Pending { ended, directory })))
    }

    /// Checks what is unchecked and makes everything up to what is written to `current` durable, unless there is
    /// nothing to settle. Returns whether there was. After an error the log must take no more lines: a second sync would
    /// prove nothing.
    pub(super) fn settle(&self, disk: &dyn Disk, current: &File) -> io::Result<bool> {
        let mut pending = self.0.lock();
        let Some(Pending { ended, directory }) = &*pending else { return Ok(false) };
        // Before anything says that they are on disk, by which the next start would take them for checked.
        ended
            .iter()
            .filter_map(|segment| segment.unchecked.as_ref())
            .try_for_each(Unchecked::check)?;
        ended.iter().try_for_each(|segment| disk.sync(&segment.file))?;
        disk.sync_directory(directory)?;
        disk.sync(current)?;
        // In this order: whoever finds them cut relies on all of the above.
        ended.iter().try_for_each(|segment| disk.cut(&segment.file, segment.bytes))?;
        *pending = None;
        Ok(true)
    }
}
