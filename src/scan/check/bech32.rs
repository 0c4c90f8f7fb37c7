//! The checksum of bech32, which the keys of age end in.

use super::Verdict;

/// A secret key of age, in capitals.
pub(super) fn age(key: &[u8]) -> Verdict {
    Verdict::hint(is_checked(key))
}

fn is_checked(text: &[u8]) -> bool {
    const ALPHABET: &[u8] = b"QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L";
    let text = text.to_ascii_uppercase();
    let Some(separator) = text.iter().rposition(|&byte| byte == b'1') else { return false };
    let (prefix, data) = text.split_at(separator);
    let lower = prefix.to_ascii_lowercase();
    let high = lower.iter().map(|byte| byte >> 5);
    let low = lower.iter().map(|byte| byte & 31);
    let mut checksum = high.chain([0]).chain(low).fold(1, step);
    for byte in data.iter().skip(1) {
        let Some(digit) = ALPHABET.iter().position(|known| known == byte) else { return false };
        checksum = step(checksum, u8::try_from(digit).unwrap_or_default());
    }
    checksum == 1
}

/// One step of the code's generator.
fn step(checksum: u32, digit: u8) -> u32 {
    const GENERATOR: [u32; 5] = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3];
    let top = checksum >> 25;
    let next = (checksum & 0x01ff_ffff) << 5 ^ u32::from(digit);
    GENERATOR.iter().enumerate().fold(
        next,
        |next, (bit, factor)| {
            if top >> bit & 1 == 1 { next ^ factor } else { next }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_valid_strings_of_the_standard_are_valid() {
        for text in ["A12UEL5L", "abcdef1qpzry9x8gf2tvdw0s3jn54khce6mua7lmqqqxw"] {
            assert!(is_checked(text.as_bytes()), "{text}");
        }
        for text in ["A12UEL5M", "no separator", "1B"] {
            assert!(!is_checked(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn a_wrong_checksum_is_no_proof_against_a_key() {
        assert_eq!(age(b"AGE-SECRET-KEY-1QQ"), Verdict::Unknown);
    }
}
