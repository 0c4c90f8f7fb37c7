//! The server's end: asks with a deadline, and gets another observer when one has died.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::model::{Exe, Uid};
use crate::system::Channel;

use super::{Answer, Digest, Question, Reply, Request, Task};

/// How long a caller may wait for the observer; after that `exe` is not known.
const DEADLINE: Duration = Duration::from_millis(200);
/// How long a touch may take; it waits for the server that asks for it.
const TOUCH_DEADLINE: Duration = Duration::from_secs(60);
/// A program that dies at once must not be started over and over.
const RESPAWN_INTERVAL: Duration = Duration::from_secs(1);

/// A running observer. Many threads may ask at the same time; one slow answer holds up none.
#[derive(Debug)]
pub struct Observer {
    source: Source,
    state: Mutex<State>,
    /// The observer's process id; 0 once it is gone, and until it is known. A child's is nobody else's
    /// until it is reaped. Of another's child we see the end at once, and numbers are given out in turn.
    pid: Arc<AtomicU32>,
}

/// Where an observer comes from.
enum Source {
    /// Whoever is given an observer's end of a channel, and starts one with it.
    Parent(Start),
    /// A program, which is started.
    Program(PathBuf),
    /// A socket: whoever listens there starts one for each connection.
    Socket(PathBuf),
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Parent(_) => "Parent",
            Self::Program(_) => "Program",
            Self::Socket(_) => "Socket",
        })
    }
}

/// Starts an observer elsewhere, with its end of a channel.
type Start = Box<dyn Fn(Channel) -> io::Result<()> + Send + Sync>;

/// Who is to see an observer's end.
#[derive(Debug)]
enum Parent {
    Other,
    Us(Child),
}

#[derive(Debug)]
struct State {
    connection: Arc<Connection>,
    started: Instant,
    next_serial: u64,
}

#[derive(Debug)]
struct Connection {
    channel: Channel,
    /// Whose child the process is, until a thread waits for its replies.
    parent: Mutex<Option<Parent>>,
    /// Who waits for which reply; `None` once the observer has gone.
    waiting: Mutex<Option<HashMap<u64, SyncSender<Answer>>>>,
}

impl Observer {
    /// Starts `program observer`, which must call [`serve`](super::serve) on the channel that it
    /// inherits. No thread is started before the first question.
    pub fn spawn(program: &Path) -> io::Result<Self> {
        Self::of(Source::Program(program.into()))
    }

    /// Connects to a socket at which an observer is started for us, by somebody who may give it more
    /// than we have. No thread is started before the first question.
    pub fn connect(socket: &Path) -> io::Result<Self> {
        Self::of(Source::Socket(socket.into()))
    }

    /// Has somebody else start an observer, who is given its end of the channel. No thread is started before the
    /// first question.
    pub fn of_parent(start: Start) -> io::Result<Self> {
        Self::of(Source::Parent(start))
    }

    fn of(source: Source) -> io::Result<Self> {
        let pid = Arc::default();
        let connection = connect(&source, &pid)?;
        let state = State { connection, started: Instant::now(), next_serial: 0 };
        Ok(Self { source, state: Mutex::new(state), pid })
    }

    /// Returns what the thread runs right now; `None` if that cannot be seen within 200 ms.
    pub fn exe(&self, uid: Uid, tid: u32, digest: Digest) -> Option<Exe> {
        let question = Question { tid, uid: uid.0, digest };
        match self.ask(Task::Look(question), DEADLINE)? {
            Answer::Exe(seen) => seen.map(Exe::from),
            Answer::Process(_) | Answer::Touched(_) => None,
        }
    }

