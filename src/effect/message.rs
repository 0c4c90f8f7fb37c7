//! What the server and the process that carries an order out say to each other.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};

use super::search::Search;
use super::{EffectError, KeyOrder, Order, Report, Values};
use crate::system::{Channel, Parcel, PidFd, SecretBytes};

/// The longest value that goes along, whatever the store's limit is.
const MAX_VALUE_BYTES: usize = 16 << 20;

/// An order on its way.
#[derive(Debug, Deserialize, Serialize)]
enum Letter {
    /// The values follow as descriptors, in the order of the fields of [`Values`].
    Order {
        /// As JSON: tagged enums cannot be written in the channel's own encoding.
        order: String,
        has_value: [bool; 3],
    },
    /// A pidfd of the caller comes along.
    Search(Search),
    /// A value that is to be sealed follows as a descriptor.
    Key { order: KeyOrder, has_value: bool },
}

/// What is wanted.
#[derive(Debug)]
pub(super) enum Wanted {
    Order(Box<Order>, Values),
    Search(Search, OwnedFd),
    Key(KeyOrder, Option<SecretBytes>),
}

/// What came of it. A value follows as a descriptor.
#[derive(Debug, Deserialize, Serialize)]
pub(super) enum Answer {
    Done { note: String, has_value: bool },
    Failed(EffectError),
}

/// Sends an order with its values. Errors: `InvalidInput` for one that is too long.
pub(super) fn send_order(channel: &Channel, order: &Order, values: &Values) -> io::Result<()> {
    let all = [&values.current, &values.new, &values.admin];
    let order = serde_json::to_string(order).map_err(io::Error::other)?;
    channel.send(&Letter::Order { order, has_value: all.map(Option::is_some) })?;
    let parcels: Vec<Parcel> =
        all.into_iter().flatten().map(Parcel::pack).collect::<io::Result<_>>()?;
    send_parcels(channel, &parcels)
}

/// Sends the order for a search.
pub(super) fn send_search(channel: &Channel, search: &Search, caller: &PidFd) -> io::Result<()> {
    channel.send_along(&Letter::Search(search.clone()), caller.as_fd())
}

/// Sends the order to seal a value, or to open what is in the order.
pub(super) fn send_key(
    channel: &Channel,
    order: &KeyOrder,
    value: Option<&SecretBytes>,
) -> io::Result<()> {
    channel.send(&Letter::Key { order: order.clone(), has_value: value.is_some() })?;
    let parcels: Vec<Parcel> = value.into_iter().map(Parcel::pack).collect::<io::Result<_>>()?;
    send_parcels(channel, &parcels)
}

/// Waits for an order. `None`: nobody wants anything any more.
pub(super) fn receive_order(channel: &Channel) -> io::Result<Option<Wanted>> {
    let Some((letter, descriptors)) = channel.receive_along::<Letter>()? else { return Ok(None) };
    let (order, has_value) = match letter {
        Letter::Order { order, has_value } => (order, has_value),
        Letter::Search(search) => {
            let caller = descriptors.into_iter().next().ok_or(io::ErrorKind::InvalidData)?;
            return Ok(Some(Wanted::Search(search, caller)));
        }
        Letter::Key { order, has_value } => {
            let memory = has_value.then(|| channel.receive_descriptors()).transpose()?;
            let value = unpack(has_value, memory.into_iter().flatten().next())?;
            return Ok(Some(Wanted::Key(order, value)));
        }
    };
    let order: Box<Order> = serde_json::from_str(&order).map_err(io::Error::other)?;
    let mut parcels = match has_value.contains(&true) {
        true => channel.receive_descriptors()?,
        false => Vec::new(),
    }
    .into_iter();
    let [current, new, admin] =
        has_value.map(|has| unpack(has, if has { parcels.next() } else { None }));
    Ok(Some(Wanted::Order(order, Values { current: current?, new: new?, admin: admin? })))
}

/// Sends what came of an order.
pub(super) fn send_answer(
    channel: &Channel,
    outcome: Result<Report, EffectError>,
) -> io::Result<()> {
    match outcome {
        Err(error) => channel.send(&Answer::Failed(error)),
        Ok(Report { note, value }) => {
            channel.send(&Answer::Done { note, has_value: value.is_some() })?;
            let parcels: Vec<Parcel> = value.iter().map(Parcel::pack).collect::<io::Result<_>>()?;
            send_parcels(channel, &parcels)
        }
    }
}

/// Takes the answer that has come. `None`: there will be none.
pub(super) fn receive_answer(channel: &Channel) -> io::Result<Option<Result<Report, EffectError>>> {
    Ok(match channel.receive()? {
        None => None,
        Some(Answer::Failed(error)) => Some(Err(error)),
        Some(Answer::Done { note, has_value }) => {
            let memory = has_value.then(|| channel.receive_descriptors()).transpose()?;
            let value = unpack(has_value, memory.into_iter().flatten().next())?;
            Some(Ok(Report { note, value }))
        }
    })
}

fn unpack(expected: bool, memory: Option<OwnedFd>) -> io::Result<Option<SecretBytes>> {
    match (expected, memory) {
        (false, _) => Ok(None),
        (true, None) => Err(io::ErrorKind::InvalidData.into()),
        (true, Some(memory)) => Parcel::unpack(&memory, MAX_VALUE_BYTES).map(Some),
    }
}

fn send_parcels(channel: &Channel, parcels: &[Parcel]) -> io::Result<()> {
    if parcels.is_empty() {
        return Ok(());
    }
    let descriptors: Vec<BorrowedFd<'_>> =
        parcels.iter().map(|parcel| parcel.memory().as_fd()).collect();
    channel.send_descriptors(&descriptors)
}
