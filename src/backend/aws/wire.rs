//! The way to one service of AWS: a POST to its endpoint, signed or not.

use super::credential::Credential;
use super::settings::endpoint;
use super::sign::{Scope, authorization, stamp};
use crate::backend::http::{Answer, Connection, Http, Method, Request, address};
use crate::backend::{Deadline, Result};
use crate::model::Clock;
use crate::system::SystemClock;

/// One endpoint.
pub(super) struct Wire {
    http: Http,
    url: String,
    /// As the header `host` has it, which is signed.
    authority: String,
    region: String,
    service: &'static str,
}

/// What is asked: by the kind of its body, and with the JSON services by a header.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) kind: &'static str,
    pub(super) target: Option<&'a str>,
    pub(super) body: &'a [u8],
}

impl Wire {
    /// Asks nothing yet. `at` stands for the region's own endpoint.
    pub(super) fn new(
        service: &'static str,
        region: &str,
        at: Option<&str>,
        connection: &Connection,
    ) -> Result<Self> {
        let url = at.map_or_else(|| endpoint(service, region), str::to_owned);
        let url = format!("{}/", url.trim_end_matches('/'));
        let uri = address(&url)?;
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let default = if uri.scheme_str() == Some("https") { ":443" } else { ":80" };
        let authority = authority.strip_suffix(default).unwrap_or(authority).to_owned();
        let (http, region) = (Http::new(connection)?, region.to_owned());
        Ok(Self { http, url, authority, region, service })
    }

    pub(super) fn send(
        &self,
        call: Call<'_>,
        credential: Option<&Credential>,
        deadline: Deadline,
    ) -> Result<Answer> {
        let stamp = stamp(SystemClock.now());
        let token = credential.and_then(|credential| credential.token.as_ref());
        // In the order in which they are signed.
        let headers = [
            ("content-type", Some(call.kind.as_bytes())),
            ("host", Some(self.authority.as_bytes())),
            ("x-amz-date", Some(stamp.as_bytes())),
            ("x-amz-security-token", token.map(|token| token.expose())),
            ("x-amz-target", call.target.map(str::as_bytes)),
        ];
        let mut headers: Vec<(&str, &[u8])> =
            headers.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        let signed = credential.map(|credential| {
            let scope = Scope { region: &self.region, service: self.service };
            authorization(scope, &stamp, (&headers, call.body), credential)
        });
        let signed = signed.transpose()?;
        headers.extend(signed.as_ref().map(|signed| ("authorization", signed.as_bytes())));
        let request = Request {
            method: Method::Post,
            url: &self.url,
            headers: &headers,
            body: Some(call.body),
        };
        self.http.send(&request, deadline)
    }
}
