//! Keys of clouds: the account in an AWS key id, the lengths of Azure's keys and signatures.

use super::Verdict;
use super::base64::decode;
use super::crc::decode_base32;

/// An access key id. Since 2019 it encodes the twelve digits of its account.
pub(super) fn aws_key_id(id: &[u8]) -> Verdict {
    // The ids of AWS's documentation.
    if id.ends_with(b"EXAMPLE") {
        return Verdict::Invalid;
    }
    let account = id.get(4..).and_then(decode_base32).and_then(|bytes| account(&bytes));
    Verdict::hint(account.is_some_and(|account| (1..1_000_000_000_000).contains(&account)))
}

/// A token in which AWS's documentation has not written that it is one of its own.
pub(super) fn no_example(token: &[u8]) -> Verdict {
    Verdict::possible(memchr::memmem::find(token, b"EXAMPLE").is_none())
}

fn account(bytes: &[u8]) -> Option<u64> {
    let number = bytes.get(..6)?.iter().fold(0_u64, |number, &byte| number << 8 | u64::from(byte));
    // The first bit is set in the ids that encode their account, the last seven belong to the key.
    (number >> 47 == 1).then_some((number & 0x7fff_ffff_ff80) >> 7)
}

/// The key of a storage or database account: base64 of 64 bytes, which text in base64 is not.
pub(super) fn azure_key(key: &[u8]) -> Verdict {
    let Some(bytes) = decode(key) else { return Verdict::Invalid };
    Verdict::possible(bytes.len() == 64 && !bytes.is_ascii())
}

/// The signature of a shared access signature: base64 of 32 bytes, percent-encoded.
pub(super) fn azure_sas(signature: &[u8]) -> Verdict {
    let plain = decode_percent(signature);
    Verdict::hint(decode(&plain).is_some_and(|bytes| bytes.len() == 32))
}

fn decode_percent(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, behind)) = rest.split_first() {
        let hex = behind.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(decoded) if byte == b'%' => {
                plain.push(decoded);
                rest = behind.get(2..).unwrap_or_default();
            }
            _ => {
                plain.push(byte);
                rest = behind;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::base64::Engine as _;
    use ::base64::engine::general_purpose::STANDARD;

    #[test]
    fn an_account_is_read_from_a_key_id() {
        // Base 32 of the set bit, then account 1.
        let id = [&b"AKIA"[..], b"QAAAAAEAAAAAAAAA"].concat();
        assert_eq!(aws_key_id(&id), Verdict::Valid);
        assert_eq!(aws_key_id(&[&b"AKIA"[..], b"IAAAAAEAAAAAAAAA"].concat()), Verdict::Unknown);
        assert_eq!(aws_key_id(&[&b"AKIA"[..], b"IOSFODNN7EXAMPLE"].concat()), Verdict::Invalid);
    }

    #[test]
    fn documentation_marks_its_own() {
        assert_eq!(no_example(b"AQoEXAMPLEH4aoAH0gNCAPy"), Verdict::Invalid);
        assert_eq!(no_example(b"IQoJb3JpZ2luX2VjE"), Verdict::Unknown);
    }

    #[test]
    fn the_key_of_an_account_has_sixty_four_bytes() {
        assert_eq!(azure_key(STANDARD.encode([200_u8; 64]).as_bytes()), Verdict::Unknown);
        assert_eq!(azure_key(STANDARD.encode([b'a'; 64]).as_bytes()), Verdict::Invalid);
        assert_eq!(azure_key(STANDARD.encode([200_u8; 63]).as_bytes()), Verdict::Invalid);
    }

    #[test]
    fn a_signature_is_decoded_twice() {
        let signature = STANDARD
            .encode([251_u8; 32])
            .replace('+', "%2B")
            .replace('/', "%2F")
            .replace('=', "%3D");
        assert_eq!(azure_sas(signature.as_bytes()), Verdict::Valid);
        assert_eq!(azure_sas(b"c2hvcnQ%3D"), Verdict::Unknown);
    }
}
