//! An OpenSSH private key as it is written to files, read for its public half.

use ssh_key::PrivateKey;

use crate::system::SecretBytes;

/// The public half of a key pair.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct PublicKey {
    /// `ssh-ed25519` and the like.
    pub(super) algorithm: String,
    /// What stands behind it in a file of public keys.
    pub(super) base64: String,
}

impl PublicKey {
    /// Reads it from a private key that is whole and can be used without a passphrase.
    pub(super) fn of_private(value: &SecretBytes) -> Result<Self, KeyError> {
        let key = PrivateKey::from_openssh(value.expose()).map_err(|_| KeyError::Malformed)?;
        if key.is_encrypted() {
            return Err(KeyError::Encrypted);
        }
        let line = key.public_key().to_openssh().map_err(|_| KeyError::Malformed)?;
        let mut words = line.split(' ').map(str::to_owned);
        match (words.next(), words.next()) {
            (Some(algorithm), Some(base64)) => Ok(Self { algorithm, base64 }),
            (Some(_) | None, _) => Err(KeyError::Malformed),
        }
    }
}

/// Why a value is no key that SSH could use.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum KeyError {
    #[error("the private key has a passphrase")]
    Encrypted,
    #[error("the value is no OpenSSH private key")]
    Malformed,
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
        for bad in [lines.join("\n").as_str(), public.as_str(), "", &text[..text.len() - 60]] {
            let value = SecretBytes::copy_from(bad.as_bytes()).unwrap();
            assert_eq!(PublicKey::of_private(&value), Err(KeyError::Malformed), "{bad}");
        }
    }
}
