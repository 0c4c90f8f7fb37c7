//! What is remembered of a secret's rotations, with the secret: where the one under way stands, and how
//! the last ones ended.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::outcome::{Outcome, StepDone};
use crate::effect::{Notice, Target};
use crate::model::{Timestamp, Uid, Version};

/// How many rotations are remembered with a secret. The audit log has all of them.
const REMEMBERED: usize = 10;

/// The note that the broker keeps beside a secret's record.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(super) struct Note {
    pub(super) under_way: Option<UnderWay>,
    /// Rotations that have failed since the last one that did not.
    pub(super) failures: u32,
    pub(super) last_failure: Option<Timestamp>,
    /// The youngest first.
    pub(super) outcomes: Vec<Outcome>,
}

/// A rotation that has changed something outside, or is about to.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct UnderWay {
    pub(super) rotation: String,
    pub(super) phase: Phase,
    pub(super) old: Version,
    pub(super) new: Version,
    /// Whether the new value was staged by somebody else, who keeps it if it is not to be.
    #[serde(default)]
    pub(super) adopted: bool,
    /// As it was configured when the rotation began: what was set there is to be undone there.
    pub(super) target: Option<Target>,
    pub(super) after: After,
    pub(super) began: Timestamp,
    /// Who asked for it; `None`: the schedule.
    pub(super) by: Option<Uid>,
    pub(super) verified_by: Option<String>,
    /// When the new value ends by itself, and the half of it that may be known.
    #[serde(default)]
    pub(super) expires: Option<Timestamp>,
    #[serde(default)]
    pub(super) public: Option<String>,
    /// Whose the staged value is, and where else it may be.
    #[serde(default)]
    pub(super) standing: Standing,
    pub(super) error: Option<String>,
    pub(super) steps: Vec<StepDone>,
}

/// Whose the staged value is, and whether the service that keeps the secret may have it, if another one does.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Standing {
    /// The rotation's, and it is here alone.
    #[default]
    Here,
    /// The rotation's, and the service may have it, or get it yet.
    Forwarded,
    /// Somebody else has made it there, and the rotation's own was given up.
    Theirs,
}

/// What is done, or about to be done.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Phase {
    /// The target may accept the new value, and readers get the old one.
    Set,
    /// The target accepts it, and the service that keeps the secret is to take it.
    Forward,
    /// The target is to accept the old value alone again.
    Undo,
    /// Readers get the new value; consumers are to be told.
    Notify,
    /// They were told; the old value is to be retired.
    Retire,
}

/// What comes after the switch.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(super) struct After {
    pub(super) notify: Vec<Notice>,
    pub(super) wait_adopted: Duration,
    pub(super) restart_holders: bool,
}

impl Note {
    /// Reads a note. One that is not understood is treated as none: what it says is history alone,
    /// unless a rotation is under way, and then it was written by this program.
    pub(super) fn parse(text: &str) -> Self {
        if text.is_empty() {
            return Self::default();
        }
        serde_json::from_str(text).unwrap_or_else(|error| {
            tracing::error!(%error, "the note of a rotation is not understood");
            Self::default()
        })
    }

    pub(super) fn text(&self) -> Box<str> {
        // Its keys are words and nothing in it can fail to become text.
        serde_json::to_string(self).unwrap_or_default().into()
    }

    /// Takes note of how a rotation ended.
    pub(super) fn ended(&mut self, outcome: Outcome) {
        self.under_way = None;
        if outcome.success {
            (self.failures, self.last_failure) = (0, None);
        } else {
            self.failures = self.failures.saturating_add(1);
            self.last_failure = Some(outcome.finished);
        }
        self.outcomes.insert(0, outcome);
        self.outcomes.truncate(REMEMBERED);
    }
}
