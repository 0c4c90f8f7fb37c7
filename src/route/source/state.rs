//! How it stands with a service, for status and metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Source;
use crate::model::SecretName;

/// What is counted since the start.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) requests: AtomicU64,
    pub(super) failures: AtomicU64,
    pub(super) stale_reads: AtomicU64,
    pub(super) unfit: AtomicU64,
}

/// How it stands with a service.
#[derive(Clone, Debug)]
pub struct State {
    pub backend: String,
    pub path: SecretName,
    /// Why it is left alone, if it is.
    pub down: Option<String>,
    pub copies: u64,
    /// How long ago the copy that has waited longest was confirmed.
    pub oldest: Duration,
    pub requests: u64,
    pub failures: u64,
    /// Reads that were served a copy which was not fresh.
    pub stale_reads: u64,
    /// Answers that cannot be kept here: too long, or in the place of something else.
    pub unfit: u64,
}

impl Source {
    /// See [`Routes::states`](crate::route::Routes::states).
    pub(in crate::route) fn state(&self) -> State {
        let now = self.clock.now();
        let copies = self.broker.copies(&self.backend).unwrap_or_default();
        let oldest = copies.iter().map(|copy| self.age(copy.confirmed, now)).max();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        State {
            backend: self.backend().to_owned(),
            path: self.path.clone(),
            down: self.down(),
            copies: copies.len() as u64,
            oldest: oldest.unwrap_or_default(),
            requests: count(&self.counts.requests),
            failures: count(&self.counts.failures),
            stale_reads: count(&self.counts.stale_reads),
            unfit: count(&self.counts.unfit),
        }
    }
}
