//! Credentials of HTTP: `Authorization: Basic ...`, `Bearer ...`, and Docker's `"auth": "..."`.

use super::judge::usual;
use super::parse::{Assigned, Form};
use super::{Found, Id, Opinion};
use crate::scan::candidate::Reason;
use crate::scan::class::{is_printable, is_token};
use crate::scan::confidence::Strength;
use crate::scan::decode::base64;
use crate::scan::entropy::entropy;
use crate::scan::value::{is_constant_name, is_identifier, is_random};

/// Schemes in front of a token.
const TOKENS: [&[u8]; 7] = [b"bearer", b"token", b"apikey", b"api-key", b"key", b"bot", b"splunk"];

pub(super) fn judge(text: &[u8], assigned: &Assigned) -> Option<Found> {
    // A bare value ends at the blank behind the scheme.
    let mut range = assigned.value.clone();
    if assigned.form != Form::Quoted {
        let line = text.get(range.start..)?;
        let ends = |byte: &u8| matches!(byte, b'\n' | b'\r' | b'"' | b'\'' | b'`' | b'\\' | b'<');
        range.end =
            range.start + line.iter().take(4096).position(ends).unwrap_or(line.len().min(4096));
    }
    let whole = text.get(range.clone())?;
    let blank = whole.iter().position(|&byte| byte == b' ');
    let (scheme, skipped) = match blank {
        Some(at) => {
            let rest = whole.get(at..).unwrap_or_default();
            (
                whole.get(..at)?.to_ascii_lowercase(),
                at + rest.iter().take_while(|&&byte| byte == b' ').count(),
            )
        }
        None => (Vec::new(), 0),
    };
    let start = range.start + skipped;
    let token = text.get(start..range.end)?;
    let len = token.iter().take_while(|&&byte| is_token(byte) || byte == b':').count();
    // Something else than one token: `Bearer {token}`, or a sentence.
    if len == 0 || token.get(len).is_some_and(|byte| !matches!(byte, b' ' | b',' | b';' | b')')) {
        return None;
    }
    let token = token.get(..len)?;
    let opinion = match scheme.as_slice() {
        b"basic" => basic(token),
        b"" => basic(token).or_else(|_| bare(token)),
        scheme if TOKENS.contains(&scheme) => bearer(token),
        _ => return None,
    };
    Some(Found { id: Id::Authorization, value: start..start + len, opinion })
}

/// `user:password` in base64.
pub(super) fn basic(token: &[u8]) -> Result<Opinion, Reason> {
    let decoded = base64(token).ok_or(Reason::Check)?;
    let colon = decoded.iter().position(|&byte| byte == b':').ok_or(Reason::Check)?;
    if !decoded.iter().all(|&byte| is_printable(byte) || byte >= 0x80) {
        return Err(Reason::Check);
    }
    let password = decoded.get(colon + 1..).unwrap_or_default();
    if password.len() < 4 {
        return Err(Reason::Shape);
    }
    usual(password)?;
    Ok(Opinion { strength: Strength::Format, checked: true, floor: 0.0 })
}

/// A token without a scheme before it, which might as well be the name of something.
fn bare(token: &[u8]) -> Result<Opinion, Reason> {
    let longest = token.split(|byte| !byte.is_ascii_alphanumeric()).map(<[u8]>::len).max();
    if token.len() < 20 || longest.unwrap_or(0) < 10 || is_constant_name(token) {
        return Err(Reason::Shape);
    }
    bearer(token)
}

fn bearer(token: &[u8]) -> Result<Opinion, Reason> {
    usual(token)?;
    if token.len() < 16 || is_identifier(token) || !is_random(token) {
        return Err(Reason::Shape);
    }
    if entropy(token) < 3.0 {
        return Err(Reason::Entropy);
    }
    Ok(Opinion { strength: Strength::Random, checked: false, floor: 2.5 })
}
