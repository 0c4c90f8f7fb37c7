//! Searches of the audit log for admins, and the indexes that make them quick.
//!
//! An index lies beside its segment, sealed under the store's keys, so that nobody else makes one: a damaged, foreign
//! or missing one is built anew, and a search goes without it until then. It can make a search slow and never
//! hide a line.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::log::unreadable;
use super::{Broker, BrokerError, Result};
use crate::audit::{
    Action, Event, Filter, Find, Index, Outcome, complete_segments, find, index_of,
};
use crate::model::{Caller, SecretName, Seq, Timestamp, Uid};
use crate::system::atomic_file;

/// What an answer has at most, so that it comes in a moment: bytes of lines, and of the log that was read.
const MAX_BYTES: usize = 1 << 20;
const MAX_READ: u64 = 128 << 20;

const EXTENSION: &str = ".index";

impl Broker {
    /// Finds lines of the log; needs admin, and is on record as a reading of it. Returns the `entries` of one
    /// page and `next`, which as `after` asks for the next page; none at the end.
    ///
    /// Errors: `Denied` (recorded), `Invalid`, `Audit`.
    pub fn audit_find(&self, caller: &Caller, question: &Value) -> Result<Value> {
        let question = Question::deserialize(question);
        let question = question.map_err(|error| BrokerError::Invalid(error.to_string()))?;
        let gate = &self.inner.gate;
        let _admitted = gate.admit_control(caller, "audit-find")?;
        gate.record(&Event {
            caller: Some(caller),
            ..Event::new(Action::AuditRead, Outcome::Allowed)
        })?;
        let search = Find { filter: question.filter(), max_bytes: MAX_BYTES, max_read: MAX_READ };
        let found = find(&self.inner.log.directory, &search, &|first| self.index(first))?;
        let lines = found.lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let entries: Vec<Value> =
            lines.filter_map(|line| serde_json::from_slice(line).ok()).collect();
        Ok(json!({ "entries": entries, "next": found.next }))
    }

    /// Builds the index of one complete segment that has none, and removes those whose segment is gone.
    /// Returns whether one was built. Errors: `Sealed`, `Audit`.
    pub fn index_audit(&self) -> Result<bool> {
        let directory = &self.inner.log.directory;
        self.inner.unlocked()?;
        let complete: BTreeSet<Seq> =
            complete_segments(directory).map_err(unreadable)?.into_iter().collect();
        remove_others(directory, &complete).map_err(unreadable)?;
        let missing = {
            let mut known = self.inner.indexed.lock();
            known.retain(|first| complete.contains(first));
            complete.into_iter().find(|first| {
                !known.contains(first) && (self.index(*first).is_none() || !known.insert(*first))
            })
        };
        let Some(first) = missing else { return Ok(false) };
        let index = index_of(directory, first).map_err(unreadable)?;
        let plain = postcard::to_stdvec(&index)
            .map_err(|error| unreadable(io::Error::other(error.to_string())))?;
        let sealed = self.seal_learned(&plain)?;
        atomic_file::replace(&path(directory, first), &sealed, 0o600).map_err(unreadable)?;
        self.inner.indexed.lock().insert(first);
        Ok(true)
    }

    /// Returns the index of a segment, if there is one of ours.
    fn index(&self, first: Seq) -> Option<Index> {
        let sealed = fs::read(path(&self.inner.log.directory, first)).ok()?;
        let opened = self.open_learned(&sealed).ok();
        let index: Option<Index> = opened.and_then(|plain| postcard::from_bytes(&plain).ok());
        let index = index.filter(Index::is_current);
        if index.is_none() {
            // The next look builds another one.
            if let Some(mut known) = self.inner.indexed.try_lock() {
                known.remove(&first);
            }
        }
        index
    }
}

/// What is asked for: a bare line has numbers as words.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    /// A secret, or a directory with what is below it.
    name: Option<SecretName>,
    #[serde(default, deserialize_with = "number")]
    uid: Option<u64>,
    exe: Option<String>,
    unit: Option<String>,
    outcome: Option<Outcome>,
    action: Option<Action>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    #[serde(default, deserialize_with = "number")]
    after: Option<u64>,
}

impl Question {
    fn filter(self) -> Filter {
        Filter {
            secret: None,
            secret_prefix: self.name,
            // A number that is no uid is nobody's.
            uid: self.uid.map(|uid| Uid(uid.try_into().unwrap_or(u32::MAX))),
            exe: self.exe,
            unit: self.unit,
            outcome: self.outcome,
            action: self.action,
            after: self.after.map(Seq),
            since: self.since,
            until: self.until,
            limit: None,
        }
    }
}

fn number<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Option<u64>, D::Error> {
    let value = Value::deserialize(from)?;
    let number = value.as_u64().or_else(|| value.as_str()?.parse().ok());
    let error = || serde::de::Error::custom("expected a number that is not negative");
    number.map(Some).ok_or_else(error)
}

fn path(directory: &Path, first: Seq) -> PathBuf {
    directory.join(format!("{:020}{EXTENSION}", first.0))
}

fn remove_others(directory: &Path, complete: &BTreeSet<Seq>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(digits) = name.to_str().and_then(|name| name.strip_suffix(EXTENSION)) else {
            continue;
        };
        if digits.parse().is_ok_and(|first| !complete.contains(&Seq(first))) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
