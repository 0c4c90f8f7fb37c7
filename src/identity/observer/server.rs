//! The observer's own loop: a question, an answer, until the other end is closed.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::thread;

use parking_lot::Mutex;

use crate::system::{Channel, keep_only_ptrace, procfs};

use super::digest::Digests;
use super::{Digest, Reply, Request, Seen};

/// Users whose programs may be hashed at the same time, each by a thread of its own: a file on a
/// hostile filesystem may keep a thread for ever, and only that user must suffer from it.
const MAX_USERS: usize = 32;
/// Questions that wait for one user's thread.
const MAX_QUEUED: usize = 64;

/// Answers questions until the other end is closed. First gives up whatever privilege it has but
/// CAP_SYS_PTRACE. Errors: those of giving up, or a message that is no question.
pub fn serve(channel: Channel) -> io::Result<()> {
    keep_only_ptrace()?;
    let shared =
        Arc::new(Shared { channel, digests: Digests::default(), queues: Mutex::default() });
    while let Some(request) = shared.channel.receive::<Request>()? {
        match request.digest {
            Digest::Unwanted => shared.reply(request, None)?,
            Digest::Wanted => match shared.digests.known(request.tid) {
                Some(digest) => shared.reply(request, Some(digest))?,
                None => enqueue(&shared, request)?,
            },
        }
    }
    Ok(())
}

struct Shared {
    channel: Channel,
    digests: Digests,
    /// What is left to hash, by uid; a user with a queue, even an empty one, has a thread.
    queues: Mutex<HashMap<u32, VecDeque<Request>>>,
}

impl Shared {
    fn reply(&self, request: Request, sha256: Option<[u8; 32]>) -> io::Result<()> {
        let path = procfs::exe(request.tid).ok();
        let exe = path.map(|path| Seen { path: path.as_os_str().as_bytes().to_vec(), sha256 });
        self.channel.send(&Reply { serial: request.serial, exe })
    }

    fn work(&self, uid: u32) {
        loop {
            let mut queues = self.queues.lock();
            let Some(request) = queues.get_mut(&uid).and_then(VecDeque::pop_front) else {
                queues.remove(&uid);
                return;
            };
            drop(queues);
            let digest =
                self.digests.known(request.tid).or_else(|| self.digests.compute(request.tid));
            // The main thread sees for itself when the other end is closed.
            drop(self.reply(request, digest));
        }
    }
}

/// Leaves the hashing to the user's thread, or answers without a digest if there is too much.
fn enqueue(shared: &Arc<Shared>, request: Request) -> io::Result<()> {
    let mut queues = shared.queues.lock();
    let users = queues.len();
    match queues.get_mut(&request.uid) {
        Some(queue) if queue.len() < MAX_QUEUED => queue.push_back(request),
        None if users < MAX_USERS => {
            let worker = shared.clone();
            let name = format!("digest-{}", request.uid);
            thread::Builder::new().name(name).spawn(move || worker.work(request.uid))?;
            queues.insert(request.uid, VecDeque::from([request]));
        }
        Some(_) | None => {
            drop(queues);
            return shared.reply(request, None);
        }
    }
    Ok(())
}
