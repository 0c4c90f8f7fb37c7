//! `run`: a program with secrets in its environment.
//!
//! Without `--mask` and `--watch` this process becomes the program. With them it stays as the
//! supervisor, and the program is started by way of `exec`, which gets the variables through a pipe: so
//! they are in no argument, and in no memory of the supervisor that is not locked.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::sync::Arc;

use nix::sys::signal::{SigSet, Signal};

use crate::cli::Context;
use crate::cli::account::Account;
use crate::cli::args::{Exec, Run};
use crate::cli::error::{Failure, Kind};
use crate::cli::plaintext;
use crate::cli::selection::Chosen;
use crate::inject::Variable;
use crate::system::{SecretBytes, duplicate_descriptor};

mod child;
mod output;
mod supervisor;

use supervisor::Supervisor;

pub(super) fn run(context: &Context, args: &Run) -> Result<ExitCode, Failure> {
    let user = args.user.as_deref().map(Account::find).transpose()?;
    if args.mask || args.watch {
        return Supervisor::new(context, args)?.supervise();
    }
    let client = Arc::new(context.client()?);
    let set = Chosen::of(&client, &args.selection)?.read(context, &client, &args.selection)?;
    set.check()?;
    drop(client);
    let variables = set.variables.iter();
    let pairs = variables.map(|(variable, value)| {
        (OsStr::new(variable.as_str()), OsStr::from_bytes(value.expose()))
    });
    if let Some(user) = &user {
        user.assume()?;
    }
    start(context, user.as_ref(), &args.command, pairs)
}

/// Becomes the program that a supervisor wants started.
pub(super) fn exec(context: &Context, args: &Exec) -> Result<ExitCode, Failure> {
    let fail = |err: io::Error| Failure::new(Kind::Injection, "the variables", err.to_string());
    // The supervisor's own signals are blocked, and a program is born with what its parent had.
    SigSet::empty().thread_set_mask().map_err(|errno| fail(errno.into()))?;
    let pipe = duplicate_descriptor(args.variables_fd).map_err(fail)?;
    // The program must not have it too.
    nix::unistd::close(args.variables_fd).map_err(|errno| fail(errno.into()))?;
    let variables = plaintext::read_all(&pipe).map_err(fail)?;
    drop(pipe);
    // A supervisor that is killed cannot stop its program.
    let parent = nix::unistd::getppid();
    let user = args.user.as_deref().map(Account::find).transpose()?;
    let pairs = variables.expose().split(|&byte| byte == 0).filter_map(|pair| {
        let at = pair.iter().position(|&byte| byte == b'=')?;
        let (name, value) = pair.split_at_checked(at)?;
        Some((OsStr::from_bytes(name), OsStr::from_bytes(value.get(1..)?)))
    });
    let pairs = pairs.collect::<Vec<_>>();
    if let Some(user) = &user {
        user.assume()?;
    }
    nix::sys::prctl::set_pdeathsig(Signal::SIGTERM).map_err(|errno| fail(errno.into()))?;
    if nix::unistd::getppid() != parent {
        return Err(Failure::new(Kind::Injection, "the supervisor", "it has ended"));
    }
    start(context, user.as_ref(), &args.command, pairs)
}

/// Writes variables as `exec` reads them.
fn to_pipe<'a>(
    variables: impl IntoIterator<Item = &'a (Variable, SecretBytes)>,
    mut pipe: impl io::Write,
) -> io::Result<()> {
    for (variable, value) in variables {
        pipe.write_all(variable.as_str().as_bytes())?;
        pipe.write_all(b"=")?;
        pipe.write_all(value.expose())?;
        pipe.write_all(b"\0")?;
    }
    Ok(())
}

/// Replaces this process by the program. What comes back is why that failed, with a shell's exit code.
fn start<'a>(
    context: &Context,
    user: Option<&Account>,
    command: &[OsString],
    variables: impl IntoIterator<Item = (&'a OsStr, &'a OsStr)>,
) -> Result<ExitCode, Failure> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(Failure::new(Kind::Config, "run", "there is no command"));
    };
    let mut command = Command::new(program);
    command.args(arguments);
    if let Some((name, home)) = user.and_then(|user| user.known.as_ref()) {
        command.env("HOME", home).env("USER", name).env("LOGNAME", name);
    }
    let error = command.envs(variables).exec();
    let why = match error.raw_os_error() {
        Some(libc::E2BIG) => "the environment and the arguments together are too long".to_owned(),
        _ => error.to_string(),
    };
    let failure = Failure::new(Kind::Injection, program.to_string_lossy().into_owned(), why);
    context.out.failure(&failure);
    Ok(ExitCode::from(if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 }))
}
