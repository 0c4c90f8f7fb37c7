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
pub(super) use url::{MARK, MAX_USERINFO, places as url_places, read as read_url};

/// Words in the names of secrets, in small letters, by which the names are found. The last two are found too often to
/// be looked at each time: the byte behind them must do for a name.
pub(super) const WORDS: [&[u8]; 7] =
    [b"pass", b"secret", b"token", b"credential", b"auth", b"key", b"pwd"];

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
    if hit.len() == 3 && !may_name(text, &hit) {
        return None;
    }
    let assigned = Assigned::read(text, hit, kind)?;
    judge::judge(text, &assigned, kind)
}

/// Tells whether what follows a short fragment can follow a name, or be the rest of one.
fn may_name(text: &[u8], hit: &Range<usize>) -> bool {
    match text.get(hit.end) {
        Some(b'=' | b':' | b'"' | b'\'' | b' ' | b'>' | b'_' | b']' | b'\\') => true,
        // A value on the next line has such a name.
        Some(b'\n') => text.get(hit.start).is_some_and(u8::is_ascii_uppercase),
        Some(_) | None => false,
    }
}
