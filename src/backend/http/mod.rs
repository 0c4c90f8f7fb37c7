//! HTTPS as every client of a service needs it: one request, one answer, nothing else.
//!
//! A call ends by its deadline, whatever the other side does. An answer is read into locked memory and is
//! bounded. Nothing is sent twice, no redirect is followed, and no variable of the environment names a
//! proxy. Errors say what failed and never what was sent or answered.
//!
//! Not wiped by the libraries below: the headers of a request, with the token in one of them, and a record
//! of TLS while rustls encrypts or decrypts it. The buffers in between are ours, and are.

use std::fmt;
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use jiff::fmt::rfc2822;
use serde::Deserialize;
use ureq::http::{HeaderMap, HeaderName, HeaderValue, Uri, header, uri::Scheme};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{ConnectProxyConnector, Connector, TcpConnector};
use ureq::{Agent, AsSendBody, Body, Proxy};
use zeroize::Zeroizing;

use super::{BackendError, Deadline, Result};
use crate::model::{Clock, Timestamp};
use crate::system::{SecretBuffer, SecretBytes, SystemClock};

mod line;

pub use line::authorities;
use line::{INPUT_BYTES, LineConnector, OUTPUT_BYTES};

/// The longest answer that is read: a list of a hundred thousand names is shorter.
pub const MAX_ANSWER_BYTES: u64 = 8 << 20;

/// How many connections are kept for the next request. Many threads ask one service at the same time, and each
/// connection that is made anew costs a handshake.
const IDLE: usize = 16;

/// How a service is reached: the table `connection` of each backend.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Connection {
    /// The authorities that are trusted, in PEM; without it the system's.
    pub ca: Option<PathBuf>,
    /// What this client shows of itself, in PEM, with `key`.
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
    /// `http://HOST:PORT`, over which everything goes.
    pub proxy: Option<String>,
}

/// Sends requests. Connections are kept for the next one, and many threads may send at the same time.
pub struct Http {
    agent: Agent,
}

impl Http {
    /// Reads the certificates; `Invalid` says which file is of no use.
    pub fn new(connection: &Connection) -> Result<Self> {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_idle_connections(IDLE)
            .max_idle_connections_per_host(IDLE)
            // By default it is taken from the environment.
            .proxy(connection.proxy.as_deref().map(proxy).transpose()?)
            .user_agent(concat!("secretfs/", env!("CARGO_PKG_VERSION")))
            .max_response_header_size(INPUT_BYTES / 2)
            .input_buffer_size(INPUT_BYTES)
            .output_buffer_size(OUTPUT_BYTES)
            .build();
        let connector =
            ().chain(ConnectProxyConnector::default())
                .chain(TcpConnector::default())
                .chain(LineConnector::new(connection)?);
        Ok(Self { agent: Agent::with_parts(config, connector, DefaultResolver::default()) })
    }

    /// Sends a request and reads the answer, whatever its status, but for what HTTP itself says: that one
    /// has to wait (`Throttled`), or to look elsewhere (`Failed`).
    pub fn send(&self, request: &Request<'_>, deadline: Deadline) -> Result<Answer> {
        let mut made = ureq::http::Request::builder().method(request.method.as_str());
        made = made.uri(address(request.url)?);
        for (name, value) in request.headers {
            let name = HeaderName::try_from(*name).map_err(|_| malformed("a header's name"))?;
            let mut value = HeaderValue::from_bytes(value).map_err(|_| malformed("a header"))?;
            // It is not shown where the library traces, to which nobody listens in any case.
            value.set_sensitive(true);
            made = made.header(name, value);
        }
        let answer = match request.body {
            None => self.run(made, (), deadline)?,
            Some(body) => self.run(made, body, deadline)?,
        };
        let (head, mut body) = answer.into_parts();
        let status = head.status.as_u16();
        let retry_after = retry_after(&head.headers);
        if status == 429 || (status == 503 && retry_after.is_some()) {
            return Err(BackendError::Throttled { retry_after });
        }
        if head.status.is_redirection() {
            return Err(BackendError::Failed("it redirects, which is not followed".into()));
        }
        let body = read(&mut body.as_reader(), deadline)?;
        Ok(Answer { status, headers: head.headers, body })
    }

