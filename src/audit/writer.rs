//! The log as the daemon has it open: appends, the way to the disk, and retention.
//!
//! Appends fail closed: what could not be recorded must not happen. The audit key is gone when `open`
//! returns; from then on there are only the moving keys of the segment in use.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::AuditError;
use super::appender::{Appender, Home};
use super::carried::{Anchor, Mark};
use super::chain::{AuditKey, Chain, Head};
use super::durability::{Disk, Durability, GroupCommit, SystemDisk};
use super::event::{Action, Event, Outcome, UserNames};
use super::recovery::{self, Rollback};
use super::retention::{self, Pruned, Totals};
use super::segments::{self, SegmentFile};
use crate::model::{Clock, Generation, SecretName, Seq, StoreId, Timestamp};

/// How a log is kept.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long a look at the file is good for. A burst of appends shares one, which alone would
    /// be a fifth of what a line costs; what is done to the file is noticed this late at the most.
    pub check_interval: Duration,
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
    /// Whether this process goes on for one that has just died, and callers wait for it. Then what is before the store's
    /// anchor is checked beside the first appends, and damage there is a [fault](AuditLog::fault).
    pub taken_over: bool,
    /// How often the background thread makes durable what was written, and looks at the path.
    pub sync_interval: Duration,
}

impl Default for Options {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        Self {
            check_interval: Duration::from_millis(1),
            disk: Arc::new(SystemDisk),
            durability: Durability::default(),
            retention: 90 * DAY,
            rollback: Rollback::default(),
            segment_age: DAY,
            segment_bytes: 64 << 20,
            start: None,
            store: None,
            taken_over: false,
            // Half of the second that is promised: an fdatasync takes its time too.
            sync_interval: Duration::from_millis(500),
        }
    }
}

/// What can wait does so, behind a server that died, until the callers are answered who waited for this one.
pub const CALM: Duration = Duration::from_millis(20);

/// A line that was just written, for those who follow the log live.
#[derive(Clone, Copy, Debug)]
pub struct Recorded<'a> {
    pub seq: Seq,
    pub action: Action,
    pub outcome: Outcome,
    pub secret: Option<&'a SecretName>,
    /// The line without its newline, printable ASCII.
    pub line: &'a [u8],
}

