//! Counts of the lines of a log within a period, for checks and pictures.
//!
//! An *access* is a line about a secret by a caller or on its behalf, allowed or not; an access that was
//! allowed and then failed has two lines, as in the log. Hours and days are UTC.

use std::collections::{BTreeMap, BTreeSet};

use jiff::tz::TimeZone;
use serde::Serialize;

use crate::audit::{Action, Entry, Outcome};
use crate::model::{SecretName, Seq, Timestamp, Uid};

/// What counts as an access to a secret.
const ACCESSES: [Action; 12] = [
    Action::Append,
    Action::Check,
    Action::Delete,
    Action::Destroy,
    Action::Promote,
    Action::Read,
    Action::Rename,
    Action::Restore,
    Action::Rotate,
    Action::SetAttribute,
    Action::Stage,
    Action::Write,
];

/// What makes a new value.
const MAKES_VALUE: [Action; 2] = [Action::Promote, Action::Write];

/// Most notes of one kind that are kept, the newest.
const MAX_NOTES: usize = 100;

/// The counts.
#[derive(Clone, Debug, Serialize)]
pub struct Tally {
    #[serde(serialize_with = "super::facts::as_text")]
    since: Timestamp,
    #[serde(serialize_with = "super::facts::as_text")]
    until: Timestamp,
    /// The first line that was seen, of the period or before.
    pub first: Option<(Seq, Timestamp)>,
    #[serde(skip)]
    last: Option<Seq>,
    /// Lines that are missing between those that were seen.
    pub gaps: u64,
    /// Lines that could not be read as lines of the log.
    pub unreadable: u64,
    /// Lines of the period.
    pub lines: u64,
    pub accesses: Count,
    /// Refusals that the log has only counted.
    pub counted_refusals: u64,
    /// Accesses of which the log does not say who it was.
    pub without_uid: u64,
    /// By date.
    pub days: BTreeMap<String, Count>,
    /// By weekday from Monday, and hour.
    pub hours: [[u64; 24]; 7],
    #[serde(serialize_with = "super::facts::as_pairs")]
    pub callers: BTreeMap<CallerKey, Count>,
    pub users: BTreeMap<Uid, String>,
    pub secrets: BTreeMap<SecretName, SecretUse>,
    /// By what the log calls the rule that decided: when it was last used.
    pub rules: BTreeMap<String, Timestamp>,
    /// Bindings with the secrets that were used by them.
    #[serde(skip)]
    pub used: BTreeSet<(String, SecretName)>,
    pub actions: BTreeMap<Action, Count>,
    /// When the root key was replaced last, in the period or before.
    #[serde(skip)]
    pub root_replaced: Option<Timestamp>,
    /// What the checks show line by line.
    #[serde(skip)]
    pub notes: BTreeMap<Kind, Vec<Note>>,
    #[serde(skip)]
    pub note_counts: BTreeMap<Kind, u64>,
}

/// Of what lines are kept.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// Who may do what has changed.
    AccessChange,
    /// A command of an admin.
    Admin,
    BreakGlass,
    /// A system's user in a login session.
    Interactive,
    KeyChange,
    /// The log was opened, or that was refused.
    LogRead,
}

/// One line, for a table.
#[derive(Clone, Debug)]
pub struct Note {
    pub time: Timestamp,
    pub uid: Option<Uid>,
    pub what: String,
    pub outcome: Outcome,
}

/// A user with a program.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct CallerKey {
    pub uid: Option<Uid>,
    pub exe: Option<String>,
}

/// How many accesses ended in which way.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Count {
    pub allowed: u64,
    pub denied: u64,
    pub failed: u64,
}

/// What was done with one secret.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SecretUse {
    #[serde(flatten)]
    pub count: Count,
    /// Reads that were allowed.
    pub reads: u64,
    #[serde(skip)]
    pub last_read: Option<Timestamp>,
    /// When it last got a value, in the period or before.
    #[serde(skip)]
    pub last_value: Option<Timestamp>,
    /// Who has read it, and how often.
    #[serde(skip)]
    pub readers: BTreeMap<CallerKey, u64>,
}

impl Count {
    /// Returns how many there were.
    pub fn all(self) -> u64 {
        self.allowed + self.denied + self.failed
    }

    /// Returns how many were refused or failed.
    pub fn bad(self) -> u64 {
        self.denied + self.failed
    }

    fn add(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Allowed => self.allowed += 1,
            Outcome::Denied => self.denied += 1,
            Outcome::Failed => self.failed += 1,
        }
    }
}

