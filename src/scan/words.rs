//! The searches for keywords, each for the rules of one [`Route`](super::shape::Route).

use std::ops::Range;

use aho_corasick::packed::{self, Searcher};
use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

use super::class::is_word;
use super::rule::RuleError;

/// A rule, by its index.
type Index = u16;

/// Keywords that stand at the beginning of a word: found by their first three bytes.
#[derive(Debug)]
pub(super) struct Prefixes {
    /// For each hash of three bytes, one more than the index of its bucket.
    table: Box<[u16; 1 << TABLE_BITS]>,
    buckets: Vec<Vec<(Box<[u8]>, Index)>>,
}

const TABLE_BITS: u32 = 12;

impl Prefixes {
    /// Keywords must be of three bytes or more.
    pub(super) const MIN_LEN: usize = 3;

    pub(super) fn new(words: Vec<(Box<[u8]>, Index)>) -> Self {
        let mut prefixes = Self { table: Box::new([0; 1 << TABLE_BITS]), buckets: Vec::new() };
        for (word, rule) in words {
            let Some(slot) = hash(&word).and_then(|hash| prefixes.table.get_mut(hash)) else {
                continue;
            };
            if *slot == 0 {
                prefixes.buckets.push(Vec::new());
                *slot = u16::try_from(prefixes.buckets.len()).unwrap_or(u16::MAX);
            }
            if let Some(bucket) = prefixes.buckets.get_mut(usize::from(*slot) - 1) {
                bucket.push((word, rule));
            }
        }
        prefixes
    }

    /// Calls `hit` with the length of each keyword that stands at the beginning of `text`, and its rule.
    pub(super) fn at(&self, text: &[u8], mut hit: impl FnMut(usize, usize)) {
        let slot = hash(text).and_then(|hash| self.table.get(hash)).copied().unwrap_or(0);
        let Some(bucket) = usize::from(slot).checked_sub(1).and_then(|at| self.buckets.get(at))
        else {
            return;
        };
        for (word, rule) in bucket {
            if text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word)) {
                hit(word.len(), usize::from(*rule));
            }
        }
    }
}

fn hash(text: &[u8]) -> Option<usize> {
    let [one, two, three, ..] = *text else { return None };
    let bytes = u32::from_le_bytes([one | 0x20, two | 0x20, three | 0x20, 0]);
    usize::try_from(bytes.wrapping_mul(0x9e37_79b1) >> (32 - TABLE_BITS)).ok()
}

/// Tells whether a word may begin at `at`: what stands before is no part of a word, or the end of an escape
/// (`\n`, `%3D`, `\u003d`).
pub(super) fn begins_word(text: &[u8], at: usize) -> bool {
    let Some(before) = text.get(..at) else { return false };
    match before {
        [] => true,
        [.., last] if !is_word(*last) => true,
        [.., b'\\', b'n' | b'r' | b't' | b'b' | b'f' | b'v' | b'0'] => true,
        [.., b'%', one, two] => one.is_ascii_hexdigit() && two.is_ascii_hexdigit(),
        [.., b'\\', b'u', b'0', b'0', _, _] | [.., b'\\', b'x', _, _] => true,
        _ => false,
    }
}

pub(super) fn ends_word(text: &[u8], at: usize) -> bool {
    text.get(at).is_none_or(|&byte| !is_word(byte))
}

/// Keywords anywhere in short windows, in any case.
#[derive(Debug)]
pub(super) struct Nearby {
    automaton: AhoCorasick,
    /// For each keyword the rules that have it.
    rules: Vec<Vec<Index>>,
}

impl Nearby {
    pub(super) fn new(mut words: Vec<(Box<[u8]>, Index)>) -> Result<Self, RuleError> {
        words.sort_unstable();
        let mut rules: Vec<Vec<Index>> = Vec::new();
        let mut patterns: Vec<Box<[u8]>> = Vec::new();
        for (word, rule) in words {
            if patterns.last() == Some(&word) {
                rules.last_mut().into_iter().for_each(|rules| rules.push(rule));
            } else {
                patterns.push(word);
                rules.push(vec![rule]);
            }
        }
        let automaton = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .match_kind(MatchKind::Standard)
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .prefilter(false)
            .build(&patterns)
            .map_err(|_| RuleError::TooMany)?;
        Ok(Self { automaton, rules })
    }

    /// Calls `hit` with the place in `text` and the rule of each keyword that ends in `text`.
    pub(super) fn each(&self, text: &[u8], mut hit: impl FnMut(Range<usize>, usize)) {
        for found in self.automaton.find_overlapping_iter(text) {
            for &rule in self.rules.get(found.pattern().as_usize()).into_iter().flatten() {
                hit(found.range(), usize::from(rule));
            }
        }
    }
}

