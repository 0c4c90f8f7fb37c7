//! The end of the log: one line after the other, and segments that roll.
//!
//! Whatever goes wrong is an error of the append, and the caller's request fails with it. A line that
//! did not fit is taken back whole. A file that is not as we left it ends the log until a restart: going
//! on would hide what was done to it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::AuditError;
use super::backlog::Backlog;
use super::carried::Mark;
use super::chain::{Chain, Head};
use super::durability::{Disk, Target};
use super::entry::SegmentHeader;
use super::event::{Action, Event, Outcome, UserNames};
use super::line::{self, Formatter, MAX_LINE, Place};
use super::recovery::Recovered;
use super::retention::Totals;
use super::room::{Room, WriteError};
use super::segments::SegmentFile;
use super::writer::{Options, Recorded, Subscriber};
use crate::model::{Clock, Generation, Seq, Timestamp};

/// The end of the log, behind the log's lock.
pub(super) struct Appender {
    segment: Segment,
    chain: Chain,
    pub(super) head: Head,
    backlog: Arc<Backlog>,
    /// What the segment's first line is to say of a start, until that line is written.
    header: Option<Option<Value>>,
    pub(super) generation: Option<Generation>,
    broken: Option<Broken>,
    /// Why the last line did not fit, until one does again.
    starved: Option<String>,
    /// When the file was last looked at.
    checked: Option<Instant>,
    line: Vec<u8>,
    formatter: Formatter,
    pub(super) subscribers: Vec<Subscriber>,
}

impl Appender {
    /// Begins a run behind what was found, and writes its first line. Neither the line nor the segment's name is
    /// durable.
    pub(super) fn begin(home: &Home, found: Recovered, chain: Chain) -> Result<Self, AuditError> {
        let now = home.clock.now();
        let on_disk = SegmentFile::new(&home.dir, found.head.next_seq());
        let start = json!({
            "accepted": found.accepted,
            "daemon": home.options.start,
            "dropped_bytes": found.torn_bytes,
            "ended_in_order": found.ended_in_order,
            "restored_lines": found.restored_lines,
        });
        let mut appender = Self {
            segment: Segment::create(on_disk, home.options.segment_bytes, now)?,
            chain,
            head: found.head,
            backlog: Arc::new(Backlog::of(found.unfinished, home.dir.clone())),
            header: Some(Some(start)),
            generation: found.generation,
            broken: None,
            starved: None,
            checked: None,
            line: Vec::with_capacity(4096),
            formatter: Formatter::default(),
            subscribers: Vec::new(),
        };
        appender.write_header(home, now)?;
        Ok(appender)
    }

    /// Records an event, in a new segment if this one is full or old.
    pub(super) fn append(&mut self, home: &Home, event: &Event<'_>) -> Result<Seq, AuditError> {
        self.check_file_now_and_then(home.options.check_interval)?;
        let now = home.clock.now();
        let appended = self.prepare(home, now).and_then(|()| self.put(home, event, now));
        self.note_room(appended.as_ref().err());
        appended
    }

    /// Sees to it that there is a segment for the next line.
    fn prepare(&mut self, home: &Home, now: Timestamp) -> Result<(), AuditError> {
        if self.header.is_some() {
            self.open_segment(home, now)
        } else if self.is_due(&home.options, now) {
            self.roll(home, now)
        } else {
            Ok(())
        }
    }

    /// Returns why nothing is taken, if that is so. Where it was for want of room, it is tried whether there is
    /// some again: nobody else would, while nothing is served.
    pub(super) fn fault(&mut self, home: &Home) -> Option<String> {
        if let Err(error) = self.check_path() {
            return Some(error.to_string());
        }
        if self.starved.is_some() {
            let room = self.prepare(home, home.clock.now()).and_then(|()| {
                let Segment { room, bytes, .. } = &mut self.segment;
                Ok(room.reserve(home.options.disk.as_ref(), *bytes)?)
            });
            self.note_room(room.as_ref().err());
        }
        self.starved.clone()
    }

    fn note_room(&mut self, failed: Option<&AuditError>) {
        match failed {
            None => self.starved = None,
            Some(AuditError::Io(error)) => {
                self.starved = Some(format!("the audit log takes no line: {error}"));
            }
            // What is wrong with the line itself, or is on record as broken.
            Some(_) => {}
        }
    }

    /// Writes one line. On an error the file, the chain and the head are as before.
    fn put(&mut self, home: &Home, event: &Event<'_>, now: Timestamp) -> Result<Seq, AuditError> {
        let seq = self.head.next_seq();
        let place = Place { seq, time: now, names: &*home.names, prev: &self.head.mac };
        self.formatter.write_body(&mut self.line, &place, event);
        let mac = self.chain.mac(&self.line);
        line::push_mac(&mut self.line, &mac);
        if self.line.len() > MAX_LINE {
            return Err(AuditError::TooLong(self.line.len()));
        }
        self.write(home.options.disk.as_ref())?;
        self.chain.advance();
        self.head = Head { seq, mac };
        self.segment.bytes += self.line.len() as u64;
        if event.action == Action::Anchor {
            self.generation = self.generation.max(event.generation);
        }
        self.tell(event, seq);
        Ok(seq)
    }

