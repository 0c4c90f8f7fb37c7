//! The searches for keywords, each for the rules of one [`Route`](super::shape::Route).

use std::ops::Range;

use aho_corasick::packed::{self, Searcher};
use aho_corasick::{AhoCorasick, Input, MatchKind, Span};
use memchr::memmem;

use super::class::is_word;
use super::fragment::GLANCE;
use super::rule::RuleError;

/// A rule, by its index.
type Index = u16;

/// Keywords in any case, by their first bytes.
#[derive(Debug)]
pub(super) struct Keywords {
    /// For each hash of three bytes, which last three bits the two bytes behind them have in some keyword.
    behind: Box<[Behind; 1 << TABLE_BITS]>,
    /// For each hash of three bytes, one more than the index of its bucket.
    table: Box<[u16; 1 << TABLE_BITS]>,
    buckets: Vec<Vec<(Box<[u8]>, Index)>>,
}

/// Most places in a text end at the first table, which is small enough to stay in the processor's first cache.
const TABLE_BITS: u32 = 13;

impl Keywords {
    /// Shorter ones are found by each byte that may stand behind them, and so more slowly.
    pub(super) const GLANCE: usize = 3;

    /// Keywords must be of two bytes or more.
    pub(super) fn new(words: Vec<(Box<[u8]>, Index)>) -> Self {
        let mut keywords = Self {
            behind: Box::new([Behind::default(); 1 << TABLE_BITS]),
            table: Box::new([0; 1 << TABLE_BITS]),
            buckets: Vec::new(),
        };
        for (word, rule) in words {
            match *word {
                [one, two] => {
                    (0..=u8::MAX).for_each(|third| keywords.put([one, two, third], &word, rule));
                }
                [one, two, three, ..] => keywords.put([one, two, three], &word, rule),
                [] | [_] => {}
            }
        }
        keywords
    }

    fn put(&mut self, [one, two, three]: [u8; 3], word: &[u8], rule: Index) {
        let hash = hash([one, two, three, 0, 0]);
        let (Some(behind), Some(slot)) = (self.behind.get_mut(hash), self.table.get_mut(hash))
        else {
            return;
        };
        behind.fourth |= word.get(3).map_or(u8::MAX, last_bits);
        behind.fifth |= word.get(4).map_or(u8::MAX, last_bits);
        if *slot == 0 {
            self.buckets.push(Vec::new());
            *slot = u16::try_from(self.buckets.len()).unwrap_or(u16::MAX);
        }
        if let Some(bucket) = self.buckets.get_mut(usize::from(*slot) - 1) {
            let entry = (word.into(), rule);
            if !bucket.contains(&entry) {
                bucket.push(entry);
            }
        }
    }

    /// Calls `hit` with the length of each keyword that stands at the beginning of `text`, and its rule.
    pub(super) fn at(&self, text: &[u8], mut hit: impl FnMut(usize, usize)) {
        let five = match text.first_chunk() {
            Some(five) => *five,
            None => {
                let mut five = [0; 5];
                five.iter_mut().zip(text).for_each(|(to, from)| *to = *from);
                five
            }
        };
        if !self.may_begin(five) {
            return;
        }
        let slot = self.table.get(hash(five)).copied().unwrap_or(0);
        let bucket = usize::from(slot).checked_sub(1).and_then(|at| self.buckets.get(at));
        for (word, rule) in bucket.into_iter().flatten() {
            if text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word)) {
                hit(word.len(), usize::from(*rule));
            }
        }
    }

    /// Calls `hit` with the place in `text` and the rule of each keyword that begins at one of these places.
    pub(super) fn each(
        &self,
        text: &[u8],
        places: Range<usize>,
        mut hit: impl FnMut(Range<usize>, usize),
    ) {
        let mut begun = |at: usize| {
            let rest = text.get(at..).unwrap_or_default();
            self.at(rest, |len, rule| hit(at..at + len, rule));
        };
        let end = (places.end + 4).min(text.len());
        let window = text.get(places.start..end).unwrap_or_default();
        for (at, five) in window.array_windows().enumerate() {
            if self.may_begin(*five) {
                begun(places.start + at);
            }
        }
        // At the end of the text there are no five bytes.
        (text.len().saturating_sub(4).max(places.start)..places.end).for_each(begun);
    }

    /// Tells whether a keyword may begin with these bytes; of a shorter text the rest is zero.
    fn may_begin(&self, five: [u8; 5]) -> bool {
        let behind = self.behind.get(hash(five)).copied().unwrap_or_default();
        let [.., fourth, fifth] = five;
        behind.fourth & last_bits(&fourth) != 0 && behind.fifth & last_bits(&fifth) != 0
    }
}

