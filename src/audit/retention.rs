//! What is kept of segments that are past retention: counts a secret, user, program, unit and day, and where the
//! chain goes on.
//!
//! `totals.json` ends in a code under a key of the segment that was being written, so that it can be
//! neither edited nor made anew by who has the disk alone, and an older copy does not fit the segments.
//! The counts are those of the lines as found: verify before retention takes them, for the daemon itself
//! no longer holds the keys of old lines.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::chain::{AuditKey, Chain, Head, MAC_BYTES};
use super::line::{self, hex, unhex};
use super::segments::{self, SegmentFile};
use super::verify::{Damage, VerifyError, damaged};
use super::{AuditError, Outcome};
use crate::model::{Seq, Timestamp, Uid};

pub(super) const FILE: &str = "totals.json";

/// Most names that are counted apart: refused lookups may name anything, and must not fill the memory.
const MAX_NAMES: usize = 200_000;

/// Most users, programs and units, of each kind, that are counted apart: a session may have a unit of its own.
const MAX_CALLERS: usize = 20_000;

/// Most days that are counted apart: ten years.
const MAX_DAYS: usize = 3660;

/// Largest file of totals that is read: twice what [`MAX_NAMES`] long names take.
const MAX_BYTES: u64 = 512 << 20;

/// The counts of all lines that retention removed.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Totals {
    run: String,
    index: u32,
    /// The last line removed.
    last_seq: Seq,
    last_mac: String,
    /// Lines removed.
    pub lines: u64,
    /// Lines removed that could not be read, and are in no count.
    pub unreadable: u64,
    /// Lines that name no secret, or one of too many.
    pub other: Counts,
    pub secrets: BTreeMap<String, Counts>,
    /// By uid. This and what follows was not counted by earlier versions: they may sum up to less than `lines`.
    #[serde(default)]
    pub uids: BTreeMap<Uid, Counts>,
    #[serde(default)]
    pub exes: BTreeMap<String, Counts>,
    #[serde(default)]
    pub units: BTreeMap<String, Counts>,
    /// By date in UTC.
    #[serde(default)]
    pub days: BTreeMap<String, Counts>,
}

/// How often something ended in which way.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Counts {
    pub allowed: u64,
    pub denied: u64,
    pub failed: u64,
    /// The time of the last of them.
    pub last: Option<Timestamp>,
}

impl Counts {
    fn add(&mut self, outcome: Outcome, time: Timestamp) {
        match outcome {
            Outcome::Allowed => self.allowed += 1,
            Outcome::Denied => self.denied += 1,
            Outcome::Failed => self.failed += 1,
        }
        self.last = self.last.max(Some(time));
    }
}

/// What one pass of retention did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Pruned {
    pub segments: u64,
    /// Lines removed in this pass.
    pub lines: u64,
}

impl Totals {
    /// Reads the totals of a log without checking them: that takes the key, see [`verify`](super::verify()).
    /// Returns empty ones where retention has removed nothing.
    pub fn read(dir: &Path) -> Result<Self, AuditError> {
        match load(dir, None) {
            Ok(totals) => Ok(totals.unwrap_or_default()),
            Err(LoadError::Io(error)) => Err(error.into()),
            Err(LoadError::Forged) => Err(AuditError::Malformed { file: FILE.to_owned(), line: 1 }),
        }
    }

    /// Returns the end of what was removed.
    pub(super) fn head(&self) -> Head {
        Head { seq: self.last_seq, mac: unhex(self.last_mac.as_bytes()).unwrap_or_default() }
    }

