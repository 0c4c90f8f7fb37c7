//! What a scan says: findings, what could not be read, and what was looked at.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::candidate::{Encoding, Reason, Trace};
use super::redact::Redacted;
use super::severity::{Confidence, Severity};
use super::stored::Origin;
use crate::model::SecretType;

/// A place where a secret stands, or what was taken for one and is none.
#[derive(Clone, Debug)]
pub struct Finding {
    pub rule: Box<str>,
    pub description: Box<str>,
    pub kind: SecretType,
    pub severity: Severity,
    pub place: Place,
    /// What the secret was hidden under, the outermost first.
    pub encodings: Vec<Encoding>,
    /// Public parts of the secret and its length.
    pub secret: Redacted,
    /// Its line without secrets.
    pub context: Redacted,
    pub fingerprint: Fingerprint,
    /// Which value of a store it is, if it is one.
    pub stored: Option<Origin>,
    pub state: State,
}

/// Where something stands.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Place {
    /// The file; within an archive, `archive!/file`.
    pub path: String,
    pub line: u64,
    /// In bytes, from 1.
    pub column: u64,
    pub end_line: u64,
    /// The commit that brought it, when a history was scanned.
    pub commit: Option<Commit>,
}

/// Who brought a secret into a history, and when.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Commit {
    pub id: String,
    pub author: String,
    pub date: String,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// No secret, and why.
    Filtered(Reason),
    /// A finding.
    Found(Confidence),
    /// A finding that somebody has accepted.
    Suppressed(Confidence, Suppression),
}

/// How a finding was accepted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Suppression {
    /// By an allow list, which says why.
    Allowed(Box<str>),
    Baseline,
    /// By a comment in the file.
    Inline,
}

impl fmt::Display for Suppression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allowed(reason) => write!(f, "allowed: {reason}"),
            Self::Baseline => f.write_str("in the baseline"),
            Self::Inline => f.write_str("allowed by a comment"),
        }
    }
}

impl Finding {
    /// Returns how sure it is; what is no secret has no confidence.
    pub fn confidence(&self) -> Option<Confidence> {
        match self.state {
            State::Filtered(_) => None,
            State::Found(confidence) | State::Suppressed(confidence, _) => Some(confidence),
        }
    }

    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Found(_))
    }
}

/// Names a finding, whatever line it moves to.
///
/// Made of rule, file and two bytes of a hash of the secret: it can stand in a public baseline, because it
/// does not tell a right guess of a weak password from a wrong one.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint([u8; 16]);

impl Fingerprint {
    pub(super) fn of(rule: &str, path: &Path, trace: Trace) -> Self {
        let mut hash = Sha256::new();
        for part in [rule.as_bytes(), path.as_os_str().as_encoded_bytes(), &trace.0] {
            hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
            hash.update(part);
        }
        let digest = hash.finalize();
        let mut short = [0; 16];
        short.iter_mut().zip(digest.iter()).for_each(|(to, from)| *to = *from);
        Self(short)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> Self {
        fingerprint.to_string()
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no fingerprint: 32 hexadecimal digits");
        let number = u128::from_str_radix(&text, 16).map_err(|_| wrong())?;
        if text.len() == 32 { Ok(Self(number.to_be_bytes())) } else { Err(wrong()) }
    }
}

/// All that a scan has to say.
#[derive(Debug, Default)]
pub struct Scan {
    pub findings: Vec<Finding>,
    /// Files and directories that could not be read, or not to their end.
    pub unread: Vec<Unread>,
    pub totals: Totals,
}

/// Something that a scan could not look into.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Unread {
    pub path: String,
    pub why: String,
}

/// How much was looked at.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Totals {
    pub files: u64,
    pub bytes: u64,
    /// Files that are no text and no archive.
    pub binary: u64,
    /// Commits, when a history was scanned.
    pub commits: u64,
}

impl Scan {
    /// Adds what another thread has found.
    pub(super) fn merge(&mut self, other: Self) {
        self.findings.extend(other.findings);
        self.unread.extend(other.unread);
        let Totals { files, bytes, binary, commits } = other.totals;
        self.totals.files += files;
        self.totals.bytes += bytes;
        self.totals.binary += binary;
        self.totals.commits += commits;
    }

    /// Puts everything into an order that does not depend on threads.
    pub(super) fn sort(&mut self) {
        self.findings.sort_by(|one, two| (&one.place, &one.rule).cmp(&(&two.place, &two.rule)));
        self.unread.sort();
    }

    /// Returns the findings that nobody has accepted.
    pub fn open(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.is_open())
    }

    /// Tells whether everything was read: only then "nothing found" means something.
    pub fn is_complete(&self) -> bool {
        self.unread.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_depends_on_rule_file_and_secret_and_reads_back() {
        let of = |rule, path: &str, secret: &[u8]| {
            Fingerprint::of(rule, Path::new(path), Trace::of(secret))
        };
        let one = of("r", "a/b", b"x");
        assert_eq!(Fingerprint::try_from(one.to_string()), Ok(one));
        for other in [of("s", "a/b", b"x"), of("r", "a/c", b"x"), of("r", "a/b", b"y")] {
            assert_ne!(one, other);
        }
        assert!(Fingerprint::try_from("12".to_owned()).is_err());
    }
}
