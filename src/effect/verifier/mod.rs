//! Verifiers: how a new value is shown to work before anybody is given it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::ssh_key::PublicKey;
use super::step::{Outcome, Step, invalid};
use super::{Address, Command, Target};

mod http;
mod tls;

/// A way to try a new value.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Verifier {
    /// A program says so.
    Exec(Exec),
    /// A web server answers a request with the value in a header as expected.
    Http(Http),
    /// The target lets the new credential in.
    Login(Nothing),
    /// The stored value is the one that was made. It is the driver's, for it has the store.
    ReadBack(Nothing),
    /// The value is a private key that SSH can use.
    SshKey(Nothing),
    /// The value is a certificate chain with its key, and a server presents it.
    Tls(Presented),
}

impl Verifier {
    /// Returns the word for it in configuration and results.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Exec(_) => "exec",
            Self::Http(_) => "http",
            Self::Login(_) => "login",
            Self::ReadBack(_) => "read_back",
            Self::SshKey(_) => "ssh_key",
            Self::Tls(_) => "tls",
        }
    }

    /// Tries the new value.
    pub(super) fn verify(&self, target: Option<&Target>, step: &Step<'_>) -> Outcome {
        match self {
            Self::Exec(verifier) => verifier.command.with_values("verify", step),
            Self::Http(verifier) => verifier.verify(step),
            Self::Login(_) => {
                target.ok_or_else(|| invalid("there is no target to log in to"))?.login(step)
            }
            Self::ReadBack(_) => Err(invalid("the effector has no store to read from")),
            Self::SshKey(_) => {
                let key = PublicKey::of_private(step.new_value()?);
                let key = key.map_err(|error| invalid(&error.to_string()))?;
                Ok(format!("the value is a private key of the type {}", key.algorithm))
            }
            Self::Tls(verifier) => verifier.verify(step),
        }
    }
}

/// A verifier without settings; any key is an error.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// A program that exits with 0 if the new value works.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Exec {
    pub command: Command,
}

/// A GET request. Redirections are not followed: another server must not get the value.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// `http://` or `https://`; without TLS only to this host itself.
    pub url: String,
    /// The header that carries the password in the value.
    pub header: String,
    /// What stands before it, such as `Bearer `.
    #[serde(default)]
    pub prefix: String,
    #[serde(default = "ok")]
    pub status: u16,
    /// A PEM file with the authorities that are trusted; the system's, if none is named.
    pub ca: Option<PathBuf>,
}

fn ok() -> u16 {
    200
}

/// A server that presents the certificate in the value; without an address, the pair alone is tried.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Presented {
    /// Port 443 unless it says another.
    pub address: Option<Address>,
    /// The name that is asked for, if it is not the one in the address.
    pub server_name: Option<String>,
}
