//! The log as the daemon writes it: fail closed, one write(2) a line, segments that roll.
//!
//! Whatever goes wrong is an error of [`AuditLog::append`], and the caller's request fails with it. A
//! line that did not fit is taken back whole. A file that is not as we left it ends the log until a
//! restart: going on would hide what was done to it.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::AuditError;
use super::chain::{AuditKey, Chain, Head};
use super::durability::{Disk, Durability, GroupCommit, SystemDisk, Target};
use super::entry::SegmentHeader;
use super::event::{Action, Event, Outcome, UserNames};
use super::line::{self, Formatter, MAX_LINE, Place};
use super::recovery::{self, Recovered, Rollback};
use super::retention::{self, Pruned, Totals};
use super::segments::{self, SegmentFile};
use crate::model::{Clock, Generation, SecretName, Seq, StoreId, Timestamp};

/// How a log is kept.
#[derive(Clone, Debug)]
pub struct Options {
    pub disk: Arc<dyn Disk>,
    pub durability: Durability,
    /// How long lines are kept; see [`AuditLog::prune`].
    pub retention: Duration,
    pub rollback: Rollback,
    /// A segment that was begun longer ago is followed by a new one.
    pub segment_age: Duration,
    /// A segment of so many bytes is followed by a new one; as many are kept free for it on disk.
    pub segment_bytes: u64,
    /// What the daemon wants on record of its start, such as its version.
    pub start: Option<Value>,
    pub store: Option<StoreId>,
    /// How often the background thread makes durable what was written, and looks at the path.
    pub sync_interval: Duration,
}

impl Default for Options {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        Self {
            disk: Arc::new(SystemDisk),
            durability: Durability::default(),
            retention: 90 * DAY,
            rollback: Rollback::default(),
            segment_age: DAY,
            segment_bytes: 64 << 20,
            start: None,
            store: None,
            // Half of the second that is promised: an fdatasync takes its time too.
            sync_interval: Duration::from_millis(500),
        }
    }
}

/// A line that was just written, for those who follow the log live.
#[derive(Clone, Copy, Debug)]
pub struct Recorded<'a> {
    pub seq: Seq,
    pub action: Action,
    pub outcome: Outcome,
    pub secret: Option<&'a SecretName>,
    /// The line without its newline, printable ASCII.
    pub line: &'a str,
}

