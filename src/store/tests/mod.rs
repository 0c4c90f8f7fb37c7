//! The tests of the store: what every implementation promises, and what the files survive.

mod conformance;
mod crash;
mod damage;
pub(crate) mod disk;
mod file;
mod journal;
