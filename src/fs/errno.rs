//! What the kernel is told. The only place where an error becomes a number.

use libc::c_int;

use super::error::FsError;
use crate::broker::{BrokerError, Fault, KeyError, StoreError};

/// Maps every error by name: a new variant does not compile until somebody has chosen its number.
pub(super) fn errno(error: &FsError) -> c_int {
    match error {
        FsError::Access => libc::EACCES,
        FsError::BadHandle => libc::EBADF,
        FsError::Broker(error) => broker_errno(error),
        FsError::Busy => libc::EAGAIN,
        FsError::Exists => libc::EEXIST,
        FsError::Fault | FsError::Lost => libc::EIO,
        FsError::InProgress => libc::EINPROGRESS,
        FsError::Invalid => libc::EINVAL,
        FsError::IsDirectory => libc::EISDIR,
        FsError::Memory(_) => libc::ENOMEM,
        FsError::NoAttribute => libc::ENODATA,
        FsError::NotDirectory => libc::ENOTDIR,
        FsError::NotEmpty => libc::ENOTEMPTY,
        FsError::NotFound => libc::ENOENT,
        FsError::NotPermitted => libc::EPERM,
        FsError::Quota => libc::EDQUOT,
        FsError::Revoked => libc::EKEYREVOKED,
        FsError::Sealed => libc::ENOKEY,
        FsError::Stale => libc::ESTALE,
        FsError::Told(error) => broker_errno(error),
        FsError::TimedOut => libc::ETIMEDOUT,
        FsError::TooBig => libc::EFBIG,
        FsError::TooManyHandles => libc::EMFILE,
        FsError::Unsupported => libc::EOPNOTSUPP,
    }
}

fn broker_errno(error: &BrokerError) -> c_int {
    match error {
        // Nothing was read or written; only the log, or the reply, can say more.
        BrokerError::Audit(_) | BrokerError::RotationFailed { .. } => libc::EIO,
        BrokerError::Damaged(_) => libc::EBADMSG,
        BrokerError::Denied | BrokerError::Refused(_) => libc::EACCES,
        BrokerError::Exists(_) => libc::EEXIST,
        BrokerError::Busy(_) | BrokerError::ExpectationFailed { .. } | BrokerError::Rotating(_) => {
            libc::EBUSY
        }
        BrokerError::Expired(_) => libc::EKEYEXPIRED,
        BrokerError::Invalid(_) | BrokerError::Name(_) | BrokerError::Policy(_) => libc::EINVAL,
        BrokerError::IsDirectory(_) => libc::EISDIR,
        BrokerError::Key(error) => key_errno(error),
        BrokerError::NotDirectory(_) => libc::ENOTDIR,
        BrokerError::NotEmpty(_) => libc::ENOTEMPTY,
        BrokerError::NotFound(_) => libc::ENOENT,
        BrokerError::OtherRoute(_) => libc::EXDEV,
        BrokerError::Quota { .. } => libc::EDQUOT,
        BrokerError::Revoked(_) => libc::EKEYREVOKED,
        // Only a start meets it, and then there is no mount.
        BrokerError::Rollback { .. } => libc::EIO,
        BrokerError::Sealed => libc::ENOKEY,
        BrokerError::Store(error) => store_errno(error),
        BrokerError::TooBig { .. } => libc::EFBIG,
        BrokerError::Unsupported(_) => libc::EOPNOTSUPP,
        BrokerError::Upstream(error) => upstream_errno(error.fault),
        // The wait for the verification, or for a service, has used up the deadline.
        BrokerError::Changing(_)
        | BrokerError::Elsewhere(_)
        | BrokerError::Unfinished(_)
        | BrokerError::Verifying => libc::ETIMEDOUT,
    }
}

/// A service that is there and says no is told apart from one that is not; why, the log knows.
fn upstream_errno(fault: Fault) -> c_int {
    match fault {
        Fault::Conflict => libc::EBUSY,
        Fault::Denied => libc::EACCES,
        Fault::Invalid => libc::EINVAL,
        Fault::NotFound => libc::ENOENT,
        Fault::TimedOut => libc::ETIMEDOUT,
        Fault::Unaccepted => libc::EKEYREJECTED,
        Fault::Unreachable => libc::EHOSTUNREACH,
        Fault::Unsupported => libc::EOPNOTSUPP,
    }
}

fn key_errno(error: &KeyError) -> c_int {
    match error {
        KeyError::Damaged | KeyError::Malformed(_) | KeyError::UnknownFormat(_) => libc::EBADMSG,
        KeyError::Memory(_) => libc::ENOMEM,
        KeyError::NoRandom | KeyError::TooLong => libc::EIO,
        KeyError::WeakStretching => libc::EINVAL,
        KeyError::UnknownEpoch(_) | KeyError::WrongKey => libc::EKEYREJECTED,
    }
}

fn store_errno(error: &StoreError) -> c_int {
    match error {
        StoreError::Broken | StoreError::Locked => libc::EIO,
        StoreError::Damaged(_) => libc::EBADMSG,
        StoreError::Io(error) if error.kind() == std::io::ErrorKind::StorageFull => libc::ENOSPC,
        StoreError::Io(error) if error.kind() == std::io::ErrorKind::TimedOut => libc::ETIMEDOUT,
        StoreError::Io(_) => libc::EIO,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind};

    use super::*;

    #[test]
    fn a_full_disk_is_told_apart_from_a_failing_one() {
        let store = |kind| FsError::Broker(StoreError::Io(Error::from(kind)).into());
        assert_eq!(errno(&store(ErrorKind::StorageFull)), libc::ENOSPC);
        assert_eq!(errno(&store(ErrorKind::Other)), libc::EIO);
    }

    #[test]
    fn keys_that_are_gone_wrong_or_damaged_have_numbers_of_their_own() {
        let broker = |error: BrokerError| errno(&error.into());
        assert_eq!(broker(BrokerError::Sealed), libc::ENOKEY);
        assert_eq!(broker(BrokerError::Key(KeyError::WrongKey)), libc::EKEYREJECTED);
        assert_eq!(broker(BrokerError::Damaged(KeyError::Damaged)), libc::EBADMSG);
    }
}