type Subscriber = Box<dyn Fn(&Recorded<'_>) + Send + Sync>;

/// The audit log, open for writing. One process at a time may have a directory open.
pub struct AuditLog {
    shared: Arc<Shared>,
    ticker: Mutex<Option<Ticker>>,
}

impl AuditLog {
    /// Opens the log in `dir` and records the start. Verifies the last segment, drops a torn last line, and
    /// refuses with [`AuditError::Tampered`] a log that does not reach back to `anchor`. The key is
    /// wiped before this returns.
    pub fn open(
        dir: &Path,
        key: AuditKey,
        anchor: Option<Head>,
        options: Options,
        clock: Arc<dyn Clock>,
        names: Arc<dyn UserNames>,
    ) -> Result<Self, AuditError> {
        segments::prepare_directory(dir)?;
        let found = recovery::recover(dir, &key, anchor.as_ref(), options.rollback)?;
        let mut run = [0; 16];
        getrandom::fill(&mut run).map_err(io::Error::other)?;
        let chain = Chain::at(&key, run, 0);
        drop(key);
        let now = clock.now();
        let segment = SegmentFile::new(dir, found.head.next_seq());
        let segment = Segment::create(segment, options.segment_bytes, now)?;
        let inner = Inner {
            segment,
            chain,
            head: found.head,
            header: Some(start_detail(&found, options.start.clone())),
            generation: found.generation,
            broken: None,
            line: Vec::with_capacity(4096),
            formatter: Formatter::default(),
            subscribers: Vec::new(),
        };
        let shared = Arc::new(Shared {
            dir: dir.to_owned(),
            commit: GroupCommit::new(found.head),
            inner: Mutex::new(inner),
            totals: Mutex::new(found.totals),
            options,
            clock,
            names,
        });
        shared.inner.lock().write_header(&shared, now)?;
        shared.sync()?;
        let ticker = Ticker::start(Arc::clone(&shared))?;
        Ok(Self { shared, ticker: Mutex::new(Some(ticker)) })
    }

    /// Records an event. When this returns `Ok`, the line is as safe as [`Options::durability`] says; when it
    /// returns an error, what the event stands for must not happen.
    pub fn append(&self, event: &Event<'_>) -> Result<Seq, AuditError> {
        let seq = self.append_unsettled(event)?;
        self.settle(seq)?;
        Ok(seq)
    }

    /// Records an event that is not to be answered before [`settle`](Self::settle) is called for
    /// it or for a later one: so that several lines share one wait for the disk.
    pub fn append_unsettled(&self, event: &Event<'_>) -> Result<Seq, AuditError> {
        if event.action.is_reserved() {
            return Err(AuditError::Reserved(event.action));
        }
        self.shared.inner.lock().append(&self.shared, event)
    }

    /// Returns once the lines up to `seq` are as safe as [`Options::durability`] says.
    pub fn settle(&self, seq: Seq) -> Result<(), AuditError> {
        match self.shared.options.durability {
            Durability::Written => Ok(()),
            Durability::Synced => self.shared.sync_up_to(seq).map(drop),
        }
    }

    /// Returns the last line's place.
    pub fn head(&self) -> Head {
        self.shared.inner.lock().head
    }

    /// Returns the last place that is known to be on disk. It never goes back.
    pub fn synced_head(&self) -> Head {
        self.shared.commit.synced()
    }

    /// Makes durable what was appended before the call. Returns the head that is on disk then.
    pub fn sync(&self) -> Result<Head, AuditError> {
        self.shared.sync()
    }

    /// Looks whether the log is still where and as it was left; the background thread does so too.
    pub fn check(&self) -> Result<(), AuditError> {
        self.shared.inner.lock().check_path()
    }

    /// Returns the highest generation of all [`Action::Anchor`] events ever recorded.
    pub fn highest_generation(&self) -> Option<Generation> {
        self.shared.inner.lock().generation
    }

    /// Calls `subscriber` after each append, in order. It must neither block nor use the log.
    pub fn subscribe(&self, subscriber: Box<dyn Fn(&Recorded<'_>) + Send + Sync>) {
        self.shared.inner.lock().subscribers.push(subscriber);
    }

    /// Removes the segments that are wholly older than the retention at `now`, after their counts went
    /// into the totals. Records that it does so.
    pub fn prune(&self, now: Timestamp) -> Result<Pruned, AuditError> {
        self.shared.prune(now)
    }

    /// Records that the daemon ends, and makes the log durable.
    pub fn close(&self, reason: &str) -> Result<(), AuditError> {
        drop(self.ticker.lock().take());
        let event = Event { reason: Some(reason), ..Event::new(Action::Stop, Outcome::Allowed) };
        let mut inner = self.shared.inner.lock();
        inner.append(&self.shared, &event)?;
        let bytes = inner.segment.bytes;
        // Gives back the room that was kept beyond the end.
        inner.segment.file.set_len(bytes)?;
        inner.broken = Some(Broken::Failed("the log was closed".to_owned()));
        let (file, head) = (Arc::clone(&inner.segment.file), inner.head);
        drop(inner);
        let target = || Ok(Target { file: Arc::clone(&file), head });
        let disk = self.shared.options.disk.as_ref();
        self.shared.commit.wait(head.seq, disk, target, AuditError::from)?;
        Ok(())
    }
}

impl Drop for AuditLog {
    fn drop(&mut self) {
        drop(self.ticker.lock().take());
        let dirty = self.synced_head() != self.head();
        if dirty && let Err(error) = self.sync() {
            tracing::warn!(%error, "the end of the audit log may not be on disk");
        }
    }
}

impl fmt::Debug for AuditLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditLog").field("dir", &self.shared.dir).finish_non_exhaustive()
    }
}

struct Shared {
    dir: PathBuf,
    options: Options,
    clock: Arc<dyn Clock>,
    names: Arc<dyn UserNames>,
    /// Lock order: `totals`, then `inner`, then the lock inside of `commit`.
    inner: Mutex<Inner>,
    commit: GroupCommit,
    /// The digest of the totals on disk as we verified or wrote them.
    totals: Mutex<Option<[u8; 32]>>,
}

impl Shared {
    fn sync(&self) -> Result<Head, AuditError> {
        let seq = self.inner.lock().head.seq;
        self.sync_up_to(seq)
    }

    fn sync_up_to(&self, seq: Seq) -> Result<Head, AuditError> {
        let target = || {
            let inner = self.inner.lock();
            inner.unbroken()?;
            Ok(Target { file: Arc::clone(&inner.segment.file), head: inner.head })
        };
        let failed = |error: io::Error| self.inner.lock().fail_sync(&error);
        self.commit.wait(seq, self.options.disk.as_ref(), target, failed)
    }

