//! By which few bytes a keyword is found in a whole text.
//!
//! The fewer different ones there are, the faster is the search for all of them: keywords share a part where they can,
//! and a part is looked for in those spellings alone in which it can occur.

use std::ops::Range;

use super::assignment;

/// What the search with vector instructions tells apart at a glance. Shorter parts are found too often.
pub(super) const GLANCE: usize = 4;
/// Six letters are rare enough, and more keywords have the same first six.
const MAX_LEN: usize = 6;

/// A part of a keyword that is looked for in its place, and where it begins in it.
pub(super) struct Fragment {
    pub spellings: Vec<Vec<u8>>,
    pub offset: usize,
}

impl Fragment {
    /// Takes a part of a keyword in small letters that stands as it is, or as these spellings of the whole keyword have
    /// it; else in small letters, in capitals, or with a capital first.
    pub(super) fn of(keyword: &[u8], spelled: Option<&[Vec<u8>]>) -> Self {
        let range = part(keyword);
        let of = |whole: &[u8]| whole.get(range.clone()).unwrap_or_default().to_vec();
        let mut spellings: Vec<Vec<u8>> = match spelled {
            Some(ways) => ways.iter().map(|way| of(way)).collect(),
            None => vec![of(keyword), of(keyword).to_ascii_uppercase()],
        };
        if spelled.is_none() && begins_word(keyword, range.start) {
            let mut capital = of(keyword);
            capital.iter_mut().take(1).for_each(|first| first.make_ascii_uppercase());
            spellings.push(capital);
        }
        spellings.sort_unstable();
        spellings.dedup();
        Self { spellings, offset: range.start }
    }
}

fn begins_word(keyword: &[u8], at: usize) -> bool {
    !at.checked_sub(1).and_then(|before| keyword.get(before)).is_some_and(u8::is_ascii_lowercase)
}

/// Returns where in a keyword the part stands: in a word of names of secrets, which is looked for anyway; else in its
/// longest word; all of a keyword that has no long one.
fn part(keyword: &[u8]) -> Range<usize> {
    let shared =
        |word: &&[u8]| memchr::memmem::find(keyword, word).map(|start| start..start + word.len());
    let (long, short): (Vec<&[u8]>, Vec<&[u8]>) =
        assignment::WORDS.iter().partition(|word| word.len() >= GLANCE);
    let word = long.iter().find_map(shared).unwrap_or_else(|| longest_word(keyword));
    if word.len() < GLANCE {
        return short.iter().find_map(shared).unwrap_or(0..keyword.len());
    }
    if word.len() == GLANCE {
        return word;
    }
    // Without its first letter, which has two spellings where the others have one.
    word.start + 1..word.end.min(word.start + 1 + MAX_LEN)
}

fn longest_word(keyword: &[u8]) -> Range<usize> {
    let mut best = 0..0;
    let mut start = 0;
    for at in 0..=keyword.len() {
        if keyword.get(at).is_none_or(|byte| !byte.is_ascii_lowercase()) {
            // Of equal ones the later one is rarer: `account` than `service`.
            if at - start >= best.len() {
                best = start..at;
            }
            start = at + 1;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fragment_is_within_a_word_of_its_keyword() {
        let cases: [(&str, &str, usize, usize); 8] = [
            ("kind: secret", "ecret", 7, 2),
            ("oci_", "oci_", 0, 3),
            (":5432:", ":5432:", 0, 1),
            ("mysqldump", "ysqldu", 1, 2),
            ("maven_password", "pass", 6, 3),
            ("salt", "salt", 0, 3),
            ("a_key", "key", 2, 3),
            ("key", "key", 0, 3),
        ];
        for (keyword, word, offset, spellings) in cases {
            let fragment = Fragment::of(keyword.as_bytes(), None);
            assert!(fragment.spellings.contains(&word.as_bytes().to_vec()), "{keyword}");
            let found = (fragment.offset, fragment.spellings.len());
            assert_eq!(found, (offset, spellings), "{keyword}");
        }
    }

    #[test]
    fn a_fragment_has_the_spellings_of_the_matches() {
        let spelled = [b"AUTH_TOKEN".to_vec(), b"auth_token".to_vec()];
        let fragment = Fragment::of(b"auth_token", Some(&spelled));
        assert_eq!(
            (fragment.spellings, fragment.offset),
            (vec![b"OKEN".to_vec(), b"oken".to_vec()], 6)
        );
        assert_eq!(Fragment::of(b"auth_token", Some(&[])).spellings, Vec::<Vec<u8>>::new());
    }
}
