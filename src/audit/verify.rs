//! Checks a log against its key and says where it was changed.
//!
//! Streams: memory is bounded by some batches of lines. Every segment is checked under its own keys, tied to the
//! one before it by seq, code and place in the run, and the first to what retention left behind.

use std::fmt;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::path::Path;
use std::thread;
use std::time::Duration;

use super::Action;
use super::chain::{AuditKey, Chain, Head, RunId};
use super::codes::Codes;
use super::entry::{Entry, SegmentHeader};
use super::line::{self, Line};
use super::retention::{self, LoadError, Totals};
use super::segments::{self, Ending, SegmentFile, Tail, read_line};
use super::tail::line_at;
use crate::model::{Generation, Seq, Timestamp};

/// Going back by less than this is the work of a clock daemon and not worth a note.
const CLOCK_TOLERANCE_SECONDS: i64 = 5;

/// A run of more segments than this is taken for an edit: each costs a hash to reach.
pub(super) const MAX_INDEX: u32 = 1 << 20;

/// How often, and how long apart, a hole behind the last line must be seen to be no line in the making.
const LOOKS: u32 = 20;
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);

/// Notes beyond this many are dropped.
const MAX_NOTES: usize = 1000;

/// Verifies every retained segment, and that the log reaches back to the anchor.
pub fn verify(dir: &Path, key: &AuditKey, anchor: Option<&Head>) -> Result<Verified, VerifyError> {
    let totals = retention::load(dir, Some(key)).map_err(LoadError::into_verify_error)?;
    let removed = totals.as_ref().map_or(Head::EMPTY, Totals::head);
    let segments = segments::list(dir)?;
    let leftover = retention::leftover(&segments, removed);
    let mut segments = segments.get(leftover..).unwrap_or_default();
    // A writer that rolls at this moment has made the next file and not written to it.
    if let Some((last, born)) = segments.split_last()
        && last.is_unborn()?
    {
        segments = born;
    }
    let mut verified = Verified {
        first: removed.next_seq(),
        head: removed,
        segments: 0,
        runs: 0,
        generation: None,
        notes: Vec::new(),
    };
    if leftover > 0 {
        verified.notes.push(Note::Leftover { segments: leftover as u64 });
    }
    if let (Some(anchor), Some(_)) = (anchor, &totals)
        && anchor.seq == removed.seq
        && anchor.mac != removed.mac
    {
        return Err(damaged(retention::FILE, 1, removed.seq, Damage::AnchorMismatch));
    }
    let mut previous: Option<SegmentEnd> = None;
    for (index, segment) in segments.iter().enumerate() {
        let place = if index + 1 == segments.len() { Place::Last } else { Place::Middle };
        let check = Check { segment, key, expected: Some(verified.head), place, anchor };
        let end = check.run(&mut verified.notes)?;
        check.follows(&end, previous.as_ref(), totals.is_some(), &mut verified.notes)?;
        verified.segments += 1;
        verified.runs += u64::from(end.index == 0);
        verified.head = end.head;
        verified.generation = verified.generation.max(end.generation);
        previous = Some(end);
    }
    let cut = match anchor {
        Some(anchor) => verified.head.seq < anchor.seq,
        // The segment in use is never removed: totals alone are what a deleted log leaves.
        None => totals.is_some() && segments.is_empty(),
    };
    if cut {
        let (file, line) = match (segments.last(), &previous) {
            (Some(segment), Some(end)) => (segment.name(), end.lines + 1),
            _ => (dir.display().to_string(), 1),
        };
        return Err(damaged(&file, line, verified.head.next_seq(), Damage::Cut));
    }
    Ok(verified)
}

/// A log that is whole.
#[derive(Clone, Debug)]
pub struct Verified {
    /// The first line that is still there.
    pub first: Seq,
    pub head: Head,
    pub segments: u64,
    /// How many times a process opened the log, as far as it is retained.
    pub runs: u64,
    /// The highest store generation that the log knows of.
    pub generation: Option<Generation>,
    /// What is no damage but worth a look.
    pub notes: Vec<Note>,
}

