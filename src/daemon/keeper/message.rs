//! What the keeper and a server say to each other.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::fs::Death;

/// From the keeper.
#[derive(Debug, Deserialize, Serialize)]
pub(in crate::daemon) enum ToServer {
    /// The first message; journal and key follow as descriptors, and the passphrase if there is one.
    Launch(Launch),
    /// The answer to [`FromServer::Opened`]: the device follows as a descriptor.
    Mounted,
    /// Drains and ends; a successor is waiting.
    Retire,
    Reload,
    /// Ends; the mount is out of the tree.
    Stop,
}

/// How a server is started.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(in crate::daemon) struct Launch {
    /// The keeper's pid.
    pub(in crate::daemon) keeper: u32,
    /// How the server before this one ended, if there was one.
    pub(in crate::daemon) predecessor: Option<Death>,
    /// Servers that were started after the first.
    pub(in crate::daemon) restarts: u64,
    /// When the mount was made, in seconds since 1970.
    pub(in crate::daemon) since: i64,
    /// Whether a passphrase is among the descriptors.
    pub(in crate::daemon) passphrase: bool,
}

/// From a server.
#[derive(Debug, Deserialize, Serialize)]
pub(in crate::daemon) enum FromServer {
    /// All is well; sent again and again.
    Alive,
    /// Wants an effector; its end of a channel comes along.
    Effector,
    /// It does not start, for this reason.
    Failed(String),
    /// Wants an observer, in the same way.
    Observer,
    /// Store and log are open: the device can come.
    Opened,
    /// It serves.
    Ready,
    /// It was asked to end.
    Stop,
    /// The mount is gone.
    Unmounted,
    /// The program at this path is to succeed it; its owner and mode were checked.
    Upgrade(PathBuf),
}
