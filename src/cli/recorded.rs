//! The lines of a log one by one: of the daemon's, or of recorded files.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use super::client::Client;
use super::error::{Failure, Kind};
use crate::audit::Entry;

/// Visits the lines of the daemon's log up to its end as of now. Returns how many are no lines of a log: whether
/// they should be is what verification says.
pub(crate) fn of_daemon(client: &Client, visit: &mut dyn FnMut(Entry)) -> Result<u64, Failure> {
    let failed =
        |err: std::io::Error| Failure::from_errno("the audit log", &err).hint("it is for admins");
    let mut lines = BufReader::new(File::open(client.path(".control/audit/log")).map_err(failed)?);
    let (mut line, mut unreadable) = (Vec::new(), 0);
    loop {
        line.clear();
        let read = lines.read_until(b'\n', &mut line).map_err(failed)?;
        if read == 0 || !line.ends_with(b"\n") {
            return Ok(unreadable);
        }
        match serde_json::from_slice(&line) {
            Ok(entry) => visit(entry),
            Err(_) => unreadable += 1,
        }
    }
}

/// Visits the lines of recorded files, in their order. A line that is none is a failure.
pub(crate) fn of_files(files: &[PathBuf], visit: &mut dyn FnMut(Entry)) -> Result<(), Failure> {
    files.iter().try_for_each(|path| of_file(path, visit))
}

fn of_file(path: &Path, visit: &mut dyn FnMut(Entry)) -> Result<(), Failure> {
    let shown = path.display().to_string();
    // No file of the tree, so its errno says nothing of a secret.
    let failed = |err: std::io::Error| Failure::new(Kind::Config, &*shown, err.to_string());
    let mut lines = BufReader::new(File::open(path).map_err(failed)?);
    let (mut line, mut number) = (Vec::new(), 0_u64);
    loop {
        line.clear();
        let read = lines.read_until(b'\n', &mut line).map_err(failed)?;
        number += 1;
        // A segment that is being written ends in room for more, or in half a line.
        if read == 0 || line.first() == Some(&0) || !line.ends_with(b"\n") {
            return Ok(());
        }
        visit(serde_json::from_slice(&line).map_err(|err| {
            Failure::new(
                Kind::Config,
                shown.clone(),
                format!("line {number} is not an audit line: {err}"),
            )
        })?);
    }
}
