//! SSH keys in OpenSSH's own format, and the public half as a line of `authorized_keys`.

use ring::signature::{Ed25519KeyPair, KeyPair as _};
use rsa::rand_core::{TryCryptoRng, TryRng};
use serde::{Deserialize, Serialize};
use ssh_key::private::{Ed25519Keypair, Ed25519PrivateKey, KeypairData, RsaKeypair};
use ssh_key::public::Ed25519PublicKey;
use ssh_key::{LineEnding, PrivateKey};
use zeroize::Zeroizing;

use crate::crypto::{CryptoError, fill_random};
use crate::system::SecretBytes;

use super::{GenerateError, Generated};

const DEFAULT_RSA_BITS: u16 = 3072;

/// How SSH keys are made.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "Settings", into = "Settings")]
pub struct Ssh {
    algorithm: SshAlgorithm,
    /// For RSA alone.
    bits: Option<u16>,
    comment: String,
}

/// What kind of key it is.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SshAlgorithm {
    #[default]
    Ed25519,
    Rsa,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    #[serde(default)]
    algorithm: SshAlgorithm,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bits: Option<u16>,
    #[serde(default)]
    comment: String,
}

impl Ssh {
    /// Returns the generator of keys of that kind, with the usual length and no comment.
    pub fn of(algorithm: SshAlgorithm) -> Self {
        Self { algorithm, ..Self::default() }
    }

    pub(super) fn generate(&self) -> Result<Generated, GenerateError> {
        let pair = match self.algorithm {
            SshAlgorithm::Ed25519 => KeypairData::Ed25519(ed25519()?),
            SshAlgorithm::Rsa => KeypairData::Rsa(rsa(self.bits.unwrap_or(DEFAULT_RSA_BITS))?),
        };
        let key = PrivateKey::new(pair, &*self.comment).map_err(|_| GenerateError::Key)?;
        let public = key.public_key().to_openssh().map_err(|_| GenerateError::Key)?;
        let text = key.to_openssh(LineEnding::LF).map_err(|_| GenerateError::Key)?;
        let value = SecretBytes::copy_from(text.as_bytes())?;
        Ok(Generated { value, expires: None, public: Some(public) })
    }
}

fn ed25519() -> Result<Ed25519Keypair, GenerateError> {
    let mut seed = Zeroizing::new([0; 32]);
    fill_random(&mut *seed)?;
    let pair = Ed25519KeyPair::from_seed_unchecked(&*seed).map_err(|_| GenerateError::Key)?;
    let public = pair.public_key().as_ref().try_into().map_err(|_| GenerateError::Key)?;
    let private = Ed25519PrivateKey::from_bytes(&seed);
    Ok(Ed25519Keypair { public: Ed25519PublicKey(public), private })
}

fn rsa(bits: u16) -> Result<RsaKeypair, GenerateError> {
    let key = rsa::PrivateKey::new(&mut Kernel, bits.into()).map_err(|_| GenerateError::Key)?;
    RsaKeypair::try_from(&key).map_err(|_| GenerateError::Key)
}

/// The kernel's random bytes, for a library that draws by itself.
struct Kernel;

impl TryRng for Kernel {
    type Error = CryptoError;

    fn try_next_u32(&mut self) -> Result<u32, CryptoError> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_ne_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, CryptoError> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_ne_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, room: &mut [u8]) -> Result<(), CryptoError> {
        fill_random(room)
    }
}

impl TryCryptoRng for Kernel {}

impl TryFrom<Settings> for Ssh {
    type Error = String;

    fn try_from(settings: Settings) -> Result<Self, String> {
        let Settings { algorithm, bits, comment } = settings;
        match (algorithm, bits) {
            (SshAlgorithm::Ed25519, Some(_)) => {
                return Err("`bits` is for rsa: an ed25519 key has one size".into());
            }
            (SshAlgorithm::Rsa, Some(bits)) if ![2048, 3072, 4096].contains(&bits) => {
                return Err(format!("an RSA key of {bits} bits: use 2048, 3072 or 4096"));
            }
            _ => {}
        }
        if comment.len() > 256 || comment.chars().any(char::is_control) {
            return Err("`comment` is one line of at most 256 bytes".into());
        }
        Ok(Self { algorithm, bits, comment })
    }
}

impl From<Ssh> for Settings {
    fn from(ssh: Ssh) -> Self {
        let Ssh { algorithm, bits, comment } = ssh;
        Self { algorithm, bits, comment }
    }
}
