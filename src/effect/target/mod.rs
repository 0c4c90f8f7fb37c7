//! Targets: where a credential is used, and so has to be changed.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::step::{Outcome, Step};
use super::{Address, Command};
use crate::model::SecretName;

mod authorized_keys;
mod exec;
mod mysql;
mod postgresql;
mod redis;
mod users;

pub use users::Users;

/// A place that accepts a credential.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Target {
    AuthorizedKeys(AuthorizedKeys),
    Exec(ExecTarget),
    Mysql(Mysql),
    Postgresql(Postgresql),
    Redis(Redis),
}

impl Target {
    /// Returns the word for it in configuration and results.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::AuthorizedKeys(_) => "authorized_keys",
            Self::Exec(_) => "exec",
            Self::Mysql(_) => "mysql",
            Self::Postgresql(_) => "postgresql",
            Self::Redis(_) => "redis",
        }
    }

    /// Returns the secret with the credential that changes others.
    pub fn admin(&self) -> Option<&SecretName> {
        match self {
            Self::AuthorizedKeys(_) => None,
            Self::Exec(ExecTarget { admin_secret, .. })
            | Self::Mysql(Mysql { admin_secret, .. })
            | Self::Postgresql(Postgresql { admin_secret, .. })
            | Self::Redis(Redis { admin_secret, .. }) => admin_secret.as_ref(),
        }
    }

    /// Tells whether the current and the new value both work between set and finish.
    pub fn holds_two(&self) -> bool {
        match self {
            Self::AuthorizedKeys(_) | Self::Mysql(_) | Self::Redis(_) => true,
            Self::Exec(target) => target.holds_two,
            Self::Postgresql(target) => target.user.alternate(),
        }
    }

    /// Tells whether two users take turns, so that the value has to name the one whose turn it is.
    pub fn takes_turns(&self) -> bool {
        match self {
            Self::AuthorizedKeys(_) | Self::Exec(_) | Self::Redis(_) => false,
            Self::Mysql(Mysql { user, .. }) | Self::Postgresql(Postgresql { user, .. }) => {
                user.alternate()
            }
        }
    }

    /// Returns the user that the next value is for, given the one in the current value. `None` where a
    /// target has no names of users.
    pub fn next_user(&self, current: Option<&str>) -> Option<&str> {
        match self {
            Self::AuthorizedKeys(_) | Self::Exec(_) => None,
            Self::Mysql(Mysql { user, .. }) | Self::Postgresql(Postgresql { user, .. }) => {
                Some(user.next(current))
            }
            Self::Redis(target) => Some(&target.user),
        }
    }

    /// Has it accept the new value.
    pub(super) fn set(&self, step: &Step<'_>) -> Outcome {
        match self {
            Self::AuthorizedKeys(target) => target.set(step),
            Self::Exec(target) => target.set(step),
            Self::Mysql(target) => target.set(step),
            Self::Postgresql(target) => target.set(step),
            Self::Redis(target) => target.set(step),
        }
    }

    /// Tries the new value there.
    pub(super) fn login(&self, step: &Step<'_>) -> Outcome {
        match self {
            Self::AuthorizedKeys(target) => target.login(step),
            Self::Exec(target) => target.login(step),
            Self::Mysql(target) => target.login(step),
            Self::Postgresql(target) => target.login(step),
            Self::Redis(target) => target.login(step),
        }
    }

    /// Has it accept the new value alone.
    pub(super) fn finish(&self, step: &Step<'_>) -> Outcome {
        match self {
            Self::AuthorizedKeys(target) => target.finish(step),
            Self::Exec(target) => target.finish(step),
            Self::Mysql(target) => target.finish(step),
            Self::Postgresql(target) => target.finish(step),
            Self::Redis(target) => target.finish(step),
        }
    }

    /// Has it accept the current value alone.
    pub(super) fn undo(&self, step: &Step<'_>) -> Outcome {
        match self {
            Self::AuthorizedKeys(target) => target.undo(step),
            Self::Exec(target) => target.undo(step),
            Self::Mysql(target) => target.undo(step),
            Self::Postgresql(target) => target.undo(step),
            Self::Redis(target) => target.undo(step),
        }
    }
}

/// How a server is known to be the right one, over TLS.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// A PEM file with the authorities that are trusted; the system's, if none is named.
    pub ca: Option<PathBuf>,
    /// The name in the server's certificate, if it is not the one in the address.
    pub server_name: Option<String>,
}

/// A role of a PostgreSQL server, or two that take turns.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Postgresql {
    /// A host, or the directory of the socket; port 5432 unless it says another.
    pub address: Address,
    pub database: Option<String>,
    #[serde(alias = "users")]
    pub user: Users,
    /// Who changes passwords; without one, the user in the admin's value.
    pub admin_user: Option<String>,
    /// Without one, the server lets the admin in by other means, such as its socket's peer.
    pub admin_secret: Option<SecretName>,
    pub tls: Option<Tls>,
    /// Takes the password from the user whose turn it is not, once the new value is adopted.
    #[serde(default)]
    pub lock_idle: bool,
}

/// A user of a MariaDB server, or two that take turns.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Mysql {
    /// A host, or the path of the socket; port 3306 unless it says another.
    pub address: Address,
    #[serde(alias = "users")]
    pub user: Users,
    /// The host part of the user's name; `%` if none is given.
    #[serde(default = "any_host")]
    pub host: String,
    /// Who changes passwords; without one, the user in the admin's value.
    pub admin_user: Option<String>,
    /// Without one, the server lets the admin in by its socket's peer.
    pub admin_secret: Option<SecretName>,
    pub tls: Option<Tls>,
    /// Takes the password from the user whose turn it is not, once the new value is adopted.
    #[serde(default)]
    pub lock_idle: bool,
}

fn any_host() -> String {
    "%".to_owned()
}

/// A user of a Redis server's access control list.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Redis {
    /// A host, or the path of the socket; port 6379 unless it says another.
    pub address: Address,
    pub user: String,
    /// Who changes passwords; without one, the user in the admin's value, or else `default`.
    pub admin_user: Option<String>,
    pub admin_secret: Option<SecretName>,
    pub tls: Option<Tls>,
}

/// A file of public keys that may log in by SSH; the value is a private key.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AuthorizedKeys {
    /// Who logs in, and with whose rights the file is changed.
    pub user: String,
    /// A file elsewhere than `.ssh/authorized_keys` below the user's home, changed with the effector's
    /// rights; nobody else may be able to change its directory.
    pub path: Option<PathBuf>,
    /// Where a login is tried; this host, unless it says another.
    pub address: Option<Address>,
    /// The keys of the hosts that may answer there; without it, whoever answers is believed.
    pub known_hosts: Option<PathBuf>,
}

/// A program that changes the credential wherever it is; `docs/ROTATION.md` says what it is told.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ExecTarget {
    pub command: Command,
    pub admin_secret: Option<SecretName>,
    /// Whether both values work between `set` and `finish`.
    #[serde(default)]
    pub holds_two: bool,
}
