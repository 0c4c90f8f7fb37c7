//! A key of a service that never leaves it: has it seal or open, for a server that has no network.
//!
//! Which services and keys may be asked stands in the configuration, and whoever carries the order out looks there.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What is to be sealed or opened, and where.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct KeyOrder {
    /// The service's name in the configuration.
    pub backend: String,
    /// Its key's name there.
    pub name: String,
    /// After which the order is ended.
    pub time: Duration,
    /// What is to be opened. Without it the value that comes along is to be sealed.
    pub wrapped: Option<String>,
}
