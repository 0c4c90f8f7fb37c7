//! What root does for the system's unit before and after its server, which may neither mount nor unmount.
//!
//! The mounter makes the mount in the host's mount namespace, gives the files to the server's user and
//! leaves device, journal and room for the key with systemd. The unmounter takes the mount away, unless
//! another server is to go on. Neither reads a secret or what a caller has written, and neither looks
//! into the mount: there is nobody to answer.

use std::io;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use sd_notify::NotifyState;

use super::config::{Config, Environment};
use super::init::{check_alerts, check_injections, check_policy, check_rotation};
use super::injections;
use super::lock::StoreLock;
use super::mounting::{self, Mounting};
use super::trust::TrustError;
use super::{DaemonError, logging, notify, ownership};
use crate::fs::Journal;
use crate::system::{KeyCell, service_user};

/// Sees to it that there is a mount whose descriptors systemd keeps. Errors: `Busy` where another daemon
/// serves one.
pub fn mount(config: &Config, unit: &str, environment: &Environment) -> Result<(), DaemonError> {
    start_log(config, environment)?;
    hand_over(config);
    let is_kept = Unit::ask(unit)?.number("NFileDescriptorStore") == Some(notify::KEPT);
    if is_kept && is_mounted(&config.mountpoint)? {
        return Ok(());
    }
    check(config)?;
    let journal = Journal::new().map_err(DaemonError::io("making the journal"))?;
    let key = KeyCell::new().map_err(DaemonError::io("making room for the key"))?;
    let (mounting, device) = Mounting::make(config)?;
    mounting.protect();
    let kept = notify::keep_descriptors(&device, &journal, &key);
    kept.map_err(DaemonError::io("leaving the mount with systemd")).inspect_err(|_| {
        if let Err(error) = mounting.take_away() {
            tracing::warn!(why = error.chain(), "not unmounted");
        }
    })
}

/// Refuses what the server would refuse at once: else systemd, which tries for as long as it takes, would make a
/// mount that comes and goes.
fn check(config: &Config) -> Result<(), DaemonError> {
    if !config.store().exists() {
        return Err(DaemonError::NoStore(config.state_dir.clone()));
    }
    for checked in [
        check_policy(&config.policy).map(drop),
        check_rotation(&config.rotation).map(drop),
        check_injections(&config.injections).map(drop),
        check_alerts(&config.alerts).map(drop),
    ] {
        match checked {
            // Of the server's own user, whom it believes as well as root.
            Err(DaemonError::Trust(TrustError::Owner { owner, .. }))
                if service_user().is_some_and(|user| user.uid == owner) => {}
            checked => checked?,
        }
    }
    Ok(())
}

/// Takes the mount away after a server's end, unless another is to go on with it.
pub fn unmount(config: &Config, unit: &str, environment: &Environment) -> Result<(), DaemonError> {
    start_log(config, environment)?;
    let asked = Unit::ask(unit)?;
    let job = asked.job(unit)?;
    let result = environment.text("SERVICE_RESULT").unwrap_or_default();
    let goes_on = goes_on(job.as_deref(), result, asked.unserved());
    if goes_on {
        return Ok(());
    }
    let taken = if is_mounted(&config.mountpoint)? {
        tracing::info!(mountpoint = ?config.mountpoint, result, "unmounting");
        mounting::take_away(&config.mountpoint)
    } else {
        Ok(())
    };
    // The server did not know that it was the last one, or was killed at it.
    let settings = check_injections(&config.injections).unwrap_or_else(|error| {
        tracing::warn!(why = error.chain(), "only files that the server has placed are taken away");
        injections::Settings::default()
    });
    injections::clean_up(&settings, &config.injected(), &config.mountpoint);
    taken
}

/// A mount without a server is taken away after so long: nobody hangs in it any more.
const PATIENCE: Duration = Duration::from_secs(30);

/// Tells whether another server is to go on, from what systemd does next with the unit, how the server
/// ended, and how long there has been none.
fn goes_on(job: Option<&str>, result: &str, unserved: Option<Duration>) -> bool {
    let killed = matches!(result, "core-dump" | "signal" | "timeout" | "watchdog");
    match job {
        Some(job) => matches!(job, "restart" | "start"),
        // One that ends by itself with an error says that it cannot serve, and the next one could not.
        None => killed && unserved.is_some_and(|unserved| unserved < PATIENCE),
    }
}

