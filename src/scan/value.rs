//! What a value looks like when it is none: a stand-in, a variable, a name, a hash.
//!
//! These are asked of candidates alone, so they may take their time.

use super::class::{is_digit, is_hex, is_letter, is_lower, is_upper, is_word};

/// Longer values are looked at by their beginning: a word somewhere in a long key is chance.
const LOOKED_AT: usize = 128;

/// Tells whether a value stands for one that is to be filled in.
pub(super) fn is_placeholder(value: &[u8]) -> bool {
    const WORDS: [&[u8]; 30] = [
        b"example",
        b"placeholder",
        b"changeme",
        b"change-me",
        b"change_me",
        b"changeit",
        b"your_",
        b"your-",
        b"yourp",
        b"yours",
        b"yourt",
        b"youra",
        b"yourk",
        b"xxxx",
        b"****",
        b"....",
        b"____",
        b"----",
        b"redacted",
        b"dummy",
        b"replace",
        b"insert",
        b"sample",
        b"foobar",
        b"fixme",
        b"to-be-",
        b"my-secret",
        b"mysecret",
        b"not-a-real",
        b"notreal",
    ];
    let start = value.get(..LOOKED_AT).unwrap_or(value);
    let lower = start.to_ascii_lowercase();
    // A PEM header has its dashes by right.
    let dashes = value.starts_with(b"-----BEGIN");
    let word = |word: &[u8]| memchr::memmem::find(&lower, word).is_some();
    WORDS.iter().any(|known| word(known) && !(dashes && *known == b"----"))
        // Four letters are too few to say anything in the middle of a long value.
        || lower.starts_with(b"todo")
        || (!dashes && is_monotonous(start))
}

/// `<password>`, `[token]`: a mark for something else.
pub(super) fn is_masked(value: &[u8]) -> bool {
    let wrapped =
        |open: u8, close: u8| value.first() == Some(&open) && value.last() == Some(&close);
    wrapped(b'<', b'>') || wrapped(b'[', b']') || wrapped(b'{', b'}') || wrapped(b'%', b'%')
}

/// Counts up, or repeats itself: what hands type when they mean nothing.
fn is_monotonous(value: &[u8]) -> bool {
    let (mut steps, mut longest_steps, mut same, mut longest_same) =
        (1_usize, 1_usize, 1_usize, 1_usize);
    let mut distinct = [false; 256];
    for pair in value.windows(2) {
        let [one, two] = pair else { continue };
        steps =
            if one.wrapping_add(1) == *two || (*one == b'9' && matches!(two, b'0' | b'a' | b'A')) {
                steps + 1
            } else {
                1
            };
        same = if one == two { same + 1 } else { 1 };
        longest_steps = longest_steps.max(steps);
        longest_same = longest_same.max(same);
    }
    for byte in value {
        if let Some(seen) = distinct.get_mut(usize::from(*byte)) {
            *seen = true;
        }
    }
    let distinct = distinct.iter().filter(|seen| **seen).count();
    let len = value.len();
    // Twice the same eight bytes is typed; a random value of that length never is.
    let halves = len >= 16 && len.is_multiple_of(2) && value.get(..len / 2) == value.get(len / 2..);
    longest_steps >= 8
        || (longest_same >= 5 && longest_same * 3 >= len)
        || longest_same >= 12
        || (len >= 8 && distinct <= 3)
        || halves
}

/// Tells whether a value names where the secret is to be had: a variable, a template, a file, a call.
pub(super) fn is_reference(value: &[u8]) -> bool {
    const STARTS: [&[u8]; 14] = [
        b"http://",
        b"https://",
        b"file:",
        b"env:",
        b"ENV[",
        b"vault:",
        b"arn:",
        b"secret://",
        b"op://",
        b"ref+",
        b"!",
        b"&",
        b"@@",
        b"ssm:",
    ];
    const ENDS: [&[u8]; 9] =
        [b".pem", b".key", b".txt", b".json", b".yaml", b".yml", b".py", b".js", b".html"];
    has_reference(value)
        || STARTS.iter().any(|start| value.starts_with(start))
        || ENDS.iter().any(|end| value.ends_with(end))
        || is_path(value)
        || names_in_braces(value)
}

/// `/run/secrets/x`, `tests/ui/*.rs`; base64 may have slashes too, and has digits.
fn is_path(value: &[u8]) -> bool {
    let word = |part: &[u8]| {
        part.iter().all(|&byte| is_letter(byte) || matches!(byte, b'.' | b'-' | b'_' | b'*'))
    };
    if value.contains(&b'/') && value.split(|&byte| byte == b'/').all(word) {
        return true;
    }
    let starts = [&b"/"[..], b"./", b"../", b"~/"].iter().any(|start| value.starts_with(start));
    starts && value.iter().filter(|&&byte| is_digit(byte)).count() * 8 <= value.len()
}

/// Tells whether a variable or a template stands in a value.
pub(super) fn has_reference(value: &[u8]) -> bool {
    const PARTS: [&[u8]; 14] = [
        b"${",
        b"$(",
        b"{{",
        b"}}",
        b"<%",
        b"#{",
        b"%(",
        b"%s",
        b"@{",
        b"process.env",
        b"os.environ",
        b"getenv",
        b"System.get",
        b"secretRef",
    ];
    let start = value.get(..LOOKED_AT).unwrap_or(value);
    PARTS.iter().any(|part| memchr::memmem::find(start, part).is_some()) || is_variable(value)
}

