//! Formats without any mark: only that the characters are drawn by chance tells them from names and words.
//!
//! The measure is how often neighbours are of different kinds (small letter, capital, digit, other), but for
//! the beginnings of words: after a separator, and a small letter after a capital. Random letters and digits
//! change at four steps of nine, names in programs at one of seven at most.

use super::Verdict;

/// Letters of both cases and digits, as random tokens have them. Hexadecimal is not: it is a hash.
pub(super) fn mixed(token: &[u8]) -> Verdict {
    // Without a digit it takes more: names in programs have capitals too.
    let share = if token.iter().any(u8::is_ascii_digit) { 6 } else { 4 };
    Verdict::possible(!is_hex(token) && kinds(token) >= 2 && changes(token) * share >= token.len())
}

/// As [`mixed`], where a provider has both such keys and hexadecimal ones.
pub(super) fn mixed_or_hex(token: &[u8]) -> Verdict {
    Verdict::possible(
        is_hex(token) && token.iter().any(u8::is_ascii_digit) || mixed(token) == Verdict::Unknown,
    )
}

/// Letters of both cases.
pub(super) fn mixed_case(token: &[u8]) -> Verdict {
    let letters = token.rsplit(|&byte| byte == b'_').next().unwrap_or_default();
    let turns = letters
        .windows(2)
        .filter(|pair| matches!(pair, [one, two] if kind(*one) != kind(*two)))
        .count();
    Verdict::possible(turns * 5 >= letters.len())
}

/// Small letters or capitals with digits between them.
pub(super) fn mixed_digits(token: &[u8]) -> Verdict {
    let token = token.rsplit(|&byte| byte == b'_').next().unwrap_or_default();
    let digits = token.iter().filter(|byte| byte.is_ascii_digit()).count();
    Verdict::possible(
        !is_hex(token) && digits > 0 && digits < token.len() && changes(token) * 8 >= token.len(),
    )
}

/// Text that is no sentence and no name: with characters of other kinds between the letters.
pub(super) fn text(token: &[u8]) -> Verdict {
    let letters = token.strip_prefix(b"django-insecure-").unwrap_or(token);
    Verdict::possible(
        letters.iter().any(u8::is_ascii_digit) && changes(letters) * 6 >= letters.len(),
    )
}

fn is_hex(token: &[u8]) -> bool {
    token.iter().all(u8::is_ascii_hexdigit)
}

/// Returns how many neighbours are of different kinds, where no word begins.
pub(super) fn changes(token: &[u8]) -> usize {
    let changes = |one: u8, two: u8| {
        let word_begins = one.is_ascii_uppercase() && two.is_ascii_lowercase();
        kind(one) != kind(two) && !word_begins && !is_separator(one) && !is_separator(two)
    };
    token.windows(2).filter(|pair| matches!(pair, [one, two] if changes(*one, *two))).count()
}

fn is_separator(byte: u8) -> bool {
    matches!(byte, b'-' | b'_' | b'.' | b' ' | b'/')
}

fn kinds(token: &[u8]) -> usize {
    (0..4).filter(|wanted| token.iter().any(|&byte| kind(byte) == *wanted)).count()
}

fn kind(byte: u8) -> u8 {
    match byte {
        b'a'..=b'z' => 0,
        b'A'..=b'Z' => 1,
        b'0'..=b'9' => 2,
        _ => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_hashes_are_not_drawn_by_chance() {
        for name in [
            "nameOfSomethingInsideProgram",
            "some-kebab-case-name-of-2-words",
            "d41d8cd98f00b204e9800998ecf8427e",
        ] {
            assert_eq!(mixed(name.as_bytes()), Verdict::Invalid, "{name}");
        }
        assert_eq!(mixed(b"q7Xp2LmT9vRb4KdW8sZn"), Verdict::Unknown);
    }

    #[test]
    fn hexadecimal_keys_pass_where_the_provider_has_them() {
        assert_eq!(mixed_or_hex(b"d41d8cd98f00b204e9800998ecf8427e"), Verdict::Unknown);
        assert_eq!(mixed_or_hex(b"openweathermapservice"), Verdict::Invalid);
    }

    #[test]
    fn a_sentence_is_no_secret_key() {
        assert_eq!(text(b"your-secret-key-goes-here-change-it-now-2024"), Verdict::Invalid);
        assert_eq!(text(b"django-insecure-4f)x9!kq2m#z8w@v7b&n3c"), Verdict::Unknown);
    }

    #[test]
    fn one_case_with_digits_needs_them_between_the_letters() {
        assert_eq!(mixed_digits(b"applicationsecret1"), Verdict::Invalid);
        assert_eq!(mixed_digits(b"x7k2m9q4w8z3v6"), Verdict::Unknown);
        assert_eq!(mixed_case(b"hf_aLongNameOfSomethingInAProgram"), Verdict::Unknown);
        assert_eq!(mixed_case(b"hf_alongnameofsomethinginaprogram"), Verdict::Invalid);
    }
}
