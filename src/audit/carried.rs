//! Lines that a commit of the store carries because they may not be on disk, and how they come back.
//!
//! So a commit and its lines are durable together, by the store's one sync. At a start, what the log
//! lacks of them is written behind its last line. Each must be the next one of the chain there, so
//! nothing comes back but what the log has held.

use std::io;

use super::chain::Head;
use super::durability::Disk;
use super::line::{self, Line};
use super::segments::SegmentFile;
use super::verify::{SegmentEnd, is_next};
use crate::model::Seq;

/// What the store remembers of the log, as of its last commit.
#[derive(Clone, Debug, Default)]
pub struct Anchor {
    /// The last line that there was.
    pub head: Head,
    pub carried: Carried,
}

/// Lines of the end of the log.
#[derive(Clone, Debug, Default)]
pub struct Carried {
    /// The last line that was on disk: no crash takes it or one before it.
    pub synced: Seq,
    /// The lines behind it, and maybe some before, in their order.
    pub lines: Vec<u8>,
}

impl From<Head> for Anchor {
    fn from(head: Head) -> Self {
        Self { head, carried: Carried::default() }
    }
}

/// A place between two lines of the log.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    /// The line before it.
    pub head: Head,
    /// The segment with that line, and where in it the line ends.
    pub(super) segment: Seq,
    pub(super) bytes: u64,
}

impl Carried {
    /// Returns those of the lines that come next behind the end of the last segment, and how many.
    /// None where a crash cannot have been what took them.
    fn missing(&self, end: &SegmentEnd) -> (Vec<u8>, u64) {
        let (mut head, mut chain) = (end.head, end.chain.copy_for_search());
        let (mut text, mut count) = (Vec::new(), 0);
        if head.seq < self.synced || end.closed.is_some() {
            return (text, count);
        }
        for whole in self.lines.split_inclusive(|&byte| byte == b'\n') {
            let line = whole.strip_suffix(b"\n").and_then(Line::parse);
            let Some(line) = line.filter(|line| line.seq > head.seq) else { continue };
            let mac = is_next(&line, &chain, &head).then(|| line::unhex(line.mac)).flatten();
            let Some(mac) = mac else { break };
            head = Head { seq: line.seq, mac };
            chain.advance();
            text.extend_from_slice(whole);
            count += 1;
        }
        (text, count)
    }

    /// Writes into the last segment, which was found to end at `end`, what it lacks. Returns how many
    /// lines.
    pub(super) fn restore(
        &self,
        segment: &SegmentFile,
        end: &SegmentEnd,
        disk: &dyn Disk,
    ) -> io::Result<u64> {
        let (text, count) = self.missing(end);
        if count > 0 {
            // In place: lines behind the hole that a crash has left fit again then.
            let file = segment.open_to_repair()?;
            disk.write(&file, None, end.whole_bytes, &text)?;
            disk.sync(&file)?;
        }
        Ok(count)
    }
}
