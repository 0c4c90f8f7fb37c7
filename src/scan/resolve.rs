//! One secret, one finding: several rules may match the same bytes, and the one that says most is kept.

use std::cmp::Reverse;

use super::candidate::{Candidate, Outcome, Reason};
use super::confidence::Evidence;
use super::rule::Context;
use super::severity::{Confidence, Severity};

/// A candidate with what its rank among others depends on.
#[derive(Debug)]
pub(super) struct Ranked {
    pub candidate: Candidate,
    pub context: Context,
    pub severity: Severity,
}

impl Ranked {
    /// The more a match says by itself, the higher. A verified structure decides; then what leaks most, which
    /// of two formats is the more special one; of equal ones that of the earlier rule.
    fn rank(&self) -> (u8, bool, Severity, bool, Confidence, usize, Reverse<usize>) {
        let candidate = &self.candidate;
        let certain = u8::from(self.context != Context::Assignment);
        let is_format = self.context == Context::Format;
        let (class, confidence) = match candidate.outcome {
            Outcome::Found(confidence) => (2 + 2 * certain, confidence),
            // That a format's check digit is wrong is worth more than that something is assigned.
            Outcome::Filtered(Reason::Check | Reason::Placeholder) if is_format => {
                (3, Confidence::default())
            }
            Outcome::Filtered(_) => (certain, Confidence::default()),
        };
        let checked = confidence >= Evidence::CHECKED;
        let len = candidate.span.len();
        (class, checked, self.severity, is_format, confidence, len, Reverse(candidate.rule))
    }

    fn overlaps(&self, other: &Self) -> bool {
        let (one, two) = (&self.candidate, &other.candidate);
        let overlap = one.span.start < two.span.end && two.span.start < one.span.end;
        // Several secrets may hide under the same encoded text.
        let both_hidden = !one.encodings.is_empty() && !two.encodings.is_empty();
        overlap && (!both_hidden || one.trace == two.trace)
    }
}

/// Keeps the best of those that overlap, in the order of the text.
pub(super) fn resolve(mut found: Vec<Ranked>) -> Vec<Candidate> {
    found.sort_by_key(|one| Reverse(one.rank()));
    let mut kept: Vec<Ranked> = Vec::new();
    // Sorted by place, so that only neighbours need to be compared.
    let mut places: std::collections::BTreeMap<usize, Vec<usize>> =
        std::collections::BTreeMap::new();
    let mut longest = 0;
    for one in found {
        let span = one.candidate.span.clone();
        let near = places.range(span.start.saturating_sub(longest)..span.end);
        let hidden = near
            .flat_map(|(_, at)| at)
            .filter_map(|&at| kept.get(at))
            .any(|better| one.overlaps(better));
        if !hidden {
            longest = longest.max(span.len());
            places.entry(span.start).or_default().push(kept.len());
            kept.push(one);
        }
    }
    let mut candidates: Vec<Candidate> = kept.into_iter().map(|ranked| ranked.candidate).collect();
    candidates.sort_by_key(|candidate| candidate.span.start);
    candidates
}
