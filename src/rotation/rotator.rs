//! Who begins rotations, keeps two of one secret apart, and takes up what was left.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::adoption::{Holder, Readers};
use super::bell::Bell;
use super::due::Due;
use super::note::Note;
use super::outcome::Outcome;
use super::progress::{Progress, State};
use super::run::{Engine, PATIENCE, Run, Who};
use super::settings::{Plan, Settings};
use super::workers::{Pace, Workers};
use crate::broker::{Broker, BrokerError, By, Stage, StoreError, Subject};
use crate::effect::CarryOut;
use crate::generate::{Generator, Inputs};
use crate::model::{Caller, Clock, SecretId, SecretName, Timestamp, chain};

/// What a rotator is made of.
pub struct Parts {
    pub broker: Broker,
    pub effects: Arc<dyn CarryOut>,
    pub clock: Arc<dyn Clock>,
    pub settings: Settings,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl fmt::Debug for Rotator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rotator").finish_non_exhaustive()
    }
}

/// How a rotation is to be done.
#[derive(Clone, Debug)]
pub struct Options {
    pub value: ValueFrom,
    /// Whether the new value has to be proven to work.
    pub verify: bool,
    /// Whether a failure brings everything back; else it is left as it is.
    pub rollback: bool,
    /// How long to wait for the processes that hold the old value, if not as configured.
    pub wait_adopted: Option<Duration>,
}

impl Default for Options {
    fn default() -> Self {
        Self { value: ValueFrom::Generated, verify: true, rollback: true, wait_adopted: None }
    }
}

/// Where the new value comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ValueFrom {
    Generated,
    /// It was staged before.
    Pending,
}

/// Rotates secrets. Cheap to clone: all parts are shared.
#[derive(Clone)]
pub struct Rotator {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Engine,
    settings: ArcSwap<Settings>,
    /// For what somebody waits for, and for what the schedule has begun.
    prompt: Workers,
    restful: Workers,
    runs: Mutex<Runs>,
    /// The soonest that was due when it was last looked.
    next: Mutex<Option<Due>>,
    started: Instant,
}

#[derive(Default)]
struct Runs {
    /// By secret; those that have ended are kept for a while, for who asks what became of them.
    of: HashMap<SecretId, Active>,
    /// When what could not be ended is tried again.
    again: HashMap<SecretId, Retry>,
}

struct Active {
    progress: Arc<Progress>,
    ended: Option<Instant>,
}

#[derive(Clone, Copy)]
struct Retry {
    at: Instant,
    pause: Duration,
}

/// How long after its end a rotation can be asked for.
const REMEMBERED: Duration = Duration::from_secs(600);

/// How long the effects of a server that died may still be under way.
const LAST_ORDERS: Duration = Duration::from_secs(1);

/// How often the thread looks for what was left.
const TICK: Duration = Duration::from_secs(1);

/// How often it looks for what is due.
const LOOK: Duration = Duration::from_secs(60);

/// The pause before what failed is tried again; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

impl Rotator {
    pub fn new(parts: Parts) -> Self {
        let Parts { broker, effects, clock, settings } = parts;
        Self {
            inner: Arc::new(Inner {
                engine: Engine {
                    broker,
                    effects,
                    clock,
                    bell: Bell::default(),
                    readers: Readers::default(),
                },
                settings: ArcSwap::from_pointee(settings),
                prompt: Workers::new(Pace::Prompt),
                restful: Workers::new(Pace::Restful),
                runs: Mutex::default(),
                next: Mutex::default(),
                started: Instant::now(),
            }),
        }
    }

    /// Replaces the settings; a rotation that has begun goes on by those it began with.
    pub fn replace_settings(&self, settings: Settings) {
        self.inner.settings.store(Arc::new(settings));
    }

    /// Begins a rotation, or says why not. It goes on by itself; [`wait`](Self::wait) tells how.
    ///
    /// Errors: `Denied`, `NotFound`, `Rotating`, `Sealed`, `Invalid` (nothing says how to make a value), `Upstream`
    /// (who keeps it is down).
    pub fn rotate(
        &self,
        caller: &Caller,
        name: &SecretName,
        options: Options,
    ) -> Result<State, BrokerError> {
        let subject = self.admit(caller, name)?;
        // As it is now, for lines that are written long after its request was answered.
        let caller = Caller { request: None, ..caller.complete() };
        self.begin(Who::Caller(caller), subject, options)
    }

    /// Says what a rotation would do, without doing any of it. Errors as [`rotate`](Self::rotate)'s.
    pub fn dry_run(
        &self,
        caller: &Caller,
        name: &SecretName,
        options: &Options,
    ) -> Result<Vec<String>, BrokerError> {
        let subject = self.admit(caller, name)?;
        let plan = self.inner.plan(&subject);
        plan.describe(subject.metadata.attributes.secret_type, options)
            .map_err(BrokerError::Invalid)
    }

