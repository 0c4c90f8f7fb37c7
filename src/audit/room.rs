//! The file of a segment while it is written: lines, and zeros in front of them to write into.
//!
//! The file's size runs ahead by a step of zeros at a time, and lines are written into these through a
//! shared mapping. So a line costs a copy and no system call, and an fdatasync has bytes to write and no
//! metadata. Whatever stands where zeros should is somebody else's.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::durability::Disk;
use super::line::MAX_LINE;
use crate::system::Mapping;

/// Bytes of zeros that are made at a time.
const STEP: usize = 64 * 1024;

static ZEROS: [u8; STEP] = [0; STEP];

pub(super) struct Room {
    file: Arc<File>,
    /// How far it is meant to grow.
    capacity: u64,
    /// The file's size, as we made it.
    size: u64,
    /// `None` where the filesystem cannot map files: then lines are written with pwrite(2).
    mapping: Option<Mapping>,
}

impl Room {
    /// Takes over an empty file that is to hold about `capacity` bytes.
    pub(super) fn new(file: File, capacity: u64) -> Self {
        let mapping = map(&file, capacity);
        Self { file: Arc::new(file), capacity, size: 0, mapping }
    }

    pub(super) fn file(&self) -> &Arc<File> {
        &self.file
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Writes a line at `offset`, where there are zeros. On an error a part of it may be there.
    pub(super) fn write(
        &mut self,
        disk: &dyn Disk,
        offset: u64,
        line: &[u8],
    ) -> Result<(), WriteError> {
        let end = offset + line.len() as u64;
        while self.size < end {
            self.extend(disk, end)?;
        }
        if !self.is_empty(offset, end)? {
            return Err(WriteError::Occupied);
        }
        disk.write(&self.file, self.mapping.as_mut(), offset, line)?;
        Ok(())
    }

    /// Sees to it that the zeros behind `end`, where the last line ends, are enough for an ordinary line.
    pub(super) fn reserve(&mut self, disk: &dyn Disk, end: u64) -> io::Result<()> {
        /// Longer than nearly all lines.
        const ORDINARY: u64 = 4096;
        while self.size < end + ORDINARY {
            if let Err(error) = self.extend(disk, end + ORDINARY) {
                self.erase(self.size, 0)?;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Tells whether there are only zeros behind the last line, which ends at `end`.
    pub(super) fn is_empty_behind(&mut self, end: u64) -> io::Result<bool> {
        self.is_empty(end, self.size.max(end))
    }

    /// Takes back what a failed write of `len` bytes at `offset` has left, or a failed extension.
    pub(super) fn erase(&mut self, offset: u64, len: usize) -> io::Result<()> {
        // A mapping that could not be served has pages of its own, which are not the file's.
        self.mapping = None;
        self.file.set_len(self.size)?;
        let len = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(len).min(len);
        self.file.write_all_at(&vec![0; len], offset)?;
        self.mapping = map(&self.file, self.capacity);
        Ok(())
    }

    /// Cuts the zeros off behind the last line, and the room that was kept beyond.
    pub(super) fn cut(&mut self, disk: &dyn Disk, end: u64) -> io::Result<()> {
        self.mapping = None;
        disk.cut(&self.file, end)?;
        self.size = end;
        Ok(())
    }

    fn extend(&mut self, disk: &dyn Disk, at_least: u64) -> io::Result<()> {
        let step = self.capacity.saturating_sub(self.size).max(at_least - self.size);
        let zeros = usize::try_from(step).ok().and_then(|step| ZEROS.get(..step)).unwrap_or(&ZEROS);
        disk.write(&self.file, None, self.size, zeros)?;
        self.size += zeros.len() as u64;
        Ok(())
    }

    fn is_empty(&mut self, from: u64, to: u64) -> io::Result<bool> {
        let len = usize::try_from(to - from).map_err(|_| io::ErrorKind::InvalidInput)?;
        if let (Some(mapping), Ok(from)) = (&mut self.mapping, usize::try_from(from)) {
            return mapping.is_zero(from, len);
        }
        let mut found = vec![0; len];
        self.file.read_exact_at(&mut found, from)?;
        Ok(found.iter().all(|&byte| byte == 0))
    }
}

fn map(file: &File, capacity: u64) -> Option<Mapping> {
    // The line that fills it and the one that closes it come on top.
    let most = capacity.saturating_add(2 * MAX_LINE as u64);
    Mapping::shared(file, usize::try_from(most).ok()?).ok()
}

/// Why a line was not written.
#[derive(Debug)]
pub(super) enum WriteError {
    Io(io::Error),
    /// Somebody has written where the line belongs.
    Occupied,
}

impl From<io::Error> for WriteError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}
