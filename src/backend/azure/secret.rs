//! The API of secrets: what is asked where, and what is in the answers.
//!
//! A value at Azure is text. Bytes that are none are stored as base64, which their content type says; the content
//! types of others mean nothing here.

use std::collections::BTreeMap;

use base64ct::{Base64, Encoding};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::answer::{disabled, parse, strange};
use super::client::{Call, Client};
use super::settings::invalid;
use crate::backend::http::{Answer, Method};
use crate::backend::{BackendError, Deadline, Fetched, Put, Result, VersionId};
use crate::inject::document::Content;
use crate::inject::{base64, json};
use crate::model::{Clock, Timestamp};
use crate::system::{SecretBuffer, SecretBytes, SystemClock};

/// The content type of what is base64 because it is no text.
const BINARY: &str = "application/octet-stream;base64";
/// The longest value that Azure takes.
pub(super) const MAX_VALUE_BYTES: usize = 25 << 10;
/// How many a page has at the most.
const PAGE: usize = 25;

/// A value as Azure takes it: text, and of bytes that are none their base64.
pub(super) enum Given<'a> {
    Encoded(SecretBytes),
    Text(&'a str),
}

impl<'a> Given<'a> {
    /// Fails for a value that Azure does not take, before anything is asked.
    pub(super) fn of(value: &'a SecretBytes, put: &Put) -> Result<Self> {
        let given = match std::str::from_utf8(value.expose()) {
            Ok(text) if !put.binary => Self::Text(text),
            Ok(_) | Err(_) => Self::Encoded(base64::encode(value.expose())?),
        };
        if given.text()?.len() > MAX_VALUE_BYTES {
            return Err(too_long());
        }
        Ok(given)
    }

    fn text(&self) -> Result<&str> {
        match self {
            Self::Encoded(encoded) => std::str::from_utf8(encoded.expose()).map_err(|_| strange()),
            Self::Text(text) => Ok(text),
        }
    }
}

pub(super) fn too_long() -> BackendError {
    invalid("the value is longer than Azure's 25 KiB, where bytes are base64")
}

/// A secret or one of its versions, without its value.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Item {
    id: String,
    content_type: Option<String>,
    #[serde(default)]
    pub(super) attributes: Attributes,
    pub(super) tags: Option<BTreeMap<String, String>>,
}

/// What Azure keeps of each version. Times are whole seconds.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(super) struct Attributes {
    #[serde(default)]
    enabled: bool,
    created: Option<i64>,
    updated: Option<i64>,
    exp: Option<i64>,
    nbf: Option<i64>,
}

/// A page of items.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Items {
    value: Option<Vec<Item>>,
    next_link: Option<String>,
}

impl Item {
    /// Returns the name, as Azure has it.
    pub(super) fn name(&self) -> Option<&str> {
        self.id.split('/').nth(4)
    }

    /// Returns the version that it is of.
    pub(super) fn version(&self) -> Option<VersionId> {
        let version = self.id.split('/').nth(5)?;
        is_version(version).then(|| VersionId(version.to_owned()))
    }
}

impl Attributes {
    pub(super) fn created(&self) -> Option<Timestamp> {
        time(self.created)
    }

    pub(super) fn updated(&self) -> Option<Timestamp> {
        time(self.updated)
    }

    pub(super) fn expires(&self) -> Option<Timestamp> {
        time(self.exp)
    }

    /// Whether it is switched on and may be used already. What has expired is the caller's to judge.
    pub(super) fn is_readable(&self) -> bool {
        self.enabled && !self.is_early()
    }

    fn is_early(&self) -> bool {
        self.nbf.is_some_and(|from| from > SystemClock.now().as_second())
    }
}

