//! The operating system: the only module with `unsafe`.
#![allow(unsafe_code, reason = "this is where it is allowed; each block says why it is sound")]

pub mod atomic_file;
mod channel;
mod clock;
mod descriptor;
mod harden;
mod mapping;
pub mod memory;
mod mounts;
mod pidfd;
mod privileges;
#[cfg(test)]
pub(crate) mod probe;
pub mod procfs;
mod signals;

pub use channel::Channel;
pub use clock::SystemClock;
pub use descriptor::read_line;
pub use harden::harden_process;
pub use mapping::Mapping;
pub use memory::{Locked, MemoryError, SecretBuffer, SecretBytes};
pub use mounts::{
    FUSE_MAGIC, Mount, Mountpoint, MountpointError, RAMFS_MAGIC, TMPFS_MAGIC, Unmount,
    filesystem_magic, filesystem_magic_of, is_protected, is_stale, mounts, parse_mountinfo,
    remove_mountpoint, topmost, unmount,
};
pub use pidfd::{PidFd, PidInfo};
pub use privileges::keep_only_ptrace;
pub use signals::{Asked, Signals, Stopper};
