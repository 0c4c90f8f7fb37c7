//! How a rotation ended, for people, for programs and for the record.

use serde::{Deserialize, Serialize};

use crate::model::{SecretName, Timestamp, Version};

/// The result of a rotation.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Outcome {
    /// Tells this rotation from all others.
    pub rotation: String,
    pub secret: SecretName,
    /// Whether readers get the new value.
    pub success: bool,
    pub old_version: Version,
    /// `None`: no version was made, or it was given up.
    pub new_version: Option<Version>,
    /// Whether the new value was seen to work before readers got it.
    pub verified: bool,
    /// How: `login`, `tls` and so on; `read_back` claims no more than that it was stored.
    pub verified_by: Option<String>,
    /// Whether the target was brought back to the value before.
    pub rolled_back: bool,
    /// The half that may be known, of a new pair of keys: a line for `authorized_keys`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
    /// What went wrong, also where the rotation as a whole succeeded. Never a value.
    pub error: Option<String>,
    /// In seconds.
    pub duration: f64,
    pub steps: Vec<StepDone>,
    pub finished: Timestamp,
}

/// A step that was taken.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct StepDone {
    pub step: StepName,
    pub ok: bool,
    /// What was done or what went wrong, in one line without any value.
    pub note: String,
    /// In milliseconds.
    pub took: f64,
}

/// The steps, in the order in which they are taken.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StepName {
    Generate,
    Stage,
    Set,
    Verify,
    /// Has the service take it that keeps the secret, if another one does.
    Forward,
    Switch,
    Notify,
    Adopt,
    Retire,
    /// Brings the target back to the value before.
    Rollback,
}

impl StepName {
    /// Every step.
    pub const ALL: [Self; 10] = [
        Self::Generate,
        Self::Stage,
        Self::Set,
        Self::Verify,
        Self::Forward,
        Self::Switch,
        Self::Notify,
        Self::Adopt,
        Self::Retire,
        Self::Rollback,
    ];

    /// Returns the word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Generate => "generate",
            Self::Stage => "stage",
            Self::Set => "set",
            Self::Verify => "verify",
            Self::Forward => "forward",
            Self::Switch => "switch",
            Self::Notify => "notify",
            Self::Adopt => "adopt",
            Self::Retire => "retire",
            Self::Rollback => "rollback",
        }
    }
}
