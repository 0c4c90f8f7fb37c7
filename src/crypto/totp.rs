//! One-time codes by the time (RFC 6238): SHA-1, six digits, thirty seconds, as every app has them.

use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;

use super::{CryptoError, fill_random};
use crate::model::Timestamp;
use crate::system::SecretBytes;

/// What the codes of one person come from.
#[derive(Debug)]
pub struct Seed(SecretBytes);

/// A code that somebody has typed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Code(u32);

const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

impl Seed {
    /// As long as SHA-1's output (RFC 4226, section 4): eight groups of five bytes would do no better.
    pub const BYTES: usize = 20;

    /// The seconds that one code is for.
    pub const STEP_SECONDS: i64 = 30;

    /// Makes a new one.
    pub fn generate() -> Result<Self, CryptoError> {
        SecretBytes::with_len(Self::BYTES, |room| fill_random(room).map(|()| Self::BYTES)).map(Self)
    }

    /// Takes over what [`bytes`](Self::bytes) has lent out.
    pub fn from_bytes(bytes: SecretBytes) -> Result<Self, CryptoError> {
        if bytes.len() == Self::BYTES {
            Ok(Self(bytes))
        } else {
            Err(CryptoError::Malformed("a seed of one-time codes has 20 bytes"))
        }
    }

    /// Reads base 32 (RFC 4648), as apps are given it.
    pub fn from_base32(text: &[u8]) -> Result<Self, CryptoError> {
        let malformed = CryptoError::Malformed("a seed of one-time codes is 32 letters of base 32");
        if text.len() != Self::BYTES * 8 / 5 {
            return Err(malformed);
        }
        let bytes = SecretBytes::with_len(Self::BYTES, |room| {
            for (group, five) in text.chunks(8).zip(room.chunks_mut(5)) {
                let mut bits = 0_u64;
                for letter in group {
                    let place = ALPHABET.iter().position(|known| known == letter);
                    let digit = place.ok_or_else(|| malformed.clone())?;
                    bits = bits << 5 | digit as u64;
                }
                let [_, _, _, bytes @ ..] = bits.to_be_bytes();
                five.copy_from_slice(&bytes);
            }
            Ok::<_, CryptoError>(Self::BYTES)
        })?;
        Ok(Self(bytes))
    }

    /// Returns it in base 32.
    pub fn base32(&self) -> Result<SecretBytes, CryptoError> {
        let len = Self::BYTES * 8 / 5;
        SecretBytes::with_len(len, |room| {
            for (five, group) in self.0.expose().chunks(5).zip(room.chunks_mut(8)) {
                let bits = five.iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
                for (letter, shift) in group.iter_mut().zip((0..8).rev()) {
                    let digit = usize::try_from(bits >> (shift * 5) & 31).unwrap_or_default();
                    *letter = ALPHABET.get(digit).copied().unwrap_or_default();
                }
            }
            Ok(len)
        })
    }

    /// Lends out the bytes, to be sealed.
    pub fn bytes(&self) -> &SecretBytes {
        &self.0
    }

    /// Returns the number of the step that a moment is in.
    pub fn step_at(time: Timestamp) -> i64 {
        time.as_second().div_euclid(Self::STEP_SECONDS)
    }

    /// Returns the code of a step.
    pub fn code(&self, step: i64) -> Result<Code, CryptoError> {
        let mac = Hmac::<Sha1>::new_from_slice(self.0.expose());
        let mut mac = mac.map_err(|_| CryptoError::Malformed("a seed that is no key"))?;
        mac.update(&step.to_be_bytes());
        let digest: [u8; 20] = mac.finalize().into_bytes().into();
        // RFC 4226, section 5.3: the last four bits say which four bytes count, without the sign.
        let offset = usize::from(digest[19] & 15);
        let chosen = digest.iter().skip(offset).take(4);
        let number = chosen.fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
        Ok(Code((number & 0x7fff_ffff) % 1_000_000))
    }

    /// Returns the step of a code, if it is of one of `steps`.
    pub fn step_of(
        &self,
        code: Code,
        steps: std::ops::RangeInclusive<i64>,
    ) -> Result<Option<i64>, CryptoError> {
        for step in steps {
            if self.code(step)? == code {
                return Ok(Some(step));
            }
        }
        Ok(None)
    }
}

impl Code {
    /// Reads six digits.
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.len() != 6 || !text.iter().all(u8::is_ascii_digit) {
            return None;
        }
        Some(Self(text.iter().fold(0, |code, digit| code * 10 + u32::from(digit - b'0'))))
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:06}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_agree_with_rfc_6238() {
        let seed = SecretBytes::copy_from(b"12345678901234567890").unwrap();
        let seed = Seed::from_bytes(seed).unwrap();
        // Appendix B, the last six of its eight digits.
        for (second, code) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000, "353130"),
        ] {
            let step = Seed::step_at(Timestamp::from_second(second).unwrap());
            assert_eq!(seed.code(step).unwrap().to_string(), code, "{second}");
        }
        assert_eq!(seed.base32().unwrap().expose(), b"GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ");
    }

    #[test]
    fn a_seed_is_read_as_it_was_shown_and_nothing_else_is_one() {
        let seed = Seed::generate().unwrap();
        let again = Seed::from_base32(seed.base32().unwrap().expose()).unwrap();
        assert!(again.bytes().constant_time_eq(seed.bytes()));
        for bad in
            ["", "GEZDGNBV", "gezdgnbvgy3tqojqgezdgnbvgy3tqojq", "1EZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"]
        {
            assert!(Seed::from_base32(bad.as_bytes()).is_err(), "{bad}");
        }
        for bad in ["", "12345", "1234567", "12345a", " 12345"] {
            assert!(Code::parse(bad.as_bytes()).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_code_is_of_its_step_and_of_no_other() {
        let seed = Seed::generate().unwrap();
        let code = seed.code(100).unwrap();
        assert_eq!(seed.step_of(code, 99..=101).unwrap(), Some(100));
        // One of two others is the same by chance twice in a million.
        assert_eq!(seed.step_of(code, 101..=102).unwrap(), None);
    }
}
