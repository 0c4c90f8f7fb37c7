//! Keeps the files of `injections.toml` where programs look for them, and tells programs of changes.
//!
//! One thread does it, and never touches the mount: it asks the index what is current, and has the effector
//! place files and give notices. What changes within a window is one notice a consumer, after its copies are
//! renewed. What fails is tried again with growing pauses, and is a fault of the daemon meanwhile.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::json;

use super::error::chain;
use super::mounting::FS_TYPE;
use crate::broker::{Broker, BrokerError};
use crate::effect::{Effector, Order, Placement, Task};
use crate::model::{Clock, SecretName, Version};
use crate::system::{Mount, MountWatch, atomic_file, mounts};

mod consumers;
mod files;
mod settings;
mod state;

pub(super) use files::clean_up;
pub(super) use settings::Settings;

use settings::Consumer;
use state::{Retry, State};

/// How long others are waited for after a change, to be one notice with it.
const WINDOW: Duration = Duration::from_millis(500);
/// How often all is looked at without a change: secrets expire.
const LOOK: Duration = Duration::from_secs(60);
/// How soon again while nothing can be read yet.
const SOON: Duration = Duration::from_secs(1);
/// How long the end waits for an order that is under way.
const LAST_ORDER: Duration = Duration::from_secs(2);

type Versions = BTreeMap<SecretName, Version>;

/// With what files are kept, and where.
pub(super) struct Parts {
    pub(super) broker: Broker,
    pub(super) effects: Arc<Effector>,
    pub(super) clock: Arc<dyn Clock>,
    /// Where the state is remembered.
    pub(super) file: PathBuf,
    pub(super) mountpoint: PathBuf,
}

/// What is kept, shared with the control files.
pub(super) struct Injections {
    parts: Parts,
    settings: Mutex<Settings>,
    state: Mutex<State>,
    /// What of the state was last written down.
    written: Mutex<Vec<u8>>,
    bell: Mutex<Option<Sender<Wake>>>,
    /// Whether the bell was rung and not heard yet.
    rung: AtomicBool,
    /// Whether the mount was seen, in this process's view of the files.
    seen: AtomicBool,
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
    pub(super) fn new(parts: Parts, settings: Settings) -> Arc<Self> {
        let state = State::read(&parts.file);
        Arc::new(Self {
            parts,
            settings: Mutex::new(settings),
            state: Mutex::new(state),
            written: Mutex::default(),
            bell: Mutex::default(),
            rung: AtomicBool::new(false),
            seen: AtomicBool::new(false),
            ending: AtomicBool::new(false),
        })
    }

    /// From now on other files are kept. What is not listed any more is taken away.
    pub(super) fn replace_settings(&self, settings: Settings) {
        let mut state = self.state.lock();
        state.files.retain(|path, is| is.placed.is_some() || settings.at(path).is_some());
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
            register(&self.parts.broker, Box::new(hook));
        }
        self.watch_mounts()?;
        let injections = Arc::clone(self);
        let (end, ended) = mpsc::channel::<()>();
        thread::Builder::new().name("injections".into()).spawn(move || {
            // Its end is what is waited for.
            let _end = end;
            let mut next = Instant::now();
            loop {
                match heard.recv_timeout(next.saturating_duration_since(Instant::now())) {
                    Ok(Wake::Changed) => next = next.min(Instant::now() + WINDOW),
                    Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) => {
                        next = Instant::now() + injections.look();
                    }
                }
            }
        })?;
        Ok(Injecting { injections: Arc::clone(self), bell, ended })
    }

    /// Rings when something is mounted or unmounted: a bind would keep the session alive when somebody has
    /// unmounted.
    fn watch_mounts(self: &Arc<Self>) -> io::Result<()> {
        let (injections, watch) = (Arc::downgrade(self), MountWatch::new()?);
        let watch = move || {
            while watch.wait().is_ok() {
                let Some(injections) = injections.upgrade() else { return };
                if injections.settings.lock().has_binds() {
                    injections.ring();
                }
            }
        };
        thread::Builder::new().name("mounts".into()).spawn(watch).map(drop)
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

    /// Returns what is kept, a JSON object a line: files in the order of the list, those that it does not have any
    /// more, then consumers.
    pub(super) fn text(&self) -> String {
        let (state, settings) = (self.state.lock(), self.settings.lock());
        let file = |file: &Placement| {
            let is = state.files.get(&file.path).cloned().unwrap_or_default();
            let state =
                if settings.at(&file.path).is_some() { is.word() } else { is.leaving_word() };
            json!({
                "target": file.path, "secret": file.secret, "kind": file.kind, "version": is.version,
                "time": is.time, "state": state, "error": is.retry.error,
            })
        };
        let consumer = |consumer: &Consumer| {
            let is = state.consumers.get(&consumer.name).cloned().unwrap_or_default();
            json!({
                "consumer": consumer.name, "versions": is.versions, "time": is.time, "state": is.word(), "error": is.retry.error,
            })
        };
        let leaving = state.files.iter().filter(|(path, _)| settings.at(path).is_none());
        let leaving = leaving.filter_map(|(_, is)| is.placed.as_ref());
        let files = settings.files.iter().chain(leaving).map(file);
        let lines = files.chain(settings.consumers.iter().map(consumer));
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

    /// Does what is to be done. Returns when to look again.
    fn look(&self) -> Duration {
        // Before anything is read: what comes later rings again.
        self.rung.store(false, Ordering::Release);
        let settings = self.settings.lock().clone();
        if settings.has_binds() && self.is_unmounted() {
            self.end_binds();
            return LOOK;
        }
        let mut next = self.clear(&settings);
        if !(settings.files.is_empty() && settings.consumers.is_empty()) {
            next = next.min(self.look_at(&settings));
        }
        self.remember();
        next
    }

    fn look_at(&self, settings: &Settings) -> Duration {
        let versions = match self.parts.broker.current_versions(&|name| settings.concerns(name)) {
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
        next
    }

    /// Tells whether somebody has taken the mount away.
    fn is_unmounted(&self) -> bool {
        // Also below another one: that is no unmount.
        let is_it =
            |mount: &Mount| mount.mountpoint == self.parts.mountpoint && mount.fs_type == FS_TYPE;
        match mounts().map(|table| table.iter().any(is_it)) {
            Ok(true) => {
                self.seen.store(true, Ordering::Release);
                false
            }
            Ok(false) => self.seen.load(Ordering::Acquire),
            Err(_) => false,
        }
    }

    /// Writes the state down where it has changed.
    fn remember(&self) {
        let mut written = self.written.lock();
        let text = serde_json::to_vec(&*self.state.lock()).map_err(io::Error::from);
        let outcome = text.and_then(|text| {
            if text != *written {
                atomic_file::replace(&self.parts.file, &text, 0o600)?;
                *written = text;
            }
            Ok(())
        });
        if let Err(error) = outcome {
            tracing::warn!(%error, "what was injected is not remembered");
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

fn order(secret: &SecretName, timeout: Duration, task: Task) -> Order {
    Order { rotation: "injection".into(), secret: Some(secret.clone()), timeout, task }
}
