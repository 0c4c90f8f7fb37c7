//! Where tokens come from: Entra, for applications with a secret, a certificate or another's token, and the metadata
//! services of a virtual machine and of App Service.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use base64ct::{Base64UrlUnpadded, Encoding};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey};
use secretfs::model::Clock;
use secretfs::system::SystemClock;
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{
    AUTHORITY, CLIENT, CLIENT_SECRET, FEDERATED, IDENTITY_HEADER, RESOURCE, State, TENANT, form,
    now, parts, read, unique,
};
use crate::servers::succeed;
use crate::service::{Asked, Reply};

impl State {
    pub(super) fn entra(&mut self, asked: &Asked) -> Reply {
        let (path, _) = parts(asked);
        let base = format!("https://{AUTHORITY}/{TENANT}");
        let Some(path) = path.strip_prefix(&format!("/{TENANT}/")) else {
            return refused(400, "invalid_request", 90002);
        };
        match (asked.method.as_str(), path) {
            ("GET", "v2.0/.well-known/openid-configuration") => Reply::json(
                200,
                &json!({
                    "issuer": format!("{base}/v2.0"),
                    "authorization_endpoint": format!("{base}/oauth2/v2.0/authorize"),
                    "token_endpoint": format!("{base}/oauth2/v2.0/token"),
                }),
            ),
            ("POST", "oauth2/v2.0/token") => {
                let form = form(std::str::from_utf8(&asked.body).unwrap());
                match self.admit(&form) {
                    Ok(()) => self.granted(),
                    Err((status, error, code)) => refused(status, error, code),
                }
            }
            _ => refused(404, "invalid_request", 90002),
        }
    }

    fn granted(&mut self) -> Reply {
        let seconds = self.life.as_secs();
        let token = self.token();
        Reply::json(
            200,
            &json!({
                "token_type": "Bearer", "expires_in": seconds, "ext_expires_in": seconds,
                "access_token": token,
            }),
        )
    }

    fn token(&mut self) -> String {
        self.logins += 1;
        let token = format!("canary-token-{}", unique());
        self.tokens.insert(token.clone(), Instant::now() + self.life);
        token
    }

    fn admit(&self, form: &BTreeMap<String, String>) -> Result<(), (u16, &'static str, u32)> {
        let is = |name: &str, value: &str| form.get(name).map(String::as_str) == Some(value);
        if !is("grant_type", "client_credentials") {
            return Err((400, "unsupported_grant_type", 70003));
        }
        if !is("client_id", CLIENT) {
            return Err((400, "unauthorized_client", 700_016));
        }
        if !is("scope", &format!("{RESOURCE}/.default")) {
            return Err((400, "invalid_scope", 70011));
        }
        let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
        match (form.get("client_secret"), form.get("client_assertion")) {
            (Some(secret), None) if secret == CLIENT_SECRET => Ok(()),
            (Some(_), None) => Err((401, "invalid_client", 7_000_215)),
            (None, Some(_)) if !is("client_assertion_type", kind) => {
                Err((400, "invalid_request", 900_144))
            }
            (None, Some(assertion)) if assertion == FEDERATED => Ok(()),
            (None, Some(assertion)) => {
                self.verify(assertion).ok_or((401, "invalid_client", 700_027))
            }
            _ => Err((401, "invalid_client", 7_000_216)),
        }
    }

