//! `.control/scan`: has somebody look at files in the caller's place, for as long as a caller can be kept waiting.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};

use super::words::Flag;
use super::{Daemon, Result};
use crate::broker::{BrokerError, StoreError};
use crate::daemon::search::Inquiry;
use crate::effect::{EffectError, Search};
use crate::model::{Caller, Uid};
use crate::scan::{Confidence, Severity};
use crate::system::PidFd;

/// Each keeps processors and a worker busy.
const MOST: usize = 4;
/// Of the time that a caller is kept waiting: what is scanned in, and after what nobody waits any more. Between the
/// two there has to be room for who ends a scan that does not end itself.
const SCANNED: f32 = 0.5;
const WAITED: f32 = 0.9;

/// A command of `.control/scan`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Command {
    path: Option<PathBuf>,
    /// Tells that the caller looks for so many stored values, which it has read, in files of its own.
    own: Option<u64>,
    #[serde(default)]
    min_severity: Option<String>,
    #[serde(default)]
    min_confidence: Option<Value>,
    #[serde(default = "Flag::no")]
    no_ignore: Flag,
}

/// Whose scans there are: one for each user, so that nobody's files hold up another's scan.
#[derive(Debug, Default)]
pub(super) struct Scans(Mutex<BTreeSet<Uid>>);

/// A user's scan, until it is over.
struct Turn {
    scans: Arc<Scans>,
    uid: Uid,
}

impl Scans {
    fn begin(self: &Arc<Self>, uid: Uid) -> Result<Turn> {
        let mut running = self.0.lock();
        if running.len() >= MOST && !running.contains(&uid) {
            return Err(BrokerError::Busy("others have files scanned: try again in a moment"));
        }
        if !running.insert(uid) {
            return Err(BrokerError::Busy("a scan of yours is running"));
        }
        Ok(Turn { scans: Arc::clone(self), uid })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.scans.0.lock().remove(&self.uid);
    }
}

impl Daemon {
    pub(super) fn run_scan(&self, caller: &Caller, command: &Value) -> Result<Value> {
        let began = Instant::now();
        let command = Command::deserialize(command)
            .map_err(|error| BrokerError::Invalid(error.to_string()))?;
        if let Some(values) = command.own {
            self.broker().admit_own(caller, &format!("scan for {values} stored values"))?;
            return Ok(json!({ "recorded": true }));
        }
        let inquiry = command.inquiry()?;
        self.broker().admit_own(caller, &format!("scan {}", inquiry.path.display()))?;
        let outcome = self.scan_as(caller, began, &inquiry);
        if let Err(error) = &outcome {
            self.broker().note_failed_control(caller, "scan", error);
        }
        outcome
    }

    fn scan_as(&self, caller: &Caller, began: Instant, inquiry: &Inquiry) -> Result<Value> {
        let turn = self.scans.begin(caller.uid)?;
        let tid = caller.tid.ok_or_else(|| refused("the caller's process is not known here"))?;
        // It waits for us, so the number is its own.
        let process = PidFd::of_thread(tid).or_else(|_| PidFd::of_process(tid));
        let process = process.map_err(|error| refused(&format!("the caller: {error}")))?;
        let deadline = self.config.load().deadline;
        let search = Search {
            uid: caller.uid,
            gid: caller.gid,
            time: deadline.mul_f32(SCANNED).saturating_sub(began.elapsed()),
            what: json!(inquiry).to_string(),
        };
        let searching = self.parts.effects.search(&search, &process).map_err(StoreError::Io)?;
        match searching.report(began + deadline.mul_f32(WAITED)) {
            Ok(report) => read(report.expose()),
            Err(EffectError::TimedOut) => {
                // Until it is over there is no other for this user, whose files hold it up.
                let end = move || {
                    searching.end();
                    drop(turn);
                };
                thread::Builder::new().name("scan".into()).spawn(end).map_err(StoreError::Io)?;
                Err(BrokerError::Unfinished("the scan hangs".to_owned()))
            }
            Err(EffectError::Refused(why)) => Err(BrokerError::Refused(why.into())),
            Err(
                EffectError::Gone(why) | EffectError::Invalid(why) | EffectError::Unreachable(why),
            ) => Err(BrokerError::Unfinished(format!("the scan has failed: {why}"))),
        }
    }
}

/// Takes the report from somebody who had only the caller's rights, and whom the caller could have ended.
fn read(report: &[u8]) -> Result<Value> {
    let failed = |why: &str| BrokerError::Unfinished(format!("the scan has failed: {why}"));
    let report: Value =
        serde_json::from_slice(report).map_err(|_| failed("it ended before its report did"))?;
    match report.get("error").and_then(Value::as_str) {
        Some(why) => Err(failed(why)),
        None => Ok(report),
    }
}

impl Command {
    fn inquiry(self) -> Result<Inquiry> {
        let path = self.path.ok_or_else(|| BrokerError::Invalid("which path?".to_owned()))?;
        let severity = self.min_severity.as_deref().map(str::parse::<Severity>).transpose();
        let confidence = self.min_confidence.as_ref().map(|given| {
            let text = given.as_str().map_or_else(|| given.to_string(), str::to_owned);
            text.parse::<Confidence>()
        });
        let confidence = confidence.transpose().map_err(BrokerError::Invalid)?;
        Ok(Inquiry {
            path,
            min_severity: severity.map_err(BrokerError::Invalid)?.unwrap_or(Severity::Low),
            min_confidence: confidence.map_or(0.5, Confidence::value),
            no_ignore: self.no_ignore.0,
        })
    }
}

fn refused(why: &str) -> BrokerError {
    BrokerError::Refused(why.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_one_scan_at_a_time_and_there_are_few() {
        let scans = Arc::<Scans>::default();
        let turns: Vec<Turn> =
            (0..4).map(|uid| scans.begin(Uid(uid)).unwrap_or_else(|_| unreachable!())).collect();
        for uid in [0, 4] {
            assert!(matches!(scans.begin(Uid(uid)), Err(BrokerError::Busy(_))));
        }
        drop(turns);
        assert!(scans.begin(Uid(0)).is_ok());
    }

    fn inquiry(command: &Value) -> std::result::Result<Inquiry, String> {
        let command = Command::deserialize(command).map_err(|error| error.to_string())?;
        command.inquiry().map_err(|error| error.to_string())
    }

    #[test]
    fn a_bare_line_and_an_object_ask_the_same_and_what_is_not_understood_is_refused() {
        let line = json!({ "path": "/a", "min_severity": "high", "min_confidence": "0.8" });
        let object = json!({ "path": "/a", "min_severity": "high", "min_confidence": 0.8 });
        let asked = [line, object].map(|command| json!(inquiry(&command).unwrap()));
        assert_eq!(asked[0], asked[1]);
        for bad in [
            json!({}),
            json!({ "path": "/a", "min_severity": "awful" }),
            json!({ "path": "/a", "min_confidence": "sure" }),
            json!({ "path": "/a", "no_ignore": "maybe" }),
            json!({ "path": "/a", "stored": true }),
        ] {
            assert!(inquiry(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_report_that_was_cut_off_or_failed_is_none() {
        assert!(read(b"{\"findings\": [").is_err() && read(b"{\"error\": \"no\"}").is_err());
        assert_eq!(read(b"{\"open\": 1}").unwrap()["open"], 1);
    }
}
