//! What the server and a service's process say to each other.
//!
//! Lists are longer than a message may be, and values are no message's: both go as parcels, the words first.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::backend::{
    Abilities, BackendError, Description, Page, PageToken, Put, Version, VersionId, Which,
};
use crate::model::Timestamp;
use crate::system::{Channel, Parcel, SecretBytes};

/// The longest words or value, whatever the store's limit is.
const MAX_BYTES: usize = 16 << 20;

/// The first answer of a process: what its service can do, or why it is of no use.
pub(super) type Opened = Result<Abilities, BackendError>;

/// A call, and for how long it is waited for.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Request {
    pub(super) call: Call,
    pub(super) time: Duration,
}

/// A call of [`Backend`](crate::backend::Backend). The value of a put comes behind it.
#[derive(Debug, Deserialize, Serialize)]
pub(super) enum Call {
    Delete { name: String },
    Describe { name: String },
    Destroy { name: String },
    Get { name: String, which: Which },
    List { page: Option<PageToken> },
    Put { name: String, put: Put },
    Restore { name: String },
    Stage { name: String, stage: String, to: VersionId },
    Tag { name: String, tags: BTreeMap<String, String> },
    Versions { name: String },
}

/// What came of a call.
#[derive(Debug, Deserialize, Serialize)]
pub(super) enum Reply {
    Description(Description),
    Done,
    /// The value comes behind it.
    Fetched {
        version: VersionId,
        created: Option<Timestamp>,
        expires: Option<Timestamp>,
    },
    Page(Page),
    Version(Version),
    Versions(Vec<Version>),
}

/// Sends words, and a value behind them.
pub(super) fn send<M: Serialize>(
    channel: &Channel,
    words: &M,
    value: Option<&SecretBytes>,
) -> io::Result<()> {
    let words = postcard::to_stdvec(words).map_err(io::Error::other)?;
    let words = SecretBytes::copy_from(&words).map_err(io::Error::other)?;
    let parcels: Vec<Parcel> =
        [Some(&words), value].into_iter().flatten().map(Parcel::pack).collect::<io::Result<_>>()?;
    let descriptors: Vec<BorrowedFd<'_>> =
        parcels.iter().map(|parcel| parcel.memory().as_fd()).collect();
    channel.send_descriptors(&descriptors)
}

/// Waits for words and maybe a value. `None`: the other end is closed.
pub(super) fn receive<M: DeserializeOwned>(
    channel: &Channel,
) -> io::Result<Option<(M, Option<SecretBytes>)>> {
    let parcels = match channel.receive_descriptors() {
        Ok(parcels) => parcels,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let mut parcels = parcels.iter();
    let words = parcels.next().ok_or(io::ErrorKind::InvalidData)?;
    let words = Parcel::unpack(words, MAX_BYTES)?;
    let words = postcard::from_bytes(words.expose()).map_err(|_| io::ErrorKind::InvalidData)?;
    let value = parcels.next().map(|value| Parcel::unpack(value, MAX_BYTES)).transpose()?;
    Ok(Some((words, value)))
}
