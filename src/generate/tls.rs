//! TLS: a private key, its certificate and the chain in one PEM file, in the order in which servers
//! read them.
//!
//! One value holds all, so that no reader can get a key and a certificate of different versions.

use std::net::IpAddr;

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SerialNumber,
};
use rustls_pki_types::PrivatePkcs8KeyDer;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::crypto::{fill_random, random_id};
use crate::model::{SecretName, Timestamp};
use crate::system::{SecretBuffer, SecretBytes};

use super::authority::Authority;
use super::{GenerateError, Generated, Inputs, pem};

const DEFAULT_DAYS: u16 = 90;
const DAY_SECONDS: i64 = 24 * 60 * 60;
/// Certificates begin a little early, for peers whose clocks are slow.
const EARLY_SECONDS: i64 = 5 * 60;
/// The longest common name that X.520 has room for.
const MAX_COMMON_NAME: usize = 64;

/// How certificates are made.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "Settings", into = "Settings")]
pub struct Tls(Settings);

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// Host names, `*.` before them allowed, and addresses. The first is the common name too.
    names: Vec<String>,
    #[serde(default = "default_days")]
    days: u16,
    #[serde(default)]
    algorithm: TlsAlgorithm,
    #[serde(default = "default_uses")]
    uses: Vec<TlsUse>,
    /// The secret with the key and the certificates that sign; without it the key signs itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    authority: Option<SecretName>,
}

/// What kind of key it is.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TlsAlgorithm {
    Ed25519,
    #[default]
    P256,
    P384,
}

/// Which side of a connection may show the certificate.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TlsUse {
    Client,
    Server,
}

impl Tls {
    /// Returns the generator of certificates for those names that sign themselves.
    pub fn self_signed(names: Vec<String>) -> Result<Self, String> {
        Settings {
            names,
            days: default_days(),
            algorithm: TlsAlgorithm::default(),
            uses: default_uses(),
            authority: None,
        }
        .try_into()
    }

    pub(super) fn authority(&self) -> Option<&SecretName> {
        self.0.authority.as_ref()
    }

    pub(super) fn generate(&self, inputs: &Inputs<'_>) -> Result<Generated, GenerateError> {
        let key = self.0.algorithm.key()?;
        let last = inputs.now.as_second() + i64::from(self.0.days) * DAY_SECONDS;
        let mut value = SecretBuffer::new();
        pem::write(&mut value, "PRIVATE KEY", key.serialized_der())?;
        let expires = match (&self.0.authority, inputs.authority) {
            (None, _) => {
                let params = self.params(inputs.now, last)?;
                let certificate = params.self_signed(&*key).map_err(|_| GenerateError::Key)?;
                pem::write(&mut value, "CERTIFICATE", certificate.der())?;
                last
            }
            (Some(_), None) => return Err(GenerateError::NoAuthority),
            (Some(_), Some(bundle)) => {
                let authority = Authority::read(bundle, inputs.now)?;
                let last = last.min(authority.not_after.as_second());
                let params = self.params(inputs.now, last)?;
                let certificate = params.signed_by(&*key, &authority.issuer()?);
                let certificate = certificate.map_err(|_| GenerateError::Key)?;
                pem::write(&mut value, "CERTIFICATE", certificate.der())?;
                for above in &authority.chain {
                    pem::write(&mut value, "CERTIFICATE", above.expose())?;
                }
                last
            }
        };
        let expires = Timestamp::from_second(expires).ok();
        Ok(Generated { value: value.into_bytes(), expires, public: None })
    }

    fn params(&self, now: Timestamp, last_second: i64) -> Result<CertificateParams, GenerateError> {
        let time =
            |seconds| OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| GenerateError::Key);
        let mut params =
            CertificateParams::new(self.0.names.clone()).map_err(|_| GenerateError::Key)?;
        params.not_before = time(now.as_second() - EARLY_SECONDS)?;
        params.not_after = time(last_second)?;
        let mut serial = random_id()?;
        if let Some(first) = serial.first_mut() {
            // Positive, and of full length.
            *first = *first & 0x7f | 0x40;
        }
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.distinguished_name = DistinguishedName::new();
        if let Some(name) = self.0.names.first().filter(|name| name.len() <= MAX_COMMON_NAME) {
            params.distinguished_name.push(DnType::CommonName, &**name);
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = self.0.authority.is_some();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = self.0.uses.iter().map(|one| one.rcgen()).collect();
        Ok(params)
    }
}

impl TlsAlgorithm {
    fn key(self) -> Result<Zeroizing<KeyPair>, GenerateError> {
        let key = match self {
            Self::Ed25519 => {
                let key = ed25519_pkcs8()?;
                let key = PrivatePkcs8KeyDer::from(key.expose());
                KeyPair::from_pkcs8_der_and_sign_algo(&key, &rcgen::PKCS_ED25519)
            }
            Self::P256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
            Self::P384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
        };
        key.map(Zeroizing::new).map_err(|_| GenerateError::Key)
    }
}

/// Returns a new key as RFC 8410 writes it. The library's own are of a newer version with the public key
/// behind, which OpenSSL 3.0 does not read.
fn ed25519_pkcs8() -> Result<SecretBytes, GenerateError> {
    const BEFORE_SEED: [u8; 16] =
        *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
    SecretBytes::with_len(BEFORE_SEED.len() + 32, |room| {
        let (before, seed) = room.split_first_chunk_mut::<16>().ok_or(GenerateError::Key)?;
        *before = BEFORE_SEED;
        fill_random(seed)?;
        Ok(BEFORE_SEED.len() + 32)
    })
}

impl TlsUse {
    fn rcgen(self) -> ExtendedKeyUsagePurpose {
        match self {
            Self::Client => ExtendedKeyUsagePurpose::ClientAuth,
            Self::Server => ExtendedKeyUsagePurpose::ServerAuth,
        }
    }
}

impl TryFrom<Settings> for Tls {
    type Error = String;

    fn try_from(settings: Settings) -> Result<Self, String> {
        if settings.names.is_empty() {
            return Err("a certificate needs at least one of `names`".into());
        }
        if let Some(name) = settings.names.iter().find(|name| !is_subject(name)) {
            return Err(format!(
                "{name:?} cannot be in a certificate: use a host name, *.NAME or an address"
            ));
        }
        if !(1..=3650).contains(&settings.days) {
            return Err(format!("a certificate of {} days: use 1 to 3650", settings.days));
        }
        if settings.uses.is_empty() {
            return Err("`uses` is empty: use server, client or both".into());
        }
        Ok(Self(settings))
    }
}

impl From<Tls> for Settings {
    fn from(tls: Tls) -> Self {
        tls.0
    }
}

fn is_subject(name: &str) -> bool {
    let host = name.strip_prefix("*.").unwrap_or(name);
    let is_label = |label: &str| {
        let clean = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        (1..=63).contains(&label.len()) && label.bytes().all(clean) && !label.starts_with('-')
    };
    name.parse::<IpAddr>().is_ok() || (host.len() <= 253 && host.split('.').all(is_label))
}

fn default_days() -> u16 {
    DEFAULT_DAYS
}

fn default_uses() -> Vec<TlsUse> {
    vec![TlsUse::Server]
}
