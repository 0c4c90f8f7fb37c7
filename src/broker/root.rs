//! The authenticated root of the store: how many commits, what is in it, where the log stood.
//!
//! It is rewritten in every transaction. A record that was removed, added or put back alone no
//! longer fits the sum; an older copy of the whole file has a generation that the log has passed.

use serde::{Deserialize, Serialize};

use super::BrokerError;
use crate::audit::Head;
use crate::crypto::{CryptoError, Keyring, RecordSet};
use crate::model::Generation;
use crate::store::StoreError;

/// The root of one generation.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct Root {
    pub(super) generation: Generation,
    /// Over every entry of every table besides the root's own.
    pub(super) set: RecordSet,
    /// How often something was sealed under the active epoch. A random nonce of 96 bits is good for
    /// so many messages under one key, and no more (NIST SP 800-38D, section 8.3).
    pub(super) seals: u64,
    /// The end of the log when the transaction was made; it was on disk before.
    pub(super) audit: Head,
}

/// Length of the authentication code behind the encoded root, in bytes.
const MAC_BYTES: usize = 32;

impl Root {
    pub(super) const KEY: &'static [u8] = b"root";

    pub(super) fn encode(&self, keyring: &Keyring) -> Vec<u8> {
        // A struct of numbers and byte arrays cannot fail to encode; if it did, the empty root
        // would be refused at the next start rather than trusted.
        let mut bytes = postcard::to_stdvec(self).unwrap_or_default();
        let mac = keyring.authenticate(&bytes);
        bytes.extend_from_slice(&mac);
        bytes
    }

    pub(super) fn decode(bytes: &[u8], keyring: &Keyring) -> Result<Self, BrokerError> {
        let split = bytes.len().checked_sub(MAC_BYTES);
        let Some((plain, mac)) = split.and_then(|at| bytes.split_at_checked(at)) else {
            return Err(StoreError::Damaged("the root record is too short".into()).into());
        };
        if !keyring.verify(plain, mac) {
            return Err(BrokerError::Damaged(CryptoError::Damaged));
        }
        postcard::from_bytes(plain).map_err(|err| {
            StoreError::Damaged(format!("the root record cannot be decoded: {err}")).into()
        })
    }
}
