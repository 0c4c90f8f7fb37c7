//! The mounted tree: a thin adapter for the kernel over plain calls, and the broker behind them.
//!
//! [`Tree`] says what each request means, [`serve`] joins it to the kernel. Nothing here decides
//! who may do what, and nothing that one caller was told is kept for another.
#![forbid(unsafe_code)]

mod attributes;
mod by;
pub mod control;
mod directory;
mod draft;
mod errno;
mod error;
mod fuse;
#[doc(hidden)]
pub mod fuzzing;
mod handle;
mod inode;
mod journal;
mod mount;
mod node;
mod numbered;
mod quota;
mod refusal;
mod render;
mod scratch;
mod takeover;
mod tree;
mod turns;
mod views;
mod workers;
mod writer;
mod xattr;

use std::time::Instant;

use crate::model::{Caller, Uid};

pub use attributes::Owners;
pub use journal::Journal;
pub use mount::{Mount, Options, open_device, serve};
pub use refusal::refuse;
pub use render::{Oneiric, Renderings, Set, Template};
pub use scratch::is_scratch_name;
pub use tree::{Death, Parts, Tree};

/// Tells who is behind a request. The daemon joins it to what it knows of processes.
pub trait Identify: Send + Sync {
    /// Returns the caller. `uid` and `gid` are the kernel's fsuid and fsgid; `tid` is a thread id,
    /// or 0 for a caller outside our pid namespace. The thread waits for its answer meanwhile, so
    /// its /proc entry is its own.
    fn identify(&self, uid: u32, gid: u32, tid: u32) -> Caller;

    /// Returns the caller with as much as the policy in force asks for; the rest is found out if
    /// it comes to a record. For questions about names, which are many and mostly not recorded.
    fn glimpse(&self, uid: u32, gid: u32, tid: u32) -> Caller;
}

/// A file that is to be touched.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Touched {
    /// From the root of the mount.
    pub path: String,
    /// Whose, where each caller has one of its own there.
    pub uid: Option<Uid>,
}

/// Touches files on the mount, so that watchers are told of what the daemon has changed: the kernel
/// raises an event when a file is closed, not when its bytes become others.
pub trait Touch: Send + Sync {
    /// Has the file opened for writing and closed, soon, but not before `earliest`; does not wait for it.
    fn touch(&self, file: Touched, earliest: Option<Instant>);

    /// Returns whose file is being touched, where each caller has one of its own there.
    fn whose(&self) -> Option<Uid>;

    /// Tells whether a thread is the one that touches. It is no caller: nothing that it does is
    /// asked of the policy or recorded, and it gets no byte.
    fn is_toucher(&self, tid: u32) -> bool;
}