    fn write(&mut self, disk: &dyn Disk) -> Result<(), AuditError> {
        let error = match self.segment.room.write(disk, self.segment.bytes, &self.line) {
            Ok(()) => return Ok(()),
            Err(WriteError::Occupied) => return Err(self.tampered(OCCUPIED)),
            Err(WriteError::Io(error)) => error,
        };
        // Not the disk's doing, maybe: a file that was cut must not be made whole again.
        self.check_file_after_failed_write()?;
        let erased = self.segment.room.erase(self.segment.bytes, self.line.len());
        // A half line would spoil the next one.
        if let Err(stuck) = erased {
            self.broken = Some(Broken::Failed(format!("a torn line cannot be removed: {stuck}")));
        }
        Err(error.into())
    }

    fn tell(&self, event: &Event<'_>, seq: Seq) {
        if self.subscribers.is_empty() {
            return;
        }
        let line = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
        let Event { action, outcome, secret, .. } = *event;
        let recorded = Recorded { seq, action, outcome, secret, line };
        self.subscribers.iter().for_each(|subscriber| subscriber(&recorded));
    }

    fn is_due(&self, options: &Options, now: Timestamp) -> bool {
        let age = now.as_microsecond().saturating_sub(self.segment.begun.as_microsecond());
        let most = i64::try_from(options.segment_age.as_micros()).unwrap_or(i64::MAX);
        self.segment.bytes >= options.segment_bytes || age >= most
    }

    /// Ends the segment and begins the next. The new file is made first: if the disk is full, nothing has
    /// happened, and the next append tries again.
    fn roll(&mut self, home: &Home, now: Timestamp) -> Result<(), AuditError> {
        let disk = home.options.disk.as_ref();
        let first = Seq(self.head.next_seq().0 + 1);
        let on_disk = SegmentFile::new(&home.dir, first);
        let next = Segment::create(on_disk, home.options.segment_bytes, now)?;
        let close = Event::new(Action::SegmentClose, Outcome::Allowed);
        let ready = disk.sync_directory(&home.dir).map_err(AuditError::from);
        if let Err(error) = ready.and_then(|()| self.put(home, &close, now)) {
            fs::remove_file(&next.on_disk.path)?;
            return Err(error);
        }
        // From here on an fdatasync of the new file speaks for the whole log.
        let target = self.target();
        let mut ended = std::mem::replace(&mut self.segment, next);
        let synced = ended.room.cut(disk, ended.bytes).and_then(|()| target.sync(disk));
        self.chain = self.chain.next_segment();
        self.header = Some(None);
        synced.map_err(|error| self.fail_sync(&error))?;
        self.open_segment(home, now)
    }

    /// Begins the segment that follows another one, durably: a power cut may take later pages in any
    /// order, but not the line that tells the keys.
    fn open_segment(&mut self, home: &Home, now: Timestamp) -> Result<(), AuditError> {
        self.write_header(home, now)?;
        let synced = home.options.disk.sync(self.segment.room.file());
        synced.map_err(|error| self.fail_sync(&error))
    }

    /// Writes a segment's first line, unless it has one.
    pub(super) fn write_header(&mut self, home: &Home, now: Timestamp) -> Result<(), AuditError> {
        let Some(start) = self.header.clone() else { return Ok(()) };
        let header = SegmentHeader {
            format: SegmentHeader::FORMAT,
            run: line::hex_text(&self.chain.run),
            index: self.chain.index,
            store: home.options.store.map(|store| store.to_string()),
            start,
        };
        let action = if header.index == 0 { Action::Start } else { Action::SegmentOpen };
        let detail = serde_json::to_value(header).map_err(io::Error::from)?;
        // Repeated in each segment, so that a start finds it in the last one.
        let generation = self.generation;
        let event =
            Event { generation, detail: Some(detail), ..Event::new(action, Outcome::Allowed) };
        self.put(home, &event, now)?;
        self.header = None;
        Ok(())
    }

    /// Writes the last line and takes no more. Returns what is to be synced.
    pub(super) fn close(&mut self, home: &Home, reason: &str) -> Result<Target, AuditError> {
        let event = Event { reason: Some(reason), ..Event::new(Action::Stop, Outcome::Allowed) };
        self.append(home, &event)?;
        self.broken = Some(Broken::Failed("the log was closed".to_owned()));
        self.segment.room.cut(home.options.disk.as_ref(), self.segment.bytes)?;
        Ok(self.target())
    }

