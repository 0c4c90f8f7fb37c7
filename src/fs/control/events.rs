//! `.control/events`: audit lines as they happen, as far as the reader may know of them.
//!
//! Each uid has a bounded buffer of its own, made when it first opens the file and filled by one
//! thread: whoever writes an audit line only puts it into a queue and never waits for a reader. How
//! far each buffer goes is in the journal, so that the next server can make it again out of the log.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;

use parking_lot::Mutex;

use super::Waker;
use super::journal::Journal;
use crate::broker::{Broker, Notice};
use crate::fs::error::{FsError, Result};
use crate::fs::journal::{EventMark, EventMarks};
use crate::model::{Caller, SecretName};

/// Bytes that are held for one uid.
const BUFFER_BYTES: usize = 1 << 20;
/// Uids that have a buffer at one time.
const MAX_BUFFERS: usize = 64;
/// Lines that may wait to be sorted into buffers.
const QUEUE: usize = 4096;
/// Lines that a server reads again of what an earlier one has shown, for readers that lag.
const AGAIN: u64 = 512;

/// The buffers of all uids.
pub(in crate::fs) struct Events {
    broker: Broker,
    buffers: Mutex<HashMap<u32, Arc<Buffer>>>,
    /// Spares the copy of each line while nobody listens.
    wanted: AtomicBool,
    queue: OnceLock<SyncSender<Line>>,
    lost: AtomicU64,
    next_reader: AtomicU64,
    /// Set by the thread that fills the buffers, or before it begins.
    marks: EventMarks,
}

struct Line {
    seq: u64,
    /// A line about no secret is for admins.
    secret: Option<SecretName>,
    text: String,
}

struct Buffer {
    state: Mutex<State>,
}

struct State {
    /// Who opened it last: the rules that bind more than a uid are asked for this caller.
    caller: Caller,
    journal: Journal,
    /// The last line that was looked at.
    seq: u64,
    readers: u32,
    wakers: HashMap<u64, Waker>,
}

/// One handle on the file.
pub(in crate::fs) struct EventReader {
    buffer: Arc<Buffer>,
    number: u64,
    /// Up to where it has read.
    seen: AtomicU64,
}

impl Events {
    /// Subscribes to the broker's audit lines.
    pub(in crate::fs) fn new(broker: &Broker, marks: EventMarks) -> Arc<Self> {
        let events = Arc::new(Self {
            broker: broker.clone(),
            buffers: Mutex::default(),
            wanted: AtomicBool::new(false),
            queue: OnceLock::new(),
            lost: AtomicU64::new(0),
            next_reader: AtomicU64::new(0),
            marks,
        });
        let weak = Arc::downgrade(&events);
        broker.subscribe(Box::new(move |notice| {
            if let Some(events) = weak.upgrade() {
                events.take(notice);
            }
        }));
        events
    }

    /// Opens the file for a caller. Errors: `Quota` when too many uids listen.
    pub(in crate::fs) fn open(self: &Arc<Self>, caller: &Caller) -> Result<EventReader> {
        self.start()?;
        let buffer = self.buffer(caller)?;
        let mut state = buffer.state.lock();
        if state.readers == 0 {
            state.journal.rebase();
            let mark = EventMark { end: state.journal.end(), seq: state.seq };
            self.marks.set(caller.uid.0, mark);
        }
        state.readers += 1;
        state.caller = caller.clone();
        drop(state);
        let number = self.next_reader.fetch_add(1, Ordering::Relaxed);
        Ok(EventReader { buffer, number, seen: AtomicU64::new(0) })
    }

    /// Returns the size in bytes of the file as that uid sees it.
    pub(in crate::fs) fn size(&self, uid: u32) -> u64 {
        let buffer = self.buffers.lock().get(&uid).cloned();
        buffer.map_or(0, |buffer| buffer.state.lock().journal.end())
    }

    fn buffer(&self, caller: &Caller) -> Result<Arc<Buffer>> {
        let mut buffers = self.buffers.lock();
        if let Some(buffer) = buffers.get(&caller.uid.0) {
            return Ok(buffer.clone());
        }
        if buffers.len() >= MAX_BUFFERS {
            buffers.retain(|uid, buffer| {
                let read = buffer.state.lock().readers > 0;
                if !read {
                    self.marks.remove(*uid);
                }
                read
            });
        }
        if buffers.len() >= MAX_BUFFERS {
            return Err(FsError::Quota);
        }
        let buffer = Arc::new(Buffer {
            state: Mutex::new(State {
                caller: caller.clone(),
                journal: Journal::new(BUFFER_BYTES),
                seq: self.broker.audit_seq(),
                readers: 0,
                wakers: HashMap::new(),
            }),
        });
        buffers.insert(caller.uid.0, buffer.clone());
        Ok(buffer)
    }

    fn start(self: &Arc<Self>) -> Result<()> {
        if self.queue.get().is_some() {
            return Ok(());
        }
        let (sender, receiver) = sync_channel(QUEUE);
        if self.queue.set(sender).is_ok() {
            let weak = Arc::downgrade(self);
            let sort = move || sort(&receiver, || weak.upgrade());
            thread::Builder::new()
                .name("events".into())
                .stack_size(256 << 10)
                .spawn(sort)
                .map_err(|_| FsError::Fault)?;
            self.wanted.store(true, Ordering::Release);
        }
        Ok(())
    }

