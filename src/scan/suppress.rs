//! What somebody has accepted: by a comment in the file, a baseline, or an allow list.
//!
//! Suppressed findings stay in the scan's result and can be listed.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::finding::{Finding, Fingerprint, Suppression};
use super::rule::Allow;

/// Stands in a comment on the first or last line of a finding.
const HERE: &[u8] = b"secretfs:allow";
/// Stands in a comment on the line before it.
const NEXT: &[u8] = b"secretfs:allow-next";

/// Tells whether a comment at `span` accepts what `rule` has found there.
pub(super) fn is_allowed_inline(text: &[u8], span: &Range<usize>, rule: &str) -> bool {
    // Hardly any file has it.
    let from = span.start.saturating_sub(4096);
    let to = (span.end + 4096).min(text.len());
    let Some(around) =
        text.get(from..to).filter(|around| memchr::memmem::find(around, HERE).is_some())
    else {
        return false;
    };
    let (start, end) = (span.start - from, span.end - from);
    let line_start = |at: usize| {
        around
            .get(..at)
            .and_then(|before| memchr::memrchr(b'\n', before))
            .map_or(0, |line| line + 1)
    };
    let line_end = |at: usize| {
        let rest = around.get(at..).unwrap_or_default();
        at + memchr::memchr(b'\n', rest).unwrap_or(rest.len())
    };
    let first = line_start(start);
    let line = |at: usize| around.get(line_start(at)..line_end(at)).unwrap_or_default();
    let before = first.checked_sub(1).map(line).unwrap_or_default();
    [line(start), line(end)].iter().any(|line| names(line, HERE, rule)) || names(before, NEXT, rule)
}

/// Tells whether a line has the directive, without a rule or with this one.
fn names(line: &[u8], directive: &[u8], rule: &str) -> bool {
    let Some(at) = memchr::memmem::find(line, directive) else { return false };
    let rest = line.get(at + directive.len()..).unwrap_or_default();
    if directive == HERE && rest.starts_with(b"-next") {
        return false;
    }
    let Some(list) = rest.strip_prefix(b"=") else { return true };
    list.split(|byte| !byte.is_ascii_alphanumeric() && !matches!(byte, b'-' | b','))
        .next()
        .is_some_and(|list| list.split(|&byte| byte == b',').any(|name| name == rule.as_bytes()))
}

impl Allow {
    /// Tells whether all that it says holds. One that says nothing allows nothing.
    pub(super) fn covers(&self, finding: &Finding, path: &Path) -> bool {
        let says_something =
            self.rule.is_some() || self.path.is_some() || self.fingerprint.is_some();
        says_something
            && self.rule.as_ref().is_none_or(|rule| *rule == finding.rule)
            && self.path.as_ref().is_none_or(|glob| glob.matches(path))
            && self.fingerprint.is_none_or(|fingerprint| fingerprint == finding.fingerprint)
    }
}

/// Findings that were there when somebody began to look.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// With rule and file, for people; fingerprints alone count.
    findings: BTreeMap<Fingerprint, Known>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Known {
    rule: Box<str>,
    path: String,
}

impl Baseline {
    /// Takes in all findings, those that were suppressed before too.
    pub fn of<'a>(findings: impl IntoIterator<Item = &'a Finding>) -> Self {
        let known = |finding: &Finding| Known {
            rule: finding.rule.clone(),
            path: finding.place.path.clone(),
        };
        let findings = findings
            .into_iter()
            .filter(|finding| finding.confidence().is_some())
            .map(|finding| (finding.fingerprint, known(finding)))
            .collect();
        Self { findings }
    }

    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self).map(|text| text + "\n")
    }

    pub(super) fn suppression(&self, fingerprint: Fingerprint) -> Option<Suppression> {
        self.findings.contains_key(&fingerprint).then_some(Suppression::Baseline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(text: &str, rule: &str) -> bool {
        let at = text.find("SECRET").unwrap();
        is_allowed_inline(text.as_bytes(), &(at..at + 6), rule)
    }

    #[test]
    fn a_comment_on_its_line_or_on_the_last_of_several_accepts_a_finding() {
        assert!(allowed("a\nx = SECRET # secretfs:allow\nb", "r"));
        assert!(allowed("x = SECRET # secretfs:allow=q,r why", "r"));
        assert!(!allowed("x = SECRET # secretfs:allow=q", "r"));
        assert!(!allowed("# secretfs:allow\nx = SECRET", "r"));
        assert!(!allowed("x = SECRET\n# secretfs:allow", "r"));
        let text = b"SECRET\nSECRET # secretfs:allow";
        assert!(is_allowed_inline(text, &(0..13), "r"));
    }

    #[test]
    fn a_comment_on_the_line_before_accepts_the_next_line_alone() {
        assert!(allowed("# secretfs:allow-next\nx = SECRET", "r"));
        assert!(!allowed("# secretfs:allow-next\n\nx = SECRET", "r"));
        assert!(!allowed("x = SECRET # secretfs:allow-next", "r"));
    }
}
