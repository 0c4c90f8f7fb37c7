//! The grammar of grants and elevation.

use std::num::NonZeroU32;

use clap::{Args, Subcommand, ValueHint};
use clap_complete::engine::ArgValueCompleter;

use crate::cli::client::complete_name;
use crate::model::{GrantId, Level, Pattern};

#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Grant {
    #[command(subcommand)]
    pub command: Option<GrantCommand>,
    #[command(flatten)]
    pub give: Option<GrantGive>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum GrantCommand {
    /// Agrees to a grant that somebody else has asked for.
    Approve {
        /// The grant.
        #[arg(value_name = "GRANT")]
        grant: GrantId,
    },
    /// Lists the grants that have not ended.
    List,
    /// Ends a grant before its time; files that are open stay so.
    Revoke {
        /// The grant.
        #[arg(value_name = "GRANT")]
        grant: GrantId,
    },
}

/// What is granted, to whom (to oneself, if nobody is named), and for how long. Kinds of facts must all
/// fit; of one kind any does.
#[derive(Args, Debug)]
pub(crate) struct GrantGive {
    /// A name, or a pattern as in the policy.
    #[arg(value_name = "PATTERN", add = ArgValueCompleter::new(complete_name))]
    pub names: Pattern,
    /// What may be done: read, write, delete, admin.
    #[arg(value_name = "LEVEL", required = true)]
    pub levels: Vec<Level>,
    /// For how long, such as 15m or 2h; 30 days at most.
    #[arg(long = "for", value_name = "SPAN", required_unless_present = "break_glass")]
    pub lasting: Option<String>,
    /// Why; it is on record.
    #[arg(long, value_name = "REASON")]
    pub reason: String,
    /// How many reads at most.
    #[arg(long, value_name = "N")]
    pub uses: Option<NonZeroU32>,
    /// A user; may be given again.
    #[arg(long, value_name = "UID|USER")]
    pub uid: Vec<String>,
    /// A group; may be given again.
    #[arg(long, value_name = "GID|GROUP")]
    pub gid: Vec<String>,
    /// A systemd unit; may be given again.
    #[arg(long, value_name = "UNIT")]
    pub unit: Vec<String>,
    /// A container as RUNTIME:ID; may be given again.
    #[arg(long, value_name = "CONTAINER")]
    pub container: Vec<String>,
    /// Only by this program, beside one of those above; may be given again.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub exe: Vec<String>,
    /// Only by a program with this digest; may be given again.
    #[arg(long, value_name = "SHA256")]
    pub exe_sha256: Vec<String>,
    /// Takes it for oneself at once, in an emergency, if the policy says so; this raises an alarm.
    #[arg(long, conflicts_with_all = ["uses", "uid", "gid", "unit", "container", "exe", "exe_sha256"])]
    pub break_glass: bool,
}

/// A code from the authenticator app is asked for on the terminal.
#[derive(Args, Debug)]
pub(crate) struct Elevate {
    /// Makes a seed for your codes, shows it once, and takes the first code to prove that it works.
    #[arg(long, group = "instead")]
    pub enrol: bool,
    /// Ends the elevation of this login session.
    #[arg(long, group = "instead")]
    pub drop: bool,
    /// Forgets the seed of somebody who has lost theirs; for admins.
    #[arg(long, value_name = "UID|USER", group = "instead")]
    pub forget: Option<String>,
}
