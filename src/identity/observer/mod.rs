//! A process with CAP_SYS_PTRACE and nothing else, which looks and touches for the server.
//!
//! The server has no capability, and without this one the kernel does not show what other users'
//! processes run: the observer reads `/proc/TID/exe`. And the server must not use its own mount, which
//! it could not answer for: the observer opens and closes there what has changed, so that watchers
//! are told. It never sees a secret.

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

/// What the server asks for.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Request {
    /// Comes back in the reply.
    serial: u64,
    task: Task,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
enum Task {
    /// Says which process it is.
    Introduce,
    Look(Question),
    /// Opens this path for writing and closes it.
    Touch(Vec<u8>),
}

/// A question about a thread.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
struct Question {
    tid: u32,
    /// Whose thread it is: work that may take long is queued for each user apart.
    uid: u32,
    digest: Digest,
}

/// The answer to one request.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Reply {
    serial: u64,
    answer: Answer,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
enum Answer {
    Exe(Option<Seen>),
    /// The observer's process id.
    Process(u32),
    /// The errno, or 0.
    Touched(i32),
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