    fn run(
        &self,
        request: ureq::http::request::Builder,
        body: impl AsSendBody,
        deadline: Deadline,
    ) -> Result<ureq::http::Response<Body>> {
        let request = request.body(body).map_err(|_| malformed("the request"))?;
        let timed = self.agent.configure_request(request).timeout_global(Some(deadline.left()?));
        self.agent.run(timed.build()).map_err(|error| failure(&error))
    }
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Http(..)")
    }
}

/// What is sent. A body is lent from locked memory.
#[derive(Clone, Copy, Default)]
pub struct Request<'a> {
    pub method: Method,
    pub url: &'a str,
    pub headers: &'a [(&'a str, &'a [u8])],
    pub body: Option<&'a [u8]>,
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Request({} {})", self.method.as_str(), self.url)
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Method {
    Delete,
    #[default]
    Get,
    Patch,
    Post,
    Put,
}

impl Method {
    /// Returns the word of HTTP.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delete => "DELETE",
            Self::Get => "GET",
            Self::Patch => "PATCH",
            Self::Post => "POST",
            Self::Put => "PUT",
        }
    }
}

/// What came back.
pub struct Answer {
    pub status: u16,
    headers: HeaderMap,
    pub body: SecretBytes,
}

impl Answer {
    /// Returns the first header of that name, if it is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Returns what the other side's clock shows.
    #[must_use]
    pub fn date(&self) -> Option<Timestamp> {
        date(self.headers.get(header::DATE)?)
    }
}

impl Answer {
    /// Says by how much the clocks differ. So much is a failure that tokens of one are none to the other.
    pub fn skew(&self) -> Result<String> {
        const MOST_SECONDS: i64 = 60;
        let Some(theirs) = self.date() else { return Ok("it does not tell its time".into()) };
        let skew = theirs.as_second() - SystemClock.now().as_second();
        if skew.abs() <= MOST_SECONDS {
            return Ok(format!("{skew} s"));
        }
        Err(BackendError::Failed(format!("its clock differs by {skew} s")))
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Answer({})", self.status)
    }
}

/// Parses a URL that a request may go to: over TLS, or to this machine and what is wired to it, where the
/// clouds have their metadata.
pub fn address(url: &str) -> Result<Uri> {
    let uri: Uri = url.parse().map_err(|_| malformed("the URL"))?;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let has_userinfo = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
    if host.is_empty() || has_userinfo {
        return Err(malformed("the URL"));
    }
    if uri.scheme() == Some(&Scheme::HTTPS) {
        return Ok(uri);
    }
    let is_near = host == "localhost" || host.parse().is_ok_and(is_near);
    if uri.scheme() == Some(&Scheme::HTTP) && is_near {
        return Ok(uri);
    }
    Err(BackendError::Invalid("secrets go over https:// alone, or to this machine".into()))
}

/// Writes a text so that it stands in a URL's path or query as it is, with slashes where `keeps_slashes`.
#[must_use]
pub fn percent_encoded(text: &str, keeps_slashes: bool) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        let is_plain = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        if is_plain || (keeps_slashes && byte == b'/') {
            encoded.push(byte.into());
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

fn is_near(address: IpAddr) -> bool {
    // EC2's metadata at a unique local address.
    const METADATA: IpAddr =
        IpAddr::V6(std::net::Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254));
    let is_link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    address.is_loopback() || is_link_local || address == METADATA
}

fn proxy(url: &str) -> Result<Proxy> {
    let is_plain = url.starts_with("http://") && !url.contains('@');
    let proxy = if is_plain { Proxy::new(url).ok() } else { None };
    proxy.ok_or_else(|| BackendError::Invalid("a proxy is http://HOST:PORT".into()))
}

/// Reads an answer's body.
fn read(body: &mut impl Read, deadline: Deadline) -> Result<SecretBytes> {
    let mut whole = SecretBuffer::new();
    let mut piece = Zeroizing::new(vec![0; 16 << 10]);
    loop {
        deadline.left()?;
        let read = body.read(&mut piece).map_err(|error| failure(&error.into()))?;
        if read == 0 {
            return Ok(whole.into_bytes());
        }
        let end = u64::try_from(whole.len() + read).unwrap_or(u64::MAX);
        if end > MAX_ANSWER_BYTES {
            return Err(BackendError::Failed("its answer is too long".into()));
        }
        whole.write_at(whole.len(), piece.get(..read).unwrap_or_default())?;
    }
}

