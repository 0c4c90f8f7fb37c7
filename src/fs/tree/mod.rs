//! The tree as plain calls: what each request means, without the kernel's types.
//!
//! Every call asks the broker for its own caller; nothing that one caller was told is kept for
//! another. Answers that make a handle or a lookup are counted only once they are sent, so an
//! answer that comes after its deadline can simply be dropped.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::attributes::Owners;
use super::control::{Events, HealthWatch, Host, LastRestore};
use super::draft::Drafts;
use super::error::{FsError, Result};
use super::handle::{Handle, Handles};
use super::inode::Inodes;
use super::journal::{Journal, Work};
use super::quota::Quotas;
use super::render::{Renderings, Uses};
use super::scratch::Scratch;
use super::{Touch, Touched};
use crate::broker::{Broker, BrokerError, Sought};
use crate::model::{Clock, SecretId, SecretName, Timestamp};

mod adopt;
mod change;
mod io;
mod life;
mod listing;
mod lookup;
mod open;
mod rename;
mod render;
mod snap;
mod stat;
mod touch;
mod xattr;

pub(super) use adopt::Adopted;
pub use adopt::Death;
pub(super) use lookup::Entry;
pub(super) use open::{OpenMode, Opening, Want};
pub(super) use rename::Renaming;
pub(super) use stat::Change;

/// What a tree is made of.
pub struct Parts {
    pub broker: Broker,
    pub host: Arc<dyn Host>,
    pub clock: Arc<dyn Clock>,
    pub touch: Arc<dyn Touch>,
    /// What is below `.templates` and `.oneiric`.
    pub renderings: Arc<Renderings>,
    /// Reads go through the page cache, which is emptied when the last handle is closed, rather
    /// than past it.
    pub cached: bool,
    pub owners: Owners,
    /// How long a caller waits at most for what goes on by itself.
    pub deadline: Duration,
    /// What an earlier server has left, and what this one leaves.
    pub journal: Arc<Journal>,
}

/// The mounted tree.
pub struct Tree {
    broker: Broker,
    host: Arc<dyn Host>,
    clock: Arc<dyn Clock>,
    touch: Arc<dyn Touch>,
    renderings: Arc<Renderings>,
    uses: Uses,
    cached: bool,
    owners: Owners,
    deadline: Duration,
    /// The time that files which are made up show.
    started: Timestamp,
    inodes: Inodes,
    handles: Handles,
    journal: Arc<Journal>,
    work: Work,
    gate: life::Gate,
    scratch: Scratch,
    drafts: Arc<Drafts>,
    quotas: Arc<Quotas>,
    events: Arc<Events>,
    health: Arc<HealthWatch>,
    last_restore: LastRestore,
    /// Counts revocations.
    revocations: AtomicU64,
    /// Takes inodes whose pages are to be dropped: never from a request's own thread, which
    /// deadlocks in the kernel.
    pages: OnceLock<Sender<u64>>,
}

