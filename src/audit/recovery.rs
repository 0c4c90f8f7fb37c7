//! What a start finds on disk: where the log ends, and whether that is where it ended.
//!
//! Only the last segment is verified here, so that a start is fast, and those before it that may not be on disk; what
//! a crash took of them comes back from the store, and a cut or a replacement is told by the anchor, which the store
//! keeps. [`verify`](super::verify()) checks the rest.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::backlog::{Unchecked, Unfinished};
use super::carried::Anchor;
use super::chain::{AuditKey, Head, NO_MAC};
use super::durability::Disk;
use super::line::{self, Line};
use super::retention::{self, LoadError, Totals};
use super::segments::{self, SegmentFile};
use super::tail::line_at;
use super::verify::{Check, Place, SegmentEnd, VerifyError};
use super::writer::Options;
use super::{Action, AuditError};
use crate::model::{Generation, StoreId};

/// What to do with a log that was cut or changed while nobody looked.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Rollback {
    /// Go on behind what is there, and say in the first line what was wrong. For an admin's decision only.
    Accept,
    #[default]
    Refuse,
}

/// The end of the log as found, ready to be continued in a new segment.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) head: Head,
    /// The last line that is known to be on disk.
    pub(super) synced: Head,
    /// The segments with the lines behind that one, the oldest first.
    pub(super) unfinished: Vec<Unfinished>,
    pub(super) generation: Option<Generation>,
    /// Bytes that a crash has left of lines, and that were dropped.
    pub(super) torn_bytes: u64,
    /// Lines that were lost in a crash and came back from the store.
    pub(super) restored_lines: u64,
    /// Whether the last process said that it ends. True of a new log.
    pub(super) ended_in_order: bool,
    /// What was wrong and was accepted.
    pub(super) accepted: Vec<String>,
    /// The digest of the totals as verified.
    pub(super) totals: Option<[u8; 32]>,
}

/// Refuses a log whose newest segment says that it is another store's, whatever else may be accepted:
/// two stores may be opened by one key file, and their logs do not go on with each other.
pub(super) fn check_store(dir: &Path, store: StoreId) -> Result<(), AuditError> {
    for segment in segments::list(dir)?.iter().rev() {
        match segment.store()? {
            Some(log) if log != store.to_string() => {
                return Err(AuditError::OtherStore { log, store });
            }
            Some(_) => return Ok(()),
            // Not born yet, damaged, or of a release that did not write it: asked of the one before.
            None => {}
        }
    }
    Ok(())
}

