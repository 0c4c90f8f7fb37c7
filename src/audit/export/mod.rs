//! Entries in the words of others, for programs that collect events of many kinds: OCSF and CEF.
//!
//! One entry is one line of printable text. Whatever a caller chose is escaped by the rules of each format, so
//! that it can neither end a line nor pose as another field.

mod cef;
mod ocsf;

use super::Entry;
use super::line::push_ascii_json;

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

/// Returns an entry as one line without its end. `host` is the machine that wrote the log.
pub fn export(entry: &Entry, format: Format, host: &str) -> Result<String, serde_json::Error> {
    let value = match format {
        Format::Cef => return Ok(cef::line(entry, host)),
        Format::Json => serde_json::to_value(entry)?,
        Format::Ocsf => ocsf::event(entry, host),
    };
    let mut line = Vec::new();
    push_ascii_json(&mut line, &value);
    // It is ASCII.
    Ok(String::from_utf8(line).unwrap_or_default())
}
