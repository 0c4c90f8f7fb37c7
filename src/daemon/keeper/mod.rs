//! The keeper: it makes the mount, holds `/dev/fuse`, and sees to it that there is a server.
//!
//! It holds no key (only a descriptor of memory that it never maps), opens no store and reads nothing
//! that a caller has written. A server that dies in any way, or does not say that it is alive, is
//! followed by another, which takes the mount over. The next one is started before it is needed, and waits
//! for its turn. The mount goes with the keeper: the kernel kills the server when its keeper dies.

mod helper;
pub(super) mod message;
mod refusal;
mod server;
mod spare;

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use self::helper::HelperSlot;
use self::message::{FromServer, Launch, ToServer};
use self::refusal::Refusal;
use self::server::{Program, Server};
use self::spare::SpareSlot;
use super::background::Report;
use super::config::{Config, Environment, KeeperMode};
use super::mounting::Mounting;
use super::{DaemonError, compose, logging, supervision, trust};
use crate::fs::{Death, Journal};
use crate::system::{Asked, KeyCell, Signals, harden_process};

/// What a keeper needs.
#[derive(Debug)]
pub struct Keeping {
    pub config: Config,
    pub environment: Environment,
    /// With which a server is started.
    pub arguments: Vec<OsString>,
    /// What the first server alone is started with, too.
    pub first: Vec<OsString>,
    pub passphrase: Option<OwnedFd>,
    /// Whom to tell, for a daemon in the background.
    pub report: Option<Report>,
}

/// How keeping ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ended {
    /// The first server did not start; it has said why, and this is its exit code.
    NotStarted(u8),
    Unmounted,
}

/// Tells whether a mount is to have a keeper. systemd is one itself.
pub fn is_wanted(config: &Config, environment: &Environment) -> bool {
    config.keeper == KeeperMode::Auto && !supervision::is_systemd_s(environment)
}

/// Keeps a mount until it is unmounted by whomever, or a signal asks for its end.
pub fn keep(keeping: Keeping) -> Result<Ended, DaemonError> {
    harden_process().map_err(DaemonError::io("closing the process to others"))?;
    // The servers log for themselves; the level of the keeper's own few words stays as it began.
    logging::start(keeping.config.log, &keeping.environment)
        .map_err(DaemonError::io("starting the log"))?;
    let mut keeper = Keeper::new(keeping)?;
    let ended = keeper.run();
    if let Err(error) = &ended {
        tracing::error!(why = error.chain(), "not started");
        if let Some(report) = keeper.report.take() {
            report.failed(error);
        }
    }
    ended
}

/// What is kept for the servers besides the device.
#[derive(Debug)]
pub(super) struct Kept {
    journal: Journal,
    key: KeyCell,
}

/// What wakes the keeper.
#[derive(Debug)]
enum Event {
    Asked(Asked),
    /// The server with this number has ended.
    Gone(u64),
    Said(u64, FromServer, Vec<OwnedFd>),
}

/// How it ended with one server.
enum End {
    /// Another is to follow.
    Died(Death),
    Final(Ended),
}

/// A mount is answered EIO after so long without a server.
const PATIENCE: Duration = Duration::from_secs(30);
/// A server that crashes sooner than this has not been one.
const BRIEF: Duration = Duration::from_secs(1);
/// How long a server may take to end when it is asked to.
const LAST_WORDS: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

struct Keeper {
    config: Config,
    arguments: Vec<OsString>,
    first: Vec<OsString>,
    passphrase: Option<OwnedFd>,
    report: Option<Report>,
    kept: Kept,
    program: Program,
    /// Is tried next.
    candidate: Option<Program>,
    mount: Option<(Mounting, OwnedFd)>,
    events: Receiver<Event>,
    sender: Sender<Event>,
    /// How many processes were started as servers, spares among them.
    processes: u64,
    /// How many of them were told to serve.
    launched: u64,
    spare: SpareSlot,
    /// A process of the candidate, started while the server before it still serves.
    coming: SpareSlot,
    since: i64,
    /// When there was a server last.
    served: Instant,
    /// Servers that have failed one after the other.
    failures: u32,
    refusal: Option<Refusal>,
    effector: HelperSlot,
    observer: HelperSlot,
}

