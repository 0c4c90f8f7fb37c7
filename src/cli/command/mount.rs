//! `mount`: serves a store that is there, in the background or the foreground.

use std::os::fd::AsRawFd;

use serde_json::json;

use super::{Done, layer};
use crate::cli::Context;
use crate::cli::args::{KeyFrom, MountArgs, PassphraseFrom};
use crate::cli::error::{Failure, Kind, exit_code};
use crate::cli::plaintext;
use crate::daemon::DaemonError;
use crate::daemon::background::{self, Side};
use crate::daemon::compose::Exceptions;
use crate::daemon::config::{Config, KeyConfig, Sources};
use crate::daemon::init::PassphraseInput;
use crate::daemon::run::{self, Start};
use crate::system::read_line;

pub(super) fn run(context: &Context, args: &MountArgs) -> Done {
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
pub(super) fn start(context: &Context, wish: Wish) -> Done {
    let Wish { sources, config, passphrase, foreground, exceptions } = wish;
    if !config.store().exists() {
        return Err(DaemonError::NoStore(config.state_dir).into());
    }
    if foreground {
        return Ok(run::serve(Start { sources, config, passphrase, exceptions, report: None })?);
    }
    // Asked here, where there is a terminal; the daemon will have none.
    let known = match (&config.key, read_descriptor(passphrase)?) {
        (KeyConfig::Passphrase, PassphraseInput::Ask) => Some(plaintext::prompt("Passphrase: ")?),
        (_, PassphraseInput::Given(phrase)) => Some(phrase),
        (_, PassphraseInput::Ask | PassphraseInput::Descriptor(_)) => None,
    };
    let log = config.state_dir.join("daemon.log");
    match background::detach(&log, known.as_ref(), exit_code)? {
        Side::Command => {
            let shown = config.mountpoint.display().to_string();
            let document = json!({ "mountpoint": shown, "mode": config.mode });
            context.out.done(format_args!("mounted at {shown}"), &document)
        }
        // The pipe stays open as long as the daemon may read from it.
        Side::Daemon { report, passphrase } => {
            let input = passphrase.as_ref().map(AsRawFd::as_raw_fd);
            let passphrase = input.map_or(PassphraseInput::Ask, PassphraseInput::Descriptor);
            let report = Some(report);
            let start = Start { sources, config, passphrase, exceptions, report };
            // The reason has been reported and logged; there is no terminal to print it on.
            run::serve(start).map_err(Failure::from)
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
