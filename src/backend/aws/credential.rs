//! A credential of AWS: a key's name, the key, and with one that ends, a token.

use std::time::{Duration, Instant};

use serde::Deserialize;

use super::answer::{between, strange};
use crate::backend::held::Lasting;
use crate::backend::{BackendError, Result};
use crate::model::{Clock, Timestamp};
use crate::system::{SecretBytes, SystemClock};

/// How long before its end another one is fetched, if it lives long enough.
const AHEAD: Duration = Duration::from_secs(300);

/// What requests are signed with.
pub(super) struct Credential {
    pub(super) key_id: String,
    pub(super) secret: SecretBytes,
    pub(super) token: Option<SecretBytes>,
    /// Where it is from, for people.
    pub(super) source: &'static str,
    life: Option<Life>,
}

#[derive(Clone, Copy)]
struct Life {
    due: Instant,
    end: Instant,
}

impl Credential {
    /// A credential without an end.
    pub(super) fn new(
        key_id: &str,
        secret: &[u8],
        token: Option<&[u8]>,
        source: &'static str,
    ) -> Result<Self> {
        let is_word = |text: &str| {
            !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/')
        };
        if !is_word(key_id) || secret.is_empty() {
            return Err(BackendError::Unauthenticated(format!("{source} has no usable key")));
        }
        let token = token.filter(|token| !token.is_empty());
        Ok(Self {
            key_id: key_id.to_owned(),
            secret: SecretBytes::copy_from(secret)?,
            token: token.map(SecretBytes::copy_from).transpose()?,
            source,
            life: None,
        })
    }

    /// Reads what the metadata of instances and containers give.
    pub(super) fn from_json(text: &[u8], source: &'static str) -> Result<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Given<'a> {
            access_key_id: &'a str,
            secret_access_key: &'a str,
            token: &'a str,
            expiration: Option<Timestamp>,
        }
        // The error is dropped: it might quote the key.
        let given: Given<'_> = serde_json::from_slice(text).map_err(|_| strange())?;
        let (secret, token) = (given.secret_access_key.as_bytes(), given.token.as_bytes());
        let made = Self::new(given.access_key_id, secret, Some(token), source)?;
        Ok(made.until(given.expiration))
    }

    /// Reads what the Security Token Service gives.
    pub(super) fn from_xml(text: &str, source: &'static str) -> Result<Self> {
        let part = |tag| between(text, tag).map(str::trim).ok_or_else(strange);
        let (secret, token) = (part("SecretAccessKey")?, part("SessionToken")?);
        let end = part("Expiration")?.parse().map_err(|_| strange())?;
        let token = Some(token.as_bytes());
        Ok(Self::new(part("AccessKeyId")?, secret.as_bytes(), token, source)?.until(Some(end)))
    }

    /// The same with an end.
    fn until(self, end: Option<Timestamp>) -> Self {
        let life = end.map(|end| {
            let now = Instant::now();
            let left = Duration::try_from(end.duration_since(SystemClock.now()));
            let left = left.unwrap_or(Duration::ZERO);
            let at = |from_now| now.checked_add(from_now).unwrap_or(now);
            Life { due: at(left - AHEAD.min(left / 3)), end: at(left) }
        });
        Self { life, ..self }
    }

    /// Tells whether this is the same key, so that what refuses the one refuses the other.
    pub(super) fn is(&self, other: &Self) -> bool {
        let token = match (&self.token, &other.token) {
            (Some(one), Some(other)) => one.constant_time_eq(other),
            (one, other) => one.is_none() && other.is_none(),
        };
        self.key_id == other.key_id && self.secret.constant_time_eq(&other.secret) && token
    }
}

impl Lasting for Credential {
    fn due(&self) -> Option<Instant> {
        self.life.map(|life| life.due)
    }

    fn end(&self) -> Option<Instant> {
        self.life.map(|life| life.end)
    }
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credential({}, {})", self.key_id, self.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_and_xml_give_the_same_with_an_end() {
        let xml = "<R><Credentials>\n<AccessKeyId>ASIAEXAMPLE</AccessKeyId><SecretAccessKey>canary-7f3a\
                   </SecretAccessKey><SessionToken>t/+=</SessionToken>\
                   <Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></R>";
        let json =
            br#"{"Code":"Success","AccessKeyId":"ASIAEXAMPLE","SecretAccessKey":"canary-7f3a",
                       "Token":"t/+=","Expiration":"2099-01-01T00:00:00Z"}"#;
        let (xml, json) =
            (Credential::from_xml(xml, "a").unwrap(), Credential::from_json(json, "b").unwrap());
        assert!(xml.is(&json) && xml.end().is_some() && xml.due() < xml.end());
        assert!(!format!("{xml:?}").contains("canary"));
        let other = Credential::new("ASIAEXAMPLE", b"canary-7f3a", None, "c").unwrap();
        assert!(!other.is(&xml) && other.end().is_none());
    }

    #[test]
    fn what_is_no_key_is_refused_without_a_word_of_it() {
        for (id, secret) in
            [("", "canary-7f3a"), ("A\nB", "canary-7f3a"), ("A/B", "canary-7f3a"), ("A", "")]
        {
            let refused = Credential::new(id, secret.as_bytes(), None, "a test").unwrap_err();
            assert!(!format!("{refused:?}").contains("canary"), "{refused:?}");
        }
        assert!(Credential::from_xml("<AccessKeyId>A</AccessKeyId>", "a").is_err());
        assert!(Credential::from_json(b"{\"AccessKeyId\":\"canary-7f3a\"}", "a").is_err());
    }

    #[test]
    fn another_one_is_due_five_minutes_before_the_end_or_after_two_thirds() {
        let left = |seconds: i64| {
            let end = SystemClock.now() + Duration::from_secs(seconds.cast_unsigned());
            let made = Credential::new("A", b"x", None, "a").unwrap().until(Some(end));
            let ahead = made.end().unwrap() - made.due().unwrap();
            ahead.as_secs_f64().round()
        };
        assert_eq!((left(3600), left(60)), (300.0, 20.0));
    }
}