impl Keeper {
    fn new(keeping: Keeping) -> Result<Self, DaemonError> {
        let Keeping { config, arguments, first, passphrase, report, .. } = keeping;
        let kept = Kept {
            journal: Journal::new().map_err(DaemonError::io("making the journal"))?,
            key: KeyCell::new().map_err(DaemonError::io("making room for the key"))?,
        };
        let (sender, events) = mpsc::channel();
        watch_signals(sender.clone())?;
        Ok(Self {
            config,
            arguments,
            first,
            passphrase,
            report,
            kept,
            program: Program::own().map_err(DaemonError::io("opening the program"))?,
            candidate: None,
            mount: None,
            events,
            sender,
            processes: 0,
            launched: 0,
            spare: SpareSlot::default(),
            coming: SpareSlot::default(),
            since: compose::clock().now().as_second(),
            served: Instant::now(),
            failures: 0,
            refusal: None,
            effector: HelperSlot::default(),
            observer: HelperSlot::default(),
        })
    }

    fn run(&mut self) -> Result<Ended, DaemonError> {
        let mut predecessor = None;
        loop {
            match self.start(predecessor) {
                Ok(server) => match self.watch(server, predecessor)? {
                    End::Final(ended) => return Ok(ended),
                    End::Died(death) => predecessor = Some(death),
                },
                Err(error) if predecessor.is_none() => return Err(error),
                Err(error) => {
                    tracing::error!(why = error.chain(), "no server");
                    self.has_failed();
                }
            }
            if !self.is_connected() || self.pause() == Some(Asked::Stop) {
                return self.end_without_server();
            }
        }
    }

    fn start(&mut self, predecessor: Option<Death>) -> Result<Server, DaemonError> {
        let server =
            self.next_server(predecessor).map_err(DaemonError::io("starting the server"))?;
        let passphrase = self.passphrase.take();
        let launch = Launch {
            keeper: std::process::id(),
            predecessor,
            restarts: self.launched,
            since: self.since,
            passphrase: passphrase.is_some(),
        };
        self.launched += 1;
        server.launch(launch, &self.kept, passphrase.as_ref().map(AsFd::as_fd));
        if self.candidate.is_none() && predecessor.is_some() {
            self.spare.schedule();
        }
        Ok(server)
    }

    /// Returns the spare of the program that is to be tried next, or a new process of it.
    fn next_server(&mut self, predecessor: Option<Death>) -> io::Result<Server> {
        let spare = if self.candidate.is_none() { &mut self.spare } else { &mut self.coming };
        if let Some(server) = spare.take(&mut self.observer) {
            return Ok(server);
        }
        let mut arguments = self.arguments.clone();
        if predecessor.is_none() {
            arguments.append(&mut self.first);
        }
        let events = self.next_events();
        let program = self.candidate.as_ref().unwrap_or(&self.program);
        Server::prepare((program, &arguments), events)
    }

    /// Returns the number of a process that is about to be started, and where its events go.
    fn next_events(&mut self) -> (u64, Sender<Event>) {
        self.processes += 1;
        (self.processes, self.sender.clone())
    }

    /// Starts the next server in advance, if it is time to.
    fn prepare_spare(&mut self) {
        if self.spare.is_due() {
            let events = self.next_events();
            self.spare.prepare((&self.program, &self.arguments), events);
        }
    }

    /// Starts a server of another program, and has the one that serves make room once that one waits for its turn.
    fn begin_upgrade(&mut self, program: Program, server: &Server, watched: &mut Watched) {
        self.coming.discard();
        let events = self.next_events();
        let number = events.0;
        self.coming.prepare((&program, &self.arguments), events);
        watched.successor = Some(program);
        watched.awaited = Some(Instant::now() + watched.patience);
        if !self.coming.is(number) {
            watched.retire(server);
        }
    }

