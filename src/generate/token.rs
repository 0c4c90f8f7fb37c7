//! Random bytes and how they are written: API keys, webhook secrets, HMAC keys, raw keys, UUIDs.

use base64ct::{Base64, Base64UrlUnpadded, Encoding as _};
use serde::{Deserialize, Serialize};

use crate::crypto::fill_random;
use crate::system::SecretBytes;

use super::GenerateError;

/// How many random bytes there are, before they are written as text.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct ByteCount(u16);

/// How bytes are written.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// With padding.
    Base64,
    /// As they are.
    Binary,
    /// In lower case.
    Hex,
    /// base64 with `-` and `_`, without padding: nothing in it has to be quoted in a URL or a shell.
    #[default]
    UrlSafe,
}

/// What a key is for. Its length is that of the digest, as RFC 7518 asks for.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HmacAlgorithm {
    #[default]
    Hs256,
    Hs384,
    Hs512,
}

/// Text before the random part: printable ASCII.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix(String);

/// Returns a prefix with so many random bytes behind it.
pub(super) fn random(
    prefix: &str,
    bytes: ByteCount,
    encoding: Encoding,
) -> Result<SecretBytes, GenerateError> {
    let count = usize::from(bytes.0);
    let random = SecretBytes::with_len::<GenerateError>(count, |room| {
        fill_random(room)?;
        Ok(count)
    })?;
    let len = prefix.len() + encoding.length(random.expose());
    SecretBytes::with_len(len, |room| {
        let (before, after) = room.split_at_mut_checked(prefix.len()).ok_or(GenerateError::Key)?;
        before.copy_from_slice(prefix.as_bytes());
        encoding.write(random.expose(), after)?;
        Ok(len)
    })
}

/// Returns a UUID of version 4 (RFC 9562) in its usual form.
pub(super) fn uuid() -> Result<SecretBytes, GenerateError> {
    let random = SecretBytes::with_len::<GenerateError>(16, |room| {
        fill_random(room)?;
        if let [_, _, _, _, _, _, version, _, variant, ..] = room {
            *version = *version & 0x0f | 0x40;
            *variant = *variant & 0x3f | 0x80;
        }
        Ok(16)
    })?;
    SecretBytes::with_len(36, |room| {
        let mut rest = room;
        let mut bytes = random.expose();
        for (index, count) in [4, 2, 2, 2, 6].into_iter().enumerate() {
            if index > 0 {
                let (hyphen, after) = rest.split_first_mut().ok_or(GenerateError::Key)?;
                *hyphen = b'-';
                rest = after;
            }
            let (group, more) = bytes.split_at_checked(count).ok_or(GenerateError::Key)?;
            let (digits, after) = rest.split_at_mut_checked(count * 2).ok_or(GenerateError::Key)?;
            write_hex(group, digits);
            (bytes, rest) = (more, after);
        }
        Ok(36)
    })
}

impl Encoding {
    pub(super) fn binary() -> Self {
        Self::Binary
    }

    fn length(self, bytes: &[u8]) -> usize {
        match self {
            Self::Base64 => Base64::encoded_len(bytes),
            Self::Binary => bytes.len(),
            Self::Hex => bytes.len() * 2,
            Self::UrlSafe => Base64UrlUnpadded::encoded_len(bytes),
        }
    }

    fn write(self, bytes: &[u8], room: &mut [u8]) -> Result<(), GenerateError> {
        match self {
            Self::Base64 => Base64::encode(bytes, room).map(drop).map_err(|_| GenerateError::Key),
            Self::Binary => {
                room.copy_from_slice(bytes);
                Ok(())
            }
            Self::Hex => {
                write_hex(bytes, room);
                Ok(())
            }
            Self::UrlSafe => {
                Base64UrlUnpadded::encode(bytes, room).map(drop).map_err(|_| GenerateError::Key)
            }
        }
    }
}

fn write_hex(bytes: &[u8], room: &mut [u8]) {
    let digit = |value: u8| if value < 10 { b'0' + value } else { b'a' + value - 10 };
    for (byte, digits) in bytes.iter().zip(room.chunks_exact_mut(2)) {
        digits.copy_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
    }
}

impl HmacAlgorithm {
    pub(super) fn key_bytes(self) -> ByteCount {
        match self {
            Self::Hs256 => ByteCount(32),
            Self::Hs384 => ByteCount(48),
            Self::Hs512 => ByteCount(64),
        }
    }
}

impl Default for ByteCount {
    fn default() -> Self {
        Self(32)
    }
}

impl TryFrom<u32> for ByteCount {
    type Error = String;

    fn try_from(bytes: u32) -> Result<Self, String> {
        let in_range = u16::try_from(bytes).ok().filter(|bytes| (16..=4096).contains(bytes));
        in_range.map(Self).ok_or_else(|| format!("{bytes} random bytes: use 16 to 4096"))
    }
}

impl From<ByteCount> for u32 {
    fn from(bytes: ByteCount) -> Self {
        bytes.0.into()
    }
}

impl Prefix {
    /// Returns the prefix that senders of webhooks have agreed on.
    pub fn webhook() -> Self {
        Self("whsec_".into())
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Prefix {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let is_clean = text.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_clean || text.len() > 64 {
            return Err(format!("{text:?} is no prefix: use up to 64 printable ASCII characters"));
        }
        Ok(Self(text))
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> Self {
        prefix.0
    }
}
