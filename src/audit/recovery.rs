//! What a start finds on disk: where the log ends, and whether that is where it ended.
//!
//! Only the last segment is verified here, so that a start is fast; what a crash took of it comes back
//! from the store, and a cut or a replacement is told by the anchor, which the store keeps.
//! [`verify`](super::verify()) checks the rest.

use std::fs;
use std::io;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::carried::Anchor;
use super::chain::{AuditKey, Head, NO_MAC};
use super::line::{self, Line};
use super::retention::{self, LoadError, Totals};
use super::segments::{self, SegmentFile};
use super::tail::line_at;
use super::verify::{Check, Place, SegmentEnd, VerifyError};
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
    pub(super) generation: Option<Generation>,
    /// Bytes of an incomplete last line that were dropped.
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
    key: &AuditKey,
    anchor: Option<&Anchor>,
    rollback: Rollback,
) -> Result<Recovered, AuditError> {
    let mut judge = Judge { rollback, accepted: Vec::new() };
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
        generation: None,
        torn_bytes: 0,
        restored_lines: 0,
        ended_in_order: true,
        accepted: Vec::new(),
        totals: retention::read_file(dir)?.map(|text| Sha256::digest(text).into()),
    };
    found.torn_bytes += remove_unborn(&mut segments)?;
    match segments.last() {
        Some(last) => {
            let expected = (segments.len() == 1).then_some(removed);
            let head = anchor.map(|anchor| &anchor.head);
            let check = Check { segment: last, key, expected, place: Place::Crashed, anchor: head };
            let mut end = check.run(&mut Vec::new());
            if let (Ok(crashed), Some(anchor)) = (&end, anchor) {
                found.restored_lines = anchor.carried.restore(last, crashed)?;
                if found.restored_lines > 0 {
                    end = check.run(&mut Vec::new());
                }
            }
            found.take(last, end, &mut judge)?;
        }
        None if totals.is_some() => judge.rule("all segments were removed".to_owned())?,
        None => {}
    }
    if let Some(anchor) = anchor {
        judge.anchor(&anchor.head, removed, &segments, found.head)?;
    }
    found.accepted = judge.accepted;
    Ok(found)
}

impl Recovered {
    /// Takes in the last segment, cuts off its torn line and gives back the room that was kept for it.
    fn take(
        &mut self,
        last: &SegmentFile,
        end: Result<SegmentEnd, VerifyError>,
        judge: &mut Judge,
    ) -> Result<(), AuditError> {
        let whole_bytes = match end {
            Ok(end) => {
                self.head = end.head;
                self.generation = end.generation;
                self.torn_bytes += end.torn_bytes;
                self.ended_in_order = end.closed == Some(Action::Stop);
                end.whole_bytes
            }
            Err(VerifyError::Io(error)) => return Err(error.into()),
            Err(damage @ VerifyError::Damaged { .. }) => {
                judge.rule(damage.to_string())?;
                self.head = last.last_head()?.unwrap_or(Head { seq: last.first, mac: NO_MAC });
                self.ended_in_order = false;
                whole_bytes(last)?
            }
        };
        let file = last.open_to_write()?;
        file.set_len(whole_bytes)?;
        file.sync_all()?;
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
    let text = line_at(&segment.open()?, anchor.seq)?;
    let line = text.as_deref().and_then(Line::parse).filter(|line| line.seq == anchor.seq);
    Ok(line.and_then(|line| line::unhex(line.mac)))
}