    /// Stays with a server until its end.
    fn watch(
        &mut self,
        mut server: Server,
        predecessor: Option<Death>,
    ) -> Result<End, DaemonError> {
        let mut watched = Watched::new(self.config.watchdog);
        let current = server.number();
        loop {
            let due = [self.spare.due_in(), watched.awaited_for()];
            let wait = due.into_iter().flatten().fold(watched.left(), Duration::min);
            match self.events.recv_timeout(wait) {
                Err(RecvTimeoutError::Disconnected) => return Ok(End::Final(Ended::Unmounted)),
                Err(RecvTimeoutError::Timeout) => {
                    self.see_to_what_is_due(&mut server, &mut watched, predecessor);
                }
                Ok(Event::Asked(Asked::Reload)) => server.tell(&ToServer::Reload),
                Ok(Event::Asked(Asked::Stop)) => return self.stop(server),
                Ok(Event::Gone(number)) if number == current => {
                    let status =
                        server.wait().map_err(DaemonError::io("waiting for the server"))?;
                    return Ok(self.judge(&mut watched, status, predecessor));
                }
                Ok(Event::Said(number, FromServer::Stop, _)) if number == current => {
                    return self.stop(server);
                }
                Ok(Event::Said(number, said, ends)) if number == current => {
                    self.hear(&mut server, &mut watched, (said, ends))?;
                }
                Ok(event) => self.hear_spare(event, &server, &mut watched),
            }
        }
    }

    /// Does what a server's silence, or a time that has come, asks for.
    fn see_to_what_is_due(
        &mut self,
        server: &mut Server,
        watched: &mut Watched,
        predecessor: Option<Death>,
    ) {
        if watched.ready.is_none() {
            self.refuse_after_patience();
        }
        // Nobody takes over from a first server that is slow to start.
        if watched.is_late() && (watched.ready.is_some() || predecessor.is_some()) {
            tracing::error!("the server does not answer and is killed");
            watched.hung = true;
            server.kill();
        }
        self.prepare_spare();
        if watched.awaited_for().is_some_and(|left| left.is_zero()) {
            self.coming.discard();
            watched.retire(server);
        }
    }

    /// Takes note of what a process that waits for its turn has said, or that it has ended.
    fn hear_spare(&mut self, event: Event, server: &Server, watched: &mut Watched) {
        match event {
            Event::Gone(number) => {
                self.spare.has_gone(number);
                if self.coming.has_gone(number) {
                    // It may be of a release that knows no spares.
                    watched.retire(server);
                }
            }
            Event::Said(number, FromServer::Observer, ends) => match &watched.successor {
                Some(program) if self.coming.is(number) => {
                    self.coming.observe(number, program, ends);
                    watched.retire(server);
                }
                Some(_) | None => self.spare.observe(number, &self.program, ends),
            },
            Event::Asked(_) | Event::Said(..) => {}
        }
    }

    fn hear(
        &mut self,
        server: &mut Server,
        watched: &mut Watched,
        (said, ends): (FromServer, Vec<OwnedFd>),
    ) -> Result<(), DaemonError> {
        watched.heard = Instant::now();
        match said {
            FromServer::Alive | FromServer::Stop => {}
            FromServer::Effector => self.replace_effector(ends),
            FromServer::Failed(why) => watched.failed = Some(why),
            FromServer::Opened => {
                if self.mount.is_none() {
                    let made = Mounting::make(&self.config);
                    self.mount = Some(made.inspect_err(|_| server.end())?);
                }
                // It must not read beside the server.
                self.refusal = None;
                if let Some((_, device)) = &self.mount {
                    server.hand_over(device);
                }
            }
            FromServer::Observer => {
                self.observer.replace(&self.program, &compose::observer_arguments(), ends);
            }
            FromServer::Ready => {
                watched.ready = Some(Instant::now());
                self.served = Instant::now();
                self.failures = 0;
                if let Some(candidate) = self.candidate.take() {
                    self.program = candidate;
                    self.spare.discard();
                }
                self.spare.schedule();
                if let Some((mounting, _)) = &self.mount {
                    mounting.protect();
                }
                self.report.take().into_iter().for_each(Report::ready);
            }
            FromServer::Unmounted => watched.unmounted = true,
            FromServer::Upgrade(path) => match open_program(&path) {
                Ok(program) => {
                    tracing::warn!(?path, "upgrading");
                    self.begin_upgrade(program, server, watched);
                }
                Err(error) => tracing::error!(?path, %error, "no program to upgrade to"),
            },
        }
        Ok(())
    }

