//! Secrets without a format of their own: known by the name that they are assigned to.
//!
//! A search for a few fragments of words finds the names; a parser then reads what is assigned, in the ways
//! in which programs, settings, markup and command lines write it. No regular expression is involved:
//! there are too many ways, and names are too frequent.

use std::ops::Range;

use super::candidate::Reason;
use super::confidence::Strength;
use super::file_kind::FileKind;
use super::rule::{Context, Finder, Rule};
use super::severity::Severity;
use crate::model::SecretType;

mod cursor;
mod header;
mod judge;
mod parse;
mod url;
mod words;

use parse::Assigned;

/// Returns what is looked for: fragments of names of secrets, of four bytes where that is possible.
pub(super) fn triggers() -> impl Iterator<Item = Vec<u8>> {
    const FRAGMENTS: [&str; 12] = [
        "pass",
        "Pass",
        "PASS",
        "ecret",
        "ECRET",
        "oken",
        "OKEN",
        "redential",
        "REDENTIAL",
        "auth",
        "Auth",
        "AUTH",
    ];
    // Three letters are found too often to be looked at each time: the byte behind them must do for a name.
    const SHORT: [&str; 6] = ["key", "Key", "KEY", "pwd", "Pwd", "PWD"];
    const BEHIND: [&str; 8] = ["=", ":", "\"", "'", " ", ">", "_", "]"];
    // Before a value on the next line, and before a quotation mark with a backslash.
    const LAST: [&str; 6] = ["KEY\n", "PWD\n", "key\\", "Key\\", "KEY\\", "pwd\\"];
    let short = SHORT.iter().flat_map(|word| BEHIND.map(|behind| format!("{word}{behind}")));
    FRAGMENTS.into_iter().chain(LAST).map(str::to_owned).chain(short).map(String::into_bytes)
}

/// The rules whose matches these parsers find, and their places in the list of rules.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Id {
    Authorization,
    Password,
    Secret,
    Url,
}

impl Id {
    pub(super) const ALL: [Self; 4] =
        [Self::Authorization, Self::Password, Self::Secret, Self::Url];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Authorization => "authorization-header",
            Self::Password => "generic-password",
            Self::Secret => "generic-secret",
            Self::Url => "url-password",
        }
    }

    fn rule(self) -> Rule {
        let (description, kind, severity): (&str, _, _) = match self {
            Self::Authorization => {
                ("Credentials in an Authorization header", SecretType::ApiKey, Severity::High)
            }
            Self::Password => {
                ("Password assigned to a name", SecretType::DatabasePassword, Severity::High)
            }
            Self::Secret => {
                ("Key, token or secret assigned to a name", SecretType::ApiKey, Severity::Medium)
            }
            Self::Url => ("Password in a URL", SecretType::DatabasePassword, Severity::High),
        };
        Rule {
            id: self.as_str().into(),
            description: description.into(),
            kind,
            severity,
            keywords: Vec::new(),
            boundary: false,
            entropy: None,
            check: None,
            context: Context::Assignment,
            finder: Finder::Parser,
            positive: words::positive(self),
            negative: words::negative(self),
        }
    }
}

/// Returns the rules, in the order of [`Id::ALL`].
pub(super) fn rules() -> Vec<Rule> {
    Id::ALL.into_iter().map(Id::rule).collect()
}

/// What a parser found and thinks of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Found {
    pub id: Id,
    pub value: Range<usize>,
    pub opinion: Result<Opinion, Reason>,
}

/// A value that no filter has taken out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Opinion {
    pub strength: Strength,
    /// Its structure is right, as that of `user:password` in base64.
    pub checked: bool,
    pub floor: f64,
}

/// Reads what is assigned to the name of which a fragment was found at `hit`.
pub(super) fn read_name(text: &[u8], hit: Range<usize>, kind: FileKind) -> Option<Found> {
    let assigned = Assigned::read(text, hit, kind)?;
    judge::judge(text, &assigned, kind)
}

/// Reads the passwords in the URLs of a text.
pub(super) fn read_urls(text: &[u8]) -> impl Iterator<Item = Found> {
    url::places(text).filter_map(|place| url::read(text, place))
}