/// Finds the end of the log, after it has removed what a crash left over.
pub(super) fn recover(
    dir: &Path,
    key: &Arc<AuditKey>,
    anchor: Option<&Anchor>,
    options: &Options,
) -> Result<Recovered, AuditError> {
    let mut judge = Judge { rollback: options.rollback, accepted: Vec::new() };
    let totals = match retention::load(dir, Some(key)) {
        Ok(totals) => totals,
        Err(LoadError::Io(error)) => return Err(error.into()),
        Err(LoadError::Forged) => {
            judge.rule("the totals were edited or replaced".to_owned())?;
            retention::load(dir, None).ok().flatten()
        }
    };
    let removed = totals.as_ref().map_or(Head::EMPTY, Totals::head);
    let mut segments = segments::list(dir)?;
    for leftover in segments.drain(..retention::leftover(&segments, removed)) {
        fs::remove_file(&leftover.path)?;
    }
    let mut found = Recovered {
        head: removed,
        synced: removed,
        unfinished: Vec::new(),
        generation: None,
        torn_bytes: 0,
        restored_lines: 0,
        ended_in_order: true,
        accepted: Vec::new(),
        totals: retention::read_file(dir)?.map(|text| Sha256::digest(text).into()),
    };
    found.torn_bytes += remove_unborn(&mut segments)?;
    if segments.is_empty() && totals.is_some() {
        judge.rule("all segments were removed".to_owned())?;
    }
    // Those that may not be on disk, and the last one.
    let first = first_unfinished(&segments)?;
    for at in first..segments.len() {
        let Some(segment) = segments.get(at) else { break };
        let is_promised = anchor.is_some_and(|anchor| segment.first <= anchor.head.seq);
        if at > first && !is_promised && is_lost(segment, found.head)? {
            found.torn_bytes += drop_from(dir, &mut segments, at, options.disk.as_ref())?;
            break;
        }
        let expected = if at > first { Some(found.head) } else { (at == 0).then_some(removed) };
        let head = anchor.map(|anchor| &anchor.head);
        let check = Check { segment, key, expected, place: Place::Crashed, anchor: head };
        // Callers wait, and as long as it is not finished the next start comes back to it.
        let is_quick = options.taken_over && !segment.is_finished()?;
        let quick = if is_quick { check.run_behind_anchor()? } else { None };
        let quick = quick.filter(|end| end.torn_bytes == 0);
        let mut unchecked = quick.is_some();
        let mut end = quick.map_or_else(|| check.run(&mut Vec::new()), Ok);
        if let (Ok(crashed), Some(anchor)) = (&end, anchor) {
            let restored = anchor.carried.restore(segment, crashed, options.disk.as_ref())?;
            if restored > 0 {
                found.restored_lines += restored;
                end = check.run(&mut Vec::new());
                unchecked = false;
            }
        }
        let unchecked = anchor.filter(|_| unchecked).map(|anchor| Unchecked {
            segment: segment.clone(),
            key: Arc::clone(key),
            anchor: anchor.head,
        });
        found.take(segment, (end, unchecked), &mut judge, options.disk.as_ref())?;
    }
    if let Some(anchor) = anchor {
        judge.anchor(&anchor.head, removed, &segments, found.head)?;
    }
    found.accepted = judge.accepted;
    Ok(found)
}

/// Returns where those at the end begin that are not known to be on disk; the last one is always among them.
fn first_unfinished(segments: &[SegmentFile]) -> io::Result<usize> {
    let mut first = segments.len().saturating_sub(1);
    while let Some(before) = first.checked_sub(1)
        && let Some(segment) = segments.get(before)
        && !segment.is_finished()?
    {
        first = before;
    }
    Ok(first)
}

/// Tells whether a power cut has taken lines that come before a segment, or its first one. The log before it was not
/// known to be on disk, and ends at `head`.
fn is_lost(segment: &SegmentFile, head: Head) -> io::Result<bool> {
    Ok(segment.first > head.next_seq() || !segment.has_a_line()?)
}

/// Removes the segments from the place `at` on, durably: others will begin there. Returns how many bytes were written
/// to them.
fn drop_from(
    dir: &Path,
    segments: &mut Vec<SegmentFile>,
    at: usize,
    disk: &dyn Disk,
) -> io::Result<u64> {
    let mut bytes = 0;
    // The last one first: whatever is left if this is interrupted is a log.
    for segment in segments.drain(at..).rev() {
        bytes += segment.tail(0)?.bytes;
        fs::remove_file(&segment.path)?;
    }
    disk.sync_directory(dir)?;
    Ok(bytes)
}

