//! The program under the supervisor: how it is started and what is known of it.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::process::{Child, Command, ExitStatus, Stdio};

use std::os::unix::process::ExitStatusExt;

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, pipe2};

use super::to_pipe;
use crate::cli::args::Run;
use crate::cli::selection::Set;

/// A program that was started.
#[derive(Debug)]
pub(super) struct Program(Child);

impl Program {
    /// Starts the program with these variables. Whether it could be started tells its exit code.
    pub(super) fn start(args: &Run, set: &Set) -> io::Result<Self> {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
        // There is one thread, so no other child can get it.
        fcntl(&reader, FcntlArg::F_SETFD(FdFlag::empty()))?;
        let mut command = Command::new("/proc/self/exe");
        command.arg("exec").arg("--variables-fd").arg(reader.as_raw_fd().to_string());
        if let Some(user) = &args.user {
            command.arg("--user").arg(user);
        }
        if args.mask {
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        let child = command.arg("--").args(&args.command).spawn()?;
        drop(reader);
        match to_pipe(&set.variables, File::from(writer)) {
            // It has ended, and how it ended is what counts.
            Err(err) if err.kind() == io::ErrorKind::BrokenPipe => {}
            written => written?,
        }
        Ok(Self(child))
    }

    /// Takes what it prints: standard output and standard error, if they are masked.
    pub(super) fn take_output(&mut self) -> [Option<File>; 2] {
        let out = self.0.stdout.take().map(|pipe| File::from(std::os::fd::OwnedFd::from(pipe)));
        let err = self.0.stderr.take().map(|pipe| File::from(std::os::fd::OwnedFd::from(pipe)));
        [out, err]
    }

    /// Sends it a signal; it has not been waited for, so the number is its own.
    pub(super) fn send(&self, signal: Signal) {
        // Already ended: the wait will tell.
        let _ = kill(Pid::from_raw(self.0.id().cast_signed()), signal);
    }

    /// Returns the exit code once it has ended: its own, or 128 and the number of the signal.
    pub(super) fn ended(&mut self) -> io::Result<Option<u8>> {
        Ok(self.0.try_wait()?.map(code))
    }
}

fn code(status: ExitStatus) -> u8 {
    let number = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    number.and_then(|number| u8::try_from(number).ok()).unwrap_or(1)
}
