//! Requests to one Vault: with its address, its namespace, and a token that is had anew once it is refused.

use std::time::Duration;

use super::answer::{says, succeeded};
use super::session::{Session, Token};
use super::settings::VaultSettings;
use crate::backend::http::{Answer, Http, Method, Request};
use crate::backend::{BackendError, Deadline, Result};
use crate::system::SecretBytes;

/// One Vault, and the session there.
pub(super) struct Client {
    wire: Wire,
    session: Session,
}

impl Client {
    /// Asks nothing yet. `token` is the one of `VAULT_TOKEN`.
    pub(super) fn new(settings: &VaultSettings, token: Option<SecretBytes>) -> Result<Self> {
        settings.check()?;
        let wire = Wire {
            http: Http::new(&settings.connection)?,
            address: settings.address.trim_end_matches('/').to_owned(),
            namespace: settings.namespace.clone(),
        };
        Ok(Self { wire, session: Session::new(settings.auth.clone(), token) })
    }

    /// Asks with a token, and once more with another if that one is not accepted any more.
    pub(super) fn ask(&self, call: Call<'_>, deadline: Deadline) -> Result<Answer> {
        let token = self.session.token(&self.wire, deadline)?;
        let answer = self.wire.send(call, Some(&token.secret), deadline)?;
        if answer.status != 403 || !self.is_dead(&token, &answer, deadline)? {
            return succeeded(answer);
        }
        let token = self.session.another(&self.wire, &token, deadline)?;
        succeeded(self.wire.send(call, Some(&token.secret), deadline)?)
    }

    /// Makes sure that there is a token that is accepted, and returns how long it lasts.
    pub(super) fn authenticate(&self, deadline: Deadline) -> Result<Option<Duration>> {
        let mut token = self.session.token(&self.wire, deadline)?;
        if token.looks {
            let answer = self.wire.send(LOOK, Some(&token.secret), deadline)?;
            if answer.status == 403 {
                token = self.session.another(&self.wire, &token, deadline)?;
            }
        }
        Ok(token.left())
    }

    /// Asks for the state of the server. Only the root namespace has it, and it takes no token.
    pub(super) fn health(&self, deadline: Deadline) -> Result<Answer> {
        let path = "sys/health?standbyok=true&perfstandbyok=true";
        self.wire.send_to_root(Call { path, ..Call::default() }, deadline)
    }

    /// Tells whether the token is the reason. Vault says the same to one that it does not know as to one that
    /// may not do this; but most may look at themselves.
    fn is_dead(&self, token: &Token, answer: &Answer, deadline: Deadline) -> Result<bool> {
        if says(answer, "invalid token") {
            return Ok(true);
        }
        Ok(token.looks && self.wire.send(LOOK, Some(&token.secret), deadline)?.status == 403)
    }
}

/// Looks at the token itself.
pub(super) const LOOK: Call<'static> =
    Call { method: Method::Get, path: "auth/token/lookup-self", body: None, is_patch: false };

/// A request: what is behind `/v1/`, and the JSON in its body.
#[derive(Clone, Copy, Default)]
pub(super) struct Call<'a> {
    pub(super) method: Method,
    pub(super) path: &'a str,
    pub(super) body: Option<&'a [u8]>,
    /// The body is merged with what is there (RFC 7396).
    pub(super) is_patch: bool,
}

/// The way there, without a token.
pub(super) struct Wire {
    http: Http,
    address: String,
    namespace: Option<String>,
}

impl Wire {
    pub(super) fn send(
        &self,
        call: Call<'_>,
        token: Option<&SecretBytes>,
        deadline: Deadline,
    ) -> Result<Answer> {
        let namespace = self.namespace.as_deref().map(str::as_bytes);
        self.send_with(call, [("X-Vault-Namespace", namespace), token_header(token)], deadline)
    }

    fn send_to_root(&self, call: Call<'_>, deadline: Deadline) -> Result<Answer> {
        self.send_with(call, [token_header(None); 2], deadline)
    }

    fn send_with(
        &self,
        call: Call<'_>,
        own: [(&'static str, Option<&[u8]>); 2],
        deadline: Deadline,
    ) -> Result<Answer> {
        let url = format!("{}/v1/{}", self.address, call.path);
        // Vault refuses a request without it, so that no page in a browser can make one.
        let mut headers: Vec<(&str, &[u8])> = vec![("X-Vault-Request", b"true")];
        headers.extend(own.into_iter().filter_map(|(name, value)| Some((name, value?))));
        let patch: &[u8] = b"application/merge-patch+json";
        let kind = if call.is_patch { patch } else { b"application/json" };
        headers.extend(call.body.map(|_| ("Content-Type", kind)));
        let request =
            Request { method: call.method, url: &url, headers: &headers, body: call.body };
        self.http.send(&request, deadline)
    }
}

fn token_header(token: Option<&SecretBytes>) -> (&'static str, Option<&[u8]>) {
    ("X-Vault-Token", token.map(SecretBytes::expose))
}

/// What is said of a credential that is not accepted.
pub(super) fn unauthenticated(what: &str) -> BackendError {
    BackendError::Unauthenticated(what.to_owned())
}
