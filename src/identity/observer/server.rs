//! The observer's own loop: a question, an answer, until the other end is closed.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use parking_lot::Mutex;

use crate::system::{Channel, keep_only_ptrace, procfs};

use super::digest::Digests;
use super::{Answer, Digest, Question, Reply, Request, Seen, Task};

/// Users whose programs may be hashed at the same time, each by a thread of its own: a file on a
/// hostile filesystem may keep a thread for ever, and only that user must suffer from it.
const MAX_USERS: usize = 32;
/// Questions that wait for one user's thread.
const MAX_QUEUED: usize = 64;

/// Does what is asked until the other end is closed. First gives up whatever privilege it has but
/// CAP_SYS_PTRACE. Errors: those of giving up, or a message that is no request.
///
/// Touches are done by the calling thread, which must be the process's first: its id is the process's,
/// and so nobody else's for as long as the server has not reaped it. Since a touch waits for the
/// server, questions are answered elsewhere.
pub fn serve(channel: Channel) -> io::Result<()> {
    keep_only_ptrace()?;
    let shared =
        Arc::new(Shared { channel, digests: Digests::default(), queues: Mutex::default() });
    let (sender, touches) = self::channel();
    let asked = Arc::clone(&shared);
    let questions = thread::Builder::new()
        .name("questions".to_owned())
        .spawn(move || answer(&asked, &sender))?;
    for (serial, path) in touches {
        let touched = touch(&path).err().map_or(0, |err| err.raw_os_error().unwrap_or(libc::EIO));
        shared.channel.send(&Reply { serial, answer: Answer::Touched(touched) })?;
    }
    questions.join().unwrap_or(Err(io::ErrorKind::Other.into()))
}

/// Answers questions and hands touches on, until the other end is closed.
fn answer(shared: &Arc<Shared>, touches: &Sender<(u64, Vec<u8>)>) -> io::Result<()> {
    while let Some(Request { serial, task }) = shared.channel.receive()? {
        match task {
            Task::Introduce => {
                let answer = Answer::Process(std::process::id());
                shared.channel.send(&Reply { serial, answer })?;
            }
            Task::Look(question @ Question { digest: Digest::Unwanted, .. }) => {
                shared.reply((serial, question), None)?;
            }
            Task::Look(question) => match shared.digests.known(question.tid) {
                Some(digest) => shared.reply((serial, question), Some(digest))?,
                None => enqueue(shared, (serial, question))?,
            },
            Task::Touch(path) => {
                touches.send((serial, path)).map_err(|_| io::ErrorKind::BrokenPipe)?;
            }
        }
    }
    Ok(())
}

/// Opens a file for writing and closes it, which is all that watchers need to be told of it. It is
/// neither made nor changed, whatever stands at that path.
fn touch(path: &[u8]) -> io::Result<()> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let mut options = OpenOptions::new();
    options.write(true).custom_flags(flags);
    options.open(OsStr::from_bytes(path)).map(drop)
}

/// A question with its serial.
type Asked = (u64, Question);

struct Shared {
    channel: Channel,
    digests: Digests,
    /// What is left to hash, by uid; a user with a queue, even an empty one, has a thread.
    queues: Mutex<HashMap<u32, VecDeque<Asked>>>,
}

impl Shared {
    fn reply(&self, (serial, question): Asked, sha256: Option<[u8; 32]>) -> io::Result<()> {
        let path = procfs::exe(question.tid).ok();
        let exe = path.map(|path| Seen { path: path.as_os_str().as_bytes().to_vec(), sha256 });
        self.channel.send(&Reply { serial, answer: Answer::Exe(exe) })
    }

    fn work(&self, uid: u32) {
        loop {
            let mut queues = self.queues.lock();
            let Some(asked) = queues.get_mut(&uid).and_then(VecDeque::pop_front) else {
                queues.remove(&uid);
                return;
            };
            drop(queues);
            let tid = asked.1.tid;
            let digest = self.digests.known(tid).or_else(|| self.digests.compute(tid));
            // The main thread sees for itself when the other end is closed.
            drop(self.reply(asked, digest));
        }
    }
}

/// Leaves the hashing to the user's thread, or answers without a digest if there is too much.
fn enqueue(shared: &Arc<Shared>, asked: Asked) -> io::Result<()> {
    let uid = asked.1.uid;
    let mut queues = shared.queues.lock();
    let users = queues.len();
    match queues.get_mut(&uid) {
        Some(queue) if queue.len() < MAX_QUEUED => queue.push_back(asked),
        None if users < MAX_USERS => {
            let worker = shared.clone();
            let name = format!("digest-{}", uid);
            thread::Builder::new().name(name).spawn(move || worker.work(uid))?;
            queues.insert(uid, VecDeque::from([asked]));
        }
        Some(_) | None => {
            drop(queues);
            return shared.reply(asked, None);
        }
    }
    Ok(())
}
