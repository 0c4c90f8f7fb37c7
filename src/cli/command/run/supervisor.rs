//! The process beside the program: passes signals on and output through, and starts it anew when its
//! secrets have changed.
//!
//! One thread and one loop. New values are read before the old program is stopped, so that a secret that
//! cannot be had leaves it running; they are read once more when it has ended, so that the new program
//! starts with what is current. A program that was asked to end by a signal is not started again.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::child::Program;
use super::output::{Output, Pipe, To};
use crate::cli::Context;
use crate::cli::args::Run;
use crate::cli::changes::{AT_MOST, CALM, Changes, TICK};
use crate::cli::client::Client;
use crate::cli::error::{Failure, Kind};
use crate::cli::selection::{Chosen, Set};
use crate::cli::snapshot::{Versions, versions};
use crate::inject::Mask;
use crate::model::SecretName;

/// How long a program's output is read on after its end: a child of its own may hold the pipe for ever.
const AFTERGLOW: Duration = Duration::from_millis(500);

/// What is passed on. SIGCHLD only wakes the loop.
const SIGNALS: [Signal; 8] = [
    Signal::SIGCHLD,
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
];

pub(super) struct Supervisor<'a> {
    context: &'a Context,
    mountpoint: PathBuf,
    args: &'a Run,
    signals: SignalFd,
    changes: Option<Changes>,
    program: Program,
    outputs: Vec<Output>,
    set: Set,
    /// What the next program starts with, if nothing newer can be had by then.
    next: Option<Set>,
    /// When the program that is being stopped is killed.
    kill_at: Option<Instant>,
    /// A signal has asked the program to end.
    asked_to_end: bool,
    /// When versions are asked for next, and since when there are events.
    look_at: Instant,
    events_since: Option<Instant>,
    /// What could not be read, so that it is said once.
    given_up: Option<Versions>,
}

