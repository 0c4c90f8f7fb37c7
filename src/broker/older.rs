//! Versions of long ago, in pages beside their secret's record.
//!
//! A record lists the versions of its secret, and is sealed anew with each. So that a new one costs the same
//! however many there were, the oldest are moved to records of their own, each of [`PAGE`] versions once it is full.

use serde::{Deserialize, Serialize};

use super::Which;
use super::batch::Batch;
use super::load::open_record;
use super::record::{Record, SecretRecord};
use super::{Inner, Result, Unlocked};
use crate::model::{SecretId, Version};
use crate::store::{StoreError, Table};
use crate::versions::{Entry, History, PAGE, State, count_previous, destroy_previous};

/// A page of a secret's older versions.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct OlderRecord {
    pub(super) secret: SecretId,
    /// Of the newest page: how many previous versions there are in all pages. In others it is out of date.
    previous: u64,
    /// Of the newest page: so many of the first pages have no previous version.
    spent: u64,
    pub(super) entries: Vec<Entry>,
}

/// Reads a record of [`Table::Pages`], as somebody sees the store.
type ReadPage<'r> = dyn Fn(SecretId) -> Result<Option<Record>> + 'r;

/// Returns where a page lies: found without an index, as that of a secret's rotations is.
fn page_id(secret: SecretId, page: u64) -> SecretId {
    let other = u128::from(u64::MAX) << 64 | u128::from(page);
    SecretId((u128::from_be_bytes(secret.0) ^ other).to_be_bytes())
}

fn read_page(read: &ReadPage<'_>, secret: SecretId, page: u64) -> Result<OlderRecord> {
    match read(page_id(secret, page))? {
        Some(Record::Older(older)) if older.secret == secret => Ok(older),
        Some(_) | None => {
            let what = format!("page {page} of the older versions of {secret} is missing");
            Err(StoreError::Damaged(what).into())
        }
    }
}

/// Returns every version that there ever was, oldest first.
pub(super) fn all(read: &ReadPage<'_>, id: SecretId, history: &History) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for page in 0..history.pages() {
        entries.extend(read_page(read, id, page)?.entries);
    }
    entries.extend_from_slice(history.entries());
    // One that could still change stayed when those around it were taken out.
    entries.sort_by_key(|entry| entry.version);
    Ok(entries)
}

/// Finds a version whose value still exists.
fn readable(
    read: &ReadPage<'_>,
    (id, history): (SecretId, &History),
    version: Version,
) -> Result<Option<Entry>> {
    let among = |entries: &[Entry]| {
        let found = entries.iter().find(|entry| entry.version == version);
        found.filter(|entry| entry.state != State::Destroyed).cloned()
    };
    let mut found = among(history.entries());
    // Where the versions before it were all taken out in their turn it is on that page or, for a few stayed,
    // on the one before; one that stayed itself is on a later page.
    let mut page = (version.0.saturating_sub(1) / PAGE as u64).saturating_sub(1);
    while found.is_none() && page < history.pages() {
        found = among(&read_page(read, id, page)?.entries);
        page += 1;
    }
    Ok(found)
}

