//! Keys of wallets in base 58, which end in four bytes of a double SHA-256.

use sha2::{Digest as _, Sha256};

use super::Verdict;

/// More digits than the longest key has.
const MOST_DIGITS: usize = 128;

/// A private key in the wallet import format: any 51 characters would do but for the checksum.
pub(super) fn wallet_key(key: &[u8]) -> Verdict {
    Verdict::proof(decode(key).is_some_and(|bytes| is_checked(&bytes)))
}

/// An extended private key: its prefix is rare enough by itself.
pub(super) fn extended_key(key: &[u8]) -> Verdict {
    Verdict::hint(decode(key).is_some_and(|bytes| is_checked(&bytes)))
}

fn is_checked(bytes: &[u8]) -> bool {
    bytes.split_last_chunk::<4>().is_some_and(|(body, checksum)| {
        Sha256::digest(Sha256::digest(body)).get(..4) == Some(checksum.as_slice())
    })
}

fn decode(text: &[u8]) -> Option<Vec<u8>> {
    const ALPHABET: &[u8] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
    if text.len() > MOST_DIGITS {
        return None;
    }
    // Least significant byte first.
    let mut bytes: Vec<u8> = Vec::with_capacity(text.len());
    for digit in text {
        let mut carry = ALPHABET.iter().position(|known| known == digit)?;
        for byte in &mut bytes {
            carry += usize::from(*byte) * 58;
            *byte = u8::try_from(carry & 0xff).ok()?;
            carry >>= 8;
        }
        while carry > 0 {
            bytes.push(u8::try_from(carry & 0xff).ok()?);
            carry >>= 8;
        }
    }
    bytes.extend(text.iter().take_while(|&&digit| digit == b'1').map(|_| 0));
    bytes.reverse();
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_58_keeps_leading_zeros() {
        assert_eq!(decode(b"1112").as_deref(), Some(&[0, 0, 0, 1][..]));
        assert_eq!(decode(b"StV1DL6CwTryKyV").as_deref(), Some(&b"hello world"[..]));
        assert_eq!(decode(b"0OIl"), None);
    }

    #[test]
    fn a_checksum_of_two_hashes_is_at_the_end() {
        let mut bytes = vec![0x80, 1, 2, 3];
        bytes.extend_from_slice(&Sha256::digest(Sha256::digest(&bytes))[..4]);
        assert!(is_checked(&bytes));
        bytes[1] ^= 1;
        assert!(!is_checked(&bytes));
        assert_eq!(wallet_key(b"5notAKey"), Verdict::Invalid);
        assert_eq!(extended_key(b"xprvWrong"), Verdict::Unknown);
    }
}
