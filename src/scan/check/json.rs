//! Tokens that are JSON inside: JWT, JWE and those of Kubernetes.

use serde_json::{Map, Value};

use super::Verdict;
use super::base64::decode;

/// A signed token: header and claims are JSON objects, and the header names an algorithm.
///
/// The examples of the format's own documents, which stand in every other test, are none.
pub(super) fn jwt(token: &[u8]) -> Verdict {
    let Some((header, claims)) = open(token) else { return Verdict::Invalid };
    if is_published_example(&claims) {
        return Verdict::Invalid;
    }
    match header.get("alg").and_then(Value::as_str) {
        None => Verdict::Invalid,
        Some("none") => Verdict::Unknown,
        Some(_) => Verdict::Valid,
    }
}

/// A token of a Kubernetes service account.
pub(super) fn kubernetes(token: &[u8]) -> Verdict {
    let Some((_, claims)) = open(token) else { return Verdict::Invalid };
    let names_account = |key: &str| key.starts_with("kubernetes.io");
    let subject = claims.get("sub").and_then(Value::as_str).unwrap_or_default();
    Verdict::proof(
        claims.keys().any(|key| names_account(key))
            || subject.starts_with("system:serviceaccount:"),
    )
}

/// An encrypted token: the header is a JSON object that names how the content is encrypted.
pub(super) fn jwe(token: &[u8]) -> Verdict {
    let header = token.split(|&byte| byte == b'.').next().and_then(object);
    Verdict::proof(header.is_some_and(|header| header.contains_key("enc")))
}

fn open(token: &[u8]) -> Option<(Map<String, Value>, Map<String, Value>)> {
    let mut parts = token.split(|&byte| byte == b'.');
    let header = object(parts.next()?)?;
    let claims = object(parts.next()?)?;
    Some((header, claims))
}

fn object(part: &[u8]) -> Option<Map<String, Value>> {
    match serde_json::from_slice(&decode(part)?) {
        Ok(Value::Object(object)) => Some(object),
        _ => None,
    }
}

/// The claims that documents show: of RFC 7519, and of the well-known page to try tokens on.
fn is_published_example(claims: &Map<String, Value>) -> bool {
    let is = |name: &str, value: &str| claims.get(name).and_then(Value::as_str) == Some(value);
    is("sub", "1234567890") || is("iss", "joe") || is("name", "John Doe") || is("some", "payload")
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::base64::Engine as _;
    use ::base64::engine::general_purpose::URL_SAFE_NO_PAD;

    fn token(header: &str, claims: &str) -> String {
        format!(
            "{}.{}.c2lnbmF0dXJl",
            URL_SAFE_NO_PAD.encode(header),
            URL_SAFE_NO_PAD.encode(claims)
        )
    }

    #[test]
    fn header_and_claims_must_decode() {
        let verdict = |header, claims| jwt(token(header, claims).as_bytes());
        assert_eq!(verdict(r#"{"alg":"HS256"}"#, r#"{"sub":"a"}"#), Verdict::Valid);
        assert_eq!(verdict(r#"{"alg":"none"}"#, r#"{"sub":"a"}"#), Verdict::Unknown);
        assert_eq!(verdict(r#"{"typ":"x"}"#, r#"{"sub":"a"}"#), Verdict::Invalid);
        assert_eq!(verdict(r#"{"alg":"HS256"}"#, r#"["a"]"#), Verdict::Invalid);
        assert_eq!(jwt(b"eyJhbGciOi.eyJ.x"), Verdict::Invalid);
    }

    #[test]
    fn the_example_of_the_documents_is_no_secret() {
        let claims = r#"{"sub":"1234567890","name":"John Doe","iat":1516239022}"#;
        assert_eq!(jwt(token(r#"{"alg":"HS256"}"#, claims).as_bytes()), Verdict::Invalid);
    }

    #[test]
    fn a_service_account_is_named_in_its_claims() {
        let of = |claims| kubernetes(token(r#"{"alg":"RS256"}"#, claims).as_bytes());
        assert_eq!(of(r#"{"sub":"system:serviceaccount:apps:x"}"#), Verdict::Valid);
        assert_eq!(of(r#"{"sub":"somebody"}"#), Verdict::Invalid);
    }

    #[test]
    fn an_encrypted_token_says_how_it_is_encrypted() {
        let of = |header| jwe(token(header, "{}").as_bytes());
        assert_eq!(of(r#"{"alg":"dir","enc":"A256GCM"}"#), Verdict::Valid);
        assert_eq!(of(r#"{"alg":"HS256"}"#), Verdict::Invalid);
    }
}
