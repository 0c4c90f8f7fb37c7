//! Alerts: who is told of what the log has, and what is done about it at once.
//!
//! A thread of its own for each receiver of `alerts.toml` follows the log; one more looks for faults that the log
//! cannot take, and quarantines the callers of such findings as the file says. Nothing of it is on the way of a
//! read. What leaves this machine goes by the effector, which looks up in the file whether it may.

use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::error::chain;
use crate::anomaly::Finding;
use crate::broker::{Broker, BrokerError, Quarantine};
use crate::effect::Effector;
use crate::model::{Caller, Clock, SecretName, Seq, Uid};
use crate::system::atomic_file;

mod message;
mod sender;
mod settings;
mod state;

pub(super) use settings::Settings;

use sender::{Means, Sending};
use state::State;

/// How often it is looked for faults and findings.
const EVERY: Duration = Duration::from_secs(1);
/// How long the end waits for deliveries that are under way.
const LAST_DELIVERIES: Duration = Duration::from_secs(2);

/// What is told to whom, shared with the control files.
pub(super) struct Alerts {
    broker: Broker,
    clock: Arc<dyn Clock>,
    means: Means,
    settings: Mutex<Settings>,
    /// In the order of the file, from the start on.
    sending: Mutex<Option<Vec<Sending>>>,
    /// Where it is remembered who is quarantined.
    quarantined: PathBuf,
    /// Held while quarantines change and are written down.
    quarantining: Mutex<()>,
}

/// How a receiver stands.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    pub(super) receiver: String,
    pub(super) queued: u64,
    pub(super) delivered: u64,
    pub(super) failures: u64,
    pub(super) lost: u64,
}

/// The running threads; dropping it stops them, and waits a moment for deliveries at hand.
pub(super) struct Alerting {
    alerts: Arc<Alerts>,
    stop: Option<mpsc::Sender<()>>,
    ended: Receiver<()>,
}

impl Alerts {
    pub(super) fn new(
        broker: Broker,
        effects: Arc<Effector>,
        clock: Arc<dyn Clock>,
        (delivered, quarantined): (PathBuf, PathBuf),
        settings: Settings,
    ) -> Arc<Self> {
        let host = nix::sys::utsname::uname();
        let host = host.map(|host| host.nodename().to_string_lossy().into_owned());
        let means = Means {
            broker: broker.clone(),
            effects,
            state: Arc::new(State::load(&delivered)),
            host: host.unwrap_or_else(|_| "localhost".to_owned()).into(),
            ending: Arc::new(AtomicBool::new(false)),
            key_changes: Arc::new(AtomicU64::new(0)),
        };
        let alerts = Arc::new(Self {
            broker,
            clock,
            means,
            settings: Mutex::new(settings),
            sending: Mutex::default(),
            quarantined,
            quarantining: Mutex::default(),
        });
        // Before anybody is served.
        alerts.note_beginnings();
        alerts.resume_quarantines();
        alerts
    }

