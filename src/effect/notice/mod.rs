//! Notices: how a consumer is told that there is a new value.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Command;
use super::step::{Outcome, Step};

mod signal;
mod unit;

/// A way to tell a consumer.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Notice {
    Command(Command),
    Signal(Signal),
    Unit(Unit),
}

impl Notice {
    /// Returns the word for it in configuration and results.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Command(_) => "command",
            Self::Signal(_) => "signal",
            Self::Unit(_) => "unit",
        }
    }

    /// Tells the consumer.
    pub(super) fn send(&self, step: &Step<'_>) -> Outcome {
        match self {
            Self::Command(command) => command.tell(step),
            Self::Signal(signal) => signal.send(step),
            Self::Unit(unit) => unit.tell(step),
        }
    }
}

/// A signal to a process, named in one of three ways. That there is none is no failure: it will read the
/// new value when it starts.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "SignalKeys", into = "SignalKeys")]
pub struct Signal {
    pub signal: SignalName,
    pub process: Processes,
}

/// Which processes are meant.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Processes {
    /// All that run this program and were not started by one that runs it too.
    Exe(PathBuf),
    /// The one whose number stands in this file.
    PidFile(PathBuf),
    /// The main process of this unit.
    Unit(String),
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct SignalKeys {
    signal: SignalName,
    #[serde(skip_serializing_if = "Option::is_none")]
    exe: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pidfile: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<String>,
}

impl TryFrom<SignalKeys> for Signal {
    type Error = &'static str;

    fn try_from(keys: SignalKeys) -> Result<Self, Self::Error> {
        let process = match keys {
            SignalKeys { exe: Some(exe), pidfile: None, unit: None, .. } => Processes::Exe(exe),
            SignalKeys { exe: None, pidfile: Some(file), unit: None, .. } => {
                Processes::PidFile(file)
            }
            SignalKeys { exe: None, pidfile: None, unit: Some(unit), .. } => {
                Processes::Unit(checked_unit(unit)?)
            }
            SignalKeys { .. } => return Err("a signal goes to one of exe, pidfile and unit"),
        };
        Ok(Self { signal: keys.signal, process })
    }
}

impl From<Signal> for SignalKeys {
    fn from(Signal { signal, process }: Signal) -> Self {
        let keys = Self { signal, exe: None, pidfile: None, unit: None };
        match process {
            Processes::Exe(exe) => Self { exe: Some(exe), ..keys },
            Processes::PidFile(file) => Self { pidfile: Some(file), ..keys },
            Processes::Unit(unit) => Self { unit: Some(unit), ..keys },
        }
    }
}

/// Signals that programs take as "read your configuration again" or "end".
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum SignalName {
    #[serde(rename = "HUP", alias = "SIGHUP")]
    Hup,
    #[serde(rename = "INT", alias = "SIGINT")]
    Int,
    #[serde(rename = "TERM", alias = "SIGTERM")]
    Term,
    #[serde(rename = "USR1", alias = "SIGUSR1")]
    Usr1,
    #[serde(rename = "USR2", alias = "SIGUSR2")]
    Usr2,
}

/// A unit of systemd's that is told.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "UnitKeys", into = "UnitKeys")]
pub struct Unit {
    unit: String,
    pub action: UnitAction,
}

impl Unit {
    /// Returns what happens to a unit, if that can be the name of one.
    pub fn new(unit: String, action: UnitAction) -> Result<Self, &'static str> {
        UnitKeys { unit, action }.try_into()
    }

    /// Returns the unit's name.
    pub fn name(&self) -> &str {
        &self.unit
    }
}

/// What happens to it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UnitAction {
    /// Reloads it if it runs.
    Reload,
    /// Restarts it, or starts it.
    Restart,
    /// Restarts it if it runs.
    TryRestart,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct UnitKeys {
    unit: String,
    action: UnitAction,
}

impl TryFrom<UnitKeys> for Unit {
    type Error = &'static str;

    fn try_from(UnitKeys { unit, action }: UnitKeys) -> Result<Self, Self::Error> {
        Ok(Self { unit: checked_unit(unit)?, action })
    }
}

impl From<Unit> for UnitKeys {
    fn from(Unit { unit, action }: Unit) -> Self {
        Self { unit, action }
    }
}

/// A name without a pattern or an option in it.
fn checked_unit(unit: String) -> Result<String, &'static str> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    let is_name = unit.len() < 256 && unit.contains('.') && !unit.starts_with(['-', '.']);
    if is_name && unit.chars().all(allowed) {
        return Ok(unit);
    }
    Err("a unit is named in full, such as nginx.service")
}
