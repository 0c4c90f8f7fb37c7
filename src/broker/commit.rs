//! The one writer: it takes the changes that wait, commits them together, and then tells everybody.
//!
//! Group commit: while one transaction is being made durable the next changes gather, so a flood of
//! writers shares the disk's syncs. A change checks everything before its first `put`, so that one
//! that is refused leaves no trace in the transaction of the others. The index changes only after
//! the commit: a reader never sees what a crash could take back.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::index::{At, Discarded, Entry, Made};
use super::record::{Record, SecretRecord};
use super::root::Root;
use super::{BrokerError, Inner, Kind, Unlocked};
use crate::audit::{Action, Event, Outcome};
use crate::crypto::{Keyring, RootKey};
use crate::model::{Caller, Generation, SecretId, SecretName, Timestamp, Version};
use crate::store::{StoreError, Table, Txn};

/// Most changes in one transaction; bounds what a failed commit takes with it.
const MAX_BATCH: usize = 256;

/// How long the writer sleeps at most; then it sees to what is due each second.
const TICK: Duration = Duration::from_secs(1);

/// Whether a change can share a transaction with others.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Company {
    /// It looks at more of the tree than a batch keeps account of.
    Alone,
    Shared,
}

/// The queue in front of the writer's thread.
pub(super) struct Writer {
    queue: Arc<Queue>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

#[derive(Default)]
struct Waiting {
    jobs: Vec<(Company, Box<dyn Job>)>,
    closed: bool,
}

/// A change, with who waits for it.
trait Job: Send {
    /// Applies it to the batch. An error that this returns concerns the whole transaction; one of
    /// the change's own is kept for its waiter.
    fn run(&mut self, batch: &mut Batch<'_>) -> Result<(), StoreError>;
    /// Tells the waiter.
    fn finish(self: Box<Self>, committed: Result<(), StoreError>);
}

struct Change<T, F> {
    apply: Option<F>,
    outcome: Option<Result<T, BrokerError>>,
    done: SyncSender<Result<T, BrokerError>>,
}

impl<T, F> Job for Change<T, F>
where
    T: Send,
    F: FnOnce(&mut Batch<'_>) -> Result<T, BrokerError> + Send,
{
    fn run(&mut self, batch: &mut Batch<'_>) -> Result<(), StoreError> {
        let Some(apply) = self.apply.take() else { return Ok(()) };
        let before = batch.puts;
        match apply(batch) {
            Err(BrokerError::Store(err)) => Err(err),
            // The transaction holds half of a change: nobody's part of it can be kept.
            Err(err) if batch.puts != before => {
                Err(StoreError::Io(std::io::Error::other(err.to_string())))
            }
            outcome => {
                self.outcome = Some(outcome);
                Ok(())
            }
        }
    }

    fn finish(self: Box<Self>, committed: Result<(), StoreError>) {
        let outcome = match (committed, self.outcome) {
            // A refusal stands, whatever became of the others' changes.
            (_, Some(Err(err))) => Err(err),
            (Ok(()), Some(Ok(value))) => Ok(value),
            (Err(err), _) => Err(err.into()),
            (Ok(()), None) => Err(StoreError::Broken.into()),
        };
        // A waiter that is gone has passed its deadline; the change itself is on record.
        drop(self.done.send(outcome));
    }
}

impl Writer {
    pub(super) fn start(inner: Weak<Inner>) -> std::io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let thread = {
            let queue = Arc::clone(&queue);
            std::thread::Builder::new()
                .name("secretfs-commit".into())
                .spawn(move || run_writer(&queue, &inner))?
        };
        Ok(Self { queue, thread: Mutex::new(Some(thread)) })
    }

    /// Queues a change and waits until it is durable or refused.
    pub(super) fn submit<T, F>(&self, company: Company, apply: F) -> Result<T, BrokerError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Batch<'_>) -> Result<T, BrokerError> + Send + 'static,
    {
        let (done, outcome): (_, Receiver<Result<T, BrokerError>>) = sync_channel(1);
        let job = Box::new(Change { apply: Some(apply), outcome: None, done });
        {
            let mut waiting = self.queue.waiting.lock();
            if waiting.closed {
                return Err(StoreError::Broken.into());
            }
            waiting.jobs.push((company, job));
        }
        self.queue.arrived.notify_one();
        outcome.recv().unwrap_or(Err(StoreError::Broken.into()))
    }

    /// Commits what waits and ends the thread.
    pub(super) fn close(&self) {
        self.queue.waiting.lock().closed = true;
        self.queue.arrived.notify_all();
        let Some(thread) = self.thread.lock().take() else { return };
        // The last holder of the broker may be the writer itself, which cannot wait for its own end.
        if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
            tracing::error!("the writer's thread panicked");
        }
    }
}

fn run_writer(queue: &Queue, inner: &Weak<Inner>) {
    loop {
        let (jobs, closed) = {
            let mut waiting = queue.waiting.lock();
            if waiting.jobs.is_empty() && !waiting.closed {
                queue.arrived.wait_for(&mut waiting, TICK);
            }
            (next_batch(&mut waiting.jobs), waiting.closed)
        };
        let Some(inner) = inner.upgrade() else {
            jobs.into_iter().for_each(|job| job.finish(Err(StoreError::Broken)));
            return;
        };
        if jobs.is_empty() {
            if closed {
                return;
            }
            inner.gate.summarise_refusals();
            continue;
        }
        inner.commit(jobs);
        super::keys::begin_epoch_if_worn(&inner);
    }
}

/// Takes the changes that go into one transaction, in the order in which they came.
fn next_batch(jobs: &mut Vec<(Company, Box<dyn Job>)>) -> Vec<Box<dyn Job>> {
    let shared = jobs.iter().take(MAX_BATCH).take_while(|(company, _)| *company == Company::Shared);
    let count = shared.count().max(1).min(jobs.len());
    jobs.drain(..count).map(|(_, job)| job).collect()
}

/// A transaction with what it will mean for the index and the log.
pub(super) struct Batch<'a> {
    txn: Box<dyn Txn + 'a>,
    root: Root,
    puts: u64,
    overlay: BTreeMap<SecretName, Option<SecretId>>,
    pub(super) effects: Vec<Effect>,
    lines: Vec<Line>,
    pub(super) inner: &'a Inner,
    pub(super) unlocked: &'a Unlocked,
    pub(super) keyring: Arc<Keyring>,
    pub(super) now: Timestamp,
}