impl Client {
    /// Reads a version's value; the current one without an id.
    pub(super) fn read(
        &self,
        name: &str,
        version: Option<&VersionId>,
        deadline: Deadline,
    ) -> Result<Fetched> {
        #[derive(Deserialize)]
        struct Value<'a> {
            #[serde(borrow)]
            value: Option<&'a RawValue>,
        }
        let answer = self.read_raw(name, version, deadline)?;
        let item: Item = parse(&answer)?;
        let Value { value } = parse(&answer)?;
        if !item.attributes.enabled {
            return Err(disabled());
        }
        if item.attributes.is_early() {
            return Err(BackendError::Denied("it may not be used yet".into()));
        }
        let value = text(value.ok_or_else(strange)?.get())?;
        let is_binary = item.content_type.as_deref() == Some(BINARY);
        // Not every text of that type is base64: it is then shown as it is.
        let value = if is_binary { decoded(&value).unwrap_or(value) } else { value };
        Ok(Fetched {
            version: item.version().ok_or_else(strange)?,
            value,
            created: item.attributes.created(),
            expires: item.attributes.expires(),
        })
    }

    fn read_raw(
        &self,
        name: &str,
        version: Option<&VersionId>,
        deadline: Deadline,
    ) -> Result<Answer> {
        let version = version.map_or("", |version| version.0.as_str());
        let path = format!("secrets/{name}/{version}");
        self.ask(Call { path: &path, ..Call::default() }, deadline)
    }

    /// Makes a new version, which keeps the tags and the content type of `before`.
    pub(super) fn write(
        &self,
        name: &str,
        (given, expires): (&Given<'_>, Option<Timestamp>),
        before: Option<Item>,
        deadline: Deadline,
    ) -> Result<Item> {
        let (content_type, tags) =
            before.map_or((None, None), |before| (before.content_type, before.tags));
        let content_type = match given {
            Given::Encoded(_) => Some(BINARY.to_owned()),
            Given::Text(_) => content_type.filter(|kind| kind != BINARY),
        };
        let attributes = match expires {
            None => json!({ "enabled": true }),
            Some(expires) => json!({ "enabled": true, "exp": expires.as_second() }),
        };
        let tags = tags.unwrap_or_default();
        let rest = json!({ "attributes": attributes, "contentType": content_type, "tags": tags });
        let rest = rest.to_string();
        let mut body = SecretBuffer::new();
        body.write_at(0, b"{\"value\":")?;
        json::push_string(&mut body, given.text()?)?;
        body.write_at(body.len(), b",")?;
        body.write_at(body.len(), rest.trim_start_matches('{').as_bytes())?;
        let path = format!("secrets/{name}");
        let call = Call { method: Method::Put, path: &path, body: Some(body.expose()) };
        parse(&self.ask(call, deadline)?)
    }

    /// Returns every version, oldest first and the current one last.
    pub(super) fn all_versions(&self, name: &str, deadline: Deadline) -> Result<Vec<Item>> {
        let mut versions = Vec::new();
        let mut link = format!("secrets/{name}/versions?maxresults={PAGE}");
        loop {
            let (items, next) = self.page(&link, deadline)?;
            versions.extend(items);
            match next {
                Some(next) => link = next,
                None => break,
            }
        }
        versions.sort_by_key(|version| version.attributes.created);
        self.settle_tie(name, &mut versions, deadline)?;
        if versions.is_empty() { Err(BackendError::NotFound) } else { Ok(versions) }
    }

    /// Moves the current version to the end. Only where it was made in the same second as another one does that
    /// take a look at it.
    fn settle_tie(&self, name: &str, versions: &mut [Item], deadline: Deadline) -> Result<()> {
        let newest = versions.last().map(|version| version.attributes.created);
        let tied = versions.iter().filter(|version| Some(version.attributes.created) == newest);
        if tied.count() < 2 {
            return Ok(());
        }
        let current = match self.read_raw(name, None, deadline) {
            Ok(answer) => parse::<Item>(&answer)?.id,
            // It is disabled, or may not be read: then nobody says which it is.
            Err(BackendError::Denied(_)) => return Ok(()),
            Err(error) => return Err(error),
        };
        versions.sort_by_key(|version| version.id == current);
        Ok(())
    }

    /// Returns one page of all secrets, and where the next one is.
    pub(super) fn names(
        &self,
        link: Option<&str>,
        deadline: Deadline,
    ) -> Result<(Vec<Item>, Option<String>)> {
        let first = format!("secrets?maxresults={PAGE}");
        self.page(link.unwrap_or(&first), deadline)
    }

    fn page(&self, link: &str, deadline: Deadline) -> Result<(Vec<Item>, Option<String>)> {
        let items: Items = parse(&self.ask_next(link, deadline)?)?;
        let next = items.next_link.filter(|link| !link.is_empty());
        let next = next.map(|link| self.next(&link)).transpose()?;
        Ok((items.value.unwrap_or_default(), next))
    }

    /// Replaces the tags of the current version.
    pub(super) fn set_tags(
        &self,
        name: &str,
        tags: &BTreeMap<String, String>,
        deadline: Deadline,
    ) -> Result<()> {
        let body = json!({ "tags": tags }).to_string();
        let path = format!("secrets/{name}/");
        let body = Some(body.as_bytes());
        self.ask(Call { method: Method::Patch, path: &path, body }, deadline).map(drop)
    }

    /// Returns what is known of a deleted secret.
    pub(super) fn deleted(&self, name: &str, deadline: Deadline) -> Result<Item> {
        let path = format!("deletedsecrets/{name}");
        parse(&self.ask(Call { path: &path, ..Call::default() }, deadline)?)
    }

    /// Deletes a secret, or begins to.
    pub(super) fn remove(&self, name: &str, deadline: Deadline) -> Result<()> {
        let path = format!("secrets/{name}");
        let call = Call { method: Method::Delete, path: &path, body: None };
        self.ask(call, deadline).map(drop)
    }

    /// Brings a deleted secret back, or begins to.
    pub(super) fn recover(&self, name: &str, deadline: Deadline) -> Result<()> {
        let path = format!("deletedsecrets/{name}/recover");
        let call = Call { method: Method::Post, path: &path, body: None };
        self.ask(call, deadline).map(drop)
    }

    /// Deletes a deleted secret for ever, or begins to.
    pub(super) fn purge(&self, name: &str, deadline: Deadline) -> Result<()> {
        let path = format!("deletedsecrets/{name}");
        let call = Call { method: Method::Delete, path: &path, body: None };
        self.ask(call, deadline).map(drop)
    }
}

/// Tells whether the text is a version's id, which then stands in a path as it is.
pub(super) fn is_version(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn time(seconds: Option<i64>) -> Option<Timestamp> {
    Timestamp::from_second(seconds?).ok()
}

/// Decodes a JSON string in locked memory.
fn text(raw: &str) -> Result<SecretBytes> {
    let node = json::parse(raw).map_err(|_| strange())?;
    let Content::Text(text) = &node.content else { return Err(strange()) };
    Ok(SecretBytes::copy_from(text.expose())?)
}

fn decoded(text: &SecretBytes) -> Option<SecretBytes> {
    let decode = |room: &mut [u8]| -> Result<usize> {
        Base64::decode(text.expose(), room).map(<[u8]>::len).map_err(|_| strange())
    };
    SecretBytes::with_len(text.len(), decode).ok()
}
