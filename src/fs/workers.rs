//! Threads for whatever may block, and promises of what others do, each with a deadline.
//!
//! A caller waits for its answer and cannot be killed meanwhile, so it gets one in time whatever
//! happens: ETIMEDOUT when the job is late, and then the job's own answer is dropped. A job that has
//! not begun by its deadline never does.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::error::{FsError, Result};
use super::turns::Turns;

/// Threads, started as they are needed.
pub(super) const MAX_THREADS: usize = 64;
/// Replies that may wait for others.
const MAX_PROMISES: usize = 4096;
/// Enough for a commit or a policy that is parsed; most jobs use a few KiB.
const STACK_BYTES: usize = 512 << 10;
/// How long a thread waits for work before it ends.
const IDLE: Duration = Duration::from_secs(30);

/// Where the answer of a job goes, once.
pub(super) trait Reply: Send + 'static {
    /// What the caller is waiting for.
    type Answer;

    /// Answers.
    fn send(self, answer: Result<Self::Answer>);
}

/// The pool.
#[derive(Debug)]
pub(super) struct Workers(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    max_threads: usize,
    /// How long a caller waits at most.
    deadline: Duration,
    state: Mutex<State>,
    work: Condvar,
    deadlines: Condvar,
}

struct State {
    turns: Turns<Box<dyn FnOnce() + Send>>,
    /// In the order of their deadlines, since all jobs have the same time.
    deadlines: VecDeque<(Instant, Arc<dyn Expire>)>,
    promises: usize,
    threads: usize,
    idle: usize,
    timer: bool,
    closed: bool,
}

/// Holds the reply until the job or its deadline takes it.
struct Slot<R>(Mutex<Option<R>>);

/// A reply that is to be given its answer, or gets ETIMEDOUT at its deadline.
pub(super) struct Promise<R: Reply> {
    slot: Arc<Slot<R>>,
    shared: Arc<Shared>,
}

trait Expire: Send + Sync {
    /// Answers ETIMEDOUT unless there was an answer.
    fn expire(&self);
    /// Tells whether there was an answer.
    fn is_answered(&self) -> bool;
}

impl Workers {
    /// Returns a pool without threads, whose callers wait no longer than `deadline`.
    pub(super) fn new(deadline: Duration) -> Self {
        Self::with_threads(MAX_THREADS, deadline)
    }

    /// Returns how long a caller waits at most.
    pub(super) fn deadline(&self) -> Duration {
        self.0.deadline
    }

    fn with_threads(max_threads: usize, deadline: Duration) -> Self {
        Self(Arc::new(Shared {
            max_threads,
            deadline,
            state: Mutex::new(State {
                turns: Turns::new(share(max_threads)),
                deadlines: VecDeque::new(),
                promises: 0,
                threads: 0,
                idle: 0,
                timer: false,
                closed: false,
            }),
            work: Condvar::new(),
            deadlines: Condvar::new(),
        }))
    }

    /// Has a thread do `work` for a user and `reply` get its answer. A full queue answers EAGAIN at
    /// once.
    pub(super) fn submit<R: Reply>(
        &self,
        uid: u32,
        reply: R,
        work: impl FnOnce() -> Result<R::Answer> + Send + 'static,
    ) {
        let slot = Arc::new(Slot(Mutex::new(Some(reply))));
        let job = {
            let slot = slot.clone();
            move || {
                if slot.is_answered() {
                    return;
                }
                let answer = catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(FsError::Fault));
                slot.answer(answer);
            }
        };
        let mut state = self.0.state.lock();
        if !self.0.staff(&mut state) || !state.turns.push(uid, Box::new(job)) {
            drop(state);
            slot.answer(Err(FsError::Busy));
            return;
        }
        state.expect(&slot, self.0.deadline);
        self.0.work.notify_one();
    }

    /// Takes a reply that somebody outside of the pool will give the answer to. `None`, and EAGAIN
    /// at once, when too many wait already.
    pub(super) fn promise<R: Reply>(&self, reply: R) -> Option<Promise<R>> {
        let slot = Arc::new(Slot(Mutex::new(Some(reply))));
        let mut state = self.0.state.lock();
        if state.promises >= MAX_PROMISES || !self.0.watch(&mut state) {
            drop(state);
            slot.answer(Err(FsError::Busy));
            return None;
        }
        state.promises += 1;
        state.expect(&slot, self.0.deadline);
        Some(Promise { slot, shared: Arc::clone(&self.0) })
    }

    /// Ends the wait of all jobs whose deadline is not after `now`.
    #[cfg(test)]
    fn expire(&self, now: Instant) {
        self.0.expire(now);
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.0.state.lock().closed = true;
        self.0.work.notify_all();
        self.0.deadlines.notify_all();
    }
}

