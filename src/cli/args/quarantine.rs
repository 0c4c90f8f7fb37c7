//! The grammar of quarantines.

use clap::{Args, Subcommand};

#[derive(Args, Debug)]
pub(crate) struct Quarantine {
    #[command(subcommand)]
    pub command: Option<QuarantineCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum QuarantineCommand {
    /// Keeps a user who is no admin from every secret for a while; files that are open stay so.
    Add {
        /// Who.
        #[arg(value_name = "UID|USER")]
        user: String,
        /// For how long, such as 15m or 2h; 7 days at most.
        #[arg(long = "for", value_name = "SPAN")]
        lasting: String,
        /// Why; it is on record.
        #[arg(long, value_name = "REASON")]
        reason: String,
    },
    /// Ends a user's quarantine before its time.
    Lift {
        /// Who.
        #[arg(value_name = "UID|USER")]
        user: String,
    },
    /// Lists who is quarantined; without another word this is done.
    List,
}
