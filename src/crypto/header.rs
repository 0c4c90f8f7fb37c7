//! The header of a store: what must be readable before there is a key.
//!
//! Encoded as `SECRETFS` || format (u16, big-endian) || postcard of store id and slots. The format
//! is that of the whole store: a change of any sealed form in this module makes a new one. A store is of
//! the lowest that has what is in it, so that older releases open it as long as they can.

use serde::{Deserialize, Serialize};

use super::{CryptoError, Slot, SlotKind};
use crate::model::StoreId;

const MAGIC: &[u8; 8] = b"SECRETFS";
const FORMAT: u16 = 1;
/// Has slots for the keys of services too.
const FORMAT_WITH_SERVICES: u16 = 2;
/// Each slot for a passphrase costs a second to try, so a header must not have any number of them.
const MAX_SLOTS: usize = 16;

/// A store's id and the slots from which its root key can be had.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Header {
    pub store: StoreId,
    pub slots: Vec<Slot>,
}

impl Header {
    /// Returns the bytes that `decode` reads.
    pub fn encode(&self) -> Result<Vec<u8>, CryptoError> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&self.format().to_be_bytes());
        postcard::to_extend(self, bytes).map_err(|_| CryptoError::TooLong)
    }

    /// Reads a header. `UnknownFormat` for that of a newer release; nothing is authenticated yet.
    pub fn decode(bytes: &[u8]) -> Result<Self, CryptoError> {
        let rest = bytes
            .strip_prefix(MAGIC)
            .ok_or(CryptoError::Malformed("this is not the header of a secretfs store"))?;
        let (format, rest) =
            rest.split_first_chunk().ok_or(CryptoError::Malformed("the header is cut short"))?;
        let format = u16::from_be_bytes(*format);
        if ![FORMAT, FORMAT_WITH_SERVICES].contains(&format) {
            return Err(CryptoError::UnknownFormat(format));
        }
        let (header, rest): (Self, _) = postcard::take_from_bytes(rest)
            .map_err(|_| CryptoError::Malformed("the header cannot be read"))?;
        if !rest.is_empty() || header.slots.len() > MAX_SLOTS {
            return Err(CryptoError::Malformed("the header has too many bytes or slots"));
        }
        if header.format() != format {
            return Err(CryptoError::Malformed("the header is of another format than its slots"));
        }
        Ok(header)
    }

    fn format(&self) -> u16 {
        let is_a_service_s = |slot: &Slot| matches!(slot.kind, SlotKind::Wrapped { .. });
        if self.slots.iter().any(is_a_service_s) { FORMAT_WITH_SERVICES } else { FORMAT }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::RootKey;
    use crate::crypto::tests::slot;
    use crate::system::SecretBytes;

    fn header() -> Header {
        Header { store: StoreId([7; 16]), slots: vec![slot(), slot()] }
    }

    #[test]
    fn a_header_is_read_as_it_was_written() {
        let header = header();
        assert_eq!(Header::decode(&header.encode().unwrap()), Ok(header));
    }

    #[test]
    fn an_unknown_format_is_named() {
        let mut bytes = header().encode().unwrap();
        bytes[9] = 3;
        let error = Header::decode(&bytes).unwrap_err();
        assert_eq!(error, CryptoError::UnknownFormat(3));
        assert_eq!(error.to_string(), "format version 3 is not known to this release");
        bytes[9] = 2;
        assert!(Header::decode(&bytes).is_err(), "there is nothing of format 2 in it");
    }

    #[test]
    fn a_header_with_a_service_s_slot_is_of_a_format_that_older_releases_refuse() {
        let kind = SlotKind::Wrapped {
            backend: "corp".into(),
            key: "secretfs".into(),
            wrapped: "vault:v1:example".into(),
        };
        let mut header = header();
        let root = RootKey::generate().unwrap();
        let plain = SecretBytes::copy_from(&[5; 32]).unwrap();
        header.slots.push(Slot::seal(header.store, kind, &plain, &root).unwrap());
        let bytes = header.encode().unwrap();
        assert_eq!((bytes[8], bytes[9]), (0, 2));
        assert_eq!(Header::decode(&bytes), Ok(header));
    }

    #[test]
    fn cut_and_lengthened_headers_are_refused() {
        let bytes = header().encode().unwrap();
        for len in 0..bytes.len() {
            assert!(Header::decode(&bytes[..len]).is_err(), "{len}");
        }
        assert!(Header::decode(&[&bytes[..], &[0]].concat()).is_err());
        let many = Header { slots: vec![slot(); MAX_SLOTS + 1], ..header() };
        assert!(Header::decode(&many.encode().unwrap()).is_err());
    }
}