impl Recovered {
    /// Takes in a segment. One that ends in zeros, as a killed process leaves it, stays so for now; what else is
    /// behind the last line is cut off.
    fn take(
        &mut self,
        segment: &SegmentFile,
        (end, unchecked): (Result<SegmentEnd, VerifyError>, Option<Unchecked>),
        judge: &mut Judge,
        disk: &dyn Disk,
    ) -> Result<(), AuditError> {
        let mut is_whole = false;
        let (before, bytes) = match end {
            Ok(end) => {
                is_whole = end.torn_bytes == 0;
                self.head = end.head;
                self.generation = self.generation.max(end.generation);
                self.torn_bytes += end.torn_bytes;
                self.ended_in_order = end.closed == Some(Action::Stop);
                (end.before, end.whole_bytes)
            }
            Err(VerifyError::Io(error)) => return Err(error.into()),
            Err(damage @ VerifyError::Damaged { .. }) => {
                judge.rule(damage.to_string())?;
                let last = segment.last_head()?;
                self.head = last.unwrap_or(Head { seq: segment.first, mac: NO_MAC });
                self.ended_in_order = false;
                (self.head, whole_bytes(segment)?)
            }
        };
        let file = segment.open_to_write()?;
        let has_zeros = file.metadata()?.len() > bytes;
        if is_whole && has_zeros {
            if self.unfinished.is_empty() {
                self.synced = before;
            }
            self.unfinished.push(Unfinished { file, bytes, unchecked });
            return Ok(());
        }
        // One that is cut counts as being on disk, and so does all before it.
        self.unfinished.iter().try_for_each(|before| disk.sync(&before.file))?;
        disk.sync(&file)?;
        if has_zeros {
            disk.cut(&file, bytes)?;
            disk.sync(&file)?;
        }
        if self.unfinished.is_empty() {
            self.synced = self.head;
        }
        Ok(())
    }
}

/// Refuses what is wrong, or notes that it was accepted.
struct Judge {
    rollback: Rollback,
    accepted: Vec<String>,
}

impl Judge {
    fn rule(&mut self, what: String) -> Result<(), AuditError> {
        match self.rollback {
            Rollback::Refuse => Err(AuditError::Tampered(what)),
            Rollback::Accept => {
                self.accepted.push(what);
                Ok(())
            }
        }
    }

    /// Checks that the log holds the line that the store remembers.
    fn anchor(
        &mut self,
        anchor: &Head,
        removed: Head,
        segments: &[SegmentFile],
        head: Head,
    ) -> Result<(), AuditError> {
        if head.seq < anchor.seq {
            let what = format!(
                "the log ends at seq {}, but the store remembers seq {}: the end was cut",
                head.seq, anchor.seq
            );
            return self.rule(what);
        }
        let mac = if anchor.seq <= removed.seq {
            (anchor.seq == removed.seq).then_some(removed.mac)
        } else {
            let holder = segments.iter().rev().find(|segment| segment.first <= anchor.seq);
            match holder {
                // The check of the last segment has compared it.
                Some(holder) if Some(holder) == segments.last() => return Ok(()),
                Some(holder) => Some(mac_at(holder, anchor)?.unwrap_or(NO_MAC)),
                None => Some(NO_MAC),
            }
        };
        if mac.is_some_and(|mac| mac != anchor.mac) {
            return self
                .rule(format!("seq {} is not the line that the store remembers", anchor.seq));
        }
        Ok(())
    }
}

/// Removes a last segment that has no line yet: its maker died between making it and writing to it.
fn remove_unborn(segments: &mut Vec<SegmentFile>) -> io::Result<u64> {
    let Some(last) = segments.last() else { return Ok(0) };
    if !last.is_unborn()? {
        return Ok(0);
    }
    let bytes = last.tail(0)?.bytes;
    fs::remove_file(&last.path)?;
    segments.pop();
    Ok(bytes)
}

fn whole_bytes(segment: &SegmentFile) -> io::Result<u64> {
    let mut bytes = 0;
    segments::for_each_line(segment.open()?, |line| {
        bytes += line.len() as u64 + 1;
        Ok::<_, io::Error>(())
    })?;
    Ok(bytes)
}

fn mac_at(segment: &SegmentFile, anchor: &Head) -> io::Result<Option<[u8; 32]>> {
    let text = line_at(&segment.open()?, anchor.seq)?.map(|(text, _)| text);
    let line = text.as_deref().and_then(Line::parse).filter(|line| line.seq == anchor.seq);
    Ok(line.and_then(|line| line::unhex(line.mac)))
}
