//! The scan that `.control/scan` asks for: what is asked, and the work of the process in the caller's place.
//!
//! It has the caller's rights and nothing of ours. The values of the store are not looked for: it is given none,
//! for it serves one caller, and whoever can have it read a file could find out what it holds.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::effect::{MAX_REPORT_BYTES, Search};
use crate::scan::git::What;
use crate::scan::report::{Look, json_report};
use crate::scan::walk::{self, Ignored, Progress, Selection};
use crate::scan::{Baseline, Confidence, Engine, RuleSet, Severity, Wanted};

/// What to look at.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Inquiry {
    pub path: PathBuf,
    pub min_confidence: f64,
    pub min_severity: Severity,
    pub no_ignore: bool,
}

/// Scans, and returns the report. `stands` is the caller's directory.
pub(super) fn report(search: &Search, stands: Option<&Path>) -> String {
    // From the start: the rules are made of this time, too.
    let until = Instant::now() + search.time;
    let report = match scan(search, stands, until) {
        Ok(report) => report,
        Err(why) => json!({ "error": why }),
    };
    bounded(report).to_string()
}

fn scan(search: &Search, stands: Option<&Path>, until: Instant) -> Result<Value, String> {
    let inquiry: Inquiry = serde_json::from_str(&search.what).map_err(|error| error.to_string())?;
    let path = match (inquiry.path.is_absolute(), stands) {
        (true, _) => inquiry.path,
        (false, Some(stands)) => stands.join(inquiry.path),
        (false, None) => return Err("the caller's directory is not below its root".to_owned()),
    };
    let rules = RuleSet::built_in().map_err(|error| error.to_string())?;
    let engine = Engine::new(rules).map_err(|error| error.to_string())?;
    let wanted = Wanted {
        min_confidence: Confidence::new(inquiry.min_confidence),
        min_severity: inquiry.min_severity,
        baseline: Arc::new(Baseline::default()),
        until: Some(until),
        ..Wanted::default()
    };
    let ignored = if inquiry.no_ignore { Ignored::Scan } else { Ignored::Skip };
    let selection = Selection { ignored, ..Selection::default() };
    let progress = Progress::default();
    let what =
        What { engine: &engine, wanted: &wanted, selection: &selection, progress: &progress };
    Ok(json_report(&walk::scan(&what, &[path]), Look::default()))
}

/// Leaves out the last findings, and what could not be read, of a report that is too long. It says how many.
fn bounded(mut report: Value) -> Value {
    let mut left_out = 0;
    while report.to_string().len() > MAX_REPORT_BYTES {
        for list in ["findings", "unread"] {
            if let Some(list) = report.get_mut(list).and_then(Value::as_array_mut) {
                let kept = list.len() / 2;
                left_out += list.len() - kept;
                list.truncate(kept);
            }
        }
        if let Some(report) = report.as_object_mut() {
            report.insert("left_out".to_owned(), json!(left_out));
        }
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_report_keeps_its_totals_and_says_what_it_leaves_out() {
        let finding = json!({ "context": "x".repeat(500) });
        let short = json!({ "findings": [finding], "unread": [], "open": 1 });
        assert_eq!(bounded(short.clone()), short);
        let long = json!({ "findings": vec![finding; 5000], "unread": [1, 2], "open": 5000 });
        let report = bounded(long);
        assert!(report.to_string().len() <= MAX_REPORT_BYTES);
        let left_out = usize::try_from(report["left_out"].as_u64().unwrap()).unwrap();
        let kept = report["findings"].as_array().unwrap().len();
        assert_eq!(kept + report["unread"].as_array().unwrap().len() + left_out, 5002);
        assert!(kept > 100 && report["open"] == 5000);
    }
}
