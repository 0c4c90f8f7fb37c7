//! Searches of the log, a page at a time: what an index rules out is not read.
//!
//! As [`query`](super::query) it reads without the key and believes what it finds. Whatever indexes say, each line
//! that is returned was read and fits; and what no index speaks for is read whole.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

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
        let begun = |segment: &SegmentFile| segment.first.0 <= after.0.saturating_add(1);
        segments.drain(..segments.iter().skip(1).take_while(|next| begun(next)).count());
    }
    let mut searching =
        Searching { search, needles: filter.needles(), found: Found::default(), last: None };
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
    needles: Vec<String>,
    found: Found,
    /// The last line that was looked at.
    last: Option<Seq>,
}

impl Searching<'_> {
    /// Looks at the lines of a range, which begins and ends with whole ones.
    fn read(&mut self, file: &File, range: Range<u64>) -> io::Result<Enough> {
        let (mut at, mut rest) = (range.start, Vec::new());
        while at < range.end {
            let length = CHUNK.min(range.end - at);
            let mut chunk = std::mem::take(&mut rest);
            let before = chunk.len();
            chunk.resize(before + usize::try_from(length).unwrap_or(0), 0);
            file.read_exact_at(chunk.get_mut(before..).unwrap_or_default(), at)?;
            at += length;
            let whole = chunk.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            rest = chunk.split_off(whole);
            for line in chunk.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                if self.look(line) == Enough::Yes {
                    return Ok(Enough::Yes);
                }
            }
        }
        Ok(Enough::No)
    }

    /// Looks at one line. What is none is passed over: `verify` tells of it.
    fn look(&mut self, line: &[u8]) -> Enough {
        let Some(seq) = seq_of(line) else { return Enough::No };
        let Find { filter, max_bytes, max_read } = self.search;
        if filter.after.is_some_and(|after| seq <= after) {
            return Enough::No;
        }
        let text = std::str::from_utf8(line).unwrap_or_default();
        if self.needles.iter().all(|needle| text.contains(needle.as_str()))
            && serde_json::from_str::<Entry>(text).is_ok_and(|entry| filter.matches(&entry))
        {
            self.found.lines.extend_from_slice(line);
            self.found.lines.push(b'\n');
        }
        self.last = Some(seq);
        self.found.read += line.len() as u64;
        if self.found.lines.len() >= *max_bytes || self.found.read >= *max_read {
            Enough::Yes
        } else {
            Enough::No
        }
    }
}
