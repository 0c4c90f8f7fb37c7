//! How far each receiver has the log, remembered for the next server.
//!
//! A place is written down only after its receiver has taken everything before it; so whoever kills the server
//! in between has the receiver told twice, and never not at all.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::model::{Seq, Timestamp};
use crate::system::atomic_file;

/// Faults that are remembered; the oldest give way.
const MAX_FAULTS: usize = 100;

/// What is remembered, and where.
#[derive(Debug)]
pub(super) struct State {
    path: PathBuf,
    places: Mutex<Places>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct Places {
    /// By receiver.
    receivers: BTreeMap<String, Place>,
    /// Up to which line findings were looked at for quarantines.
    denials: Option<Seq>,
    /// What is wrong and could not be put on record, the oldest first.
    faults: Vec<Fault>,
    last_fault: u64,
}

/// What a receiver has.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Place {
    /// The last line that it has, or that is not for it.
    pub(super) seq: Seq,
    /// The last fault that it was told of.
    pub(super) fault: u64,
}

/// Something that is wrong with what is stored.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Fault {
    pub(super) id: u64,
    pub(super) time: Timestamp,
    pub(super) what: String,
}

impl State {
    /// Reads what was remembered. Where that cannot be read, receivers are told from the oldest line on: what
    /// comes twice is better than what does not come.
    pub(super) fn load(path: &Path) -> Self {
        let read = std::fs::read(path);
        let parsed = read.and_then(|text| Ok(serde_json::from_slice::<Places>(&text)?));
        let places = parsed.unwrap_or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::error!(%error, "how far receivers have the log is not known");
            }
            Places::default()
        });
        Self { path: path.into(), places: Mutex::new(places) }
    }

    /// Returns the place of a receiver; none, if it was never told anything.
    pub(super) fn place(&self, name: &str) -> Option<Place> {
        self.places.lock().receivers.get(name).copied()
    }

    /// Remembers the place of a receiver.
    pub(super) fn set_place(&self, name: &str, place: Place) -> io::Result<()> {
        self.change(|places| {
            places.receivers.insert(name.to_owned(), place);
        })
    }

    pub(super) fn denials(&self) -> Option<Seq> {
        self.places.lock().denials
    }

    /// Remembers up to which line findings were looked at; none while nobody is quarantined by them.
    pub(super) fn set_denials(&self, seq: Option<Seq>) -> io::Result<()> {
        self.change(|places| places.denials = seq)
    }

    /// Remembers a fault, for all receivers of alerts.
    pub(super) fn add_fault(&self, time: Timestamp, what: &str) -> io::Result<()> {
        self.change(|places| {
            places.last_fault += 1;
            let fault = Fault { id: places.last_fault, time, what: what.to_owned() };
            places.faults.push(fault);
            let surplus = places.faults.len().saturating_sub(MAX_FAULTS);
            places.faults.drain(..surplus);
        })
    }

    /// Returns the faults behind one, the oldest first.
    pub(super) fn faults_after(&self, id: u64) -> Vec<Fault> {
        let places = self.places.lock();
        places.faults.iter().filter(|fault| fault.id > id).cloned().collect()
    }

    pub(super) fn last_fault(&self) -> u64 {
        self.places.lock().last_fault
    }

    fn change(&self, change: impl FnOnce(&mut Places)) -> io::Result<()> {
        let mut places = self.places.lock();
        let mut changed = places.clone();
        change(&mut changed);
        atomic_file::replace(&self.path, &serde_json::to_vec(&changed)?, 0o600)?;
        *places = changed;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_and_faults_outlive_the_process_and_a_damaged_file_forgets_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("alerts.json");
        let state = State::load(&path);
        assert_eq!(state.place("siem"), None);
        let place = Place { seq: Seq(9), fault: 1 };
        state.set_place("siem", place).unwrap();
        for number in 0..=MAX_FAULTS {
            state.add_fault(Timestamp::UNIX_EPOCH, &number.to_string()).unwrap();
        }
        let again = State::load(&path);
        assert_eq!(again.place("siem"), Some(place));
        let faults = again.faults_after(place.fault);
        assert_eq!((faults.len(), faults[0].what.as_str()), (MAX_FAULTS, "1"));
        atomic_file::replace(&path, b"{", 0o600).unwrap();
        assert_eq!(State::load(&path).place("siem"), None);
    }
}
