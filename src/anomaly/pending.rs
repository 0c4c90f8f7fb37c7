//! Doubts that wait for their like: what belongs to one event becomes one finding.
//!
//! Doubts of one kind about one caller are gathered until none has come for a minute, and a walk over many
//! names takes up whatever else was doubted of its caller. What time it is comes from outside.

use serde::{Deserialize, Serialize};

use super::judge::Doubt;
use super::{Finding, Kind, Who};
use crate::audit::Entry;
use crate::model::Timestamp;

/// So long a finding waits at most.
const LONGEST_SECONDS: i64 = 600;
/// Findings that wait at one time; then the oldest goes out.
const MAX_WAITING: usize = 256;
/// Numbers of lines that a finding has.
const MAX_SEQS: usize = 32;
/// So long a walk takes up what else its caller does, after it went out.
const WALK_SECONDS: i64 = 3600;

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct Pending {
    waiting: Vec<Waiting>,
    /// Who has walked lately, and until when it counts.
    walkers: Vec<(Who, Timestamp)>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Waiting {
    finding: Finding,
    by: Option<Box<str>>,
    fact: String,
    threshold: f64,
    last: Timestamp,
}

impl Pending {
    /// Adds a doubt about a line, which must reach `threshold` to become a finding.
    pub(super) fn add(&mut self, entry: &Entry, who: &Who, doubt: Doubt, threshold: f64) {
        if doubt.kind.is_walk() {
            // One that is not told must not hide what is.
            if doubt.score < threshold {
                return;
            }
            self.take_up(who, doubt.kind, entry.time);
        } else if doubt.by.is_some() {
            // It is not about what its caller does otherwise.
        } else if let Some(walk) = self.walk_of(who) {
            walk.extend(entry);
            return;
        } else if self.walkers.iter().any(|(walker, until)| walker == who && *until > entry.time) {
            return;
        }
        let like = self.waiting.iter_mut().find(|waiting| {
            let same =
                waiting.by == doubt.by && (doubt.by.is_some() || waiting.finding.caller == *who);
            waiting.finding.kind == doubt.kind && same
        });
        if let Some(waiting) = like {
            waiting.extend(entry);
            // The last sentence of a kind that counts has the highest count.
            if doubt.score > waiting.finding.score || doubt.kind.counts() {
                waiting.fact = doubt.fact;
                waiting.finding.score = doubt.score.max(waiting.finding.score);
            }
            waiting.threshold = waiting.threshold.min(threshold);
            return;
        }
        let finding = Finding {
            time: entry.time,
            kind: doubt.kind,
            score: doubt.score,
            secret: entry.secret.clone(),
            caller: who.clone(),
            explanation: String::new(),
            lines: 1,
            seqs: vec![entry.seq],
        };
        let (by, fact) = (doubt.by, doubt.fact);
        self.waiting.push(Waiting { finding, by, fact, threshold, last: entry.time });
    }

    /// Makes one walk of whatever waits of a caller.
    fn take_up(&mut self, who: &Who, kind: Kind, time: Timestamp) {
        let is_theirs = |waiting: &Waiting| waiting.finding.caller == *who && waiting.by.is_none();
        let has_walk = self.walk_of(who).is_some();
        let (mut theirs, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.waiting).into_iter().partition(is_theirs);
        self.waiting = rest;
        theirs.sort_by_key(|waiting| (!waiting.finding.kind.is_walk(), waiting.finding.time));
        let mut theirs = theirs.into_iter();
        if let Some(mut first) = theirs.next() {
            for other in theirs {
                first.finding.lines += other.finding.lines;
                first.finding.seqs.extend(other.finding.seqs);
                first.finding.time = first.finding.time.min(other.finding.time);
            }
            first.finding.seqs.sort_unstable();
            first.finding.seqs.dedup();
            first.finding.seqs.truncate(MAX_SEQS);
            if !has_walk {
                // The doubt that comes next says more.
                (first.finding.kind, first.finding.score) = (kind, 0.0);
            }
            self.waiting.push(first);
        }
        let until = Timestamp::from_second(time.as_second().saturating_add(WALK_SECONDS));
        self.walkers.retain(|(walker, until)| walker != who && *until > time);
        self.walkers.truncate(MAX_WAITING);
        self.walkers.extend(until.ok().map(|until| (who.clone(), until)));
    }

    fn walk_of(&mut self, who: &Who) -> Option<&mut Waiting> {
        self.waiting
            .iter_mut()
            .find(|waiting| waiting.finding.kind.is_walk() && waiting.finding.caller == *who)
    }

    /// Returns what is complete at this time: nothing like it came for so long.
    pub(super) fn release(&mut self, now: Timestamp, settled_seconds: i64) -> Vec<Finding> {
        let past = |time: Timestamp, seconds: i64| now.as_second() - time.as_second() >= seconds;
        let excess = self.waiting.len().saturating_sub(MAX_WAITING);
        let mut index = 0;
        let (ready, rest) = std::mem::take(&mut self.waiting).into_iter().partition(|waiting| {
            index += 1;
            index <= excess
                || waiting.finding.kind == Kind::Decoy
                || past(waiting.last, settled_seconds)
                || past(waiting.finding.time, LONGEST_SECONDS)
        });
        self.waiting = rest;
        finished(ready)
    }

    /// Returns whatever is left.
    pub(super) fn finish(&mut self) -> Vec<Finding> {
        finished(std::mem::take(&mut self.waiting))
    }
}

fn finished(waiting: Vec<Waiting>) -> Vec<Finding> {
    let reached = waiting.into_iter().filter(|waiting| waiting.finding.score >= waiting.threshold);
    reached.map(Waiting::finish).collect()
}

impl Waiting {
    fn extend(&mut self, entry: &Entry) {
        self.last = entry.time;
        if self.finding.seqs.last() == Some(&entry.seq) {
            return;
        }
        self.finding.lines += 1;
        if self.finding.seqs.len() < MAX_SEQS {
            self.finding.seqs.push(entry.seq);
        }
    }

    fn finish(self) -> Finding {
        let more = match self.finding.lines {
            1 => String::new(),
            lines => format!(" ({lines} lines)"),
        };
        let score = (self.finding.score * 100.0).round() / 100.0;
        Finding { explanation: format!("{}{more}.", self.fact), score, ..self.finding }
    }
}

impl Kind {
    fn is_walk(self) -> bool {
        [Self::Crawler, Self::Walk].contains(&self)
    }

    fn counts(self) -> bool {
        self.is_walk() || [Self::Burst, Self::Refusals].contains(&self)
    }
}
