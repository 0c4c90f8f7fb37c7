//! The lines of the log that a commit carries, so that one sync makes it and them durable.
//!
//! A transaction holds, sealed, the lines since the one before it; earlier ones have put theirs into
//! other slots. Once the log is on disk that far, which it is anyway now and then, the slots are
//! free again. When they are used up, or after a failure, the log is synced first instead.

use std::ops::ControlFlow;

use super::BrokerError;
use super::root::Root;
use crate::audit::{AuditLog, Carried, Head, Mark};
use crate::crypto::Keyring;
use crate::model::Seq;
use crate::store::{Snapshot, StoreError, Table, Txn};

/// Commits that may pass before the log is synced.
const SLOTS: u8 = 64;

/// Bytes of lines that the slots hold at most: a fraction of a journal's half, and of what 64
/// writers leave behind between two syncs of the log.
const MAX_BYTES: usize = 256 << 10;

/// The key of a slot in the root's table is this and the slot's number.
const KEY: &[u8] = b"lines";

/// How far the lines of the log are safe by way of commits.
#[derive(Debug, Default)]
pub(super) struct Carry(Option<Place>);

/// What the next commit begins with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Behind the last line that is on disk or was carried.
    mark: Mark,
    /// The first free slot.
    slot: u8,
    /// Bytes of lines in the slots before it.
    bytes: usize,
}

impl Place {
    /// The log's last line as of the transaction.
    pub(super) fn head(&self) -> Head {
        self.mark.head
    }
}

impl Carry {
    /// Has the next commit sync the log, and use the slots anew.
    pub(super) fn forget(&mut self) {
        self.0 = None;
    }

    /// Sees to it that all lines of the log are on disk once the transaction is. Until it is known
    /// to be, by [`committed`](Self::committed), nothing that it carries counts.
    pub(super) fn put(
        &mut self,
        log: &AuditLog,
        txn: &mut dyn Txn,
        keyring: &Keyring,
        root: &mut Root,
    ) -> Result<Place, BrokerError> {
        if let Some(place) = self.0.take()
            && let Some(place) = put_lines(place, log, txn, keyring, root)?
        {
            return Ok(place);
        }
        let mark = log.mark();
        log.sync()?;
        Ok(Place { mark, slot: 0, bytes: 0 })
    }

    /// Takes note that the transaction is durable.
    pub(super) fn committed(&mut self, place: Place) {
        self.0 = Some(place);
    }
}

/// Puts the lines since the last commit into the transaction; `None` where there is no slot for them.
fn put_lines(
    place: Place,
    log: &AuditLog,
    txn: &mut dyn Txn,
    keyring: &Keyring,
    root: &mut Root,
) -> Result<Option<Place>, BrokerError> {
    let synced = log.synced_head().seq;
    let place =
        if synced >= place.mark.head.seq { Place { slot: 0, bytes: 0, ..place } } else { place };
    if place.slot == SLOTS {
        return Ok(None);
    }
    let Some((lines, mark)) = log.lines_since(&place.mark, MAX_BYTES - place.bytes)? else {
        return Ok(None);
    };
    if lines.is_empty() {
        return Ok(Some(place));
    }
    let plain =
        [&root.generation.0.to_be_bytes()[..], &synced.0.to_be_bytes()[..], &lines].concat();
    let sealed = keyring.seal_lines(place.slot, &plain).map_err(BrokerError::Key)?;
    txn.put(Table::Root, &[KEY, &[place.slot]].concat(), &sealed)?;
    root.seals += 1;
    Ok(Some(Place { mark, slot: place.slot + 1, bytes: place.bytes + lines.len() }))
}

/// Returns what the last commits have carried. What does not open is left out: whether the log
/// lacks any of it is for the anchor to tell.
pub(super) fn carried(snapshot: &dyn Snapshot, keyring: &Keyring) -> Result<Carried, StoreError> {
    let mut found = Vec::new();
    snapshot.scan(Table::Root, KEY, &mut |key, sealed| {
        found.extend(open(keyring, key, sealed));
        ControlFlow::Continue(())
    })?;
    found.sort_by_key(|slot| slot.generation);
    let synced = found.last().map(|slot| slot.synced).unwrap_or_default();
    let lines: Vec<&[u8]> = found.iter().map(|slot| slot.lines.as_slice()).collect();
    Ok(Carried { synced, lines: lines.concat() })
}

struct Slot {
    generation: u64,
    synced: Seq,
    lines: Vec<u8>,
}

fn open(keyring: &Keyring, key: &[u8], sealed: &[u8]) -> Option<Slot> {
    let mut plain = keyring.open_lines(*key.last()?, sealed).ok()?;
    let (generation, rest) = plain.split_first_chunk()?;
    let (synced, rest) = rest.split_first_chunk()?;
    let (generation, synced) = (u64::from_be_bytes(*generation), Seq(u64::from_be_bytes(*synced)));
    let header = plain.len() - rest.len();
    plain.drain(..header);
    Some(Slot { generation, synced, lines: plain })
}
