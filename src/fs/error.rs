//! Why a call on the tree failed, before it becomes a number.

use std::sync::Arc;

use crate::broker::BrokerError;
use crate::system::MemoryError;

/// What calls on the tree return.
pub(super) type Result<T> = std::result::Result<T, FsError>;

/// One variant per thing the kernel can be told; `errno` gives each its number.
#[derive(Debug, thiserror::Error)]
pub(super) enum FsError {
    #[error("access denied")]
    Access,
    #[error("no such handle, or not opened for this")]
    BadHandle,
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The queue of the workers is full.
    #[error("too many requests are waiting")]
    Busy,
    #[error("the name is taken")]
    Exists,
    /// A handler panicked, or something below failed in a way that a caller cannot repair.
    #[error("internal fault")]
    Fault,
    /// It goes on, and its verdict is told later.
    #[error("still in progress")]
    InProgress,
    #[error("invalid argument")]
    Invalid,
    #[error("is a directory")]
    IsDirectory,
    /// What was written was in the memory of a server that died.
    #[error("what was written is lost: the server died")]
    Lost,
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error("no such attribute")]
    NoAttribute,
    #[error("is not a directory")]
    NotDirectory,
    #[error("the directory is not empty")]
    NotEmpty,
    #[error("no such name")]
    NotFound,
    #[error("operation not permitted")]
    NotPermitted,
    /// The caller's share of scratch space or of plaintext in memory is used up.
    #[error("over quota")]
    Quota,
    /// The secret was revoked while the handle was open.
    #[error("the secret was revoked")]
    Revoked,
    /// The store was sealed while the handle was open.
    #[error("sealed: the value is no longer in memory")]
    Sealed,
    #[error("the inode or handle is not known any more")]
    Stale,
    /// What several waiters are told.
    #[error(transparent)]
    Told(Arc<BrokerError>),
    #[error("took longer than the deadline")]
    TimedOut,
    #[error("larger than the limit")]
    TooBig,
    #[error("too many open handles")]
    TooManyHandles,
    #[error("not supported")]
    Unsupported,
}
