//! `sync --watch`: round after round, until a signal ends it.

use std::process::ExitCode;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use super::{Consent, Job};
use crate::cli::error::{Failure, Kind};
use crate::cli::mirror::Done;
use crate::system::{Asked, Signals};

/// Goes round until it is asked to stop. A round that fails is told, and the next one tries again; how the last one has
/// ended is how this ends.
pub(super) fn run(job: &Job<'_>, every_seconds: u64) -> Result<ExitCode, Failure> {
    let failed = |err: std::io::Error| Failure::new(Kind::Config, "--watch", err.to_string());
    let mut signals = Signals::register().map_err(failed)?;
    let stopper = signals.stopper();
    let (tell, told) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for asked in signals.by_ref() {
                if asked == Asked::Stop {
                    // Names that were begun are finished.
                    job.crew.stop();
                }
                // Whoever was told is ending already.
                let _ = tell.send(asked);
            }
        });
        let mut said = Vec::new();
        let ended = loop {
            let ended = round(job, &mut said);
            if job.crew.is_stopped() {
                break ended;
            }
            match told.recv_timeout(Duration::from_secs(every_seconds)) {
                Ok(Asked::Reload) | Err(RecvTimeoutError::Timeout) => {}
                Ok(Asked::Stop) | Err(RecvTimeoutError::Disconnected) => break ended,
            }
        };
        stopper.stop();
        ended
    })
}

/// Goes round once. What stays as it was `said` to be is not said again.
fn round(job: &Job<'_>, said: &mut Vec<Done>) -> Result<ExitCode, Failure> {
    let report = match job.run(Consent::Given) {
        Ok(report) => report,
        // What was begun is finished, and what is missing comes with the next start.
        Err(_) if job.crew.is_stopped() => return Ok(ExitCode::SUCCESS),
        Err(failure) => {
            job.context.out.failure(&failure);
            return Ok(failure.exit_code());
        }
    };
    let unequal = report.unequal();
    if report.changes() > 0 || unequal != *said {
        job.context.out.json(&report.document(&job.ends))?;
        report.print(&job.context.out, said)?;
        *said = unequal;
    }
    Ok(report.exit_code())
}
