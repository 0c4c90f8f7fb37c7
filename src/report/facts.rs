//! What a report is made from.

use std::fmt;

use serde::{Serialize, Serializer};

use super::tally::Tally;
use crate::anomaly::Finding;
use crate::model::{Attributes, Epoch, Level, Levels, SecretName, Seq, Timestamp};
use crate::policy::{GuardSurvey, Policy, RuleSurvey, Subject, Target};

/// Everything that checks and pictures go by. What is not known is `None`, and evidences nothing.
#[derive(Debug)]
pub struct Facts {
    pub made: Timestamp,
    pub source: Source,
    pub chain: Chain,
    pub tally: Tally,
    /// What the detectors have found in the period; `None` if they were not asked.
    pub anomalies: Option<Vec<Finding>>,
    pub keys: Option<Keys>,
    /// What the daemon says of the record set, as in `verified`.
    pub integrity: Option<String>,
    /// By name.
    pub secrets: Vec<SecretFacts>,
    pub policy: Option<PolicyFacts>,
}

/// Where the facts are from.
#[derive(Clone, Debug)]
pub enum Source {
    Daemon {
        mountpoint: String,
        version: String,
    },
    /// Files of lines.
    Recorded(Vec<String>),
}

/// Whether the log is whole.
#[derive(Clone, Debug)]
pub enum Chain {
    Broken {
        why: String,
    },
    /// It takes the store's key, and there is none here.
    Unchecked,
    Whole {
        first: Seq,
        head: Seq,
        notes: Vec<String>,
    },
}

/// The store's keys.
#[derive(Clone, Debug)]
pub struct Keys {
    pub cipher: String,
    pub sources: Vec<String>,
    pub epochs: Vec<EpochFacts>,
}

/// One epoch key.
#[derive(Clone, Copy, Debug)]
pub struct EpochFacts {
    pub epoch: Epoch,
    pub active: bool,
    pub created: Timestamp,
    /// How many records and values are sealed under it.
    pub sealed: u64,
}

/// A secret without its value.
#[derive(Clone, Debug)]
pub struct SecretFacts {
    pub name: SecretName,
    pub attributes: Attributes,
    /// When its current value was made.
    pub value_since: Option<Timestamp>,
    pub created: Option<Timestamp>,
    pub expires: Option<Timestamp>,
    pub rotation_days: Option<u32>,
    /// When its schedule has it rotated next.
    pub due: Option<Timestamp>,
    pub decoy: bool,
    pub revoked: bool,
}

/// The policy in force, over the secrets that there are.
#[derive(Debug)]
pub struct PolicyFacts {
    pub default_levels: Levels,
    pub rules: Vec<RuleSurvey>,
    pub guards: GuardSurvey,
    pub subjects: Vec<Subject>,
    /// For each subject whether it is an admin of the store.
    pub admins: Vec<bool>,
    /// For each secret what each subject may do with it.
    pub rights: Vec<Vec<Levels>>,
}

impl PolicyFacts {
    /// Asks the policy about every secret.
    pub fn new(policy: &Policy, secrets: &[SecretFacts], now: Timestamp) -> Self {
        let subjects = policy.subjects();
        let all = |target| {
            let levels = subjects.iter().map(|subject| policy.standing(subject, target, now));
            levels.collect::<Vec<_>>()
        };
        let rights = secrets.iter().map(|secret| {
            all(Target::Secret { name: &secret.name, attributes: Some(&secret.attributes) })
        });
        let (rights, store) = (rights.collect(), all(Target::Store));
        Self {
            default_levels: policy.default_levels(),
            rules: policy.rules(),
            guards: policy.guard_survey(),
            rights,
            admins: store.iter().map(|levels| levels.allow(Level::Admin)).collect(),
            subjects,
        }
    }
}

impl SecretFacts {
    /// Returns how many whole days old the value is.
    pub fn age_days(&self, now: Timestamp) -> Option<i64> {
        self.value_since.map(|since| days_between(since, now))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Daemon { mountpoint, version } => {
                write!(f, "the store at {mountpoint}, secretfs {version}")
            }
            Self::Recorded(files) => write!(f, "a recorded log: {}", files.join(", ")),
        }
    }
}

/// Returns how many whole days lie between two moments; none if the later one is first.
pub(super) fn days_between(from: Timestamp, to: Timestamp) -> i64 {
    (to.duration_since(from).as_hours() / 24).max(0)
}

pub(super) fn as_text<S: Serializer>(time: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(time)
}

/// Writes a map whose keys are no texts as a list of pairs.
pub(super) fn as_pairs<K: Serialize, V: Serialize, S: Serializer>(
    map: &std::collections::BTreeMap<K, V>,
    to: S,
) -> Result<S::Ok, S::Error> {
    to.collect_seq(map)
}