pub(super) type Subscriber = Box<dyn Fn(&Recorded<'_>) + Send + Sync>;

/// The audit log, open for writing. One process at a time may have a directory open.
pub struct AuditLog {
    shared: Arc<Shared>,
    ticker: Mutex<Option<Ticker>>,
}

impl AuditLog {
    /// Opens the log in `dir` and records the start. Verifies the last segment, puts back what a crash took
    /// of the lines that `anchor` carries, drops a torn last line, and refuses with
    /// [`AuditError::Tampered`] a log that does not reach back to `anchor`, and with
    /// [`AuditError::OtherStore`] that of another store. The key is wiped before this returns, or once what
    /// [`Options::taken_over`] leaves for later is checked.
    ///
    /// Behind a process that was killed, nothing waits for the disk: the log as it was found and the start become
    /// durable in the background, and before any later line does.
    pub fn open(
        dir: &Path,
        key: AuditKey,
        anchor: Option<Anchor>,
        options: Options,
        clock: Arc<dyn Clock>,
        names: Arc<dyn UserNames>,
    ) -> Result<Self, AuditError> {
        segments::prepare_directory(dir)?;
        if let Some(store) = options.store {
            recovery::check_store(dir, store)?;
        }
        let key = Arc::new(key);
        let found = recovery::recover(dir, &key, anchor.as_ref(), &options)?;
        let mut run = [0; 16];
        getrandom::fill(&mut run).map_err(io::Error::other)?;
        let chain = Chain::at(&key, run, 0);
        drop(key);
        let home = Home { dir: dir.to_owned(), options, clock, names };
        let (synced, totals) = (found.synced, found.totals);
        let is_behind = synced != found.head;
        let appender = Appender::begin(&home, found, chain)?;
        let shared = Arc::new(Shared {
            home,
            appender: Mutex::new(appender),
            commit: GroupCommit::new(synced),
            totals: Mutex::new(totals),
        });
        if !is_behind {
            shared.disk().sync_directory(dir)?;
            shared.sync()?;
        }
        let ticker = Ticker::start(Arc::clone(&shared), is_behind)?;
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
        self.shared.appender.lock().append(&self.shared.home, event)
    }

    /// Returns once the lines up to `seq` are as safe as [`Options::durability`] says.
    pub fn settle(&self, seq: Seq) -> Result<(), AuditError> {
        match self.shared.home.options.durability {
            Durability::Written => Ok(()),
            Durability::Synced => self.shared.sync_up_to(seq).map(drop),
        }
    }

    /// Returns the last line's place.
    pub fn head(&self) -> Head {
        self.shared.appender.lock().head
    }

    /// Returns the last place that is known to be on disk. It never goes back.
    pub fn synced_head(&self) -> Head {
        self.shared.commit.synced()
    }

    /// Makes durable what was appended before the call. Returns the head that is on disk then.
    pub fn sync(&self) -> Result<Head, AuditError> {
        self.shared.sync()
    }

    /// Returns the place behind the last line.
    pub fn mark(&self) -> Mark {
        self.shared.appender.lock().mark()
    }

    /// Returns the lines behind `from` that may not be on disk, and the place behind them. `None` if they
    /// have more than `most` bytes: then [`sync`](Self::sync) is the better way to make them safe.
    pub fn lines_since(
        &self,
        from: &Mark,
        most: usize,
    ) -> Result<Option<(Vec<u8>, Mark)>, AuditError> {
        let (file, to) = {
            let appender = self.shared.appender.lock();
            appender.unbroken()?;
            (appender.target().file, appender.mark())
        };
        // A segment is on disk before the next one is begun.
        let start = if from.segment == to.segment { from.bytes } else { 0 };
        let length = usize::try_from(to.bytes.saturating_sub(start)).unwrap_or(usize::MAX);
        if length > most {
            return Ok(None);
        }
        let mut lines = vec![0; length];
        file.read_exact_at(&mut lines, start)?;
        Ok(Some((lines, to)))
    }

    /// Returns why the log takes no lines, if that is so; it is over when a line fits again.
    pub fn fault(&self) -> Option<String> {
        self.shared.appender.lock().fault(&self.shared.home)
    }

    /// Looks whether the log is still where and as it was left; the background thread does so too.
    pub fn check(&self) -> Result<(), AuditError> {
        self.shared.appender.lock().check_path()
    }

    /// Returns the highest generation of all [`Action::Anchor`] events ever recorded.
    pub fn highest_generation(&self) -> Option<Generation> {
        self.shared.appender.lock().generation
    }

    /// Calls `subscriber` after each append, in order. It must neither block nor use the log.
    pub fn subscribe(&self, subscriber: Box<dyn Fn(&Recorded<'_>) + Send + Sync>) {
        self.shared.appender.lock().subscribers.push(subscriber);
    }

    /// Removes the segments that are wholly older than the retention at `now`, after their counts went
    /// into the totals. Records that it does so.
    pub fn prune(&self, now: Timestamp) -> Result<Pruned, AuditError> {
        self.shared.prune(now)
    }

    /// Records that the daemon ends, and makes the log durable. Returns its head, to be anchored.
    pub fn close(&self, reason: &str) -> Result<Head, AuditError> {
        drop(self.ticker.lock().take());
        let end = self.shared.appender.lock().close(&self.shared.home, reason)?;
        let target = || Ok(end.clone());
        self.shared.commit.wait(end.head.seq, self.shared.disk(), target, AuditError::from)
    }
}

impl Drop for AuditLog {
    fn drop(&mut self) {
        drop(self.ticker.lock().take());
        if let Err(error) = self.shared.appender.lock().cut(self.shared.disk()) {
            tracing::warn!(%error, "the audit log has zeros at its end");
        }
        let dirty = self.synced_head() != self.head();
        if dirty && let Err(error) = self.sync() {
            tracing::warn!(%error, "the end of the audit log may not be on disk");
        }
    }
}

impl fmt::Debug for AuditLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditLog").field("dir", &self.shared.home.dir).finish_non_exhaustive()
    }
}

