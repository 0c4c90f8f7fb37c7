//! From a batch of changes to a durable commit, and what it means in memory.
//!
//! The order is fixed: the lines of the changes, the transaction with the log's head in its root and
//! with what of the log is not on disk, the anchor. The index changes only then: a reader never sees
//! what a crash could take back.

use std::sync::atomic::Ordering;

use super::batch::{Batch, Effect, Line};
use super::index::Entry;
use super::lease::resumed;
use super::root::Root;
use super::writer::Job;
use super::{BrokerError, Inner, Unlocked};
use crate::audit::{Action, Event, Outcome};
use crate::model::{Generation, Seq};
use crate::store::{StoreError, Table};

impl Inner {
    /// Runs one batch to its end and answers all who wait for it.
    pub(super) fn commit(&self, mut jobs: Vec<Box<dyn Job>>) {
        let result = self.try_commit(&mut jobs);
        if let Err(err) = &result {
            tracing::error!(%err, "a commit failed; the store is read again from disk");
        }
        let kind = result.as_ref().err().map(error_kind);
        for job in jobs {
            let committed = match &kind {
                None => Ok(()),
                Some(kind) => Err(again(kind)),
            };
            job.finish(committed);
        }
    }

    fn try_commit(&self, jobs: &mut [Box<dyn Job>]) -> Result<(), StoreError> {
        let unlocked = self.unlocked.load_full();
        let Some(unlocked) = unlocked.as_deref() else {
            // Nothing was run, so every waiter learns that the store is sealed from `submit`'s caller.
            return Err(StoreError::Broken);
        };
        let mut stale = unlocked.stale.lock();
        if *stale {
            self.reload(unlocked)?;
            *stale = false;
        }
        let outcome = self.run_batch(unlocked, jobs);
        if outcome.is_err() {
            *stale = true;
            if self.reload(unlocked).is_ok() {
                *stale = false;
            }
        }
        outcome
    }

    fn run_batch(&self, unlocked: &Unlocked, jobs: &mut [Box<dyn Job>]) -> Result<(), StoreError> {
        let mut batch = Batch::new(self, unlocked)?;
        for job in jobs {
            job.run(&mut batch)?;
        }
        let last = self.append(&batch.lines, Outcome::Allowed)?;
        if batch.puts() == 0 {
            return last.map_or(Ok(()), |seq| self.settle(seq));
        }
        let Batch { mut txn, mut root, effects, lines, keyring, .. } = batch;
        root.generation = root.generation.next();
        let mut carry = unlocked.carry.lock();
        if effects.iter().any(|effect| matches!(effect, Effect::ReplaceKeyring(_))) {
            // What is sealed under an epoch that goes does not open again.
            carry.forget();
        }
        // The log up to the head is on disk no later than the store that names it, so that a power
        // cut cannot look like a cut log; and a log that is cut before it is found out.
        let log = self.gate.log().map_err(unrecorded)?;
        let place = carry.put(log, &mut *txn, &keyring, &mut root).map_err(unrecorded)?;
        root.audit = place.head();
        // The keyring that was in force when the set was summed authenticates it: its store-wide
        // key is the same in every epoch.
        txn.put(Table::Root, Root::KEY, &root.encode(&keyring))?;
        if let Err(err) = txn.commit() {
            drop(self.append(&lines, Outcome::Failed).map(|last| last.map(|seq| self.settle(seq))));
            return Err(err);
        }
        carry.committed(place);
        self.gate.counts.writes.fetch_add(lines.len() as u64, Ordering::Relaxed);
        self.anchor(root.generation)?;
        *unlocked.root.lock() = root;
        self.apply(unlocked, effects)
    }

    /// Tells the log which generation is durable, so that an older copy of the store is found out.
    fn anchor(&self, generation: Generation) -> Result<(), StoreError> {
        let event =
            Event { generation: Some(generation), ..Event::new(Action::Anchor, Outcome::Allowed) };
        self.gate.record(&event).map_err(unrecorded)
    }

    /// Writes lines, which are not settled yet. Returns the last one's place.
    fn append(&self, lines: &[Line], outcome: Outcome) -> Result<Option<Seq>, StoreError> {
        if lines.is_empty() {
            return Ok(None);
        }
        let log = self.gate.log().map_err(unrecorded)?;
        let append = |line: &Line| log.append_unsettled(&line.event(outcome));
        let last = lines.iter().try_fold(None, |_, line| append(line).map(Some));
        last.map_err(|err| unrecorded(err.into()))
    }