impl<'a> Supervisor<'a> {
    /// Starts the program.
    pub(super) fn new(context: &'a Context, args: &'a Run) -> Result<Self, Failure> {
        let wanted: SigSet = SIGNALS.into_iter().collect();
        // Before the first child, so that none of its signals is missed. `exec` takes it back.
        wanted.thread_block().map_err(|errno| failed("signals", &errno.into()))?;
        let signals = SignalFd::with_flags(&wanted, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .map_err(|errno| failed("signals", &errno.into()))?;
        let changes = args.watch.then(Changes::new).transpose()?;
        let mountpoint = context.mountpoint()?;
        let set = read(context, &mountpoint, args, changes.as_ref())?;
        let program = Program::start(args, &set).map_err(|err| failed("the program", &err))?;
        let mut supervisor = Self {
            context,
            mountpoint,
            args,
            signals,
            changes,
            program,
            outputs: Vec::new(),
            set,
            next: None,
            kill_at: None,
            asked_to_end: false,
            look_at: Instant::now() + TICK,
            events_since: None,
            given_up: None,
        };
        supervisor.take_output(None)?;
        Ok(supervisor)
    }

    /// Goes on until the program has ended and is not started again; returns its exit code.
    pub(super) fn supervise(mut self) -> Result<ExitCode, Failure> {
        loop {
            self.wait()?;
            self.pass_signals()?;
            if let Some(code) = self.program.ended().map_err(|err| failed("the program", &err))? {
                self.drain()?;
                if self.kill_at.take().is_none() || self.asked_to_end {
                    return Ok(ExitCode::from(code));
                }
                self.start_again()?;
            }
            let now = Instant::now();
            if self.kill_at.is_some_and(|at| at <= now) {
                self.program.send(Signal::SIGKILL);
                self.kill_at = Some(now + TICK);
            }
            if self.changes.is_some() && self.kill_at.is_none() && self.look_at <= now {
                self.look()?;
            }
        }
    }

    /// Waits for whatever comes first, and passes output on.
    fn wait(&mut self) -> Result<(), Failure> {
        let watching = self.changes.as_ref().filter(|_| self.kill_at.is_none());
        let until = self.kill_at.or(watching.map(|_| self.look_at));
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        fds.extend(
            self.outputs.iter().map(|output| PollFd::new(output.as_fd(), PollFlags::POLLIN)),
        );
        fds.extend(watching.map(|changes| PollFd::new(changes.as_fd(), PollFlags::POLLIN)));
        let ready = ready(&mut fds, left).map_err(|err| failed("the program", &err))?;
        let mut outputs = ready.iter().skip(1);
        let mut kept = Vec::new();
        for output in std::mem::take(&mut self.outputs) {
            if outputs.next() == Some(&true) {
                match output.pass().map_err(|err| failed("the program's output", &err))? {
                    Pipe::Ended => {}
                    Pipe::Open(output) => kept.push(output),
                }
            } else {
                kept.push(output);
            }
        }
        self.outputs = kept;
        if outputs.next() == Some(&true) {
            self.note_event();
        }
        Ok(())
    }

    /// Looks soon, but not before changes that belong together have all come.
    fn note_event(&mut self) {
        if let Some(changes) = &self.changes {
            changes.take();
        }
        let now = Instant::now();
        let since = *self.events_since.get_or_insert(now);
        self.look_at = (now + CALM).min(since + AT_MOST);
    }

    fn pass_signals(&mut self) -> Result<(), Failure> {
        while let Some(info) =
            self.signals.read_signal().map_err(|errno| failed("signals", &errno.into()))?
        {
            let number = i32::try_from(info.ssi_signo).unwrap_or(0);
            let Ok(signal) = Signal::try_from(number) else { continue };
            if signal == Signal::SIGCHLD {
                continue;
            }
            if matches!(signal, Signal::SIGINT | Signal::SIGQUIT | Signal::SIGTERM) {
                self.asked_to_end = true;
            }
            // A terminal's signal goes to the program too, which is in the same group.
            if info.ssi_code != libc::SI_KERNEL {
                self.program.send(signal);
            }
        }
        Ok(())
    }

    /// Compares versions, and stops the program or tells it if they are others.
    fn look(&mut self) -> Result<(), Failure> {
        self.look_at = Instant::now() + TICK;
        self.events_since = None;
        // Having been asked to end, it is left to do so.
        if self.asked_to_end {
            return Ok(());
        }
        // Nothing of the mount is held between looks, or it could not be unmounted. While there is
        // none, the program has what is current.
        let Ok(client) = Client::find(Some(&self.mountpoint), None) else { return Ok(()) };
        let client = Arc::new(client);
        let names = match Chosen::of(&client, &self.args.selection) {
            Ok(chosen) => chosen.names,
            Err(_) => self.names(),
        };
        let current = versions(&client, &names);
        if let Some(changes) = &self.changes {
            changes.watch(&client, &names);
        }
        drop(client);
        if current == *self.set.versions() || self.given_up.as_ref() == Some(&current) {
            return Ok(());
        }
        match read(self.context, &self.mountpoint, self.args, self.changes.as_ref()) {
            Ok(set) => {
                self.given_up = None;
                if let Some(signal) = self.args.signal {
                    let before = std::mem::replace(&mut self.set, set);
                    // It may print the new value as soon as it is told.
                    self.remask(Some(&before))?;
                    self.program.send(signal);
                } else {
                    self.next = Some(set);
                    self.program.send(Signal::SIGTERM);
                    let patience = Duration::from_secs(self.args.stop_seconds);
                    self.kill_at = Some(Instant::now() + patience);
                }
            }
            Err(failure) => {
                self.context.out.note(format_args!("the program goes on as it is: {failure}"));
                self.given_up = Some(current);
            }
        }
        Ok(())
    }

    fn names(&self) -> BTreeSet<SecretName> {
        self.set.versions().keys().cloned().collect()
    }

    /// Starts the program with what is current now.
    fn start_again(&mut self) -> Result<(), Failure> {
        let newest = read(self.context, &self.mountpoint, self.args, self.changes.as_ref());
        let set = match (newest, self.next.take()) {
            (Err(_), Some(next)) => next,
            (newest, _) => newest?,
        };
        let before = std::mem::replace(&mut self.set, set);
        let program = Program::start(self.args, &self.set);
        self.program = program.map_err(|err| failed("the program", &err))?;
        // What has changed between the reading and here is seen by that.
        self.look_at = Instant::now();
        self.take_output(Some(&before))
    }

    /// Takes over what the program prints, if it is to be masked.
    fn take_output(&mut self, before: Option<&Set>) -> Result<(), Failure> {
        let pipes = self.program.take_output();
        let nothing = Arc::new(Mask::new());
        let both = pipes.into_iter().zip([To::Stdout, To::Stderr]);
        self.outputs =
            both.filter_map(|(pipe, to)| Some(Output::new(pipe?, &nothing, to))).collect();
        self.remask(before)
    }

    /// Masks the current values, and those before, which may still be printed.
    fn remask(&mut self, before: Option<&Set>) -> Result<(), Failure> {
        if !self.args.mask {
            return Ok(());
        }
        let fail = |err: crate::system::MemoryError| failed("the mask", &err.into());
        let mut mask = Mask::new();
        for (name, value) in before.into_iter().chain([&self.set]).flat_map(Set::secrets) {
            if !mask.add(value).map_err(fail)? && before.is_none() {
                self.context.out.note(format_args!("{name}: too short to be masked"));
            }
        }
        let mask = Arc::new(mask);
        self.outputs.iter_mut().for_each(|output| output.remask(&mask));
        Ok(())
    }

    /// Passes on what a program has printed before its end.
    fn drain(&mut self) -> Result<(), Failure> {
        let fail = |err: io::Error| failed("the program's output", &err);
        let end = Instant::now() + AFTERGLOW;
        while let Some(output) = self.outputs.pop() {
            let left = end.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(output.as_fd(), PollFlags::POLLIN)];
            if left.is_zero() || !ready(&mut fds, Some(left)).map_err(fail)?.contains(&true) {
                output.end().map_err(fail)?;
                continue;
            }
            if let Pipe::Open(output) = output.pass().map_err(fail)? {
                self.outputs.push(output);
            }
        }
        Ok(())
    }
}

/// Reads values with watches on them, so that no change after the reading is missed.
fn read(
    context: &Context,
    mountpoint: &Path,
    args: &Run,
    changes: Option<&Changes>,
) -> Result<Set, Failure> {
    let client = Arc::new(Client::find(Some(mountpoint), None)?);
    let chosen = Chosen::of(&client, &args.selection)?;
    if let Some(changes) = changes {
        changes.watch(&client, &chosen.names);
    }
    let set = chosen.read(context, &client, &args.selection)?;
    set.check()?;
    Ok(set)
}

/// Waits, and says which of the descriptors have something, or have ended.
fn ready(fds: &mut [PollFd<'_>], left: Option<Duration>) -> io::Result<Vec<bool>> {
    let timeout = match left {
        // A millisecond more than what is left, or the loop would spin at its end.
        Some(left) => {
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        }
        None => PollTimeout::NONE,
    };
    match poll(fds, timeout) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => {}
        Err(errno) => return Err(errno.into()),
    }
    Ok(fds.iter().map(|fd| fd.any().unwrap_or(false)).collect())
}

fn failed(what: &str, err: &io::Error) -> Failure {
    Failure::new(Kind::Injection, what, err.to_string())
}