struct Shared {
    home: Home,
    /// Lock order: `totals`, then `appender`, then the lock inside of `commit`.
    appender: Mutex<Appender>,
    commit: GroupCommit,
    /// The digest of the totals on disk as we verified or wrote them.
    totals: Mutex<Option<[u8; 32]>>,
}

impl Shared {
    fn disk(&self) -> &dyn Disk {
        self.home.options.disk.as_ref()
    }

    fn sync(&self) -> Result<Head, AuditError> {
        let seq = self.appender.lock().head.seq;
        self.sync_up_to(seq)
    }

    fn sync_up_to(&self, seq: Seq) -> Result<Head, AuditError> {
        let target = || {
            let appender = self.appender.lock();
            appender.unbroken()?;
            Ok(appender.target())
        };
        let failed = |error: io::Error| self.appender.lock().fail_sync(&error);
        self.commit.wait(seq, self.disk(), target, failed)
    }

    /// What the background thread does at each interval. Errors stay in the log and fail the next append.
    fn tick(&self) {
        let (head, checked) = {
            let mut appender = self.appender.lock();
            (appender.head, appender.check_path())
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
        let text = retention::read_file(&self.home.dir)?;
        if text.as_deref().map(|text| Sha256::digest(text).into()) != *digest {
            return Err(AuditError::Tampered("the totals were edited or replaced".to_owned()));
        }
        let mut totals = Totals::read(&self.home.dir)?;
        let lines_before = totals.lines;
        old.iter().try_for_each(|segment| totals.add(segment))?;
        let pruned = Pruned { segments: old.len() as u64, lines: totals.lines - lines_before };
        let text = {
            let mut appender = self.appender.lock();
            let detail = json!({
                "segments": pruned.segments, "lines": pruned.lines, "up_to": totals.head().seq,
            });
            let event =
                Event { detail: Some(detail), ..Event::new(Action::Prune, Outcome::Allowed) };
            appender.append(&self.home, &event)?;
            appender.seal(&mut totals)?
        };
        // The removal is on record before it happens, and the totals are on disk before the lines are gone.
        self.sync()?;
        retention::replace(&self.home.dir, &text)?;
        *digest = Some(Sha256::digest(&text).into());
        tracing::info!(segments = pruned.segments, last = %last.first, "audit segments past retention are removed");
        old.iter().try_for_each(|segment| fs::remove_file(&segment.path))?;
        segments::sync_directory(&self.home.dir)?;
        Ok(pruned)
    }

    /// Returns the oldest segments whose successors, too, were begun before the retention.
    fn past_retention(&self, now: Timestamp) -> Result<Vec<SegmentFile>, AuditError> {
        let kept = i64::try_from(self.home.options.retention.as_micros()).unwrap_or(i64::MAX);
        let oldest = now.as_microsecond().saturating_sub(kept);
        let segments = segments::list(&self.home.dir)?;
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

/// The thread that syncs at intervals, and ends with the log.
struct Ticker {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    fn start(shared: Arc<Shared>, is_behind: bool) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let interval = shared.home.options.sync_interval;
        let thread =
            std::thread::Builder::new().name("audit-sync".to_owned()).spawn(move || {
                let mut wait = match (is_behind, shared.home.options.taken_over) {
                    (false, _) => interval,
                    (true, true) => CALM,
                    (true, false) => Duration::ZERO,
                };
                while stopped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                    shared.tick();
                    wait = interval;
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
