//! What Secrets Manager answers, and the body of what it is asked where a value is in it.

use std::collections::BTreeMap;
use std::time::Duration;

use base64ct::{Base64, Encoding};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::answer::{strange, text};
use super::{CURRENT, PREVIOUS};
use crate::backend::{
    BackendError, Description, Fetched, Page, PageToken, Result, Version, VersionId,
};
use crate::inject::json::push_string;
use crate::inject::push;
use crate::model::Timestamp;
use crate::system::{SecretBuffer, SecretBytes};

/// Puts a value into an object, in locked memory.
pub(super) fn body_with_secret(object: &Value, key: &str, value: &str) -> Result<SecretBytes> {
    let object = object.to_string();
    let mut body = SecretBuffer::new();
    push(&mut body, object.strip_suffix('}').ok_or_else(strange)?.as_bytes())?;
    push(&mut body, b",")?;
    push_string(&mut body, key)?;
    push(&mut body, b":")?;
    push_string(&mut body, value)?;
    push(&mut body, b"}")?;
    Ok(body.into_bytes())
}

/// Puts another member into an object, if there is one.
pub(super) fn with(mut object: Value, key: &str, value: Option<Value>) -> Value {
    if let (Value::Object(members), Some(value)) = (&mut object, value) {
        members.insert(key.to_owned(), value);
    }
    object
}

/// A version with its value.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Stored<'a> {
    version_id: String,
    #[serde(borrow)]
    secret_string: Option<&'a RawValue>,
    #[serde(borrow)]
    secret_binary: Option<&'a RawValue>,
    created_date: Option<f64>,
}

impl Stored<'_> {
    pub(super) fn fetched(&self) -> Result<Fetched> {
        let value = match (self.secret_string, self.secret_binary) {
            (Some(string), _) => text(string)?,
            (None, Some(binary)) => decoded(&text(binary)?)?,
            // A version that never had one.
            (None, None) => return Err(BackendError::NotFound),
        };
        let version = VersionId(self.version_id.clone());
        Ok(Fetched { version, value, created: self.created_date.and_then(time), expires: None })
    }
}

/// Decodes base64 in locked memory.
pub(super) fn decoded(encoded: &SecretBytes) -> Result<SecretBytes> {
    SecretBytes::with_len(encoded.len(), |room| {
        Base64::decode(encoded.expose(), room).map(<[u8]>::len).map_err(|_| strange())
    })
}

/// A version that was just made.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Made {
    version_id: String,
    /// Not told of a secret's first one.
    version_stages: Option<Vec<String>>,
}

impl Made {
    pub(super) fn version(self) -> Version {
        let stages = self.version_stages.unwrap_or_else(|| vec![CURRENT.to_owned()]);
        Version { id: VersionId(self.version_id), created: None, stages, readable: true }
    }
}

/// What is known of a secret.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Described {
    description: Option<String>,
    created_date: Option<f64>,
    last_changed_date: Option<f64>,
    deleted_date: Option<f64>,
    tags: Option<Vec<Tag>>,
    version_ids_to_stages: Option<BTreeMap<String, Vec<String>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Tag {
    key: String,
    value: String,
}

impl Described {
    pub(super) fn is_deleted(&self) -> bool {
        self.deleted_date.is_some()
    }

    pub(super) fn description(self) -> Description {
        let deleted = self.is_deleted();
        let staged = self.version_ids_to_stages.unwrap_or_default();
        let mut staged = staged.into_iter();
        let current = staged.find(|(_, stages)| stages.iter().any(|stage| stage == CURRENT));
        let tags = self.tags.unwrap_or_default();
        Description {
            current: current.map(|(id, _)| VersionId(id)),
            created: self.created_date.and_then(time),
            changed: self.last_changed_date.and_then(time),
            expires: None,
            description: self.description.filter(|text| !text.is_empty()),
            tags: tags.into_iter().map(|tag| (tag.key, tag.value)).collect(),
            deleted,
        }
    }
}

/// Versions, in no order of the service's that is documented.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Versions {
    pub(super) versions: Vec<Listing>,
    pub(super) next_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Listing {
    version_id: String,
    /// Not there for versions that are only kept for a while.
    version_stages: Option<Vec<String>>,
    created_date: Option<f64>,
}

impl Versions {
    pub(super) fn has(&self, id: &VersionId) -> bool {
        self.versions.iter().any(|version| version.version_id == id.0)
    }

