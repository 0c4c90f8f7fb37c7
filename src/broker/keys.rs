//! The keys of a store that is in use: new epochs, a new root key, another key source.
//!
//! Each change is one commit, so a crash leaves the old keys or the new ones in force. Re-wrapping
//! under a new epoch goes on in small commits beside the requests, and after a restart.

use std::ops::ControlFlow;
use std::sync::{Arc, Weak};

use super::batch::{Batch, Effect, Line};
use super::writer::Company;
use super::{Broker, BrokerError, Inner, Result};
use crate::audit::Action;
use crate::crypto::{CryptoError, Header, Keyring, RootKey, Slot};
use crate::model::{Caller, Epoch, SecretId, StoreId, Version};
use crate::store::{Store, StoreError, Table};

/// The key of the header's entry in its table.
pub(super) const HEADER_KEY: &[u8] = b"header";

/// The key of the keyring's entry in its table.
pub(super) const KEYRING_KEY: &[u8] = b"keyring";

/// Entries that are re-wrapped in one commit: a few milliseconds of the writer's time.
const REWRAP_BATCH: usize = 500;

/// Makes the slot of a key source for a root key.
pub type MakeSlot<'a> = dyn FnMut(StoreId, &RootKey) -> std::result::Result<Slot, String> + 'a;

impl Broker {
    /// Returns the key sources, the epochs with their ages and how much is under each.
    pub fn key_status(&self, caller: &Caller) -> Result<serde_json::Value> {
        let inner = &*self.inner;
        let _admitted = inner.gate.admit_control(caller, "key-status")?;
        let unlocked = inner.unlocked()?;
        let keyring = unlocked.keyring.load_full();
        let header = read_header(&*inner.store)?;
        let snapshot = inner.store.snapshot()?;
        let mut counts = std::collections::BTreeMap::<Epoch, u64>::new();
        for table in Table::SEALED {
            snapshot.scan(table, &[], &mut |_, sealed| {
                if let Ok(epoch) = Keyring::epoch_of(sealed) {
                    *counts.entry(epoch).or_default() += 1;
                }
                ControlFlow::Continue(())
            })?;
        }
        let epochs: Vec<_> = keyring
            .epochs()
            .into_iter()
            .map(|(epoch, created)| {
                let age = inner.gate.now().as_second() - created.as_second();
                serde_json::json!({
                    "epoch": epoch,
                    "active": epoch == keyring.active(),
                    "created": created.to_string(),
                    "age_days": age / 86_400,
                    "sealed_under_it": counts.get(&epoch).copied().unwrap_or(0),
                })
            })
            .collect();
        let sources: Vec<_> = header.slots.iter().map(|slot| slot.kind.describe()).collect();
        Ok(serde_json::json!({
            "store": unlocked.store_id.to_string(),
            "sources": sources,
            "cipher": "AES-256-GCM",
            "epochs": epochs,
        }))
    }

    /// Starts a new epoch and re-wraps everything under it in the background.
    pub fn rotate_epoch(&self, caller: &Caller) -> Result<Epoch> {
        let _admitted = self.inner.gate.admit_control(caller, "key-rotate-epoch")?;
        let epoch = self.inner.submit(Company::Alone, begin_epoch)?;
        rewrap_in_background(&self.inner)?;
        Ok(epoch)
    }

    /// Makes a new root key, sealed for the key source by `slot`; rewrites the keyring and the
    /// header in one commit. With another source's `slot`, it also changes the key source.
    pub fn rotate_root(&self, caller: &Caller, slot: &mut MakeSlot<'_>) -> Result<()> {
        let _admitted = self.inner.gate.admit_control(caller, "key-rotate-root")?;
        let unlocked = self.inner.unlocked()?;
        let root = RootKey::generate().map_err(BrokerError::Key)?;
        let slot = slot(unlocked.store_id, &root).map_err(BrokerError::Invalid)?;
        self.inner.submit(Company::Alone, move |batch| {
            let header = Header { store: batch.unlocked.store_id, slots: vec![slot] };
            let sealed = batch.keyring.seal(&root).map_err(BrokerError::Key)?;
            let encoded = header.encode().map_err(BrokerError::Key)?;
            batch.put(Table::Header, HEADER_KEY, &encoded)?;
            batch.put(Table::Keyring, KEYRING_KEY, &sealed)?;
            batch.effect(Effect::ReplaceRootKey(root));
            batch.line(key_line("the root key was replaced"));
            Ok(())
        })
    }
}

