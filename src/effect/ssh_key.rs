//! An OpenSSH private key as it is written to files, read for its public half.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::system::{MemoryError, SecretBytes};

const BEGIN: &str = "-----BEGIN OPENSSH PRIVATE KEY-----";
const END: &str = "-----END OPENSSH PRIVATE KEY-----";
const MAGIC: &[u8] = b"openssh-key-v1\0";

/// The public half of a key pair.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct PublicKey {
    /// `ssh-ed25519` and the like.
    pub(super) algorithm: String,
    /// What stands behind it in a file of public keys.
    pub(super) base64: String,
}

impl PublicKey {
    /// Reads it from a private key that can be used without a passphrase.
    pub(super) fn of_private(value: &SecretBytes) -> Result<Self, KeyError> {
        let text = std::str::from_utf8(value.expose()).map_err(|_| KeyError::Malformed)?;
        let text = text.trim().strip_prefix(BEGIN).and_then(|text| text.strip_suffix(END));
        let joined = SecretBytes::with_len(value.len(), |room| {
            let letters =
                text.ok_or(KeyError::Malformed)?.bytes().filter(|c| !c.is_ascii_whitespace());
            Ok::<_, KeyError>(
                room.iter_mut().zip(letters).map(|(place, letter)| *place = letter).count(),
            )
        })?;
        let decoded = SecretBytes::with_len(value.len(), |room| {
            STANDARD.decode_slice(joined.expose(), room).map_err(|_| KeyError::Malformed)
        })?;
        let mut outer = Reader(decoded.expose().strip_prefix(MAGIC).ok_or(KeyError::Malformed)?);
        let cipher = outer.string()?;
        let _derivation = (outer.string()?, outer.string()?);
        if outer.number()? != 1 {
            return Err(KeyError::Malformed);
        }
        let public = outer.string()?;
        if cipher != b"none" {
            return Err(KeyError::Encrypted);
        }
        check_private(outer.string()?, public)?;
        let algorithm = Reader(public).string()?;
        let algorithm = std::str::from_utf8(algorithm).map_err(|_| KeyError::Malformed)?;
        Ok(Self { algorithm: algorithm.to_owned(), base64: STANDARD.encode(public) })
    }
}

/// Makes sure that the private half is whole and belongs to the public one.
fn check_private(private: &[u8], public: &[u8]) -> Result<(), KeyError> {
    let mut private = Reader(private);
    let mut public = Reader(public);
    let same_checks = private.number()? == private.number()?;
    let algorithm = public.string()?;
    let same_algorithm = private.string()? == algorithm;
    // Of RSA both begin with the two public numbers, in another order.
    let (own, theirs) = match algorithm {
        b"ssh-rsa" => ([private.string()?, private.string()?], {
            let exponent = public.string()?;
            [public.string()?, exponent]
        }),
        _ => ([private.string()?, b""], [public.string()?, b""]),
    };
    let (mut parts, mut last) = (0, b"".as_slice());
    while !private.is_padding() {
        last = private.string()?;
        parts += 1;
    }
    let _comment = last;
    let whole = same_checks && same_algorithm && own == theirs && parts >= 2;
    if whole { Ok(()) } else { Err(KeyError::Malformed) }
}

/// Reads the fields of a key, one after the other.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn number(&mut self) -> Result<u32, KeyError> {
        let (number, rest) = self.0.split_first_chunk().ok_or(KeyError::Malformed)?;
        self.0 = rest;
        Ok(u32::from_be_bytes(*number))
    }

    fn string(&mut self) -> Result<&'a [u8], KeyError> {
        let length = usize::try_from(self.number()?).map_err(|_| KeyError::Malformed)?;
        let (string, rest) = self.0.split_at_checked(length).ok_or(KeyError::Malformed)?;
        self.0 = rest;
        Ok(string)
    }

    /// Tells whether nothing is left but the bytes 1, 2, 3, ... that fill the last block.
    fn is_padding(&self) -> bool {
        self.0.len() < 16 && self.0.iter().zip(1..).all(|(byte, expected)| *byte == expected)
    }
}

/// Why a value is no key that SSH could use.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum KeyError {
    #[error("the private key has a passphrase")]
    Encrypted,
    #[error("the value is no OpenSSH private key")]
    Malformed,
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Makes a key with OpenSSH; returns both files.
    fn key(kind: &str, passphrase: &str) -> (SecretBytes, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let mut command = Command::new("ssh-keygen");
        command.args(["-q", "-t", kind, "-C", "a comment", "-N", passphrase, "-f"]).arg(&path);
        assert!(command.status().unwrap().success());
        let private = SecretBytes::copy_from(&std::fs::read(&path).unwrap()).unwrap();
        (private, std::fs::read_to_string(path.with_extension("pub")).unwrap())
    }

    #[test]
    fn the_public_half_is_the_one_that_openssh_writes() {
        for kind in ["ed25519", "rsa", "ecdsa"] {
            let (private, public) = key(kind, "");
            let read = PublicKey::of_private(&private).unwrap();
            assert_eq!(format!("{} {} a comment\n", read.algorithm, read.base64), public);
        }
    }

    #[test]
    fn a_key_with_a_passphrase_a_damaged_one_and_another_text_are_refused() {
        assert_eq!(PublicKey::of_private(&key("ed25519", "x1y2z").0), Err(KeyError::Encrypted));
        let (private, public) = key("ed25519", "");
        let text = String::from_utf8(private.expose().to_vec()).unwrap();
        let mut lines: Vec<&str> = text.lines().collect();
        lines.remove(3);
        for bad in [lines.join("\n").as_str(), public.as_str(), "", BEGIN, &text[..text.len() - 60]]
        {
            let value = SecretBytes::copy_from(bad.as_bytes()).unwrap();
            assert_eq!(PublicKey::of_private(&value), Err(KeyError::Malformed), "{bad}");
        }
    }
}
