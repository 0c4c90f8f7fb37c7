//! Transit: a key of Vault's that never leaves it, and under which it seals and opens what it is given.

use base64ct::{Base64, Encoding};
use serde::Deserialize;

use super::VaultSettings;
use super::answer::{Data, parse, strange};
use super::client::{Call, Client};
use super::shape::one;
use crate::backend::http::{Method, percent_encoded};
use crate::backend::{Deadline, KeyService, Result};
use crate::inject::base64;
use crate::system::SecretBytes;

/// One key of one transit engine.
pub struct Transit {
    client: Client,
    mount: String,
    key: String,
}

impl Transit {
    /// Asks nothing yet. The settings' own `mount` and `prefix` are those of secrets, and are not looked at.
    pub fn new(
        settings: &VaultSettings,
        (mount, key): (&str, &str),
        token: Option<SecretBytes>,
    ) -> Result<Self> {
        let client = Client::new(settings, token)?;
        let (mount, key) = (percent_encoded(mount, true), percent_encoded(key, false));
        Ok(Self { client, mount, key })
    }

    fn ask(
        &self,
        what: &str,
        body: &SecretBytes,
        deadline: Deadline,
    ) -> Result<crate::backend::http::Answer> {
        let path = format!("{}/{what}/{}", self.mount, self.key);
        let body = Some(body.expose());
        self.client.ask(Call { method: Method::Post, path: &path, body, is_patch: false }, deadline)
    }
}

impl KeyService for Transit {
    fn wrap(&self, key: &SecretBytes, deadline: Deadline) -> Result<String> {
        #[derive(Deserialize)]
        struct Sealed<'a> {
            ciphertext: &'a str,
        }
        let encoded = base64::encode(key.expose())?;
        let encoded = std::str::from_utf8(encoded.expose()).map_err(|_| strange())?;
        let answer = self.ask("encrypt", &one("plaintext", encoded)?, deadline)?;
        Ok(parse::<Data<Sealed<'_>>>(&answer)?.data.ciphertext.to_owned())
    }

    fn unwrap(&self, wrapped: &str, deadline: Deadline) -> Result<SecretBytes> {
        #[derive(Deserialize)]
        struct Opened<'a> {
            plaintext: &'a str,
        }
        let answer = self.ask("decrypt", &one("ciphertext", wrapped)?, deadline)?;
        let encoded = parse::<Data<Opened<'_>>>(&answer)?.data.plaintext;
        SecretBytes::with_len(encoded.len(), |room| {
            Base64::decode(encoded, room).map(<[u8]>::len).map_err(|_| strange())
        })
    }
}

impl std::fmt::Debug for Transit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Transit(..)")
    }
}
