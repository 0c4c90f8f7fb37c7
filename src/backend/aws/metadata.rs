//! Credentials that the machine or the container has by where it runs: asked over HTTP at addresses that lead no
//! farther than the host.

use std::path::PathBuf;
use std::time::Duration;

use super::answer::{strange, unauthenticated};
use super::credential::Credential;
use super::file;
use crate::backend::http::{Answer, Http, Method, Request};
use crate::backend::{BackendError, Deadline, Result};
use crate::system::SecretBytes;

/// How long the instance's metadata may take, because elsewhere nobody is at their address.
const INSTANCE: Duration = Duration::from_secs(2);

/// Where containers of ECS have theirs.
pub(super) const ECS: &str = "http://169.254.170.2";
/// Where instances of EC2 have theirs.
pub(super) const EC2: &str = "http://169.254.169.254";

/// The endpoint that a container was told of.
pub(super) struct Container {
    pub(super) url: String,
    /// The authorization, or the file that it is in.
    pub(super) authorization: Option<SecretBytes>,
    pub(super) authorization_file: Option<PathBuf>,
}

impl Container {
    pub(super) fn fetch(&self, http: &Http, deadline: Deadline) -> Result<Credential> {
        let read = self.authorization_file.as_deref().map(file::read_trimmed).transpose()?;
        let authorization = read.as_ref().or(self.authorization.as_ref());
        let headers: Vec<(&str, &[u8])> =
            authorization.map(|token| ("authorization", token.expose())).into_iter().collect();
        let request =
            Request { method: Method::Get, url: &self.url, headers: &headers, body: None };
        let answer = http.send(&request, deadline)?;
        match answer.status {
            200 => Credential::from_json(answer.body.expose(), "the container"),
            400..=499 => Err(unauthenticated("the container's endpoint refuses")),
            status => Err(BackendError::Failed(format!("the container's endpoint: {status}"))),
        }
    }
}

/// The metadata service of an instance, in its second version: with a token that only the instance can have.
pub(super) struct Instance {
    pub(super) endpoint: String,
}

impl Instance {
    pub(super) fn fetch(&self, http: &Http, deadline: Deadline) -> Result<Credential> {
        let deadline = Deadline::within(deadline.left()?.min(INSTANCE));
        let life: [(&str, &[u8]); 1] = [("x-aws-ec2-metadata-token-ttl-seconds", b"300")];
        let token = self.ask(http, (Method::Put, "api/token"), &life, deadline)?;
        let token: [(&str, &[u8]); 1] = [("x-aws-ec2-metadata-token", token.body.expose())];
        let roles = "meta-data/iam/security-credentials/";
        let role = self.ask(http, (Method::Get, roles), &token, deadline)?;
        let role = std::str::from_utf8(role.body.expose()).map_err(|_| strange())?;
        let role = role.lines().next().unwrap_or_default().trim();
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "+=,.@-_".contains(c);
        if role.is_empty() || !role.chars().all(is_plain) {
            return Err(unauthenticated("the instance has no role"));
        }
        let given = self.ask(http, (Method::Get, &format!("{roles}{role}")), &token, deadline)?;
        Credential::from_json(given.body.expose(), "the instance")
    }

    fn ask(
        &self,
        http: &Http,
        (method, path): (Method, &str),
        headers: &[(&str, &[u8])],
        deadline: Deadline,
    ) -> Result<Answer> {
        let url = format!("{}/latest/{path}", self.endpoint.trim_end_matches('/'));
        // Without a body it would be sent as one of unknown length.
        let body = (method == Method::Put).then_some(&b""[..]);
        let answer = http.send(&Request { method, url: &url, headers, body }, deadline)?;
        match answer.status {
            200 => Ok(answer),
            404 => Err(unauthenticated("the instance has no role")),
            400..=499 => Err(unauthenticated("the instance's metadata refuse")),
            status => Err(BackendError::Failed(format!("the instance's metadata: {status}"))),
        }
    }
}
