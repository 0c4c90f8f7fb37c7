//! Keeps the files of `injections.toml` where programs look for them, and tells programs of changes.
//!
//! One thread does it, and never touches the mount: it asks the index what is current, and has the effector
//! place files and give notices. What changes within a window is one notice a consumer, after its copies are
//! renewed. What fails is tried again with growing pauses, and is a fault of the daemon meanwhile.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::json;

use super::error::chain;
use crate::broker::{Broker, BrokerError};
use crate::effect::{CarryOut, Effector, Order, Placement, PlacementKind, Task, Values};
use crate::model::{Clock, SecretName, Version};
use crate::system::atomic_file;

mod settings;
mod state;

pub(super) use settings::Settings;

use settings::Consumer;
use state::{Delivery, Retry, State};

/// How long others are waited for after a change, to be one notice with it.
const WINDOW: Duration = Duration::from_millis(500);
/// How often all is looked at without a change: secrets expire.
const LOOK: Duration = Duration::from_secs(60);
/// How soon again while nothing can be read yet.
const SOON: Duration = Duration::from_secs(1);
/// How long the effector has for a file, and for a notice.
const FILE_TIME: Duration = Duration::from_secs(10);
const NOTICE_TIME: Duration = Duration::from_secs(30);
/// How long cleaning up takes at most: whoever ends the server does not wait for ever.
const LAST_FILES: Duration = Duration::from_secs(3);
/// How long the end waits for an order that is under way.
const LAST_ORDER: Duration = Duration::from_secs(2);

type Versions = BTreeMap<SecretName, Version>;

/// What is kept, shared with the control files.
pub(super) struct Injections {
    broker: Broker,
    effects: Arc<Effector>,
    clock: Arc<dyn Clock>,
    /// Where the state is remembered.
    file: PathBuf,
    settings: Mutex<Settings>,
    state: Mutex<State>,
    bell: Mutex<Option<Sender<Wake>>>,
    /// Whether the bell was rung and not heard yet.
    rung: AtomicBool,
    /// Set for the end: nothing is begun any more.
    ending: AtomicBool,
}

/// The running thread; dropping it stops it after the order at hand, for which it is not waited long.
pub(super) struct Injecting {
    injections: Arc<Injections>,
    bell: Sender<Wake>,
    ended: Receiver<()>,
}

enum Wake {
    Changed,
    Stop,
}

impl Injections {
    pub(super) fn new(
        broker: Broker,
        effects: Arc<Effector>,
        (clock, file): (Arc<dyn Clock>, PathBuf),
        settings: Settings,
    ) -> Arc<Self> {
        let state = read_state(&file);
        Arc::new(Self {
            broker,
            effects,
            clock,
            file,
            settings: Mutex::new(settings),
            state: Mutex::new(state),
            bell: Mutex::default(),
            rung: AtomicBool::new(false),
            ending: AtomicBool::new(false),
        })
    }

    /// From now on other files are kept. What is not listed any more stays as it is.
    pub(super) fn replace_settings(&self, settings: Settings) {
        let mut state = self.state.lock();
        state.files.retain(|path, _| settings.files.iter().any(|file| file.path == *path));
        // Each is looked at anew: it may have another secret, owner or mode now.
        state.files.values_mut().for_each(|file| {
            (file.settled, file.retry) = (false, Retry::default());
        });
        state.consumers.retain(|name, _| settings.consumers.iter().any(|one| one.name == *name));
        *self.settings.lock() = settings;
        drop(state);
        self.ring();
    }

