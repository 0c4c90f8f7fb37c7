//! `mount`: serves a store that is there, in the background or the foreground.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::ExitCode;

use serde_json::json;

use super::{layer, server};
use crate::cli::Context;
use crate::cli::args::{KeyFrom, MountArgs, PassphraseFrom};
use crate::cli::error::{Failure, Kind, exit_code};
use crate::cli::plaintext;
use crate::daemon::DaemonError;
use crate::daemon::background::{self, Report, Side};
use crate::daemon::compose::Exceptions;
use crate::daemon::config::{Config, KeyConfig, Sources};
use crate::daemon::init::PassphraseInput;
use crate::daemon::keeper::{self, Ended, Keeping};
use crate::daemon::run::{self, Start};
use crate::system::{duplicate_descriptor, read_line};

pub(super) fn run(context: &Context, args: &MountArgs) -> Result<ExitCode, Failure> {
    let flags = layer(args.mountpoint.as_deref(), &KeyFrom::default())?;
    let (sources, config) = context.config(args.system.system, flags)?;
    let passphrase = passphrase(&config.key, &args.from);
    let exceptions = Exceptions { accept_rollback: args.accept_rollback };
    start(context, Wish { sources, config, passphrase, foreground: args.foreground, exceptions })
}

/// What is to be mounted.
pub(super) struct Wish {
    pub sources: Sources,
    pub config: Config,
    pub passphrase: PassphraseInput,
    pub foreground: bool,
    pub exceptions: Exceptions,
}

/// Starts the daemon; in the background, returns when it serves.
pub(super) fn start(context: &Context, mut wish: Wish) -> Result<ExitCode, Failure> {
    if !wish.config.store().exists() {
        return Err(DaemonError::NoStore(wish.config.state_dir).into());
    }
    if wish.foreground {
        return serve(context, wish, None);
    }
    // Asked here, where there is a terminal; the daemon will have none.
    let known = match (&wish.config.key, read_descriptor(wish.passphrase)?) {
        (KeyConfig::Passphrase, PassphraseInput::Ask) => Some(plaintext::prompt("Passphrase: ")?),
        (_, PassphraseInput::Given(phrase)) => Some(phrase),
        (_, PassphraseInput::Ask | PassphraseInput::Descriptor(_)) => None,
    };
    let log = wish.config.state_dir.join("daemon.log");
    match background::detach(&log, known.as_ref(), exit_code)? {
        Side::Command => {
            let shown = wish.config.mountpoint.display().to_string();
            let document = json!({ "mountpoint": shown, "mode": wish.config.mode });
            context.out.done(format_args!("mounted at {shown}"), &document)?;
            Ok(ExitCode::SUCCESS)
        }
        // The pipe stays open as long as the daemon may read from it.
        Side::Daemon { report, passphrase } => {
            let input = passphrase.as_ref().map(AsRawFd::as_raw_fd);
            wish.passphrase = input.map_or(PassphraseInput::Ask, PassphraseInput::Descriptor);
            // The reason has been reported and logged; there is no terminal to print it on.
            serve(context, wish, Some(report))
        }
    }
}

/// Serves until the end, by a keeper unless there is to be none.
fn serve(context: &Context, wish: Wish, report: Option<Report>) -> Result<ExitCode, Failure> {
    let Wish { sources, config, passphrase, exceptions, .. } = wish;
    if !keeper::is_wanted(&config, &sources.environment) {
        run::serve(Start { sources, config, passphrase, exceptions, report })?;
        return Ok(ExitCode::SUCCESS);
    }
    let unreadable = |err: io::Error| Failure::new(Kind::Config, "the passphrase", err.to_string());
    let keeping = Keeping {
        arguments: server::arguments(context, &sources),
        first: exceptions
            .accept_rollback
            .then(|| OsString::from("--accept-rollback"))
            .into_iter()
            .collect(),
        passphrase: readable(passphrase).map_err(unreadable)?,
        environment: sources.environment,
        config,
        report,
    };
    Ok(match keeper::keep(keeping)? {
        Ended::NotStarted(code) => ExitCode::from(code),
        Ended::Unmounted => ExitCode::SUCCESS,
    })
}

/// Returns a descriptor from which the server reads the passphrase, unless it is to ask for it.
fn readable(passphrase: PassphraseInput) -> io::Result<Option<OwnedFd>> {
    match passphrase {
        PassphraseInput::Ask => Ok(None),
        PassphraseInput::Descriptor(number) => duplicate_descriptor(number).map(Some),
        PassphraseInput::Given(phrase) => {
            // A pipe has room for the longest that is taken.
            let (reader, mut writer) = io::pipe()?;
            writer.write_all(phrase.expose())?;
            Ok(Some(reader.into()))
        }
    }
}

/// Returns where the passphrase is to come from.
pub(super) fn passphrase(key: &KeyConfig, from: &PassphraseFrom) -> PassphraseInput {
    match (key, from.passphrase_fd) {
        (KeyConfig::Passphrase, Some(fd)) => PassphraseInput::Descriptor(fd),
        _ => PassphraseInput::Ask,
    }
}

/// Reads the passphrase now, while there is one process.
pub(super) fn read_descriptor(input: PassphraseInput) -> Result<PassphraseInput, Failure> {
    let PassphraseInput::Descriptor(fd) = input else { return Ok(input) };
    let line = read_line(fd, MAX_PASSPHRASE);
    line.map(PassphraseInput::Given)
        .map_err(|err| Failure::new(Kind::Config, "--passphrase-fd", err.to_string()))
}

/// As long as a control command may be.
pub(super) const MAX_PASSPHRASE: usize = 4096;
