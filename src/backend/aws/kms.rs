//! The Key Management Service: a key of AWS's that never leaves it, and under which it seals and opens.
//!
//! What is sealed goes with a context, which the service records and without which it does not open.

use base64ct::{Base64, Encoding};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::answer::{parse, strange, text};
use super::api::{body_with_secret, decoded, with};
use super::client::{Client, Service};
use super::settings::AwsSettings;
use crate::backend::{BackendError, Deadline, KeyService, Result, Variables};
use crate::inject::base64;
use crate::system::SecretBytes;

const KMS: Service = Service { name: "kms", target: "TrentService" };

/// The longest thing that the service seals.
const MAX_BYTES: usize = 4096;

/// One key.
pub struct Kms {
    client: Client,
    key: String,
}

impl Kms {
    /// Asks nothing yet. `key` is the key's id, its ARN, or `alias/NAME`. The settings' `prefix` is that of secrets, and
    /// is not looked at.
    pub fn new(settings: &AwsSettings, key: &str, variables: &Variables<'_>) -> Result<Self> {
        let at = settings.kms_endpoint.as_deref();
        let client = Client::new(settings, (KMS, at), variables)?;
        Ok(Self { client, key: key.to_owned() })
    }

    /// Returns what both calls say of the key and the context.
    fn object(&self) -> serde_json::Value {
        json!({ "KeyId": self.key, "EncryptionContext": { "secretfs": "root key" } })
    }
}

impl KeyService for Kms {
    fn wrap(&self, key: &SecretBytes, deadline: Deadline) -> Result<String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Sealed<'a> {
            ciphertext_blob: &'a str,
        }
        if key.len() > MAX_BYTES {
            return Err(BackendError::Invalid(format!("a key has at most {MAX_BYTES} bytes")));
        }
        let encoded = base64::encode(key.expose())?;
        let encoded = std::str::from_utf8(encoded.expose()).map_err(|_| strange())?;
        let body = body_with_secret(&self.object(), "Plaintext", encoded)?;
        let answer = self.client.ask("Encrypt", body.expose(), deadline)?;
        Ok(parse::<Sealed<'_>>(&answer)?.ciphertext_blob.to_owned())
    }

    fn unwrap(&self, wrapped: &str, deadline: Deadline) -> Result<SecretBytes> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Opened<'a> {
            #[serde(borrow)]
            plaintext: &'a RawValue,
        }
        if Base64::decode_vec(wrapped).is_err() {
            return Err(BackendError::Invalid("it was not sealed by this service".into()));
        }
        let body = with(self.object(), "CiphertextBlob", Some(json!(wrapped)));
        let answer = self.client.ask("Decrypt", body.to_string().as_bytes(), deadline)?;
        decoded(&text(parse::<Opened<'_>>(&answer)?.plaintext)?)
    }
}

impl std::fmt::Debug for Kms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kms({})", self.key)
    }
}