    fn take(&self, notice: &Notice<'_>) {
        if !self.wanted.load(Ordering::Acquire) {
            return;
        }
        let (seq, secret) = (notice.seq.0, notice.secret.cloned());
        let text = String::from_utf8_lossy(notice.line).into_owned();
        let line = Line { seq, secret, text };
        if let Some(queue) = self.queue.get()
            && queue.try_send(line).is_err()
        {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn deliver(&self, line: &Line) {
        let lost = self.lost.swap(0, Ordering::Relaxed);
        let buffers: Vec<_> = self.buffers.lock().values().cloned().collect();
        for buffer in buffers {
            let caller = buffer.state.lock().caller.clone();
            let knows = self.knows(&caller, line.secret.as_ref());
            let mut state = buffer.state.lock();
            if line.seq <= state.seq {
                continue;
            }
            if lost > 0 {
                state.push(&self.marks, line.seq, Some(&format!("{{\"lost\":{lost}}}")));
            }
            state.push(&self.marks, line.seq, knows.then_some(&*line.text));
            let wakers = if knows { std::mem::take(&mut state.wakers) } else { HashMap::new() };
            drop(state);
            wakers.into_values().for_each(|wake| wake());
        }
    }
}

impl Events {
    /// Makes the buffer of a uid as an earlier server had it, for a handle that is open. Errors:
    /// the log cannot be read.
    pub(in crate::fs) fn adopt(self: &Arc<Self>, caller: &Caller) -> Result<EventReader> {
        let uid = caller.uid.0;
        self.start()?;
        // Held, so that no line is sorted before the buffer is there.
        let mut buffers = self.buffers.lock();
        let buffer = match buffers.entry(uid) {
            Entry::Occupied(buffer) => buffer.get().clone(),
            Entry::Vacant(place) => {
                let marks = self.marks.all();
                let mark = marks.iter().find(|(owner, _)| *owner == uid).map(|(_, mark)| *mark);
                let state = self.again(caller, mark.unwrap_or_default())?;
                place.insert(Arc::new(Buffer { state: Mutex::new(state) })).clone()
            }
        };
        drop(buffers);
        buffer.state.lock().readers += 1;
        let number = self.next_reader.fetch_add(1, Ordering::Relaxed);
        Ok(EventReader { buffer, number, seen: AtomicU64::new(0) })
    }

    /// Reads what a buffer held, and what came since.
    fn again(&self, caller: &Caller, mark: EventMark) -> Result<State> {
        let mut shown = String::new();
        let mut since = Vec::new();
        for (seq, secret, text) in self.broker.audit_tail(mark.seq.saturating_sub(AGAIN))? {
            if !self.knows(caller, secret.as_ref()) {
                continue;
            }
            if seq.0 > mark.seq {
                since.push((seq.0, text));
            } else {
                shown.push_str(&text);
                shown.push('\n');
            }
        }
        let mut state = State {
            caller: caller.clone(),
            journal: Journal::ending(&shown, mark.end, BUFFER_BYTES),
            seq: mark.seq,
            readers: 0,
            wakers: HashMap::new(),
        };
        since.iter().for_each(|(seq, text)| state.push(&self.marks, *seq, Some(text)));
        Ok(state)
    }

    fn knows(&self, caller: &Caller, secret: Option<&SecretName>) -> bool {
        match secret {
            Some(name) => self.broker.may_know(caller, name),
            None => self.broker.is_admin(caller),
        }
    }
}

impl State {
    /// Adds a line, or notes that there was one for others.
    fn push(&mut self, marks: &EventMarks, seq: u64, text: Option<&str>) {
        let added = text.map_or(0, |text| text.len() as u64 + 1);
        // First: what a reader has seen must be in the mark.
        marks.set(self.caller.uid.0, EventMark { end: self.journal.end() + added, seq });
        self.seq = seq;
        text.into_iter().for_each(|text| self.journal.push(text));
    }
}

/// Sorts lines into buffers until the last sender is gone.
fn sort(lines: &Receiver<Line>, events: impl Fn() -> Option<Arc<Events>>) {
    while let Ok(line) = lines.recv() {
        let Some(events) = events() else { return };
        events.deliver(&line);
    }
}

impl EventReader {
    /// Reads at most `len` bytes from `offset`.
    pub(in crate::fs) fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let part = self.buffer.state.lock().journal.read(offset, len);
        self.seen.fetch_max(offset + part.len() as u64, Ordering::Relaxed);
        part
    }

    /// Tells whether there is more to read; if there is not, keeps `waker` for when there is.
    pub(in crate::fs) fn poll(&self, waker: Option<Waker>) -> bool {
        let mut state = self.buffer.state.lock();
        let ready = state.journal.end() > self.seen.load(Ordering::Relaxed);
        if !ready && let Some(waker) = waker {
            state.wakers.insert(self.number, waker);
        }
        ready
    }
}

impl Drop for EventReader {
    fn drop(&mut self) {
        let mut state = self.buffer.state.lock();
        state.readers = state.readers.saturating_sub(1);
        state.wakers.remove(&self.number);
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for EventReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventReader").field("number", &self.number).finish_non_exhaustive()
    }
}
