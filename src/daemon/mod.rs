//! The composition root: joins the parts and runs them.
//!
//! Everything that is decided once a process stands here: where files are, what the configuration
//! says, in which order the parts start and end. What the parts do is theirs.
#![forbid(unsafe_code)]

mod accounts;
pub mod background;
pub mod compose;
pub mod config;
mod confinement;
mod credentials;
mod host;
pub mod init;
mod injections;
pub mod inspection;
pub mod keeper;
mod keys;
pub mod lock;
pub mod logging;
mod metrics;
mod mounting;
mod notify;
mod ownership;
pub mod paths;
pub mod renderings;
pub mod restore;
pub mod run;
mod search;
mod supervision;
mod timers;
mod touch;
pub mod trust;
pub mod unit;
mod watch;
mod wrapping;

mod error;

pub use error::DaemonError;
