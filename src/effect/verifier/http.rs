//! Proves that a web server takes the new value: one request, of whose answer the status counts.
//!
//! The request, which holds the value, stays in locked memory until it is sent.

use super::Http;
use crate::credential;
use crate::effect::EffectError;
use crate::effect::step::{Outcome, Step, invalid, shapeless};
use crate::effect::web::Url;
use crate::system::{SecretBuffer, SecretBytes};

impl Http {
    pub(super) fn verify(&self, step: &Step<'_>) -> Outcome {
        let url = Url::parse(&self.url)?;
        let password = credential::password(step.new_value()?).map_err(shapeless)?;
        let request = self.request(&url, &password)?;
        let status = url.send(request.expose(), self.ca.as_deref())?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_cannot_add_a_header() {
        let http: Http = toml::from_str("url = \"http://localhost/\"\nheader = \"X-Key\"").unwrap();
        let url = Url::parse(&http.url).unwrap();
        let request = |value: &[u8]| http.request(&url, &SecretBytes::copy_from(value).unwrap());
        let made = request(b"canary-7f3a").unwrap();
        assert!(made.expose().ends_with(b"\r\nX-Key: canary-7f3a\r\n\r\n"));
        assert!(request(b"canary\r\nHost: x").is_err());
    }
}
