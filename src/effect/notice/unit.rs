//! Tells a unit of systemd's, by systemctl(1).
//!
//! It speaks to systemd over D-Bus, waits for the job and knows what its result means; a library for that
//! would be larger than all the rest of the effector.

use super::{SignalName, Unit, UnitAction};
use crate::effect::run::{Printed, Run};
use crate::effect::step::{Outcome, Step, invalid};
use crate::effect::{Argv, Command, EffectError};

const SYSTEMCTL: &str = "/usr/bin/systemctl";

impl Unit {
    pub(super) fn tell(&self, step: &Step<'_>) -> Outcome {
        let name = self.name();
        // One that does not run reads the new value when it starts.
        if self.action != UnitAction::Restart && !is_active(name, step)? {
            return Ok(format!("{name} does not run"));
        }
        let verb = match self.action {
            UnitAction::Reload => "reload",
            UnitAction::Restart => "restart",
            UnitAction::TryRestart => "try-restart",
        };
        systemctl(&[verb, "--", name], step)?;
        Ok(format!("{verb} of {name} is done"))
    }
}

/// Sends a signal to a unit's main process.
pub(super) fn signal(name: &str, signal: SignalName, step: &Step<'_>) -> Outcome {
    if !is_active(name, step)? {
        return Ok(format!("{name} does not run"));
    }
    let signal = signal.word();
    systemctl(&["kill", "--kill-whom=main", &format!("--signal=SIG{signal}"), "--", name], step)?;
    Ok(format!("{signal} sent to {name}"))
}

fn is_active(name: &str, step: &Step<'_>) -> Result<bool, EffectError> {
    let command = command(&["is-active", "--", name])?;
    let ended = Run::of(&command).run(step, Printed::Said)?;
    match (ended.status.code(), ended.said.as_str()) {
        (Some(0), _) | (_, "reloading" | "refreshing") => Ok(true),
        (_, "activating" | "deactivating" | "failed" | "inactive" | "maintenance" | "unknown") => {
            Ok(false)
        }
        (_, said) => Err(EffectError::Unreachable(format!("systemd: {said}"))),
    }
}

fn systemctl(words: &[&str], step: &Step<'_>) -> Outcome {
    let command = command(words)?;
    Run::of(&command).to_the_end(step)
}

fn command(words: &[&str]) -> Result<Command, EffectError> {
    let mut argv = vec![SYSTEMCTL.to_owned(), "--no-ask-password".to_owned()];
    argv.extend(words.iter().map(|word| (*word).to_owned()));
    let argv = Argv::try_from(argv).map_err(invalid)?;
    Ok(Command { argv, user: None, timeout_seconds: None })
}
