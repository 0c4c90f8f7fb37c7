//! Watches the audit log with the detectors, behind the answers.
//!
//! A thread of its own looks each second at what the log has gained, so nothing of it is on the way of a read,
//! and a thread that lags is merely late. What it finds becomes a line of the log (`anomaly`): on record, in
//! `events` for those who may know, and told once. What was learned lies sealed in the state directory; where it
//! is missing or cannot be opened, the retained log teaches it again.

use std::collections::VecDeque;
use std::fmt::Write;
use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::error::chain;
use crate::anomaly::{Detector, Finding, Kind, Settings};
use crate::audit::Entry;
use crate::broker::{Broker, BrokerError};
use crate::model::{Clock, SecretName, Timestamp};
use crate::system::atomic_file;

/// How often the log is looked at.
const EVERY: Duration = Duration::from_secs(1);
/// How often what was learned is put on disk; what came since is learned again from the log.
const SAVE_EVERY: Duration = Duration::from_secs(600);
/// Findings that are kept for `.control/audit/anomalies`.
const MAX_KEPT: usize = 1000;

/// What the log was watched for, shared with the control files.
pub(super) struct Watch {
    broker: Broker,
    clock: Arc<dyn Clock>,
    file: PathBuf,
    kept: Mutex<VecDeque<Finding>>,
    /// Tuning that is to be taken up.
    settings: Mutex<Option<Settings>>,
    /// Set for the end, which does not wait until a long log is read.
    ending: AtomicBool,
}

/// The running thread; dropping it puts on disk what was learned.
#[derive(Debug)]
pub(super) struct Watching {
    watch: Arc<Watch>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What outlives the process.
#[derive(Deserialize, Serialize)]
struct Saved {
    learned: Box<serde_json::value::RawValue>,
    kept: VecDeque<Finding>,
}

impl Watch {
    pub(super) fn new(
        broker: Broker,
        clock: Arc<dyn Clock>,
        file: PathBuf,
        settings: Settings,
    ) -> Arc<Self> {
        let (kept, settings) = (Mutex::default(), Mutex::new(Some(settings)));
        Arc::new(Self { broker, clock, file, kept, settings, ending: AtomicBool::new(false) })
    }

    /// Returns what was found, a JSON object a line, the oldest first.
    pub(super) fn text(&self) -> String {
        self.kept.lock().iter().fold(String::new(), |mut text, finding| {
            let line = serde_json::to_string(finding).unwrap_or_default();
            // Writing to a string cannot fail.
            writeln!(text, "{line}").unwrap_or_default();
            text
        })
    }

    /// From now on other settings apply.
    pub(super) fn replace_settings(&self, settings: Settings) {
        *self.settings.lock() = Some(settings);
    }

    /// Starts the thread.
    pub(super) fn start(self: &Arc<Self>) -> io::Result<Watching> {
        let (stop, stopped) = mpsc::channel::<()>();
        let watch = Arc::clone(self);
        // What is done before the thread gets its turn is to be told, too.
        let tell_from = self.clock.now();
        let thread = thread::Builder::new().name("anomalies".into()).spawn(move || {
            let mut student = watch.load(tell_from);
            let mut saved = Instant::now();
            while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                watch.look(&mut student);
                if saved.elapsed() >= SAVE_EVERY {
                    watch.save(&student);
                    saved = Instant::now();
                }
            }
            watch.save(&student);
        })?;
        Ok(Watching { watch: Arc::clone(self), stop: Some(stop), thread: Some(thread) })
    }

    fn load(&self, tell_from: Timestamp) -> Student {
        let settings = self.settings.lock().take().unwrap_or_default();
        match self.read_saved(settings.clone()) {
            Ok(Some(detector)) => {
                return Student {
                    detector,
                    tell_from: Timestamp::MIN,
                    failed: false,
                    up_to_date: false,
                };
            }
            Ok(None) => {}
            Err(why) => {
                tracing::warn!(%why, "what anomalies are told by is learned anew from the log")
            }
        }
        // What the log says of former times was told then, or nobody had asked.
        Student { detector: Detector::new(settings), tell_from, failed: false, up_to_date: false }
    }

