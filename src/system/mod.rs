//! The operating system: the only module with `unsafe`.
#![allow(unsafe_code, reason = "this is where it is allowed; each block says why it is sound")]

pub mod atomic_file;
mod descriptor;
mod harden;
pub mod memory;
#[cfg(test)]
pub(crate) mod probe;

pub use descriptor::read_line;
pub use harden::harden_process;
pub use memory::{Locked, MemoryError, SecretBuffer, SecretBytes};
