//! Kinds of bytes, by one table look-up each.
//!
//! A *token byte* is one that an encoded or random secret may be made of. A secret with a format of its own
//! nearly always has [`MIN_RUN`](super::runs::MIN_RUN) of them in a row, and most text has not.

const TOKEN: u8 = 1;
const WORD: u8 = 2;
const DIGIT: u8 = 4;
const LOWER: u8 = 8;
const UPPER: u8 = 16;
const HEX: u8 = 32;
const BASE64: u8 = 64;
const PRINTABLE: u8 = 128;

static KINDS: [u8; 256] = kinds();

#[expect(clippy::indexing_slicing, reason = "the loop's bound is the array's length")]
const fn kinds() -> [u8; 256] {
    let mut kinds = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "the loop ends at 255")]
        let c = byte as u8;
        let mut kind = 0;
        if c.is_ascii_alphanumeric()
            || matches!(c, b'+' | b'/' | b'=' | b'_' | b'-' | b'.' | b'%' | b'~')
        {
            kind |= TOKEN;
        }
        if c.is_ascii_alphanumeric() || c == b'_' {
            kind |= WORD;
        }
        if c.is_ascii_digit() {
            kind |= DIGIT;
        }
        if c.is_ascii_lowercase() {
            kind |= LOWER;
        }
        if c.is_ascii_uppercase() {
            kind |= UPPER;
        }
        if c.is_ascii_hexdigit() {
            kind |= HEX;
        }
        if c.is_ascii_alphanumeric() || matches!(c, b'+' | b'/' | b'_' | b'-') {
            kind |= BASE64;
        }
        if c.is_ascii_graphic() || matches!(c, b' ' | b'\n' | b'\r' | b'\t') {
            kind |= PRINTABLE;
        }
        kinds[byte] = kind;
        byte += 1;
    }
    kinds
}

fn has(byte: u8, kind: u8) -> bool {
    KINDS.get(usize::from(byte)).is_some_and(|kinds| kinds & kind != 0)
}

/// All that is known of a byte, by one look-up.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Kinds(u8);

impl Kinds {
    pub(super) const ALPHANUMERIC: u8 = DIGIT | LOWER | UPPER;
    pub(super) const DIGIT: u8 = DIGIT;
    pub(super) const HEX: u8 = HEX;
    pub(super) const LETTER: u8 = LOWER | UPPER;

    pub(super) fn of(byte: u8) -> Self {
        Self(KINDS.get(usize::from(byte)).copied().unwrap_or(0))
    }

    /// Tells whether the byte is of one of these kinds.
    pub(super) fn has(self, kinds: u8) -> bool {
        self.0 & kinds != 0
    }

    pub(super) fn is_upper(self) -> bool {
        self.has(UPPER)
    }
}

pub(super) fn is_token(byte: u8) -> bool {
    has(byte, TOKEN)
}

/// Tells which of the bytes are token bytes, the first one by the lowest bit.
///
/// Without a table and without branches, so that the compiler makes vector instructions of it.
pub(super) fn tokens(bytes: &[u8; 64]) -> u64 {
    let mut found = [0_u8; 64];
    for (found, &byte) in found.iter_mut().zip(bytes) {
        let letter = (byte | 0x20).wrapping_sub(b'a') < 26;
        // Digits, and the three that stand before them.
        let low = byte.wrapping_sub(b'-') <= b'9' - b'-';
        let mark =
            (byte == b'+') | (byte == b'=') | (byte == b'_') | (byte == b'%') | (byte == b'~');
        *found = u8::from(letter | low | mark);
    }
    // Brings the lowest bits of eight bytes together in the highest byte of the product.
    found.as_chunks().0.iter().rev().fold(0, |bits, eight| {
        bits << 8 | u64::from_le_bytes(*eight).wrapping_mul(0x0102_0408_1020_4080) >> 56
    })
}

/// Tells whether a byte is one of `A-Z a-z 0-9 _`: what a name in a program is made of.
pub(super) fn is_word(byte: u8) -> bool {
    has(byte, WORD)
}

pub(super) fn is_digit(byte: u8) -> bool {
    has(byte, DIGIT)
}

pub(super) fn is_lower(byte: u8) -> bool {
    has(byte, LOWER)
}

pub(super) fn is_upper(byte: u8) -> bool {
    has(byte, UPPER)
}

pub(super) fn is_letter(byte: u8) -> bool {
    has(byte, LOWER | UPPER)
}

pub(super) fn is_hex(byte: u8) -> bool {
    has(byte, HEX)
}

/// Tells whether a byte is a digit of base64 in either alphabet.
pub(super) fn is_base64(byte: u8) -> bool {
    has(byte, BASE64)
}

/// Tells whether a byte is visible ASCII, a blank or a line end.
pub(super) fn is_printable(byte: u8) -> bool {
    has(byte, PRINTABLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_bytes_are_known_at_once_as_one_by_one() {
        for first in [0, 64, 128, 192_u8] {
            let bytes = std::array::from_fn(|at| first + u8::try_from(at).unwrap());
            let bits =
                bytes.iter().rev().fold(0, |bits, &byte| bits << 1 | u64::from(is_token(byte)));
            assert_eq!(tokens(&bytes), bits, "from {first}");
        }
    }
}
