//! The operating system: the only module with `unsafe`.
#![allow(unsafe_code, reason = "this is where it is allowed; each block says why it is sound")]

mod allocator;
mod anchor;
pub mod atomic_file;
pub mod binds;
mod channel;
mod clock;
mod descriptor;
mod harden;
mod key_cell;
mod mapping;
mod memfd;
pub mod memory;
mod mounts;
mod parcel;
mod pidfd;
mod privileges;
#[cfg(test)]
pub(crate) mod probe;
pub mod procfs;
mod program;
mod sandbox;
mod service_user;
mod shared_map;
mod signals;
mod stand_in;

pub use allocator::map_large_allocations;
pub use anchor::Anchor;
pub use channel::{Channel, receive_descriptors};
pub use clock::SystemClock;
pub use descriptor::{close_from, duplicate_descriptor, read_line};
pub use harden::{die_with_parent, harden_process, name_process};
pub use key_cell::KeyCell;
pub use mapping::Mapping;
pub use memfd::{KeyMemory, replace_descriptor, shared_memory};
pub use memory::{Locked, MemoryError, SecretBuffer, SecretBytes};
pub use mounts::{
    FUSE_MAGIC, Mount, MountWatch, Mountpoint, MountpointError, RAMFS_MAGIC, TMPFS_MAGIC, Unmount,
    filesystem_magic, filesystem_magic_of, is_protected, is_stale, mounts, parse_mountinfo,
    remove_mountpoint, topmost, unmount,
};
pub use parcel::{Parcel, readable_memory};
pub use pidfd::{PidFd, PidInfo};
pub use privileges::keep_only_ptrace;
pub use program::{Rights, confer};
pub use sandbox::{Confined, Sandbox};
pub use service_user::{ServiceUser, service_user};
pub use shared_map::SharedMap;
pub use signals::{Asked, Signals, Stopper};
pub use stand_in::{StandInError, stand_in_for};
