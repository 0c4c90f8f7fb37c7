//! The record of who did what: an append-only, chained log.
//!
//! [`AuditLog::append`] writes one line before the daemon answers, and its failure is the failure of
//! the request. Every line is authenticated under a key that is gone once it was used, so that not even
//! the daemon's memory is enough to rewrite the past; [`verify`] finds and locates what was changed.
//!
//! On disk: a directory of segments, `<first seq>.jsonl`, and `totals.json` for what retention removed.
#![forbid(unsafe_code)]

mod appender;
mod backlog;
mod carried;
mod chain;
mod codes;
mod durability;
mod entry;
mod event;
pub mod export;
mod find;
mod index;
mod line;
mod log_file;
mod reader;
mod recovery;
mod retention;
mod room;
mod segments;
mod tail;
#[cfg(test)]
mod tests;
mod verify;
mod writer;

pub use carried::{Anchor, Carried, Mark};
pub use chain::{AuditKey, Head};
pub use durability::{Disk, Durability, SystemDisk};
pub use entry::Entry;
pub use event::{Action, Event, Outcome, UserNames};
pub use find::{Find, Found, Indexes, complete_segments, find, index_of};
pub use index::Index;
pub use log_file::LogFile;
pub use reader::{Filter, query};
pub use recovery::Rollback;
pub use retention::{Counts, Pruned, Totals};
pub use tail::{back, is_about, onward, tail, written_for};
pub use verify::{Damage, Note, Verified, VerifyError, verify};
pub use writer::{AuditLog, CALM, Options, Recorded};

use crate::model::StoreId;

/// Why an event could not be recorded, or a log not be read.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// An earlier fdatasync failed: what the disk holds is unknown, so nothing more is taken until a restart.
    #[error("the audit log could not be made durable: {0}")]
    Broken(String),
    #[error("the audit log cannot be written or read")]
    Io(#[from] std::io::Error),
    /// A line that is no audit line; `secretfs audit verify` says more.
    #[error("line {line} of {file} is not an audit line")]
    Malformed { file: String, line: u64 },
    /// The directory holds the log of another store, which is never gone on with.
    #[error("the audit log is that of another store: of {log}, and this store is {store}")]
    OtherStore { log: String, store: StoreId },
    /// The log writes such an event itself and takes it from nobody else.
    #[error("an event {0} is written by the log alone")]
    Reserved(Action),
    /// The file under the daemon was replaced, truncated or unlinked.
    #[error("the audit log was changed under the daemon: {0}")]
    Tampered(String),
    #[error("an audit line of {0} bytes is too long")]
    TooLong(usize),
}
