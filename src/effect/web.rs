//! As much of HTTP as one request takes, of whose answer the status counts.
//!
//! Nothing is followed or sent twice, so a few lines do what a library for the web would. That is not the client of
//! [`backend`](crate::backend::http): a verifier's request has the new value in a header, which stays in locked memory
//! up to the socket here, and any status may be the one that is wanted, a redirection too.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::IpAddr;
use std::path::Path;

use super::step::invalid;
use super::stream::{Stream, lost};
use super::{Address, EffectError, Tls};

const MAX_STATUS_LINE_BYTES: u64 = 8192;

/// As much of a URL as a request needs.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Url {
    over_tls: bool,
    pub(super) address: Address,
    pub(super) path: String,
}

impl Url {
    /// Reads a URL. Errors: there is something else in it, or it leads over the network in the clear.
    pub(super) fn parse(text: &str) -> Result<Self, EffectError> {
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
            return Err(invalid("it would go over the network in the clear: use https://"));
        }
        if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(invalid("the URL has characters that must be percent-encoded"));
        }
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { over_tls, address, path })
    }

    /// Sends a whole request and returns the status of the answer. `ca` has the authorities that are trusted.
    pub(super) fn send(&self, request: &[u8], ca: Option<&Path>) -> Result<u16, EffectError> {
        let mut stream = Stream::connect(&self.address, if self.over_tls { 443 } else { 80 })?;
        if self.over_tls {
            let tls = Tls { ca: ca.map(Path::to_path_buf), server_name: None };
            stream = stream.secured(&self.address, &tls)?;
        }
        let sent = stream.write_all(request).and_then(|()| stream.flush());
        sent.map_err(|error| lost(&error))?;
        status(stream)
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
    fn a_status_is_read_from_the_first_line() {
        assert_eq!(parse_status(b"HTTP/1.1 204 No Content\r\n"), Some(204));
        assert_eq!(parse_status(b"HTTP/1.0 401\r\n"), Some(401));
        for bad in [&b"SSH-2.0-OpenSSH\r\n"[..], b"HTTP/1.1\r\n", b"\xff\n"] {
            assert_eq!(parse_status(bad), None);
        }
    }
}
