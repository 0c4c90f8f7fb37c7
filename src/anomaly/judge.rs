//! Holds a line against what was learned before it, and then learns it.
//!
//! Each rule looks at one thing and names what it found with a score. None of them decides alone: what is
//! muted, held back while learning, or part of a walk over everything is sorted out behind them.

use super::ledger::Ledger;
use super::profile::{Caller, DAY, NewTime};
use super::settings::Settings;
use super::{Kind, Who};
use crate::audit::{Action, Entry, Outcome};
use crate::model::{SecretName, Timestamp, Version};

/// One rule's doubt about one line.
#[derive(Debug)]
pub(super) struct Doubt {
    pub(super) kind: Kind,
    pub(super) score: f64,
    /// The sentence, without its full stop.
    pub(super) fact: String,
    /// What doubts are gathered by, where it is not the caller.
    pub(super) by: Option<Box<str>>,
}

fn doubt(kind: Kind, score: f64, fact: String) -> Doubt {
    Doubt { kind, score, fact, by: None }
}

/// What counts as using a secret.
const USES: [Action; 8] = [
    Action::Append,
    Action::Delete,
    Action::Destroy,
    Action::Promote,
    Action::Read,
    Action::Rename,
    Action::Stage,
    Action::Write,
];

/// What opens a value.
const READS: [Action; 2] = [Action::Append, Action::Read];

/// Judges a line and learns it. `None` for lines of nobody's.
pub(super) fn judge(
    ledger: &mut Ledger,
    settings: &Settings,
    entry: &Entry,
) -> Option<(Who, Vec<Doubt>)> {
    let counted = entry.detail.as_ref().filter(|_| entry.action == Action::Refusals);
    let number = |key: &str| counted.and_then(|detail| detail.get(key)?.as_u64());
    let who = match number("uid").and_then(|uid| u32::try_from(uid).ok()) {
        Some(uid) => Some(Who::user(crate::model::Uid(uid))),
        None => Who::of(entry),
    };
    let mut doubts = Vec::new();
    if let Some(who) = &who {
        let mut judge = Judge { ledger, settings, entry, who, doubts: &mut doubts };
        // What a quarantine refuses is its consequence, and must not prolong it.
        let is_kept_out = entry.rule.as_deref() == Some("quarantine");
        match (entry.outcome, &entry.secret) {
            (Outcome::Denied, _) if is_kept_out => {}
            (Outcome::Denied, name) => judge.refused(name.as_ref(), number("count").unwrap_or(1)),
            (Outcome::Allowed, Some(name)) if USES.contains(&entry.action) => judge.used(name),
            (Outcome::Allowed | Outcome::Failed, _) => {}
        }
    }
    follow_versions(ledger, entry);
    Some((who?, doubts))
}

/// Judges a line about a decoy: whoever asks for its value, and be it in vain.
pub(super) fn decoyed(entry: &Entry, who: &Who, name: &SecretName) -> Option<Doubt> {
    let asked = READS.contains(&entry.action) || entry.action == Action::Check;
    let did = match entry.outcome {
        Outcome::Allowed => "read",
        Outcome::Denied | Outcome::Failed => "asked for",
    };
    let fact = format!("{who} {did} {name}, which is a decoy: nothing should");
    let by = Some(format!("{who} {name}").into());
    asked.then(|| Doubt { by, ..doubt(Kind::Decoy, 1.0, fact) })
}

struct Judge<'a> {
    ledger: &'a mut Ledger,
    settings: &'a Settings,
    entry: &'a Entry,
    who: &'a Who,
    doubts: &'a mut Vec<Doubt>,
}

