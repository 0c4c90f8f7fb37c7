//! One line of the log, read back.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Action, Outcome};
use crate::model::{Generation, Gid, SecretName, Seq, Timestamp, Uid, Version};

/// A recorded event. Texts hold what the caller chose, unescaped: escape them before a terminal sees them.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Entry {
    pub seq: Seq,
    pub time: Timestamp,
    pub action: Action,
    pub outcome: Outcome,
    pub secret: Option<SecretName>,
    pub version: Option<Version>,
    pub uid: Option<Uid>,
    pub user: Option<String>,
    pub gid: Option<Gid>,
    pub tid: Option<u32>,
    pub pid: Option<u32>,
    pub start_time: Option<Timestamp>,
    pub exe: Option<String>,
    pub comm: Option<String>,
    pub unit: Option<String>,
    /// `<runtime>:<id or name>`.
    pub container: Option<String>,
    pub rule: Option<String>,
    pub reason: Option<String>,
    /// Fields whose bytes were not UTF-8: there, U+0080 to U+00FF may stand for single bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_utf8: Vec<String>,
    /// The program's SHA-256 in hexadecimal, where a rule asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe_sha256: Option<String>,
    /// The kernel's number of the request, which no other request of the same mount has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<Generation>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<Value>,
    pub prev: String,
    pub mac: String,
}

/// What the first line of a segment says about it, in its `detail`.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct SegmentHeader {
    /// The version of this format.
    pub(super) format: u32,
    /// The run's id in hexadecimal.
    pub(super) run: String,
    /// The segment's place in the run.
    pub(super) index: u32,
    /// The store's id in hexadecimal.
    pub(super) store: Option<String>,
    /// What else the opener wants on record: of a start, the bytes dropped and the daemon's own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) start: Option<Value>,
}

impl SegmentHeader {
    /// The format that this program writes, and the only one that it reads.
    pub(super) const FORMAT: u32 = 1;
}
