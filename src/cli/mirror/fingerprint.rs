//! What values are compared by: HMAC-SHA256 (RFC 2104) under a random key that no other run has.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::Trouble;
use crate::crypto::fill_random;
use crate::system::{Locked, SecretBytes};

/// The key of one run.
pub(super) struct Fingerprints(Locked<Hmac<Sha256>>);

/// Equal for equal values of one run, and of no use to anybody else.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Fingerprint([u8; 32]);

impl Fingerprints {
    /// Makes a key. Error: `Lost`, without random bytes or locked memory.
    pub(super) fn new() -> Result<Self, Trouble> {
        let key = SecretBytes::with_len(32, |room| fill_random(room).map(|()| room.len()));
        let key = key.map_err(|err| Trouble::Lost(err.to_string()))?;
        let mac = Hmac::new_from_slice(key.expose());
        let mac = mac.map_err(|err| Trouble::Lost(err.to_string()))?;
        Locked::new(mac).map(Self).map_err(|err| Trouble::Lost(err.to_string()))
    }

    pub(super) fn of(&self, value: &SecretBytes) -> Fingerprint {
        let mut mac = Hmac::clone(&self.0);
        mac.update(value.expose());
        Fingerprint(mac.finalize().into_bytes().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_have_one_fingerprint_in_a_run_and_another_in_the_next() {
        let (one, other) = (Fingerprints::new().unwrap(), Fingerprints::new().unwrap());
        let value = |text: &[u8]| SecretBytes::copy_from(text).unwrap();
        assert_eq!(one.of(&value(b"canary-7f3a")), one.of(&value(b"canary-7f3a")));
        assert_ne!(one.of(&value(b"canary-7f3a")), one.of(&value(b"canary-7f3b")));
        assert_ne!(one.of(&value(b"canary-7f3a")), other.of(&value(b"canary-7f3a")));
        assert_ne!(one.of(&value(b"")), one.of(&value(b"\0")));
    }
}
