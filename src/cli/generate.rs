//! Random values: characters that need no quoting in URLs, shells and files.

use crate::system::{MemoryError, SecretBytes};

/// The URL-safe alphabet of RFC 4648. It has 64 characters, so six bits of a random byte choose one
/// and none is more likely than another.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Why there is no value.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GenerateError {
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error("the operating system gave no random bytes")]
    NoRandom,
}

/// Returns a random value of that many characters.
pub(crate) fn generate(characters: usize) -> Result<SecretBytes, GenerateError> {
    SecretBytes::with_len(characters, |room| {
        getrandom::fill(room).map_err(|_| GenerateError::NoRandom)?;
        for byte in room.iter_mut() {
            *byte = character(*byte);
        }
        Ok(characters)
    })
}

fn character(random: u8) -> u8 {
    ALPHABET.get(usize::from(random & 63)).copied().unwrap_or(b'A')
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn each_character_of_the_alphabet_comes_from_as_many_bytes_as_every_other() {
        let mut counts = BTreeMap::new();
        for random in 0..=u8::MAX {
            *counts.entry(character(random)).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 64);
        assert!(counts.values().all(|&count| count == 4));
        assert!(counts.keys().all(|c| c.is_ascii_alphanumeric() || b"-_".contains(c)));
    }

    #[test]
    fn values_have_the_length_asked_for_and_are_not_repeated() {
        let first = generate(32).unwrap();
        assert_eq!(first.len(), 32);
        assert!(!generate(32).unwrap().constant_time_eq(&first));
        assert!(generate(32).unwrap().expose().iter().all(|byte| ALPHABET.contains(byte)));
    }
}
