//! Searches of the log, a page at a time: what an index rules out is not read.
//!
//! As [`query`](super::query) it reads without the key and believes what it finds. Whatever indexes say, each line
//! that is returned was read and fits; and what no index speaks for is read whole.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use memchr::memmem::{self, Finder};
use memchr::{memchr, memrchr};

use super::index::Index;
use super::reader::Filter;
use super::segments::{self, SegmentFile};
use super::tail::seq_of;
use super::{AuditError, Entry};
use crate::model::Seq;

/// Where the indexes of segments come from. One that is not to be trusted is none.
pub type Indexes<'a> = dyn Fn(Seq) -> Option<Index> + 'a;

/// A search, and how much of an answer is wanted at one time.
#[derive(Clone, Debug)]
pub struct Find {
    pub filter: Filter,
    /// Bytes of lines, of which there may be one line more.
    pub max_bytes: usize,
    /// Bytes of lines that are looked at.
    pub max_read: u64,
}

/// A part of the answer.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Lines that fit, each with its newline, the oldest first.
    pub lines: Vec<u8>,
    /// The last line that was looked at, behind which a search for the rest goes on; none at the end.
    pub next: Option<Seq>,
    /// Bytes of the lines that were looked at.
    pub read: u64,
}

/// How much is read at one time.
const CHUNK: u64 = 1 << 20;

/// Returns the first lines of all segments that take no more lines, the oldest first.
pub fn complete_segments(dir: &Path) -> io::Result<Vec<Seq>> {
    let mut segments = segments::list(dir)?;
    while let Some(last) = segments.pop() {
        // One that is unborn does not tell that the one before it is complete.
        if !last.is_unborn()? {
            break;
        }
    }
    Ok(segments.into_iter().map(|segment| segment.first).collect())
}

/// Builds the index of the segment with that first line.
pub fn index_of(dir: &Path, first: Seq) -> io::Result<Index> {
    Index::build(&SegmentFile::new(dir, first))
}

/// Finds lines, in their order.
pub fn find(dir: &Path, search: &Find, indexes: &Indexes<'_>) -> Result<Found, AuditError> {
    let filter = &search.filter;
    let mut segments = segments::list(dir)?;
    if let Some(after) = filter.after {
        segments::drop_before(&mut segments, after);
    }
    let needles = filter.needles();
    let mut searching = Searching::new(search, &needles);
    let last = segments.last().map(|segment| segment.first);
    for segment in &segments {
        let index = if Some(segment.first) == last { None } else { indexes(segment.first) };
        let index = match index {
            Some(index) if index.fits(segment)? => Some(index),
            Some(_) | None => None,
        };
        let file = segment.open()?;
        let ranges = match &index {
            Some(index) => index.ranges(filter),
            None => std::iter::once(0..segments::end_of_lines(&file)?).collect(),
        };
        for range in ranges {
            if searching.read(&file, range)? == Enough::Yes {
                let Searching { found, last, .. } = searching;
                return Ok(Found { next: last, ..found });
            }
        }
    }
    Ok(searching.found)
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Enough {
    No,
    Yes,
}

struct Searching<'a> {
    search: &'a Find,
    /// The first of the filter's needles, for which lines are not even told apart.
    first_needle: Option<Finder<'a>>,
    needles: &'a [String],
    found: Found,
    /// The last line that was looked at.
    last: Option<Seq>,
    /// What was read last, kept for its room.
    buffer: Vec<u8>,
}

impl<'a> Searching<'a> {
    fn new(search: &'a Find, needles: &'a [String]) -> Self {
        let first_needle = needles.first().map(|needle| Finder::new(needle.as_bytes()));
        let found = Found::default();
        Self { search, first_needle, needles, found, last: None, buffer: Vec::new() }
    }

    /// Looks at the lines of a range, which begins and ends with whole ones.
    fn read(&mut self, file: &File, range: Range<u64>) -> io::Result<Enough> {
        let mut at = range.start;
        while at < range.end {
            let length = CHUNK.min(range.end - at);
            let mut buffer = std::mem::take(&mut self.buffer);
            buffer.resize(usize::try_from(length).unwrap_or(0), 0);
            file.read_exact_at(&mut buffer, at)?;
            let whole = memrchr(b'\n', &buffer).map_or(0, |end| end + 1);
            let enough = self.look(buffer.get(..whole).unwrap_or_default());
            self.buffer = buffer;
            if enough == Enough::Yes {
                return Ok(Enough::Yes);
            }
            // The rest of a line is read once more; what is longer than any line is none.
            at += if whole == 0 { length } else { whole as u64 };
        }
        Ok(Enough::No)
    }

    /// Looks at whole lines. What is none is passed over: `verify` tells of it.
    fn look(&mut self, lines: &[u8]) -> Enough {
        let Find { filter, max_bytes, max_read } = self.search;
        let lines = filter.after.map_or(lines, |after| behind(lines, after));
        let Some(last) = last_seq(lines) else { return Enough::No };
        let mut from = 0;
        while let Some(rest) = lines.get(from..).filter(|rest| !rest.is_empty()) {
            let hit = match &self.first_needle {
                Some(needle) => needle.find(rest),
                None => Some(0),
            };
            let Some(hit) = hit.map(|hit| from + hit) else { break };
            let before = lines.get(..hit).unwrap_or_default();
            let start = memrchr(b'\n', before).map_or(0, |end| end + 1);
            let rest = lines.get(hit..).unwrap_or_default();
            let end = memchr(b'\n', rest).map_or(lines.len(), |end| hit + end);
            let line = lines.get(start..end).unwrap_or_default();
            from = end + 1;
            let Some(seq) = seq_of(line).filter(|_| self.fits(line)) else { continue };
            self.found.lines.extend_from_slice(line);
            self.found.lines.push(b'\n');
            if self.found.lines.len() >= *max_bytes {
                self.looked_at(seq, from);
                return Enough::Yes;
            }
        }
        self.looked_at(last, lines.len());
        if self.found.read >= *max_read { Enough::Yes } else { Enough::No }
    }

    fn fits(&self, line: &[u8]) -> bool {
        self.needles.iter().all(|needle| memmem::find(line, needle.as_bytes()).is_some())
            && serde_json::from_slice::<Entry>(line)
                .is_ok_and(|entry| self.search.filter.matches(&entry))
    }

    fn looked_at(&mut self, seq: Seq, bytes: usize) {
        self.last = self.last.max(Some(seq));
        self.found.read += bytes as u64;
    }
}

/// Returns the lines from the first on that is behind that number.
fn behind(lines: &[u8], after: Seq) -> &[u8] {
    if last_seq(lines).is_none_or(|last| last <= after) {
        return &[];
    }
    let mut rest = lines;
    while let Some(end) = memchr(b'\n', rest) {
        if seq_of(rest.get(..end).unwrap_or_default()).is_some_and(|seq| seq > after) {
            break;
        }
        rest = rest.get(end + 1..).unwrap_or_default();
    }
    rest
}

/// Returns the number of the last line that has one.
fn last_seq(lines: &[u8]) -> Option<Seq> {
    lines.rsplit(|byte| *byte == b'\n').find_map(seq_of)
}