/// Something unusual that an honest history can contain.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Note {
    /// The clock was set back by so many seconds before this line.
    ClockWentBack { seq: Seq, seconds: i64 },
    /// The process that wrote up to this line did not end in order.
    Crashed { after: Seq },
    /// Segments that retention has counted and not yet removed; they were not verified.
    Leftover { segments: u64 },
    /// The last line is incomplete: the writer died or is writing it.
    TornTail { after: Seq, bytes: u64 },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClockWentBack { seq, seconds } => {
                write!(f, "the clock went back by {seconds} s before seq {seq}")
            }
            Self::Crashed { after } => {
                write!(f, "the daemon ended without a word after seq {after}")
            }
            Self::Leftover { segments } => {
                write!(f, "{segments} segments past retention are still to be removed")
            }
            Self::TornTail { after, bytes } => {
                write!(f, "an incomplete line of {bytes} bytes follows seq {after}")
            }
        }
    }
}

/// Why a log does not verify.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// `seq` is the one that belongs at this place.
    #[error("{file} line {line} (seq {seq}): {damage}")]
    Damaged { file: String, line: u64, seq: Seq, damage: Damage },
    #[error("the audit log cannot be read")]
    Io(#[from] io::Error),
}

/// What was done to a log.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Damage {
    #[error("the line is not the one that the store remembers: the log was written anew")]
    AnchorMismatch,
    #[error("the lines from here on were cut off")]
    Cut,
    #[error("lines that belong here were deleted")]
    Deleted,
    #[error("the line was edited")]
    Edited,
    #[error("a line was inserted or repeated")]
    Inserted,
    #[error("written under another key, or the key's nonce was edited")]
    OtherKey,
    #[error("lines were reordered")]
    Reordered,
    #[error("the totals were edited, replaced or made under another key")]
    Totals,
}

pub(super) fn damaged(file: &str, line: u64, seq: Seq, damage: Damage) -> VerifyError {
    VerifyError::Damaged { file: file.to_owned(), line, seq, damage }
}

/// Whether other segments follow, and so what may stand behind the last line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Place {
    /// The last one, as a power cut may have left it.
    Crashed,
    Last,
    Middle,
}

/// The check of one segment.
#[derive(Debug)]
pub(super) struct Check<'a> {
    pub(super) segment: &'a SegmentFile,
    pub(super) key: &'a AuditKey,
    /// Where the segment before ended; `None` takes the word of the first line.
    pub(super) expected: Option<Head>,
    pub(super) place: Place,
    pub(super) anchor: Option<&'a Head>,
}

/// What the check of one segment found out.
#[derive(Debug)]
pub(super) struct SegmentEnd {
    pub(super) run: RunId,
    pub(super) index: u32,
    /// The line before its first.
    pub(super) before: Head,
    pub(super) head: Head,
    /// The keys of the line that would come next.
    pub(super) chain: Chain,
    /// The closing line's action, if there is one.
    pub(super) closed: Option<Action>,
    pub(super) lines: u64,
    /// Bytes up to the last newline.
    pub(super) whole_bytes: u64,
    pub(super) torn_bytes: u64,
    pub(super) generation: Option<Generation>,
}