impl Judge<'_> {
    fn refused(&mut self, name: Option<&SecretName>, count: u64) {
        let (time, who) = (self.entry.time, self.who);
        let caller = self.ledger.caller(who, time);
        let (now, peak) = caller.refusals.add(time, count);
        if now >= 10.0 && now > 3.0 * peak {
            let fact =
                format!("{who} was refused {now} times within minutes, at most {peak:.0} before");
            self.doubts.push(doubt(Kind::Refusals, more_than(now, peak), fact));
        }
        if let Some(name) = name {
            self.asked_for(name);
        }
    }

    fn used(&mut self, name: &SecretName) {
        let (entry, time, who) = (self.entry, self.entry.time, self.who);
        self.asked_for(name);
        self.is_new(name);
        let caller = self.ledger.caller(who, time);
        let rules = [at_this_time, this_often, after_silence, this_old, with_these_bytes];
        self.doubts.extend(rules.iter().filter_map(|rule| rule(caller, entry, who)));
        caller.pauses.learn(time);
        caller.times.learn(time);
        if self.doubts.iter().any(|doubt| doubt.kind == Kind::ExeChanged) {
            self.in_hours_of_changes();
        }
        if READS.contains(&entry.action) {
            self.read(name);
        }
        self.ledger.secret(name, time).pauses.learn(time);
    }

    /// One caller that walks over many names.
    fn asked_for(&mut self, name: &SecretName) {
        let (time, who) = (self.entry.time, self.who);
        let (now, peak) = self.ledger.caller(who, time).names.add(time, name.as_str());
        if now < 12.0 || now < 2.0 * peak {
            return;
        }
        let is_crawler = who.program().is_some_and(|program| self.settings.is_crawler(program));
        let (kind, score) =
            if is_crawler { (Kind::Crawler, 0.5) } else { (Kind::Walk, more_than(now, peak)) };
        let fact =
            format!("{who} asked for {now} different names within an hour, at most {peak} before");
        self.doubts.push(doubt(kind, score, fact));
    }

    /// The first use of a secret by a new caller. A new secret finds its callers first, and whoever takes
    /// up secrets again and again is not news.
    fn is_new(&mut self, name: &SecretName) {
        let (time, who) = (self.entry.time, self.who);
        let is_known = self.ledger.knows_secret(name);
        if self.ledger.has_used(name, who, time) || !is_known {
            return;
        }
        let secret = self.ledger.secret(name, time);
        let days = (time.as_second() - secret.pauses.first.as_second()) / DAY;
        if days < self.settings.new_secret_days() {
            return;
        }
        let of_secret = secret.firsts.at(time);
        secret.firsts.add(time);
        let caller = self.ledger.caller(who, time);
        let of_caller = caller.firsts.at(time);
        caller.firsts.add(time);
        let score = 0.95 / (1.0 + of_secret / 3.0) / (1.0 + of_caller / 2.0);
        let fact =
            format!("{who} used {name} for the first time, which others have for {days} days");
        self.doubts.push(doubt(Kind::FirstUse, score, fact));
    }

    fn read(&mut self, name: &SecretName) {
        let (entry, time, who) = (self.entry, self.entry.time, self.who);
        let secret = self.ledger.secret(name, time);
        if let Some(pause) = secret.pauses.judge(time, SILENCE) {
            let days = pause / DAY;
            let fact = format!("{name} was read by {who} after {days} days without any use");
            self.doubts.push(doubt(Kind::LongSilence, silent_for(pause), fact));
        }
        let current = secret.current;
        let caller = self.ledger.caller(who, time);
        if let (Some(version), Some(current)) = (entry.version, current)
            && version < current
        {
            let score = 0.9 / (1.0 + caller.old_reads.at(time));
            caller.old_reads.add(time);
            let fact = format!("{who} read version {version} of {name}, and {current} is current");
            self.doubts.push(doubt(Kind::OldVersion, score, fact));
        }
        if entry.reason.as_deref() == Some("handle passed on") {
            let score = 0.9 / (1.0 + caller.passed_on.at(time));
            caller.passed_on.add(time);
            let fact = format!("{who} read {name} from a file that another user had opened");
            self.doubts.push(doubt(Kind::PassedOn, score, fact));
        }
    }

    /// A deploy comes when deploys come. A program that is changed often is not news, but at an hour
    /// at which nothing was ever changed it is.
    fn in_hours_of_changes(&mut self) {
        let time = self.entry.time;
        let new = self.ledger.changes.judge(time);
        if let Some((_, confidence)) = new.filter(|_| self.ledger.changes.days >= 5) {
            let changed = self.doubts.iter_mut().find(|doubt| doubt.kind == Kind::ExeChanged);
            if let Some(doubt) = changed {
                doubt.score = doubt.score.max(0.9 * confidence);
                doubt.fact.push_str(", at a time at which no program was changed before");
            }
        }
        self.ledger.changes.learn(time);
    }
}

/// A rest of so many seconds is long.
const SILENCE: i64 = 8 * DAY;

/// How much `now` is out of what was before: 2/3 at three times as much.
fn more_than(now: f64, peak: f64) -> f64 {
    1.0 - peak.max(3.0) / now
}

#[expect(clippy::cast_precision_loss, reason = "seconds of years")]
fn silent_for(pause: i64) -> f64 {
    let days = pause as f64 / DAY as f64;
    0.95 * days / (days + 2.0)
}

fn at_this_time(caller: &mut Caller, entry: &Entry, who: &Who) -> Option<Doubt> {
    let (new, confidence) = caller.times.judge(entry.time)?;
    let days = caller.times.days;
    let weeks = (entry.time.as_second() - caller.pauses.first.as_second()) / (7 * DAY);
    if days < 7 || (new == NewTime::Weekday && weeks < 2) {
        return None;
    }
    let what = match new {
        NewTime::Hour => "at this hour",
        NewTime::Weekday => "on such a day of the week",
    };
    let fact = format!("{who} was never seen {what} on {days} days before");
    Some(doubt(Kind::UnusualTime, 0.9 * confidence, fact))
}

