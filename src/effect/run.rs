//! Runs a program: a clean environment, a named user, values on descriptors, and an end to what it says.
//!
//! The program is over when it has exited, not when the last process that it has started closes its
//! output. How long it may take is not this file's business: at the deadline the whole process goes.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus, Stdio};
use std::thread;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::step::{Outcome, Step};
use super::{Command, EffectError};
use crate::system::{Rights, SecretBuffer, SecretBytes, confer, readable_memory};

/// The longest value that a program may print.
const MAX_VALUE_BYTES: usize = 16 << 20;
/// What a program says beyond this is read and forgotten.
const MAX_SAID_BYTES: usize = 64 << 10;
/// EX_TEMPFAIL of `sysexits.h`: the other side was not there.
const TEMPORARY_FAILURE: i32 = 75;
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program about to be run.
#[derive(Debug)]
pub(super) struct Run<'a> {
    pub(super) command: &'a Command,
    /// The last argument.
    pub(super) verb: Option<&'static str>,
    pub(super) current: Option<&'a SecretBytes>,
    pub(super) new: Option<&'a SecretBytes>,
    pub(super) admin: Option<&'a SecretBytes>,
    /// What it reads from its standard input; else there is nothing.
    pub(super) input: Option<&'a SecretBytes>,
}

/// How it ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    /// A line of what it said, masked.
    pub(super) said: String,
    /// Its standard output, where that is the value.
    pub(super) printed: SecretBuffer,
}

impl<'a> Run<'a> {
    /// Runs a program without any value.
    pub(super) fn of(command: &'a Command) -> Self {
        Self { command, verb: None, current: None, new: None, admin: None, input: None }
    }

    /// Runs it and returns what it said, if it has succeeded.
    pub(super) fn to_the_end(&self, step: &Step<'_>) -> Outcome {
        let ended = self.run(step, Printed::Said)?;
        let program = self.command.argv.program();
        ended.judge(program)?;
        Ok(match ended.said.as_str() {
            "" => format!("{program} succeeded"),
            said => format!("{program}: {said}"),
        })
    }

    /// Runs it and returns what it printed, if it has succeeded.
    pub(super) fn for_value(&self, step: &Step<'_>) -> Result<SecretBuffer, EffectError> {
        let ended = self.run(step, Printed::Value)?;
        ended.judge(self.command.argv.program())?;
        Ok(ended.printed)
    }

    /// Runs it to its end, whatever that is.
    pub(super) fn run(&self, step: &Step<'_>, printed: Printed) -> Result<Ended, EffectError> {
        let program = self.command.argv.program();
        let failed = |error: io::Error| EffectError::Invalid(format!("running {program}: {error}"));
        let (stderr, their_stderr) = io::pipe().map_err(failed)?;
        let (stdout, their_stdout) = match printed {
            Printed::Said => (None, their_stderr.try_clone().map_err(failed)?),
            Printed::Value => {
                let (reader, writer) = io::pipe().map_err(failed)?;
                (Some(reader), writer)
            }
        };
        let mut command = self.prepared(step)?;
        command.stdout(their_stdout).stderr(their_stderr);
        let child = command.spawn().map_err(failed)?;
        // Or else its ends of the pipes would stay open here.
        drop(command);
        let readers = [Some(stderr), stdout].map(|pipe| Some(File::from(OwnedFd::from(pipe?))));
        let limits = [MAX_SAID_BYTES, MAX_VALUE_BYTES];
        let (status, [said, value]) = listen(child, readers, limits).map_err(failed)?;
        if value.cut {
            return Err(EffectError::Invalid(format!("{program} printed more than 16 MiB")));
        }
        Ok(Ended { status, said: step.mask.line(&said.bytes, said.cut), printed: value.bytes })
    }

