//! The operating system: the only module with `unsafe`.
#![allow(unsafe_code, reason = "this is where it is allowed; each block says why it is sound")]

mod channel;
mod memory;
mod pidfd;
mod privileges;
pub mod procfs;

pub use channel::Channel;
pub use memory::SecretBytes;
pub use pidfd::{PidFd, PidInfo};
pub use privileges::keep_only_ptrace;