impl State {
    /// Takes note of until when a reply must have its answer.
    fn expect<R: Reply>(&mut self, slot: &Arc<Slot<R>>, deadline: Duration) {
        while self.deadlines.front().is_some_and(|(_, slot)| slot.is_answered()) {
            self.deadlines.pop_front();
        }
        self.deadlines.push_back((Instant::now() + deadline, Arc::clone(slot) as _));
    }
}

impl<R: Reply> Promise<R> {
    /// Tells whether the deadline has given the answer.
    pub(super) fn is_late(&self) -> bool {
        self.slot.is_answered()
    }

    /// Gives the answer, unless the deadline has.
    pub(super) fn keep(self, answer: Result<R::Answer>) {
        self.slot.answer(answer);
    }
}

/// Whoever was promised to may be promised on.
impl<R: Reply> Reply for Promise<R> {
    type Answer = R::Answer;

    fn send(self, answer: Result<R::Answer>) {
        self.keep(answer);
    }
}

impl<R: Reply> Drop for Promise<R> {
    /// Nobody is left without an answer.
    fn drop(&mut self) {
        self.slot.answer(Err(FsError::Fault));
        self.shared.state.lock().promises -= 1;
    }
}

impl Shared {
    /// Makes sure that deadlines are kept. Returns whether they are.
    fn watch(self: &Arc<Self>, state: &mut State) -> bool {
        if !state.timer {
            let shared = self.clone();
            state.timer = spawn("deadlines", move || shared.keep_time());
        }
        state.timer
    }

    /// Makes sure that somebody will take a job. Returns whether anybody does.
    fn staff(self: &Arc<Self>, state: &mut State) -> bool {
        let watched = self.watch(state);
        if state.idle <= state.turns.waiting() && state.threads < self.max_threads {
            let shared = self.clone();
            state.threads += usize::from(spawn("worker", move || shared.work()));
        }
        watched && state.threads > 0
    }

    fn work(&self) {
        let mut state = self.state.lock();
        loop {
            if let Some((uid, job)) = state.turns.next() {
                drop(state);
                job();
                state = self.state.lock();
                state.turns.done(uid);
                continue;
            }
            if state.closed {
                break;
            }
            state.idle += 1;
            let timed_out = self.work.wait_for(&mut state, IDLE).timed_out();
            state.idle -= 1;
            if timed_out && state.turns.ready() == 0 {
                break;
            }
        }
        state.threads -= 1;
    }

    fn keep_time(&self) {
        let mut state = self.state.lock();
        while !state.closed {
            while state.deadlines.front().is_some_and(|(_, slot)| slot.is_answered()) {
                state.deadlines.pop_front();
            }
            // Jobs have the same time, so none added meanwhile is due before the first one.
            let next =
                state.deadlines.front().map_or_else(|| Instant::now() + self.deadline, |f| f.0);
            self.deadlines.wait_until(&mut state, next);
            parking_lot::MutexGuard::unlocked(&mut state, || self.expire(Instant::now()));
        }
    }

    fn expire(&self, now: Instant) {
        let mut state = self.state.lock();
        let due = state.deadlines.iter().take_while(|(deadline, _)| *deadline <= now).count();
        let due: Vec<_> = state.deadlines.drain(..due).collect();
        drop(state);
        due.into_iter().for_each(|(_, slot)| slot.expire());
    }
}

impl<R: Reply> Slot<R> {
    fn answer(&self, answer: Result<R::Answer>) {
        let reply = self.0.lock().take();
        if let Some(reply) = reply {
            reply.send(answer);
        }
    }
}

impl<R: Reply> Expire for Slot<R> {
    fn expire(&self) {
        self.answer(Err(FsError::TimedOut));
    }

    fn is_answered(&self) -> bool {
        self.0.lock().is_none()
    }
}

/// Returns how many threads may do the jobs of one user: the others' must not wait for a disk or a lock
/// that one user's jobs wait for.
fn share(threads: usize) -> usize {
    (threads * 3 / 4).max(1)
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> bool {
    thread::Builder::new().name(name.into()).stack_size(STACK_BYTES).spawn(body).is_ok()
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (threads, queued) = (self.threads, self.turns.waiting());
        f.debug_struct("State").field("threads", &threads).field("queued", &queued).finish()
    }
}

#[cfg(test)]
mod tests {
    const DEADLINE: Duration = Duration::from_secs(5);

    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    struct Answers(Sender<Result<u32>>);

    impl Reply for Answers {
        type Answer = u32;

        fn send(self, answer: Result<u32>) {
            self.0.send(answer).unwrap();
        }
    }

    fn answers() -> (Answers, Receiver<Result<u32>>) {
        let (sender, receiver) = channel();
        (Answers(sender), receiver)
    }

