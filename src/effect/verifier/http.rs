//! Proves that a web server takes the new value: one request, of whose answer the status counts.
//!
//! Nothing is followed or sent twice, so a few lines do what a library for the web would; and the request,
//! which holds the value, stays in locked memory until it is sent.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::IpAddr;

use super::Http;
use crate::credential;
use crate::effect::step::{Outcome, Step, invalid, shapeless};
use crate::effect::stream::{Stream, lost};
use crate::effect::{Address, EffectError, Tls};
use crate::system::{SecretBuffer, SecretBytes};

const MAX_STATUS_LINE_BYTES: u64 = 8192;

impl Http {
    pub(super) fn verify(&self, step: &Step<'_>) -> Outcome {
        let url = Url::parse(&self.url)?;
        let password = credential::password(step.new_value()?).map_err(shapeless)?;
        let request = self.request(&url, &password)?;
        let mut stream = Stream::connect(&url.address, url.port())?;
        if url.over_tls {
            let tls = Tls { ca: self.ca.clone(), server_name: None };
            stream = stream.secured(&url.address, &tls)?;
        }
        let sent = stream.write_all(request.expose()).and_then(|()| stream.flush());
        sent.map_err(|error| lost(&error))?;
        let status = status(stream)?;
        if status == self.status {
            return Ok(format!("{} answers {status}", url.address));
        }
        let why = format!("{} answers {status} and not {}", url.address, self.status);
        // Of a gateway whose server is not there.
        if matches!(status, 502..=504) {
            return Err(EffectError::Unreachable(why));
        }
        Err(EffectError::Refused(why))
    }

    fn request(&self, url: &Url, password: &SecretBytes) -> Result<SecretBuffer, EffectError> {
        let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        if self.header.is_empty() || !self.header.chars().all(is_token) {
            return Err(invalid("the header's name is malformed"));
        }
        let is_text = |bytes: &[u8]| bytes.iter().all(|byte| *byte >= b' ' && *byte != 0x7f);
        if !is_text(self.prefix.as_bytes()) || !is_text(password.expose()) {
            return Err(invalid("a value with control characters does not go into a header"));
        }
        let head = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: secretfs/{}\r\nAccept: */*\r\n\
             Connection: close\r\n{}: {}",
            url.path,
            url.address,
            env!("CARGO_PKG_VERSION"),
            self.header,
            self.prefix
        );
        let mut request = SecretBuffer::new();
        for part in [head.as_bytes(), password.expose(), b"\r\n\r\n"] {
            request.write_at(request.len(), part).map_err(|error| invalid(&error.to_string()))?;
        }
        Ok(request)
    }
}

/// As much of a URL as a request needs.
#[derive(Debug, Eq, PartialEq)]
struct Url {
    over_tls: bool,
    address: Address,
    path: String,
}

impl Url {
    fn parse(text: &str) -> Result<Self, EffectError> {
        let (over_tls, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return Err(invalid("the URL begins with https:// or http://")),
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let address: Address = authority.parse().map_err(|_| invalid("the URL has no host"))?;
        let Address::Host { name, .. } = &address else {
            return Err(invalid("the URL has no host"));
        };
        let is_here =
            name == "localhost" || name.parse().is_ok_and(|address: IpAddr| address.is_loopback());
        if !over_tls && !is_here {
            return Err(invalid("the value would go over the network in the clear: use https://"));
        }
        if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(invalid("the URL has characters that must be percent-encoded"));
        }
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { over_tls, address, path })
    }

    fn port(&self) -> u16 {
        if self.over_tls { 443 } else { 80 }
    }
}

/// Reads the status of an answer.
fn status(stream: Stream) -> Result<u16, EffectError> {
    let mut line = Vec::new();
    let read = BufReader::new(stream).take(MAX_STATUS_LINE_BYTES).read_until(b'\n', &mut line);
    read.map_err(|error| lost(&error))?;
    if line.is_empty() {
        return Err(lost(&std::io::ErrorKind::UnexpectedEof.into()));
    }
    parse_status(&line).ok_or_else(|| EffectError::Refused("it does not speak HTTP".to_owned()))
}

fn parse_status(line: &[u8]) -> Option<u16> {
    let mut words = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    words.next()?.starts_with("HTTP/1.").then_some(())?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_goes_over_the_network_with_tls_alone() {
        let url = Url::parse("https://api.example:8443/v1/me?x=1#top").unwrap();
        assert_eq!((url.path.as_str(), url.over_tls), ("/v1/me?x=1", true));
        assert_eq!(Url::parse("http://127.0.0.1?a").unwrap().path, "/?a");
        for bad in
            ["http://api.example/", "ftp://a/", "https:///x", "https://a/\n", "https://u:p@a/"]
        {
            assert!(Url::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_value_cannot_add_a_header() {
        let http: Http = toml::from_str("url = \"http://localhost/\"\nheader = \"X-Key\"").unwrap();
        let url = Url::parse(&http.url).unwrap();
        let request = |value: &[u8]| http.request(&url, &SecretBytes::copy_from(value).unwrap());
        let made = request(b"canary-7f3a").unwrap();
        assert!(made.expose().ends_with(b"\r\nX-Key: canary-7f3a\r\n\r\n"));
        assert!(request(b"canary\r\nHost: x").is_err());
    }

    #[test]
    fn a_status_is_read_from_the_first_line() {
        assert_eq!(parse_status(b"HTTP/1.1 204 No Content\r\n"), Some(204));
        assert_eq!(parse_status(b"HTTP/1.0 401\r\n"), Some(401));
        for bad in [&b"SSH-2.0-OpenSSH\r\n"[..], b"HTTP/1.1\r\n", b"\xff\n"] {
            assert_eq!(parse_status(bad), None);
        }
    }
}
