//! What is hidden in a run by an encoding: base64, hexadecimal, percent signs, escapes.
//!
//! Only what decodes to text is looked at further. The first few bytes tell: other data, as of hashes and
//! pictures, is no text from its beginning on.

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};

use super::candidate::Encoding;
use super::class::{is_base64, is_hex, is_printable};

/// Shorter runs hide nothing that is worth it: 20 digits are 15 bytes.
const MIN_BASE64: usize = 16;
const MIN_HEX: usize = 24;
/// Longer hidden texts are cut.
const MAX_LEN: usize = 1 << 20;

const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Decodes either alphabet, with its padding or without.
pub(super) fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let end = text.iter().rposition(|&byte| byte != b'=').map_or(0, |last| last + 1);
    let mut digits = text.get(..end)?.to_vec();
    // A single digit over is no byte.
    if digits.len() % 4 == 1 {
        digits.pop();
    }
    for digit in &mut digits {
        *digit = match *digit {
            b'-' => b'+',
            b'_' => b'/',
            other => other,
        };
    }
    LENIENT.decode(&digits).ok()
}

/// Returns what a run of token bytes hides.
pub(super) fn hidden(run: &[u8]) -> Vec<(Encoding, Vec<u8>)> {
    let mut found = Vec::new();
    if is_percent(run) {
        found.push((Encoding::Percent, percent(run)));
    }
    for part in run.split(|&byte| !is_base64(byte)) {
        let part = part.get(..MAX_LEN).unwrap_or(part);
        if part.len() >= MIN_HEX
            && part.len().is_multiple_of(2)
            && part.iter().all(|&byte| is_hex(byte))
        {
            found.extend(hex(part).map(|text| (Encoding::Hex, text)));
        } else if part.len() >= MIN_BASE64 && begins_as_text(part) {
            found.extend(
                base64(part).filter(|text| is_text(text)).map(|text| (Encoding::Base64, text)),
            );
        }
    }
    found
}

/// Returns the text of base64 that goes on over several lines, and where it ends. `first` is its first line.
pub(super) fn lines(text: &[u8], first: std::ops::Range<usize>) -> Option<(usize, Vec<u8>)> {
    let line = text.get(first.clone())?;
    if line.len() < 32 || !line.iter().all(|&byte| is_base64(byte)) || !begins_as_text(line) {
        return None;
    }
    let mut digits = line.to_vec();
    let mut at = first.end;
    while digits.len() < MAX_LEN {
        let rest = text.get(at..)?;
        let gap = rest.iter().take(64).take_while(|byte| byte.is_ascii_whitespace()).count();
        let next = rest.get(gap..)?;
        let len =
            next.iter().take(1024).take_while(|&&byte| is_base64(byte) || byte == b'=').count();
        let breaks = memchr::memchr(b'\n', rest.get(..gap)?).is_some();
        // The next line of the same text is as long, or shorter and the last one.
        if !breaks || len == 0 || len > line.len() || digits.ends_with(b"=") {
            break;
        }
        digits.extend_from_slice(next.get(..len)?);
        at += gap + len;
        if len < line.len() {
            break;
        }
    }
    let decoded =
        (at > first.end).then(|| base64(&digits)).flatten().filter(|text| is_text(text))?;
    Some((at, decoded))
}

/// Tells whether the first twelve bytes are text, which for random ones happens once in millions. Asked of every
/// run, and so without memory of its own.
fn begins_as_text(digits: &[u8]) -> bool {
    let start = digits.get(..16).unwrap_or(digits);
    start.chunks(4).all(|group| {
        let bits = group.iter().try_fold(0, |bits, &digit| Some(bits << 6 | sextet(digit)?));
        // Of a group that is cut off, the bits of whole bytes.
        let (spare, whole) = (group.len() * 6 % 8, group.len() * 6 / 8);
        bits.is_some_and(|bits: u32| {
            let [_, bytes @ ..] = (bits >> spare << (24 - whole * 8)).to_be_bytes();
            bytes.iter().take(whole).all(|&byte| is_printable(byte))
        })
    })
}

/// Returns what a digit of base64 stands for, in either alphabet.
fn sextet(digit: u8) -> Option<u32> {
    Some(u32::from(match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' | b'-' => 62,
        b'/' | b'_' => 63,
        _ => return None,
    }))
}

fn is_text(bytes: &[u8]) -> bool {
    let printable = bytes.iter().filter(|&&byte| is_printable(byte)).count();
    bytes.len() >= 8
        && (printable == bytes.len()
            || printable * 20 >= bytes.len() * 19 && std::str::from_utf8(bytes).is_ok())
}

fn hex(digits: &[u8]) -> Option<Vec<u8>> {
    let value =
        |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let byte = |pair: &[u8]| match pair {
        [high, low] => Some(value(*high)? << 4 | value(*low)?),
        _ => None,
    };
    if !digits.get(..16)?.chunks(2).all(|pair| byte(pair).is_some_and(is_printable)) {
        return None;
    }
    let bytes: Option<Vec<u8>> = digits.chunks(2).map(byte).collect();
    bytes.filter(|bytes| is_text(bytes))
}