impl Tally {
    /// Begins to count what lies from `since` up to `until`.
    pub fn new(since: Timestamp, until: Timestamp) -> Self {
        Self {
            since,
            until,
            first: None,
            last: None,
            gaps: 0,
            unreadable: 0,
            lines: 0,
            accesses: Count::default(),
            counted_refusals: 0,
            without_uid: 0,
            days: BTreeMap::new(),
            hours: [[0; 24]; 7],
            callers: BTreeMap::new(),
            users: BTreeMap::new(),
            secrets: BTreeMap::new(),
            rules: BTreeMap::new(),
            used: BTreeSet::new(),
            actions: BTreeMap::new(),
            root_replaced: None,
            notes: BTreeMap::new(),
            note_counts: BTreeMap::new(),
        }
    }

    /// Returns the beginning of the period.
    pub fn since(&self) -> Timestamp {
        self.since
    }

    /// Returns how many whole days of the period the log reaches over.
    pub fn days_covered(&self) -> i64 {
        let begin = self.first.map_or(self.until, |(_, time)| time.max(self.since));
        self.until.duration_since(begin).as_hours() / 24
    }

    /// Returns how many users there were.
    pub(super) fn users_seen(&self) -> usize {
        self.callers.keys().map(|caller| caller.uid).collect::<BTreeSet<_>>().len()
    }

    /// Returns how often each caller has read something, most often first.
    pub(super) fn readers(&self) -> Vec<(&CallerKey, u64)> {
        let mut reads: BTreeMap<&CallerKey, u64> = BTreeMap::new();
        for (caller, number) in self.secrets.values().flat_map(|held| &held.readers) {
            *reads.entry(caller).or_default() += number;
        }
        let mut reads: Vec<_> = reads.into_iter().collect();
        reads.sort_by_key(|(caller, number)| (std::cmp::Reverse(*number), *caller));
        reads
    }

    /// Shows a user as `ada (1000)`.
    pub(super) fn name_of(&self, uid: Option<Uid>) -> String {
        match uid.map(|uid| (uid, self.users.get(&uid))) {
            None => "the daemon".to_owned(),
            Some((uid, None)) => uid.to_string(),
            Some((uid, Some(name))) => format!("{name} ({uid})"),
        }
    }

    /// Takes a line, in the order of the log.
    pub fn observe(&mut self, entry: &Entry) {
        self.first.get_or_insert((entry.seq, entry.time));
        let expected = self.last.map_or(entry.seq.0, |last| last.0 + 1);
        self.gaps += entry.seq.0.saturating_sub(expected);
        self.last = Some(entry.seq);
        if entry.time > self.until {
            return;
        }
        self.remember(entry);
        if entry.time < self.since {
            return;
        }
        self.lines += 1;
        self.actions.entry(entry.action).or_default().add(entry.outcome);
        if let (Some(uid), Some(user)) = (entry.uid, &entry.user)
            && self.users.get(&uid) != Some(user)
        {
            self.users.insert(uid, user.clone());
        }
        if let Some(rule) = &entry.rule {
            let last = self.rules.entry(rule.clone()).or_insert(entry.time);
            *last = (*last).max(entry.time);
        }
        if entry.action == Action::Refusals {
            let count = entry.detail.as_ref().and_then(|detail| detail.get("count")?.as_u64());
            self.counted_refusals += count.unwrap_or_default();
        }
        if let Some(kind) = kind_of(entry) {
            self.note(kind, entry);
        }
        if let Some(secret) = entry.secret.as_ref().filter(|_| ACCESSES.contains(&entry.action)) {
            self.access(entry, secret);
        }
    }

    /// Keeps what is asked of the whole log.
    fn remember(&mut self, entry: &Entry) {
        if entry.outcome != Outcome::Allowed {
            return;
        }
        let is_new_root = entry.reason.as_deref() == Some("the root key was replaced");
        if entry.action == Action::KeyChange && is_new_root {
            self.root_replaced = Some(entry.time);
        }
        if let Some(secret) = entry.secret.as_ref().filter(|_| MAKES_VALUE.contains(&entry.action))
        {
            self.secrets.entry(secret.clone()).or_default().last_value = Some(entry.time);
        }
    }

