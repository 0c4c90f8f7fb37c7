//! The server's end: gives orders, waits for answers, and gets another effector when one has died.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::message::{receive_answer, send_key, send_order};
use super::{CarryOut, EffectError, KeyOrder, Order, Report, Search, Searching, Values};
use crate::system::{Channel, PidFd, SecretBytes};

/// How much longer than its time an order may take to say so. An effector that does not even do that hangs.
const GRACE: Duration = Duration::from_secs(5);
/// A program that dies at once must not be started over and over.
const RESPAWN_INTERVAL: Duration = Duration::from_secs(1);

/// An effector, which runs from the first order on. Many threads may give orders at the same time.
#[derive(Debug)]
pub struct Effector {
    source: Source,
    /// `None` before the first order, and where none could be started.
    running: Mutex<Option<Running>>,
}

/// Where an effector comes from.
enum Source {
    /// Somebody who starts one with the other end of a channel.
    Parent(Box<dyn Fn(Channel) -> io::Result<()> + Send + Sync>),
    /// A program, which is started.
    Program(PathBuf, Vec<OsString>),
    /// A socket: whoever listens there starts one for each connection.
    Socket(PathBuf),
}

#[derive(Debug)]
struct Running {
    channel: Channel,
    child: Option<Child>,
    started: Instant,
}

impl Effector {
    /// Starts `program` with `arguments` for the first order. It must call [`serve`](super::serve) on the
    /// channel that it inherits.
    pub fn of_program(program: &Path, arguments: &[&OsStr]) -> Self {
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        Self::of(Source::Program(program.into(), arguments))
    }

    /// Connects to a socket for the first order. An effector is started there for us, by somebody who may
    /// give it more than we have.
    pub fn at_socket(socket: &Path) -> Self {
        Self::of(Source::Socket(socket.into()))
    }

    /// Has somebody else start an effector for the first order, who is given its end of the channel.
    pub fn of_parent(start: Box<dyn Fn(Channel) -> io::Result<()> + Send + Sync>) -> Self {
        Self::of(Source::Parent(start))
    }

    /// Orders a search for `caller`, which has to wait until the report is there.
    pub fn search(&self, search: &Search, caller: &PidFd) -> io::Result<Searching> {
        let (ours, theirs) = Channel::pair()?;
        self.hand_over(&theirs)?;
        drop(theirs);
        Searching::order(ours, search, caller)
    }

    /// Has a service seal a value, or open what is in the order, and returns what it gives.
    pub fn key(
        &self,
        order: &KeyOrder,
        value: Option<&SecretBytes>,
    ) -> Result<SecretBytes, EffectError> {
        let asked = self.exchange(order.time, |channel| send_key(channel, order, value));
        let report = asked.unwrap_or_else(|error| Err(unanswered(&error)))?;
        let nothing = || EffectError::Gone("it answered without a value".to_owned());
        report.value.ok_or_else(nothing)
    }

    fn of(source: Source) -> Self {
        Self { source, running: Mutex::default() }
    }

    /// Hands the end of a new channel to the effector, or to the next one if it has died. Returns when that
    /// one was started.
    fn hand_over(&self, end: &Channel) -> io::Result<Instant> {
        let mut running = self.running.lock();
        if let Some(mut present) = running.take() {
            if present.channel.send_descriptors(&[end.as_fd()]).is_ok() {
                let started = present.started;
                *running = Some(present);
                return Ok(started);
            }
            tracing::warn!("the effector has died");
            present.end();
            std::thread::sleep(RESPAWN_INTERVAL.saturating_sub(present.started.elapsed()));
        }
        let next = running.insert(self.source.start()?);
        next.channel.send_descriptors(&[end.as_fd()])?;
        Ok(next.started)
    }

    /// Ends an effector that hangs, with what it has in hand: who knows when it would go on with it.
    fn end_hanging(&self, started: Instant) {
        let mut running = self.running.lock();
        if running.as_ref().is_some_and(|present| present.started == started) {
            tracing::error!("the effector hangs and is ended");
            running.take().iter_mut().for_each(Running::end);
        }
    }

    /// Gives an order and waits. Errors: `TimedOut`, or the effector is gone.
    fn exchange(
        &self,
        time: Duration,
        send: impl FnOnce(&Channel) -> io::Result<()>,
    ) -> io::Result<Result<Report, EffectError>> {
        let (ours, theirs) = Channel::pair()?;
        let started = self.hand_over(&theirs)?;
        drop(theirs);
        send(&ours)?;
        let deadline = Instant::now() + time + GRACE;
        ours.await_message(deadline).inspect_err(|_| self.end_hanging(started))?;
        let answer = receive_answer(&ours)?;
        answer.ok_or_else(|| io::Error::other("it died before it answered"))
    }
}

impl CarryOut for Effector {
    fn carry_out(&self, order: &Order, values: &Values) -> Result<Report, EffectError> {
        let asked = self.exchange(order.timeout, |channel| send_order(channel, order, values));
        asked.unwrap_or_else(|error| Err(unanswered(&error)))
    }
}

/// Says why there is no answer.
fn unanswered(error: &io::Error) -> EffectError {
    let kind = error.kind();
    if kind == io::ErrorKind::TimedOut {
        EffectError::TimedOut
    } else if kind == io::ErrorKind::InvalidInput {
        EffectError::Invalid("the order is longer than 8 KiB".to_owned())
    } else {
        EffectError::Gone(error.to_string())
    }
}

impl Drop for Effector {
    fn drop(&mut self) {
        self.running.lock().iter_mut().for_each(Running::end);
    }
}

impl Source {
    fn start(&self) -> io::Result<Running> {
        let started = Instant::now();
        let (channel, child) = match self {
            Self::Parent(start) => {
                let (ours, theirs) = Channel::pair()?;
                start(theirs)?;
                (ours, None)
            }
            Self::Socket(path) => (Channel::connect(path)?, None),
            Self::Program(program, arguments) => {
                let mut command = Command::new(program);
                command.args(arguments).env_clear().current_dir("/");
                command.stdin(Stdio::null()).stdout(Stdio::null());
                let (child, channel) = Channel::spawn_command(command)?;
                (channel, Some(child))
            }
        };
        Ok(Running { channel, child, started })
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Parent(_) => f.write_str("Parent(..)"),
            Self::Program(program, _) => f.debug_tuple("Program").field(program).finish(),
            Self::Socket(path) => f.debug_tuple("Socket").field(path).finish(),
        }
    }
}

impl Running {
    /// Ends it with all orders in its hands.
    fn end(&mut self) {
        self.channel.close();
        if let Some(child) = &mut self.child {
            // It would end by itself, unless it was stopped.
            drop(child.kill());
            drop(child.wait());
        }
    }
}
