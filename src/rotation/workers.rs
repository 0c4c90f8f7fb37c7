//! The threads that rotations run on: few, since each mostly waits for its target, and readers of the
//! mount are not to feel ten thousand that are due at once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;

use parking_lot::Mutex;

/// Threads that run at the same time, at most.
const THREADS: usize = 8;

type Job = Box<dyn FnOnce() + Send>;

/// A queue with threads behind it, which come as they are needed and go when there is nothing to do.
#[derive(Clone, Default)]
pub(super) struct Workers {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    threads: usize,
    stopped: bool,
}

impl Workers {
    /// Queues a job. Errors: there is no thread to run it, or the end has come.
    pub(super) fn submit(&self, job: Job) -> std::io::Result<()> {
        let mut queue = self.shared.queue.lock();
        if queue.stopped {
            return Err(std::io::Error::other("the daemon ends"));
        }
        queue.jobs.push_back(job);
        if queue.threads < THREADS {
            queue.threads += 1;
            let shared = Arc::clone(&self.shared);
            let begun = thread::Builder::new().name("rotation".into()).spawn(move || work(&shared));
            if let Err(error) = begun {
                queue.threads -= 1;
                if queue.threads == 0 {
                    queue.jobs.pop_back();
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Drops what has not begun. What has begun goes on; a start after it takes up what it leaves.
    pub(super) fn stop(&self) {
        let mut queue = self.shared.queue.lock();
        queue.stopped = true;
        queue.jobs.clear();
    }
}

fn work(shared: &Shared) {
    loop {
        let job = {
            let mut queue = shared.queue.lock();
            match queue.jobs.pop_front() {
                Some(job) => job,
                None => {
                    queue.threads -= 1;
                    return;
                }
            }
        };
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(job)).is_err() {
            tracing::error!("a rotation panicked; it is taken up again");
        }
    }
}