    /// Checks an assertion of the application's certificate.
    fn verify(&self, assertion: &str) -> Option<()> {
        let (content, signature) = assertion.rsplit_once('.')?;
        let (header, claims) = content.split_once('.')?;
        let json = |part: &str| -> Option<Value> {
            serde_json::from_slice(&Base64UrlUnpadded::decode_vec(part).ok()?).ok()
        };
        let (header, claims) = (json(header)?, json(claims)?);
        let der = self.certificate.as_ref()?;
        let thumbprint = |name: &str, algorithm| -> Option<bool> {
            let print = Base64UrlUnpadded::encode_string(digest(algorithm, der).as_ref());
            Some(header.get(name)?.as_str()?.trim_end_matches('=') == print)
        };
        let is_known = thumbprint("x5t#S256", &SHA256)
            .or_else(|| thumbprint("x5t", &SHA1_FOR_LEGACY_USE_ONLY))?;
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let key = certificate.public_key().subject_public_key.data.to_vec();
        let signature = Base64UrlUnpadded::decode_vec(signature).ok()?;
        let is_signed = match header["alg"].as_str()? {
            "PS256" => UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, key)
                .verify(content.as_bytes(), &signature),
            "RS256" => UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key)
                .verify(content.as_bytes(), &signature),
            _ => return None,
        };
        let endpoint = format!("https://{AUTHORITY}/{TENANT}/oauth2/v2.0/token");
        let is_for_us = claims["aud"] == endpoint.as_str();
        let is_its_own = claims["iss"] == CLIENT && claims["sub"] == CLIENT;
        // Azure's own client does without `nbf`, gives fractions, and shows one assertion more than once.
        let now = SystemClock.now().as_duration().as_secs_f64();
        let from = claims["nbf"].as_f64().unwrap_or(0.0);
        let is_in_time = (from..claims["exp"].as_f64()?).contains(&now);
        let is_named = claims["jti"].is_string();
        let holds =
            is_known && is_signed.is_ok() && is_for_us && is_its_own && is_in_time && is_named;
        holds.then_some(())
    }

    /// Both metadata services; a user's own identity has the client's id.
    pub(super) fn metadata(&mut self, asked: &Asked) -> Reply {
        let (path, query) = parts(asked);
        let is = |name: &str, value: &str| query.get(name).map(String::as_str) == Some(value);
        let has =
            |name: &str, value: &str| asked.headers.get(name).map(String::as_str) == Some(value);
        let is_somebody = query.get("client_id").is_none_or(|id| id == CLIENT);
        let is_good = is("resource", RESOURCE) && is_somebody;
        let end = now() + self.life.as_secs().cast_signed();
        match path {
            "/metadata/identity/oauth2/token" => {
                if !has("metadata", "true") || !is("api-version", "2018-02-01") || !is_good {
                    return Reply::json(400, &json!({ "error": "invalid_request" }));
                }
                let seconds = self.life.as_secs().to_string();
                Reply::json(
                    200,
                    &json!({
                        "access_token": self.token(), "expires_in": seconds,
                        "expires_on": end.to_string(), "resource": RESOURCE, "token_type": "Bearer",
                    }),
                )
            }
            "/msi/token" => {
                if !has("x-identity-header", IDENTITY_HEADER) {
                    return Reply::json(401, &json!({ "message": "Unauthorized" }));
                }
                if !is("api-version", "2019-08-01") || !is_good {
                    return Reply::json(400, &json!({ "message": "Bad Request" }));
                }
                Reply::json(
                    200,
                    &json!({
                        "access_token": self.token(), "expires_on": end.to_string(),
                        "resource": RESOURCE, "token_type": "Bearer",
                    }),
                )
            }
            _ => Reply::json(404, &Value::Null),
        }
    }
}

/// Makes a certificate for the application: the file with its key beside it, and its DER.
pub(super) fn certificate(dir: &Path) -> (PathBuf, Vec<u8>) {
    let [key, certificate, both] = ["key.pem", "cert.pem", "app.pem"].map(|name| dir.join(name));
    let mut command = Command::new("openssl");
    command
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=app"]);
    command.arg("-keyout").arg(&key).arg("-out").arg(&certificate);
    succeed(&mut command);
    let text = read(&certificate);
    let (_, der) = pem_rfc7468::decode_vec(text.as_bytes()).unwrap();
    crate::common::write_file(&both, format!("{}{text}", read(&key)).as_bytes());
    (both, der)
}

fn refused(status: u16, error: &str, code: u32) -> Reply {
    let description = format!("AADSTS{code}: canary-7f3a is what you have shown.");
    let body = json!({
        "error": error, "error_description": description, "error_codes": [code],
        "trace_id": unique(), "correlation_id": unique(),
    });
    Reply::json(status, &body)
}
