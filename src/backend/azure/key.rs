//! A key of Key Vault, which never leaves it, as what seals a root key: RSA-OAEP with SHA-256.

use base64ct::{Base64UrlUnpadded, Encoding};
use serde::Deserialize;
use serde_json::json;

use super::answer::{parse, strange};
use super::client::{Call, Client};
use super::secret::is_version;
use super::settings::{AzureSettings, invalid};
use crate::backend::http::Method;
use crate::backend::{BackendError, Deadline, KeyService, Result, Variables};
use crate::inject::json::push_string;
use crate::system::{SecretBuffer, SecretBytes};

const ALGORITHM: &str = "RSA-OAEP-256";

/// One key of one vault. What is sealed says by which version it was, which opens it after others came.
pub struct VaultKey {
    client: Client,
    name: String,
}

impl VaultKey {
    /// Asks nothing yet. The settings' own `prefix` is that of secrets, and is not looked at.
    pub fn new(settings: &AzureSettings, name: &str, variables: &Variables<'_>) -> Result<Self> {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if name.is_empty() || name.len() > 127 || !name.bytes().all(is_name) {
            return Err(invalid("a key's name at Azure is letters, digits and dashes"));
        }
        Ok(Self { client: Client::new(settings, variables)?, name: name.to_owned() })
    }

    /// Has the vault do one thing, and returns the version that did it and what came out, in base64.
    fn ask<T>(
        &self,
        what: &str,
        value: &SecretBytes,
        deadline: Deadline,
        take: impl FnOnce(&str, &str) -> Result<T>,
    ) -> Result<T> {
        #[derive(Deserialize)]
        struct Done<'a> {
            kid: &'a str,
            value: &'a str,
        }
        let path = format!("keys/{}/{what}", self.name);
        let text = std::str::from_utf8(value.expose()).map_err(|_| strange())?;
        let mut body = SecretBuffer::new();
        let before = json!({ "alg": ALGORITHM }).to_string();
        body.write_at(0, before.trim_end_matches('}').as_bytes())?;
        body.write_at(body.len(), b",\"value\":")?;
        push_string(&mut body, text)?;
        body.write_at(body.len(), b"}")?;
        let call = Call { method: Method::Post, path: &path, body: Some(body.expose()) };
        let answer = self.client.ask(call, deadline)?;
        let done: Done<'_> = parse(&answer)?;
        let version = done.kid.rsplit('/').next().filter(|version| is_version(version));
        take(version.ok_or_else(strange)?, done.value)
    }
}

impl KeyService for VaultKey {
    fn wrap(&self, key: &SecretBytes, deadline: Deadline) -> Result<String> {
        let length = Base64UrlUnpadded::encoded_len(key.expose());
        let value = SecretBytes::with_len(length, |room| -> Result<usize> {
            let encoded = Base64UrlUnpadded::encode(key.expose(), room);
            encoded.map(str::len).map_err(|_| strange())
        })?;
        self.ask("wrapkey", &value, deadline, |version, sealed| Ok(format!("{version}.{sealed}")))
    }

    fn unwrap(&self, wrapped: &str, deadline: Deadline) -> Result<SecretBytes> {
        let parts = wrapped.split_once('.').filter(|(version, _)| is_version(version));
        let (version, sealed) = parts.ok_or_else(|| {
            BackendError::Invalid("this was not sealed by a key of a key vault".into())
        })?;
        let sealed = SecretBytes::copy_from(sealed.as_bytes())?;
        self.ask(&format!("{version}/unwrapkey"), &sealed, deadline, |_, opened| {
            SecretBytes::with_len(opened.len(), |room| {
                let decoded = Base64UrlUnpadded::decode(opened, room);
                decoded.map(<[u8]>::len).map_err(|_| strange())
            })
        })
    }
}

impl std::fmt::Debug for VaultKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("VaultKey(..)")
    }
}
