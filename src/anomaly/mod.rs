//! What in the audit log is unlike the log before it.
//!
//! A [`Detector`] is fed the log line by line and learns from it alone: who uses what, when, how often and
//! with which program. What does not fit becomes a [`Finding`], with a score, a sentence and the lines behind
//! it. It has no clock (a line's own time counts), asks nobody, and its memory is bounded; the same lines
//! give the same findings. `docs/ANOMALIES.md` says what each kind means.
#![forbid(unsafe_code)]

mod detector;
mod finding;
mod judge;
mod ledger;
mod pending;
mod profile;
mod settings;
#[cfg(test)]
mod tests;
mod who;

pub use detector::{Detector, StateError};
pub use finding::{Finding, Kind};
pub use settings::{LEARNING_DAYS, Settings};
pub use who::Who;
