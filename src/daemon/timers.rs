//! Work that comes round: pruning the audit log, purging the trash.
//!
//! One thread does all of it, one task after another, so that two never compete for the store. When
//! is decided by [`Schedule`], which is told the time and so needs no waiting in tests.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A task and how often it is due.
pub(super) struct Task {
    pub name: &'static str,
    pub every: Duration,
    pub run: Box<dyn FnMut() -> Result<(), String> + Send>,
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Task({}, {:?})", self.name, self.every)
    }
}

/// The running thread; dropping it stops the thread after the task at hand.
#[derive(Debug)]
pub(super) struct Timers {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// After the start at most, so that a daemon that never runs for a day does its duty too, and the start
/// itself is not slowed down.
const FIRST_AFTER: Duration = Duration::from_secs(60);

impl Timers {
    /// Starts the thread.
    pub(super) fn start(mut tasks: Vec<Task>) -> std::io::Result<Self> {
        let (stop, stopped) = mpsc::channel::<()>();
        let thread = thread::Builder::new().name("timers".into()).spawn(move || {
            let started = Instant::now();
            let mut schedule = Schedule::new(tasks.iter().map(|task| task.every).collect());
            loop {
                let wait = schedule.next_due().saturating_sub(started.elapsed());
                if stopped.recv_timeout(wait) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
                for index in schedule.take_due(started.elapsed()) {
                    if let Some(task) = tasks.get_mut(index) {
                        run(task);
                    }
                }
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Timers {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A task that panicked has been reported by the panic hook.
            drop(thread.join());
        }
    }
}

fn run(task: &mut Task) {
    match (task.run)() {
        Ok(()) => tracing::debug!(task = task.name, "done"),
        Err(error) => tracing::warn!(task = task.name, %error, "failed, and is tried again later"),
    }
}

/// When each task is due, as time since the start.
struct Schedule {
    every: Vec<Duration>,
    due: Vec<Duration>,
}

impl Schedule {
    fn new(every: Vec<Duration>) -> Self {
        Self { due: every.iter().map(|every| FIRST_AFTER.min(*every)).collect(), every }
    }

    fn next_due(&self) -> Duration {
        self.due.iter().copied().min().unwrap_or(Duration::MAX)
    }

    /// Returns which tasks are due and plans their next turn from `now`: what a suspended machine
    /// has missed is done once.
    fn take_due(&mut self, now: Duration) -> Vec<usize> {
        let mut taken = Vec::new();
        for (index, (due, every)) in self.due.iter_mut().zip(&self.every).enumerate() {
            if *due <= now {
                *due = now.saturating_add(*every);
                taken.push(index);
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn tasks_come_soon_after_the_start_and_then_each_in_its_own_time() {
        let mut schedule = Schedule::new(vec![HOUR, HOUR * 24]);
        assert!(schedule.take_due(Duration::ZERO).is_empty());
        assert_eq!(schedule.take_due(FIRST_AFTER), [0, 1]);
        assert_eq!(schedule.next_due(), FIRST_AFTER + HOUR);
        assert_eq!(schedule.take_due(FIRST_AFTER + HOUR), [0]);
    }

    #[test]
    fn what_was_missed_while_the_machine_slept_is_done_once() {
        let mut schedule = Schedule::new(vec![HOUR]);
        assert_eq!(schedule.take_due(HOUR * 100), [0]);
        assert!(schedule.take_due(HOUR * 100).is_empty());
    }

    #[test]
    fn the_thread_stops_at_once_when_it_is_dropped() {
        let never = Task { name: "never", every: HOUR, run: Box::new(|| Err("ran".into())) };
        drop(Timers::start(vec![never]).unwrap());
        drop(Timers::start(Vec::new()).unwrap());
    }
}
