//! Calls of redb, so that neither its panics nor its errors get past the store.
//!
//! redb panics on some damaged pages, also where it only drops something. A panic costs the one
//! call: the daemon lives on, and what it tells its caller is that the store is damaged.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::StoreError;

/// Calls redb; a panic of it is damage. What the call was changing must not be used afterwards,
/// but for closing it.
pub(super) fn contain<T>(call: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, StoreError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(StoreError::from),
        Err(panic) => Err(StoreError::Damaged(panic_message(panic.as_ref()))),
    }
}

/// Drops what belongs to redb: that ends transactions and gives back pages, and may panic as well.
pub(super) fn release<T>(owned: T) -> Result<(), StoreError> {
    contain(|| {
        drop(owned);
        Ok(())
    })
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("redb panicked").to_owned()
}

impl From<redb::Error> for StoreError {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the enum is open, and the rest is damage")]
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => Self::Locked,
            redb::Error::DatabaseClosed
            | redb::Error::LockPoisoned(_)
            | redb::Error::PreviousIo
            | redb::Error::TransactionPoisoned => Self::Broken,
            redb::Error::Io(error) => match error.kind() {
                // A foreign file, and one that ends too early.
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                    Self::Damaged(error.to_string())
                }
                _ => Self::Io(error),
            },
            other => Self::Damaged(other.to_string()),
        }
    }
}
