//! How much one uid may have made, so that none can fill the store and the index for all.
//!
//! The index counts by creator, in step with every commit; the trash counts until it is purged. What
//! a transaction under way has made already counts too. Admins of the store are exempt: somebody must
//! be able to put things right.

use std::collections::{HashMap, HashSet};

use super::batch::{Batch, Effect};
use super::{Broker, BrokerError, Inner, Limits, Result, Share};
use crate::model::{Caller, SecretId, Uid};

/// What is counted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Directory,
    Secret,
}

/// How much each uid has made; a uid that has made nothing takes no memory.
#[derive(Debug, Default)]
pub(super) struct Tally(HashMap<Uid, Counts>);

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Counts {
    directories: u64,
    secrets: u64,
}

impl Tally {
    pub(super) fn add(&mut self, kind: Kind, uid: Uid) {
        *self.0.entry(uid).or_default().of(kind) += 1;
    }

    pub(super) fn take(&mut self, kind: Kind, uid: Uid) {
        let Some(counts) = self.0.get_mut(&uid) else { return };
        let count = counts.of(kind);
        *count = count.saturating_sub(1);
        if *counts == Counts::default() {
            self.0.remove(&uid);
        }
    }

    pub(super) fn of(&self, kind: Kind, uid: Uid) -> u64 {
        self.0.get(&uid).copied().map_or(0, |mut counts| *counts.of(kind))
    }
}

impl Counts {
    fn of(&mut self, kind: Kind) -> &mut u64 {
        match kind {
            Kind::Directory => &mut self.directories,
            Kind::Secret => &mut self.secrets,
        }
    }
}

impl Kind {
    fn limit(self, limits: &Limits) -> Option<u64> {
        match self {
            Self::Directory => limits.directories_per_uid,
            Self::Secret => limits.secrets_per_uid,
        }
    }

    fn refusal(self, uid: Uid, limit: u64) -> BrokerError {
        let (what, setting) = match self {
            Self::Directory => ("directories", "limits.directories_per_uid"),
            Self::Secret => ("secrets", "limits.secrets_per_uid"),
        };
        BrokerError::Quota { uid, what, limit, setting }
    }
}

impl Batch<'_> {
    /// Fails unless the caller may make one more. Errors: `Quota`.
    pub(super) fn check_allowance(&self, caller: &Caller, kind: Kind) -> Result<()> {
        let committed = self.unlocked.index.read().tally().of(kind, caller.uid);
        // Each effect makes one at most, so most of the time they need not be looked at.
        let at_most = committed + self.effects.len() as u64;
        if kind.limit(&self.inner.limits).is_none_or(|limit| at_most < limit) {
            return Ok(());
        }
        self.inner.check_allowance(caller, kind, committed + self.made(kind, caller.uid))
    }

    /// Counts what this transaction has made so far.
    fn made(&self, kind: Kind, uid: Uid) -> u64 {
        // A directory is made in a transaction of its own.
        if kind == Kind::Directory {
            return 0;
        }
        let index = self.unlocked.index.read();
        let new: HashSet<SecretId> = self
            .effects
            .iter()
            .filter_map(|effect| {
                let Effect::InsertSecret(name, entry) = effect else { return None };
                let known = index.secret(name).is_some_and(|known| known.id == entry.id);
                (entry.created_by == uid && !known).then_some(entry.id)
            })
            .collect();
        new.len() as u64
    }
}

impl Inner {
    fn check_allowance(&self, caller: &Caller, kind: Kind, made: u64) -> Result<()> {
        match kind.limit(&self.limits) {
            Some(limit) if made >= limit && !self.gate.is_admin(caller) => {
                Err(kind.refusal(caller.uid, limit))
            }
            Some(_) | None => Ok(()),
        }
    }
}

impl Broker {
    /// Fails unless the caller may make one more secret, so that open(2) says it and not only
    /// close(2). Errors: `Quota`, `Sealed`.
    pub fn may_make_secret(&self, caller: &Caller) -> Result<()> {
        let made = self.share(caller.uid)?.secrets;
        self.inner.check_allowance(caller, Kind::Secret, made)
    }

    /// Returns how much a uid has made. Errors: `Sealed`.
    pub fn share(&self, uid: Uid) -> Result<Share> {
        let unlocked = self.inner.unlocked()?;
        let index = unlocked.index.read();
        let of = |kind| index.tally().of(kind, uid);
        Ok(Share { secrets: of(Kind::Secret), directories: of(Kind::Directory) })
    }
}