    fn admit(&self, caller: &Caller, name: &SecretName) -> Result<Subject, BrokerError> {
        let broker = &self.inner.engine.broker;
        match broker.admit_rotation(By::Caller(caller), name) {
            // Nobody has asked for it yet.
            Err(BrokerError::Elsewhere(sought)) => {
                broker.fetch(&sought, PATIENCE)?;
                broker.admit_rotation(By::Caller(caller), name)
            }
            admitted => admitted,
        }
    }

    pub(super) fn rotate_by_schedule(&self, subject: Subject) -> Result<State, BrokerError> {
        self.begin(Who::Daemon, subject, Options::default())
    }

    fn begin(&self, who: Who, subject: Subject, options: Options) -> Result<State, BrokerError> {
        let inner = &self.inner;
        let plan = inner.plan(&subject);
        if options.value == ValueFrom::Generated {
            plan.maker(subject.metadata.attributes.secret_type).map_err(BrokerError::Invalid)?;
        } else if subject.pending.is_none() {
            let name = &subject.name;
            return Err(match inner.engine.broker.is_routed(name) {
                true => BrokerError::Unsupported(format!(
                    "{name} is kept by another service, and no value is staged there"
                )),
                false => BrokerError::Invalid(
                    "nothing is staged: write the new value to NAME@pending first".into(),
                ),
            });
        }
        if subject.stage == Stage::Changing {
            return Err(BrokerError::Rotating(subject.name));
        }
        let rotation = rotation_id(inner.engine.clock.now())?;
        let progress = inner.occupy(&subject, &rotation)?;
        let (this, id, state) = (self.clone(), subject.id, progress.state());
        let workers = match &who {
            Who::Caller(_) => &inner.prompt,
            Who::Daemon => &inner.restful,
        };
        let job = Box::new(move || {
            let engine = &this.inner.engine;
            let occupied = Occupied { inner: &this.inner, id, progress: &progress };
            // As it is now: it may have waited for its turn.
            let subject = engine.broker.subject_by_id(id).unwrap_or(subject);
            let run = Run::new(engine, who, rotation, subject, &progress, plan.timeout);
            let outcome = run.fresh(&plan, &options);
            occupied.end(outcome);
        });
        if let Err(error) = workers.submit(job) {
            inner.runs.lock().of.remove(&id);
            return Err(StoreError::Io(error).into());
        }
        Ok(state)
    }

    /// Takes up what was left before its end: after a crash, or because a target was not there. To be
    /// called again and again.
    pub fn take_up(&self) {
        self.take_up_as_of(Instant::now());
    }

    /// As [`take_up`](Self::take_up), at another moment: what waits for its next try is due by then.
    pub fn take_up_as_of(&self, now: Instant) {
        let inner = &self.inner;
        if now.saturating_duration_since(inner.started) < LAST_ORDERS {
            return;
        }
        // Sealed: nothing can be done, and nothing else can be either.
        let Ok(open) = inner.engine.broker.open_rotations() else { return };
        for subject in open {
            let again = inner.runs.lock().again.get(&subject.id).copied();
            let due = again.is_none_or(|again| again.at <= now);
            if due && let Err(error) = self.resume(subject) {
                tracing::warn!(error = chain(&error), "a rotation is not taken up yet");
            }
        }
    }

    fn resume(&self, subject: Subject) -> Result<(), BrokerError> {
        let inner = &self.inner;
        let note = Note::parse(&subject.note);
        let Some(left) = note.under_way else {
            let why = format!("what is open of the rotation of {} is not known", subject.name);
            return Err(BrokerError::Invalid(why));
        };
        // It may be at work.
        let Ok(progress) = inner.occupy(&subject, &left.rotation) else { return Ok(()) };
        let (this, id) = (self.clone(), subject.id);
        let timeout = inner.plan(&subject).timeout;
        let job = Box::new(move || {
            let engine = &this.inner.engine;
            let occupied = Occupied { inner: &this.inner, id, progress: &progress };
            let Ok(subject) = engine.broker.subject_by_id(id) else { return };
            let Some(left) = Note::parse(&subject.note).under_way else { return };
            let run = Run::left(engine, subject, &progress, timeout, &left);
            let outcome = run.resumed(left);
            occupied.end(outcome);
        });
        inner.prompt.submit(job).map_err(|error| {
            inner.runs.lock().of.remove(&id);
            StoreError::Io(error).into()
        })
    }

    /// Returns how a rotation stands once it has more than `seen` steps or has ended, at the latest
    /// after `at_most`. `None`: it is not known, or not any more.
    pub fn wait(&self, rotation: &str, seen: Option<usize>, at_most: Duration) -> Option<State> {
        let progress = {
            let runs = self.inner.runs.lock();
            let mut all = runs.of.values().map(|active| &active.progress);
            Arc::clone(all.find(|progress| progress.state().rotation == rotation)?)
        };
        Some(match seen {
            None => progress.wait(at_most),
            Some(seen) => progress.wait_beyond(seen, at_most),
        })
    }

    /// Returns the rotations that are at work.
    pub fn at_work(&self) -> Vec<State> {
        let runs = self.inner.runs.lock();
        let at_work = runs.of.values().filter(|active| active.ended.is_none());
        at_work.map(|active| active.progress.state()).collect()
    }

