//! Why the daemon did not start, or ended.

use std::io;
use std::path::PathBuf;

use super::config::ConfigError;
use super::lock::LockError;
use super::trust::TrustError;
use crate::broker::BrokerError;
use crate::inject::TemplateError;
use crate::model::TextError;
pub(super) use crate::model::chain;
use crate::policy::PolicyError;
use crate::system::MountpointError;

/// One variant per thing the administrator can do about it.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error("a secretfs already serves {0}")]
    Busy(PathBuf),
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The store is there already, and `init` never replaces one.
    #[error("{0} exists already")]
    Exists(PathBuf),
    #[error("{doing} failed")]
    Io { doing: String, source: io::Error },
    /// It may hold what the store lacks, wherever that is.
    #[error("{0} is there, but not the store that it belongs to")]
    JournalAlone(PathBuf),
    /// The key source gave no key, or the wrong one.
    #[error("the root key could not be had: {0}")]
    Key(String),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error("mounting {path} failed")]
    Mount { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Mountpoint(#[from] MountpointError),
    #[error("there is no store in {0}")]
    NoStore(PathBuf),
    #[error("{path}: {source}")]
    Policy { path: PathBuf, source: PolicyError },
    /// Of rotations, injections or anomalies.
    #[error("{path}: {source}")]
    Settings { path: PathBuf, source: TextError },
    #[error("{path}: {source}")]
    Template { path: PathBuf, source: TemplateError },
    #[error("two templates are called {0}")]
    TemplateTwice(String),
    #[error(transparent)]
    Trust(#[from] TrustError),
}

impl DaemonError {
    /// Returns a converter of I/O errors that says what was being done.
    pub fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }

    /// Returns the message with those of its sources, joined by colons.
    pub fn chain(&self) -> String {
        chain(self)
    }
}
