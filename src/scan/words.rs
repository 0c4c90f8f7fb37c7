//! The searches for keywords, each for the rules of one [`Route`](super::shape::Route).

use std::ops::Range;

use aho_corasick::packed::{self, Searcher};
use aho_corasick::{AhoCorasick, AhoCorasickKind, Input, MatchKind, Span};
use memchr::memmem;

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
            .kind(Some(AhoCorasickKind::DFA))
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

/// Few fragments of words anywhere in a whole text, as they are spelled.
#[derive(Debug)]
pub(super) struct Everywhere<T> {
    searches: Vec<Search>,
    /// For each fragment what it is for.
    uses: Vec<Vec<T>>,
}

#[derive(Debug)]
struct Search {
    finder: Finder,
    /// The index of its first fragment.
    first: usize,
}

#[derive(Debug)]
enum Finder {
    /// Where the machine has no vector instructions.
    Automaton(AhoCorasick),
    /// Fragments of four bytes or more, by vector instructions: of shorter ones it finds too many.
    Packed(Searcher),
    Single(memmem::Finder<'static>),
}

/// As many as the search with vector instructions takes.
const MAX_PACKED: usize = 64;
/// What the search with vector instructions tells apart at a glance.
const GLANCE: usize = 4;

impl<T: Copy> Everywhere<T> {
    pub(super) fn new(fragments: Vec<(Vec<u8>, T)>) -> Result<Self, RuleError> {
        let mut all: Vec<(Vec<u8>, Vec<T>)> = Vec::new();
        for (fragment, what) in fragments {
            match all.iter_mut().find(|(known, _)| *known == fragment) {
                Some((_, uses)) => uses.push(what),
                None => all.push((fragment, vec![what])),
            }
        }
        // Short ones first: each has a search of its own.
        all.sort_by_key(|(fragment, _)| fragment.len() >= GLANCE);
        let (fragments, uses): (Vec<_>, Vec<_>) = all.into_iter().unzip();
        let short = fragments.iter().take_while(|fragment| fragment.len() < GLANCE).count();
        let mut searches = Vec::new();
        for (at, fragment) in fragments.iter().enumerate().take(short) {
            let finder = memmem::Finder::new(fragment).into_owned();
            searches.push(Search { finder: Finder::Single(finder), first: at });
        }
        for (at, chunk) in fragments.get(short..).unwrap_or_default().chunks(MAX_PACKED).enumerate()
        {
            searches.push(Search { finder: finder(chunk)?, first: short + at * MAX_PACKED });
        }
        Ok(Self { searches, uses })
    }

    /// Calls `hit` with each place where a fragment stands, also within another one.
    pub(super) fn each(&self, text: &[u8], mut hit: impl FnMut(Range<usize>, T)) {
        for search in &self.searches {
            let mut at = 0;
            while let Some((fragment, range)) = search.finder.next(text, at) {
                at = range.start + 1;
                for &what in self.uses.get(search.first + fragment).into_iter().flatten() {
                    hit(range.clone(), what);
                }
            }
        }
    }
}

fn finder(fragments: &[Vec<u8>]) -> Result<Finder, RuleError> {
    let mut builder =
        packed::Config::new().match_kind(packed::MatchKind::LeftmostLongest).builder();
    builder.extend(fragments);
    if let Some(searcher) = builder.build() {
        return Ok(Finder::Packed(searcher));
    }
    AhoCorasick::builder()
        .match_kind(MatchKind::LeftmostLongest)
        .build(fragments)
        .map(Finder::Automaton)
        .map_err(|_| RuleError::TooMany)
}

impl Finder {
    fn next(&self, text: &[u8], at: usize) -> Option<(usize, Range<usize>)> {
        let rest = Span::from(at..text.len());
        match self {
            Self::Automaton(automaton) => {
                let found = automaton.find(Input::new(text).span(rest))?;
                Some((found.pattern().as_usize(), found.range()))
            }
            Self::Packed(searcher) => {
                let found = searcher.find_in(text, rest)?;
                Some((found.pattern().as_usize(), found.range()))
            }
            Self::Single(finder) => {
                let found = at + finder.find(text.get(at..)?)?;
                Some((0, found..found + finder.needle().len()))
            }
        }
    }
}

/// A part of a keyword that is looked for in its place, and where it begins in it.
///
/// Its letters are of one kind of spelling in whatever spelling the keyword has: it ends where a word does.
pub(super) struct Fragment {
    pub spellings: Vec<Vec<u8>>,
    pub offset: usize,
}

impl Fragment {
    /// Takes the longest word of a keyword in small letters; all of a keyword that has no long one.
    pub(super) fn of(keyword: &[u8]) -> Self {
        let mut best = 0..0;
        let mut start = 0;
        for at in 0..=keyword.len() {
            if keyword.get(at).is_none_or(|byte| !byte.is_ascii_lowercase()) {
                if at - start > best.len() {
                    best = start..at;
                }
                start = at + 1;
            }
        }
        if best.len() < GLANCE {
            best = 0..keyword.len();
        }
        // Six letters are rare enough, and more keywords have the same first six.
        best.end = best.end.min(best.start + 6);
        let word = keyword.get(best.clone()).unwrap_or_default();
        let mut capital = word.to_vec();
        if let Some(first) = capital.first_mut() {
            first.make_ascii_uppercase();
        }
        let mut spellings = vec![word.to_vec(), word.to_ascii_uppercase(), capital];
        spellings.sort_unstable();
        spellings.dedup();
        Self { spellings, offset: best.start }
    }
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
    fn a_fragment_is_within_a_word_of_its_keyword() {
        let cases: [(&str, &str, usize, usize); 4] = [
            ("kind: secret", "secret", 6, 3),
            ("oci_", "oci_", 0, 3),
            (":5432:", ":5432:", 0, 1),
            ("mysqldump", "mysqld", 0, 3),
        ];
        for (keyword, word, offset, spellings) in cases {
            let fragment = Fragment::of(keyword.as_bytes());
            assert!(fragment.spellings.contains(&word.as_bytes().to_vec()), "{keyword}");
            assert_eq!(
                (fragment.offset, fragment.spellings.len()),
                (offset, spellings),
                "{keyword}"
            );
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
