//! Finds recorded events: by secret, caller, outcome and time.
//!
//! It reads without the key, so it believes what it finds; [`verify`](super::verify()) is who doubts.
//! A torn last line is passed over: somebody may be writing it.

use std::collections::VecDeque;
use std::io::BufReader;
use std::path::Path;

use super::segments::{self, Ending, SegmentFile, read_line};
use super::tail::seq_of;
use super::{Action, AuditError, Entry, Outcome};
use crate::model::{SecretName, Seq, Timestamp, Uid};

/// Which events to find. What is `None` is not asked for.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub secret: Option<SecretName>,
    /// A directory: the secrets in it and below.
    pub secret_prefix: Option<SecretName>,
    pub uid: Option<Uid>,
    /// A path, or a file name without a slash.
    pub exe: Option<String>,
    /// A unit's cgroup path, or its last part.
    pub unit: Option<String>,
    pub outcome: Option<Outcome>,
    pub action: Option<Action>,
    /// Behind this line.
    pub after: Option<Seq>,
    /// From this moment on.
    pub since: Option<Timestamp>,
    /// Before this moment.
    pub until: Option<Timestamp>,
    /// At most so many, the newest.
    pub limit: Option<usize>,
}

impl Filter {
    /// Tells whether an event is one of those asked for.
    pub fn matches(&self, entry: &Entry) -> bool {
        let is_path = |wanted: &Option<String>, found: &Option<String>| {
            wanted.as_ref().is_none_or(|wanted| {
                found.as_deref().is_some_and(|found| {
                    found == wanted || found.rsplit('/').next() == Some(wanted)
                })
            })
        };
        let below = self.secret_prefix.as_ref().is_none_or(|dir| {
            entry.secret.as_ref().is_some_and(|name| name == dir || name.is_below(dir))
        });
        below
            && (self.secret.is_none() || self.secret == entry.secret)
            && (self.uid.is_none() || self.uid == entry.uid)
            && is_path(&self.exe, &entry.exe)
            && is_path(&self.unit, &entry.unit)
            && self.outcome.is_none_or(|outcome| outcome == entry.outcome)
            && self.action.is_none_or(|action| action == entry.action)
            && self.after.is_none_or(|after| entry.seq > after)
            && self.since.is_none_or(|since| entry.time >= since)
            && self.until.is_none_or(|until| entry.time < until)
    }

    /// Returns texts without which a line cannot match: looking for them is cheaper than parsing it.
    pub(super) fn needles(&self) -> Vec<String> {
        let secret = self.secret.as_ref().map(|name| format!(",\"secret\":\"{name}\","));
        let below = self.secret_prefix.as_ref().map(|name| format!(",\"secret\":\"{name}"));
        let uid = self.uid.map(|uid| format!(",\"uid\":{uid},"));
        let outcome = self.outcome.map(|outcome| format!(",\"outcome\":\"{outcome}\","));
        let action = self.action.map(|action| format!(",\"action\":\"{action}\","));
        [secret, below, uid, outcome, action].into_iter().flatten().collect()
    }
}

/// Finds events in the retained log, newest last. With a limit the oldest segments are not even read.
pub fn query(
    dir: &Path,
    filter: &Filter,
) -> Result<impl Iterator<Item = Result<Entry, AuditError>> + use<>, AuditError> {
    let mut segments = segments::list(dir)?;
    if let Some(since) = filter.since {
        segments.drain(..ended_before(&segments, since)?);
    }
    if let Some(after) = filter.after {
        segments::drop_before(&mut segments, after);
    }
    let found = match filter.limit {
        Some(limit) => Some(newest(&segments, filter, limit)?),
        None => None,
    };
    let rest = if found.is_some() { Vec::new() } else { segments };
    let filter = filter.clone();
    let streamed =
        rest.into_iter().flat_map(move |segment| match Matches::open(segment, &filter) {
            Ok(matches) => Either::Matches(Box::new(matches)),
            Err(error) => Either::Failed(Some(error)),
        });
    Ok(found.unwrap_or_default().into_iter().map(Ok).chain(streamed))
}

/// Returns how many of the first segments cannot hold a line of `since` or later.
fn ended_before(segments: &[SegmentFile], since: Timestamp) -> Result<usize, AuditError> {
    // A clock that is set back puts later times before earlier ones; a day covers time zones and repairs.
    const SLACK_SECONDS: i64 = 24 * 60 * 60;
    let mut ended = 0;
    for next in segments.iter().skip(1) {
        match next.begun()? {
            Some(begun) if begun.as_second() + SLACK_SECONDS < since.as_second() => ended += 1,
            Some(_) | None => break,
        }
    }
    Ok(ended)
}

fn newest(
    segments: &[SegmentFile],
    filter: &Filter,
    limit: usize,
) -> Result<VecDeque<Entry>, AuditError> {
    let mut found = VecDeque::new();
    for segment in segments.iter().rev() {
        let missing = limit - found.len();
        if missing == 0 {
            break;
        }
        let mut here = VecDeque::new();
        for entry in Matches::open(segment.clone(), filter)? {
            if here.len() == missing {
                here.pop_front();
            }
            here.push_back(entry?);
        }
        here.append(&mut found);
        found = here;
    }
    Ok(found)
}

/// The matching events of one segment.
struct Matches {
    segment: SegmentFile,
    reader: BufReader<std::fs::File>,
    filter: Filter,
    needles: Vec<String>,
    text: Vec<u8>,
    line: u64,
}

impl Matches {
    fn open(segment: SegmentFile, filter: &Filter) -> Result<Self, AuditError> {
        let reader = BufReader::with_capacity(256 * 1024, segment.open()?);
        let (filter, needles) = (filter.clone(), filter.needles());
        Ok(Self { segment, reader, filter, needles, text: Vec::new(), line: 0 })
    }
}

impl Iterator for Matches {
    type Item = Result<Entry, AuditError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match read_line(&mut self.reader, &mut self.text) {
                Ok(Ending::Newline) => self.line += 1,
                Ok(Ending::End | Ending::Torn) => return None,
                Err(error) => return Some(Err(error.into())),
            }
            let malformed = || AuditError::Malformed { file: self.segment.name(), line: self.line };
            // Whoever goes on behind a line need not have read those before it.
            let is_known = |after: Seq| seq_of(&self.text).is_some_and(|seq| seq <= after);
            if self.filter.after.is_some_and(is_known) {
                continue;
            }
            let Ok(text) = std::str::from_utf8(&self.text) else { return Some(Err(malformed())) };
            if !self.needles.iter().all(|needle| text.contains(needle.as_str())) {
                continue;
            }
            match serde_json::from_str::<Entry>(text) {
                Ok(entry) if self.filter.matches(&entry) => return Some(Ok(entry)),
                Ok(_) => {}
                Err(_) => return Some(Err(malformed())),
            }
        }
    }
}

enum Either {
    Failed(Option<AuditError>),
    Matches(Box<Matches>),
}

impl Iterator for Either {
    type Item = Result<Entry, AuditError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Failed(error) => error.take().map(Err),
            Self::Matches(matches) => matches.next(),
        }
    }
}