    /// What the background thread does at each interval. Errors stay in the log and fail the next append.
    fn tick(&self) {
        let (head, checked) = {
            let mut inner = self.inner.lock();
            (inner.head, inner.check_path())
        };
        let synced =
            if self.commit.synced() == head { Ok(head) } else { self.sync_up_to(head.seq) };
        if let Err(error) = checked.and(synced) {
            tracing::error!(%error, "the audit log takes no more lines");
        }
    }

    fn prune(&self, now: Timestamp) -> Result<Pruned, AuditError> {
        let mut digest = self.totals.lock();
        let old = self.past_retention(now)?;
        let Some(last) = old.last() else { return Ok(Pruned::default()) };
        let text = retention::read_file(&self.dir)?;
        if text.as_deref().map(|text| Sha256::digest(text).into()) != *digest {
            return Err(AuditError::Tampered("the totals were edited or replaced".to_owned()));
        }
        let mut totals = Totals::read(&self.dir)?;
        let lines_before = totals.lines;
        old.iter().try_for_each(|segment| totals.add(segment))?;
        let pruned = Pruned { segments: old.len() as u64, lines: totals.lines - lines_before };
        let text = {
            let mut inner = self.inner.lock();
            let detail = json!({
                "segments": pruned.segments, "lines": pruned.lines, "up_to": totals.head().seq,
            });
            let event =
                Event { detail: Some(detail), ..Event::new(Action::Prune, Outcome::Allowed) };
            inner.append(self, &event)?;
            totals.seal(&inner.chain)?
        };
        // The removal is on record before it happens, and the totals are on disk before the lines are gone.
        self.sync()?;
        retention::replace(&self.dir, &text)?;
        *digest = Some(Sha256::digest(&text).into());
        tracing::info!(segments = pruned.segments, last = %last.first, "audit segments past retention are removed");
        old.iter().try_for_each(|segment| fs::remove_file(&segment.path))?;
        segments::sync_directory(&self.dir)?;
        Ok(pruned)
    }

    /// Returns the oldest segments whose successors, too, were begun before the retention.
    fn past_retention(&self, now: Timestamp) -> Result<Vec<SegmentFile>, AuditError> {
        let kept = i64::try_from(self.options.retention.as_micros()).unwrap_or(i64::MAX);
        let oldest = now.as_microsecond().saturating_sub(kept);
        let segments = segments::list(&self.dir)?;
        let mut old = Vec::new();
        for (segment, next) in segments.iter().zip(segments.iter().skip(1)) {
            match next.begun()? {
                Some(begun) if begun.as_microsecond() < oldest => old.push(segment.clone()),
                Some(_) | None => break,
            }
        }
        Ok(old)
    }
}

/// The file that is being written.
struct Segment {
    on_disk: SegmentFile,
    file: Arc<File>,
    /// Device and inode, to notice another file in its place.
    id: (u64, u64),
    bytes: u64,
    begun: Timestamp,
}

impl Segment {
    fn create(on_disk: SegmentFile, room: u64, begun: Timestamp) -> io::Result<Self> {
        let file = on_disk.create(room)?;
        let status = file.metadata()?;
        let id = (status.dev(), status.ino());
        Ok(Self { on_disk, file: Arc::new(file), id, bytes: 0, begun })
    }
}

/// Why nothing more is taken.
#[derive(Debug)]
enum Broken {
    Failed(String),
    Tampered(String),
}

struct Inner {
    segment: Segment,
    chain: Chain,
    head: Head,
    /// What the segment's first line is to say of a start, until that line is written.
    header: Option<Option<Value>>,
    generation: Option<Generation>,
    broken: Option<Broken>,
    line: Vec<u8>,
    formatter: Formatter,
    subscribers: Vec<Subscriber>,
}

impl Inner {
    fn append(&mut self, shared: &Shared, event: &Event<'_>) -> Result<Seq, AuditError> {
        self.check_file()?;
        let now = shared.clock.now();
        if self.header.is_some() {
            self.write_header(shared, now)?;
        } else if self.is_due(&shared.options, now) {
            self.roll(shared, now)?;
        }
        self.put(shared, event, now)
    }

