//! One receiver's thread: follows the log from where the receiver has it, and tells it the rest.
//!
//! The log itself is the queue: it is on disk before anything happens, and its retention bounds it. A delivery
//! that fails is made again, with growing pauses; the place moves on when the receiver has taken it.

use std::collections::VecDeque;
use std::fmt::Display;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::message::{of_entry, of_fault};
use super::settings::{Route, Send};
use super::state::{Place, State};
use crate::broker::{Broker, BrokerError};
use crate::daemon::error::chain;
use crate::effect::{self, CarryOut, Delivery, Effector, Message, Order, Task, Values};
use crate::model::{SecretName, Seq};
use crate::system::SecretBytes;

/// How often the log is looked at.
const EVERY: Duration = Duration::from_millis(500);
/// How long a receiver may take.
const DELIVERY_TIME: Duration = Duration::from_secs(10);
/// Messages that are read ahead.
const MAX_PENDING: usize = 4000;
/// Bytes of one delivery, beyond which it has one message.
const MAX_BODY_BYTES: usize = 256 << 10;
/// How often a place is written down that moves over lines which are not for the receiver.
const SAVE_EVERY: Duration = Duration::from_secs(10);
/// The pause before what failed is tried again; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What a sender needs of the daemon.
#[derive(Clone)]
pub(super) struct Means {
    pub(super) broker: Broker,
    pub(super) effects: Arc<Effector>,
    pub(super) state: Arc<State>,
    pub(super) host: Arc<str>,
    /// Set for the end: nothing is begun any more.
    pub(super) ending: Arc<AtomicBool>,
    /// Counts changes of secrets, and seals: a key that was read before is read again.
    pub(super) key_changes: Arc<AtomicU64>,
}

/// How one receiver stands, for those who look.
#[derive(Clone, Debug, Default)]
pub(super) struct Standing {
    pub(super) error: Option<String>,
    /// Messages that it has not taken yet, as far as is known.
    pub(super) queued: u64,
    pub(super) delivered: u64,
    pub(super) failures: u64,
    /// Lines that it was not told: retention removed them first, or they are malformed.
    pub(super) lost: u64,
}

/// The thread's own.
pub(super) struct Sender {
    route: Route,
    means: Means,
    standing: Arc<Mutex<Standing>>,
    /// Set when another thread tells this receiver.
    replaced: Arc<AtomicBool>,
    place: Option<Place>,
    /// The last line that was read, which is at `place` or ahead of it.
    read: Seq,
    pending: VecDeque<Message>,
    key: Option<(u64, SecretBytes)>,
    pause: Duration,
    not_before: Instant,
    saved: Instant,
}

impl Sender {
    pub(super) fn new(
        route: Route,
        means: Means,
        standing: Arc<Mutex<Standing>>,
        replaced: Arc<AtomicBool>,
    ) -> Self {
        let now = Instant::now();
        Self {
            route,
            means,
            standing,
            replaced,
            place: None,
            read: Seq(0),
            pending: VecDeque::new(),
            key: None,
            pause: Duration::ZERO,
            not_before: now,
            saved: now,
        }
    }