    /// Starts the thread.
    pub(super) fn start(self: &Arc<Self>) -> io::Result<Injecting> {
        let (bell, heard) = mpsc::channel();
        *self.bell.lock() = Some(bell.clone());
        for register in [Broker::on_change, Broker::on_commit] {
            let injections = Arc::downgrade(self);
            let hook = move |name: &SecretName| {
                let Some(injections) = injections.upgrade() else { return };
                if injections.settings.lock().concerns(name) {
                    injections.ring();
                }
            };
            register(&self.broker, Box::new(hook));
        }
        let injections = Arc::clone(self);
        let (end, ended) = mpsc::channel::<()>();
        thread::Builder::new().name("injections".into()).spawn(move || {
            // Its end is what is waited for.
            let _end = end;
            let (mut next, mut remembered) = (Instant::now(), Vec::new());
            loop {
                match heard.recv_timeout(next.saturating_duration_since(Instant::now())) {
                    Ok(Wake::Changed) => next = next.min(Instant::now() + WINDOW),
                    Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) => {
                        next = Instant::now() + injections.look(&mut remembered);
                    }
                }
            }
        })?;
        Ok(Injecting { injections: Arc::clone(self), bell, ended })
    }

    /// Takes all files away, at the end of the mount.
    pub(super) fn take_away(&self) {
        let deadline = Instant::now() + LAST_FILES;
        for file in self.settings.lock().files.clone() {
            let time = deadline.saturating_duration_since(Instant::now());
            if time.is_zero() {
                tracing::warn!("injected files are left: cleaning up took too long");
                return;
            }
            let order = order(&file.secret, time, Task::TakeAway(file.clone()));
            if let Err(error) = self.effects.carry_out(&order, &Values::default()) {
                tracing::warn!(path = ?file.path, %error, "an injected file is left");
            }
        }
    }

    /// Says what does not work.
    pub(super) fn faults(&self) -> Vec<String> {
        let state = self.state.lock();
        let fault = |what: String, retry: &Retry| {
            retry.error.as_ref().map(|why| format!("injection of {what}: {why}"))
        };
        let files = state
            .files
            .iter()
            .filter_map(|(path, is)| fault(path.display().to_string(), &is.retry));
        let consumers =
            state.consumers.iter().filter_map(|(name, is)| fault(name.clone(), &is.retry));
        files.chain(consumers).collect()
    }

    /// Returns what is kept, a JSON object a line: files in the order of the file, then consumers.
    pub(super) fn text(&self) -> String {
        let (state, settings) = (self.state.lock(), self.settings.lock());
        let file = |file: &Placement| {
            let is = state.files.get(&file.path).cloned().unwrap_or_default();
            json!({
                "target": file.path, "secret": file.secret, "kind": file.kind, "version": is.version,
                "time": is.time, "state": is.word(), "error": is.retry.error,
            })
        };
        let consumer = |consumer: &Consumer| {
            let is = state.consumers.get(&consumer.name).cloned().unwrap_or_default();
            let word = match (&is.retry.error, is.pending) {
                (Some(_), _) => "failed",
                (None, true) => "pending",
                (None, false) => "current",
            };
            json!({
                "consumer": consumer.name, "time": is.time, "state": word, "error": is.retry.error,
            })
        };
        let lines = settings.files.iter().map(file).chain(settings.consumers.iter().map(consumer));
        lines.map(|line| format!("{line}\n")).collect()
    }

    fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel)
            && let Some(bell) = &*self.bell.lock()
        {
            // At the end nobody hears it.
            drop(bell.send(Wake::Changed));
        }
    }

    /// Does what is to be done. Returns when to look again. `remembered` is what was last written down.
    fn look(&self, remembered: &mut Vec<u8>) -> Duration {
        // Before anything is read: what comes later rings again.
        self.rung.store(false, Ordering::Release);
        let settings = self.settings.lock().clone();
        if settings.files.is_empty() && settings.consumers.is_empty() {
            return LOOK;
        }
        let versions = match self.broker.current_versions(&|name| settings.concerns(name)) {
            Ok(versions) => versions,
            Err(BrokerError::Sealed) => return SOON,
            Err(error) => {
                tracing::warn!(why = chain(&error), "injections were not looked at");
                return SOON;
            }
        };
        let files = settings.files.iter().map(|file| self.keep(file, &versions));
        let mut next = files.min().unwrap_or(LOOK);
        for consumer in &settings.consumers {
            next = next.min(self.tell(consumer, &settings.files, &versions));
        }
        if let Err(error) = self.remember(remembered) {
            tracing::warn!(%error, "what was injected is not remembered");
        }
        next
    }

    /// Writes the state down where it has changed.
    fn remember(&self, written: &mut Vec<u8>) -> io::Result<()> {
        let text = serde_json::to_vec(&*self.state.lock())?;
        if text != *written {
            atomic_file::replace(&self.file, &text, 0o600)?;
            *written = text;
        }
        Ok(())
    }

    /// Sees to it that a file is as it is to be. Returns when to look again.
    fn keep(&self, file: &Placement, versions: &Versions) -> Duration {
        let is = self.state.lock().files.get(&file.path).cloned().unwrap_or_default();
        let version = versions.get(&file.secret).copied();
        let is_kept = is.settled && (is.version == version || file.kind == PlacementKind::Link);
        let outcome = match is.retry.wait() {
            Some(left) => return left,
            None if self.ending.load(Ordering::Acquire) => return LOOK,
            None if is_kept => Ok(version),
            None => self.deliver(file, version),
        };
        let mut state = self.state.lock();
        let is = state.files.entry(file.path.clone()).or_default();
        match outcome {
            Ok(version) => {
                if !is_kept || is.version != version {
                    is.time = Some(self.clock.now());
                }
                *is = Delivery { version, time: is.time, settled: true, retry: Retry::default() };
                LOOK
            }
            Err(why) => {
                tracing::warn!(path = ?file.path, %why, "not injected, and tried again");
                is.retry.failed(why);
                is.retry.wait().unwrap_or(SOON)
            }
        }
    }

    /// Has a file placed, or a copy whose secret is gone taken away. Returns the version that it has.
    fn deliver(
        &self,
        file: &Placement,
        version: Option<Version>,
    ) -> Result<Option<Version>, String> {
        let (task, values, version) = match (file.kind, version) {
            (PlacementKind::Copy, None) => (Task::TakeAway(file.clone()), Values::default(), None),
            (PlacementKind::Copy, Some(_)) => {
                let what = format!("for {}", file.path.display());
                let opened = self.broker.read_for_injection(&file.secret, &what);
                let opened = opened.map_err(|error| chain(&error))?;
                let values = Values { new: Some(opened.value), ..Values::default() };
                (Task::Place(file.clone()), values, Some(opened.version))
            }
            (PlacementKind::Link, version) => {
                (Task::Place(file.clone()), Values::default(), version)
            }
        };
        let outcome = self.effects.carry_out(&order(&file.secret, FILE_TIME, task), &values);
        outcome.map(|_| version).map_err(|error| error.to_string())
    }

    /// Tells a consumer of what has changed since it was told, if it may be told now.
    fn tell(&self, consumer: &Consumer, files: &[Placement], versions: &Versions) -> Duration {
        let current = versions.iter().filter(|(name, _)| consumer.wants(name));
        let current: Versions = current.map(|(name, version)| (name.clone(), *version)).collect();
        let (changed, given) = {
            let mut state = self.state.lock();
            let is = state.consumers.entry(consumer.name.clone()).or_default();
            let known = is.versions.get_or_insert_with(|| current.clone());
            let changed = current.keys().chain(known.keys());
            let changed = changed.filter(|name| current.get(*name) != known.get(*name));
            let Some(changed) = changed.min().cloned() else {
                (is.pending, is.given) = (false, 0);
                return LOOK;
            };
            is.pending = true;
            let since =
                is.time.and_then(|last| self.clock.now().duration_since(last).try_into().ok());
            // A clock that was set back makes nobody wait.
            let early =
                since.and_then(|since: Duration| consumer.min_interval().checked_sub(since));
            let early = early.filter(|left| !left.is_zero() && is.given == 0);
            if let Some(left) = is.retry.wait().or(early) {
                return left;
            }
            let late = |file: &&Placement| {
                file.kind == PlacementKind::Copy
                    && consumer.wants(&file.secret)
                    && state.files.get(&file.path).is_none_or(|is| {
                        !is.settled || is.version != versions.get(&file.secret).copied()
                    })
            };
            if files.iter().any(|file| late(&file)) {
                return SOON;
            }
            (changed, state.consumers.get(&consumer.name).map_or(0, |is| is.given))
        };
        let mut outcome = Ok(given);
        if self.ending.load(Ordering::Acquire) {
            return LOOK;
        }
        for (number, notice) in consumer.notify.iter().enumerate().skip(given) {
            let order = order(&changed, NOTICE_TIME, Task::Notify(notice.clone()));
            outcome = match self.effects.carry_out(&order, &Values::default()) {
                Ok(_) => Ok(number + 1),
                Err(error) => Err((number, error.to_string())),
            };
            if outcome.is_err() {
                break;
            }
        }
        let mut state = self.state.lock();
        let is = state.consumers.entry(consumer.name.clone()).or_default();
        match outcome {
            Ok(_) => {
                (is.versions, is.time) = (Some(current), Some(self.clock.now()));
                (is.given, is.pending, is.retry) = (0, false, Retry::default());
                LOOK
            }
            Err((given, why)) => {
                tracing::warn!(consumer = consumer.name, %why, "not told, and tried again");
                is.given = given;
                is.retry.failed(why);
                is.retry.wait().unwrap_or(SOON)
            }
        }
    }
}

