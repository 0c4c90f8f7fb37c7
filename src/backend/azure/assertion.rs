//! The assertion by which an application with a certificate logs in: a JSON Web Token that its key signs (PS256).

use base64ct::{Base64UrlUnpadded, Encoding};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{RSA_PSS_SHA256, RsaKeyPair};
use serde_json::json;

use super::login::unauthenticated;
use crate::backend::{BackendError, Result};
use crate::model::Timestamp;
use crate::system::SecretBytes;

/// How long it is good for, which is for one request.
const LIFE_SECONDS: i64 = 600;

/// Makes one for an endpoint, in the name of a client. Certificate and key are in PEM.
pub(super) fn signed(
    certificate: &SecretBytes,
    key: &SecretBytes,
    (endpoint, client_id): (&str, &str),
    now: Timestamp,
) -> Result<SecretBytes> {
    let certificate = pem(certificate, "CERTIFICATE")
        .ok_or_else(|| unauthenticated("the certificate is not in PEM"))?;
    let key = rsa(key).ok_or_else(|| unauthenticated("the key is no RSA key in PEM"))?;
    let random = SystemRandom::new();
    let mut id = [0; 16];
    random.fill(&mut id).map_err(|_| no_randomness())?;
    let header = json!({
        "alg": "PS256",
        "typ": "JWT",
        "x5t#S256": encoded(digest(&SHA256, certificate.expose()).as_ref()),
    });
    let now = now.as_second();
    let claims = json!({
        "aud": endpoint,
        "iss": client_id,
        "sub": client_id,
        "jti": encoded(&id),
        "iat": now,
        "nbf": now,
        "exp": now + LIFE_SECONDS,
    });
    let parts = [header, claims].map(|part| encoded(part.to_string().as_bytes()));
    let content = parts.join(".");
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(&RSA_PSS_SHA256, &random, content.as_bytes(), &mut signature)
        .map_err(|_| no_randomness())?;
    let token = format!("{content}.{}", encoded(&signature));
    Ok(SecretBytes::copy_from(zeroize::Zeroizing::new(token).as_bytes())?)
}

fn rsa(key: &SecretBytes) -> Option<RsaKeyPair> {
    if let Some(key) = pem(key, "PRIVATE KEY") {
        return RsaKeyPair::from_pkcs8(key.expose()).ok();
    }
    RsaKeyPair::from_der(pem(key, "RSA PRIVATE KEY")?.expose()).ok()
}

/// Finds the first block with that label, since a certificate and its key may be in one file.
fn pem(text: &SecretBytes, label: &str) -> Option<SecretBytes> {
    let text = std::str::from_utf8(text.expose()).ok()?;
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let block = text.get(text.find(&begin)?..)?;
    let block = block.get(..block.find(&end)? + end.len())?;
    let decode = |room: &mut [u8]| -> Result<usize> {
        let decoded = pem_rfc7468::decode(block.as_bytes(), room);
        decoded.map(|(_, der)| der.len()).map_err(|_| unauthenticated("no PEM"))
    };
    SecretBytes::with_len(block.len(), decode).ok()
}

fn encoded(bytes: &[u8]) -> String {
    Base64UrlUnpadded::encode_string(bytes)
}

fn no_randomness() -> BackendError {
    BackendError::Failed("there is no randomness".into())
}
