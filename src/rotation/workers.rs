//! The threads that rotations run on: few, since each mostly waits for its target.
//!
//! What a person asked for runs at once. What the schedule begins has time: its threads rest between two
//! rotations, so that readers of the mount do not feel ten thousand that are due at once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How threads take their work.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pace {
    /// One rotation after another.
    Prompt,
    /// With rests many times as long as the work was.
    Restful,
}

impl Pace {
    /// Returns how many threads run at the same time, at most.
    fn threads(self) -> usize {
        match self {
            Self::Prompt => 8,
            Self::Restful => 2,
        }
    }
}

/// How many times as long as the work a rest is: of a hundred reads at most one is to notice.
const REST: u32 = 130;

/// The longest rest: who waits for a target has used little.
const LONGEST_REST: Duration = Duration::from_millis(100);

type Job = Box<dyn FnOnce() + Send>;

/// A queue with threads behind it, which come as they are needed and go when there is nothing to do.
#[derive(Clone)]
pub(super) struct Workers {
    shared: Arc<Shared>,
}

struct Shared {
    queue: Mutex<Queue>,
    pace: Pace,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    threads: usize,
    stopped: bool,
}

impl Workers {
    pub(super) fn new(pace: Pace) -> Self {
        Self { shared: Arc::new(Shared { queue: Mutex::default(), pace }) }
    }

    /// Queues a job. Errors: there is no thread to run it, or the end has come.
    pub(super) fn submit(&self, job: Job) -> std::io::Result<()> {
        let mut queue = self.shared.queue.lock();
        if queue.stopped {
            return Err(std::io::Error::other("the daemon ends"));
        }
        queue.jobs.push_back(job);
        if queue.threads < self.shared.pace.threads() {
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
        let begun = Instant::now();
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(job)).is_err() {
            tracing::error!("a rotation panicked; it is taken up again");
        }
        if matches!(shared.pace, Pace::Restful) {
            thread::sleep((begun.elapsed() * REST).min(LONGEST_REST));
        }
    }
}
