//! The one writer's queue and thread: it takes the changes that wait and commits them together.
//!
//! Group commit: while one transaction is being made durable the next changes gather, so a flood of
//! writers shares the disk's syncs.

use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::batch::Batch;
use super::{BrokerError, Inner, Result};
use crate::store::StoreError;

/// Most changes in one transaction; bounds what a failed commit takes with it.
const MAX_BATCH: usize = 256;

/// How long the writer sleeps at most; then it sees to what is due each second.
const TICK: Duration = Duration::from_secs(1);

/// Whether a change can share a transaction with others.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Company {
    /// It looks at more of the tree than a batch keeps account of.
    Alone,
    Shared,
}

/// The queue in front of the writer's thread.
pub(super) struct Writer {
    queue: Arc<Queue>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

#[derive(Default)]
struct Waiting {
    jobs: Vec<(Company, Box<dyn Job>)>,
    closed: bool,
}

/// A change, with who waits for it.
pub(super) trait Job: Send {
    /// Applies it to the batch. An error that this returns concerns the whole transaction; one of
    /// the change's own is kept for its waiter.
    fn run(&mut self, batch: &mut Batch<'_>) -> std::result::Result<(), StoreError>;
    /// Tells the waiter.
    fn finish(self: Box<Self>, committed: std::result::Result<(), StoreError>);
}

struct Change<T, F, D> {
    apply: Option<F>,
    outcome: Option<Result<T>>,
    done: D,
}

impl<T, F, D> Job for Change<T, F, D>
where
    T: Send,
    F: FnOnce(&mut Batch<'_>) -> Result<T> + Send,
    D: FnOnce(Result<T>) + Send,
{
    fn run(&mut self, batch: &mut Batch<'_>) -> std::result::Result<(), StoreError> {
        let Some(apply) = self.apply.take() else { return Ok(()) };
        let before = batch.puts();
        match apply(batch) {
            Err(BrokerError::Store(err)) => Err(err),
            // The transaction holds half of a change: nobody's part of it can be kept.
            Err(err) if batch.puts() != before => {
                Err(StoreError::Io(std::io::Error::other(err.to_string())))
            }
            outcome => {
                self.outcome = Some(outcome);
                Ok(())
            }
        }
    }

    fn finish(self: Box<Self>, committed: std::result::Result<(), StoreError>) {
        let outcome = match (committed, self.outcome) {
            // A refusal stands, whatever became of the others' changes.
            (_, Some(Err(err))) => Err(err),
            (Ok(()), Some(Ok(value))) => Ok(value),
            (Err(err), _) => Err(err.into()),
            (Ok(()), None) => Err(StoreError::Broken.into()),
        };
        (self.done)(outcome);
    }
}

impl Writer {
    pub(super) fn start(inner: Weak<Inner>) -> std::io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let thread = {
            let queue = Arc::clone(&queue);
            std::thread::Builder::new()
                .name("secretfs-commit".into())
                .spawn(move || run_writer(&queue, &inner))?
        };
        Ok(Self { queue, thread: Mutex::new(Some(thread)) })
    }

    /// Queues a change and waits until it is durable or refused.
    pub(super) fn submit<T, F>(&self, company: Company, apply: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Batch<'_>) -> Result<T> + Send + 'static,
    {
        let (done, outcome) = sync_channel(1);
        // A waiter that is gone has passed its deadline; the change itself is on record.
        self.submit_then(company, apply, move |result| drop(done.send(result)));
        outcome.recv().unwrap_or(Err(StoreError::Broken.into()))
    }

    /// Queues a change; the writer's thread calls `done`, which must not block, once it is durable
    /// or refused.
    pub(super) fn submit_then<T, F, D>(&self, company: Company, apply: F, done: D)
    where
        T: Send + 'static,
        F: FnOnce(&mut Batch<'_>) -> Result<T> + Send + 'static,
        D: FnOnce(Result<T>) + Send + 'static,
    {
        let mut waiting = self.queue.waiting.lock();
        if waiting.closed {
            drop(waiting);
            return done(Err(StoreError::Broken.into()));
        }
        let job = Box::new(Change { apply: Some(apply), outcome: None, done });
        waiting.jobs.push((company, job));
        drop(waiting);
        self.queue.arrived.notify_one();
    }

    /// Counts the changes that wait for the next transaction.
    #[cfg(test)]
    pub(super) fn queued(&self) -> usize {
        self.queue.waiting.lock().jobs.len()
    }

    /// Commits what waits and ends the thread.
    pub(super) fn close(&self) {
        self.queue.waiting.lock().closed = true;
        self.queue.arrived.notify_all();
        let Some(thread) = self.thread.lock().take() else { return };
        // The last holder of the broker may be the writer itself, which cannot wait for its own end.
        if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
            tracing::error!("the writer's thread panicked");
        }
    }
}

fn run_writer(queue: &Queue, inner: &Weak<Inner>) {
    loop {
        let (jobs, closed) = {
            let mut waiting = queue.waiting.lock();
            if waiting.jobs.is_empty() && !waiting.closed {
                queue.arrived.wait_for(&mut waiting, TICK);
            }
            (next_batch(&mut waiting.jobs), waiting.closed)
        };
        let Some(inner) = inner.upgrade() else {
            jobs.into_iter().for_each(|job| job.finish(Err(StoreError::Broken)));
            return;
        };
        if jobs.is_empty() {
            if closed {
                return;
            }
            inner.gate.summarise_refusals();
            continue;
        }
        inner.commit(jobs);
        super::keys::begin_epoch_if_worn(&inner);
    }
}

/// Takes the changes that go into one transaction, in the order in which they came.
fn next_batch(jobs: &mut Vec<(Company, Box<dyn Job>)>) -> Vec<Box<dyn Job>> {
    let shared = jobs.iter().take(MAX_BATCH).take_while(|(company, _)| *company == Company::Shared);
    let count = shared.count().max(1).min(jobs.len());
    jobs.drain(..count).map(|(_, job)| job).collect()
}