impl Check<'_> {
    /// Reads the segment through.
    pub(super) fn run(&self, notes: &mut Vec<Note>) -> Result<SegmentEnd, VerifyError> {
        let mut noted = Vec::new();
        let found = thread::scope(|scope| {
            let mut codes = Codes::beside(scope);
            let end = self.read(&mut codes, &mut noted);
            end.ok().filter(|_| codes.are_right())
        });
        match found {
            Some(end) => {
                noted.into_iter().for_each(|found| note(notes, found));
                Ok(end)
            }
            // Once more, line by line: what is wrong, and where.
            None => self.read(&mut Codes::InTurn, notes),
        }
    }

    /// Does so without another thread, and without the notes.
    pub(super) fn run_in_turn(&self) -> Result<SegmentEnd, VerifyError> {
        self.read(&mut Codes::InTurn, &mut Vec::new())
    }

    /// Reads the first line, which says whose segment it is, and those behind the anchor: what is before is left out.
    /// `None`: the anchor is not within it, or something is wrong, and [`run`](Self::run) says what.
    pub(super) fn run_behind_anchor(&self) -> io::Result<Option<SegmentEnd>> {
        let Some(anchor) = self.anchor.filter(|anchor| anchor.seq > self.segment.first) else {
            return Ok(None);
        };
        thread::scope(|scope| {
            let mut codes = Codes::beside(scope);
            match self.read_behind(anchor, &mut codes) {
                Ok(end) => Ok(end.filter(|_| codes.are_right())),
                Err(VerifyError::Io(error)) => Err(error),
                Err(VerifyError::Damaged { .. }) => Ok(None),
            }
        })
    }

    fn read_behind(
        &self,
        anchor: &Head,
        codes: &mut Codes<'_, '_>,
    ) -> Result<Option<SegmentEnd>, VerifyError> {
        let file = self.segment.open()?;
        let Some((text, behind)) = line_at(&file, anchor.seq)? else { return Ok(None) };
        let mut reader = BufReader::with_capacity(256 * 1024, file);
        reader.seek(SeekFrom::Start(0))?;
        let mut first = Vec::new();
        let ending = read_line(&mut reader, &mut first)?;
        let mut end = self.begin(&mut reader, &first, ending)?;
        // Each line has a key of its own.
        end.lines = anchor.seq.0 - self.segment.first.0;
        (0..end.lines).for_each(|_| end.chain.advance());
        let line = Line::parse(&text).filter(|line| is_authentic(line, &end.chain));
        if line.and_then(|line| end.accept(&line, &text)).is_none() || end.head != *anchor {
            return Ok(None);
        }
        end.lines += 1;
        end.whole_bytes = behind;
        end.chain.advance();
        reader.seek(SeekFrom::Start(behind))?;
        self.read_lines(&mut reader, &mut end, codes, &mut Vec::new())?;
        Ok(Some(end))
    }

    /// Does so with these codes; where they are checked beside the reading, what is returned counts once they are
    /// known to be right.
    fn read(
        &self,
        codes: &mut Codes<'_, '_>,
        notes: &mut Vec<Note>,
    ) -> Result<SegmentEnd, VerifyError> {
        let mut reader = BufReader::with_capacity(256 * 1024, self.segment.open()?);
        let mut text = Vec::new();
        let ending = read_line(&mut reader, &mut text)?;
        let mut end = self.begin(&mut reader, &text, ending)?;
        reader.seek(SeekFrom::Start(0))?;
        self.read_lines(&mut reader, &mut end, codes, notes)?;
        Ok(end)
    }

    /// Reads on behind the line where `end` stands.
    fn read_lines(
        &self,
        reader: &mut (impl BufRead + Seek),
        end: &mut SegmentEnd,
        codes: &mut Codes<'_, '_>,
        notes: &mut Vec<Note>,
    ) -> Result<(), VerifyError> {
        let mut last_time = String::new();
        let mut text = Vec::new();
        while read_line(reader, &mut text)? == Ending::Newline {
            let expected = end.head.next_seq();
            let found = Line::parse(&text);
            let Some(line) =
                found.filter(|line| has_place(line, &end.head) && codes.admit(line, &end.chain))
            else {
                let damage = classify(reader, &end.chain, end.head, found)?;
                return Err(self.damaged(end.lines + 1, expected, damage));
            };
            if end.closed.is_some() {
                return Err(self.damaged(end.lines + 1, expected, Damage::Inserted));
            }
            let number = end.lines + 1;
            if end.accept(&line, &text).is_none() {
                return Err(self.damaged(number, expected, Damage::Edited));
            }
            if self
                .anchor
                .is_some_and(|anchor| anchor.seq == line.seq && anchor.mac != end.head.mac)
            {
                return Err(self.damaged(number, expected, Damage::AnchorMismatch));
            }
            note_time(&line, &mut last_time, notes);
            end.whole_bytes += text.len() as u64 + 1;
            end.lines += 1;
            end.chain.advance();
        }
        self.look_behind(end, notes)
    }

    /// Checks what follows the last whole line.
    fn look_behind(&self, end: &mut SegmentEnd, notes: &mut Vec<Note>) -> Result<(), VerifyError> {
        let mut tail = self.segment.tail(end.whole_bytes)?;
        end.torn_bytes = tail.bytes;
        let expected = match self.place {
            // Pages reach the disk in any order, so a power cut may leave later ones alone.
            Place::Crashed => end.closed.is_none(),
            Place::Last => {
                // A line that is being written has a hole, too, for an instant.
                for _ in 0..LOOKS {
                    let Tail { hole: Some(_), .. } = tail else { break };
                    thread::sleep(BETWEEN_LOOKS);
                    let again = self.segment.tail(end.whole_bytes)?;
                    if again.hole != tail.hole {
                        tail.hole = None;
                    }
                }
                end.closed.is_none() && tail.hole.is_none()
            }
            // Every start drops a torn line before it goes on in a new segment.
            Place::Middle => false,
        };
        if tail.bytes > 0 && !expected {
            return Err(self.damaged(end.lines + 1, end.head.next_seq(), Damage::Edited));
        }
        if tail.bytes > 0 {
            note(notes, Note::TornTail { after: end.head.seq, bytes: tail.bytes });
        }
        Ok(())
    }

    /// Checks that the segment continues or follows the run of the one before.
    fn follows(
        &self,
        end: &SegmentEnd,
        previous: Option<&SegmentEnd>,
        pruned: bool,
        notes: &mut Vec<Note>,
    ) -> Result<(), VerifyError> {
        let Some(previous) = previous else {
            let whole = pruned || end.index == 0;
            return if whole { Ok(()) } else { Err(self.damaged(1, Seq(1), Damage::Deleted)) };
        };
        let follows = if previous.run == end.run {
            previous.closed == Some(Action::SegmentClose) && end.index == previous.index + 1
        } else {
            end.index == 0
        };
        if !follows {
            return Err(self.damaged(1, previous.head.next_seq(), Damage::Deleted));
        }
        if previous.run != end.run && previous.closed != Some(Action::Stop) {
            note(notes, Note::Crashed { after: previous.head.seq });
        }
        Ok(())
    }

    /// Derives the keys from the first line, and the place where it claims to stand.
    fn begin(
        &self,
        reader: &mut impl BufRead,
        text: &[u8],
        ending: Ending,
    ) -> Result<SegmentEnd, VerifyError> {
        let first = self.expected.map_or(self.segment.first, |head| head.next_seq());
        if ending != Ending::Newline {
            return Err(self.damaged(1, first, Damage::Cut));
        }
        let line = Line::parse(text);
        let entry: Option<Entry> = serde_json::from_slice(text).ok();
        let header = entry.and_then(|entry| serde_json::from_value(entry.detail?).ok());
        let header = header.filter(|header: &SegmentHeader| {
            header.format == SegmentHeader::FORMAT && header.index <= MAX_INDEX
        });
        let run = header.as_ref().and_then(|header| line::unhex(header.run.as_bytes()));
        let (Some(line), Some(header), Some(run)) = (line, header, run) else {
            return Err(self.damaged(1, first, Damage::Edited));
        };
        let chain = Chain::at(self.key, run, header.index);
        let opens = if header.index == 0 { Action::Start } else { Action::SegmentOpen };
        if !is_authentic(&line, &chain) || line.action != opens.as_str() {
            // Where the second line is good under this key, the key was right and the first was edited.
            let mut next = Chain::at(self.key, run, header.index);
            next.advance();
            let mut second = Vec::new();
            read_line(reader, &mut second)?;
            let good = Line::parse(&second).is_some_and(|line| is_authentic(&line, &next));
            let damage = if good { Damage::Edited } else { Damage::OtherKey };
            return Err(self.damaged(1, first, damage));
        }
        if line.seq > first {
            return Err(self.damaged(1, first, Damage::Deleted));
        }
        if line.seq < first {
            return Err(self.damaged(1, first, Damage::Inserted));
        }
        if self.segment.first != line.seq {
            return Err(self.damaged(1, first, Damage::Reordered));
        }
        let claimed = Head {
            seq: Seq(line.seq.0.saturating_sub(1)),
            mac: line::unhex(line.prev).unwrap_or(super::chain::NO_MAC),
        };
        let before = self.expected.unwrap_or(claimed);
        let end = SegmentEnd {
            run,
            index: header.index,
            before,
            head: before,
            chain,
            closed: None,
            lines: 0,
            whole_bytes: 0,
            torn_bytes: 0,
            generation: None,
        };
        if line::hex(&end.head.mac) != *line.prev {
            return Err(self.damaged(1, first, Damage::Deleted));
        }
        Ok(end)
    }

    fn damaged(&self, line: u64, seq: Seq, damage: Damage) -> VerifyError {
        damaged(&self.segment.name(), line, seq, damage)
    }
}