impl Delivery {
    fn word(&self) -> &'static str {
        match (&self.retry.error, self.settled, self.version) {
            (Some(_), ..) => "failed",
            (None, false, _) => "pending",
            (None, true, None) => "no value",
            (None, true, Some(_)) => "current",
        }
    }
}

impl Drop for Injecting {
    fn drop(&mut self) {
        self.injections.ending.store(true, Ordering::Release);
        drop(self.bell.send(Wake::Stop));
        let _ = self.ended.recv_timeout(LAST_ORDER);
    }
}

impl fmt::Debug for Injecting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Injecting(..)")
    }
}

/// Takes all files away without a server, for who unmounts after it; takes root.
pub(super) fn clean_up(settings: &Settings, mountpoint: &Path) {
    for file in &settings.files {
        if let Err(error) = file.take_away(mountpoint) {
            tracing::warn!(path = ?file.path, %error, "an injected file is left");
        }
    }
}

fn order(secret: &SecretName, timeout: Duration, task: Task) -> Order {
    Order { rotation: "injection".into(), secret: Some(secret.clone()), timeout, task }
}

fn read_state(file: &Path) -> State {
    let read =
        fs::read(file).and_then(|text| serde_json::from_slice(&text).map_err(io::Error::from));
    read.unwrap_or_else(|error| {
        if error.kind() != io::ErrorKind::NotFound {
            tracing::warn!(%error, "what was injected before is not known");
        }
        State::default()
    })
}
