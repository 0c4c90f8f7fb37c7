//! 64 bytes of a text at once: of which kind each of them is, as the bits of one number.
//!
//! With vector instructions that every processor of the kind has, so that a question about 64 bytes costs as much
//! as one about a few.

use std::ops::Range;

use wide::u8x16;

/// As many bytes as a number has bits.
pub(super) const BLOCK: usize = 64;

/// 64 bytes, or fewer at the end of a text. The lowest bit of each answer is about the first one.
#[derive(Clone, Copy)]
struct Block([u8x16; 4]);

impl Block {
    /// Takes the bytes from `at` on.
    fn at(text: &[u8], at: usize) -> Self {
        let rest = text.get(at..).unwrap_or_default();
        let parts = |block: &[u8; BLOCK]| {
            let (parts, _) = block.as_chunks();
            std::array::from_fn(|part| parts.get(part).map_or(u8x16::ZERO, |&bytes| bytes.into()))
        };
        match rest.first_chunk() {
            Some(block) => Self(parts(block)),
            None => {
                // A zero is of no kind.
                let mut block = [0; BLOCK];
                block.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
                Self(parts(&block))
            }
        }
    }

    fn which(self, are: impl Fn(u8x16) -> u8x16) -> u64 {
        let bits = |bytes: u8x16| u64::from(are(bytes).to_bitmask());
        self.0.into_iter().rev().fold(0, |all, bytes| all << 16 | bits(bytes))
    }
}

/// Tells which bytes are one of `first..=last`.
fn within(bytes: u8x16, first: u8, last: u8) -> u8x16 {
    // Those below the first one wrap around.
    let above = bytes - u8x16::splat(first);
    above.min(u8x16::splat(last - first)).simd_eq(above)
}

fn is(bytes: u8x16, byte: u8) -> u8x16 {
    bytes.simd_eq(u8x16::splat(byte))
}

/// Makes capitals small, and changes other bytes in a way that makes no letter of them.
fn folded(bytes: u8x16) -> u8x16 {
    bytes | u8x16::splat(0x20)
}

fn letters(bytes: u8x16) -> u8x16 {
    within(folded(bytes), b'a', b'z')
}

/// Tells which of the 64 bytes from `at` on are [token bytes](super::class).
pub(super) fn tokens(text: &[u8], at: usize) -> u64 {
    Block::at(text, at).which(|bytes| {
        // Digits, and the three that stand before them.
        let low = within(bytes, b'-', b'9');
        let marks = is(bytes, b'+') | is(bytes, b'=') | is(bytes, b'_') | is(bytes, b'%');
        letters(bytes) | low | marks | is(bytes, b'~')
    })
}

/// The kinds of up to 64 bytes of a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kinds {
    /// How many bytes they are.
    pub len: u32,
    pub letters: u64,
    pub capitals: u64,
    pub digits: u64,
    /// Digits of hexadecimal numbers.
    pub hex: u64,
    /// What names in programs are made of.
    pub words: u64,
    pub percents: u64,
}

impl Kinds {
    fn of(text: &[u8], run: Range<usize>) -> Self {
        let block = Block::at(text, run.start);
        let len = u32::try_from(run.len()).map_or(u64::BITS, |len| len.min(u64::BITS));
        let inside = u64::MAX.checked_shl(len).map_or(u64::MAX, |outside| !outside);
        let letters = inside & block.which(letters);
        let digits = inside & block.which(|bytes| within(bytes, b'0', b'9'));
        Self {
            len,
            letters,
            capitals: inside & block.which(|bytes| within(bytes, b'A', b'Z')),
            digits,
            hex: digits | inside & block.which(|bytes| within(folded(bytes), b'a', b'f')),
            words: letters | digits | inside & block.which(|bytes| is(bytes, b'_')),
            percents: inside & block.which(|bytes| is(bytes, b'%')),
        }
    }
}

/// Returns the kinds of all bytes of a run, and where each block of them begins.
pub(super) fn kinds(text: &[u8], run: &Range<usize>) -> impl Iterator<Item = (usize, Kinds)> {
    let end = run.end;
    run.clone().step_by(BLOCK).map(move |at| (at, Kinds::of(text, at..end)))
}

/// Returns the places of the bits, in order.
pub(super) fn places(bits: u64) -> impl Iterator<Item = usize> {
    let mut rest = bits;
    std::iter::from_fn(move || {
        let place = (rest != 0).then(|| bytes(rest.trailing_zeros()))?;
        rest &= rest - 1;
        Some(place)
    })
}

/// Returns a count of bits as one of bytes.
pub(super) fn bytes(bits: u32) -> usize {
    usize::try_from(bits).unwrap_or(BLOCK)
}

#[cfg(test)]
mod tests {
    use super::super::class::{is_digit, is_hex, is_letter, is_token, is_upper, is_word};
    use super::*;

    fn bits(text: &[u8], is: impl Fn(u8) -> bool) -> u64 {
        text.iter().rev().fold(0, |bits, &byte| bits << 1 | u64::from(is(byte)))
    }

    #[test]
    fn each_byte_is_of_the_same_kinds_in_a_block_as_alone() {
        let all: Vec<u8> = (0..=u8::MAX).collect();
        for (at, text) in (0..).step_by(BLOCK).zip(all.chunks(BLOCK)) {
            assert_eq!(tokens(&all, at), bits(text, is_token), "from {at}");
            let kinds = Kinds::of(&all, at..all.len());
            assert_eq!(kinds.letters, bits(text, is_letter), "from {at}");
            assert_eq!(kinds.capitals, bits(text, is_upper), "from {at}");
            assert_eq!(kinds.digits, bits(text, is_digit), "from {at}");
            assert_eq!(kinds.hex, bits(text, is_hex), "from {at}");
            assert_eq!(kinds.words, bits(text, is_word), "from {at}");
            assert_eq!(kinds.percents, bits(text, |byte| byte == b'%'), "from {at}");
        }
    }

    #[test]
    fn what_is_outside_of_a_run_or_of_the_text_is_of_no_kind() {
        let text = [b'a'; 70];
        assert_eq!(tokens(&text, BLOCK), 0b11_1111);
        assert_eq!(tokens(&text, 70), 0);
        let of_run: Vec<_> = kinds(&text, &(2..69)).map(|(at, kinds)| (at, kinds.len)).collect();
        assert_eq!(of_run, [(2, 64), (66, 3)]);
        assert_eq!(Kinds::of(&text, 66..69).letters, 0b111);
    }

    #[test]
    fn bits_are_told_from_the_lowest_on() {
        assert_eq!(places(0).count(), 0);
        assert_eq!(places(1 << 63 | 0b1001).collect::<Vec<_>>(), [0, 3, 63]);
    }
}
