//! The one place where text of a scanned file becomes text of a report.
//!
//! A [`Redacted`] cannot be made but here, and reports print nothing of a file but that. Besides the
//! secrets that were found, every random-looking run on the line is covered: what no rule has seen may be
//! one too.

use std::fmt;
use std::ops::Range;

use serde::Serialize;

use super::runs::{Look, Runs};

/// Text in which no secret is.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Redacted(String);

/// What stands for covered text.
const COVER: &str = "[...]";

/// Longer lines are shown around the finding.
const SHOWN: usize = 80;

impl Redacted {
    /// Returns a secret's public beginning and its length. `public` says how many bytes of it are the
    /// same in all secrets of its kind.
    pub(super) fn secret(secret: &[u8], public: usize) -> Self {
        // Never so much that guessing the rest gets easier.
        let shown = secret.get(..public.min(secret.len() / 3)).unwrap_or_default();
        Self(format!("{}{COVER} ({} bytes)", visible(shown), secret.len()))
    }

    /// Returns what stands around `span` on its line, with all of `secrets` covered; all three are of
    /// the same text.
    pub(super) fn context(text: &[u8], span: &Range<usize>, secrets: &[Range<usize>]) -> Self {
        let before = text.get(..span.start).unwrap_or_default();
        let line_start = memchr::memrchr(b'\n', before).map_or(0, |at| at + 1);
        let from = line_start.max(span.start.saturating_sub(SHOWN));
        let after = text.get(span.end..).unwrap_or_default();
        let rest = memchr::memchr(b'\n', after).unwrap_or(after.len()).min(SHOWN);
        let to = span.end + rest;
        // A run that the cut goes through is covered as a whole: look a little further out.
        let wide = line_start.max(from.saturating_sub(SHOWN));
        let mut covered: Vec<Range<usize>> = secrets.to_vec();
        let outer = text.get(wide..(to + SHOWN).min(text.len())).unwrap_or_default();
        covered.extend(
            Runs::new(outer)
                .filter(|run| {
                    outer.get(run.clone()).is_some_and(|run| Look::of(run) == Look::Random)
                })
                .map(|run| run.start + wide..run.end + wide),
        );
        covered.sort_unstable_by_key(|range| range.start);
        let mut shown = String::new();
        let mut at = from;
        for range in covered.into_iter().filter(|range| range.end > from && range.start < to) {
            let start = range.start.max(at);
            shown.push_str(&visible(text.get(at..start).unwrap_or_default()));
            // Of ranges that overlap or touch one cover is enough.
            if range.end > at && !(start == at && shown.ends_with(COVER)) {
                shown.push_str(COVER);
            }
            at = at.max(range.end);
        }
        shown.push_str(&visible(text.get(at..to).unwrap_or_default()));
        Self(shown.trim().to_owned())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Redacted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Returns bytes as text; what is no text or could steer a terminal becomes a dot.
fn visible(bytes: &[u8]) -> String {
    let shown = |c: char| {
        if c == '\t' {
            ' '
        } else if c.is_control() {
            '.'
        } else {
            c
        }
    };
    String::from_utf8_lossy(bytes).chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_of_the_line_is_in_its_context() {
        let text = b"a\nuser=app password=hunter2 token=x7Kp2mQ9vL4nR8wTz1 # note\nb";
        let password = 20..27;
        assert_eq!(&text[password.clone()], b"hunter2");
        let shown = Redacted::context(text, &password, std::slice::from_ref(&password));
        assert_eq!(shown.as_str(), "user=app password=[...] [...] # note");
    }

    #[test]
    fn a_line_that_is_cut_within_a_random_run_shows_nothing_of_it() {
        let text = b"x7Kp2mQ9vL4nR8wTz1".repeat(50);
        let shown = Redacted::context(&text, &(400..420), &[]);
        assert_eq!(shown.as_str(), COVER);
    }

    #[test]
    fn a_secret_shows_its_public_beginning_and_never_more_than_a_third() {
        assert_eq!(Redacted::secret(b"abc_0123456789", 4).as_str(), "abc_[...] (14 bytes)");
        assert_eq!(Redacted::secret(b"abcdef", 4).as_str(), "ab[...] (6 bytes)");
        assert_eq!(Redacted::secret(b"hunter2", 0).as_str(), "[...] (7 bytes)");
    }

    #[test]
    fn control_characters_of_a_file_do_not_reach_a_report() {
        let text = b"x\x1b[31m password=hunter2";
        let password = 16..23;
        let shown = Redacted::context(text, &password, std::slice::from_ref(&password));
        assert!(!shown.as_str().contains('\u{1b}') && !shown.as_str().contains("hunter"));
    }
}
