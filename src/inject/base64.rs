//! Base64 of values, from locked memory to locked memory.

use base64ct::{Base64, Encoding};

use crate::system::{MemoryError, SecretBytes};

/// Encodes with the alphabet and padding of RFC 4648, section 4.
pub fn encode(value: &[u8]) -> Result<SecretBytes, MemoryError> {
    SecretBytes::with_len(value.len().div_ceil(3) * 4, |room| {
        // The room is exactly what the encoding takes, so there is always enough.
        Ok(Base64::encode(value, room).map_or(0, str::len))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_vectors_of_rfc_4648_come_out() {
        let cases =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")];
        for (value, expected) in cases {
            assert_eq!(encode(value.as_bytes()).unwrap().expose(), expected.as_bytes());
        }
    }
}
