//! `up`: a store if there is none, and a mount that serves when the command returns.

use std::process::ExitCode;

use super::init::{admins, made_value};
use super::layer;
use super::mount::{self, Wish};
use crate::cli::Context;
use crate::cli::args::Up;
use crate::cli::error::Failure;
use crate::cli::plaintext;
use crate::daemon::compose::Exceptions;
use crate::daemon::config::KeyConfig;
use crate::daemon::init::{self, PassphraseInput};

pub(super) fn run(context: &Context, args: &Up) -> Result<ExitCode, Failure> {
    let flags = layer(args.mountpoint.as_deref(), &args.key)?;
    let (sources, config) = context.config(args.system.system, flags)?;
    let mut passphrase = mount::passphrase(&config.key, &args.key.from);
    if !config.store().exists() {
        if let (KeyConfig::Passphrase, PassphraseInput::Ask) = (&config.key, &passphrase) {
            passphrase = PassphraseInput::Given(plaintext::new_passphrase()?);
        }
        let admins = admins(&args.admins, &context.environment)?;
        // A descriptor is read once, and the mount needs the passphrase after the store.
        passphrase = mount::read_descriptor(passphrase)?;
        let made = init::init(&config, admins, &passphrase)?;
        if !context.out.is_json() {
            context.out.note(format!("made a store in {}", config.state_dir.display()));
        }
        tracing::debug!(made = %made_value(&made), "store made");
    }
    let (foreground, exceptions) = (args.foreground, Exceptions::default());
    mount::start(context, Wish { sources, config, passphrase, foreground, exceptions })
}
