//! Who is calling: from the numbers in a FUSE request to a [`Caller`](crate::model::Caller).
//!
//! The uid and gid of a request are the kernel's word. All else is looked up in `/proc` while the
//! caller waits for its reply, and held against a pidfd of the very thread, so that nothing is
//! taken from another process that got the same number.
#![forbid(unsafe_code)]

mod callers;
mod cgroup;
pub mod observer;
mod table;

#[cfg(test)]
mod tests;

pub use callers::{Callers, Options};
pub use observer::Observer;
