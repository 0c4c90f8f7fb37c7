//! Runs of token bytes: where in a text a secret with a format of its own can be at all.
//!
//! The search takes 64 bytes at a time as the bits of one number, so that all that is no run costs a few operations
//! for each 64. This is the gate that everything expensive stands behind.

use std::ops::Range;

use super::class::{Kinds, tokens};

/// Shorter runs are nothing to the gate; rules that could match in one take another way.
pub(super) const MIN_RUN: usize = 16;
/// As many bytes as a number has bits.
const BLOCK: usize = 64;

/// The runs of a text, in order.
pub(super) struct Runs<'a> {
    text: &'a [u8],
    /// Where the block stands that is being told of, and where the next one does.
    block: usize,
    next: usize,
    /// The token bytes of the block, without those of a run that has begun before it.
    tokens: u64,
    /// Those that [`MIN_RUN`] token bytes begin with, as far as they are not told yet.
    starts: u64,
    /// Where the token bytes begin that reach up to the next block.
    open: usize,
}

impl<'a> Runs<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self { text, block: 0, next: 0, tokens: 0, starts: 0, open: 0 }
    }

    /// Goes to the next block, of which there is none at the end. Returns the run that ends in it and has begun before.
    fn advance(&mut self) -> Option<Option<Range<usize>>> {
        let rest = self.text.get(self.next..)?;
        let all = match rest.first_chunk() {
            Some(block) => tokens(block),
            None => {
                // What is put behind the end is no token byte: each run ends.
                let mut block = [0; BLOCK];
                block.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
                tokens(&block)
            }
        };
        (self.block, self.next) = (self.next, self.next + BLOCK);
        self.starts = 0;
        let Some(gaps) = u64::MAX.checked_shl(all.trailing_ones()) else { return Some(None) };
        let begun = self.open..self.block + places(all.trailing_ones());
        self.tokens = all & gaps;
        self.starts = [1, 2, 4, 8].iter().fold(self.tokens, |starts, more| starts & starts >> more);
        self.open = self.next - places(self.tokens.leading_ones());
        Some((begun.len() >= MIN_RUN).then_some(begun))
    }
}

impl Iterator for Runs<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        loop {
            while self.starts == 0 {
                if let Some(run) = self.advance()? {
                    return Some(run);
                }
            }
            let start = self.starts.trailing_zeros();
            let end = start + (self.tokens >> start).trailing_ones();
            // One that reaches the next block is told there.
            let later = u64::MAX.checked_shl(end);
            self.starts &= later.unwrap_or(0);
            if later.is_some() {
                return Some(self.block + places(start)..self.block + places(end));
            }
        }
    }
}

/// Returns a count of bits as one of bytes.
fn places(bits: u32) -> usize {
    usize::try_from(bits).unwrap_or(BLOCK)
}

/// What a run looks like.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Look {
    /// Letters as names in programs have them: nothing to look for.
    Name,
    /// May hold a token that a provider's prefix gives away.
    Mixed,
    /// May itself be a secret without a prefix.
    Random,
}

impl Look {
    pub(super) fn of(run: &[u8]) -> Self {
        // Most runs have neither digit nor capital, which takes no look at each byte's neighbours.
        if !speaks(run) {
            return Self::Name;
        }
        let (mut digits, mut turns) = (0_usize, 0_usize);
        let mut part = Part::default();
        for &byte in run {
            if !part.take(byte) {
                if part.is_random() {
                    return Self::Random;
                }
                digits += part.digits;
                turns += part.turns;
                part = Part::default();
            }
        }
        if part.is_random() {
            return Self::Random;
        }
        let (digits, turns) = (digits + part.digits, turns + part.turns);
        if digits >= 5 {
            Self::Random
        } else if digits > 0 || turns * 10 >= run.len() * 3 {
            Self::Mixed
        } else {
            Self::Name
        }
    }
}

/// Tells whether a run has a digit or a capital, by as many bytes at once as every run has.
fn speaks(run: &[u8]) -> bool {
    let any = |bytes: &[u8; MIN_RUN]| {
        let one = |byte: u8| byte.is_ascii_digit() | byte.is_ascii_uppercase();
        bytes.iter().fold(false, |any, &byte| any | one(byte))
    };
    // The last ones overlap those before.
    run.as_chunks().0.iter().chain(run.last_chunk()).any(any)
}

/// A part of a run between punctuation.
#[derive(Default)]
struct Part {
    len: usize,
    digits: usize,
    letters: usize,
    hex: usize,
    /// How often capitals and small letters follow each other.
    turns: usize,
    before: Kinds,
}

impl Part {
    /// Takes a letter or digit; anything else ends the part.
    fn take(&mut self, byte: u8) -> bool {
        let kinds = Kinds::of(byte);
        let letters = kinds.has(Kinds::LETTER) && self.before.has(Kinds::LETTER);
        self.len += 1;
        self.digits += usize::from(kinds.has(Kinds::DIGIT));
        self.letters += usize::from(kinds.has(Kinds::LETTER));
        self.hex += usize::from(kinds.has(Kinds::HEX));
        self.turns += usize::from(letters && kinds.is_upper() != self.before.is_upper());
        self.before = kinds;
        kinds.has(Kinds::ALPHANUMERIC)
    }

    fn is_random(&self) -> bool {
        // A hexadecimal part may by chance have no letter.
        let mixed = self.digits > 0 && (self.letters > 0 || self.hex >= 12);
        // Capitals stand about every sixth letter in names, and every second in random letters.
        self.len >= 8 && mixed || self.len >= 16 && self.turns * 10 >= self.len * 3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_run_of_sixteen_token_bytes_is_found_whole() {
        let text = b"short words here 0123456789abcdef and_another_run_at_the_end_x";
        let runs: Vec<_> = Runs::new(text).map(|run| &text[run]).collect();
        assert_eq!(runs, [&b"0123456789abcdef"[..], b"and_another_run_at_the_end_x"]);
        assert_eq!(Runs::new(b"0123456789abcde ").count(), 0);
        assert_eq!(Runs::new(b"").count(), 0);
    }

    #[test]
    fn skipping_finds_what_looking_at_every_byte_finds() {
        // A fixed generator: the same texts in every run.
        let mut state = 7_u32;
        for _ in 0..500 {
            let text: Vec<u8> = (0..300)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    if state >> 28 == 0 { b' ' } else { b'a' }
                })
                .collect();
            let slow: Vec<_> = text
                .split(|&byte| byte == b' ')
                .filter(|run| run.len() >= MIN_RUN)
                .map(<[u8]>::len)
                .collect();
            let fast: Vec<_> = Runs::new(&text).map(|run| run.len()).collect();
            assert_eq!(fast, slow);
        }
    }

    #[test]
    fn names_are_told_from_what_may_be_random() {
        let cases = [
            ("get_element_by_identifier", Look::Name),
            ("GetElementByIdentifierAttribute", Look::Name),
            ("src/lib/version2/module.rs", Look::Random),
            ("src/lib/v2/module/file.rs", Look::Mixed),
            ("hf_aBcDeFgHiJkLmNoPqRsTuVwXyZaBcDeFgH", Look::Random),
            ("9f86d081884c7d659a2feaa0c55ad015", Look::Random),
            ("123e4567-e89b-12d3-a456-426614174000", Look::Random),
        ];
        for (run, look) in cases {
            assert_eq!(Look::of(run.as_bytes()), look, "{run}");
        }
    }
}
