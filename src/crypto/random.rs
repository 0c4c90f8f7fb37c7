//! Random bytes, each straight from getrandom(2).
//!
//! There is no generator of our own whose state a fork or a restored snapshot could repeat.

use super::CryptoError;

/// Returns random bytes for a new id of a store or a secret.
pub fn random_id() -> Result<[u8; 16], CryptoError> {
    bytes()
}

/// Returns `N` random bytes.
pub(super) fn bytes<const N: usize>() -> Result<[u8; N], CryptoError> {
    let mut bytes = [0; N];
    fill_random(&mut bytes)?;
    Ok(bytes)
}

/// Fills `room` with random bytes.
pub fn fill_random(room: &mut [u8]) -> Result<(), CryptoError> {
    getrandom::fill(room).map_err(|_| CryptoError::NoRandom)
}
