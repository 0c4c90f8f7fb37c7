//! What was delivered where and who was told of it: shown to admins, and remembered for the next server.
//!
//! It lies in the state directory, without any value, so that a consumer hears of a change whose notice was
//! still to come when a server was killed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::model::{SecretName, Timestamp, Version};

/// By path and by name.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct State {
    pub(super) files: BTreeMap<PathBuf, Delivery>,
    pub(super) consumers: BTreeMap<String, Told>,
}

/// What is at a path.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct Delivery {
    pub(super) version: Option<Version>,
    pub(super) time: Option<Timestamp>,
    /// Whether this server has put it there, or taken it away.
    #[serde(skip)]
    pub(super) settled: bool,
    #[serde(skip)]
    pub(super) retry: Retry,
}

/// What a consumer knows.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct Told {
    /// `None`: it was never looked at, and starts with what is there.
    pub(super) versions: Option<BTreeMap<SecretName, Version>>,
    pub(super) time: Option<Timestamp>,
    /// How many of its notices are given for the change at hand.
    #[serde(skip)]
    pub(super) given: usize,
    #[serde(skip)]
    pub(super) pending: bool,
    #[serde(skip)]
    pub(super) retry: Retry,
}

/// When what failed is tried again.
#[derive(Clone, Debug, Default)]
pub(super) struct Retry {
    pub(super) error: Option<String>,
    at: Option<Instant>,
    pause: Duration,
}

/// The pause before what failed is tried again; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

impl Retry {
    /// Returns how long it is still to wait; `None`: not any more.
    pub(super) fn wait(&self) -> Option<Duration> {
        self.at?.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }

    pub(super) fn failed(&mut self, why: String) {
        self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        self.at = Some(Instant::now() + self.pause);
        self.error = Some(why);
    }
}
