//! The grammar of `anomalies`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

#[derive(Args, Debug)]
pub(crate) struct Anomalies {
    /// Looks at this recorded log, in place of what the daemon has found: a file of `log --json`, or
    /// segments of STATE/audit in their order.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, num_args = 1..)]
    pub replay: Vec<PathBuf>,
    /// For --replay: an anomalies.toml, in place of the configured one.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "replay")]
    pub tuning: Option<PathBuf>,
    /// Only the newest N; 0 shows all.
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub limit: usize,
}
