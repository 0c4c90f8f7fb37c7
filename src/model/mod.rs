//! The words of the domain: plain values that every other layer speaks.
//!
//! Nothing here does I/O, and every type is checked when it is made: code that holds one need not
//! ask again whether it is well formed.
#![forbid(unsafe_code)]

mod caller;
mod clock;
mod id;
mod level;
mod metadata;
mod name;
mod pattern;
mod secret_type;

pub use caller::{Caller, Container, Exe, Needs, Process};
