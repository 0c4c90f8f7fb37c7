//! Signature Version 4: the proof, in the headers of a request, of having a secret key.
//!
//! Only what is asked here is signed: a POST to `/` without a query, with all of its headers. The session's token
//! and the body are hashed where they are, and the keys in between are wiped.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::credential::Credential;
use crate::backend::{BackendError, Result};
use crate::model::Timestamp;
use crate::system::SecretBuffer;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// Where a signature is good.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scope<'a> {
    pub(super) region: &'a str,
    pub(super) service: &'a str,
}

/// Returns a time as the header `x-amz-date` has it.
pub(super) fn stamp(at: Timestamp) -> String {
    at.strftime("%Y%m%dT%H%M%SZ").to_string()
}

/// Returns the header `authorization`. `headers` are sorted, their names in small letters, with `host` and the
/// `stamp` as `x-amz-date` among them.
pub(super) fn authorization(
    scope: Scope<'_>,
    stamp: &str,
    (headers, body): (&[(&str, &[u8])], &[u8]),
    credential: &Credential,
) -> Result<String> {
    let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
    let names = names.join(";");
    let mut canonical = Sha256::new();
    canonical.update(b"POST\n/\n\n");
    for (name, value) in headers {
        for part in [name.as_bytes(), b":", value.trim_ascii(), b"\n"] {
            canonical.update(part);
        }
    }
    canonical.update(format!("\n{names}\n{}", hex(&Sha256::digest(body))));
    let day = stamp.get(..8).unwrap_or_default();
    let Scope { region, service } = scope;
    let place = format!("{day}/{region}/{service}/aws4_request");
    let signed = format!("{ALGORITHM}\n{stamp}\n{place}\n{}", hex(&canonical.finalize()));
    let key = signing_key(credential, day, scope)?;
    let signature = hex(&*mac(&*key, signed.as_bytes())?);
    let key_id = &credential.key_id;
    Ok(format!(
        "{ALGORITHM} Credential={key_id}/{place}, SignedHeaders={names}, Signature={signature}"
    ))
}

/// Returns the key for a day in a scope.
fn signing_key(
    credential: &Credential,
    day: &str,
    scope: Scope<'_>,
) -> Result<Zeroizing<[u8; 32]>> {
    let mut first = SecretBuffer::new();
    first.write_at(0, b"AWS4")?;
    first.write_at(4, credential.secret.expose())?;
    let mut key = mac(first.expose(), day.as_bytes())?;
    for part in [scope.region, scope.service, "aws4_request"] {
        key = mac(&*key, part.as_bytes())?;
    }
    Ok(key)
}

fn mac(key: &[u8], message: &[u8]) -> Result<Zeroizing<[u8; 32]>> {
    // A key of HMAC may have any length.
    let mac = Hmac::<Sha256>::new_from_slice(key);
    let mut mac = mac.map_err(|error| BackendError::Failed(error.to_string()))?;
    mac.update(message);
    Ok(Zeroizing::new(mac.finalize().into_bytes().into()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key of AWS's own examples.
    const KEY: &str = concat!("wJalrXUtnFEMI/K7MDENG", "+bPxRfiCYEXAMPLEKEY");
    const STAMP: &str = "20150830T123600Z";

    fn credential() -> Credential {
        Credential::new("AKIDEXAMPLE", KEY.as_bytes(), None, "a test").unwrap()
    }

    fn signature(headers: &[(&str, &[u8])], body: &[u8]) -> String {
        let scope = Scope { region: "us-east-1", service: "service" };
        let made = authorization(scope, STAMP, (headers, body), &credential()).unwrap();
        made.rsplit_once("Signature=").unwrap().1.to_owned()
    }

    #[test]
    fn a_key_is_derived_as_in_aws_s_documentation() {
        let scope = Scope { region: "us-east-1", service: "iam" };
        let key = signing_key(&credential(), "20150830", scope).unwrap();
        let expected = "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9";
        assert_eq!(hex(&*key), expected);
    }

    #[test]
    fn aws_s_own_test_vectors_come_out() {
        let host: (&str, &[u8]) = ("host", b"example.amazonaws.com");
        let date: (&str, &[u8]) = ("x-amz-date", STAMP.as_bytes());
        // post-vanilla
        assert_eq!(
            signature(&[host, date], b""),
            "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"
        );
        // post-x-www-form-urlencoded
        let form: (&str, &[u8]) = ("content-type", b"application/x-www-form-urlencoded");
        assert_eq!(
            signature(&[form, host, date], b"Param1=value1"),
            "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"
        );
        // post-header-value-case
        let mine: (&str, &[u8]) = ("my-header1", b"VALUE1");
        assert_eq!(
            signature(&[host, mine, date], b""),
            "cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d"
        );
    }

    #[test]
    fn a_stamp_is_in_utc_without_separators() {
        assert_eq!(stamp("2015-08-30T14:36:00.7+02:00".parse().unwrap()), STAMP);
    }
}
