//! The userinfo of a URL: `SCHEME://USER:PASSWORD@...`, each part percent-encoded.
//!
//! It ends at the last `@` before the first `/`, `?` or `#`: hosts have no `@`, and a password may be
//! written with one. The scheme may have colons in it, as in `jdbc:postgresql://`.

use crate::system::{SecretBuffer, SecretBytes};

use super::{Encoding, Layout, ShapeError, push};

const HEX: &[u8; 16] = b"0123456789ABCDEF";

pub(super) fn is_url(value: &[u8]) -> bool {
    authority_start(value).is_some()
}

pub(super) fn layout(value: &[u8]) -> Result<Layout, ShapeError> {
    let start = authority_start(value).ok_or(ShapeError::NoPassword)?;
    let rest = value.get(start..).unwrap_or_default();
    let authority = rest.split(|byte| b"/?#".contains(byte)).next().unwrap_or_default();
    let end = authority.iter().rposition(|&byte| byte == b'@').ok_or(ShapeError::NoPassword)?;
    let userinfo = authority.get(..end).unwrap_or_default();
    let colon = userinfo.iter().position(|&byte| byte == b':').ok_or(ShapeError::NoPassword)?;
    Ok(Layout {
        encoding: Encoding::Url,
        user: Some(start..start + colon),
        password: start + colon + 1..start + end,
    })
}

fn authority_start(value: &[u8]) -> Option<usize> {
    let scheme = value.windows(3).position(|window| window == b"://")?;
    let (first, rest) = value.get(..scheme)?.split_first()?;
    let in_scheme = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.:".contains(byte);
    (first.is_ascii_alphabetic() && rest.iter().all(in_scheme)).then_some(scheme + 3)
}

pub(super) fn decode(encoded: &[u8]) -> Result<SecretBytes, ShapeError> {
    SecretBytes::with_len(encoded.len(), |room| {
        let mut bytes = encoded.iter();
        let mut len = 0;
        for place in room.iter_mut() {
            let Some(&byte) = bytes.next() else { break };
            *place = match byte {
                b'%' => digit(bytes.next())? << 4 | digit(bytes.next())?,
                _ => byte,
            };
            len += 1;
        }
        Ok(len)
    })
}

/// Encodes all but the unreserved characters of RFC 3986, so that no reader can take one for a separator.
pub(super) fn encode(plain: &[u8], into: &mut SecretBuffer) -> Result<(), ShapeError> {
    for &byte in plain {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            push(into, &[byte])?;
        } else {
            let hex = |digit: u8| HEX.get(usize::from(digit)).copied().unwrap_or_default();
            push(into, &[b'%', hex(byte >> 4), hex(byte & 15)])?;
        }
    }
    Ok(())
}

fn digit(byte: Option<&u8>) -> Result<u8, ShapeError> {
    let value = byte.and_then(|&byte| char::from(byte).to_digit(16));
    value.and_then(|value| u8::try_from(value).ok()).ok_or(ShapeError::Escape)
}