    fn replace_effector(&mut self, ends: Vec<OwnedFd>) {
        let arguments = compose::effector_arguments(&self.config);
        self.effector.replace(&self.program, &arguments, ends);
    }

    /// Says what a server's end means.
    fn judge(
        &mut self,
        watched: &mut Watched,
        status: ExitStatus,
        predecessor: Option<Death>,
    ) -> End {
        if watched.unmounted {
            if let Some((mounting, _)) = &self.mount {
                mounting.protect();
            }
            return End::Final(Ended::Unmounted);
        }
        let death = match (status.signal(), watched.hung, &watched.successor) {
            (_, false, Some(_)) if status.success() => Death::Retired,
            (Some(libc::SIGKILL), false, _) => Death::Killed,
            _ => Death::Crashed,
        };
        let served = watched.ready.is_some() || (death == Death::Killed && self.mount.is_some());
        if !served && predecessor.is_none() {
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            let code = code.filter(|code| *code != 0).unwrap_or(1);
            if let (Some(why), Some(report)) = (&watched.failed, self.report.take()) {
                report.failed_with(code, why);
            }
            if let Some((mounting, _)) = &self.mount
                && let Err(error) = mounting.take_away()
            {
                tracing::warn!(why = error.chain(), "not unmounted");
            }
            return End::Final(Ended::NotStarted(code));
        }
        let brief = watched.ready.is_none_or(|ready| ready.elapsed() < BRIEF);
        if death == Death::Crashed && brief {
            self.has_failed();
        } else if watched.ready.is_some() {
            self.served = Instant::now();
        }
        self.candidate = watched.successor.take().or_else(|| self.candidate.take());
        tracing::warn!(?death, %status, "the server has ended");
        End::Died(death)
    }

    /// Counts a server that was none, and goes back to the program before if it was a new one.
    fn has_failed(&mut self) {
        self.failures += 1;
        if self.candidate.take().is_some() {
            tracing::error!("the new program does not serve: back to the one before");
        }
    }

