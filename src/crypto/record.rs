//! Records: names and metadata, sealed under an epoch's key and bound to the secret they belong to;
//! and lines of the audit log and what was learned from it, which name secrets too.
//!
//! Sealed form: epoch (u32, big-endian) || nonce || ciphertext || tag, the plaintext of a record
//! padded. All of them are opened at start, so nothing here makes a key.

use zeroize::Zeroizing;

use super::CryptoError;
use super::aead::{OVERHEAD_BYTES, plain_len};
use super::context::{Context, Purpose};
use super::keyring::Keyring;
use super::padding::{pad, padded_len, unpadded_len};
use super::value::split_epoch;
use crate::model::{Epoch, SecretId};

impl Keyring {
    /// Seals the record of one secret or directory. Its length is padded.
    pub fn seal_record(&self, id: SecretId, plain: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let keys = self.active_keys();
        let mut padded = Zeroizing::new(vec![0; padded_len(plain.len())?]);
        pad(plain, &mut padded)?;
        let mut sealed = Vec::with_capacity(size_of::<u32>() + OVERHEAD_BYTES + padded.len());
        sealed.extend_from_slice(&keys.epoch.0.to_be_bytes());
        keys.metadata.seal(&self.record_context(id, keys.epoch), &padded, &mut sealed)?;
        Ok(sealed)
    }

    /// Opens a record. `Damaged` if it was changed or belongs elsewhere.
    pub fn open_record(
        &self,
        id: SecretId,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
        let (epoch, rest) = split_epoch(sealed)?;
        let mut plain = Zeroizing::new(vec![0; plain_len(rest)?]);
        let context = self.record_context(id, epoch);
        self.keys(epoch)?.metadata.open(&context, rest, &mut plain)?;
        let len = unpadded_len(&plain)?;
        plain.truncate(len);
        Ok(plain)
    }

    /// Seals what a commit carries of the audit log, for one slot of the store.
    pub fn seal_lines(&self, slot: u8, plain: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let keys = self.active_keys();
        let mut sealed = Vec::with_capacity(size_of::<u32>() + OVERHEAD_BYTES + plain.len());
        sealed.extend_from_slice(&keys.epoch.0.to_be_bytes());
        keys.metadata.seal(&self.lines_context(slot, keys.epoch), plain, &mut sealed)?;
        Ok(sealed)
    }

    /// Opens what [`seal_lines`](Self::seal_lines) has sealed for the same slot.
    pub fn open_lines(&self, slot: u8, sealed: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let (epoch, rest) = split_epoch(sealed)?;
        let mut plain = vec![0; plain_len(rest)?];
        let context = self.lines_context(slot, epoch);
        self.keys(epoch)?.metadata.open(&context, rest, &mut plain)?;
        Ok(plain)
    }

    /// Seals what was learned about the log, which names secrets.
    pub fn seal_learned(&self, plain: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let keys = self.active_keys();
        let mut sealed = Vec::with_capacity(size_of::<u32>() + OVERHEAD_BYTES + plain.len());
        sealed.extend_from_slice(&keys.epoch.0.to_be_bytes());
        keys.metadata.seal(&self.learned_context(keys.epoch), plain, &mut sealed)?;
        Ok(sealed)
    }

    /// Opens what [`seal_learned`](Self::seal_learned) has sealed.
    pub fn open_learned(&self, sealed: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let (epoch, rest) = split_epoch(sealed)?;
        let mut plain = vec![0; plain_len(rest)?];
        self.keys(epoch)?.metadata.open(&self.learned_context(epoch), rest, &mut plain)?;
        Ok(plain)
    }

    fn learned_context(&self, epoch: Epoch) -> Context {
        Context::new(Purpose::Learned).bytes(&self.store.0).number(epoch.0)
    }

    fn lines_context(&self, slot: u8, epoch: Epoch) -> Context {
        Context::new(Purpose::Lines).bytes(&self.store.0).number(slot).number(epoch.0)
    }

    fn record_context(&self, id: SecretId, epoch: Epoch) -> Context {
        Context::new(Purpose::Record).bytes(&self.store.0).bytes(&id.0).number(epoch.0)
    }
}
