//! `anomalies`: what in the audit log is unlike the log before it.
//!
//! The daemon looks at its log as it is written and keeps what it finds; `--replay` looks at a recorded log
//! with the same detectors, and needs neither daemon nor key.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::Done;
use crate::anomaly::{Detector, Finding, Settings};
use crate::cli::Context;
use crate::cli::args::Anomalies;
use crate::cli::error::{Failure, Kind};
use crate::cli::out::Out;
use crate::cli::recorded;
use crate::cli::table::short_time;
use crate::daemon::config::Layer;

const COLUMNS: [&str; 6] = ["time", "score", "kind", "secret", "lines", "explanation"];

pub(super) fn run(context: &Context, args: &Anomalies) -> Done {
    let mut found = if args.replay.is_empty() { told(context)? } else { replayed(context, args)? };
    if args.limit > 0 && found.len() > args.limit {
        found.drain(..found.len() - args.limit);
    }
    show(&context.out, &found)
}

/// Reads what the daemon has found.
pub(super) fn told(context: &Context) -> Result<Vec<Finding>, Failure> {
    let client = context.client()?;
    let text = fs::read_to_string(client.path(".control/audit/anomalies")).map_err(|err| {
        Failure::from_errno("the anomalies", &err)
            .hint("they are for admins; `--replay` looks at a log that you may read")
    })?;
    let malformed = |err: serde_json::Error| {
        Failure::new(Kind::BackendConnection, "the anomalies", err.to_string())
    };
    text.lines().map(|line| serde_json::from_str(line).map_err(malformed)).collect()
}

fn replayed(context: &Context, args: &Anomalies) -> Result<Vec<Finding>, Failure> {
    let settings = settings(context, args.tuning.as_deref())?;
    let mut detector = Detector::new(settings);
    let mut found = Vec::new();
    recorded::of_files(&args.replay, &mut |entry| found.extend(detector.observe(&entry)))?;
    found.extend(detector.finish());
    found.sort_by(|a, b| a.time.cmp(&b.time).then(a.kind.cmp(&b.kind)).then(a.seqs.cmp(&b.seqs)));
    Ok(found)
}

/// Reads the tuning: the given file, or the configured one where there is one.
fn settings(context: &Context, given: Option<&Path>) -> Result<Settings, Failure> {
    let (path, must_exist) = match given {
        Some(path) => (path.to_owned(), true),
        None => (context.config(false, Layer::default())?.1.anomalies, false),
    };
    let shown = path.display().to_string();
    match fs::read_to_string(&path) {
        Ok(text) => Settings::parse(&text)
            .map_err(|error| Failure::new(Kind::Config, shown, error.to_string())),
        Err(err) if err.kind() == std::io::ErrorKind::NotFound && !must_exist => {
            Ok(Settings::default())
        }
        Err(err) => Err(Failure::from_errno(&shown, &err)),
    }
}

fn show(out: &Out, found: &[Finding]) -> Done {
    if out.is_json() {
        return found.iter().try_for_each(|finding| {
            let value = serde_json::to_value(finding).unwrap_or(Value::Null);
            out.json(&value)
        });
    }
    if found.is_empty() && out.is_terminal() {
        return out.line("nothing was found");
    }
    let rows: Vec<Vec<String>> = found.iter().map(row).collect();
    out.table(&COLUMNS, &rows)
}

fn row(finding: &Finding) -> Vec<String> {
    vec![
        short_time(&finding.time.to_string()),
        format!("{:.2}", finding.score),
        finding.kind.to_string(),
        finding.secret.as_ref().map(ToString::to_string).unwrap_or_default(),
        finding.lines.to_string(),
        finding.explanation.clone(),
    ]
}
