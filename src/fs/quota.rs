//! What one uid may hold: open handles, plaintext in memory and scratch space.

use std::sync::Arc;

use super::error::{FsError, Result};
use super::numbered::Numbered;

/// Open handles a uid.
const MAX_HANDLES: u32 = 4096;
/// Plaintext held by the handles of a uid, in bytes.
const MAX_PLAINTEXT: u64 = 64 << 20;

/// The shares of all uids.
#[derive(Debug)]
pub(super) struct Quotas(Numbered<Share>);

#[derive(Clone, Copy, Debug, Default)]
struct Share {
    handles: u32,
    plaintext: u64,
}

/// One handle's part of its uid's share; given back when dropped.
#[derive(Debug)]
pub(super) struct Ticket {
    quotas: Arc<Quotas>,
    uid: u64,
    plaintext: u64,
}

impl Quotas {
    /// Returns shares of which nothing is used.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Numbered::new()))
    }

    /// Takes a handle out of a uid's share. Errors: `TooManyHandles`.
    pub(super) fn take(self: &Arc<Self>, uid: u32) -> Result<Ticket> {
        let uid = u64::from(uid);
        let mut shard = self.0.shard(uid);
        let share = shard.entry(uid).or_default();
        if share.handles >= MAX_HANDLES {
            return Err(FsError::TooManyHandles);
        }
        share.handles += 1;
        drop(shard);
        Ok(Ticket { quotas: self.clone(), uid, plaintext: 0 })
    }
}

impl Quotas {
    /// Takes a handle that an earlier server has admitted.
    pub(super) fn adopt(self: &Arc<Self>, uid: u32, plaintext: u64) -> Ticket {
        let uid = u64::from(uid);
        let mut shard = self.0.shard(uid);
        let share = shard.entry(uid).or_default();
        share.handles += 1;
        share.plaintext += plaintext;
        drop(shard);
        Ticket { quotas: self.clone(), uid, plaintext }
    }
}

impl Ticket {
    /// Returns how much plaintext the handle holds, in bytes.
    pub(super) fn plaintext(&self) -> u64 {
        self.plaintext
    }

    /// Raises what the handle holds to `bytes`. Errors: `Quota`.
    pub(super) fn hold(&mut self, bytes: u64) -> Result<()> {
        let more = bytes.saturating_sub(self.plaintext);
        if more == 0 {
            return Ok(());
        }
        let mut shard = self.quotas.0.shard(self.uid);
        let share = shard.entry(self.uid).or_default();
        if share.plaintext + more > MAX_PLAINTEXT {
            return Err(FsError::Quota);
        }
        share.plaintext += more;
        self.plaintext = bytes;
        Ok(())
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut shard = self.quotas.0.shard(self.uid);
        if let Some(share) = shard.get_mut(&self.uid) {
            share.handles -= 1;
            share.plaintext -= self.plaintext;
            if share.handles == 0 {
                shard.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_that_has_all_its_handles_does_not_hinder_another() {
        let quotas = Quotas::new();
        let held: Vec<_> = (0..MAX_HANDLES).map(|_| quotas.take(1).unwrap()).collect();
        assert!(matches!(quotas.take(1), Err(FsError::TooManyHandles)));
        assert!(quotas.take(2).is_ok());
        drop(held);
        assert!(quotas.take(1).is_ok());
    }

    #[test]
    fn plaintext_is_bounded_over_all_handles_of_a_uid_and_given_back() {
        let quotas = Quotas::new();
        let mut first = quotas.take(1).unwrap();
        first.hold(MAX_PLAINTEXT - 1).unwrap();
        let mut second = quotas.take(1).unwrap();
        assert!(matches!(second.hold(2), Err(FsError::Quota)));
        second.hold(1).unwrap();
        drop(first);
        second.hold(MAX_PLAINTEXT).unwrap();
    }
}
