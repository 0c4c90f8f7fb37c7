//! Whether the codes of a segment's lines are right: asked line by line, or of many lines beside each other.
//!
//! Most of the time that a line takes to check is its code's, and a start has callers waiting for it. The keys come
//! one from the other, so the reader makes them; a second thread computes the codes, and the reader does where that
//! one does not keep up. A key is wiped as soon as its batch was checked.

use std::mem;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::{Builder, Scope, ScopedJoinHandle};

use super::chain::{Chain, LineKey};
use super::line::{HexMac, Line};
use super::verify::is_authentic;

/// Bytes of lines that go to the other thread at one time; for fewer in all there is none.
const BATCH: usize = 64 << 10;
/// Batches that wait for the other thread, at most.
const WAITING: usize = 2;

/// Checks codes.
pub(super) enum Codes<'scope, 'env> {
    Beside(Beside<'scope, 'env>),
    InTurn,
}

/// Takes batches, and says in the end whether all were right.
type Other<'scope> = (SyncSender<Batch>, ScopedJoinHandle<'scope, bool>);

/// Codes that are not known to be right until [`Codes::are_right`] says so.
pub(super) struct Beside<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    batch: Batch,
    other: Option<Other<'scope>>,
    are_right: bool,
}

impl<'scope, 'env> Codes<'scope, 'env> {
    /// Returns what checks codes beside the reading of the next lines.
    pub(super) fn beside(scope: &'scope Scope<'scope, 'env>) -> Self {
        Self::Beside(Beside { scope, batch: Batch::default(), other: None, are_right: true })
    }

    /// Tells whether a line has the code that is next, as far as it is known already.
    pub(super) fn admit(&mut self, line: &Line<'_>, chain: &Chain) -> bool {
        match self {
            Self::Beside(beside) => beside.admit(line, chain),
            Self::InTurn => is_authentic(line, chain),
        }
    }

    /// Tells whether all codes were right; waits for those that are not known yet.
    pub(super) fn are_right(self) -> bool {
        match self {
            Self::Beside(Beside { batch, other, are_right, .. }) => {
                let are_right = batch.is_right() && are_right;
                let Some((sender, thread)) = other else { return are_right };
                drop(sender);
                thread.join().unwrap_or(false) && are_right
            }
            Self::InTurn => true,
        }
    }
}

impl Beside<'_, '_> {
    fn admit(&mut self, line: &Line<'_>, chain: &Chain) -> bool {
        self.batch.add(line, chain);
        if self.batch.bytes.len() >= BATCH {
            let batch = mem::take(&mut self.batch);
            self.hand_over(batch);
        }
        self.are_right
    }

    fn hand_over(&mut self, batch: Batch) {
        if self.other.is_none() {
            self.other = start(self.scope);
        }
        let Some((sender, _)) = &self.other else {
            self.are_right &= batch.is_right();
            return;
        };
        match sender.try_send(batch) {
            Ok(()) => {}
            Err(TrySendError::Full(batch)) => self.are_right &= batch.is_right(),
            // It has found one that is wrong.
            Err(TrySendError::Disconnected(_)) => self.are_right = false,
        }
    }
}

/// Returns `None` where there can be no other thread.
fn start<'scope>(scope: &'scope Scope<'scope, '_>) -> Option<Other<'scope>> {
    let (sender, batches) = sync_channel::<Batch>(WAITING);
    let check = move || batches.iter().all(|batch| batch.is_right());
    let thread = Builder::new().name("audit-codes".into()).spawn_scoped(scope, check).ok()?;
    Some((sender, thread))
}

/// Lines one after the other, without their codes.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    lines: Vec<Unchecked>,
}

struct Unchecked {
    length: usize,
    key: LineKey,
    mac: HexMac,
}

impl Batch {
    fn add(&mut self, line: &Line<'_>, chain: &Chain) {
        self.bytes.extend_from_slice(line.body);
        let (length, key, mac) = (line.body.len(), chain.line_key().clone(), *line.mac);
        self.lines.push(Unchecked { length, key, mac });
    }

    fn is_right(&self) -> bool {
        let mut rest = self.bytes.as_slice();
        self.lines.iter().all(|Unchecked { length, key, mac }| {
            let Some((body, behind)) = rest.split_at_checked(*length) else { return false };
            rest = behind;
            key.fits(body, mac)
        })
    }
}
