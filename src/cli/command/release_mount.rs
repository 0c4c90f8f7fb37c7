//! `release-mount`: what the unit runs after its server has ended: unmounts if the service is to stop,
//! and leaves the mount to the next server if it is to start again.
//!
//! The server cannot tell: it gets the same signal for a stop and for a restart. systemd can: it says
//! which job it is at, and how the service ended.

use std::process::Command;

use super::Done;
use crate::cli::Context;
use crate::cli::args::ReleaseMount;
use crate::cli::error::{Failure, Kind};
use crate::daemon::config::Layer;
use crate::daemon::run::FS_TYPE;
use crate::system::{Unmount, mounts, topmost, unmount};

pub(super) fn run(context: &Context, args: &ReleaseMount) -> Done {
    let (_, config) = context.config(true, Layer::default())?;
    let path = config.mountpoint;
    let fail = |why: String| Failure::new(Kind::BackendConnection, path.display().to_string(), why);
    let result = context.environment.text("SERVICE_RESULT").unwrap_or_default();
    let job = job(&args.unit).map_err(|err| fail(err.to_string()))?;
    if !is_over(job.as_deref(), result) {
        return Ok(());
    }
    let table = mounts().map_err(|err| fail(err.to_string()))?;
    if topmost(&table, &path).is_none_or(|found| found.fs_type != FS_TYPE) {
        return Ok(());
    }
    unmount(&path, Unmount::Detach).map_err(|err| fail(err.to_string()))
}

/// Tells whether no other server is going to follow.
fn is_over(job: Option<&str>, result: &str) -> bool {
    match job {
        // A restart is one job until the service has stopped.
        Some("restart" | "start" | "try-restart") => false,
        Some(_) => true,
        // By itself: after a failure systemd starts it again.
        None => result == "success",
    }
}

/// Returns what systemd is about to do with a unit.
fn job(unit: &str) -> std::io::Result<Option<String>> {
    let output = Command::new("systemctl")
        .args(["list-jobs", "--plain", "--no-legend", "--no-pager"])
        .output()?;
    Ok(job_of(unit, &String::from_utf8_lossy(&output.stdout)))
}

/// Finds a unit's job among the lines `ID UNIT TYPE STATE`.
fn job_of(unit: &str, jobs: &str) -> Option<String> {
    jobs.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        (words.next() == Some(unit)).then(|| words.next().map(str::to_owned)).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_is_left_to_a_restart_and_to_what_follows_a_failure_and_taken_away_by_a_stop() {
        assert!(!is_over(Some("restart"), "success"));
        assert!(!is_over(None, "watchdog") && !is_over(None, "signal"));
        assert!(is_over(Some("stop"), "success") && is_over(None, "success"));
    }

    #[test]
    fn a_job_is_found_by_the_unit_s_whole_name() {
        let jobs = "121 secretfs.service.d restart running\n122 secretfs.service stop running\n";
        assert_eq!(job_of("secretfs.service", jobs).as_deref(), Some("stop"));
        assert_eq!(job_of("other.service", jobs), None);
    }
}