fn is_percent(run: &[u8]) -> bool {
    let mut escapes = 0;
    // Most runs have none.
    for at in memchr::memchr_iter(b'%', run) {
        match run.get(at + 1..at + 3) {
            Some([b'3', b'D' | b'd']) => return true,
            Some(pair) if pair.iter().all(|&byte| is_hex(byte)) => escapes += 1,
            Some(_) | None => {}
        }
    }
    escapes >= 2
}

fn percent(run: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(run.len());
    let mut rest = run;
    while let Some((&byte, later)) = rest.split_first() {
        let decoded = match (byte, later) {
            (b'%', [high, low, ..]) => hex_byte(*high, *low),
            _ => None,
        };
        text.push(decoded.unwrap_or(byte));
        rest = if decoded.is_some() { later.get(2..).unwrap_or_default() } else { later };
    }
    text
}

/// Undoes the escapes of JSON and of most programming languages. Returns nothing if there are none.
pub(super) fn unescape(escaped: &[u8]) -> Option<Vec<u8>> {
    memchr::memchr(b'\\', escaped)?;
    let mut text = Vec::with_capacity(escaped.len());
    let mut rest = escaped;
    loop {
        let Some((&byte, later)) = rest.split_first() else { return Some(text) };
        let (decoded, used) = match (byte, later) {
            (b'\\', [b'n', ..]) => (b'\n', 2),
            (b'\\', [b't', ..]) => (b'\t', 2),
            (b'\\', [b'r', ..]) => (b'\r', 2),
            (b'\\', [b'u', b'0', b'0', high, low, ..]) => {
                (hex_byte(*high, *low).unwrap_or(b'?'), 6)
            }
            (b'\\', [b'x', high, low, ..]) => (hex_byte(*high, *low).unwrap_or(b'?'), 4),
            (b'\\', [other, ..]) => (*other, 2),
            _ => (byte, 1),
        };
        text.push(decoded);
        rest = rest.get(used..).unwrap_or_default();
    }
}

fn hex_byte(high: u8, low: u8) -> Option<u8> {
    let value =
        |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    Some(value(high)? << 4 | value(low)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_found_under_each_encoding() {
        let cases: [(&str, Encoding); 4] = [
            ("cGFzc3dvcmQ9aHVudGVyMg==", Encoding::Base64),
            ("data=cGFzc3dvcmQ9aHVudGVyMg", Encoding::Base64),
            ("70617373776f72643d68756e74657232", Encoding::Hex),
            ("password%3Dhunter2%26", Encoding::Percent),
        ];
        for (run, encoding) in cases {
            let found = hidden(run.as_bytes());
            let text = found.iter().find(|(found, _)| *found == encoding);
            assert!(text.is_some_and(|(_, text)| text.starts_with(b"password=hunter2")), "{run}");
        }
    }

    #[test]
    fn hashes_and_names_hide_nothing() {
        for run in [
            "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b",
            "get_element_by_identifier",
            "sha512-q2bq3sV4bH+Kx1vZ9yqRkQ==",
        ] {
            assert_eq!(hidden(run.as_bytes()), [], "{run}");
        }
    }

    #[test]
    fn base64_over_several_lines_is_read_as_one() {
        let text =
            b"  dXNlcj1hcHAKcGFzc3dvcmQ9aHVudGVy\n  MgpleHRyYT1ub3RoaW5nIGVsc2UgaGVy\n  ZQ==\nx";
        let (end, found) = lines(text, 2..34).unwrap();
        assert_eq!(found, b"user=app\npassword=hunter2\nextra=nothing else here");
        assert_eq!(text.get(end..), Some(&b"\nx"[..]));
    }

    #[test]
    fn escapes_are_undone() {
        let text = unescape(br#"a\"b\/c\u003dd\x41\n"#).unwrap();
        assert_eq!(text, b"a\"b/c=dA\n");
        assert_eq!(unescape(b"plain"), None);
    }

    #[test]
    fn the_beginning_of_base64_is_looked_at_as_if_it_were_decoded() {
        for text in [
            &b"twelve bytes"[..],
            b"tab\tand\nline",
            b"eleven by\x01es",
            b"\xfftwelve byte",
            b"ab",
            b"abc\0",
        ] {
            for alphabet in [
                base64::engine::general_purpose::STANDARD_NO_PAD,
                base64::engine::general_purpose::URL_SAFE_NO_PAD,
            ] {
                let digits = alphabet.encode(text);
                let decoded = base64(digits.get(..16).unwrap_or(&digits).as_bytes()).unwrap();
                let expected = decoded.iter().all(|&byte| is_printable(byte));
                assert_eq!(begins_as_text(digits.as_bytes()), expected, "{text:?}");
            }
        }
        assert!(!begins_as_text(b"abcd.fghijklmnop"));
    }

    #[test]
    fn a_run_has_percent_signs_for_an_equals_sign_or_for_two_others() {
        for (run, expected) in [
            ("a%3Db", true),
            ("a%3db", true),
            ("a%20b%2F", true),
            ("a%20b", false),
            ("100%", false),
            ("a%%3", false),
            ("none", false),
        ] {
            assert_eq!(is_percent(run.as_bytes()), expected, "{run}");
        }
    }
}
