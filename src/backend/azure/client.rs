//! Requests to one vault: with its address, and a token that is had anew once it is refused.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use ureq::http::Uri;

use super::answer::{strange, succeeded};
use super::challenge;
use super::login::{Identity, unauthenticated};
use super::settings::AzureSettings;
use super::token::Token;
use crate::backend::held::Held;
use crate::backend::http::{Answer, Http, Method, Request, address};
use crate::backend::{BackendError, Deadline, Result, Variables};
use crate::system::SecretBuffer;

/// The version of the API that is spoken.
const API: &str = "api-version=7.4";

/// One vault, and the token for it.
pub(super) struct Client {
    http: Http,
    /// Without a slash at its end.
    address: String,
    vault: Uri,
    /// What tokens are for, as the configuration has it.
    configured: Option<String>,
    /// The same, as the vault has said last.
    resource: RwLock<Option<String>>,
    identity: Identity,
    token: Held<Token>,
}

/// A request: what is behind the address, without the version of the API, and the JSON in its body.
#[derive(Clone, Copy, Default)]
pub(super) struct Call<'a> {
    pub(super) method: Method,
    pub(super) path: &'a str,
    pub(super) body: Option<&'a [u8]>,
}

impl Client {
    /// Asks nothing yet.
    pub(super) fn new(settings: &AzureSettings, variables: &Variables<'_>) -> Result<Self> {
        settings.check()?;
        Ok(Self {
            http: Http::new(&settings.connection)?,
            address: settings.address.trim_end_matches('/').to_owned(),
            vault: address(&settings.address)?,
            configured: settings.resource.clone(),
            resource: RwLock::default(),
            identity: Identity::new(settings, variables)?,
            token: Held::new(),
        })
    }

    /// Asks with a token, and once more with another if that one is not accepted any more.
    pub(super) fn ask(&self, call: Call<'_>, deadline: Deadline) -> Result<Answer> {
        let token = self.token(deadline)?;
        let answer = self.send(call, Some(&token), deadline)?;
        if answer.status != 401 {
            return succeeded(answer);
        }
        // It may want a token for something else by now.
        *self.resource.write() = None;
        let log_in = |deadline| self.log_in(deadline);
        let token = self.token.another(&token, &log_in, deadline)?;
        succeeded(self.send(call, Some(&token), deadline)?)
    }

    /// Asks for the page behind the first one, by what [`Self::next`] has said of it.
    pub(super) fn ask_next(&self, link: &str, deadline: Deadline) -> Result<Answer> {
        self.ask(Call { path: link, ..Call::default() }, deadline)
    }

    /// Returns the part of a link that is behind the address. One that leads to another host would take the
    /// token there.
    pub(super) fn next(&self, link: &str) -> Result<String> {
        let uri = address(link).map_err(|_| strange())?;
        let port = |uri: &Uri| uri.port_u16().unwrap_or(443);
        let is_here = uri.scheme() == self.vault.scheme()
            && uri.host().map(str::to_ascii_lowercase)
                == self.vault.host().map(str::to_ascii_lowercase)
            && port(&uri) == port(&self.vault);
        if !is_here {
            return Err(BackendError::Failed("its next page is at another host".into()));
        }
        let path = uri.path_and_query().map_or("", |path| path.as_str());
        Ok(path.trim_start_matches('/').to_owned())
    }

    /// Makes sure that there is a token, and returns how long it lasts.
    pub(super) fn authenticate(&self, deadline: Deadline) -> Result<Duration> {
        Ok(self.token(deadline)?.left())
    }

    /// Asks without a token, which gives a challenge.
    pub(super) fn challenge(&self, deadline: Deadline) -> Result<Answer> {
        let call = Call { path: "secrets?maxresults=1", ..Call::default() };
        let answer = self.send(call, None, deadline)?;
        match answer.status {
            401 => Ok(answer),
            status @ 500.. => Err(BackendError::Failed(format!("status {status}"))),
            _ => Err(BackendError::Failed("it is no key vault: it wants no token".into())),
        }
    }

    fn token(&self, deadline: Deadline) -> Result<Arc<Token>> {
        self.token.current(&|deadline| self.log_in(deadline), deadline)
    }

    fn log_in(&self, deadline: Deadline) -> Result<Token> {
        let known = self.resource.read().clone();
        let resource = match known {
            Some(resource) => resource,
            None => self.find_resource(deadline)?,
        };
        self.identity.log_in(&resource, deadline)
    }

    fn find_resource(&self, deadline: Deadline) -> Result<String> {
        let answer = self.challenge(deadline)?;
        let header = answer
            .header("WWW-Authenticate")
            .ok_or_else(|| unauthenticated("it refuses without a challenge"))?;
        let resource = challenge::resource(header, &self.vault, self.configured.as_deref())?;
        *self.resource.write() = Some(resource.clone());
        Ok(resource)
    }

    fn send(
        &self,
        call: Call<'_>,
        token: Option<&Arc<Token>>,
        deadline: Deadline,
    ) -> Result<Answer> {
        let separator = if call.path.contains('?') { '&' } else { '?' };
        // A link to a page has it already.
        let has_version = call.path.contains("api-version=");
        let version = if has_version { String::new() } else { format!("{separator}{API}") };
        let url = format!("{}/{}{version}", self.address, call.path);
        let mut bearer = SecretBuffer::new();
        if let Some(token) = token {
            bearer.write_at(0, b"Bearer ")?;
            bearer.write_at(bearer.len(), token.secret.expose())?;
        }
        let mut headers: Vec<(&str, &[u8])> = Vec::new();
        headers.extend(token.map(|_| ("Authorization", bearer.expose())));
        headers.extend(call.body.map(|_| ("Content-Type", &b"application/json"[..])));
        // A POST without a body is one with an empty one.
        let is_bare = call.body.is_none() && call.method == Method::Post;
        let body = if is_bare { Some(&b""[..]) } else { call.body };
        let request = Request { method: call.method, url: &url, headers: &headers, body };
        self.http.send(&request, deadline)
    }
}