    /// Leaves nothing behind the last line of a log that was not closed.
    pub(super) fn cut(&mut self, disk: &dyn Disk) -> io::Result<()> {
        if self.broken.is_none() { self.segment.room.cut(disk, self.segment.bytes) } else { Ok(()) }
    }

    /// Returns what is to be synced so that every line up to now is on disk.
    pub(super) fn target(&self) -> Target {
        let (file, backlog) = (Arc::clone(self.segment.room.file()), Arc::clone(&self.backlog));
        Target { file, head: self.head, backlog }
    }

    /// Returns the place behind the last line.
    pub(super) fn mark(&self) -> Mark {
        let Segment { on_disk, bytes, .. } = &self.segment;
        Mark { head: self.head, segment: on_disk.first, bytes: *bytes }
    }

    /// Returns the totals' bytes under the keys of the segment in use.
    pub(super) fn seal(&self, totals: &mut Totals) -> Result<Vec<u8>, AuditError> {
        totals.seal(&self.chain)
    }

    pub(super) fn unbroken(&self) -> Result<(), AuditError> {
        match &self.broken {
            None => Ok(()),
            Some(Broken::Failed(why)) => Err(AuditError::Broken(why.clone())),
            Some(Broken::Tampered(why)) => Err(AuditError::Tampered(why.clone())),
        }
    }

    /// Looks whether the open file is as we left it, unless that was done just now.
    fn check_file_now_and_then(&mut self, interval: Duration) -> Result<(), AuditError> {
        if self.checked.is_some_and(|checked| checked.elapsed() < interval) {
            return self.unbroken();
        }
        self.checked = Some(Instant::now());
        self.check_file()
    }

    /// Looks whether a write failed because the file was cut or unlinked. It may be longer than before.
    fn check_file_after_failed_write(&mut self) -> Result<(), AuditError> {
        let status = nix::sys::stat::fstat(self.segment.room.file()).map_err(io::Error::from)?;
        let size = u64::try_from(status.st_size).unwrap_or(0);
        if status.st_nlink == 0 || size < self.segment.room.size() {
            return Err(self.tampered("the file was cut or unlinked"));
        }
        Ok(())
    }

    /// Looks whether the open file is as long as we left it and still has a name.
    fn check_file(&mut self) -> Result<(), AuditError> {
        self.unbroken()?;
        let status = nix::sys::stat::fstat(self.segment.room.file()).map_err(io::Error::from)?;
        if status.st_nlink == 0 {
            return Err(self.tampered("the file was unlinked"));
        }
        if u64::try_from(status.st_size) != Ok(self.segment.room.size()) {
            return Err(self.tampered("the file has another length than the log gave it"));
        }
        Ok(())
    }

    /// Looks whether there is nothing behind the last line, and whether the path leads to the open file.
    pub(super) fn check_path(&mut self) -> Result<(), AuditError> {
        self.check_file()?;
        if !self.segment.room.is_empty_behind(self.segment.bytes)? {
            return Err(self.tampered(OCCUPIED));
        }
        match fs::symlink_metadata(&self.segment.on_disk.path) {
            Ok(status) if (status.dev(), status.ino()) == self.segment.id => Ok(()),
            Ok(_) => Err(self.tampered("the file was replaced")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(self.tampered("the file was moved away"))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn tampered(&mut self, what: &str) -> AuditError {
        let why = format!("{}: {what}", self.segment.on_disk.name());
        self.broken = Some(Broken::Tampered(why.clone()));
        AuditError::Tampered(why)
    }

    /// After a failed fdatasync the kernel may call dirty pages clean: a second one would prove nothing.
    pub(super) fn fail_sync(&mut self, error: &io::Error) -> AuditError {
        self.broken.get_or_insert(Broken::Failed(error.to_string()));
        AuditError::Broken(error.to_string())
    }
}

/// Where a log lives and what it is given to live with.
pub(super) struct Home {
    pub(super) dir: PathBuf,
    pub(super) options: Options,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) names: Arc<dyn UserNames>,
}

const OCCUPIED: &str = "somebody wrote behind its last line";

/// The segment that is being written.
struct Segment {
    on_disk: SegmentFile,
    room: Room,
    /// Device and inode, to notice another file in its place.
    id: (u64, u64),
    /// Where the last line ends.
    bytes: u64,
    begun: Timestamp,
}

impl Segment {
    fn create(on_disk: SegmentFile, room: u64, begun: Timestamp) -> io::Result<Self> {
        let file = on_disk.create(room)?;
        let status = file.metadata()?;
        let id = (status.dev(), status.ino());
        Ok(Self { on_disk, room: Room::new(file, room), id, bytes: 0, begun })
    }
}

/// Why nothing more is taken.
#[derive(Debug)]
enum Broken {
    Failed(String),
    Tampered(String),
}