/// Reads how long to wait: seconds, or a date beside which the other side's own clock stands.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let wanted = headers.get(header::RETRY_AFTER)?;
    if let Some(seconds) = wanted.to_str().ok().and_then(|text| text.trim().parse().ok()) {
        return Some(Duration::from_secs(seconds));
    }
    let now = date(headers.get(header::DATE)?)?;
    Duration::try_from(date(wanted)?.duration_since(now)).ok().or(Some(Duration::ZERO))
}

fn date(value: &HeaderValue) -> Option<Timestamp> {
    let parsed = rfc2822::DateTimeParser::new().parse_timestamp(value.to_str().ok()?);
    parsed.ok()
}

fn malformed(what: &str) -> BackendError {
    BackendError::Invalid(format!("{what} is malformed"))
}

/// Says why there is no answer.
#[expect(clippy::wildcard_enum_match_arm, reason = "the library adds to its errors as it likes")]
fn failure(error: &ureq::Error) -> BackendError {
    match error {
        ureq::Error::Timeout(_) => BackendError::TimedOut,
        ureq::Error::Io(error) => lost(error),
        ureq::Error::HostNotFound => BackendError::Unreachable("there is no such host".into()),
        ureq::Error::ConnectProxyFailed(_) => {
            BackendError::Unreachable("the proxy does not connect".into())
        }
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => malformed("the request"),
        ureq::Error::Protocol(_) | ureq::Error::LargeResponseHeader(..) => {
            BackendError::Failed("its answer is no HTTP".into())
        }
        _ => BackendError::Unreachable("there is no connection".into()),
    }
}

/// Says what an interrupted conversation means. The words of TLS name certificates and no content.
fn lost(error: &io::Error) -> BackendError {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match (tls, error.kind()) {
        (Some(tls), _) => BackendError::Unreachable(format!("TLS: {tls}")),
        (None, io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock) => BackendError::TimedOut,
        (None, io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe) => {
            BackendError::Failed("its answer is cut off".into())
        }
        (None, kind) => BackendError::Unreachable(kind.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn how_long_to_wait_is_told_in_seconds_or_by_a_date() {
        let seconds = headers(&[("retry-after", "17")]);
        assert_eq!(retry_after(&seconds), Some(Duration::from_secs(17)));
        let now = ("date", "Sat, 28 Nov 2026 22:00:00 GMT");
        let then = headers(&[now, ("retry-after", "Sat, 28 Nov 2026 22:01:30 GMT")]);
        assert_eq!(retry_after(&then), Some(Duration::from_secs(90)));
        let past = headers(&[now, ("retry-after", "Sat, 28 Nov 2026 21:00:00 GMT")]);
        assert_eq!(retry_after(&past), Some(Duration::ZERO));
        for none in [headers(&[]), headers(&[now, ("retry-after", "soon")])] {
            assert_eq!(retry_after(&none), None);
        }
    }

    #[test]
    fn secrets_go_over_tls_or_stay_near() {
        for good in [
            "https://vault.example:8200/v1/x?list=true",
            "https://[2001:db8::1]/",
            "http://127.0.0.1:8200/v1/x",
            "http://localhost:8200/",
            "http://[::1]:1/",
            "http://169.254.169.254/latest/api/token",
            "http://[fd00:ec2::254]/latest",
        ] {
            assert!(address(good).is_ok(), "{good}");
        }
        for bad in [
            "http://vault.example:8200/",
            "http://10.0.0.1/",
            "http://127.0.0.1.example/",
            "https://user:example@vault.example/",
            "ftp://127.0.0.1/",
            "/v1/x",
            "https://",
            "",
        ] {
            assert!(matches!(address(bad), Err(BackendError::Invalid(_))), "{bad}");
        }
    }

    #[test]
    fn a_proxy_has_no_password_in_the_configuration() {
        assert!(proxy("http://proxy.example:3128").is_ok());
        for bad in ["http://user:example@proxy.example:3128", "socks5://proxy.example", "proxy"] {
            assert!(matches!(proxy(bad), Err(BackendError::Invalid(_))), "{bad}");
        }
    }

    #[test]
    fn nothing_of_a_request_or_an_answer_is_shown() {
        let headers: [(&str, &[u8]); 1] = [("x-token", b"canary-7f3a")];
        let request = Request {
            url: "https://vault.example/v1/x",
            headers: &headers,
            body: Some(b"canary-7f3a"),
            ..Request::default()
        };
        assert_eq!(format!("{request:?}"), "Request(GET https://vault.example/v1/x)");
    }
}
