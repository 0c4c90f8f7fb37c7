//! The record of who did what: an append-only, chained log.
#![forbid(unsafe_code)]

/// Why an event could not be recorded, or a log not be read.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    #[error("the audit log cannot be written or read")]
    Io(#[from] std::io::Error),
    /// The file under the daemon was replaced, truncated or unlinked.
    #[error("the audit log was changed under the daemon: {0}")]
    Tampered(String),
}
