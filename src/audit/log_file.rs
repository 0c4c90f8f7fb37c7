//! The retained segments as one file that only grows, for `.control/audit/log` and `tail -f`.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use super::segments::{self, SegmentFile};

/// One reader's view of the log. Offsets count from the oldest segment there was when it was opened, and
/// stay what they are when segments roll. A part that retention removed meanwhile reads as `NotFound`.
pub struct LogFile {
    dir: PathBuf,
    parts: Mutex<Parts>,
}

#[derive(Default)]
struct Parts {
    /// Each with its offset; only the last one still grows.
    parts: Vec<(SegmentFile, u64)>,
    /// The part that was read last. One descriptor a reader is enough.
    open: Option<(usize, File)>,
}

impl LogFile {
    /// Opens the log in `dir` for reading.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let file = Self { dir: dir.to_owned(), parts: Mutex::default() };
        file.size()?;
        Ok(file)
    }

    /// Returns the size in bytes right now.
    pub fn size(&self) -> io::Result<u64> {
        let mut parts = self.parts.lock();
        parts.discover(&self.dir)?;
        parts.end()
    }

    /// Reads from `offset` into `buffer`. Returns how many bytes; less than asked for at the end only.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut parts = self.parts.lock();
        let mut end = parts.end()?;
        if offset.saturating_add(buffer.len() as u64) > end {
            parts.discover(&self.dir)?;
            end = parts.end()?;
        }
        let most = usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX);
        let length = buffer.len().min(most);
        let buffer = buffer.get_mut(..length).unwrap_or_default();
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let bytes = parts.read_part(offset + done as u64, rest)?;
            if bytes == 0 {
                break;
            }
            done += bytes;
        }
        Ok(done)
    }
}

impl Parts {
    /// Takes in segments that were begun since. One that has a line tells that those before it are final.
    fn discover(&mut self, dir: &Path) -> io::Result<()> {
        let known = self.parts.last().map(|(segment, _)| segment.first);
        let mut new = segments::list(dir)?;
        new.retain(|segment| known.is_none_or(|known| segment.first > known));
        for segment in new {
            if segment.is_unborn()? {
                break;
            }
            let offset = self.end()?;
            self.parts.push((segment, offset));
        }
        Ok(())
    }

    fn end(&mut self) -> io::Result<u64> {
        let Some(last) = self.parts.len().checked_sub(1) else { return Ok(0) };
        let offset = self.parts.get(last).map_or(0, |(_, offset)| *offset);
        Ok(offset + segments::end_of_lines(self.file(last)?)?)
    }

    fn read_part(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let after = self.parts.partition_point(|(_, start)| *start <= offset);
        let Some(index) = after.checked_sub(1) else { return Ok(0) };
        let start = self.parts.get(index).map_or(0, |(_, start)| *start);
        // Never beyond the part, even if somebody has made the file longer since.
        let most = self.parts.get(after).map_or(u64::MAX, |(_, next)| next - offset);
        let length = buffer.len().min(usize::try_from(most).unwrap_or(usize::MAX));
        let buffer = buffer.get_mut(..length).unwrap_or_default();
        self.file(index)?.read_at(buffer, offset - start)
    }

    fn file(&mut self, index: usize) -> io::Result<&File> {
        let open = match self.open.take() {
            Some((known, file)) if known == index => (known, file),
            Some(_) | None => {
                let part = self.parts.get(index).ok_or(io::ErrorKind::NotFound)?;
                (index, part.0.open()?)
            }
        };
        Ok(&self.open.insert(open).1)
    }
}

impl fmt::Debug for LogFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogFile").field("dir", &self.dir).finish_non_exhaustive()
    }
}
