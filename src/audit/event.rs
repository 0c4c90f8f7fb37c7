//! What can be recorded: who did what to which secret, and how it ended.

use std::collections::HashMap;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::{Caller, Generation, SecretName, Uid, Version};

/// One thing that happened. What is unknown is `None` and recorded as null.
///
/// Values never belong here; names, comm and paths may hold any bytes, for they are escaped.
#[derive(Clone, Debug)]
pub struct Event<'a> {
    pub action: Action,
    pub outcome: Outcome,
    pub secret: Option<&'a SecretName>,
    pub version: Option<Version>,
    pub caller: Option<&'a Caller>,
    /// The policy rule that decided.
    pub rule: Option<&'a str>,
    /// Why it was refused or failed.
    pub reason: Option<&'a str>,
    /// The store's generation; of an [`Action::Anchor`], the one that was committed.
    pub generation: Option<Generation>,
    pub detail: Option<serde_json::Value>,
}

impl Event<'_> {
    /// Returns an event of which nothing else is known. Fill in the rest by struct update.
    pub fn new(action: Action, outcome: Outcome) -> Self {
        Self {
            action,
            outcome,
            secret: None,
            version: None,
            caller: None,
            rule: None,
            reason: None,
            generation: None,
            detail: None,
        }
    }
}

/// Defines the actions with their words, so that both stand in one place.
macro_rules! actions {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)*) => {
        /// What was done or asked for.
        #[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Action {
            $($(#[$doc])* $name,)*
        }

        impl Action {
            /// Every action, in the order of the alphabet.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Returns the word for it in audit lines and filters.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }
        }
    };
}

actions! {
    /// The store committed a generation.
    Anchor = "anchor",
    /// The log was found to be unlike what it was before; the detail says how.
    Anomaly = "anomaly",
    Append = "append",
    AuditRead = "audit_read",
    /// A service that keeps secrets cannot be reached any more, or can again.
    BackendConnection = "backend_connection",
    Backup = "backup",
    /// Somebody takes a grant in an emergency.
    BreakGlass = "break_glass",
    /// A lookup that was refused.
    Check = "check",
    Control = "control",
    CreateDirectory = "create_directory",
    Delete = "delete",
    Destroy = "destroy",
    /// A one-time code was taken, or refused, to elevate a login session.
    Elevate = "elevate",
    /// A change is on its way to the service that keeps the secret.
    Forward = "forward",
    /// A grant is given.
    Grant = "grant",
    GrantApprove = "grant_approve",
    /// A grant has come to its end by itself.
    GrantEnd = "grant_end",
    /// Somebody asks for a grant that others must approve.
    GrantRequest = "grant_request",
    GrantRevoke = "grant_revoke",
    KeyChange = "key_change",
    MfaEnrol = "mfa_enrol",
    MfaForget = "mfa_forget",
    PolicyReload = "policy_reload",
    Promote = "promote",
    /// Retention removed segments. Written by the log itself.
    Prune = "prune",
    /// A caller is kept from everything for a while.
    Quarantine = "quarantine",
    QuarantineEnd = "quarantine_end",
    Read = "read",
    /// A count of refusals that were not recorded one by one.
    Refusals = "refusals",
    RemoveDirectory = "remove_directory",
    Rename = "rename",
    Restore = "restore",
    /// A step of a rotation; the last one's detail says how it ended.
    Rotate = "rotate",
    Seal = "seal",
    /// The last line of a segment that another follows. Written by the log itself.
    SegmentClose = "segment_close",
    /// The first line of such a following segment. Written by the log itself.
    SegmentOpen = "segment_open",
    SetAttribute = "set_attribute",
    Stage = "stage",
    /// The first line of a process's first segment. Written by the log itself.
    Start = "start",
    /// The last line of a process that ended in order. Written by the log itself.
    Stop = "stop",
    Unseal = "unseal",
    Verify = "verify",
    Write = "write",
}

impl Action {
    /// Tells whether the log writes such lines itself: verification gives them a meaning.
    pub(super) fn is_reserved(self) -> bool {
        [Self::Prune, Self::SegmentClose, Self::SegmentOpen, Self::Start, Self::Stop]
            .contains(&self)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Action {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().copied().find(|action| action.as_str() == text);
        found.ok_or_else(|| format!("{text:?} is no audit action"))
    }
}

/// How it ended.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Allowed by the policy, and recorded before it was done.
    Allowed,
    Denied,
    /// Allowed, and failed afterwards.
    Failed,
}

impl Outcome {
    /// Returns the word for it in audit lines and filters.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Outcome {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::Allowed, Self::Denied, Self::Failed];
        let found = all.into_iter().find(|outcome| outcome.as_str() == text);
        found.ok_or_else(|| format!("{text:?} is no outcome: use allowed, denied or failed"))
    }
}

/// Tells the names of users from memory. It is asked once a line, so it must never block (no NSS).
pub trait UserNames: Send + Sync {
    /// Returns the name of `uid`, or `None` for one that is not in the table.
    fn user(&self, uid: Uid) -> Option<Arc<str>>;
}

impl<S: BuildHasher + Send + Sync> UserNames for HashMap<Uid, Arc<str>, S> {
    fn user(&self, uid: Uid) -> Option<Arc<str>> {
        self.get(&uid).cloned()
    }
}