fn this_often(caller: &mut Caller, entry: &Entry, who: &Who) -> Option<Doubt> {
    let (now, peak) = caller.uses.add(entry.time, 1);
    if caller.times.days < 3 || now < 20.0 || now < 3.0 * peak {
        return None;
    }
    let fact = format!("{who} used secrets {now} times within minutes, at most {peak:.0} before");
    Some(doubt(Kind::Burst, more_than(now, peak), fact))
}

fn after_silence(caller: &mut Caller, entry: &Entry, who: &Who) -> Option<Doubt> {
    let pause = caller.pauses.judge(entry.time, SILENCE)?;
    if caller.times.days < 3 {
        return None;
    }
    let fact = format!("{who} is back after {} days without a use", pause / DAY);
    Some(doubt(Kind::LongSilence, silent_for(pause), fact))
}

/// A read late in the life of a process, of a program whose processes were always young when they read.
fn this_old(caller: &mut Caller, entry: &Entry, who: &Who) -> Option<Doubt> {
    let started = entry.start_time?;
    let age = entry.time.as_second() - started.as_second();
    let found = caller.processes >= 10 && age >= 1800 && age / 20 >= caller.oldest.max(1);
    let oldest = caller.oldest;
    if caller.started != Some(started) {
        caller.started = Some(started);
        caller.processes = caller.processes.saturating_add(1);
    }
    caller.oldest = oldest.max(age);
    let fact = || {
        let minutes = age / 60;
        format!(
            "{who} read {minutes} minutes after its start, and its processes never did so after {oldest} s"
        )
    };
    found.then(|| doubt(Kind::LongLived, 0.8, fact()))
}

/// Other bytes under the same path, where the log has the digest of the program.
fn with_these_bytes(caller: &mut Caller, entry: &Entry, who: &Who) -> Option<Doubt> {
    /// Digests that are remembered of a program: one that comes back is a step back, not a change.
    const KEPT: usize = 4;
    let digest = entry.exe_sha256.as_deref()?;
    if caller.digests.iter().any(|known| **known == *digest) {
        return None;
    }
    let is_first = caller.digests.is_empty();
    if caller.digests.len() == KEPT {
        caller.digests.remove(0);
    }
    caller.digests.push(digest.into());
    if is_first || caller.times.days < 3 {
        return None;
    }
    let changes = caller.digest_changes;
    caller.digest_changes = changes.saturating_add(1);
    let score = 0.9 / (1.0 + f64::from(changes));
    let short: String = digest.chars().take(12).collect();
    let before = match changes {
        0 => "which never changed before".to_owned(),
        times => format!("which changed {times} times before"),
    };
    let fact = format!("the file of {who}, {before}, has other bytes (SHA-256 {short}...)");
    Some(Doubt { by: Some(digest.into()), ..doubt(Kind::ExeChanged, score, fact) })
}

/// Keeps in mind which version is current.
fn follow_versions(ledger: &mut Ledger, entry: &Entry) {
    let (Some(name), Outcome::Allowed) = (&entry.secret, entry.outcome) else { return };
    let reason = entry.reason.as_deref().unwrap_or_default();
    if entry.action == Action::Rename {
        if let Some(to) = reason.strip_prefix("to ").and_then(|to| to.parse().ok()) {
            ledger.rename(name, &to);
        }
        return;
    }
    if entry.action == Action::Destroy {
        return ledger.forget(name);
    }
    let Some(version) = entry.version else { return };
    versioned(ledger, entry.action, (name, version), (reason, entry.detail.is_some()), entry.time);
}

fn versioned(
    ledger: &mut Ledger,
    action: Action,
    (name, version): (&SecretName, Version),
    (reason, ended): (&str, bool),
    time: Timestamp,
) {
    let secret = ledger.secret(name, time);
    let stages =
        action == Action::Stage || (action == Action::Rotate && reason.starts_with("staged"));
    let switches = [Action::Promote, Action::Write].contains(&action)
        || (action == Action::Rotate && (ended || reason == "the new value is current"));
    let first_seen = READS.contains(&action)
        && secret.staged != Some(version)
        && secret.current.is_none_or(|current| current < version);
    if stages {
        secret.staged = Some(version);
    } else if switches || first_seen {
        secret.current = Some(version);
        if secret.staged == Some(version) {
            secret.staged = None;
        }
    }
}
