//! From one key to others: HKDF and HMAC with SHA-256, and Argon2id for passphrases.

use argon2::{Algorithm, Argon2, Params};
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::CryptoError;
use super::aead::KEY_BYTES;
use super::context::Purpose;
use crate::model::StoreId;
use crate::system::{Locked, SecretBytes};

/// Derives the key of one purpose from key material, with HKDF-SHA256 (RFC 5869).
pub(super) fn derive(
    material: &[u8],
    store: StoreId,
    purpose: Purpose,
) -> Result<SecretBytes, CryptoError> {
    SecretBytes::with_len(KEY_BYTES, |key| {
        Hkdf::<Sha256>::new(Some(&store.0), material)
            .expand(purpose.label(), key)
            .map_err(|_| CryptoError::TooLong)?;
        Ok(KEY_BYTES)
    })
}

/// A key for HMAC-SHA256 (RFC 2104), ready for use, in locked memory.
pub(super) struct MacKey(Locked<Hmac<Sha256>>);

impl MacKey {
    pub(super) fn new(key: &[u8]) -> Result<Self, CryptoError> {
        let mac = Hmac::new_from_slice(key)
            .map_err(|_| CryptoError::Malformed("a key is of the wrong length"))?;
        Ok(Self(Locked::new(mac)?))
    }

    pub(super) fn derive(
        material: &[u8],
        store: StoreId,
        purpose: Purpose,
    ) -> Result<Self, CryptoError> {
        Self::new(derive(material, store, purpose)?.expose())
    }

    /// Authenticates the parts joined; the caller sees to it that they cannot be split otherwise.
    pub(super) fn mac(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = Hmac::clone(&self.0);
        parts.iter().for_each(|part| mac.update(part));
        mac.finalize().into_bytes().into()
    }

    /// Compares in constant time.
    pub(super) fn verify(&self, parts: &[&[u8]], expected: &[u8]) -> bool {
        self.mac(parts).ct_eq(expected).into()
    }
}

/// The cost of trying one passphrase (Argon2id, RFC 9106).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Stretching {
    pub memory_kib: u32,
    pub passes: u32,
    pub lanes: u32,
}

impl Stretching {
    /// 256 MiB: about a second on a small machine.
    pub const DEFAULT: Self = Self { memory_kib: 256 * 1024, passes: 3, lanes: 4 };
    /// The second choice of RFC 9106; less is refused, also where a header asks for it.
    pub const FLOOR: Self = Self { memory_kib: 64 * 1024, passes: 3, lanes: 4 };
    // More could only stand in a header that somebody has changed, and would be a way to stop us.
    const CEILING: Self = Self { memory_kib: 4 * 1024 * 1024, passes: 64, lanes: 64 };

    /// Makes a key of a passphrase. `WeakStretching` below the floor.
    pub(super) fn stretch(
        self,
        passphrase: &SecretBytes,
        salt: &[u8],
    ) -> Result<SecretBytes, CryptoError> {
        if self.memory_kib < Self::FLOOR.memory_kib || self.passes < Self::FLOOR.passes {
            return Err(CryptoError::WeakStretching);
        }
        let ceiling = Self::CEILING;
        if self.memory_kib > ceiling.memory_kib
            || self.passes > ceiling.passes
            || self.lanes > ceiling.lanes
        {
            return Err(CryptoError::Malformed("the parameters of the passphrase are too high"));
        }
        let params = Params::new(self.memory_kib, self.passes, self.lanes, Some(KEY_BYTES))
            .map_err(|_| CryptoError::Malformed("the parameters of the passphrase"))?;
        let argon2 = Argon2::new(Algorithm::Argon2id, argon2::Version::V0x13, params);
        SecretBytes::with_len(KEY_BYTES, |key| {
            argon2
                .hash_password_into(passphrase.expose(), salt, key)
                .map_err(|_| CryptoError::TooLong)?;
            Ok(KEY_BYTES)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::tests::unhex;

    #[test]
    fn hmac_agrees_with_rfc_4231() {
        let mac = |key: &[u8], text: &[u8]| MacKey::new(key).unwrap().mac(&[text]).to_vec();
        let expected = "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7";
        assert_eq!(mac(&[0x0b; 20], b"Hi There"), unhex(expected));
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(mac(b"Jefe", b"what do ya want for nothing?"), unhex(expected));
        let expected = "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe";
        assert_eq!(mac(&[0xaa; 20], &[0xdd; 50]), unhex(expected));
    }

    #[test]
    fn hkdf_agrees_with_rfc_5869() {
        let salt = unhex("000102030405060708090a0b0c");
        let mut okm = [0; 42];
        let hkdf = Hkdf::<Sha256>::new(Some(&salt), &[0x0b; 22]);
        hkdf.expand(&unhex("f0f1f2f3f4f5f6f7f8f9"), &mut okm).unwrap();
        let expected = "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf\
                        34007208d5b887185865";
        assert_eq!(okm.to_vec(), unhex(expected));
    }

    #[test]
    fn argon2id_agrees_with_rfc_9106() {
        let mut builder = argon2::ParamsBuilder::new();
        builder.m_cost(32).t_cost(3).p_cost(4).output_len(32);
        builder.data(argon2::AssociatedData::new(&[4; 12]).unwrap());
        let params = builder.build().unwrap();
        let version = argon2::Version::V0x13;
        let argon2 =
            Argon2::new_with_secret(&[3; 8], Algorithm::Argon2id, version, params).unwrap();
        let mut tag = [0; 32];
        argon2.hash_password_into(&[1; 32], &[2; 16], &mut tag).unwrap();
        let expected = "0d640df58d78766c08c037a34a8b53c9d01ef0452d75b65eb52520e96b01e659";
        assert_eq!(tag.to_vec(), unhex(expected));
    }

    #[test]
    fn keys_differ_by_purpose_store_and_material() {
        let mut keys = std::collections::HashSet::new();
        for purpose in Purpose::ALL {
            for (store, material) in [(1, 1), (1, 2), (2, 1)] {
                let key = derive(&[material; 32], StoreId([store; 16]), purpose).unwrap();
                assert!(keys.insert(key.expose().to_vec()), "{purpose:?}");
            }
        }
    }

    #[test]
    fn parameters_out_of_bounds_are_refused_before_any_work() {
        let passphrase = SecretBytes::copy_from(b"example-value").unwrap();
        let refused = |stretching: Stretching| stretching.stretch(&passphrase, &[0; 16]).err();
        let floor = Stretching::FLOOR;
        let weak = Some(CryptoError::WeakStretching);
        assert_eq!(refused(Stretching { memory_kib: 8, passes: 1, lanes: 1 }), weak);
        assert_eq!(refused(Stretching { passes: 2, ..floor }), weak);
        assert_eq!(refused(Stretching { memory_kib: floor.memory_kib - 1, ..floor }), weak);
        let high = |stretching| matches!(refused(stretching), Some(CryptoError::Malformed(_)));
        assert!(high(Stretching { memory_kib: u32::MAX, ..floor }));
        assert!(high(Stretching { passes: u32::MAX, ..floor }));
        assert!(high(Stretching { lanes: 0, ..floor }) && high(Stretching { lanes: 65, ..floor }));
    }
}
