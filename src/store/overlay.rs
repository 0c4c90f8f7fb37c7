//! What the journal holds and redb does not yet, in memory, laid over redb for readers.
//!
//! There are two layers at most, as the journal has two halves: a newer one that commits still
//! change, and an older one that is on its way into redb. Readers may meet the older one over a
//! redb that has it already; that is the same content twice.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use smallvec::SmallVec;

use super::{Snapshot, StoreError, Table, Visit};

/// By keys that lie in the tree itself: most have 16 bytes or 24, and to follow a pointer for each that is compared was a
/// large part of a commit.
type Entries = BTreeMap<SmallVec<[u8; 24]>, Option<Arc<[u8]>>>;

/// Entries that were put, and `None` where one was deleted.
#[derive(Clone, Default)]
pub(super) struct Layer(BTreeMap<Table, Entries>);

impl Layer {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns what this layer says of an entry; `None` where it says nothing.
    pub(super) fn get(&self, table: Table, key: &[u8]) -> Option<Option<&[u8]>> {
        self.0.get(&table)?.get(key).map(Option::as_deref)
    }

    pub(super) fn set(&mut self, table: Table, key: &[u8], value: Option<&[u8]>) {
        self.0.entry(table).or_default().insert(key.into(), value.map(Arc::from));
    }

    /// Takes over what a later layer says.
    pub(super) fn absorb(&mut self, later: Self) {
        for (table, entries) in later.0 {
            self.0.entry(table).or_default().extend(entries);
        }
    }

    /// Returns every change, by table and key.
    pub(super) fn changes(&self) -> impl Iterator<Item = (Table, &[u8], Option<&[u8]>)> {
        self.0.iter().flat_map(|(table, entries)| {
            entries.iter().map(|(key, value)| (*table, key.as_slice(), value.as_deref()))
        })
    }

    /// Returns the changes of one table, by key.
    pub(super) fn of(&self, table: Table) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.below(table, &[])
    }

    fn below(&self, table: Table, prefix: &[u8]) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let entries = self.0.get(&table).map(|entries| entries.range::<[u8], _>(from));
        entries
            .into_iter()
            .flatten()
            .take_while(move |(key, _)| key.starts_with(prefix))
            .map(|(key, value)| (key.as_slice(), value.as_deref()))
    }
}

/// Both layers as of one commit.
#[derive(Clone, Default)]
pub(super) struct Layers {
    pub(super) newer: Arc<Layer>,
    pub(super) older: Option<Arc<Layer>>,
}

impl Layers {
    pub(super) fn get(&self, table: Table, key: &[u8]) -> Option<Option<&[u8]>> {
        let older = || self.older.as_ref()?.get(table, key);
        self.newer.get(table, key).or_else(older)
    }

    /// Returns what both say of the keys that begin with `prefix`.
    fn below(&self, table: Table, prefix: &[u8]) -> BTreeMap<&[u8], Option<&[u8]>> {
        let older = self.older.as_deref();
        let mut entries: BTreeMap<_, _> =
            older.into_iter().flat_map(|layer| layer.below(table, prefix)).collect();
        entries.extend(self.newer.below(table, prefix));
        entries
    }
}

/// A consistent view of redb below the layers of the same moment.
pub(super) struct Overlaid<'a> {
    pub(super) layers: Layers,
    pub(super) base: Box<dyn Snapshot + 'a>,
}

impl Snapshot for Overlaid<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.layers.get(table, key) {
            Some(value) => Ok(value.map(<[u8]>::to_vec)),
            None => self.base.get(table, key),
        }
    }

    fn scan(&self, table: Table, prefix: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let over = self.layers.below(table, prefix);
        let mut over = over.into_iter().peekable();
        let mut go_on = ControlFlow::Continue(());
        self.base.scan(table, prefix, &mut |key, value| {
            while let Some((key, value)) = over.next_if(|(next, _)| *next < key) {
                go_on = visit_put(visit, key, value);
                if go_on.is_break() {
                    return go_on;
                }
            }
            go_on = match over.next_if(|(next, _)| *next == key) {
                Some((key, value)) => visit_put(visit, key, value),
                None => visit(key, value),
            };
            go_on
        })?;
        while go_on.is_continue()
            && let Some((key, value)) = over.next()
        {
            go_on = visit_put(visit, key, value);
        }
        Ok(())
    }

    fn len(&self, table: Table) -> Result<u64, StoreError> {
        let mut len = self.base.len(table)?;
        for (key, value) in self.layers.below(table, &[]) {
            match (value, self.base.get(table, key)?) {
                (Some(_), None) => len += 1,
                (None, Some(_)) => len -= 1,
                (Some(_), Some(_)) | (None, None) => {}
            }
        }
        Ok(len)
    }
}

/// Visits an entry, unless it is a deleted one.
fn visit_put(visit: &mut Visit<'_>, key: &[u8], value: Option<&[u8]>) -> ControlFlow<()> {
    value.map_or(ControlFlow::Continue(()), |value| visit(key, value))
}
