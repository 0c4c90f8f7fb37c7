//! The grammar of `backend`.

use clap::{Args, Subcommand};

use super::System;

#[derive(Debug, Subcommand)]
pub(crate) enum Backend {
    /// Says what works at a service: reachable, authenticated, may list, may read, and how its clock goes.
    ///
    /// It is tried from here, with the settings of [backend.NAME] in the configuration, and needs no
    /// daemon. The first thing that fails ends it, with exit code 11.
    Check(BackendCheck),
}

#[derive(Args, Debug)]
pub(crate) struct BackendCheck {
    #[command(flatten)]
    pub system: System,
    /// The backend's name in the configuration.
    #[arg(value_name = "NAME")]
    pub name: String,
}