    /// Starts the threads.
    pub(super) fn start(self: &Arc<Self>) -> io::Result<Alerting> {
        self.watch_keys();
        *self.sending.lock() = Some(Vec::new());
        self.follow_settings()?;
        let (stop, stopped) = mpsc::channel::<()>();
        let (end, ended) = mpsc::channel::<()>();
        let alerts = Arc::clone(self);
        std::thread::Builder::new().name("alerts".into()).spawn(move || {
            // Its end is what is waited for.
            let _end = end;
            let (mut known_fault, mut seen) = (None, None);
            while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                alerts.look_for_faults(&mut known_fault);
                alerts.look_for_denials(&mut seen);
                alerts.end_quarantines();
            }
        })?;
        Ok(Alerting { alerts: Arc::clone(self), stop: Some(stop), ended })
    }

    /// From now on others are told. Those that are told as before go on.
    pub(super) fn replace_settings(&self, settings: Settings) {
        *self.settings.lock() = settings;
        self.note_beginnings();
        if let Err(error) = self.follow_settings() {
            tracing::error!(%error, "a receiver of alerts has no thread");
        }
    }

    /// Says what does not work.
    pub(super) fn faults(&self) -> Vec<String> {
        let sending = self.sending.lock();
        let fault = |one: &Sending| {
            let error = one.standing.lock().error.clone()?;
            Some(format!("receiver {}: {error}", one.route.name))
        };
        sending.iter().flatten().filter_map(fault).collect()
    }

    /// Returns how each receiver stands, in the order of the file.
    pub(super) fn queues(&self) -> Vec<Queue> {
        let sending = self.sending.lock();
        let queue = |one: &Sending| {
            let standing = one.standing.lock().clone();
            Queue {
                receiver: one.route.name.clone(),
                queued: standing.queued,
                delivered: standing.delivered,
                failures: standing.failures,
                lost: standing.lost,
            }
        };
        sending.iter().flatten().map(queue).collect()
    }

    /// Keeps a user from everything for a while, and remembers it; see [`Broker::quarantine`].
    pub(super) fn quarantine(
        &self,
        by: Option<&Caller>,
        uid: Uid,
        lasting: Duration,
        (reason, cause): (&str, Option<Seq>),
    ) -> Result<Quarantine, BrokerError> {
        let _one = self.quarantining.lock();
        let begun = self.broker.quarantine(by, uid, lasting, (reason, cause))?;
        tracing::warn!(%uid, reason, "quarantined");
        self.remember_quarantines()?;
        Ok(begun)
    }

    /// Ends a user's quarantine.
    pub(super) fn lift(&self, caller: &Caller, uid: Uid) -> Result<Quarantine, BrokerError> {
        let _one = self.quarantining.lock();
        let ended = self.broker.lift_quarantine(caller, uid)?;
        tracing::warn!(%uid, by = caller.uid.0, "a quarantine was lifted");
        self.remember_quarantines()?;
        Ok(ended)
    }

    /// Alerts and quarantines begin with what comes from now on, where they were not there before; once a store
    /// that is sealed has a log, those who follow it do the same.
    fn note_beginnings(&self) {
        let end = Seq(self.broker.audit_seq());
        if end == Seq(0) {
            return;
        }
        let (settings, state) = (self.settings.lock().clone(), &self.means.state);
        let mut noted = Ok(());
        for route in settings.routes.iter().filter(|route| route.send == settings::Send::Alerts) {
            if state.place(&route.name).is_none() {
                let place = state::Place { seq: end, fault: state.last_fault() };
                noted = noted.and_then(|()| state.set_place(&route.name, place));
            }
        }
        if !settings.denials.is_empty() && state.denials().is_none() {
            noted = noted.and_then(|()| state.set_denials(Some(end)));
        }
        if let Err(error) = noted {
            tracing::error!(%error, "from where on alerts are told is not remembered");
        }
    }

    /// A key that was changed is read again, and one of a sealed store is not kept.
    fn watch_keys(self: &Arc<Self>) {
        for register in [Broker::on_change, Broker::on_commit] {
            let alerts = Arc::downgrade(self);
            let hook = move |name: &SecretName| {
                if let Some(alerts) = alerts.upgrade()
                    && alerts.settings.lock().is_key(name)
                {
                    alerts.means.key_changes.fetch_add(1, Ordering::AcqRel);
                }
            };
            register(&self.broker, Box::new(hook));
        }
        let changes = Arc::clone(&self.means.key_changes);
        self.broker.on_seal(Box::new(move || {
            changes.fetch_add(1, Ordering::AcqRel);
        }));
    }

    /// Ends the threads of receivers that are told otherwise or not at all, and starts those that are missing.
    fn follow_settings(&self) -> io::Result<()> {
        let mut sending = self.sending.lock();
        // Before the start nobody is told.
        let Some(running) = sending.as_mut() else { return Ok(()) };
        let mut before = std::mem::take(running);
        for route in &self.settings.lock().routes {
            let same = before.iter().position(|one| one.route == *route);
            running.push(match same {
                Some(index) => before.swap_remove(index),
                None => {
                    before
                        .iter()
                        .filter(|one| one.route.name == route.name)
                        .for_each(Sending::replace);
                    Sending::start(route.clone(), self.means.clone())?
                }
            });
        }
        before.iter().for_each(Sending::replace);
        Ok(())
    }

    /// Tells receivers of what is wrong with the log or the store as a whole, once: the log may not be able to
    /// take it.
    fn look_for_faults(&self, known: &mut Option<String>) {
        let fault = self.broker.fault();
        if fault == *known {
            return;
        }
        if let Some(what) = &fault
            && let Err(error) = self.means.state.add_fault(self.clock.now(), what)
        {
            tracing::error!(%error, what, "a fault is not remembered for those who are to be told");
            return;
        }
        *known = fault;
    }

    /// Quarantines the callers of findings since the last look, as the file says.
    fn look_for_denials(&self, seen: &mut Option<Seq>) {
        let settings = self.settings.lock().clone();
        let state = &self.means.state;
        let remember = |seq| {
            if let Err(error) = state.set_denials(seq) {
                tracing::error!(%error, "which findings were looked at is not remembered");
            }
        };
        let end = Seq(self.broker.audit_seq());
        if settings.denials.is_empty() {
            *seen = None;
            if state.denials().is_some() {
                remember(None);
            }
            return;
        }
        if end == Seq(0) {
            return;
        }
        let remembered = seen.or_else(|| state.denials());
        // One that is behind the end is of another log.
        let Some(from) = remembered.filter(|from| *from <= end) else {
            // What was found before there were such rules has no consequence.
            remember(Some(end));
            *seen = Some(end);
            return;
        };
        let (mut last, mut acted) = (from, false);
        let read = self.broker.each_entry_after(from, &mut |entry, _| {
            last = entry.seq;
            if let Some(Ok(finding)) = Finding::recorded(entry)
                && let Some(lasting) = settings.denial(&finding)
            {
                acted = true;
                self.deny(&finding, lasting, entry.seq);
            }
            ControlFlow::Continue(())
        });
        if let Err(error) = read {
            tracing::warn!(why = chain(&error), "findings could not be looked at");
            return;
        }
        *seen = Some(last);
        let written = state.denials().map_or(0, |seq| seq.0);
        // Lines that mean nothing are looked at again after a restart, rather than written down each second.
        if acted || last.0.saturating_sub(written) > 1000 {
            remember(Some(last));
        }
    }

    fn deny(&self, finding: &Finding, lasting: Duration, cause: Seq) {
        let uid = finding.caller.uid;
        let is_known = self.broker.quarantines().iter().any(|held| held.cause == Some(cause));
        if is_known {
            return;
        }
        let reason = format!("{}: {}", finding.kind, finding.explanation);
        if let Err(error) = self.quarantine(None, uid, lasting, (&reason, Some(cause))) {
            tracing::warn!(%uid, why = chain(&error), "not quarantined");
        }
    }

    fn end_quarantines(&self) {
        let _one = self.quarantining.lock();
        let ended = self
            .broker
            .end_quarantines()
            .and_then(|any| if any { self.remember_quarantines() } else { Ok(()) });
        if let Err(error) = ended {
            tracing::warn!(why = chain(&error), "the end of a quarantine is not on record");
        }
    }

    fn remember_quarantines(&self) -> Result<(), BrokerError> {
        let written = serde_json::to_vec(&self.broker.quarantines())
            .map_err(io::Error::from)
            .and_then(|text| atomic_file::replace(&self.quarantined, &text, 0o600));
        written.map_err(|error| {
            BrokerError::Unfinished(format!("it holds, but not over a restart: {error}"))
        })
    }

    fn resume_quarantines(&self) {
        let read = std::fs::read(&self.quarantined);
        match read.and_then(|text| Ok(serde_json::from_slice::<Vec<Quarantine>>(&text)?)) {
            Ok(kept) => self.broker.resume_quarantines(kept),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::error!(%error, "who was quarantined is not known"),
        }
    }
}

impl Drop for Alerting {
    fn drop(&mut self) {
        self.alerts.means.ending.store(true, Ordering::Release);
        drop(self.stop.take());
        let _ = self.ended.recv_timeout(LAST_DELIVERIES);
        let deadline = Instant::now() + LAST_DELIVERIES;
        let sending = self.alerts.sending.lock().take();
        for one in sending.into_iter().flatten() {
            one.wait(deadline.saturating_duration_since(Instant::now()));
        }
    }
}

impl fmt::Debug for Alerting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Alerting(..)")
    }
}
