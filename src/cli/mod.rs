//! Programs for people: the command line.
//!
//! Running daemons are reached through the mounted tree and its control files alone, so there is no
//! second interface to secure. Values travel over standard input, files and prompts, never in argv.
#![forbid(unsafe_code)]

mod account;
mod args;
mod bar;
mod changes;
mod client;
mod command;
mod error;
mod generate;
mod import;
mod mirror;
mod names;
mod out;
mod plaintext;
mod recorded;
mod selection;
mod snapshot;
mod table;
#[cfg(test)]
mod tests;
mod when;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::daemon::config::Environment;
use args::Cli;
use out::Out;

/// What every command is given.
pub(crate) struct Context {
    args: args::Global,
    environment: Environment,
    out: Out,
}

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    let here = std::env::current_dir().ok();
    // Asked by the shell for completions: answer them and nothing else.
    match clap_complete::CompleteEnv::with_factory(Cli::command)
        .try_complete(std::env::args_os(), here.as_deref())
    {
        Ok(true) => return ExitCode::SUCCESS,
        Ok(false) => {}
        Err(err) => return usage(&err),
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(err) => return usage(&err),
    };
    let Cli { global, command } = cli;
    let out = Out::new(global.json);
    let context = Context { args: global, environment: Environment::of_process(), out };
    match command::run(&context, command) {
        Ok(code) => code,
        Err(failure) => {
            context.out.failure(&failure);
            failure.exit_code()
        }
    }
}

/// Prints clap's message; `--help` and `--version` come this way too, and succeed.
fn usage(err: &clap::Error) -> ExitCode {
    // Nowhere left to complain when the terminal itself is gone.
    drop(err.print());
    ExitCode::from(u8::try_from(err.exit_code()).unwrap_or(2))
}