    /// Unmounts and waits for the server's end.
    fn stop(&mut self, mut server: Server) -> Result<End, DaemonError> {
        self.spare.discard();
        self.coming.discard();
        let current = server.number();
        let Some((mounting, _)) = &self.mount else {
            server.kill();
            server.wait().map_err(DaemonError::io("waiting for the server"))?;
            return Ok(End::Final(Ended::Unmounted));
        };
        tracing::info!(mountpoint = ?self.config.mountpoint, "stopping");
        let taken = mounting.take_away();
        server.tell(&ToServer::Stop);
        let deadline = Instant::now() + LAST_WORDS;
        loop {
            match self.events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Event::Gone(number)) if number == current => break,
                // It cleans up by one.
                Ok(Event::Said(number, FromServer::Effector, ends)) if number == current => {
                    self.replace_effector(ends);
                }
                Ok(_) => {}
                Err(_) => {
                    tracing::error!("the server does not end and is killed");
                    server.kill();
                    break;
                }
            }
        }
        server.wait().map_err(DaemonError::io("waiting for the server"))?;
        taken.map(|()| End::Final(Ended::Unmounted))
    }

    /// Ends where there is nobody else to end.
    fn end_without_server(&mut self) -> Result<Ended, DaemonError> {
        self.refusal = None;
        if let Some((mounting, device)) = &self.mount {
            if is_connected(device) {
                mounting.take_away()?;
            }
            mounting.protect();
        }
        Ok(Ended::Unmounted)
    }

    fn is_connected(&self) -> bool {
        self.mount.as_ref().is_some_and(|(_, device)| is_connected(device))
    }

    /// Waits before the next try, the longer the more have failed. Returns what was asked for
    /// meanwhile.
    fn pause(&mut self) -> Option<Asked> {
        let pause = match self.failures {
            0 => return None,
            n => LONGEST_PAUSE.min(Duration::from_millis(25) * 2_u32.saturating_pow(n.min(16))),
        };
        let deadline = Instant::now() + pause;
        loop {
            self.refuse_after_patience();
            let left = deadline.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left.min(BRIEF)) {
                Ok(Event::Asked(Asked::Stop)) => return Some(Asked::Stop),
                Ok(_) => {}
                Err(_) if left.is_zero() => return None,
                Err(_) => {}
            }
        }
    }

    /// Has somebody answer EIO when there has been no server for too long, so that nobody hangs.
    fn refuse_after_patience(&mut self) {
        if self.refusal.is_some() || self.served.elapsed() < PATIENCE {
            return;
        }
        let Some((_, device)) = &self.mount else { return };
        match Refusal::start(&self.program, device, &self.kept.journal) {
            Ok(refusal) => {
                tracing::error!("no server for too long: everything is answered EIO");
                self.refusal = Some(refusal);
            }
            Err(error) => tracing::error!(%error, "nobody answers"),
        }
    }
}

/// What is known of a server that runs.
struct Watched {
    patience: Duration,
    ready: Option<Instant>,
    heard: Instant,
    hung: bool,
    unmounted: bool,
    failed: Option<String>,
    /// The program that it makes room for.
    successor: Option<Program>,
    /// Until when a server of that program may take to be there; the one that serves goes on meanwhile.
    awaited: Option<Instant>,
}

impl Watched {
    fn new(patience: Duration) -> Self {
        Self {
            patience,
            ready: None,
            heard: Instant::now(),
            hung: false,
            unmounted: false,
            failed: None,
            successor: None,
            awaited: None,
        }
    }

    /// Returns how much longer the successor may take to be there, if it is waited for.
    fn awaited_for(&self) -> Option<Duration> {
        self.awaited.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Has the server make room, if the successor was all that it waited for.
    fn retire(&mut self, server: &Server) {
        if self.awaited.take().is_some() {
            server.tell(&ToServer::Retire);
        }
    }

    /// Returns how long it may stay silent.
    fn left(&self) -> Duration {
        // Once it has been killed there is nothing to wait for but its end.
        let patience = if self.hung { PATIENCE } else { self.patience };
        patience.saturating_sub(self.heard.elapsed()).max(Duration::from_millis(1))
    }

    fn is_late(&self) -> bool {
        !self.hung && self.heard.elapsed() >= self.patience
    }
}

/// Opens a program to change to. The server has checked it too, and has asked who wants it.
fn open_program(path: &Path) -> Result<Program, DaemonError> {
    trust::check_program(path)?;
    Program::open(path).map_err(DaemonError::io(format!("opening {}", path.display())))
}

/// Tells whether the kernel still has the mount behind a device.
pub(super) fn is_connected(device: &OwnedFd) -> bool {
    let mut polled = [PollFd::new(device.as_fd(), PollFlags::empty())];
    match poll(&mut polled, PollTimeout::ZERO) {
        Ok(0) => true,
        Ok(_) => {
            let [polled] = polled;
            !polled.revents().is_some_and(|found| found.contains(PollFlags::POLLERR))
        }
        Err(_) => false,
    }
}

fn watch_signals(events: Sender<Event>) -> Result<(), DaemonError> {
    let signals = Signals::register().map_err(DaemonError::io("taking signals over"))?;
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            for asked in signals {
                if events.send(Event::Asked(asked)).is_err() {
                    return;
                }
            }
        })
        .map_err(DaemonError::io("starting the thread for signals"))?;
    Ok(())
}
