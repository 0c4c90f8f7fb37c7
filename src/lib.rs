//! secretfs: a filesystem of secrets. `docs/ARCHITECTURE.md` says which module may use which.

pub mod anomaly;
pub mod audit;
pub mod backend;
pub mod broker;
pub mod cli;
pub mod credential;
pub mod crypto;
pub mod daemon;
pub mod effect;
pub mod fs;
pub mod generate;
pub mod identity;
pub mod inject;
pub mod keysource;
pub mod model;
pub mod policy;
pub mod report;
pub mod rotation;
pub mod route;
pub mod scan;
pub mod schedule;
pub mod store;
pub mod system;
pub mod versions;
