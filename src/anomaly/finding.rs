//! A finding: what was unlike before, how much, and which lines of the log show it.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Who;
use crate::audit::{Action, Entry};
use crate::model::{SecretName, Seq, Timestamp};

/// Defines the kinds with their words, so that both stand in one place.
macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)*) => {
        /// In which way something is unlike before.
        #[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Kind {
            $($(#[$doc])* $name,)*
        }

        impl Kind {
            /// Every kind, in the order of the alphabet.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Returns the word for it in findings and settings.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }
        }
    };
}

kinds! {
    /// A caller uses far more in minutes than it ever did.
    Burst = "burst",
    /// A program that is known to read everything does so for the first time.
    Crawler = "crawler",
    /// Somebody asks for a secret that nothing should ever open.
    Decoy = "decoy",
    /// A program's file has other bytes.
    ExeChanged = "exe_changed",
    /// A caller uses a secret that it never used.
    FirstUse = "first_use",
    /// A process reads late in its life, of a program whose processes end soon.
    LongLived = "long_lived",
    /// A secret or a caller is back after a long silence.
    LongSilence = "long_silence",
    /// A version is read that is not the current one any more.
    OldVersion = "old_version",
    /// An open file of a secret is read by another user.
    PassedOn = "passed_on",
    /// Many refusals in a few minutes.
    Refusals = "refusals",
    /// An hour or a kind of day at which the caller was never seen.
    UnusualTime = "unusual_time",
    /// One caller asks for many different names.
    Walk = "walk",
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Something that an administrator may want to look at.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Finding {
    /// When it began: the time of the first line.
    pub time: Timestamp,
    pub kind: Kind,
    /// From 0 to 1: how unlike the past it is.
    pub score: f64,
    /// The secret, or the first of several.
    pub secret: Option<SecretName>,
    pub caller: Who,
    /// One sentence.
    pub explanation: String,
    /// How many lines are behind it.
    pub lines: u64,
    /// The first of them.
    pub seqs: Vec<Seq>,
}

impl Finding {
    /// Returns the one that a line of the log has on record; `None`: it has none. An error: it is not understood.
    pub fn recorded(entry: &Entry) -> Option<serde_json::Result<Self>> {
        let read = || Self::deserialize(entry.detail.as_ref().unwrap_or(&Value::Null));
        (entry.action == Action::Anomaly).then(read)
    }
}