    fn settle(&self, last: Seq) -> Result<(), StoreError> {
        let log = self.gate.log().map_err(unrecorded)?;
        log.settle(last).map_err(|err| unrecorded(err.into()))
    }

    fn apply(&self, unlocked: &Unlocked, effects: Vec<Effect>) -> Result<(), StoreError> {
        let mut changed = Vec::new();
        let mut index = unlocked.index.write();
        for effect in effects {
            match effect {
                Effect::Elevate(session, term) => {
                    self.gate.elevations().begin(session, term, self.moment());
                }
                Effect::EndElevations(uid) => self.gate.elevations().end(uid),
                Effect::InsertSecret(name, entry) => {
                    if let Some(held) = entry.held()
                        && let Some(before) = index.secret(&name).and_then(Entry::held)
                    {
                        held.follow(before);
                    }
                    index.insert(&name, *entry);
                    changed.push(name);
                }
                Effect::InsertTrashed(id, discarded) => index.insert_trashed(id, discarded),
                Effect::RemoveSecret(name) => {
                    index.remove(&name);
                    changed.push(name);
                }
                Effect::ReplaceIndex => {
                    self.cache.clear();
                    let loaded = self.load(unlocked)?;
                    *index = loaded.index;
                    self.gate.uses().replace(loaded.uses);
                    self.gate.replace_leases(resumed(loaded.leases, self.moment()));
                }
                Effect::RemoveTrashed(id) => index.remove_trashed(id),
                Effect::ReplaceKeyring(keyring) => unlocked.keyring.store(keyring),
                Effect::ReplaceRootKey(key) => *unlocked.root_key.lock() = key,
                Effect::SetMade(path, made) => index.set_made(&path, made),
                Effect::SetLease(id, record) => {
                    self.gate.set_lease(id, record.map(|record| *record))
                }
                Effect::SetRotation(id, stage) => index.set_rotation(id, stage),
                Effect::SetUses(uses) => self.gate.uses().replace(uses),
            }
        }
        drop(index);
        self.commit_hooks.lock().iter().for_each(|run| changed.iter().for_each(run));
        Ok(())
    }

    fn load(&self, unlocked: &Unlocked) -> Result<super::load::Loaded, StoreError> {
        super::load::load(&*self.store, &unlocked.keyring.load())
            .map_err(|err| StoreError::Damaged(err.to_string()))
    }

    /// Lets what is on disk decide what the failed commit was worth.
    fn reload(&self, unlocked: &Unlocked) -> Result<(), StoreError> {
        unlocked.carry.lock().forget();
        self.store.recover()?;
        let loaded = self.load(unlocked)?;
        *unlocked.root.lock() = loaded.root;
        *unlocked.index.write() = loaded.index;
        self.gate.uses().replace(loaded.uses);
        self.gate.replace_leases(resumed(loaded.leases, self.moment()));
        Ok(())
    }
}

/// The log's failure as the transaction's: nothing unrecorded is committed.
fn unrecorded(err: BrokerError) -> StoreError {
    StoreError::Io(std::io::Error::other(err.to_string()))
}

/// What of an error can be said again to each of several waiters.
enum ErrorKind {
    Broken,
    Damaged(String),
    Io(std::io::ErrorKind, String),
    Locked,
}

fn error_kind(err: &StoreError) -> ErrorKind {
    match err {
        StoreError::Broken => ErrorKind::Broken,
        StoreError::Damaged(what) => ErrorKind::Damaged(what.clone()),
        StoreError::Io(err) => ErrorKind::Io(err.kind(), err.to_string()),
        StoreError::Locked => ErrorKind::Locked,
    }
}

fn again(kind: &ErrorKind) -> StoreError {
    match kind {
        ErrorKind::Broken => StoreError::Broken,
        ErrorKind::Damaged(what) => StoreError::Damaged(what.clone()),
        ErrorKind::Io(kind, what) => StoreError::Io(std::io::Error::new(*kind, what.clone())),
        ErrorKind::Locked => StoreError::Locked,
    }
}
