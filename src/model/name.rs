//! Names of secrets and directories: the only text that may reach a path, a listing or an audit line.
//!
//! A [`SecretName`] is checked once, when it is parsed. Code that holds one may print it or join it
//! to a directory without thinking about `..`, empty segments or control bytes. Names are public to
//! whoever may know of them; values never are.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A relative path of 1..=32 segments of `A-Z a-z 0-9 . _ -`, none led by a dot.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct SecretName(Box<str>);

impl SecretName {
    /// Longest name in bytes.
    pub const MAX_BYTES: usize = 1024;
    /// Longest segment in bytes, as `NAME_MAX` has it.
    pub const MAX_SEGMENT_BYTES: usize = 255;
    /// Most segments in a name.
    pub const MAX_SEGMENTS: usize = 32;

    /// Returns the whole name, segments joined by `/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the segments from the root down.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }

    /// Returns the last segment.
    pub fn leaf(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// Returns the directory that holds this name, or `None` for a name at the root.
    pub fn parent(&self) -> Option<Self> {
        self.0.rsplit_once('/').map(|(parent, _)| Self(parent.into()))
    }

    /// Returns the name `segment` in the directory `parent`, where `None` is the root.
    pub fn join(parent: Option<&Self>, segment: &str) -> Result<Self, NameError> {
        check_segment(segment)?;
        match parent {
            None => Ok(Self(segment.into())),
            Some(parent) => format!("{parent}/{segment}").parse(),
        }
    }

    /// Tells whether this name lies in the directory `dir` or below it.
    pub fn is_below(&self, dir: &Self) -> bool {
        self.0.strip_prefix(dir.as_str()).is_some_and(|rest| rest.starts_with('/'))
    }
}

impl FromStr for SecretName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.len() > Self::MAX_BYTES {
            return Err(NameError::TooLong);
        }
        if text.split('/').count() > Self::MAX_SEGMENTS {
            return Err(NameError::TooDeep);
        }
        text.split('/').try_for_each(check_segment)?;
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for SecretName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<SecretName> for String {
    fn from(name: SecretName) -> Self {
        name.0.into()
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is not a [`SecretName`].
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NameError {
    #[error("a segment starts with a dot")]
    DotSegment,
    #[error("a segment is empty")]
    EmptySegment,
    #[error("the character {0:?} is not allowed (use A-Z a-z 0-9 . _ -)")]
    Forbidden(char),
    #[error("a segment is longer than {max} bytes", max = SecretName::MAX_SEGMENT_BYTES)]
    SegmentTooLong,
    #[error("there are more than {max} segments", max = SecretName::MAX_SEGMENTS)]
    TooDeep,
    #[error("the name is longer than {max} bytes", max = SecretName::MAX_BYTES)]
    TooLong,
}

fn check_segment(segment: &str) -> Result<(), NameError> {
    // Dot-led names belong to the filesystem itself (`.control`) and to editors; refusing them
    // here also refuses `.` and `..` without a special case.
    if segment.starts_with('.') {
        return Err(NameError::DotSegment);
    }
    if segment.is_empty() {
        return Err(NameError::EmptySegment);
    }
    if segment.len() > SecretName::MAX_SEGMENT_BYTES {
        return Err(NameError::SegmentTooLong);
    }
    let allowed = |c: char| matches!(c, 'A'..='Z' | 'a'..='z' | '0'..='9' | '.' | '_' | '-');
    match segment.chars().find(|&c| !allowed(c)) {
        Some(c) => Err(NameError::Forbidden(c)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_letters_digits_and_marks_are_taken_and_split() {
        let name: SecretName = "prod/db/Pass_word-1.x".parse().unwrap();
        assert_eq!(name.segments().collect::<Vec<_>>(), ["prod", "db", "Pass_word-1.x"]);
        assert_eq!(name.leaf(), "Pass_word-1.x");
        assert_eq!(name.parent().unwrap().as_str(), "prod/db");
        assert!(name.is_below(&"prod".parse().unwrap()));
        assert!(!name.is_below(&"pro".parse().unwrap()));
    }

    #[test]
    fn hostile_names_are_refused() {
        let long = "a".repeat(256);
        let deep = ["a"; 33].join("/");
        for bad in
            ["", "/", "a//b", "/a", "a/", "..", "a/../b", ".x", "a@b", "a b", "a\nb", "\u{e9}"]
        {
            assert!(bad.parse::<SecretName>().is_err(), "{bad:?}");
        }
        assert_eq!(long.parse::<SecretName>(), Err(NameError::SegmentTooLong));
        assert_eq!(deep.parse::<SecretName>(), Err(NameError::TooDeep));
    }
}
