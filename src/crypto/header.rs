//! The header of a store: what must be readable before there is a key.
//!
//! Encoded as `SECRETFS` || format (u16, big-endian) || postcard of store id and slots. The format
//! is that of the whole store: a change of any sealed form in this module makes a new one.

use serde::{Deserialize, Serialize};

use super::{CryptoError, Slot};
use crate::model::StoreId;

const MAGIC: &[u8; 8] = b"SECRETFS";
const FORMAT: u16 = 1;
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
        bytes.extend_from_slice(&FORMAT.to_be_bytes());
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
        if format != FORMAT {
            return Err(CryptoError::UnknownFormat(format));
        }
        let (header, rest): (Self, _) = postcard::take_from_bytes(rest)
            .map_err(|_| CryptoError::Malformed("the header cannot be read"))?;
        if !rest.is_empty() || header.slots.len() > MAX_SLOTS {
            return Err(CryptoError::Malformed("the header has too many bytes or slots"));
        }
        Ok(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::tests::slot;

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
        bytes[9] = 2;
        let error = Header::decode(&bytes).unwrap_err();
        assert_eq!(error, CryptoError::UnknownFormat(2));
        assert_eq!(error.to_string(), "format version 2 is not known to this release");
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