impl SegmentEnd {
    /// Takes in an authentic line; `None` if it is none that the log writes.
    fn accept(&mut self, line: &Line<'_>, text: &[u8]) -> Option<()> {
        self.head = Head { seq: line.seq, mac: line::unhex(line.mac)? };
        let is = |action: Action| line.action == action.as_str();
        if is(Action::SegmentClose) || is(Action::Stop) {
            self.closed = line.action.parse().ok();
        }
        let opens = is(Action::SegmentOpen) || is(Action::Start);
        if opens != (self.lines == 0) {
            return None;
        }
        if opens || is(Action::Anchor) {
            let entry: Entry = serde_json::from_slice(text).ok()?;
            self.generation = self.generation.max(entry.generation);
        }
        Some(())
    }
}

pub(super) fn is_authentic(line: &Line<'_>, chain: &Chain) -> bool {
    chain.line_key().fits(line.body, line.mac)
}

pub(super) fn is_next(line: &Line<'_>, chain: &Chain, head: &Head) -> bool {
    has_place(line, head) && is_authentic(line, chain)
}

fn has_place(line: &Line<'_>, head: &Head) -> bool {
    line.seq == head.next_seq() && *line.prev == line::hex(&head.mac)
}

/// Names what was done at a place where `found` stands and is not what belongs there.
fn classify(
    reader: &mut impl BufRead,
    chain: &Chain,
    head: Head,
    found: Option<Line<'_>>,
) -> io::Result<Damage> {
    let expected = head.next_seq();
    if found.is_some_and(|line| line.seq < expected) {
        return Ok(Damage::Inserted);
    }
    let mut next = Vec::new();
    // The line that belongs here, next: something was put before it. Further on: it was moved there.
    for distance in 0_u64.. {
        if read_line(reader, &mut next)? != Ending::Newline {
            break;
        }
        if Line::parse(&next).is_some_and(|line| is_next(&line, chain, &head)) {
            let moved = distance > 0 || found.is_some_and(|line| line.seq > expected);
            return Ok(if moved { Damage::Reordered } else { Damage::Inserted });
        }
    }
    // A line that is good at a later place shows that those between are gone.
    let ahead = found.filter(|line| line.seq > expected && is_good_later(line, chain, expected));
    Ok(if ahead.is_some() { Damage::Deleted } else { Damage::Edited })
}

fn is_good_later(line: &Line<'_>, chain: &Chain, expected: Seq) -> bool {
    const FURTHEST: u64 = 10_000_000;
    let distance = line.seq.0 - expected.0;
    if distance > FURTHEST {
        return false;
    }
    let mut later = chain.copy_for_search();
    (0..distance).for_each(|_| later.advance());
    is_authentic(line, &later)
}

fn note_time(line: &Line<'_>, last: &mut String, notes: &mut Vec<Note>) {
    if line.time < last.as_str()
        && let (Ok(now), Ok(before)) = (line.time.parse::<Timestamp>(), last.parse::<Timestamp>())
    {
        let seconds = before.as_second() - now.as_second();
        if seconds >= CLOCK_TOLERANCE_SECONDS {
            note(notes, Note::ClockWentBack { seq: line.seq, seconds });
        }
    }
    last.clear();
    last.push_str(line.time);
}

fn note(notes: &mut Vec<Note>, note: Note) {
    if notes.len() < MAX_NOTES {
        notes.push(note);
    }
}