    /// Returns the version that carries a stage.
    pub(super) fn with_stage(&self, stage: &str) -> Option<&str> {
        let carries = |version: &&Listing| version.stages().any(|carried| carried == stage);
        self.versions.iter().find(carries).map(|version| version.version_id.as_str())
    }

    /// Returns them by their dates, and those of one date by what they are.
    pub(super) fn oldest_first(mut self, readable: bool) -> Vec<Version> {
        self.versions.sort_by(|one, other| {
            let dates =
                one.created_date.unwrap_or(0.0).total_cmp(&other.created_date.unwrap_or(0.0));
            dates.then(one.rank().cmp(&other.rank()))
        });
        let version = |listing: Listing| Version {
            id: VersionId(listing.version_id),
            created: listing.created_date.and_then(time),
            stages: listing.version_stages.unwrap_or_default(),
            readable,
        };
        self.versions.into_iter().map(version).collect()
    }
}

impl Listing {
    fn stages(&self) -> impl Iterator<Item = &str> {
        self.version_stages.iter().flatten().map(String::as_str)
    }

    fn rank(&self) -> u8 {
        let rank = |stage| match stage {
            PREVIOUS => 1,
            CURRENT => 2,
            _ => 0,
        };
        self.stages().map(rank).max().unwrap_or(0)
    }
}

/// A list may lack the changes of the last five minutes, as AWS documents.
const LIST_BEHIND: Duration = Duration::from_secs(300);

/// A page of secrets.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Listed {
    secret_list: Vec<Named>,
    next_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Named {
    name: String,
    last_changed_date: Option<f64>,
}

impl Listed {
    /// Returns the names behind a prefix.
    pub(super) fn page(self, prefix: &str) -> Page {
        let next = self.next_token.filter(|next| !next.is_empty()).map(PageToken);
        let mut page = Page { behind: LIST_BEHIND, next, ..Page::default() };
        for Named { name, last_changed_date } in self.secret_list {
            if let Some(name) = name.strip_prefix(prefix).filter(|name| !name.is_empty()) {
                page.add(name, last_changed_date.and_then(time));
            }
        }
        page
    }
}

/// Reads the seconds since 1970, with a part of one.
fn time(seconds: f64) -> Option<Timestamp> {
    let since = std::time::Duration::try_from_secs_f64(seconds).ok()?;
    Timestamp::UNIX_EPOCH.checked_add(since).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_its_bytes_and_a_binary_what_is_encoded() {
        let fetched = |json: &str| serde_json::from_str::<Stored<'_>>(json).unwrap().fetched();
        let text = fetched(r#"{"VersionId":"v","SecretString":"a\n\"\u00e9","CreatedDate":1.5}"#);
        let text = text.unwrap();
        assert_eq!(text.value.expose(), "a\n\"\u{e9}".as_bytes());
        assert_eq!(text.created, Some("1970-01-01T00:00:01.5Z".parse().unwrap()));
        let binary = fetched(r#"{"VersionId":"v","SecretString":null,"SecretBinary":"\/w=="}"#);
        assert_eq!(binary.unwrap().value.expose(), b"\xff");
        assert_eq!(fetched(r#"{"VersionId":"v"}"#).unwrap_err(), BackendError::NotFound);
    }

    #[test]
    fn a_body_with_a_value_is_the_object_and_the_value() {
        let object = serde_json::json!({ "SecretId": "a" });
        let body = body_with_secret(&object, "SecretString", "x\"\n").unwrap();
        assert_eq!(body.expose(), br#"{"SecretId":"a","SecretString":"x\"\n"}"#);
    }

    #[test]
    fn versions_of_one_second_are_in_the_order_of_their_stages() {
        let json = r#"{"Versions":[
            {"VersionId":"c","VersionStages":["AWSCURRENT","x"],"CreatedDate":5.0},
            {"VersionId":"b","VersionStages":["AWSPREVIOUS"],"CreatedDate":5.0},
            {"VersionId":"a","CreatedDate":5.0},
            {"VersionId":"0","VersionStages":["x"],"CreatedDate":4.9}]}"#;
        let versions: Versions = serde_json::from_str(json).unwrap();
        assert_eq!(versions.with_stage("AWSPREVIOUS"), Some("b"));
        let ids: Vec<String> =
            versions.oldest_first(true).into_iter().map(|version| version.id.0).collect();
        assert_eq!(ids, ["0", "a", "b", "c"]);
    }
}