fn begin_epoch(batch: &mut Batch<'_>) -> Result<Epoch> {
    let keyring = batch.keyring.with_new_epoch(batch.now).map_err(BrokerError::Key)?;
    let epoch = keyring.active();
    put_keyring(batch, keyring)?;
    batch.forget_seals();
    Ok(epoch)
}

/// Begins a new epoch when the active one has sealed as often as it may. Called by the writer, which
/// must not wait for itself: the change is queued behind those that came meanwhile.
pub(super) fn begin_epoch_if_worn(inner: &Arc<Inner>) {
    let Ok(unlocked) = inner.unlocked() else { return };
    if unlocked.root.lock().seals < inner.limits.seals_per_epoch {
        return;
    }
    let inner = Arc::clone(inner);
    let rotate = move || {
        let worn = move |batch: &mut Batch<'_>| {
            // Another change may have begun an epoch since this one was queued.
            let is_worn = batch.seals() >= batch.inner.limits.seals_per_epoch;
            is_worn.then(|| begin_epoch(batch)).transpose()
        };
        match inner.submit(Company::Alone, worn) {
            Ok(Some(_)) => rewrap_in_background(&inner),
            Ok(None) => Ok(()),
            Err(err) => Err(err),
        }
    };
    let begun = std::thread::Builder::new().name("secretfs-epoch".into()).spawn(move || {
        if let Err(err) = rotate() {
            tracing::error!(%err, "no new epoch could be begun; it is tried again at the next change");
        }
    });
    if let Err(err) = begun {
        tracing::error!(%err, "no thread for a new epoch");
    }
}

fn key_line(reason: &str) -> Line {
    Line {
        action: Action::KeyChange,
        caller: None,
        name: None,
        version: None,
        rule: None,
        reason: Some(reason.into()),
        detail: None,
    }
}

fn put_keyring(batch: &mut Batch<'_>, keyring: Keyring) -> Result<()> {
    let sealed = keyring.seal(&batch.unlocked.root_key.lock()).map_err(BrokerError::Key)?;
    batch.put(Table::Keyring, KEYRING_KEY, &sealed)?;
    batch.line(key_line(&format!("epoch {} is active", keyring.active())));
    batch.effect(Effect::ReplaceKeyring(Arc::new(keyring)));
    Ok(())
}

/// Reads the header, which says how the root key is sealed. It needs no key.
pub fn read_header(store: &dyn Store) -> Result<Header> {
    let bytes = store
        .get(Table::Header, HEADER_KEY)?
        .ok_or_else(|| StoreError::Damaged("the header is missing".into()))?;
    Header::decode(&bytes).map_err(BrokerError::Key)
}

/// Tells whether a root key is the store's. Errors: `Damaged`, `Store`, and `Key` for anything but a key that does not
/// fit.
pub fn root_key_fits(store: &dyn Store, root: &RootKey) -> Result<bool> {
    let header = read_header(store)?;
    match Keyring::open(header.store, root, &read_keyring(store)?) {
        Ok(_) => Ok(true),
        Err(CryptoError::WrongKey) => Ok(false),
        Err(error) => Err(BrokerError::Key(error)),
    }
}

/// Reads the sealed keyring.
pub(super) fn read_keyring(store: &dyn Store) -> Result<Vec<u8>> {
    let absent = || StoreError::Damaged("the keyring is missing".into());
    Ok(store.get(Table::Keyring, KEYRING_KEY)?.ok_or_else(absent)?)
}

