//! Runs of token bytes: where in a text a secret with a format of its own can be at all.
//!
//! The search takes 64 bytes at a time as the bits of one number, so that all that is no run costs a few operations
//! for each 64. This is the gate that everything expensive stands behind.

use std::ops::Range;

use super::block::{BLOCK, Kinds, bytes, kinds, tokens};

/// Shorter runs are nothing to the gate; rules that could match in one take another way.
pub(super) const MIN_RUN: usize = 16;

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
        // Behind the end no byte is a token byte: each run ends.
        let all = (self.next <= self.text.len()).then(|| tokens(self.text, self.next))?;
        (self.block, self.next) = (self.next, self.next + BLOCK);
        self.starts = 0;
        let Some(gaps) = u64::MAX.checked_shl(all.trailing_ones()) else { return Some(None) };
        let begun = self.open..self.block + bytes(all.trailing_ones());
        self.tokens = all & gaps;
        self.starts = [1, 2, 4, 8].iter().fold(self.tokens, |starts, more| starts & starts >> more);
        self.open = self.next - bytes(self.tokens.leading_ones());
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
                return Some(self.block + bytes(start)..self.block + bytes(end));
            }
        }
    }
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
        let mut appearance = Appearance::new(run.len());
        kinds(run, &(0..run.len())).for_each(|(_, kinds)| appearance.take(&kinds));
        appearance.look()
    }
}

/// What a run looks like as far as its bytes have been taken.
#[derive(Debug, Default)]
pub(super) struct Appearance {
    /// Of the whole run.
    len: usize,
    digits: u32,
    /// How often capitals and small letters follow each other.
    turns: u32,
    /// A part between punctuation looks random.
    random: bool,
    part: Part,
    /// The last byte is a letter, and a capital, as the lowest bit.
    letter: u64,
    capital: u64,
}

/// With fewer turns no part looks random by them.
const MANY_TURNS: u32 = 5;

impl Appearance {
    /// Begins with a run of that length.
    pub(super) fn new(len: usize) -> Self {
        Self { len, ..Self::default() }
    }

    /// Takes the next bytes of the run.
    pub(super) fn take(&mut self, kinds: &Kinds) {
        let letters_before = kinds.letters << 1 | self.letter;
        let capitals_before = kinds.capitals << 1 | self.capital;
        let turns = kinds.letters & letters_before & (kinds.capitals ^ capitals_before);
        self.digits += kinds.digits.count_ones();
        self.turns += turns.count_ones();
        (self.letter, self.capital) = (kinds.letters >> 63, kinds.capitals >> 63);
        // Most runs are names.
        let whole = self.len == bytes(kinds.len);
        if !(whole && self.digits == 0 && self.turns < MANY_TURNS) {
            self.take_parts(kinds, turns);
        }
    }

    fn take_parts(&mut self, kinds: &Kinds, turns: u64) {
        let mut rest = kinds.letters | kinds.digits;
        if rest & 1 == 0 {
            self.end_part();
        }
        while rest != 0 {
            let start = rest.trailing_zeros();
            let len = (rest >> start).trailing_ones();
            let part = u64::MAX >> (u64::BITS - len) << start;
            let count = |kind: u64| (kind & part).count_ones();
            self.part.len += len;
            self.part.digits += count(kinds.digits);
            self.part.letters += count(kinds.letters);
            self.part.hex += count(kinds.hex);
            self.part.turns += count(turns);
            rest &= !part;
            if start + len < kinds.len {
                self.end_part();
            }
        }
    }

    /// Ends a part by the punctuation behind it, which counts as one of its bytes.
    fn end_part(&mut self) {
        self.part.len += 1;
        self.random |= self.part.is_random();
        self.part = Part::default();
    }

    /// Returns what the run looks like of which all bytes have been taken.
    pub(super) fn look(&self) -> Look {
        if self.random || self.part.is_random() || self.digits >= 5 {
            Look::Random
        } else if self.digits > 0 || bytes(self.turns) * 10 >= self.len * 3 {
            Look::Mixed
        } else {
            Look::Name
        }
    }
}

/// A part of a run between punctuation.
#[derive(Debug, Default)]
struct Part {
    len: u32,
    digits: u32,
    letters: u32,
    hex: u32,
    turns: u32,
}

impl Part {
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

    /// Looks at one byte after the other.
    fn look_slowly(run: &[u8]) -> Look {
        let turns = |part: &[u8]| {
            let turn =
                |pair: &&[u8; 2]| pair[0].is_ascii_uppercase() != pair[1].is_ascii_uppercase();
            let letters = |pair: &&[u8; 2]| pair.iter().all(u8::is_ascii_alphabetic);
            part.array_windows().filter(letters).filter(turn).count()
        };
        let count = |part: &[u8], is: fn(&u8) -> bool| part.iter().filter(|byte| is(byte)).count();
        let is_random = |part: &[u8]| {
            let digits = count(part, u8::is_ascii_digit) > 0;
            let letters = count(part, u8::is_ascii_alphabetic) > 0;
            let mixed = digits && (letters || count(part, u8::is_ascii_hexdigit) >= 12);
            part.len() >= 8 && mixed || part.len() >= 16 && turns(part) * 10 >= part.len() * 3
        };
        let digits = count(run, u8::is_ascii_digit);
        if digits >= 5 || run.split_inclusive(|byte| !byte.is_ascii_alphanumeric()).any(is_random) {
            Look::Random
        } else if digits > 0 || turns(run) * 10 >= run.len() * 3 {
            Look::Mixed
        } else {
            Look::Name
        }
    }

    #[test]
    fn a_run_looks_as_its_bytes_do_one_by_one() {
        let mut state = 7_u32;
        let mut next = |below: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            usize::try_from(state >> 16).unwrap() % below
        };
        let mut seen = [0; 3];
        for alphabet in
            [&b"abcdefghABCDEFGH"[..], b"abcdefghijklmnop_Q7", b"abcdef01_-", b"abAB_/.9+"]
        {
            for _ in 0..5000 {
                let len = MIN_RUN + next(180);
                let plain = next(200);
                let run: Vec<u8> = (0..len)
                    .map(|_| if next(200) < plain { b'x' } else { alphabet[next(alphabet.len())] })
                    .collect();
                let look = look_slowly(&run);
                assert_eq!(Look::of(&run), look, "{}", String::from_utf8_lossy(&run));
                seen[look as usize] += 1;
            }
        }
        assert!(seen.iter().all(|count| *count > 500), "{seen:?}");
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