impl Tree {
    /// Makes a tree over a broker, and sees to it that sealing leaves no value in it.
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts { broker, host, clock, touch, renderings, cached, owners, deadline, journal } =
            parts;
        let note = journal.seq_note();
        broker.subscribe(Box::new(move |notice| note(notice.seq.0)));
        let tree = Arc::new(Self {
            events: Events::new(&broker, journal.events()),
            health: HealthWatch::new(host.clone()),
            started: clock.now(),
            broker,
            host,
            clock,
            touch,
            renderings,
            uses: Uses::default(),
            cached,
            owners,
            deadline,
            inodes: Inodes::new(journal.nodes()),
            handles: Handles::new(journal.handles()),
            work: journal.work(),
            gate: life::Gate::default(),
            journal,
            scratch: Scratch::default(),
            drafts: Arc::default(),
            quotas: Quotas::new(),
            revocations: AtomicU64::new(0),
            last_restore: LastRestore::default(),
            pages: OnceLock::new(),
        });
        let weak = Arc::downgrade(&tree);
        tree.broker.on_change(Box::new(move |name| {
            if let Some(tree) = weak.upgrade() {
                tree.touch(name);
            }
        }));
        let weak = Arc::downgrade(&tree);
        tree.broker.on_commit(Box::new(move |name| {
            if let Some(tree) = weak.upgrade() {
                tree.touch_rendered(name);
            }
        }));
        let weak = Arc::downgrade(&tree);
        tree.broker.on_seal(Box::new(move || {
            if let Some(tree) = weak.upgrade() {
                tree.handles.seal();
                tree.scratch.seal();
                tree.inodes.with_pages().into_iter().for_each(|inode| tree.drop_pages(inode));
            }
        }));
        let weak = Arc::downgrade(&tree);
        tree.broker.on_revoke(Box::new(move |secret| {
            if let Some(tree) = weak.upgrade() {
                tree.revoke(secret);
            }
        }));
        tree
    }

    /// Has watchers told of a new version, once nobody is given the old one by a frozen set any more.
    fn touch(&self, name: &SecretName) {
        let file = Touched { path: name.to_string(), uid: None };
        self.touch.touch(file, self.broker.thaws_at(name));
    }

    /// Takes a revoked secret's value from who has it open.
    fn revoke(&self, secret: SecretId) {
        // First, so that who opens it at this moment sees it.
        self.revocations.fetch_add(1, Ordering::SeqCst);
        self.handles.revoke(secret);
        self.inodes.with_pages().into_iter().for_each(|inode| self.drop_pages(inode));
    }

    /// Returns the queue of inodes whose pages are to be dropped; the first caller has it.
    pub(super) fn stale_pages(&self) -> Option<Receiver<u64>> {
        let (sender, receiver) = channel();
        self.pages.set(sender).ok().map(|()| receiver)
    }

    /// Returns what another server finds.
    pub(super) fn journal(&self) -> &Arc<Journal> {
        &self.journal
    }

    /// Returns where requests in hand are noted.
    pub(super) fn work(&self) -> &Work {
        &self.work
    }

    /// Has the kernel drop the pages of an inode, soon.
    fn drop_pages(&self, inode: u64) {
        if let Some(queue) = self.pages.get() {
            // The other end is gone only with the mount, and the pages with it.
            queue.send(inode).unwrap_or_default();
        }
    }

    /// Returns how long a worker may wait so that its answer is in time.
    fn patience(&self) -> Duration {
        self.deadline.mul_f32(0.9)
    }

    /// Makes a call, and again once what kept it from an answer for the moment is over: while the store
    /// is verified "not found" cannot be said, while a secret is changed where it is used, its readers
    /// wait, and what another service keeps has to be fetched. To be called by a worker.
    pub(super) fn patiently<T>(
        &self,
        at_most: Duration,
        call: impl Fn(&Self) -> Result<T>,
    ) -> Result<T> {
        let until = Instant::now() + at_most;
        loop {
            let answer = call(self);
            let left = until.saturating_duration_since(Instant::now());
            match answer {
                Err(FsError::Broker(BrokerError::Verifying)) => self.broker.wait_verified(left)?,
                Err(FsError::Broker(BrokerError::Changing(name))) => {
                    self.broker.wait_unheld(&name, left)?;
                }
                Err(FsError::Broker(BrokerError::Elsewhere(sought))) => {
                    self.broker.fetch(&sought, left)?;
                }
                answer => return answer,
            }
        }
    }

    /// Has the service asked that keeps something, without waiting; see [`Broker::fetch_then`].
    pub(super) fn fetch_then(&self, sought: &Sought, done: impl FnOnce() + Send + 'static) {
        self.broker.fetch_then(sought, Box::new(done));
    }

    /// Waits until "not found" is the truth.
    pub(super) fn wait_verified(&self, at_most: Duration) -> Result<()> {
        Ok(self.broker.wait_verified(at_most)?)
    }

    /// Returns an open handle. Errors: `BadHandle`.
    pub(super) fn handle(&self, number: u64) -> Result<Arc<Handle>> {
        self.handles.find(number)
    }
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("cached", &self.cached).finish_non_exhaustive()
    }
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tree").field("cached", &self.cached).finish_non_exhaustive()
    }
}
