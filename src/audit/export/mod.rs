//! Entries in the words of others, for programs that collect events of many kinds: OCSF and CEF.
//!
//! One entry is one line of printable text. Whatever a caller chose is escaped by the rules of each format, so
//! that it can neither end a line nor pose as another field.

mod cef;
mod ocsf;

use serde_json::{Value, json};

use super::Entry;
use super::line::push_ascii_json;
use crate::model::Timestamp;

/// In whose words.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// ArcSight's Common Event Format, version 0.
    Cef,
    /// Our own: the entry as it stands in the log.
    Json,
    /// Open Cybersecurity Schema Framework 1.5.0, as JSON.
    Ocsf,
}

/// Something that is wrong with what is stored and that the log itself may not be able to take.
#[derive(Clone, Copy, Debug)]
pub struct Fault<'a> {
    /// Its number, which no other fault of the store has.
    pub id: u64,
    pub time: Timestamp,
    pub what: &'a str,
}

/// Returns a fault as one line without its end. `host` is the machine that has it.
pub fn export_fault(fault: &Fault<'_>, format: Format, host: &str) -> String {
    let Fault { id, time, what } = *fault;
    match format {
        Format::Cef => cef::fault(fault, host),
        Format::Json => ascii(
            &json!({ "fault": id, "time": time, "event": "integrity", "reason": what, "host": host }),
        ),
        Format::Ocsf => ascii(&ocsf::fault(fault, host)),
    }
}

/// Returns an entry as one line without its end. `host` is the machine that wrote the log.
pub fn export(entry: &Entry, format: Format, host: &str) -> Result<String, serde_json::Error> {
    let value = match format {
        Format::Cef => return Ok(cef::line(entry, host)),
        Format::Json => serde_json::to_value(entry)?,
        Format::Ocsf => ocsf::event(entry, host),
    };
    Ok(ascii(&value))
}

fn ascii(value: &Value) -> String {
    let mut line = Vec::new();
    push_ascii_json(&mut line, value);
    // It is ASCII.
    String::from_utf8(line).unwrap_or_default()
}