/// `{registry}-token`, `{0}`: a template, where a name stands in braces.
fn names_in_braces(value: &[u8]) -> bool {
    let mut rest = value;
    while let Some(open) = memchr::memchr(b'{', rest) {
        rest = rest.get(open + 1..).unwrap_or_default();
        let is_name = |byte: u8| is_word(byte) || matches!(byte, b'.' | b':' | b'!');
        let len = rest.iter().take_while(|&&byte| is_name(byte)).count();
        if len > 0 && rest.get(len) == Some(&b'}') {
            return true;
        }
    }
    false
}

/// `$NAME`, `%NAME%`, `{0}` and `$1`; a password may have a dollar sign too, but then with more to it.
fn is_variable(value: &[u8]) -> bool {
    let named = |rest: &[u8]| !rest.is_empty() && rest.iter().all(|&byte| is_word(byte));
    let all_capitals =
        |rest: &[u8]| rest.iter().all(|&byte| is_upper(byte) || byte == b'_' || is_digit(byte));
    match value {
        [b'$', rest @ ..] => {
            named(rest) && (all_capitals(rest) || rest.iter().all(|&b| is_lower(b) || b == b'_'))
        }
        [b'{', rest @ .., b'}'] | [b'%', rest @ .., b'%'] => named(rest),
        _ => false,
    }
}

/// How many kinds of characters a value has: small letters, capitals, digits, others.
pub(super) fn classes(value: &[u8]) -> usize {
    let any = |is: fn(u8) -> bool| usize::from(value.iter().any(|&byte| is(byte)));
    any(is_lower) + any(is_upper) + any(is_digit) + any(|byte| !is_letter(byte) && !is_digit(byte))
}

/// Letters, with punctuation as names have it: a word, a name in a program, a key of a translation.
pub(super) fn is_identifier(value: &[u8]) -> bool {
    value.iter().all(|&byte| is_letter(byte) || matches!(byte, b'_' | b'-' | b'.' | b':' | b' '))
}

/// A name of a constant: `DB_PASSWORD`.
pub(super) fn is_constant_name(value: &[u8]) -> bool {
    let mut parts = value.split(|&byte| byte == b'_');
    value.contains(&b'_')
        && parts.all(|part| !part.is_empty() && part.iter().all(|&b| is_upper(b) || is_digit(b)))
        && value.first().is_some_and(|&byte| is_upper(byte))
        && value.iter().filter(|&&byte| is_digit(byte)).count() * 4 < value.len()
}

/// Hexadecimal of the length of a usual hash or a checksum.
pub(super) fn is_hash_like(value: &[u8]) -> bool {
    matches!(value.len(), 32 | 40 | 56 | 64 | 96 | 128) && value.iter().all(|&byte| is_hex(byte))
}

pub(super) fn is_uuid(value: &[u8]) -> bool {
    value.len() == 36
        && value.iter().enumerate().all(|(at, &byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => is_hex(byte),
        })
}

/// Letters and digits as drawn by chance: not words, in whatever way they are joined, with a number behind.
pub(super) fn is_random(value: &[u8]) -> bool {
    let kind = |byte: u8| (is_digit(byte), is_upper(byte), is_lower(byte));
    let turns = |one: u8, two: u8| {
        let alphanumeric = |byte: u8| is_letter(byte) || is_digit(byte);
        let word_begins = is_upper(one) && is_lower(two);
        kind(one) != kind(two) && !word_begins && alphanumeric(one) && alphanumeric(two)
    };
    let turns =
        value.windows(2).filter(|pair| matches!(pair, [one, two] if turns(*one, *two))).count();
    // Random letters and digits turn at four steps of nine, words with a year behind them once or twice.
    turns * 6 >= value.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_filled_in_is_no_secret() {
        for value in [
            "your-api-key",
            "CHANGEME",
            "xxxxxxxx",
            concat!("AKIA", "IOSFODNN7EXAMPLE"),
            "aaaaaaaaaaaa",
            "0123456789abcdef",
            "abcabcabcabc",
            "12345678",
        ] {
            assert!(is_placeholder(value.as_bytes()), "{value}");
        }
        for value in ["hunter2", "P@ssw0rd!", "tr0ub4dor&3", "9f86d081884c7d659a2feaa0c55ad015"] {
            assert!(!is_placeholder(value.as_bytes()), "{value}");
        }
    }

    #[test]
    fn what_names_a_secret_is_told_from_one() {
        for value in [
            "$DB_PASSWORD",
            "${PW}",
            "{{ password }}",
            "%PW%",
            "/run/secrets/x",
            "process.env.PW",
            "#{pw}",
        ] {
            assert!(is_reference(value.as_bytes()), "{value}");
        }
        for value in ["pa$$W0rd", "$ecret!99", "a/b+c9=="] {
            assert!(!is_reference(value.as_bytes()), "{value}");
        }
        assert!(is_constant_name(b"DB_PASSWORD_2") && !is_constant_name(b"A1_B2_C3_99"));
    }

    #[test]
    fn hashes_and_uuids_are_known_by_their_form() {
        assert!(is_hash_like(b"9f86d081884c7d659a2feaa0c55ad015"));
        assert!(is_uuid(b"123e4567-e89b-12d3-a456-426614174000"));
        assert!(is_random(b"x7Kp2mQ9vL4nR8wT") && !is_random(b"database-migration-2024"));
    }
}
