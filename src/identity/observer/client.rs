//! The server's end: asks with a deadline, and starts the observer anew when it has died.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::model::{Exe, Uid};
use crate::system::Channel;

use super::{Digest, Reply, Request, Seen};

/// How long a caller may wait for the observer; after that `exe` is not known.
const DEADLINE: Duration = Duration::from_millis(200);
/// A program that dies at once must not be started over and over.
const RESPAWN_INTERVAL: Duration = Duration::from_secs(1);

/// A running observer. Many threads may ask at the same time; one slow answer holds up none.
#[derive(Debug)]
pub struct Observer {
    program: PathBuf,
    state: Mutex<State>,
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
    /// Who waits for which reply; `None` once the observer has gone.
    waiting: Mutex<Option<HashMap<u64, SyncSender<Option<Seen>>>>>,
}

impl Observer {
    /// Starts `program observer`, which must call [`serve`](super::serve) on the channel that it
    /// inherits.
    pub fn spawn(program: &Path) -> io::Result<Self> {
        let state =
            State { connection: connect(program)?, started: Instant::now(), next_serial: 0 };
        Ok(Self { program: program.to_owned(), state: Mutex::new(state) })
    }

    /// Returns what the thread runs right now; `None` if that cannot be seen within 200 ms.
    pub fn exe(&self, uid: Uid, tid: u32, digest: Digest) -> Option<Exe> {
        let (connection, serial) = self.connection();
        let (sender, receiver) = sync_channel(1);
        connection.waiting.lock().as_mut()?.insert(serial, sender);
        let request = Request { serial, tid, uid: uid.0, digest };
        let seen = match connection.channel.try_send(&request) {
            Ok(()) => receiver.recv_timeout(DEADLINE).ok().flatten(),
            Err(_) => None,
        };
        if let Some(waiting) = connection.waiting.lock().as_mut() {
            waiting.remove(&serial);
        }
        seen.map(Exe::from)
    }

    fn connection(&self) -> (Arc<Connection>, u64) {
        let mut state = self.state.lock();
        let is_gone = state.connection.waiting.lock().is_none();
        if is_gone && state.started.elapsed() >= RESPAWN_INTERVAL {
            state.started = Instant::now();
            match connect(&self.program) {
                Ok(connection) => {
                    tracing::warn!("the observer had died and was started again");
                    state.connection = connection;
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
        self.state.lock().connection.channel.close();
    }
}

fn connect(program: &Path) -> io::Result<Arc<Connection>> {
    let (child, channel) = Channel::spawn(program, &["observer"])?;
    let connection = Arc::new(Connection { channel, waiting: Mutex::new(Some(HashMap::new())) });
    let for_replies = connection.clone();
    thread::Builder::new()
        .name("observer-replies".to_owned())
        .spawn(move || distribute(&for_replies, child))?;
    Ok(connection)
}

/// Hands each reply to whoever waits for it, until the observer is gone.
fn distribute(connection: &Connection, mut child: Child) {
    while let Ok(Some(Reply { serial, exe })) = connection.channel.receive() {
        let waiter = connection.waiting.lock().as_mut().and_then(|all| all.remove(&serial));
        if let Some(waiter) = waiter {
            // One that has given up in the meantime is no matter.
            drop(waiter.try_send(exe));
        }
    }
    // Dropping the senders wakes whoever still waits.
    connection.waiting.lock().take();
    connection.channel.close();
    // One that spoke nonsense may still be alive.
    drop(child.kill());
    drop(child.wait());
}