/// Gives the server's user what root has made, unless somebody is at work with it.
fn hand_over(config: &Config) {
    if let Some(user) = service_user()
        && let Ok(_held) = StoreLock::take(&config.state_dir, "giving it to the server's user")
    {
        ownership::hand_over(config, user);
    }
}

fn start_log(config: &Config, environment: &Environment) -> Result<(), DaemonError> {
    logging::start(config.log, environment).map(drop).map_err(DaemonError::io("starting the log"))
}

fn is_mounted(path: &Path) -> Result<bool, DaemonError> {
    mounting::is_mounted(path).map_err(DaemonError::io("reading the mount table"))
}

/// What systemd says of a unit, as `NAME=VALUE` lines.
struct Unit(String);

impl Unit {
    fn ask(unit: &str) -> Result<Self, DaemonError> {
        let properties = "--property=ActiveExitTimestampMonotonic,Job,NFileDescriptorStore";
        systemctl(&["show", properties, "--", unit]).map(Self)
    }

    fn number(&self, name: &str) -> Option<u64> {
        let mut lines = self.0.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
    }

    /// Returns what systemd is doing with the unit.
    fn job(&self, unit: &str) -> Result<Option<String>, DaemonError> {
        let Some(number) = self.number("Job").filter(|number| *number != 0) else {
            return Ok(None);
        };
        let jobs = systemctl(&["list-jobs", "--plain", "--no-legend", "--full", "--", unit])?;
        Ok(kind_of_job(&jobs, number))
    }

    /// Returns how long ago the last server stopped serving; `None` if none has.
    fn unserved(&self) -> Option<Duration> {
        let ended = self.number("ActiveExitTimestampMonotonic").filter(|at| *at != 0)?;
        let Ok(NotifyState::MonotonicUsec(now)) = NotifyState::monotonic_usec_now() else {
            return None;
        };
        u64::try_from(now - i128::from(ended)).ok().map(Duration::from_micros)
    }
}

/// Finds a job's kind in lines of `NUMBER UNIT KIND STATE`.
fn kind_of_job(jobs: &str, number: u64) -> Option<String> {
    let number = number.to_string();
    jobs.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some(&*number)).then(|| words.nth(1).map(str::to_owned))?
    })
}

fn systemctl(arguments: &[&str]) -> Result<String, DaemonError> {
    let output = Command::new("/usr/bin/systemctl").env_clear().args(arguments).output();
    let output = output.map_err(DaemonError::io("running systemctl"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(DaemonError::io("asking systemctl")(io::Error::other(said)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_taken_away_when_nobody_is_to_go_on_with_it() {
        let just_now = Some(Duration::from_secs(1));
        for (job, result, unserved) in [
            (Some("restart"), "success", just_now),
            (Some("start"), "signal", just_now),
            (None, "signal", just_now),
            (None, "core-dump", just_now),
            (None, "watchdog", just_now),
            (None, "timeout", Some(PATIENCE / 2)),
        ] {
            assert!(goes_on(job, result, unserved), "{job:?} {result}");
        }
        for (job, result, unserved) in [
            (Some("stop"), "success", just_now),
            (Some("stop"), "signal", just_now),
            (None, "success", just_now),
            (None, "exit-code", just_now),
            (None, "signal", Some(PATIENCE)),
            (None, "signal", None),
            (None, "", just_now),
        ] {
            assert!(!goes_on(job, result, unserved), "{job:?} {result}");
        }
    }

    #[test]
    fn the_kind_of_a_job_is_found_among_others() {
        let jobs = "12 secretfs.service restart running\n123 other.service stop waiting\n";
        assert_eq!(kind_of_job(jobs, 12).as_deref(), Some("restart"));
        assert_eq!(kind_of_job(jobs, 123).as_deref(), Some("stop"));
        assert_eq!(kind_of_job(jobs, 1), None);
        assert_eq!(kind_of_job("", 1), None);
    }
}
