//! A JSON object with the members `password` and `username` or `user`, at its top.
//!
//! serde_json says where they stand. Strings are decoded and encoded here, since a parser's own
//! buffers are neither locked nor wiped.

use std::ops::Range;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::system::{SecretBuffer, SecretBytes};

use super::{Encoding, Layout, ShapeError, push};

/// The members that matter, as they are written. A member that stands there twice is an error.
#[derive(Deserialize)]
struct Members<'a> {
    #[serde(borrow)]
    password: Option<&'a RawValue>,
    #[serde(borrow)]
    user: Option<&'a RawValue>,
    #[serde(borrow)]
    username: Option<&'a RawValue>,
}

/// Tells whether a value is meant to be an object. A password may well begin with a brace.
pub(super) fn is_object(value: &[u8]) -> bool {
    let Some(inside) = value.trim_ascii().strip_prefix(b"{") else { return false };
    let begins = inside.trim_ascii_start().first().is_some_and(|byte| b"\"}".contains(byte));
    begins && inside.ends_with(b"}")
}

pub(super) fn layout(value: &[u8]) -> Result<Layout, ShapeError> {
    let text = std::str::from_utf8(value).map_err(|_| ShapeError::Malformed)?;
    // The error is dropped: it might quote the value.
    let members: Members<'_> = serde_json::from_str(text).map_err(|_| ShapeError::Malformed)?;
    let place = |member: Option<&RawValue>| string_in(text, member?.get());
    Ok(Layout {
        encoding: Encoding::Json,
        user: place(members.username).or_else(|| place(members.user)),
        password: place(members.password).ok_or(ShapeError::NoPassword)?,
    })
}

/// Returns where the inside of a string stands in the text that it was borrowed from.
fn string_in(text: &str, raw: &str) -> Option<Range<usize>> {
    let inside = raw.strip_prefix('"')?.strip_suffix('"')?;
    let start = (inside.as_ptr() as usize).checked_sub(text.as_ptr() as usize)?;
    Some(start..start + inside.len())
}

pub(super) fn decode(encoded: &[u8]) -> Result<SecretBytes, ShapeError> {
    let mut rest = encoded;
    let mut plain = SecretBuffer::new();
    while let Some(escape) = rest.iter().position(|&byte| byte == b'\\') {
        let (before, escaped) = rest.split_at(escape);
        push(&mut plain, before)?;
        let (letter, after) = match escaped {
            [b'\\', letter, after @ ..] => (*letter, after),
            _ => return Err(ShapeError::Escape),
        };
        rest = after;
        let byte = match letter {
            b'"' | b'\\' | b'/' => letter,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let (character, after) = unicode(after)?;
                rest = after;
                push(&mut plain, character.encode_utf8(&mut [0; 4]).as_bytes())?;
                continue;
            }
            _ => return Err(ShapeError::Escape),
        };
        push(&mut plain, &[byte])?;
    }
    push(&mut plain, rest)?;
    Ok(plain.into_bytes())
}

/// Reads what follows `\u`: four digits, or a pair of surrogates.
fn unicode(rest: &[u8]) -> Result<(char, &[u8]), ShapeError> {
    let (first, rest) = four_digits(rest)?;
    if let Some(character) = char::from_u32(first) {
        return Ok((character, rest));
    }
    let (second, rest) = four_digits(rest.strip_prefix(b"\\u").ok_or(ShapeError::Escape)?)?;
    let is_pair = (0xd800..0xdc00).contains(&first) && (0xdc00..0xe000).contains(&second);
    let code = is_pair.then(|| 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00));
    Ok((code.and_then(char::from_u32).ok_or(ShapeError::Escape)?, rest))
}

fn four_digits(bytes: &[u8]) -> Result<(u32, &[u8]), ShapeError> {
    let (digits, rest) = bytes.split_at_checked(4).ok_or(ShapeError::Escape)?;
    let value =
        digits.iter().try_fold(0, |value, &byte| Some(value << 4 | char::from(byte).to_digit(16)?));
    Ok((value.ok_or(ShapeError::Escape)?, rest))
}

pub(super) fn encode(plain: &[u8], into: &mut SecretBuffer) -> Result<(), ShapeError> {
    std::str::from_utf8(plain).map_err(|_| ShapeError::NotText)?;
    for &byte in plain {
        match byte {
            b'"' | b'\\' => push(into, &[b'\\', byte])?,
            0..0x20 => push(into, format!("\\u{byte:04x}").as_bytes())?,
            _ => push(into, &[byte])?,
        }
    }
    Ok(())
}
