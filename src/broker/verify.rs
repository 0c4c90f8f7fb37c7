//! `secretfs verify`: everything is opened, and nothing may be missing.

use std::collections::HashSet;
use std::ops::ControlFlow;

use super::keys::split_key;
use super::load::{compare, each_record, read_root};
use super::record::Record;
use super::{Broker, Progress, Result, Verification};
use crate::model::{Caller, SecretId, Version};
use crate::store::Table;
use crate::versions::State;

/// Faults that are told one by one; more are only counted by the reader's patience.
const MAX_FAULTS: usize = 100;

impl Broker {
    /// Checks every record, every value and the record set, as they are on disk now. Takes as long as
    /// it takes, and tells `progress` how far it is.
    pub fn verify(&self, caller: &Caller, progress: &Progress) -> Result<Verification> {
        let inner = &*self.inner;
        let _admitted = inner.gate.admit_control(caller, "verify")?;
        let unlocked = inner.unlocked()?;
        let keyring = unlocked.keyring.load_full();
        let snapshot = inner.store.snapshot()?;
        if let Ok(root) = read_root(&*snapshot, &keyring) {
            progress.expect(root.set.count);
        }
        let mut faults = Vec::new();
        let mut expected = HashSet::<(SecretId, Version)>::new();
        let mut secrets = 0;
        let mut visit = |id: SecretId, record: Record| {
            progress.advance();
            match record {
                Record::Secret(record) => {
                    secrets += 1;
                    let entries = record.history.entries().iter();
                    let kept = entries.filter(|entry| entry.state != State::Destroyed);
                    expected.extend(kept.map(|entry| (id, entry.version)));
                }
                Record::Older(older) => {
                    let kept = older.entries.iter().filter(|entry| entry.state != State::Destroyed);
                    expected.extend(kept.map(|entry| (older.secret, entry.version)));
                }
                Record::Codes(record) => drop(expected.insert((record.seed, Version::FIRST))),
                Record::Confirmed(_)
                | Record::Directory(_)
                | Record::Lease(_)
                | Record::MadeDirectory { .. }
                | Record::Rotation(_)
                | Record::Uses(_) => {}
            }
            Ok(())
        };
        let records = [Table::Records, Table::Pages]
            .into_iter()
            .try_for_each(|table| each_record(&*snapshot, table, &keyring, &mut visit));
        if let Err(err) = records {
            faults.push(format!("a record: {err}"));
        }
        let mut versions = 0;
        snapshot.scan(Table::Values, &[], &mut |key, sealed| {
            versions += 1;
            progress.advance();
            match split_key(key) {
                Ok((id, Some(version))) => {
                    if !expected.remove(&(id, version)) {
                        faults.push(format!("value of {id} version {version}: no record names it"));
                    }
                    if let Err(err) = keyring.open_value(id, version, sealed) {
                        faults.push(format!("value of {id} version {version}: {err}"));
                    }
                }
                Ok((_, None)) | Err(_) => faults.push("a value has a malformed key".into()),
            }
            if faults.len() < MAX_FAULTS {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })?;
        faults.extend(
            expected
                .iter()
                .take(MAX_FAULTS)
                .map(|(id, version)| format!("value of {id} version {version}: missing")),
        );
        let generation = match read_root(&*snapshot, &keyring) {
            Ok(root) => root.generation,
            Err(err) => {
                faults.push(format!("the root: {err}"));
                Default::default()
            }
        };
        drop(snapshot);
        if let Err(err) = compare(&*inner.store, &keyring) {
            faults.push(err.to_string());
        }
        if let Some(fault) = faults.first() {
            inner.gate.record_damage(fault)?;
        }
        Ok(Verification { secrets, versions, generation, faults })
    }
}
