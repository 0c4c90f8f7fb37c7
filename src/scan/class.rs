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

pub(super) fn is_token(byte: u8) -> bool {
    has(byte, TOKEN)
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
