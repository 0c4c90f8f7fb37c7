//! `server`: what `up` and `mount` have their keeper start, again and again.

use std::ffi::OsString;

use super::{Done, layer};
use crate::cli::Context;
use crate::cli::args::ServerArgs;
use crate::daemon::compose::Exceptions;
use crate::daemon::config::{KeyConfig, Sources};
use crate::daemon::init::PassphraseInput;
use crate::daemon::paths::Mode;
use crate::daemon::run::{self, Start};

pub(super) fn run(context: &Context, args: &ServerArgs) -> Done {
    let name = if args.spare { c"secretfs-spare" } else { c"secretfs" };
    let Some(turn) = run::await_turn(name)? else { return Ok(()) };
    let flags = layer(args.mountpoint.as_deref(), &args.key)?;
    let (sources, config) = context.config(args.system.system, flags)?;
    let exceptions = Exceptions { accept_rollback: args.accept_rollback };
    let passphrase = PassphraseInput::Ask;
    Ok(run::serve_kept(Start { sources, config, passphrase, exceptions, report: None }, turn)?)
}

/// Returns the arguments that lead a server to the same configuration.
pub(super) fn arguments(context: &Context, sources: &Sources) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = Vec::new();
    let mut add = |name: &str, value: Option<OsString>| {
        arguments.push(name.into());
        arguments.extend(value);
    };
    if context.out.is_json() {
        add("--json", None);
    }
    if let Some(file) = &sources.file {
        add("--config", Some(file.into()));
    }
    add("server", None);
    if sources.mode == Mode::System {
        add("--system", None);
    }
    if let Some(mountpoint) = &sources.flags.mountpoint {
        add("--mountpoint", Some(mountpoint.0.clone().into()));
    }
    match sources.flags.key.given() {
        None => {}
        Some(KeyConfig::Backend(key)) => {
            add("--key-backend", Some(key.backend.into()));
            add("--key-name", Some(key.name.into()));
        }
        Some(KeyConfig::Credential { name, .. }) => add("--credential", Some(name.into())),
        Some(KeyConfig::File(path)) => add("--key-file", Some(path.into())),
        Some(KeyConfig::Passphrase) => add("--passphrase", None),
    }
    arguments
}