/// Few words anywhere in a whole text, each in the spellings that it is usual in.
#[derive(Debug)]
pub(super) struct Everywhere<T> {
    searches: Vec<Search>,
    /// For each word what it is for.
    uses: Vec<Vec<T>>,
}

#[derive(Debug)]
struct Search {
    finder: Finder,
    /// The index of its first word.
    first: usize,
}

/// Vector instructions where the machine has them, an automaton elsewhere.
#[derive(Debug)]
enum Finder {
    Automaton(AhoCorasick),
    Packed(Searcher),
}

/// As many as the search with vector instructions takes.
const MAX_PACKED: usize = 64;

impl<T: Copy> Everywhere<T> {
    pub(super) fn new(words: Vec<(Vec<u8>, T)>) -> Result<Self, RuleError> {
        let mut patterns: Vec<Vec<u8>> = Vec::new();
        let mut uses: Vec<Vec<T>> = Vec::new();
        for (word, what) in words {
            match patterns.iter().position(|known| *known == word) {
                Some(at) => uses.get_mut(at).into_iter().for_each(|uses| uses.push(what)),
                None => {
                    patterns.push(word);
                    uses.push(vec![what]);
                }
            }
        }
        let searches = patterns
            .chunks(MAX_PACKED)
            .enumerate()
            .map(|(at, chunk)| Ok(Search { finder: finder(chunk)?, first: at * MAX_PACKED }))
            .collect::<Result<_, _>>()?;
        Ok(Self { searches, uses })
    }

    /// Calls `hit` with each place where a word stands, also within another one.
    pub(super) fn each(&self, text: &[u8], mut hit: impl FnMut(Range<usize>, T)) {
        for search in &self.searches {
            let mut at = 0;
            while let Some((word, range)) = search.finder.next(text, at) {
                at = range.start + 1;
                for &what in self.uses.get(search.first + word).into_iter().flatten() {
                    hit(range.clone(), what);
                }
            }
        }
    }
}

fn finder(words: &[Vec<u8>]) -> Result<Finder, RuleError> {
    let mut builder =
        packed::Config::new().match_kind(packed::MatchKind::LeftmostLongest).builder();
    builder.extend(words);
    if let Some(searcher) = builder.build() {
        return Ok(Finder::Packed(searcher));
    }
    AhoCorasick::builder()
        .match_kind(MatchKind::LeftmostLongest)
        .build(words)
        .map(Finder::Automaton)
        .map_err(|_| RuleError::TooMany)
}

impl Finder {
    fn next(&self, text: &[u8], at: usize) -> Option<(usize, Range<usize>)> {
        let found = match self {
            Self::Automaton(automaton) => automaton.find(
                aho_corasick::Input::new(text).span(aho_corasick::Span::from(at..text.len())),
            ),
            Self::Packed(searcher) => {
                searcher.find_in(text, aho_corasick::Span::from(at..text.len()))
            }
        }?;
        Some((found.pattern().as_usize(), found.range()))
    }
}

/// Returns a keyword as it is usually written: as given, in small letters, in capitals, with one capital.
pub(super) fn spellings(word: &str) -> Vec<Vec<u8>> {
    let lower = word.to_ascii_lowercase();
    let mut capital = lower.clone().into_bytes();
    if let Some(first) = capital.first_mut() {
        first.make_ascii_uppercase();
    }
    let mut all = vec![
        word.as_bytes().to_vec(),
        word.to_ascii_uppercase().into_bytes(),
        lower.into_bytes(),
        capital,
    ];
    all.sort_unstable();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_found_in_any_case_and_told_from_others_of_its_bucket() {
        let words = [("ghp_", 1), ("gho_", 2), ("ghp", 3)];
        let prefixes = Prefixes::new(
            words.iter().map(|(word, rule)| (word.as_bytes().into(), *rule)).collect(),
        );
        let mut found = Vec::new();
        prefixes.at(b"GHP_x", |len, rule| found.push((len, rule)));
        found.sort_unstable();
        assert_eq!(found, [(3, 3), (4, 1)]);
    }

    #[test]
    fn an_escape_before_it_does_not_hide_a_word() {
        for text in ["", "=", "\\n", "%3D", "\\u003d", "x "] {
            assert!(begins_word(text.as_bytes(), text.len()), "{text:?}");
        }
        for text in ["a", "_", "\\nx", "3D"] {
            assert!(!begins_word(text.as_bytes(), text.len()), "{text:?}");
        }
    }

    #[test]
    fn more_words_than_one_search_takes_are_all_found_also_within_others() {
        let words: Vec<_> = (0..200_u16).map(|n| (format!("w{n:03}x").into_bytes(), n)).collect();
        let everywhere = Everywhere::new(words).unwrap();
        let mut found = Vec::new();
        everywhere.each(b"..w007x..w199x.w0w042x", |range, n| found.push((range.start, n)));
        found.sort_unstable();
        assert_eq!(found, [(2, 7), (9, 199), (17, 42)]);
    }
}
