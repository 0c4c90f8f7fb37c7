//! What may be a secret, and why it is or is not taken for one.

use std::fmt;
use std::ops::Range;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::redact::Redacted;
use super::severity::Confidence;
use super::stored::Origin;

/// A place in a text that a rule has matched.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    /// The rule's index.
    pub rule: usize,
    /// Where it stands in the text. If it was encoded, where that stands.
    pub span: Range<usize>,
    /// What it was found under, the outermost first.
    pub encodings: Vec<Encoding>,
    pub redacted: Redacted,
    pub trace: Trace,
    pub outcome: Outcome,
    /// Which value of a store it is, if it is one; then there is no rule.
    pub stored: Option<Origin>,
}

/// Two bytes of a hash of the secret: enough to tell two secrets of a file apart, far too little to
/// try passwords against.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Trace(pub [u8; 2]);

impl Trace {
    pub(super) fn of(secret: &[u8]) -> Self {
        let digest = Sha256::digest(secret);
        Self([digest.first().copied().unwrap_or(0), digest.get(1).copied().unwrap_or(0)])
    }
}

/// What became of a candidate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Outcome {
    Filtered(Reason),
    Found(Confidence),
}

/// Why a candidate is no finding.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Its check digit or structure is wrong.
    Check,
    /// Its bytes are too much alike.
    Entropy,
    /// A hash or checksum.
    Hash,
    /// A name in a program.
    Identifier,
    /// To be filled in.
    Placeholder,
    /// A variable, a file, a call.
    Reference,
    /// Too short, too long or of bytes that such a secret has not.
    Shape,
    /// A word of everyday text.
    StopWord,
    Uuid,
}

impl Reason {
    /// Returns what it means, for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Check => "its check digit or structure is wrong",
            Self::Entropy => "its bytes are too much alike to be random",
            Self::Hash => "it looks like a hash",
            Self::Identifier => "it looks like a name in a program",
            Self::Placeholder => "it stands for something to be filled in",
            Self::Reference => "it refers to a variable, a file or a call",
            Self::Shape => "it is too short, too long or made of the wrong characters",
            Self::StopWord => "it is a word that is never a secret",
            Self::Uuid => "it is a UUID under a name that does not make it a secret",
        }
    }
}

/// How a secret was hidden in its text.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Encoding {
    Base64,
    Escaped,
    Hex,
    Percent,
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Base64 => "base64",
            Self::Escaped => "escaped",
            Self::Hex => "hex",
            Self::Percent => "percent",
        })
    }
}
