//! `.control/events`: audit lines as they happen, as far as the reader may know of them.
//!
//! Each uid has a bounded buffer of its own, made when it first opens the file and filled by one
//! thread: whoever writes an audit line only puts it into a queue and never waits for a reader.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;

use parking_lot::Mutex;

use super::Waker;
use super::journal::Journal;
use crate::broker::{Broker, Notice};
use crate::fs::error::{FsError, Result};
use crate::model::{Caller, SecretName};

/// Bytes that are held for one uid.
const BUFFER_BYTES: usize = 1 << 20;
/// Uids that have a buffer at one time.
const MAX_BUFFERS: usize = 64;
/// Lines that may wait to be sorted into buffers.
const QUEUE: usize = 4096;

/// The buffers of all uids.
pub(in crate::fs) struct Events {
    broker: Broker,
    buffers: Mutex<HashMap<u32, Arc<Buffer>>>,
    /// Spares the copy of each line while nobody listens.
    wanted: AtomicBool,
    queue: OnceLock<SyncSender<Line>>,
    lost: AtomicU64,
    next_reader: AtomicU64,
}

struct Line {
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
    pub(in crate::fs) fn new(broker: &Broker) -> Arc<Self> {
        let events = Arc::new(Self {
            broker: broker.clone(),
            buffers: Mutex::default(),
            wanted: AtomicBool::new(false),
            queue: OnceLock::new(),
            lost: AtomicU64::new(0),
            next_reader: AtomicU64::new(0),
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
            buffers.retain(|_, buffer| buffer.state.lock().readers > 0);
        }
        if buffers.len() >= MAX_BUFFERS {
            return Err(FsError::Quota);
        }
        let buffer = Arc::new(Buffer {
            state: Mutex::new(State {
                caller: caller.clone(),
                journal: Journal::new(BUFFER_BYTES),
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
        let line = Line { secret: notice.secret.cloned(), text: notice.line.to_owned() };
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
            let knows = match &line.secret {
                Some(name) => self.broker.may_know(&caller, name),
                None => self.broker.is_admin(&caller),
            };
            let mut state = buffer.state.lock();
            if lost > 0 {
                state.journal.push(&format!("{{\"lost\":{lost}}}"));
            }
            if knows {
                state.journal.push(&line.text);
            }
            let wakers = if knows { std::mem::take(&mut state.wakers) } else { HashMap::new() };
            drop(state);
            wakers.into_values().for_each(|wake| wake());
        }
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
