//! The one type that holds plaintext.

use std::fmt;

/// Plaintext, wiped when dropped.
pub struct SecretBytes(Box<[u8]>);

impl SecretBytes {
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretBytes(..)")
    }
}
