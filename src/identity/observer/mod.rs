//! A process with CAP_SYS_PTRACE and nothing else, which reads `/proc/TID/exe` for the server.
//!
//! The server has no capability, and without this one the kernel does not show what other users'
//! processes run. The observer answers two questions, where the program is and what its SHA-256 is,
//! and never sees a secret.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use serde::{Deserialize, Serialize};

use crate::model::Exe;

mod client;
mod digest;
mod server;

pub use client::Observer;
pub use server::serve;

/// Whether the program's digest is asked for.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Digest {
    Unwanted,
    Wanted,
}

/// A question about a thread.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
struct Request {
    /// Comes back in the reply.
    serial: u64,
    tid: u32,
    /// Whose thread it is: work that may take long is queued for each user apart.
    uid: u32,
    digest: Digest,
}

/// The answer to one request.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Reply {
    serial: u64,
    exe: Option<Seen>,
}

/// A program as the observer sees it.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Seen {
    path: Vec<u8>,
    sha256: Option<[u8; 32]>,
}

impl From<Seen> for Exe {
    fn from(seen: Seen) -> Self {
        Self { path: OsString::from_vec(seen.path).into(), sha256: seen.sha256 }
    }
}