    fn read_saved(&self, settings: Settings) -> Result<Option<Detector>, String> {
        let sealed = match std::fs::read(&self.file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(|error| error.to_string())?,
        };
        let plain = self.broker.open_learned(&sealed).map_err(|error| chain(&error))?;
        let saved: Saved = serde_json::from_slice(&plain).map_err(|error| error.to_string())?;
        let detector = Detector::from_bytes(settings, saved.learned.get().as_bytes());
        *self.kept.lock() = saved.kept;
        detector.map(Some).map_err(|error| error.to_string())
    }

    fn save(&self, student: &Student) {
        // Of what was read by half nothing was told yet: the next start reads it again.
        if !student.up_to_date {
            return;
        }
        let written =
            student.detector.to_bytes().map_err(|error| error.to_string()).and_then(|bytes| {
                let text = String::from_utf8(bytes).map_err(|error| error.to_string())?;
                let learned = serde_json::value::RawValue::from_string(text);
                let learned = learned.map_err(|error| error.to_string())?;
                let saved = Saved { learned, kept: self.kept.lock().clone() };
                let plain = serde_json::to_vec(&saved).map_err(|error| error.to_string())?;
                match self.broker.seal_learned(&plain) {
                    // It is saved once there is a key again.
                    Err(BrokerError::Sealed) => Ok(()),
                    Err(error) => Err(chain(&error)),
                    Ok(sealed) => atomic_file::replace(&self.file, &sealed, 0o600)
                        .map_err(|error| error.to_string()),
                }
            });
        if let Err(why) = written {
            tracing::warn!(%why, "what was learned about the log is not on disk");
        }
    }

    /// Takes what the log has gained.
    fn look(&self, student: &mut Student) {
        if let Some(settings) = self.settings.lock().take() {
            student.detector.replace_settings(settings);
        }
        student.up_to_date = false;
        let mut found = Vec::new();
        let last = student.detector.last_seq();
        let read = self.broker.each_entry_after(last, &mut |entry, _| {
            let is_decoy = |name: &SecretName| self.broker.is_decoy(name);
            found.extend(student.detector.observe_with(entry, &is_decoy));
            self.keep_told(entry);
            if self.ending.load(Ordering::Acquire) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        if let Err(error) = read {
            if !std::mem::replace(&mut student.failed, true) {
                tracing::warn!(why = chain(&error), "the log could not be looked at for anomalies");
            }
            return;
        }
        student.failed = false;
        if self.ending.load(Ordering::Acquire) {
            return;
        }
        student.up_to_date = true;
        found.extend(student.detector.advance(self.clock.now()));
        found.retain(|finding| finding.time >= student.tell_from && !self.is_told(finding));
        found.iter().for_each(|finding| self.tell(finding));
    }

    /// Remembers a finding that is on record.
    fn keep_told(&self, entry: &Entry) {
        if let Some(Ok(finding)) = Finding::recorded(entry)
            && !self.is_told(&finding)
        {
            let mut kept = self.kept.lock();
            kept.push_back(finding);
            if kept.len() > MAX_KEPT {
                kept.pop_front();
            }
        }
    }

    fn is_told(&self, finding: &Finding) -> bool {
        let first = |finding: &Finding| (finding.kind, finding.seqs.first().copied());
        self.kept.lock().iter().any(|told| first(told) == first(finding))
    }

    fn tell(&self, finding: &Finding) {
        tracing::warn!(
            kind = %finding.kind, score = finding.score, caller = ?finding.caller.to_string(), lines = finding.lines, "anomaly"
        );
        let Ok(detail) = serde_json::to_value(finding) else { return };
        // Those who may know the secret may know of one line about it; what goes over several is for admins.
        // And that a secret is a decoy is not for who has just read it.
        let shared = finding.lines == 1 && finding.kind != Kind::Decoy;
        let secret = finding.secret.as_ref().filter(|_| shared);
        if let Err(error) = self.broker.record_anomaly(secret, detail) {
            tracing::error!(why = chain(&error), "an anomaly could not be recorded");
        }
    }
}

/// A detector, and since when what it finds is news.
struct Student {
    detector: Detector,
    tell_from: Timestamp,
    /// The last look failed, and that was said.
    failed: bool,
    /// The last look went to the end, and what it found was told.
    up_to_date: bool,
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.watch.ending.store(true, Ordering::Release);
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic has been reported by the panic hook.
            drop(thread.join());
        }
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("file", &self.file).finish_non_exhaustive()
    }
}