/// What a commit changes in memory.
pub(super) enum Effect {
    InsertSecret(SecretName, Box<Entry>),
    InsertTrashed(SecretId, Discarded),
    RemoveSecret(SecretName),
    /// Everything is another: the index is built again from the store.
    ReplaceIndex,
    RemoveTrashed(SecretId),
    ReplaceKeyring(Arc<Keyring>),
    ReplaceRootKey(RootKey),
    SetMade(SecretName, Option<Made>),
    SetUses(BTreeMap<Box<str>, u32>),
}

/// A line of the log that is written before the commit.
pub(super) struct Line {
    pub(super) action: Action,
    pub(super) caller: Option<Caller>,
    pub(super) name: Option<SecretName>,
    pub(super) version: Option<Version>,
    pub(super) rule: Option<Arc<str>>,
    pub(super) reason: Option<String>,
}

impl Line {
    fn event(&self, outcome: Outcome) -> Event<'_> {
        Event {
            caller: self.caller.as_ref(),
            secret: self.name.as_ref(),
            version: self.version,
            rule: self.rule.as_deref(),
            reason: self.reason.as_deref(),
            ..Event::new(self.action, outcome)
        }
    }
}

impl Batch<'_> {
    /// Returns the secret of a name as this transaction sees it.
    pub(super) fn secret(
        &self,
        name: &SecretName,
    ) -> Result<Option<(SecretId, SecretRecord)>, BrokerError> {
        let id = match self.overlay.get(name) {
            Some(id) => *id,
            None => self.unlocked.index.read().secret(name).map(|entry| entry.id),
        };
        let Some(id) = id else { return Ok(None) };
        Ok(Some((id, self.secret_record(id)?)))
    }

    /// Returns the record of a secret that is known to exist, in the trash or not.
    pub(super) fn secret_record(&self, id: SecretId) -> Result<SecretRecord, BrokerError> {
        match self.record(id)? {
            Some(Record::Secret(record)) => Ok(record),
            Some(Record::Directory(_) | Record::MadeDirectory { .. } | Record::Uses(_)) | None => {
                Err(StoreError::Damaged(format!("the record {id} is missing")).into())
            }
        }
    }

    /// Returns what stands at a path as this transaction sees it.
    pub(super) fn kind_at(&self, path: &SecretName) -> Option<Kind> {
        if let Some(id) = self.overlay.get(path) {
            return id.map(|_| Kind::Secret);
        }
        if self.overlay.iter().any(|(name, id)| id.is_some() && name.is_below(path)) {
            return Some(Kind::Directory);
        }
        match self.unlocked.index.read().at(path) {
            At::Nothing => None,
            At::Folder(_) => Some(Kind::Directory),
            At::Secret(_) => Some(Kind::Secret),
        }
    }

    /// Fails unless a secret can stand at `name`: no secret above it, and no directory there.
    pub(super) fn check_place(&self, name: &SecretName) -> Result<(), BrokerError> {
        if self.kind_at(name) == Some(Kind::Directory) {
            return Err(BrokerError::IsDirectory(name.clone()));
        }
        let mut above = name.parent();
        while let Some(path) = above {
            if self.kind_at(&path) == Some(Kind::Secret) {
                return Err(BrokerError::NotDirectory(path));
            }
            above = path.parent();
        }
        Ok(())
    }

    /// Writes a secret's record and takes note of what it means for the index.
    pub(super) fn put_secret(
        &mut self,
        id: SecretId,
        record: SecretRecord,
    ) -> Result<(), BrokerError> {
        let name = record.name.clone();
        let record = Record::Secret(record);
        self.put_record(id, &record)?;
        let Record::Secret(record) = record else { return Ok(()) };
        if record.deleted.is_some() {
            self.overlay.insert(name.clone(), None);
            self.effects.push(Effect::RemoveSecret(name));
            self.effects.push(Effect::InsertTrashed(id, Discarded::of(&record)));
        } else if let Some(entry) = Entry::of(id, &record, self.keyring.inode(name.as_str())) {
            self.overlay.insert(name.clone(), Some(id));
            self.effects.push(Effect::InsertSecret(name, Box::new(entry)));
        }
        Ok(())
    }

    /// Returns the number that the next secret of this name gets in the trash.
    pub(super) fn next_trash_number(&self, name: &SecretName) -> u32 {
        let committed = self.unlocked.index.read().last_trash_number(name);
        let pending = self.effects.iter().filter_map(|effect| {
            let Effect::InsertTrashed(_, discarded) = effect else { return None };
            (discarded.name == *name).then_some(discarded.number)
        });
        pending.fold(committed, u32::max) + 1
    }

    /// Takes note that a name is free now, because its secret has another one.
    pub(super) fn vacate(&mut self, name: &SecretName) {
        self.overlay.insert(name.clone(), None);
        self.effects.push(Effect::RemoveSecret(name.clone()));
    }

    pub(super) fn effect(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    pub(super) fn line(&mut self, line: Line) {
        self.lines.push(line);
    }

    pub(super) fn record(&self, id: SecretId) -> Result<Option<Record>, BrokerError> {
        let Some(sealed) = self.txn.get(Table::Records, &id.0)? else { return Ok(None) };
        let plain = self.keyring.open_record(id, &sealed).map_err(BrokerError::Damaged)?;
        Record::decode(&plain).map(Some)
    }

    pub(super) fn put_record(&mut self, id: SecretId, record: &Record) -> Result<(), BrokerError> {
        let sealed = self.keyring.seal_record(id, &record.encode()?).map_err(BrokerError::Key)?;
        self.put(Table::Records, &id.0, &sealed)
    }

    pub(super) fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, BrokerError> {
        Ok(self.txn.get(table, key)?)
    }

    /// Writes an entry, and keeps the record set's sum in step.
    pub(super) fn put(
        &mut self,
        table: Table,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), BrokerError> {
        let before = self.txn.put(table, key, value)?;
        if let Some(before) = before {
            self.root.set.remove(&self.keyring.element(table as u8, key, &before));
        }
        self.root.set.add(&self.keyring.element(table as u8, key, value));
        self.root.seals += u64::from(matches!(table, Table::Records | Table::Values));
        self.puts += 1;
        Ok(())
    }

    /// Commits a new generation although nothing else changes.
    pub(super) fn commit_anyway(&mut self) {
        self.puts += 1;
    }

    /// Returns how often the active epoch was used.
    pub(super) fn seals(&self) -> u64 {
        self.root.seals
    }

    /// Counts from zero again, under a new epoch.
    pub(super) fn forget_seals(&mut self) {
        self.root.seals = 0;
    }

    /// Removes an entry, and keeps the record set's sum in step.
    pub(super) fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), BrokerError> {
        if let Some(before) = self.txn.delete(table, key)? {
            self.root.set.remove(&self.keyring.element(table as u8, key, &before));
            self.puts += 1;
        }
        Ok(())
    }

    /// Replaces everything by what `fill` puts, which adds up to `root` and opens with `keyring`.
    pub(super) fn replace_all(
        &mut self,
        keyring: Keyring,
        root: Root,
        fill: &mut FillStore<'_>,
    ) -> Result<(), BrokerError> {
        self.txn.clear()?;
        fill(&mut *self.txn)?;
        self.root = Root { generation: self.root.generation, ..root };
        self.keyring = Arc::new(keyring);
        self.puts += 1;
        self.effects.push(Effect::ReplaceKeyring(Arc::clone(&self.keyring)));
        self.effects.push(Effect::ReplaceIndex);
        Ok(())
    }
}