    /// Counts the lines of a segment.
    pub(super) fn add(&mut self, segment: &SegmentFile) -> io::Result<()> {
        #[derive(Deserialize)]
        struct Counted<'a> {
            #[serde(borrow)]
            secret: Option<&'a str>,
            outcome: Outcome,
            time: Timestamp,
            uid: Option<Uid>,
            #[serde(borrow)]
            exe: Option<Cow<'a, str>>,
            #[serde(borrow)]
            unit: Option<Cow<'a, str>>,
        }
        segments::for_each_line(segment.open()?, |line| {
            self.lines += 1;
            let Ok(event) = serde_json::from_slice::<Counted<'_>>(line) else {
                self.unreadable += 1;
                return Ok(());
            };
            self.counts_of(event.secret).add(event.outcome, event.time);
            let day = event.time.strftime("%F").to_string();
            let (outcome, time) = (event.outcome, event.time);
            let (exe, unit) = (event.exe.map(Cow::into_owned), event.unit.map(Cow::into_owned));
            let added = [
                bounded(&mut self.uids, event.uid, MAX_CALLERS),
                bounded(&mut self.exes, exe, MAX_CALLERS),
                bounded(&mut self.units, unit, MAX_CALLERS),
                bounded(&mut self.days, Some(day), MAX_DAYS),
            ];
            added.into_iter().flatten().for_each(|counts| counts.add(outcome, time));
            Ok::<_, io::Error>(())
        })?;
        if let Some(head) = segment.last_head()? {
            self.last_seq = head.seq;
            self.last_mac = line::hex_text(&head.mac);
        }
        Ok(())
    }

    fn counts_of(&mut self, secret: Option<&str>) -> &mut Counts {
        let Some(secret) = secret else { return &mut self.other };
        if !self.secrets.contains_key(secret) && self.secrets.len() >= MAX_NAMES {
            return &mut self.other;
        }
        self.secrets.entry(secret.to_owned()).or_default()
    }

    /// Returns the file's bytes under the keys of the segment that is being written.
    pub(super) fn seal(&mut self, chain: &Chain) -> Result<Vec<u8>, AuditError> {
        self.run = line::hex_text(&chain.run);
        self.index = chain.index;
        let mut text = serde_json::to_vec(self).map_err(io::Error::from)?;
        text.pop();
        let mac = chain.totals_mac(&text);
        line::push_mac(&mut text, &mac);
        Ok(text)
    }
}

/// Returns the counts of a key, or `None` for one of too many.
fn bounded<K: Ord>(
    counts: &mut BTreeMap<K, Counts>,
    key: Option<K>,
    max: usize,
) -> Option<&mut Counts> {
    let key = key?;
    let has_room = counts.len() < max || counts.contains_key(&key);
    has_room.then(|| counts.entry(key).or_default())
}

/// Returns how many of the first segments hold nothing beyond `removed`.
pub(super) fn leftover(segments: &[SegmentFile], removed: Head) -> usize {
    let followers = segments.iter().skip(1);
    followers.take_while(|next| next.first <= removed.next_seq()).count()
}

/// Writes the file so that a crash leaves the old one or the new one.
pub(super) fn replace(dir: &Path, text: &[u8]) -> io::Result<()> {
    let path = dir.join(FILE);
    let new = dir.join("totals.json.new");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let mut file = options.open(&new)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&new, &path)?;
    segments::sync_directory(dir)
}

/// Why totals could not be loaded.
#[derive(Debug)]
pub(super) enum LoadError {
    Forged,
    Io(io::Error),
}

impl LoadError {
    pub(super) fn into_verify_error(self) -> VerifyError {
        match self {
            Self::Forged => damaged(FILE, 1, Seq(0), Damage::Totals),
            Self::Io(error) => error.into(),
        }
    }
}

/// Returns the file's bytes, or `None` where there is none.
pub(super) fn read_file(dir: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    match options.open(dir.join(FILE)) {
        Ok(file) => {
            let mut text = Vec::new();
            file.take(MAX_BYTES).read_to_end(&mut text)?;
            Ok(Some(text))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads the totals, and with a key checks them.
pub(super) fn load(dir: &Path, key: Option<&AuditKey>) -> Result<Option<Totals>, LoadError> {
    let Some(text) = read_file(dir).map_err(LoadError::Io)? else { return Ok(None) };
    parse(&text, key).map(Some).ok_or(LoadError::Forged)
}

fn parse(text: &[u8], key: Option<&AuditKey>) -> Option<Totals> {
    let text = text.strip_suffix(b"\n")?;
    let (body, mac) = line::split_mac(text)?;
    let totals: Totals = serde_json::from_slice(text).ok()?;
    if let Some(key) = key {
        let run = unhex(totals.run.as_bytes())?;
        let chain = Chain::at(key, run, totals.index.min(super::verify::MAX_INDEX));
        if hex(&chain.totals_mac(body)) != *mac {
            return None;
        }
    }
    unhex::<MAC_BYTES>(totals.last_mac.as_bytes())?;
    Some(totals)
}
