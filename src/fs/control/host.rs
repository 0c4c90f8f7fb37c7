//! What the control files need from the program around them; the daemon implements it.

use std::fs::File;
use std::io::Write;

use serde_json::Value;

use crate::broker::BrokerError;
use crate::model::Caller;
use crate::system::SecretBytes;

/// The daemon, as the control files see it. Every command is authorised and recorded by the broker
/// behind it: to have opened a control file grants nothing.
pub trait Host: Send + Sync {
    /// Pairs for `.control/status`, in the order in which they are shown.
    fn status(&self) -> Vec<(String, String)>;
    /// For `.control/health`.
    fn health(&self) -> Health;
    /// JSON lines for `.control/audit/anomalies`.
    fn anomalies(&self) -> String;
    /// JSON lines for `.control/injections`.
    fn injections(&self) -> String;
    /// Prometheus text for `.control/metrics`.
    fn metrics(&self, held: &Held) -> String;
    /// `.control/reload`: policy and configuration; a bad file changes nothing.
    fn reload(&self, caller: &Caller) -> Result<Value, BrokerError>;
    /// `.control/seal`.
    fn seal(&self, caller: &Caller) -> Result<Value, BrokerError>;
    /// `.control/unseal`; without a passphrase the configured key source is asked again.
    fn unseal(
        &self,
        caller: &Caller,
        passphrase: Option<SecretBytes>,
    ) -> Result<Value, BrokerError>;
    /// `.control/rotate`: rotates a secret, or tells how a rotation stands.
    fn rotate(&self, caller: &Caller, command: &Value) -> Result<Value, BrokerError>;
    /// `.control/elevate`: takes a one-time code, or the seed of such codes.
    fn elevate(&self, caller: &Caller, command: &SecretBytes) -> Result<Value, BrokerError>;
    /// `.control/grant`: gives something on top of the policy, for a time.
    fn grant(&self, caller: &Caller, command: &Value) -> Result<Value, BrokerError>;
    /// `.control/revoke`: ends a grant before its time.
    fn revoke_grant(&self, caller: &Caller, command: &Value) -> Result<Value, BrokerError>;
    /// `.control/holders`: which live processes hold which version.
    fn holders(&self, caller: &Caller, command: &Value) -> Result<Value, BrokerError>;
    /// `.control/scan`: looks for secrets in files as the caller; no longer than a caller waits.
    fn scan(&self, caller: &Caller, command: &Value) -> Result<Value, BrokerError>;
    /// `.control/admin`: a JSON object whose `do` names the command.
    fn admin(&self, caller: &Caller, command: &Value) -> Result<Value, BrokerError>;
    /// `.control/backup`: writes the whole encrypted backup, as fast as `out` takes it.
    fn backup(&self, caller: &Caller, out: &mut dyn Write) -> Result<(), BrokerError>;
    /// Makes an empty file without a name for a backup that is being written.
    fn spool(&self) -> Result<File, BrokerError>;
    /// `.control/restore`: takes a whole backup; as long as it takes.
    fn restore(&self, caller: &Caller, backup: File) -> Result<(), BrokerError>;
}

/// What open files hold at the moment.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Held {
    /// Open files and directories of the whole mount.
    pub handles: u64,
    /// Versions that some of them read.
    pub versions: u64,
    /// Those that are not their secret's current ones any more.
    pub superseded: u64,
}

/// One word for probes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Health {
    /// Serving, but something needs a person: `status` says what.
    Degraded,
    Ok,
    Sealed,
}

impl Health {
    /// Returns the word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Degraded => "degraded",
            Self::Ok => "ok",
            Self::Sealed => "sealed",
        }
    }
}
