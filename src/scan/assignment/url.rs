//! Passwords in URLs: `scheme://user:password@host`.

use std::ops::Range;

use super::judge::usual;
use super::{Found, Id, Opinion};
use crate::scan::candidate::Reason;
use crate::scan::class::{is_letter, is_word};
use crate::scan::confidence::Strength;
use crate::scan::value::{classes, is_identifier};

/// Longer texts before an at sign are no user and password.
pub(in crate::scan) const MAX_USERINFO: usize = 256;
pub(in crate::scan) const MARK: &[u8] = b"://";

/// Returns the places of `://` that have an at sign as near behind them as a user and a password let it be. There are
/// far fewer at signs than URLs, and no look at each URL is as fast as a search for one byte.
pub(in crate::scan) fn places(text: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let mut searched = 0;
    memchr::memchr_iter(b'@', text).flat_map(move |at| {
        let from = at.saturating_sub(MAX_USERINFO + MARK.len()).max(searched);
        searched = at;
        let before = text.get(from..at).unwrap_or_default();
        memchr::memchr_iter(b':', before)
            .filter(|&colon| before.get(colon..).is_some_and(|rest| rest.starts_with(MARK)))
            .map(move |colon| from + colon..from + colon + MARK.len())
    })
}

pub(in crate::scan) fn read(text: &[u8], hit: Range<usize>) -> Option<Found> {
    let before = text.get(..hit.start)?;
    if !before.last().is_some_and(|&byte| is_word(byte)) {
        return None;
    }
    let rest = text.get(hit.end..)?;
    let window = rest.get(..MAX_USERINFO).unwrap_or(rest);
    let ends = |byte: u8| {
        byte.is_ascii_whitespace()
            || matches!(byte, b'"' | b'\'' | b'`' | b'<' | b'>' | b'\\' | b',' | b'|')
    };
    let len = window.iter().position(|&byte| ends(byte)).unwrap_or(window.len());
    let authority = window.get(..len)?;
    // The last at sign before the path: a password may hold one, unescaped, as people write them.
    let colon = memchr::memchr(b':', authority)?;
    let path = memchr::memchr3(b'/', b'?', b'#', authority).unwrap_or(authority.len());
    let at = match memchr::memrchr(b'@', authority.get(..path)?) {
        Some(at) => at,
        // A password with a slash in it, if it is not a port that stands before the slash.
        None => {
            let port = authority.get(colon + 1..path).unwrap_or_default();
            if port.iter().all(u8::is_ascii_digit) {
                return None;
            }
            memchr::memchr(b'@', authority)?
        }
    };
    // A port, and an at sign in the path.
    let port = authority.get(colon + 1..path).unwrap_or_default();
    if colon >= at || (path < at && port.iter().all(u8::is_ascii_digit)) {
        return None;
    }
    let user = authority.get(..colon)?;
    let password = authority.get(colon + 1..at)?;
    let host = authority.get(at + 1..)?;
    let value = hit.end + colon + 1..hit.end + at;
    Some(Found { id: Id::Url, value, opinion: judge(user, password, host) })
}

fn judge(user: &[u8], password: &[u8], host: &[u8]) -> Result<Opinion, Reason> {
    usual(password)?;
    if password.len() < 4
        || host.is_empty()
        || !(host
            .iter()
            .take(1)
            .all(|&byte| is_word(byte) || matches!(byte, b'$' | b'{' | b'[' | b'%')))
    {
        return Err(Reason::Shape);
    }
    let lower = password.to_ascii_lowercase();
    if user.eq_ignore_ascii_case(password)
        || [&b"pass"[..], b"pw", b"user"].contains(&lower.as_slice())
    {
        return Err(Reason::Placeholder);
    }
    if user.starts_with(b"<") || user.contains(&b'$') && password.contains(&b'$') {
        return Err(Reason::Reference);
    }
    let mixed = classes(password) >= 2 && !is_identifier(password);
    // `user:password` in a manual is letters alone; so is many a bad password of a database.
    let word = password.iter().all(|&byte| is_letter(byte)) && password.len() < 8;
    if word {
        return Err(Reason::StopWord);
    }
    Ok(Opinion {
        strength: Strength::Assigned { mixed, literal: true },
        checked: false,
        floor: 2.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_an_at_sign_near_behind_it_and_is_told_once() {
        let far = format!("a://{} @", "x".repeat(MAX_USERINFO));
        let near = format!("a://{}@", "x".repeat(MAX_USERINFO - 1));
        let cases: [(&str, &[usize]); 6] = [
            ("see https://localhost/", &[]),
            ("a@b at http://c", &[]),
            ("a://b@c@d, e://f:g@h", &[1, 12]),
            ("a://b c://d@e", &[1, 7]),
            (&far, &[]),
            (&near, &[1]),
        ];
        for (text, expected) in cases {
            let found: Vec<_> = places(text.as_bytes()).map(|place| place.start).collect();
            assert_eq!(found, expected, "{text}");
        }
    }
}