    fn prepared(&self, step: &Step<'_>) -> Result<std::process::Command, EffectError> {
        let rights = match &self.command.user {
            Some(user) => Rights::of_user(user),
            None => Rights::own(),
        };
        let rights = rights.map_err(|error| {
            let user = self.command.user.as_deref().unwrap_or("the effector's");
            EffectError::Invalid(format!("the user {user}: {error}"))
        })?;
        let mut command = std::process::Command::new(self.command.argv.program());
        command.args(self.command.argv.arguments()).args(self.verb).current_dir("/");
        command.env_clear().env("PATH", PATH).env("LANG", "C.UTF-8").env("HOME", &rights.home);
        command.env("USER", &rights.name).env("LOGNAME", &rights.name);
        command.env("SECRETFS_SECRET", step.secret());
        command.env("SECRETFS_ROTATION", &step.order.rotation);
        let hand_over = |value| {
            readable_memory(c"secretfs-value", value)
                .and_then(|memory| rights.own_file(&memory).map(|()| memory))
                .map_err(|error| EffectError::Invalid(format!("handing a value over: {error}")))
        };
        command.stdin(match self.input {
            Some(input) => Stdio::from(hand_over(input)?),
            None => Stdio::null(),
        });
        let mut descriptors = Vec::new();
        let values = [
            ("SECRETFS_CURRENT_FD", self.current),
            ("SECRETFS_NEW_FD", self.new),
            ("SECRETFS_ADMIN_FD", self.admin),
        ];
        for (variable, value) in values {
            let Some(value) = value else { continue };
            let memory = hand_over(value)?;
            command.env(variable, memory.as_raw_fd().to_string());
            descriptors.push(memory);
        }
        confer(&mut command, rights, descriptors);
        Ok(command)
    }
}

/// What a program's standard output is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Printed {
    Said,
    Value,
}

/// What has come out of a pipe.
#[derive(Debug, Default)]
struct Heard {
    bytes: SecretBuffer,
    /// There was more.
    cut: bool,
}

/// Reads until the program has exited and what it had written by then is read.
fn listen(
    mut child: Child,
    readers: [Option<File>; 2],
    limits: [usize; 2],
) -> io::Result<(ExitStatus, [Heard; 2])> {
    let (exited, exit) = io::pipe()?;
    let waiter = thread::Builder::new().name("program".to_owned()).spawn(move || {
        let status = child.wait();
        drop(exit);
        status
    })?;
    let mut heard = [Heard::default(), Heard::default()];
    let [said, value] = &mut heard;
    let [stderr, stdout] = readers;
    let [max_said, max_value] = limits;
    let mut sources = vec![(stderr, said, max_said), (stdout, value, max_value)];
    sources.retain(|(reader, ..)| reader.is_some());
    for (reader, ..) in &sources {
        // So that the last read of all, for what is there at the exit, does not wait.
        fcntl(
            reader.as_ref().map_or(exited.as_fd(), AsFd::as_fd),
            FcntlArg::F_SETFL(OFlag::O_NONBLOCK),
        )?;
    }
    loop {
        let mut polled: Vec<BorrowedFd<'_>> = vec![exited.as_fd()];
        polled.extend(sources.iter().filter_map(|(reader, ..)| reader.as_ref().map(AsFd::as_fd)));
        let has_exited = wait(&polled)?;
        for (reader, heard, max_bytes) in &mut sources {
            if let Some(file) = reader
                && drain(file, heard, *max_bytes)?
            {
                *reader = None;
            }
        }
        if has_exited {
            break;
        }
    }
    drop(sources);
    let status = waiter.join().unwrap_or(Err(io::ErrorKind::Other.into()))?;
    Ok((status, heard))
}