/// Sets of last bits, see [`last_bits`].
#[derive(Clone, Copy, Debug, Default)]
struct Behind {
    fourth: u8,
    fifth: u8,
}

/// Returns the hash of the first three bytes in any case.
fn hash([one, two, three, ..]: [u8; 5]) -> usize {
    let three = u32::from_le_bytes([0, one | 0x20, two | 0x20, three | 0x20]);
    usize::try_from(three.wrapping_mul(0x9e37_79b1) >> (32 - TABLE_BITS)).unwrap_or(0)
}

/// Returns one bit of eight for the last three bits of a byte, which are the same in either case.
fn last_bits(byte: &u8) -> u8 {
    1 << (byte & 7)
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
    /// By vector instructions, which tell apart the first four bytes at a glance, or as many as all of them have.
    Packed(Searcher),
    Single(memmem::Finder<'static>),
}

/// As many as the search with vector instructions takes.
const MAX_PACKED: usize = 64;

impl<T: Copy> Everywhere<T> {
    pub(super) fn new(fragments: Vec<(Vec<u8>, T)>) -> Result<Self, RuleError> {
        let mut all: Vec<(Vec<u8>, Vec<T>)> = Vec::new();
        for (fragment, what) in fragments {
            match all.iter_mut().find(|(known, _)| *known == fragment) {
                Some((_, uses)) => uses.push(what),
                None => all.push((fragment, vec![what])),
            }
        }
        // One search for those of three bytes, which is not as sharp, and one for the longer ones. Each shorter one has
        // its own.
        let class = |fragment: &[u8]| fragment.len().clamp(2, GLANCE);
        all.sort_by_key(|(fragment, _)| class(fragment));
        let (fragments, uses): (Vec<_>, Vec<_>) = all.into_iter().unzip();
        let mut searches = Vec::new();
        let mut first = 0;
        for group in fragments.chunk_by(|one, other| class(one) == class(other)) {
            let is_short = group.first().is_some_and(|fragment| fragment.len() < 3);
            let size = if is_short { 1 } else { MAX_PACKED };
            for chunk in group.chunks(size) {
                searches.push(Search { finder: finder(chunk)?, first });
                first += chunk.len();
            }
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
    if let [fragment] = fragments {
        return Ok(Finder::Single(memmem::Finder::new(fragment).into_owned()));
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_found_in_any_case_and_told_from_others_of_its_bucket() {
        let words = [("ghp_", 1), ("gho_", 2), ("ghp", 3)];
        let prefixes = Keywords::new(
            words.iter().map(|(word, rule)| (word.as_bytes().into(), *rule)).collect(),
        );
        let mut found = Vec::new();
        prefixes.at(b"GHP_x", |len, rule| found.push((len, rule)));
        found.sort_unstable();
        assert_eq!(found, [(3, 3), (4, 1)]);
    }

    #[test]
    fn keywords_of_any_length_are_found_wherever_they_stand() {
        let words = ["sk", "key", "auth", "token", "tokens"];
        let keywords =
            Keywords::new(words.iter().map(|word| (word.as_bytes().into(), 0)).collect());
        for word in words {
            for before in ["", "x", "toke", "se"] {
                for after in ["", "s", "_KEY="] {
                    let text = format!("{before}{}{after}", word.to_ascii_uppercase());
                    let mut found = Vec::new();
                    keywords.each(text.as_bytes(), 0..text.len(), |range, _| found.push(range));
                    let expected: Vec<_> = (0..text.len())
                        .flat_map(|at| words.map(|word| at..at + word.len()))
                        .filter(|place| {
                            let part = text.get(place.clone()).map(str::to_ascii_lowercase);
                            part.is_some_and(|part| words.contains(&part.as_str()))
                        })
                        .collect();
                    assert_eq!(found, expected, "{text}");
                }
            }
        }
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