    fn access(&mut self, entry: &Entry, secret: &SecretName) {
        let outcome = entry.outcome;
        self.accesses.add(outcome);
        // A rotation by the schedule is nobody's.
        self.without_uid += u64::from(entry.uid.is_none() && entry.action != Action::Rotate);
        let time = entry.time.to_zoned(TimeZone::UTC);
        self.days.entry(time.strftime("%F").to_string()).or_default().add(outcome);
        let day = usize::try_from(time.weekday().to_monday_zero_offset()).unwrap_or_default();
        let hour = usize::try_from(time.hour()).unwrap_or_default();
        if let Some(count) = self.hours.get_mut(day).and_then(|hours| hours.get_mut(hour)) {
            *count += 1;
        }
        let caller = CallerKey { uid: entry.uid, exe: entry.exe.clone() };
        self.callers.entry(caller.clone()).or_default().add(outcome);
        let held = self.secrets.entry(secret.clone()).or_default();
        held.count.add(outcome);
        let reads = [Action::Append, Action::Read].contains(&entry.action);
        if outcome == Outcome::Allowed {
            if reads {
                held.reads += 1;
                held.last_read = Some(entry.time);
                *held.readers.entry(caller).or_default() += 1;
            }
            if let Some((binding, _)) = entry.rule.as_ref().and_then(|rule| rule.split_once(':')) {
                self.used.insert((binding.to_owned(), secret.clone()));
            }
        }
    }

    fn note(&mut self, kind: Kind, entry: &Entry) {
        let reason = entry.reason.as_deref().unwrap_or_default();
        let secret = entry.secret.as_ref().map(ToString::to_string).unwrap_or_default();
        let detail = [secret.as_str(), reason].join(" ");
        let what = format!("{} {}", entry.action, detail.trim()).trim().to_owned();
        *self.note_counts.entry(kind).or_default() += 1;
        let notes = self.notes.entry(kind).or_default();
        if notes.len() == MAX_NOTES {
            notes.remove(0);
        }
        notes.push(Note { time: entry.time, uid: entry.uid, what, outcome: entry.outcome });
    }

    /// Returns the lines of a kind that are kept, and how many there were.
    pub(super) fn noted(&self, kind: Kind) -> (&[Note], u64) {
        let notes = self.notes.get(&kind).map(Vec::as_slice).unwrap_or_default();
        (notes, self.note_counts.get(&kind).copied().unwrap_or_default())
    }
}

fn kind_of(entry: &Entry) -> Option<Kind> {
    match entry.action {
        Action::AuditRead => Some(Kind::LogRead),
        Action::BreakGlass => Some(Kind::BreakGlass),
        Action::Grant
        | Action::GrantApprove
        | Action::GrantEnd
        | Action::GrantRequest
        | Action::GrantRevoke
        | Action::PolicyReload
        | Action::Quarantine
        | Action::QuarantineEnd => Some(Kind::AccessChange),
        Action::KeyChange => Some(Kind::KeyChange),
        // Opening the log is a command too, and has a line of its own.
        Action::Control if entry.reason.as_deref() == Some("audit-log") => {
            (entry.outcome == Outcome::Denied).then_some(Kind::LogRead)
        }
        Action::Backup
        | Action::Control
        | Action::Elevate
        | Action::MfaEnrol
        | Action::MfaForget
        | Action::Seal
        | Action::Unseal
        | Action::Verify => Some(Kind::Admin),
        Action::Append | Action::Read | Action::Write if is_interactive(entry) => {
            Some(Kind::Interactive)
        }
        Action::Anchor
        | Action::Anomaly
        | Action::Append
        | Action::BackendConnection
        | Action::Check
        | Action::CreateDirectory
        | Action::Delete
        | Action::Destroy
        | Action::Forward
        | Action::Promote
        | Action::Prune
        | Action::Read
        | Action::Refusals
        | Action::RemoveDirectory
        | Action::Rename
        | Action::Restore
        | Action::Rotate
        | Action::SegmentClose
        | Action::SegmentOpen
        | Action::SetAttribute
        | Action::Stage
        | Action::Start
        | Action::Stop
        | Action::Write => None,
    }
}

/// Tells whether a user that is a system's, not a person's, acts in a login session.
fn is_interactive(entry: &Entry) -> bool {
    // The first uid of a person, as login.defs of the distributions has it.
    const PEOPLE: u32 = 1000;
    let in_session = entry
        .unit
        .as_deref()
        .is_some_and(|unit| unit.starts_with("user.slice/") && unit.contains("/session-"));
    in_session && entry.outcome == Outcome::Allowed && entry.uid.is_some_and(|uid| uid.0 < PEOPLE)
}
