//! The grammar of rotation.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use clap_complete::engine::ArgValueCompleter;

use crate::cli::client::complete_name;
use crate::model::SecretName;

/// A rotation. A value that is given is staged first, which takes `admin`; a generated one takes `write`.
#[derive(Args, Debug)]
pub(crate) struct Rotate {
    /// The secret.
    #[arg(add = ArgValueCompleter::new(complete_name), required_unless_present = "all_due")]
    pub name: Option<SecretName>,
    /// Takes the new value from a file.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, group = "given")]
    pub value_file: Option<PathBuf>,
    /// Takes the new value from standard input.
    #[arg(long, group = "given")]
    pub stdin: bool,
    /// Takes the value that was written to NAME@pending.
    #[arg(long, group = "given")]
    pub pending: bool,
    /// Does not prove that the new value works.
    #[arg(long)]
    pub no_verify: bool,
    /// Leaves everything as it is if a step fails.
    #[arg(long)]
    pub no_rollback: bool,
    /// Says what would be done, and does nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Waits up to this long, such as 60s, for who holds the old value before it is retired.
    #[arg(long, value_name = "SPAN")]
    pub wait_adopted: Option<String>,
    /// Rotates everything that is due by the schedule.
    #[arg(long, conflicts_with_all = ["name", "given", "dry_run", "wait_adopted", "no_verify", "no_rollback"])]
    pub all_due: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Rotations {
    /// The secret; without one, all that the audit log knows.
    #[arg(add = ArgValueCompleter::new(complete_name))]
    pub name: Option<SecretName>,
    /// What is due by the schedule, and when.
    #[arg(long, conflicts_with = "name")]
    pub due: bool,
    /// How many at most, the last ones; 0 for all.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub limit: usize,
}
