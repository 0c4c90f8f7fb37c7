//! AES-256-GCM (NIST SP 800-38D) with a key schedule that lies in locked memory.
//!
//! Sealed bytes are nonce (12) || ciphertext || tag (16). Plaintext goes from and to the caller's
//! memory and is copied nowhere else.

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit};

use super::context::Context;
use super::{CryptoError, random};
use crate::system::Locked;

pub(super) const KEY_BYTES: usize = 32;
pub(super) const NONCE_BYTES: usize = 12;
pub(super) const TAG_BYTES: usize = 16;
/// How much longer sealed bytes are than their plaintext.
pub(super) const OVERHEAD_BYTES: usize = NONCE_BYTES + TAG_BYTES;

pub(super) type Nonce = [u8; NONCE_BYTES];

/// A key, ready for use. A random nonce each time allows 2^32 uses of one key.
pub(super) struct Cipher(Locked<Aes256Gcm>);

impl Cipher {
    pub(super) fn new(key: &[u8]) -> Result<Self, CryptoError> {
        let cipher = Aes256Gcm::new_from_slice(key)
            .map_err(|_| CryptoError::Malformed("a key is not of 32 bytes"))?;
        Ok(Self(Locked::new(cipher)?))
    }

    /// Appends the sealed `plain` to `out`, under a random nonce.
    pub(super) fn seal(
        &self,
        context: &Context,
        plain: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), CryptoError> {
        self.seal_with(&random::bytes()?, context, plain, out)
    }

    /// Does so under a nonce that the caller has drawn for this alone.
    pub(super) fn seal_with(
        &self,
        nonce: &Nonce,
        context: &Context,
        plain: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), CryptoError> {
        out.reserve(plain.len() + OVERHEAD_BYTES);
        out.extend_from_slice(nonce);
        let start = out.len();
        out.resize(start + plain.len(), 0);
        let room = out.get_mut(start..).unwrap_or_default();
        let buffer = InOutBuf::new(plain, room).map_err(|_| CryptoError::TooLong)?;
        let tag = self
            .0
            .encrypt_inout_detached(nonce.into(), context.as_bytes(), buffer)
            .map_err(|_| CryptoError::TooLong)?;
        out.extend_from_slice(&tag);
        Ok(())
    }

    /// Opens into `plain`, which must be of [`plain_len`]; writes nothing unless it authenticates.
    pub(super) fn open(
        &self,
        context: &Context,
        sealed: &[u8],
        plain: &mut [u8],
    ) -> Result<(), CryptoError> {
        let (nonce, rest) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or(TOO_SHORT)?;
        let (ciphertext, tag) = rest.split_last_chunk::<TAG_BYTES>().ok_or(TOO_SHORT)?;
        let buffer = InOutBuf::new(ciphertext, plain).map_err(|_| CryptoError::Damaged)?;
        self.0
            .decrypt_inout_detached(nonce.into(), context.as_bytes(), buffer, tag.into())
            .map_err(|_| CryptoError::Damaged)
    }
}

const TOO_SHORT: CryptoError = CryptoError::Malformed("too few bytes");

/// Returns the length of the plaintext of sealed bytes.
pub(super) fn plain_len(sealed: &[u8]) -> Result<usize, CryptoError> {
    sealed.len().checked_sub(OVERHEAD_BYTES).ok_or(TOO_SHORT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::tests::unhex;

    /// McGrew and Viega, "The Galois/Counter Mode of Operation", appendix B: 13 to 16 without and
    /// with plaintext and associated data. Ours is always led by a length, hence the raw context.
    fn check(key: &str, nonce: &str, aad: &str, plain: &str, expected: &str) {
        let cipher = Cipher::new(&unhex(key)).unwrap();
        let nonce: [u8; 12] = unhex(nonce).try_into().unwrap();
        let (aad, plain) = (unhex(aad), unhex(plain));
        let mut ciphertext = vec![0; plain.len()];
        let tag = cipher
            .0
            .encrypt_inout_detached(
                (&nonce).into(),
                &aad,
                InOutBuf::new(&plain, &mut ciphertext).unwrap(),
            )
            .unwrap();
        ciphertext.extend_from_slice(&tag);
        assert_eq!(ciphertext, unhex(expected));
    }

    const KEY: &str = "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308";
    const PLAIN: &str = "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72\
                         1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39";

    #[test]
    fn the_published_test_cases_13_and_14_hold() {
        let (key, nonce) = ("00".repeat(32), "00".repeat(12));
        check(&key, &nonce, "", "", "530f8afbc74536b9a963b4f1c4cb738b");
        let expected = "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919";
        check(&key, &nonce, "", &"00".repeat(16), expected);
    }

    #[test]
    fn the_published_test_cases_15_and_16_hold() {
        let nonce = "cafebabefacedbaddecaf888";
        let ciphertext = "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa\
                          8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662";
        let whole = format!("{ciphertext}898015adb094dac5d93471bdec1a502270e3cc6c");
        check(KEY, nonce, "", &format!("{PLAIN}1aafd255"), &whole);
        let aad = "feedfacedeadbeeffeedfacedeadbeefabaddad2";
        check(KEY, nonce, aad, PLAIN, &format!("{ciphertext}76fc6ece0f4e1768cddf8853bb2d551b"));
    }

    #[test]
    fn nothing_is_written_when_the_tag_is_wrong() {
        use crate::crypto::context::Purpose;
        let cipher = Cipher::new(&[7; 32]).unwrap();
        let context = Context::new(Purpose::Record);
        let mut sealed = Vec::new();
        cipher.seal(&context, b"example-value", &mut sealed).unwrap();
        *sealed.last_mut().unwrap() ^= 1;
        let mut room = [0; 13];
        assert_eq!(cipher.open(&context, &sealed, &mut room), Err(CryptoError::Damaged));
        assert_eq!(room, [0; 13]);
    }
}
