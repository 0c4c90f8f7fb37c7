//! What was delivered where and who was told of it: shown to admins, and remembered for the next server.
//!
//! It lies in the state directory, without any value, so that a consumer hears of a change whose notice was
//! still to come when a server was killed.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::Versions;
use crate::effect::{Placement, PlacementKind};
use crate::model::{Timestamp, Version};

/// By path and by name.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct State {
    pub(super) files: BTreeMap<PathBuf, Delivery>,
    pub(super) consumers: BTreeMap<String, Told>,
}

/// What is at a path.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct Delivery {
    /// What was put there, from before it is until after it was taken away.
    #[serde(default)]
    pub(super) placed: Option<Placement>,
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
    pub(super) versions: Option<Versions>,
    pub(super) time: Option<Timestamp>,
    /// Whether this server knows if there is something to tell.
    #[serde(skip)]
    pub(super) looked_at: bool,
    #[serde(skip)]
    pub(super) telling: Option<Telling>,
    #[serde(skip)]
    pub(super) retry: Retry,
}

/// What is to be told.
#[derive(Clone, Debug)]
pub(super) struct Telling {
    /// What the consumer knows afterwards.
    pub(super) current: Versions,
    /// How many of its notices are given.
    pub(super) given: usize,
    /// Until then some processes are given versions before these.
    pub(super) thaws: Option<Instant>,
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

impl State {
    /// Reads what was remembered; what makes no sense is nothing.
    pub(super) fn read(file: &Path) -> Self {
        let read =
            fs::read(file).and_then(|text| serde_json::from_slice(&text).map_err(io::Error::from));
        read.unwrap_or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(%error, "what was injected before is not known");
            }
            Self::default()
        })
    }
}

impl Delivery {
    pub(super) fn word(&self) -> &'static str {
        // A directory has no version.
        let is_bound = self.placed.as_ref().is_some_and(|file| file.kind == PlacementKind::Bind);
        match (&self.retry.error, self.settled) {
            (Some(_), _) => "failed",
            (None, false) => "pending",
            (None, true) if self.version.is_some() || is_bound => "current",
            (None, true) => "no value",
        }
    }

    /// Returns the word for one that is not listed any more.
    pub(super) fn leaving_word(&self) -> &'static str {
        if self.retry.error.is_some() { "failed" } else { "leaving" }
    }
}

impl Told {
    pub(super) fn word(&self) -> &'static str {
        match (&self.retry.error, self.looked_at, &self.telling) {
            (Some(_), ..) => "failed",
            (None, true, None) => "current",
            (None, false, _) | (None, true, Some(_)) => "pending",
        }
    }
}

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