    fn later() -> Instant {
        Instant::now() + DEADLINE * 2
    }

    #[test]
    fn a_job_is_answered_with_what_it_returns_and_a_panic_with_a_fault() {
        let workers = Workers::new(DEADLINE);
        let (reply, answer) = answers();
        workers.submit(1, reply, || Ok(7));
        assert!(matches!(answer.recv().unwrap(), Ok(7)));
        let (reply, answer) = answers();
        workers.submit(1, reply, || panic!("expected by the test"));
        assert!(matches!(answer.recv().unwrap(), Err(FsError::Fault)));
    }

    #[test]
    fn a_late_job_is_answered_in_time_and_its_own_answer_is_dropped() {
        let workers = Workers::new(DEADLINE);
        let (reply, answer) = answers();
        let (release, blocked) = channel::<()>();
        let (begun, begin) = channel();
        let (ended, end) = channel();
        workers.submit(1, reply, move || {
            begun.send(()).unwrap();
            blocked.recv().unwrap();
            ended.send(()).unwrap();
            Ok(1)
        });
        begin.recv().unwrap();
        workers.expire(later());
        assert!(matches!(answer.recv().unwrap(), Err(FsError::TimedOut)));
        release.send(()).unwrap();
        end.recv().unwrap();
        assert!(answer.recv().is_err(), "a second answer was sent");
    }

    #[test]
    fn a_job_that_has_not_begun_by_its_deadline_never_does() {
        let workers = Workers::with_threads(1, DEADLINE);
        let (first, _first_answer) = answers();
        let (release, blocked) = channel::<()>();
        let (begin, begun) = channel();
        workers.submit(1, first, move || {
            begin.send(()).unwrap();
            blocked.recv().map(|()| 1).map_err(|_| FsError::Fault)
        });
        // Otherwise the thread might pass over it and take the next, while both expire one after the other.
        begun.recv().unwrap();
        let (second, late) = answers();
        workers.submit(1, second, || panic!("began after its deadline"));
        workers.expire(later());
        assert!(matches!(late.recv().unwrap(), Err(FsError::TimedOut)));
        release.send(()).unwrap();
        let (third, answer) = answers();
        workers.submit(1, third, || Ok(3));
        assert!(matches!(answer.recv().unwrap(), Ok(3)));
    }

    #[test]
    fn a_promise_is_answered_once_by_who_keeps_it_or_by_its_deadline() {
        let workers = Workers::new(DEADLINE);
        let (reply, answer) = answers();
        workers.promise(reply).unwrap().keep(Ok(3));
        assert!(matches!(answer.recv().unwrap(), Ok(3)));
        let (reply, answer) = answers();
        let promise = workers.promise(reply).unwrap();
        workers.expire(later());
        assert!(matches!(answer.recv().unwrap(), Err(FsError::TimedOut)));
        promise.keep(Ok(3));
        assert!(answer.recv().is_err(), "a second answer was sent");
    }

    #[test]
    fn a_promise_that_nobody_keeps_ends_in_a_fault_and_too_many_are_refused() {
        let workers = Workers::new(DEADLINE);
        let (reply, answer) = answers();
        drop(workers.promise(reply));
        assert!(matches!(answer.recv().unwrap(), Err(FsError::Fault)));
        let promise = || {
            let (reply, answer) = answers();
            (workers.promise(reply), answer)
        };
        let kept: Vec<_> = (0..MAX_PROMISES).map(|_| promise()).collect();
        assert!(kept.iter().all(|(promise, _)| promise.is_some()));
        let (refused, answer) = promise();
        assert!(refused.is_none() && matches!(answer.recv().unwrap(), Err(FsError::Busy)));
    }

    #[test]
    fn a_full_queue_is_answered_at_once_and_is_one_users_alone() {
        let workers = Workers::with_threads(1, DEADLINE);
        let (first, _first_answer) = answers();
        let (release, blocked) = channel::<()>();
        let (begun, begin) = channel();
        workers.submit(1, first, move || {
            begun.send(()).unwrap();
            blocked.recv().map(|()| 1).map_err(|_| FsError::Fault)
        });
        begin.recv().unwrap();
        let mut waiting = Vec::new();
        loop {
            let (reply, answer) = answers();
            workers.submit(1, reply, || Ok(2));
            if let Ok(refused) = answer.try_recv() {
                assert!(matches!(refused, Err(FsError::Busy)));
                break;
            }
            waiting.push(answer);
        }
        let (reply, other) = answers();
        workers.submit(2, reply, || Ok(3));
        release.send(()).unwrap();
        assert!(matches!(other.recv().unwrap(), Ok(3)));
        assert!(waiting.iter().all(|answer| matches!(answer.recv().unwrap(), Ok(2))));
    }
}
