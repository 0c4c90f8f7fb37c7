//! Makes new values: passwords, tokens, keys and certificates.
//!
//! A [`Generator`] is what the configuration says, checked when it is read. Random bytes come from
//! [`crate::crypto`]; only `ring`, which makes the keys of certificates, asks the kernel by itself. What
//! is made leaves as [`SecretBytes`], and buffers on the way are wiped; the numbers inside of `ring` and
//! `rsa` lie in ordinary memory while a key is made.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

use crate::credential::{self, Shape, ShapeError};
use crate::crypto::CryptoError;
use crate::model::{SecretName, SecretType, Timestamp};
use crate::system::{MemoryError, SecretBytes};

mod authority;
mod password;
mod pem;
mod ssh;
#[cfg(test)]
mod tests;
mod tls;
mod token;

pub use password::{Class, Password};
pub use ssh::{Ssh, SshAlgorithm};
pub use tls::{Tls, TlsAlgorithm, TlsUse};
pub use token::{ByteCount, Encoding, HmacAlgorithm, Prefix};

/// How the next value of a secret is made.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Generator {
    /// Random bytes in URL-safe base64.
    ApiKey {
        #[serde(default)]
        bytes: ByteCount,
    },
    /// A key for HMAC, such as signs a JWT, as long as the digest.
    Hmac {
        #[serde(default)]
        algorithm: HmacAlgorithm,
        #[serde(default)]
        encoding: Encoding,
    },
    /// A password in the JSON object that the current value is.
    Json(Password),
    /// A password: bare, or in the URL or JSON object that the current value is.
    Password(Password),
    /// Text that says what the key is for, and random bytes.
    Prefixed {
        prefix: Prefix,
        #[serde(default)]
        bytes: ByteCount,
        #[serde(default)]
        encoding: Encoding,
    },
    /// Random bytes, as they are or as text.
    Raw {
        #[serde(default)]
        bytes: ByteCount,
        #[serde(default = "Encoding::binary")]
        encoding: Encoding,
    },
    Ssh(Ssh),
    Tls(Tls),
    /// A password in the URL that the current value is.
    Url(Password),
    /// A random UUID (version 4).
    // With braces, because serde lets a unit variant have any fields.
    Uuid {},
}

/// What a new value may depend on.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    pub current: Option<&'a SecretBytes>,
    /// The user to put into the value, where users take turns.
    pub user: Option<&'a str>,
    /// The key and the certificates of the secret that [`Generator::authority`] names, as PEM.
    pub authority: Option<&'a SecretBytes>,
    pub now: Timestamp,
}

/// A new value, and what is known of it.
#[derive(Debug)]
pub struct Generated {
    pub value: SecretBytes,
    /// When it ends by itself: a certificate's last moment.
    pub expires: Option<Timestamp>,
    /// The half that may be known: the line for `authorized_keys`.
    pub public: Option<String>,
}

impl Generator {
    /// Returns what a type of secret is made with if nothing is configured. Some have nothing, because
    /// a key or certificate that others do not know of is of no use to anybody.
    pub fn default_for(secret_type: SecretType) -> Option<Self> {
        match secret_type {
            SecretType::ApiKey | SecretType::OauthToken => {
                Some(Self::ApiKey { bytes: ByteCount::default() })
            }
            SecretType::DatabasePassword | SecretType::EnvironmentVariable => {
                Some(Self::Password(Password::default()))
            }
            SecretType::JwtToken => Some(Self::Hmac {
                algorithm: HmacAlgorithm::default(),
                encoding: Encoding::default(),
            }),
            SecretType::WebhookSecret => Some(Self::Prefixed {
                prefix: Prefix::webhook(),
                bytes: ByteCount::default(),
                encoding: Encoding::Base64,
            }),
            SecretType::EncryptionKey
            | SecretType::ServiceAccountKey
            | SecretType::SshKey
            | SecretType::TlsCertificate => None,
        }
    }

    /// Returns the secret whose key signs what is made.
    pub fn authority(&self) -> Option<&SecretName> {
        match self {
            Self::Tls(tls) => tls.authority(),
            Self::ApiKey { .. }
            | Self::Hmac { .. }
            | Self::Json(_)
            | Self::Password(_)
            | Self::Prefixed { .. }
            | Self::Raw { .. }
            | Self::Ssh(_)
            | Self::Url(_)
            | Self::Uuid {} => None,
        }
    }

    /// Makes a value. An RSA key takes seconds.
    pub fn generate(&self, inputs: &Inputs<'_>) -> Result<Generated, GenerateError> {
        match self {
            Self::Json(password) => credential_of(password, Some(Shape::Json), inputs),
            Self::Password(password) => credential_of(password, None, inputs),
            Self::Url(password) => credential_of(password, Some(Shape::Url), inputs),
            // No other value could say which user it is for.
            _ if inputs.user.is_some() => Err(ShapeError::NoUser.into()),
            Self::ApiKey { bytes } => bare(token::random("", *bytes, Encoding::UrlSafe)?),
            Self::Hmac { algorithm, encoding } => {
                bare(token::random("", algorithm.key_bytes(), *encoding)?)
            }
            Self::Prefixed { prefix, bytes, encoding } => {
                bare(token::random(prefix.as_str(), *bytes, *encoding)?)
            }
            Self::Raw { bytes, encoding } => bare(token::random("", *bytes, *encoding)?),
            Self::Ssh(ssh) => ssh.generate(),
            Self::Tls(tls) => tls.generate(inputs),
            Self::Uuid {} => bare(token::uuid()?),
        }
    }
}

fn credential_of(
    password: &Password,
    needed: Option<Shape>,
    inputs: &Inputs<'_>,
) -> Result<Generated, GenerateError> {
    let new = password.generate()?;
    let Some(current) = inputs.current else {
        return match (needed, inputs.user) {
            (Some(shape), _) => Err(GenerateError::NeedsCurrent(shape)),
            (None, Some(_)) => Err(ShapeError::NoUser.into()),
            (None, None) => bare(new),
        };
    };
    match needed {
        Some(shape) if credential::shape(current)? != shape => {
            Err(GenerateError::NeedsCurrent(shape))
        }
        _ => bare(credential::with(current, inputs.user, &new)?),
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the last step of what can fail")]
fn bare(value: SecretBytes) -> Result<Generated, GenerateError> {
    Ok(Generated { value, expires: None, public: None })
}

/// Why there is no value.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    #[error("the authority cannot sign: {0}")]
    Authority(&'static str),
    #[error(transparent)]
    Crypto(#[from] CryptoError),
    #[error("the key could not be made")]
    Key,
    #[error(
        "there is no such current value to put the password into: a {0} with a password is needed"
    )]
    NeedsCurrent(Shape),
    #[error("the secret with the authority's key was not given")]
    NoAuthority,
    #[error(transparent)]
    Shape(#[from] ShapeError),
    #[error("no password met what is required of it")]
    Unlucky,
}

impl From<MemoryError> for GenerateError {
    fn from(error: MemoryError) -> Self {
        Self::Crypto(error.into())
    }
}