/// Re-wraps what is under an older epoch, then forgets that epoch. Does nothing where all is under
/// the active one.
pub(super) fn rewrap_in_background(inner: &Arc<Inner>) -> Result<()> {
    let inner: Weak<Inner> = Arc::downgrade(inner);
    std::thread::Builder::new()
        .name("secretfs-rewrap".into())
        .spawn(move || {
            // Each step takes the broker anew, so that it can be closed in between.
            loop {
                let Some(inner) = inner.upgrade() else { return };
                match rewrap_some(&inner) {
                    Ok(Progress::Done) => return,
                    Ok(Progress::More) => {}
                    Err(err) => {
                        tracing::error!(%err, "re-wrapping stopped; it goes on at the next start");
                        return;
                    }
                }
            }
        })
        .map_err(StoreError::Io)?;
    Ok(())
}

enum Progress {
    Done,
    More,
}

fn rewrap_some(inner: &Inner) -> Result<Progress> {
    let unlocked = inner.unlocked()?;
    let keyring = unlocked.keyring.load_full();
    let old: Vec<Epoch> = keyring
        .epochs()
        .into_iter()
        .map(|(epoch, _)| epoch)
        .filter(|epoch| *epoch != keyring.active())
        .collect();
    if old.is_empty() {
        return Ok(Progress::Done);
    }
    let keys = keys_under(inner, &old)?;
    if keys.is_empty() {
        // These and no others: another epoch may have been begun since the look above, and what
        // was the active one then is still in use.
        inner.submit(Company::Alone, move |batch| {
            let keyring = batch.keyring.without(&old);
            put_keyring(batch, keyring)
        })?;
        return Ok(Progress::Done);
    }
    inner.submit(Company::Shared, move |batch| {
        keys.iter().try_for_each(|(table, key)| rewrap(batch, *table, key))
    })?;
    inner.cache.clear();
    Ok(Progress::More)
}

fn keys_under(inner: &Inner, epochs: &[Epoch]) -> Result<Vec<(Table, Vec<u8>)>> {
    let snapshot = inner.store.snapshot()?;
    let mut keys = Vec::new();
    for table in Table::SEALED {
        snapshot.scan(table, &[], &mut |key, sealed| {
            if Keyring::epoch_of(sealed).is_ok_and(|epoch| epochs.contains(&epoch)) {
                keys.push((table, key.to_vec()));
            }
            if keys.len() < REWRAP_BATCH {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })?;
    }
    Ok(keys)
}

fn rewrap(batch: &mut Batch<'_>, table: Table, key: &[u8]) -> Result<()> {
    // Gone meanwhile, or rewritten under the active epoch: nothing to do.
    let Some(sealed) = batch.get(table, key)? else { return Ok(()) };
    let epoch = Keyring::epoch_of(&sealed).map_err(BrokerError::Damaged)?;
    if epoch == batch.keyring.active() {
        return Ok(());
    }
    let (id, version) = split_key(key)?;
    let rewrapped = match version {
        Some(version) => {
            batch.keyring.rewrap_value(id, version, &sealed).map_err(BrokerError::Damaged)?
        }
        None => {
            let plain = batch.keyring.open_record(id, &sealed).map_err(BrokerError::Damaged)?;
            Some(batch.keyring.seal_record(id, &plain).map_err(BrokerError::Key)?)
        }
    };
    match rewrapped {
        Some(rewrapped) => batch.put(table, key, &rewrapped),
        None => Ok(()),
    }
}

/// Reads a key of the tables `Records` (an id) or `Values` (an id and a version).
pub(super) fn split_key(key: &[u8]) -> Result<(SecretId, Option<Version>)> {
    let malformed = || StoreError::Damaged("an entry has a malformed key".into());
    let (id, rest) = key.split_at_checked(16).ok_or_else(malformed)?;
    let id = SecretId(<[u8; 16]>::try_from(id).map_err(|_| malformed())?);
    if rest.is_empty() {
        return Ok((id, None));
    }
    let version = <[u8; 8]>::try_from(rest).map_err(|_| malformed())?;
    Ok((id, Some(Version(u64::from_be_bytes(version)))))
}
