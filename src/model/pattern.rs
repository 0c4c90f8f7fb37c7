//! Patterns over names: `*` and `?` stay within a segment, `**` spans any number of segments.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

use super::SecretName;

/// A pattern such as `prod/*/password` or `prod/**`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "String")]
pub struct Pattern {
    text: Box<str>,
    segments: Box<[Segment]>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Segment {
    /// `**`: none, one or several segments.
    Any,
    /// A segment with `*` or `?` in it.
    Glob(Box<str>),
    Literal(Box<str>),
}

impl Pattern {
    /// Tells whether the whole name fits.
    pub fn matches(&self, name: &SecretName) -> bool {
        match_segments(&self.segments, name.as_str(), Rest::Complete)
    }

    /// Tells whether some name below the directory `dir` could fit. It looks at the pattern alone,
    /// so the answer says nothing of which names exist.
    pub fn may_match_below(&self, dir: &SecretName) -> bool {
        match_segments(&self.segments, dir.as_str(), Rest::MoreToCome)
    }

    /// Returns the pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let segments = text.split('/').map(parse_segment).collect::<Result<_, _>>()?;
        Ok(Self { text: text.into(), segments })
    }
}

impl TryFrom<String> for Pattern {
    type Error = PatternError;

    fn try_from(text: String) -> Result<Self, PatternError> {
        text.parse()
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Why a text is not a [`Pattern`].
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PatternError {
    #[error("a pattern has an empty segment")]
    EmptySegment,
    #[error("`**` stands for whole segments and must stand alone between slashes")]
    StarsWithinSegment,
    #[error("the character {0:?} can be in no name, so this pattern matches nothing")]
    Forbidden(char),
}

fn parse_segment(text: &str) -> Result<Segment, PatternError> {
    if text.is_empty() {
        return Err(PatternError::EmptySegment);
    }
    if text == "**" {
        return Ok(Segment::Any);
    }
    if text.contains("**") {
        return Err(PatternError::StarsWithinSegment);
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '*' | '?');
    if let Some(c) = text.chars().find(|&c| !allowed(c)) {
        return Err(PatternError::Forbidden(c));
    }
    let has_wildcard = text.contains(['*', '?']);
    Ok(if has_wildcard { Segment::Glob(text.into()) } else { Segment::Literal(text.into()) })
}

/// Whether the name that is matched is complete, or a directory under which more may follow.
#[derive(Clone, Copy, PartialEq)]
enum Rest {
    Complete,
    MoreToCome,
}

fn match_segments(pattern: &[Segment], name: &str, rest: Rest) -> bool {
    let Some((first, later)) = pattern.split_first() else {
        return false;
    };
    let (segment, remaining) = match name.split_once('/') {
        Some((segment, remaining)) => (segment, Some(remaining)),
        None => (name, None),
    };
    match first {
        Segment::Any => match_any(later, name, remaining, pattern, rest),
        Segment::Glob(glob) => {
            glob_matches(glob.as_bytes(), segment.as_bytes()) && go_on(later, remaining, rest)
        }
        Segment::Literal(literal) => **literal == *segment && go_on(later, remaining, rest),
    }
}

fn match_any(
    later: &[Segment],
    name: &str,
    remaining: Option<&str>,
    pattern: &[Segment],
    rest: Rest,
) -> bool {
    if later.is_empty() || rest == Rest::MoreToCome {
        // A trailing `**` takes whatever there is; and below a directory it may always take more.
        return true;
    }
    let taken_here = remaining.is_some_and(|remaining| match_segments(pattern, remaining, rest));
    taken_here || match_segments(later, name, rest)
}

fn go_on(later: &[Segment], remaining: Option<&str>, rest: Rest) -> bool {
    match remaining {
        Some(remaining) => match_segments(later, remaining, rest),
        None if rest == Rest::MoreToCome => !later.is_empty(),
        // `a/**` also fits `a` itself only if `**` may stand for nothing; names end in a segment
        // that the pattern must have asked for, so it does not.
        None => later.is_empty(),
    }
}

/// Matches one segment in time proportional to the product of the lengths, without recursion:
/// a hostile pattern cannot make it slow.
fn glob_matches(glob: &[u8], text: &[u8]) -> bool {
    let (mut g, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match glob.get(g) {
            Some(b'*') => {
                retry = Some((g + 1, t));
                g += 1;
            }
            Some(&c) if c == b'?' || Some(&c) == text.get(t) => {
                g += 1;
                t += 1;
            }
            _ => {
                let Some((after_star, taken)) = retry else { return false };
                retry = Some((after_star, taken + 1));
                g = after_star;
                t = taken + 1;
            }
        }
    }
    glob.get(g..).unwrap_or_default().iter().all(|&c| c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        pattern.parse::<Pattern>().unwrap().matches(&name.parse().unwrap())
    }

    #[test]
    fn a_star_stays_within_its_segment_and_two_stars_span_segments() {
        let cases = [
            ("*", "a", true),
            ("*", "a/b", false),
            ("**", "a/b/c", true),
            ("prod/*", "prod/x", true),
            ("prod/*", "prod/x/y", false),
            ("prod/**", "prod/x/y", true),
            ("prod/**", "prod", false),
            ("prod/**", "production", false),
            ("**/password", "password", true),
            ("**/password", "a/b/password", true),
            ("a/**/z", "a/z", true),
            ("a/**/z", "a/b/c/z", true),
            ("a/**/z", "a/b/c", false),
            ("db-?", "db-1", true),
            ("db-?", "db-12", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b*", "xxbxxaxx", false),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_directory_can_be_entered_when_a_name_below_it_could_match() {
        let cases = [
            ("prod/*", "prod", true),
            ("prod/db/password", "prod/db", true),
            ("prod/db/password", "prod/db/password", false),
            ("prod/*", "test", false),
            ("*", "prod", false),
            ("**/password", "prod", true),
        ];
        for (pattern, dir, expected) in cases {
            let pattern: Pattern = pattern.parse().unwrap();
            assert_eq!(pattern.may_match_below(&dir.parse().unwrap()), expected, "{pattern} {dir}");
        }
    }

    #[test]
    fn patterns_that_can_match_nothing_are_refused() {
        for bad in ["", "/a", "a//b", "a**", "a b", "a@b", "[ab]"] {
            assert!(bad.parse::<Pattern>().is_err(), "{bad:?}");
        }
    }
}
