//! The grammar of scanning.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

use super::parse_type;
use crate::model::SecretType;
use crate::scan::report::Format;
use crate::scan::{Confidence, Glob, Severity};

#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Scan {
    #[command(subcommand)]
    pub command: Option<ScanCommand>,
    /// Files and directories, or - for standard input; the working directory if none is named.
    #[arg(value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub paths: Vec<PathBuf>,
    /// Scans what the next commit of the repository here would add.
    #[arg(long, conflicts_with_all = ["paths", "history"])]
    pub staged: bool,
    /// Scans every file that was ever in the repository here, or that a range of commits has brought.
    #[arg(long, value_name = "REV..REV", num_args = 0..=1, require_equals = true, conflicts_with = "paths")]
    pub history: Option<Option<String>>,
    /// Looks for the values of the mounted store, too: every version of what you may read.
    #[arg(long)]
    pub own: bool,
    /// Offers to rotate each secret whose current value was found.
    #[arg(long, requires = "own")]
    pub rotate: bool,
    /// Rotates without asking.
    #[arg(long, requires = "rotate")]
    pub yes: bool,
    /// The form of the report: text, json, sarif, csv or html.
    #[arg(long, value_name = "FORMAT", value_parser = parse_word::<Format>, conflicts_with = "json")]
    pub format: Option<Format>,
    /// Writes the report into a file instead of to standard output.
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,
    /// Only findings that are at least so sure, from 0 to 1.
    #[arg(long, value_name = "N", default_value = "0.5", value_parser = parse_word::<Confidence>)]
    pub min_confidence: Confidence,
    /// Only findings that are at least so bad: low, medium, high or critical.
    #[arg(long, value_name = "SEVERITY", default_value = "low", value_parser = parse_word::<Severity>)]
    pub min_severity: Severity,
    /// Only secrets of this type; may be given again.
    #[arg(long = "type", value_name = "TYPE", value_parser = parse_type)]
    pub types: Vec<SecretType>,
    /// Only files that fit, such as '*.env' or 'deploy/'; may be given again.
    #[arg(long = "only", value_name = "PATTERN")]
    pub only: Vec<Glob>,
    /// Never files that fit; may be given again.
    #[arg(long, value_name = "PATTERN")]
    pub exclude: Vec<Glob>,
    /// Scans files that .gitignore names, too.
    #[arg(long)]
    pub no_ignore: bool,
    #[command(flatten)]
    pub rules: ScanRules,
    /// Leaves out the findings that a baseline holds.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub baseline: Option<PathBuf>,
    /// Writes all findings into a baseline, and succeeds.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub write_baseline: Option<PathBuf>,
    /// Lists suppressed findings too.
    #[arg(long)]
    pub suppressed: bool,
    /// Lists what matched and was taken for no secret, with the reason.
    #[arg(long)]
    pub explain: bool,
}

/// Rules besides those that come with the program.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ScanRules {
    /// Adds the rules and exceptions of a file, over those of the same id; may be given again.
    #[arg(long = "rules", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub files: Vec<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ScanCommand {
    /// Lists the rules, or tests each with its own examples.
    Rules(ScanRulesArgs),
    /// Has git scan what is to be committed, in the repository here.
    #[command(subcommand)]
    Hook(ScanHook),
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum ScanHook {
    /// Writes the hook; one that is there is kept and runs first.
    Install,
    /// Removes the hook, and puts back the one that was there before.
    Uninstall,
}

#[derive(Args, Debug)]
pub(crate) struct ScanRulesArgs {
    #[command(flatten)]
    pub rules: ScanRules,
    /// Runs each rule over its examples.
    #[arg(long)]
    pub test: bool,
}

fn parse_word<T: std::str::FromStr<Err = String>>(text: &str) -> Result<T, String> {
    text.parse()
}