    /// Writes one line. On an error the file, the chain and the head are as before.
    fn put(
        &mut self,
        shared: &Shared,
        event: &Event<'_>,
        now: Timestamp,
    ) -> Result<Seq, AuditError> {
        let seq = self.head.next_seq();
        let user = event.caller.and_then(|caller| shared.names.user(caller.uid));
        let place = Place { seq, time: now, user: user.as_deref(), prev: &self.head.mac };
        self.formatter.write_body(&mut self.line, &place, event);
        let mac = self.chain.mac(&self.line);
        line::push_mac(&mut self.line, &mac);
        if self.line.len() > MAX_LINE {
            return Err(AuditError::TooLong(self.line.len()));
        }
        self.write(shared.options.disk.as_ref())?;
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
        let written = disk.append(&self.segment.file, &self.line);
        let error = match written {
            Ok(bytes) if bytes == self.line.len() => return Ok(()),
            // The disk took a part; what is missing would not fit either.
            Ok(_) => io::Error::from(io::ErrorKind::StorageFull),
            Err(error) => error,
        };
        // A half line would spoil the next one.
        if let Err(stuck) = self.segment.file.set_len(self.segment.bytes) {
            self.broken = Some(Broken::Failed(format!("a torn line cannot be removed: {stuck}")));
        }
        Err(error.into())
    }

    fn tell(&self, event: &Event<'_>, seq: Seq) {
        if self.subscribers.is_empty() {
            return;
        }
        let line = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
        let line = std::str::from_utf8(line).unwrap_or_default();
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
    fn roll(&mut self, shared: &Shared, now: Timestamp) -> Result<(), AuditError> {
        let disk = shared.options.disk.as_ref();
        let first = Seq(self.head.next_seq().0 + 1);
        let on_disk = SegmentFile::new(&shared.dir, first);
        let next = Segment::create(on_disk, shared.options.segment_bytes, now)?;
        let close = Event::new(Action::SegmentClose, Outcome::Allowed);
        if let Err(error) = self.put(shared, &close, now) {
            fs::remove_file(&next.on_disk.path)?;
            return Err(error);
        }
        // From here on an fdatasync of the new file speaks for the whole log.
        let ended = &self.segment;
        let synced = ended.file.set_len(ended.bytes).and_then(|()| disk.sync(&ended.file));
        self.segment = next;
        self.chain = self.chain.next_segment();
        self.header = Some(None);
        synced.map_err(|error| self.fail_sync(&error))?;
        self.write_header(shared, now)
    }

    fn write_header(&mut self, shared: &Shared, now: Timestamp) -> Result<(), AuditError> {
        let Some(start) = self.header.clone() else { return Ok(()) };
        let header = SegmentHeader {
            format: SegmentHeader::FORMAT,
            run: line::hex_text(&self.chain.run),
            index: self.chain.index,
            store: shared.options.store.map(|store| store.to_string()),
            start,
        };
        let action = if header.index == 0 { Action::Start } else { Action::SegmentOpen };
        let detail = serde_json::to_value(header).map_err(io::Error::from)?;
        // Repeated in each segment, so that a start finds it in the last one.
        let generation = self.generation;
        let event =
            Event { generation, detail: Some(detail), ..Event::new(action, Outcome::Allowed) };
        self.put(shared, &event, now)?;
        self.header = None;
        Ok(())
    }

    fn unbroken(&self) -> Result<(), AuditError> {
        match &self.broken {
            None => Ok(()),
            Some(Broken::Failed(why)) => Err(AuditError::Broken(why.clone())),
            Some(Broken::Tampered(why)) => Err(AuditError::Tampered(why.clone())),
        }
    }

    /// Looks whether the open file is as long as we left it and still has a name.
    fn check_file(&mut self) -> Result<(), AuditError> {
        self.unbroken()?;
        let status = nix::sys::stat::fstat(&self.segment.file).map_err(io::Error::from)?;
        if status.st_nlink == 0 {
            return Err(self.tampered("the file was unlinked"));
        }
        if u64::try_from(status.st_size) != Ok(self.segment.bytes) {
            return Err(self.tampered("the file has another length than the log gave it"));
        }
        Ok(())
    }

    /// Looks whether the path leads to the open file, too.
    fn check_path(&mut self) -> Result<(), AuditError> {
        self.check_file()?;
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
    fn fail_sync(&mut self, error: &io::Error) -> AuditError {
        self.broken.get_or_insert(Broken::Failed(error.to_string()));
        AuditError::Broken(error.to_string())
    }
}

fn start_detail(found: &Recovered, daemon: Option<Value>) -> Option<Value> {
    Some(json!({
        "accepted": found.accepted,
        "daemon": daemon,
        "dropped_bytes": found.torn_bytes,
        "ended_in_order": found.ended_in_order,
    }))
}

/// The thread that syncs at intervals, and ends with the log.
struct Ticker {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    fn start(shared: Arc<Shared>) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let interval = shared.options.sync_interval;
        let thread =
            std::thread::Builder::new().name("audit-sync".to_owned()).spawn(move || {
                while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                    shared.tick();
                }
            })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the audit log's background thread had panicked");
        }
    }
}
