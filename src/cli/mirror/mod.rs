//! Copies secrets from one side to another, where a side is the store or a service: for `import`, `export` and `sync`.
//!
//! Nothing is remembered between two runs. What is to be done with a name is found by looking at both sides, by
//! the plan, the copy and the final comparison alike ([`Mirror::examine`]); so a run that was killed goes on by being
//! started again. Values are compared by fingerprints under a key that lives as long as the run, so that one value
//! is in memory at a time. No plan, message or error holds a value.

mod crew;
mod engine;
mod fingerprint;
mod local;
mod patience;
mod relation;
mod remote;
mod side;
#[cfg(test)]
mod tests;

pub(crate) use crew::{Crew, Progress};
pub(crate) use engine::{Done, Known, Mirror, Step};
pub(crate) use local::Local;
pub(crate) use patience::Patience;
pub(crate) use remote::Remote;
pub(crate) use side::{Side, Trouble};
