//! secretfs: a filesystem of secrets. `docs/ARCHITECTURE.md` says which module may use which.

pub mod audit;
pub mod broker;
pub mod cli;
pub mod crypto;
pub mod daemon;
pub mod fs;
pub mod identity;
pub mod keysource;
pub mod model;
pub mod policy;
pub mod scan;
pub mod store;
pub mod system;
pub mod versions;