    /// Has a file opened for writing and closed, and waits for it. Errors: what open(2) said; `TimedOut`.
    pub fn touch(&self, path: &Path) -> io::Result<()> {
        if self.pid.load(Ordering::Acquire) == 0
            && let Some(Answer::Process(pid)) = self.ask(Task::Introduce, DEADLINE)
        {
            self.pid.store(pid, Ordering::Release);
        }
        let task = Task::Touch(path.as_os_str().as_bytes().to_vec());
        match self.ask(task, TOUCH_DEADLINE) {
            Some(Answer::Touched(0)) => Ok(()),
            Some(Answer::Touched(errno)) => Err(io::Error::from_raw_os_error(errno)),
            Some(Answer::Exe(_) | Answer::Process(_)) | None => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Tells whether a thread is the one of the observer that touches files.
    pub fn is_toucher(&self, tid: u32) -> bool {
        tid != 0 && self.pid.load(Ordering::Acquire) == tid
    }

    fn ask(&self, task: Task, patience: Duration) -> Option<Answer> {
        let (connection, serial) = self.connection();
        let (sender, receiver) = sync_channel(1);
        connection.waiting.lock().as_mut()?.insert(serial, sender);
        let answer = match connection.channel.try_send(&Request { serial, task }) {
            Ok(()) => receiver.recv_timeout(patience).ok(),
            Err(_) => None,
        };
        if let Some(waiting) = connection.waiting.lock().as_mut() {
            waiting.remove(&serial);
        }
        answer
    }

    fn connection(&self) -> (Arc<Connection>, u64) {
        let mut state = self.state.lock();
        if let Err(error) = listen(&state.connection, &self.pid) {
            tracing::error!(%error, "nobody hears the observer");
        }
        let is_gone = state.connection.waiting.lock().is_none();
        if is_gone && state.started.elapsed() >= RESPAWN_INTERVAL {
            state.started = Instant::now();
            match connect(&self.source, &self.pid) {
                Ok(connection) => {
                    tracing::warn!("the observer had died and was started again");
                    state.connection = connection;
                    drop(listen(&state.connection, &self.pid));
                }
                Err(error) => tracing::error!(%error, "the observer cannot be started"),
            }
        }
        state.next_serial += 1;
        (state.connection.clone(), state.next_serial)
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        // The observer sees the end of its channel and exits; the thread then reaps it.
        let state = self.state.lock();
        state.connection.channel.close();
        if let Some(Parent::Us(mut child)) = state.connection.parent.lock().take() {
            drop(child.wait());
        }
    }
}

fn connect(source: &Source, pid: &AtomicU32) -> io::Result<Arc<Connection>> {
    let (parent, channel) = match source {
        Source::Program(program) => {
            let (child, channel) = Channel::spawn(program, &["observer"])?;
            pid.store(child.id(), Ordering::Release);
            (Parent::Us(child), channel)
        }
        Source::Parent(start) => {
            let (ours, theirs) = Channel::pair()?;
            start(theirs)?;
            (Parent::Other, ours)
        }
        Source::Socket(path) => (Parent::Other, Channel::connect(path)?),
    };
    Ok(Arc::new(Connection {
        channel,
        parent: Mutex::new(Some(parent)),
        waiting: Mutex::new(Some(HashMap::new())),
    }))
}

/// Makes sure that a thread waits for replies.
fn listen(connection: &Arc<Connection>, pid: &Arc<AtomicU32>) -> io::Result<()> {
    let Some(parent) = connection.parent.lock().take() else { return Ok(()) };
    let (for_replies, pid) = (connection.clone(), pid.clone());
    thread::Builder::new()
        .name("observer-replies".to_owned())
        .spawn(move || distribute(&for_replies, parent, &pid))?;
    Ok(())
}

/// Hands each reply to whoever waits for it, until the observer is gone.
fn distribute(connection: &Connection, parent: Parent, pid: &AtomicU32) {
    while let Ok(Some(Reply { serial, answer })) = connection.channel.receive() {
        let waiter = connection.waiting.lock().as_mut().and_then(|all| all.remove(&serial));
        if let Some(waiter) = waiter {
            // One that has given up in the meantime is no matter.
            drop(waiter.try_send(answer));
        }
    }
    // Before anybody is told, and may start another one in its place.
    pid.store(0, Ordering::Release);
    // Dropping the senders wakes whoever still waits.
    connection.waiting.lock().take();
    connection.channel.close();
    // One that spoke nonsense may still be alive.
    if let Parent::Us(mut child) = parent {
        drop(child.kill());
        drop(child.wait());
    }
}
