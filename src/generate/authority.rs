//! The key and the certificates that sign others, from a secret that holds them as PEM.
//!
//! It is asked what a verifier would ask later: that the key belongs to the first certificate, which
//! may sign certificates and has not ended. A refusal now is better than a pair that nobody accepts.

use rcgen::{Issuer, KeyPair, PublicKeyData as _};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use x509_parser::certificate::X509Certificate;
use x509_parser::parse_x509_certificate;
use zeroize::Zeroizing;

use crate::model::Timestamp;
use crate::system::SecretBytes;

use super::{GenerateError, pem};

pub(super) struct Authority {
    key: Zeroizing<KeyPair>,
    certificate: CertificateDer<'static>,
    /// What goes behind a certificate that it signs: its own and those above it, but for the root, which
    /// a verifier has.
    pub(super) chain: Vec<SecretBytes>,
    pub(super) not_after: Timestamp,
}

impl Authority {
    pub(super) fn read(bundle: &SecretBytes, now: Timestamp) -> Result<Self, GenerateError> {
        let refused = GenerateError::Authority;
        let blocks = pem::blocks(bundle).ok_or(refused("its PEM is malformed"))?;
        let mut key = None;
        let mut certificates = Vec::new();
        for (label, contents) in blocks {
            match &*label {
                "CERTIFICATE" => certificates.push(contents),
                "PRIVATE KEY" => key = Some(contents),
                _ if label.ends_with("PRIVATE KEY") => {
                    return Err(refused("its key must be PKCS#8 without a passphrase"));
                }
                _ => {}
            }
        }
        let key = key.ok_or(refused("there is no private key (PKCS#8)"))?;
        let key = KeyPair::try_from(&PrivatePkcs8KeyDer::from(key.expose()));
        let key = Zeroizing::new(key.map_err(|_| refused("its key is of no known kind"))?);
        let first = certificates.first().ok_or(refused("there is no certificate"))?;
        let not_after = {
            let certificate = parse(first)?;
            check(&certificate, &key, now)?;
            let seconds = certificate.validity().not_after.timestamp();
            Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX)
        };
        let certificate = CertificateDer::from(first.expose().to_vec());
        let mut chain = Vec::new();
        for contents in certificates {
            let certificate = parse(&contents)?;
            if certificate.subject() != certificate.issuer() {
                chain.push(contents);
            }
        }
        Ok(Self { key, certificate, chain, not_after })
    }

    pub(super) fn issuer(&self) -> Result<Issuer<'static, &KeyPair>, GenerateError> {
        let malformed = |_| GenerateError::Authority("its certificate is malformed");
        Issuer::from_ca_cert_der(&self.certificate, &*self.key).map_err(malformed)
    }
}

fn parse(certificate: &SecretBytes) -> Result<X509Certificate<'_>, GenerateError> {
    let parsed = parse_x509_certificate(certificate.expose());
    let (_, certificate) =
        parsed.map_err(|_| GenerateError::Authority("its certificate is malformed"))?;
    Ok(certificate)
}

fn check(
    certificate: &X509Certificate<'_>,
    key: &KeyPair,
    now: Timestamp,
) -> Result<(), GenerateError> {
    let refused = |why| Err(GenerateError::Authority(why));
    if certificate.public_key().raw != key.subject_public_key_info() {
        return refused("its key does not belong to its first certificate");
    }
    if !certificate.is_ca() {
        return refused("its first certificate is not one of an authority");
    }
    let usage = certificate.key_usage().ok().flatten();
    if usage.is_some_and(|usage| !usage.value.key_cert_sign()) {
        return refused("its first certificate may not sign others");
    }
    if certificate.validity().not_after.timestamp() <= now.as_second() {
        return refused("its first certificate has expired");
    }
    Ok(())
}