/// Waits until one of the descriptors has something; tells whether the first has.
fn wait(descriptors: &[BorrowedFd<'_>]) -> io::Result<bool> {
    let mut polled: Vec<PollFd<'_>> =
        descriptors.iter().map(|descriptor| PollFd::new(*descriptor, PollFlags::POLLIN)).collect();
    loop {
        match poll(&mut polled, PollTimeout::NONE) {
            Ok(_) => return Ok(polled.first().is_some_and(|first| first.any().unwrap_or(true))),
            Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Reads what is there; tells whether that was the end.
fn drain(file: &mut File, heard: &mut Heard, max_bytes: usize) -> io::Result<bool> {
    let mut chunk = zeroize::Zeroizing::new([0; 4096]);
    loop {
        let length = match file.read(&mut *chunk) {
            Ok(0) => return Ok(true),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let room = length.min(max_bytes.saturating_sub(heard.bytes.len()));
        heard.cut |= room < length;
        heard.bytes.write_at(heard.bytes.len(), chunk.get(..room).unwrap_or_default())?;
    }
}

impl Ended {
    fn judge(&self, program: &str) -> Result<(), EffectError> {
        let mut why = match (self.status.code(), self.status.signal()) {
            (Some(0), _) => return Ok(()),
            (Some(code), _) => format!("{program} exited with {code}"),
            (None, Some(signal)) => format!("{program} was ended by signal {signal}"),
            (None, None) => format!("{program} ended"),
        };
        if !self.said.is_empty() {
            why = format!("{why}: {}", self.said);
        }
        match self.status.code() {
            Some(TEMPORARY_FAILURE) => Err(EffectError::Unreachable(why)),
            Some(_) | None => Err(EffectError::Refused(why)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effect::mask::Mask;
    use crate::effect::{Order, Orders, Task, Values};

    /// Runs a script of the shell as a program that is given values.
    fn run(script: &str) -> Result<String, EffectError> {
        with(script, |command, step| command.with_values("set", step))
    }

    fn with<T>(script: &str, act: impl FnOnce(&Command, &Step<'_>) -> T) -> T {
        let argv = vec!["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned(), "sh".to_owned()];
        let command = Command { argv: argv.try_into().unwrap(), user: None, timeout_seconds: None };
        let order = Order {
            rotation: "r1".into(),
            secret: Some("app/key".parse().unwrap()),
            timeout: std::time::Duration::from_secs(20),
            task: Task::Generate(command.clone()),
        };
        let secret = |bytes: &[u8]| Some(SecretBytes::copy_from(bytes).unwrap());
        let values =
            Values { current: secret(b"canary-old"), new: secret(b"canary-new"), admin: None };
        let mask = Mask::of(&values);
        act(
            &command,
            &Step { order: &order, values: &values, mask: &mask, orders: &Orders::default() },
        )
    }

    #[test]
    fn a_program_reads_its_values_from_descriptors_and_knows_what_to_do() {
        let said = run(
            "test \"$1 $(cat /proc/self/fd/$SECRETFS_CURRENT_FD)\" = 'set canary-old' || exit 3; \
            wc -c </proc/self/fd/$SECRETFS_NEW_FD; test -z \"$SECRETFS_ADMIN_FD\"",
        );
        assert_eq!(said.unwrap(), "/bin/sh: 10");
    }

    #[test]
    fn its_environment_is_clean_and_has_no_value() {
        let said =
            run("env | grep -v ^PWD= | cut -d= -f1 | sort | tr '\\n' ' '; env | grep -c canary")
                .unwrap_err();
        let words = "HOME LANG LOGNAME PATH SECRETFS_CURRENT_FD SECRETFS_NEW_FD SECRETFS_ROTATION \
            SECRETFS_SECRET USER";
        assert!(said.to_string().contains(words), "{said}");
    }

    #[test]
    fn what_it_says_is_one_masked_line() {
        assert_eq!(run("echo a; echo got canary-new >&2").unwrap(), "/bin/sh: got [value]");
        let flood = run("echo first; yes canary-new | head -c 300000").unwrap();
        assert_eq!(flood, "/bin/sh: first");
    }

    #[test]
    fn its_exit_says_whether_it_is_worth_another_try() {
        assert_eq!(run("exit 0").unwrap(), "/bin/sh succeeded");
        assert!(matches!(run("exit 75"), Err(EffectError::Unreachable(_))));
        let refused = run("echo canary-old; exit 1").unwrap_err();
        assert_eq!(refused, EffectError::Refused("/bin/sh exited with 1: [value]".into()));
        assert!(matches!(run("kill -9 $$"), Err(EffectError::Refused(_))));
    }

    #[test]
    fn a_process_that_it_leaves_behind_is_not_waited_for() {
        let said = run("sleep 1000 & echo $!").unwrap();
        let pid: i32 = said.rsplit(' ').next().unwrap().parse().unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL).unwrap();
    }

    #[test]
    fn a_generated_value_is_what_is_printed_without_its_last_newline() {
        let made = |script: &str| with(script, |command, step| command.generate(step));
        let value = made("printf 'a\\n\\n'; echo noise >&2").unwrap().value.unwrap();
        assert_eq!(value.expose(), b"a\n");
        assert!(matches!(made("echo"), Err(EffectError::Refused(_))));
        assert!(matches!(made("echo x; exit 1"), Err(EffectError::Refused(_))));
        let missing = Command {
            argv: vec!["/nonexistent".to_owned()].try_into().unwrap(),
            user: None,
            timeout_seconds: None,
        };
        assert!(matches!(with("", |_, step| missing.generate(step)), Err(EffectError::Invalid(_))));
    }
}
