//! The detector: lines in, findings out, and a state that outlives the process.

use serde::{Deserialize, Serialize};

use super::judge::{decoyed, judge};
use super::ledger::Ledger;
use super::pending::Pending;
use super::profile::DAY;
use super::{Finding, Settings};
use crate::audit::Entry;
use crate::model::{SecretName, Seq, Timestamp};

/// Learns from the log and finds what is unlike it.
#[derive(Debug, Default)]
pub struct Detector {
    settings: Settings,
    state: State,
}

#[derive(Debug, Default, Deserialize, Serialize)]
struct State {
    format: u32,
    /// The time of the first line: learning begins there.
    first: Option<Timestamp>,
    /// The last line, and the latest time of any.
    last_seq: Seq,
    last: Option<Timestamp>,
    ledger: Ledger,
    pending: Pending,
}

/// The only form of the state that this program reads; of another one it learns anew.
const FORMAT: u32 = 1;

impl Detector {
    /// Returns a detector that has seen nothing.
    pub fn new(settings: Settings) -> Self {
        Self { settings, state: State { format: FORMAT, ..State::default() } }
    }

    /// Returns a detector that goes on where another one was.
    pub fn from_bytes(settings: Settings, bytes: &[u8]) -> Result<Self, StateError> {
        let state: State = serde_json::from_slice(bytes)?;
        if state.format != FORMAT {
            return Err(StateError::Format(state.format));
        }
        Ok(Self { settings, state })
    }

    /// Returns what was learned, for [`from_bytes`](Self::from_bytes). It names secrets.
    pub fn to_bytes(&self) -> Result<Vec<u8>, StateError> {
        Ok(serde_json::to_vec(&self.state)?)
    }

    /// From now on other settings apply.
    pub fn replace_settings(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// Returns the last line that was seen.
    pub fn last_seq(&self) -> Seq {
        self.state.last_seq
    }

    /// Takes the next line. A line that was seen before is passed over.
    pub fn observe(&mut self, entry: &Entry) -> Vec<Finding> {
        self.observe_with(entry, &|_| false)
    }

    /// As [`observe`](Self::observe), with somebody who knows which secrets are decoys.
    pub fn observe_with(
        &mut self,
        entry: &Entry,
        is_decoy: &dyn Fn(&SecretName) -> bool,
    ) -> Vec<Finding> {
        if entry.seq <= self.state.last_seq {
            return Vec::new();
        }
        self.state.last_seq = entry.seq;
        let first = *self.state.first.get_or_insert(entry.time);
        let found = self.advance(entry.time);
        let Self { settings, state } = self;
        let learning = entry.time.as_second() - first.as_second() < settings.learning_days() * DAY;
        let Some((who, doubts)) = judge(&mut state.ledger, settings, entry) else { return found };
        let is_decoy = |name: &SecretName| settings.is_decoy(name) || is_decoy(name);
        let doubts = match entry.secret.as_ref().filter(|name| is_decoy(name)) {
            // Nothing is to be learned of who uses it how.
            Some(name) => decoyed(entry, &who, name).into_iter().collect(),
            None if learning => Vec::new(),
            None => doubts,
        };
        for doubt in doubts {
            let threshold = settings.threshold(doubt.kind, entry.secret.as_ref(), &who);
            if let Some(threshold) = threshold {
                state.pending.add(entry, &who, doubt, threshold);
            }
        }
        found
    }

    /// Tells what time it is, so that what waits comes out though no line follows.
    pub fn advance(&mut self, now: Timestamp) -> Vec<Finding> {
        // A clock that is set back does not make anything wait for ever.
        let now = self.state.last.map_or(now, |last| last.max(now));
        self.state.last = Some(now);
        self.state.pending.release(now, self.settings.settle_seconds())
    }

    /// Returns what still waits: there will be no more lines.
    pub fn finish(&mut self) -> Vec<Finding> {
        self.state.pending.finish()
    }
}

/// Why a state cannot be gone on with.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("the state of the detectors has the form {0}, which this program does not know")]
    Format(u32),
    #[error("the state of the detectors cannot be read")]
    Json(#[from] serde_json::Error),
}
