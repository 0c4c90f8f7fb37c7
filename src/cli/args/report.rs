//! The grammar of `report` and `policy suggest`, which look back over the log.

use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};

use crate::report::Framework;

/// Over which log.
#[derive(Args, Debug)]
pub(crate) struct Recorded {
    /// From when on: a date, a time, or a span before now.
    #[arg(long, value_name = "WHEN", default_value = "90d")]
    pub since: String,
    /// Looks at this recorded log in place of the daemon's: a file of `log --json`, or segments of
    /// STATE/audit in their order. It needs neither daemon nor key; "now" is its last line.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, num_args = 1..)]
    pub replay: Vec<PathBuf>,
    /// For --replay: the policy to go by.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "replay")]
    pub policy: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct Report {
    /// Whose controls.
    #[arg(value_name = "FRAMEWORK", value_enum)]
    pub framework: FrameworkName,
    #[command(flatten)]
    pub log: Recorded,
    /// Writes the report as one page with pictures, for a browser.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub html: Option<PathBuf>,
    /// A TOML file of limits other than the built-in ones.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub limits: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct PolicySuggest {
    #[command(flatten)]
    pub log: Recorded,
    /// Takes what was allowed by grants for a time too, as if it were for good.
    #[arg(long)]
    pub with_grants: bool,
    /// Repeats the log to the line: names sessions and containers where nothing else tells who was allowed from
    /// who was refused.
    #[arg(long)]
    pub exact: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum FrameworkName {
    /// HIPAA Security Rule, technical safeguards.
    Hipaa,
    /// PCI DSS 4.0.
    Pci,
    /// SOC 2, Trust Services Criteria.
    Soc2,
}

impl From<FrameworkName> for Framework {
    fn from(name: FrameworkName) -> Self {
        match name {
            FrameworkName::Hipaa => Self::Hipaa,
            FrameworkName::Pci => Self::Pci,
            FrameworkName::Soc2 => Self::Soc2,
        }
    }
}