impl Batch<'_> {
    /// Moves the oldest versions of a record to the newest page, or to a new one, once there are enough of them.
    pub(super) fn move_oldest(&mut self, id: SecretId, history: &mut History) -> Result<()> {
        let newest = history.pages().checked_sub(1);
        let Some((page, entries)) = history.take_oldest() else { return Ok(()) };
        let mut older = match newest {
            Some(newest) => read_page(&|id| self.record_in(Table::Pages, id), id, newest)?,
            None => OlderRecord { secret: id, previous: 0, spent: 0, entries: Vec::new() },
        };
        if newest != Some(page) {
            older.entries.clear();
        }
        older.previous += count_previous(&entries);
        older.entries.extend(entries);
        self.put_record_in(Table::Pages, page_id(id, page), &Record::Older(older))
    }

    /// Destroys the oldest previous versions until `keep` of them are left. Returns those whose values are to be
    /// removed.
    pub(super) fn retain_previous(
        &mut self,
        id: SecretId,
        history: &mut History,
        keep: u64,
    ) -> Result<Vec<Version>> {
        let recent = count_previous(history.entries());
        let Some(newest) = history.pages().checked_sub(1) else {
            return Ok(history.destroy_previous(recent.saturating_sub(keep)));
        };
        let mut last = read_page(&|id| self.record_in(Table::Pages, id), id, newest)?;
        let mut surplus = last.previous.saturating_add(recent).saturating_sub(keep);
        let mut destroyed = Vec::new();
        while surplus > 0 && last.previous > 0 {
            let oldest = last.spent.min(newest);
            let mut page = match oldest == newest {
                true => last.clone(),
                false => read_page(&|id| self.record_in(Table::Pages, id), id, oldest)?,
            };
            let gone = destroy_previous(&mut page.entries, surplus);
            let count = gone.len() as u64;
            (surplus, last.previous) = (surplus - count, last.previous.saturating_sub(count));
            destroyed.extend(gone);
            if oldest == newest {
                last.entries = page.entries;
                break;
            }
            last.spent += u64::from(count_previous(&page.entries) == 0);
            self.put_record_in(Table::Pages, page_id(id, oldest), &Record::Older(page))?;
        }
        if !destroyed.is_empty() {
            self.put_record_in(Table::Pages, page_id(id, newest), &Record::Older(last))?;
        }
        destroyed.extend(history.destroy_previous(surplus));
        Ok(destroyed)
    }

    /// Returns every version that there ever was of a secret, oldest first.
    pub(super) fn every_version(&self, id: SecretId, history: &History) -> Result<Vec<Entry>> {
        all(&|id| self.record_in(Table::Pages, id), id, history)
    }

    /// Removes the pages of a secret that is destroyed.
    pub(super) fn delete_pages(&mut self, id: SecretId, history: &History) -> Result<()> {
        (0..history.pages()).try_for_each(|page| self.delete(Table::Pages, &page_id(id, page).0))
    }
}

impl Inner {
    /// Finds a version of a secret; `None` where there is none, or its value is gone.
    pub(super) fn find_version(
        &self,
        unlocked: &Unlocked,
        id: SecretId,
        which: Which,
    ) -> Result<Option<Entry>> {
        self.look_back(unlocked, id, |read, SecretRecord { history, .. }| match which {
            Which::Current => Ok(history.current().cloned()),
            Which::Number(version) => {
                let found = readable(read, (id, &history), version)?;
                Ok(found.filter(|entry| entry.state != State::Pending))
            }
            Which::Pending => Ok(history.pending().cloned()),
            Which::Previous => Ok(history.previous().cloned()),
        })
    }

    /// Returns a secret's record, and every version that there ever was, oldest first.
    pub(super) fn every_version(
        &self,
        unlocked: &Unlocked,
        id: SecretId,
    ) -> Result<(SecretRecord, Vec<Entry>)> {
        self.look_back(unlocked, id, |read, record| {
            let versions = all(read, id, &record.history)?;
            Ok((record, versions))
        })
    }

    /// Calls `look` with a secret's record and with what reads its pages, all as of one time.
    fn look_back<T>(
        &self,
        unlocked: &Unlocked,
        id: SecretId,
        look: impl Fn(&ReadPage<'_>, SecretRecord) -> Result<T>,
    ) -> Result<T> {
        unlocked.with_keyring(|keyring| {
            let snapshot = self.store.snapshot()?;
            let read = |table: Table, id: SecretId| {
                let sealed = snapshot.get(table, &id.0)?;
                sealed.map(|sealed| Ok(open_record(keyring, &id.0, &sealed)?.1)).transpose()
            };
            match read(Table::Records, id)? {
                Some(Record::Secret(record)) => look(&|page| read(Table::Pages, page), record),
                Some(_) | None => {
                    Err(StoreError::Damaged(format!("the record {id} is missing")).into())
                }
            }
        })
    }
}