    /// Returns how the last rotations of a secret ended, the youngest first, to who may know of it.
    pub fn history(&self, caller: &Caller, name: &SecretName) -> Result<Vec<Outcome>, BrokerError> {
        let broker = &self.inner.engine.broker;
        broker.admit_question(caller, name)?;
        Ok(Note::parse(&broker.subject(name)?.note).outcomes)
    }

    /// Returns the live processes that have opened a secret (`None`: any), each with the version that it
    /// opened last, by name and process. Whoever is told of it must be asked for before.
    pub fn holders(&self, secret: Option<&SecretName>) -> Result<Vec<Holder>, BrokerError> {
        self.inner.engine.holders(secret)
    }

    /// Starts the thread that takes up what was left and begins what is due. It ends when the returned
    /// value is dropped; what is at work then is taken up by the next start.
    pub fn start(&self) -> std::io::Result<Rotations> {
        let (stop, stopped) = mpsc::channel::<()>();
        let this = self.clone();
        let thread = thread::Builder::new().name("rotations".into()).spawn(move || {
            let mut looked = None::<Instant>;
            while stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                this.take_up();
                if looked.is_none_or(|looked| looked.elapsed() >= LOOK) {
                    looked = Some(Instant::now());
                    if let Err(error) = this.rotate_due()
                        && !matches!(error, BrokerError::Sealed)
                    {
                        tracing::warn!(error = chain(&error), "what is due is not rotated yet");
                    }
                    let Engine { readers, broker, clock, .. } = &this.inner.engine;
                    if let Err(error) = readers.keep_up(broker, &**clock) {
                        tracing::warn!(error = chain(&error), "who has read what is not known yet");
                    }
                }
            }
        })?;
        Ok(Rotations {
            workers: [self.inner.prompt.clone(), self.inner.restful.clone()],
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Returns what is due next, as of the last look.
    pub fn next(&self) -> Option<Due> {
        self.inner.next.lock().clone()
    }

    pub(super) fn set_next(&self, next: Option<Due>) {
        *self.inner.next.lock() = next;
    }

    pub(super) fn broker(&self) -> &Broker {
        &self.inner.engine.broker
    }

    pub(super) fn settings(&self) -> Arc<Settings> {
        self.inner.settings.load_full()
    }

    pub(super) fn clock(&self) -> &dyn Clock {
        &*self.inner.engine.clock
    }
}

impl Inner {
    fn plan(&self, subject: &Subject) -> Plan {
        let settings = self.settings.load();
        settings.plan(&subject.name, &subject.metadata.attributes).cloned().unwrap_or_default()
    }

    /// Takes a secret's place among those at work. `Rotating`: it is taken.
    fn occupy(&self, subject: &Subject, rotation: &str) -> Result<Arc<Progress>, BrokerError> {
        let mut runs = self.runs.lock();
        runs.of.retain(|_, active| active.ended.is_none_or(|ended| ended.elapsed() < REMEMBERED));
        if runs.of.get(&subject.id).is_some_and(|active| active.ended.is_none()) {
            return Err(BrokerError::Rotating(subject.name.clone()));
        }
        let progress = Arc::new(Progress::new(rotation.to_owned(), subject.name.clone()));
        let active = Active { progress: Arc::clone(&progress), ended: None };
        runs.of.insert(subject.id, active);
        Ok(progress)
    }
}

/// A secret's place among those at work, given back also by a panic.
struct Occupied<'a> {
    inner: &'a Inner,
    id: SecretId,
    progress: &'a Progress,
}

impl Occupied<'_> {
    fn end(self, outcome: Outcome) {
        let progress = self.progress;
        drop(self);
        progress.end(outcome);
    }
}

impl Drop for Occupied<'_> {
    fn drop(&mut self) {
        let open = self.inner.engine.broker.subject_by_id(self.id);
        let open = open.is_ok_and(|subject| subject.stage != Stage::Ended);
        let mut runs = self.inner.runs.lock();
        if let Some(active) = runs.of.get_mut(&self.id) {
            active.ended = Some(Instant::now());
        }
        if open {
            let pause = runs.again.get(&self.id).map_or(FIRST_PAUSE, |again| again.pause * 2);
            let pause = pause.min(LONGEST_PAUSE);
            runs.again.insert(self.id, Retry { at: Instant::now() + pause, pause });
        } else {
            runs.again.remove(&self.id);
        }
    }
}

/// The thread behind the schedule.
pub struct Rotations {
    workers: [Workers; 2],
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Rotations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rotations").finish_non_exhaustive()
    }
}

impl Drop for Rotations {
    fn drop(&mut self) {
        self.workers.iter().for_each(Workers::stop);
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic in it was reported by the panic hook.
            drop(thread.join());
        }
    }
}

/// Draws what tells a rotation from all others: a UUID.
fn rotation_id(began: Timestamp) -> Result<String, BrokerError> {
    let inputs = Inputs { current: None, user: None, authority: None, now: began };
    let made = Generator::Uuid {}.generate(&inputs);
    let made = made.map_err(|error| BrokerError::Invalid(error.to_string()))?;
    Ok(String::from_utf8_lossy(made.value.expose()).into_owned())
}
