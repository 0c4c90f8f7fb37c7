//! Keys that never leave: made, shown without what is private, and used to wrap and unwrap by RSA-OAEP with SHA-256.
//!
//! The mathematics are openssl's.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64ct::{Base64UrlUnpadded, Encoding};
use serde_json::{Value, json};

use super::{State, VAULT, now, refused, unique};
use crate::servers::succeed;
use crate::service::Reply;

/// A version of a key.
#[derive(Clone)]
pub(super) struct Key {
    id: String,
    file: PathBuf,
}

impl State {
    pub(super) fn make_key(&mut self, name: &str) {
        let id = unique();
        let file = self.dir.join(format!("{id}.pem"));
        let mut command = Command::new("openssl");
        command.args([
            "genpkey",
            "-quiet",
            "-algorithm",
            "RSA",
            "-pkeyopt",
            "rsa_keygen_bits:2048",
        ]);
        succeed(command.arg("-out").arg(&file));
        self.keys.entry(name.to_owned()).or_default().push(Key { id, file });
    }

    /// Forgets all of them.
    pub fn lose_keys(&mut self) {
        self.keys.clear();
    }

    pub(super) fn key(&mut self, method: &str, name: &str, rest: &[&str], body: &Value) -> Reply {
        if (method, rest) == ("POST", &["create"]) {
            self.make_key(name);
        }
        let versions = self.keys.get(name).map_or(&[][..], Vec::as_slice);
        let (version, what) = match *rest {
            [] | [""] | ["create"] => ("", ""),
            [what @ ("wrapkey" | "unwrapkey")] => ("", what),
            [version] => (version, ""),
            [version, what] => (version, what),
            _ => return refused(404, "NotFound", None),
        };
        let key = match version {
            "" => versions.last(),
            id => versions.iter().find(|key| key.id == id),
        };
        let Some(key) = key else { return refused(404, "KeyNotFound", None) };
        let kid = format!("https://{VAULT}/keys/{name}/{}", key.id);
        if what.is_empty() {
            let operations = ["wrapKey", "unwrapKey", "encrypt", "decrypt"];
            let jwk = json!({
                "kid": kid, "kty": "RSA", "key_ops": operations, "n": modulus(&key.file), "e": "AQAB",
            });
            let attributes = json!({ "enabled": true, "created": now(), "updated": now() });
            return Reply::json(200, &json!({ "key": jwk, "attributes": attributes }));
        }
        let value =
            body["value"].as_str().and_then(|text| Base64UrlUnpadded::decode_vec(text).ok());
        let way = if what == "wrapkey" { "-encrypt" } else { "-decrypt" };
        let done = value
            .filter(|_| method == "POST" && body["alg"] == "RSA-OAEP-256")
            .and_then(|value| pkeyutl(way, &key.file, &value));
        let Some(done) = done else { return refused(400, "BadParameter", None) };
        Reply::json(200, &json!({ "kid": kid, "value": Base64UrlUnpadded::encode_string(&done) }))
    }
}

fn modulus(file: &Path) -> String {
    let mut command = Command::new("openssl");
    let said = succeed(command.args(["rsa", "-noout", "-modulus", "-in"]).arg(file));
    let hex = said.trim().strip_prefix("Modulus=").unwrap();
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
    Base64UrlUnpadded::encode_string(&bytes)
}

fn pkeyutl(way: &str, file: &Path, value: &[u8]) -> Option<Vec<u8>> {
    let mut command = Command::new("openssl");
    command.args(["pkeyutl", way, "-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt"]);
    command.args(["rsa_oaep_md:sha256", "-inkey"]).arg(file);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(value).unwrap();
    let output = child.wait_with_output().unwrap();
    output.status.success().then_some(output.stdout)
}