pub(super) type FillStore<'f> = dyn FnMut(&mut dyn Txn) -> Result<(), StoreError> + 'f;

impl Inner {
    /// Runs one batch to its end and answers all who wait for it.
    fn commit(&self, mut jobs: Vec<Box<dyn Job>>) {
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
        let mut batch = Batch {
            txn: self.store.begin()?,
            root: unlocked.root.lock().clone(),
            puts: 0,
            overlay: BTreeMap::new(),
            effects: Vec::new(),
            lines: Vec::new(),
            inner: self,
            unlocked,
            keyring: unlocked.keyring.load_full(),
            now: self.gate.now(),
        };
        for job in jobs {
            job.run(&mut batch)?;
        }
        self.append(&batch.lines, Outcome::Allowed)?;
        if batch.puts == 0 {
            return Ok(());
        }
        let Batch { mut txn, mut root, effects, lines, keyring, .. } = batch;
        root.generation = root.generation.next();
        if let Ok(log) = self.gate.log() {
            // The log up to the head is on disk before the store names it, so that a power cut
            // cannot look like a cut log; and a log that is cut before it is found out.
            root.audit = log.sync().map_err(|err| unrecorded(err.into()))?;
        }
        // The keyring that was in force when the set was summed authenticates it: its store-wide
        // key is the same in every epoch.
        txn.put(Table::Root, Root::KEY, &root.encode(&keyring))?;
        if let Err(err) = txn.commit() {
            drop(self.append(&lines, Outcome::Failed));
            return Err(err);
        }
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

    fn append(&self, lines: &[Line], outcome: Outcome) -> Result<(), StoreError> {
        if lines.is_empty() {
            return Ok(());
        }
        let log = self.gate.log().map_err(unrecorded)?;
        let append = |line: &Line| log.append_unsettled(&line.event(outcome));
        let last = lines.iter().try_fold(None, |_, line| append(line).map(Some));
        let settled = last.and_then(|seq| seq.map_or(Ok(()), |seq| log.settle(seq)));
        settled.map_err(|err| unrecorded(err.into()))
    }

    fn apply(&self, unlocked: &Unlocked, effects: Vec<Effect>) -> Result<(), StoreError> {
        let mut index = unlocked.index.write();
        for effect in effects {
            match effect {
                Effect::InsertSecret(name, entry) => index.insert(&name, *entry),
                Effect::InsertTrashed(id, discarded) => index.insert_trashed(id, discarded),
                Effect::RemoveSecret(name) => index.remove(&name),
                Effect::ReplaceIndex => {
                    self.cache.clear();
                    let loaded = self.load(unlocked)?;
                    *index = loaded.index;
                    self.gate.uses().replace(loaded.uses);
                }
                Effect::RemoveTrashed(id) => index.remove_trashed(id),
                Effect::ReplaceKeyring(keyring) => unlocked.keyring.store(keyring),
                Effect::ReplaceRootKey(key) => *unlocked.root_key.lock() = key,
                Effect::SetMade(path, made) => index.set_made(&path, made),
                Effect::SetUses(uses) => self.gate.uses().replace(uses),
            }
        }
        Ok(())
    }

    fn load(&self, unlocked: &Unlocked) -> Result<super::load::Loaded, StoreError> {
        super::load::load(&*self.store, &unlocked.keyring.load())
            .map_err(|err| StoreError::Damaged(err.to_string()))
    }

    /// Lets what is on disk decide what the failed commit was worth.
    fn reload(&self, unlocked: &Unlocked) -> Result<(), StoreError> {
        self.store.recover()?;
        let loaded = self.load(unlocked)?;
        *unlocked.root.lock() = loaded.root;
        *unlocked.index.write() = loaded.index;
        self.gate.uses().replace(loaded.uses);
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