    /// Works until the other end of the channel is gone.
    pub(super) fn run(mut self, stopped: &Receiver<()>) {
        let mut wait = Duration::ZERO;
        while stopped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
            if self.is_over() {
                return;
            }
            wait = self.turn();
        }
        self.rest(Duration::ZERO);
    }

    fn is_over(&self) -> bool {
        self.means.ending.load(Ordering::Acquire) || self.replaced.load(Ordering::Acquire)
    }

    /// Does what is to be done now. Returns how long to wait.
    fn turn(&mut self) -> Duration {
        self.forget_old_key();
        let Some(place) = self.begin() else { return EVERY };
        if let Err(error) = self.fill() {
            self.failed(&chain(&error));
            return EVERY;
        }
        self.count();
        let left = self.not_before.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            return left.min(EVERY);
        }
        match self.deliver(place) {
            Ok(true) => {
                self.not_before = Instant::now() + self.route.interval();
                Duration::ZERO
            }
            Ok(false) => {
                self.rest(SAVE_EVERY);
                EVERY
            }
            Err(why) => {
                self.failed(&why);
                EVERY
            }
        }
    }

    /// Returns where the receiver is. A new one begins with the oldest line, or for alerts with what comes.
    fn begin(&mut self) -> Option<Place> {
        if self.place.is_some() {
            return self.place;
        }
        let end = self.means.broker.audit_synced_seq();
        // Sealed since the start: there is no log.
        if end == 0 {
            return None;
        }
        let known = self.means.state.place(&self.route.name);
        if known.is_some_and(|known| known.seq.0 > end) {
            tracing::error!(
                receiver = self.route.name,
                "the log is another one, or older, than was told of"
            );
        }
        let known = known.filter(|known| known.seq.0 <= end);
        let place = known.unwrap_or(match self.route.send {
            Send::Alerts => Place { seq: Seq(end), fault: self.means.state.last_fault() },
            Send::Log => Place::default(),
        });
        self.read = place.seq;
        self.remember(place).then_some(place)
    }

    /// Reads ahead.
    fn fill(&mut self) -> Result<(), BrokerError> {
        let Self { route, means, pending, read, replaced, standing, .. } = self;
        // What a power cut may still take away is not told: its numbers would be given anew.
        let end = means.broker.audit_synced_seq();
        if pending.len() >= MAX_PENDING / 2 || end <= read.0 {
            return Ok(());
        }
        means.broker.each_entry_after(*read, &mut |entry, line| {
            if entry.seq.0 > end {
                return ControlFlow::Break(());
            }
            let missing = entry.seq.0.saturating_sub(read.0 + 1);
            if missing > 0 && *read != Seq(0) {
                tracing::error!(
                    receiver = route.name,
                    missing,
                    "lines were pruned before they were told, or are malformed: see `secretfs audit verify`"
                );
                standing.lock().lost += missing;
            }
            *read = entry.seq;
            pending.extend(of_entry(entry, line, route, &means.host));
            let over = means.ending.load(Ordering::Acquire) || replaced.load(Ordering::Acquire);
            if over || pending.len() >= MAX_PENDING {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })
    }

    /// Tells the receiver the next messages. Returns false where there are none.
    fn deliver(&mut self, place: Place) -> Result<bool, String> {
        let faults = match self.route.send {
            Send::Alerts => self.means.state.faults_after(place.fault),
            Send::Log => Vec::new(),
        };
        let told: Vec<Message> =
            faults.iter().map(|fault| of_fault(fault, &self.route, &self.means.host)).collect();
        let messages = if told.is_empty() { self.next_batch() } else { told };
        if messages.is_empty() {
            return Ok(false);
        }
        self.hand_over(&messages)?;
        let place = match (faults.last(), messages.len() == self.pending.len()) {
            (Some(fault), _) => Place { fault: fault.id, ..place },
            (None, true) => Place { seq: self.read, ..place },
            (None, false) => {
                let last = messages.last().and_then(|message| message.seq);
                Place { seq: last.unwrap_or(place.seq), ..place }
            }
        };
        if faults.is_empty() {
            self.pending.drain(..messages.len());
        }
        if !self.remember(place) {
            return Err("how far it has the log could not be written down".to_owned());
        }
        self.pause = Duration::ZERO;
        let mut standing = self.standing.lock();
        standing.error = None;
        standing.delivered += messages.len() as u64;
        Ok(true)
    }

    fn next_batch(&self) -> Vec<Message> {
        let mut bytes = 0;
        let fits = |message: &&Message| {
            bytes += message.text.len() + message.summary.len();
            bytes <= MAX_BODY_BYTES
        };
        let batch: Vec<Message> =
            self.pending.iter().take(self.route.batch()).take_while(fits).cloned().collect();
        if batch.is_empty() { self.pending.front().cloned().into_iter().collect() } else { batch }
    }

    fn hand_over(&mut self, messages: &[Message]) -> Result<(), String> {
        let lines = Message::write(messages).map_err(|error| error.to_string())?;
        let lines = SecretBytes::copy_from(&lines).map_err(|error| error.to_string())?;
        let values = Values { new: Some(lines), admin: self.key()?, ..Values::default() };
        let Route { name, to, .. } = &self.route;
        let order = Order {
            rotation: "alert".to_owned(),
            secret: None,
            timeout: DELIVERY_TIME,
            task: Task::Deliver(Delivery { name: name.clone(), to: to.clone() }),
        };
        let done = self.means.effects.carry_out(&order, &values);
        done.map(drop).map_err(|error| error.to_string())
    }

    fn forget_old_key(&mut self) {
        let changes = self.means.key_changes.load(Ordering::Acquire);
        self.key.take_if(|(read_at, _)| *read_at != changes);
    }

    /// Returns the key that signs, where one is named. It is read once, since each read is on record.
    fn key(&mut self) -> Result<Option<SecretBytes>, String> {
        let effect::Receiver::Webhook(webhook) = &self.route.to else { return Ok(None) };
        if self.key.is_none() {
            // Before it is read: what changes meanwhile is read again.
            let changes = self.means.key_changes.load(Ordering::Acquire);
            self.key = Some((changes, self.read_key(&webhook.key)?));
        }
        let copy = self.key.as_ref().map(|(_, key)| SecretBytes::copy_from(key.expose()));
        copy.transpose().map_err(|error| error.to_string())
    }

    fn read_key(&self, name: &SecretName) -> Result<SecretBytes, String> {
        let what = format!("for the receiver {}", self.route.name);
        let opened = self.means.broker.read_for_injection(name, &what);
        opened.map(|opened| opened.value).map_err(|error| format!("its key: {}", chain(&error)))
    }

    /// Writes down how far it is where nothing waits.
    fn rest(&mut self, at_least: Duration) {
        let Some(place) = self.place.filter(|_| self.pending.is_empty()) else { return };
        if place.seq < self.read && self.saved.elapsed() >= at_least {
            self.remember(Place { seq: self.read, ..place });
        }
    }

    fn remember(&mut self, place: Place) -> bool {
        // Another thread may be further.
        if self.replaced.load(Ordering::Acquire) {
            return false;
        }
        match self.means.state.set_place(&self.route.name, place) {
            Ok(()) => {
                (self.place, self.saved) = (Some(place), Instant::now());
                true
            }
            Err(error) => {
                self.failed(&error);
                false
            }
        }
    }

    fn count(&self) {
        let waiting = self.pending.len() as u64;
        let unread = match self.route.send {
            Send::Alerts => 0,
            Send::Log => self.means.broker.audit_seq().saturating_sub(self.read.0),
        };
        self.standing.lock().queued = waiting + unread;
    }

    fn failed(&mut self, why: &dyn Display) {
        self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        self.not_before = Instant::now() + self.pause;
        let why = why.to_string();
        let mut standing = self.standing.lock();
        standing.failures += 1;
        if standing.error.as_ref() != Some(&why) {
            tracing::warn!(receiver = self.route.name, %why, "not told, and tried again");
        }
        standing.error = Some(why);
    }
}

/// A sender as others hold it. Dropping it lets its thread end after the delivery at hand.
pub(super) struct Sending {
    pub(super) route: Route,
    pub(super) standing: Arc<Mutex<Standing>>,
    replaced: Arc<AtomicBool>,
    _stop: mpsc::Sender<()>,
    ended: Receiver<()>,
}

impl Sending {
    pub(super) fn start(route: Route, means: Means) -> std::io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        let (standing, replaced) = (Arc::default(), Arc::default());
        let sender =
            Sender::new(route.clone(), means, Arc::clone(&standing), Arc::clone(&replaced));
        std::thread::Builder::new().name("receiver".into()).spawn(move || {
            // Its end is what is waited for.
            let _end = end;
            sender.run(&stopped);
        })?;
        Ok(Self { route, standing, replaced, _stop: stop, ended })
    }

    /// Has the thread write nothing down any more.
    pub(super) fn replace(&self) {
        self.replaced.store(true, Ordering::Release);
    }

    /// Waits for the thread, which was told to end.
    pub(super) fn wait(self, at_most: Duration) {
        let Self { _stop: stop, ended, .. } = self;
        drop(stop);
        let _ = ended.recv_timeout(at_most);
    }
}
