//! AWS Secrets Manager: secrets with versions that carry stages, tags, and a deletion that can be undone.
//!
//! A secret is the text or the bytes that it has there. The service compares nothing when it puts, and knows no date
//! of expiry. Every read says which stage or version it wants: without one, a service may answer with any.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    Abilities, Backend, BackendError, Deadline, Description, Fetched, Page, PageToken, Probe, Put,
    Result, Variables, Version, VersionId, Which,
};
use crate::inject::base64;
use crate::system::SecretBytes;

mod answer;
mod api;
mod check;
mod client;
mod credential;
mod kms;
mod metadata;
mod profile;
mod settings;
mod sign;
mod sources;
mod sts;
mod wire;

pub use kms::Kms;
pub use settings::AwsSettings;

use answer::{parse, strange};
use api::{Described, Listed, Made, Stored, Versions, body_with_secret, with};
use client::{Client, Service};

/// The stage of the version that is read without a word of another.
const CURRENT: &str = "AWSCURRENT";
/// The stage that the service gives to what was current before.
const PREVIOUS: &str = "AWSPREVIOUS";

const SECRETS_MANAGER: Service = Service { name: "secretsmanager", target: "secretsmanager" };

/// The longest name and the longest value that the service takes.
const MAX_NAME_BYTES: usize = 512;
const MAX_VALUE_BYTES: usize = 65_536;

/// The secrets of one region below one prefix.
pub struct SecretsManager {
    client: Client,
    prefix: String,
    recovery_days: u8,
}

impl SecretsManager {
    /// Asks nothing yet. `variables` are those of the environment that AWS's own tools know.
    pub fn new(settings: &AwsSettings, variables: &Variables<'_>) -> Result<Self> {
        let client =
            Client::new(settings, (SECRETS_MANAGER, settings.endpoint.as_deref()), variables)?;
        let mut prefix = settings.prefix.clone();
        if !prefix.is_empty() && !prefix.ends_with('/') {
            prefix.push('/');
        }
        Ok(Self { client, prefix, recovery_days: settings.recovery_days })
    }

    /// Returns a secret's name there.
    fn id(&self, name: &str) -> Result<String> {
        let id = format!("{}{name}", self.prefix);
        if name.is_empty() || id.len() > MAX_NAME_BYTES || !id.chars().all(settings::is_name) {
            return Err(BackendError::Invalid("no name of Secrets Manager's".into()));
        }
        Ok(id)
    }

    fn ask(&self, action: &str, body: &Value, deadline: Deadline) -> Result<super::http::Answer> {
        self.client.ask(action, body.to_string().as_bytes(), deadline)
    }

    fn described(&self, id: &str, deadline: Deadline) -> Result<Described> {
        parse(&self.ask("DescribeSecret", &json!({ "SecretId": id }), deadline)?)
    }

    /// Returns what is known of a secret that is there and not deleted.
    fn undeleted(&self, id: &str, deadline: Deadline) -> Result<Described> {
        let described = self.described(id, deadline)?;
        if described.is_deleted() { Err(BackendError::NotFound) } else { Ok(described) }
    }

    /// Puts a value under a token that makes it one version, however often it is sent.
    fn put_value(
        &self,
        action: &str,
        (key, id): (&str, &str),
        (token, value): (&str, &Given<'_>),
        deadline: Deadline,
    ) -> Result<Made> {
        let object = json!({ key: id, "ClientRequestToken": token });
        let body = match value {
            Given::Binary(bytes) => {
                let encoded = base64::encode(bytes)?;
                let encoded = std::str::from_utf8(encoded.expose()).map_err(|_| strange())?;
                body_with_secret(&object, "SecretBinary", encoded)?
            }
            Given::Text(text) => body_with_secret(&object, "SecretString", text)?,
        };
        parse(&self.client.ask(action, body.expose(), deadline)?)
    }

    /// Returns all versions with their stages, as they are listed.
    fn listed_versions(&self, id: &str, deadline: Deadline) -> Result<Versions> {
        let mut all = Versions::default();
        let mut next = None::<String>;
        loop {
            let body = json!({ "SecretId": id, "IncludeDeprecated": true, "MaxResults": 100 });
            let body = with(body, "NextToken", next.map(Value::from));
            let page: Versions = parse(&self.ask("ListSecretVersionIds", &body, deadline)?)?;
            all.versions.extend(page.versions);
            next = page.next_token.filter(|next| !next.is_empty());
            if next.is_none() {
                return Ok(all);
            }
        }
    }
}

/// A value as it is sent.
enum Given<'a> {
    Binary(&'a [u8]),
    Text(&'a str),
}

impl Backend for SecretsManager {
    fn abilities(&self, _: Deadline) -> Result<Abilities> {
        Ok(Abilities {
            versions: true,
            stages: true,
            compare_and_set: false,
            restore: true,
            tags: true,
        })
    }

    fn get(&self, name: &str, which: &Which, deadline: Deadline) -> Result<Fetched> {
        let id = self.id(name)?;
        let body = match which {
            Which::Current => json!({ "SecretId": id, "VersionStage": CURRENT }),
            Which::Id(version) => json!({ "SecretId": id, "VersionId": checked(version)? }),
            Which::Stage(stage) => json!({ "SecretId": id, "VersionStage": stage }),
        };
        let answer = self.ask("GetSecretValue", &body, deadline)?;
        parse::<Stored<'_>>(&answer)?.fetched()
    }

    fn put(
        &self,
        name: &str,
        value: &SecretBytes,
        put: &Put,
        deadline: Deadline,
    ) -> Result<Version> {
        if put.expires.is_some() {
            return Err(BackendError::Unsupported("a date of expiry".into()));
        }
        if put.expect.is_some() {
            return Err(BackendError::Unsupported("compare-and-set".into()));
        }
        check_size(value.len())?;
        let given = match std::str::from_utf8(value.expose()) {
            Ok(text) if !put.binary => Given::Text(text),
            Ok(_) | Err(_) => Given::Binary(value.expose()),
        };
        let (id, token) = (self.id(name)?, request_token()?);
        let put_value =
            || self.put_value("PutSecretValue", ("SecretId", &id), (&token, &given), deadline);
        let made = match put_value() {
            Err(BackendError::NotFound) => {
                match self.put_value("CreateSecret", ("Name", &id), (&token, &given), deadline) {
                    // Somebody else has made it meanwhile.
                    Err(BackendError::Conflict) => put_value(),
                    // It is there and it is not.
                    Err(BackendError::NotFound) => Err(BackendError::Invalid(
                        "it is deleted, and has to be restored or destroyed first".into(),
                    )),
                    created => created,
                }
            }
            made => made,
        }?;
        Ok(made.version())
    }

    fn describe(&self, name: &str, deadline: Deadline) -> Result<Description> {
        Ok(self.described(&self.id(name)?, deadline)?.description())
    }

    fn versions(&self, name: &str, deadline: Deadline) -> Result<Vec<Version>> {
        let id = self.id(name)?;
        // The service lists those of a deleted secret too, and does not say that it is.
        let readable = !self.described(&id, deadline)?.is_deleted();
        Ok(self.listed_versions(&id, deadline)?.oldest_first(readable))
    }

    fn list(&self, page: Option<&PageToken>, deadline: Deadline) -> Result<Page> {
        let filter = json!([{ "Key": "name", "Values": [self.prefix] }]);
        let filter = (!self.prefix.is_empty()).then_some(filter);
        let body = with(json!({ "MaxResults": 100 }), "Filters", filter);
        let body = with(body, "NextToken", page.map(|page| json!(page.0)));
        let listed: Listed = parse(&self.ask("ListSecrets", &body, deadline)?)?;
        Ok(listed.page(&self.prefix))
    }

    fn tag(&self, name: &str, tags: &BTreeMap<String, String>, deadline: Deadline) -> Result<()> {
        let id = self.id(name)?;
        let before = self.undeleted(&id, deadline)?.description().tags;
        // What the service itself tags stays.
        let is_ours = |key: &&String| !key.starts_with("aws:");
        let gone: Vec<&String> =
            before.keys().filter(is_ours).filter(|key| !tags.contains_key(*key)).collect();
        let new: Vec<Value> = tags
            .iter()
            .filter(|(key, value)| before.get(*key) != Some(*value))
            .map(|(key, value)| json!({ "Key": key, "Value": value }))
            .collect();
        if !new.is_empty() {
            self.ask("TagResource", &json!({ "SecretId": id, "Tags": new }), deadline)?;
        }
        if !gone.is_empty() {
            self.ask("UntagResource", &json!({ "SecretId": id, "TagKeys": gone }), deadline)?;
        }
        Ok(())
    }

    fn stage(&self, name: &str, stage: &str, to: &VersionId, deadline: Deadline) -> Result<()> {
        let id = self.id(name)?;
        self.undeleted(&id, deadline)?;
        let versions = self.listed_versions(&id, deadline)?;
        if !versions.has(to) {
            return Err(BackendError::NotFound);
        }
        let from = versions.with_stage(stage);
        if from == Some(to.0.as_str()) {
            return Ok(());
        }
        let body = json!({ "SecretId": id, "VersionStage": stage, "MoveToVersionId": to.0 });
        let body = with(body, "RemoveFromVersionId", from.map(Value::from));
        match self.ask("UpdateSecretVersionStage", &body, deadline) {
            // It is not where it was a moment ago.
            Err(BackendError::Invalid(_)) => Err(BackendError::Conflict),
            moved => moved.map(drop),
        }
    }

    fn delete(&self, name: &str, deadline: Deadline) -> Result<()> {
        let id = self.id(name)?;
        let body = json!({ "SecretId": id, "RecoveryWindowInDays": self.recovery_days });
        self.ask("DeleteSecret", &body, deadline).map(drop)
    }

    fn restore(&self, name: &str, deadline: Deadline) -> Result<()> {
        let id = self.id(name)?;
        self.ask("RestoreSecret", &json!({ "SecretId": id }), deadline).map(drop)
    }

    fn destroy(&self, name: &str, deadline: Deadline) -> Result<()> {
        let id = self.id(name)?;
        let body = json!({ "SecretId": id, "ForceDeleteWithoutRecovery": true });
        self.ask("DeleteSecret", &body, deadline).map(drop)
    }

    fn takes(&self, name: &str, bytes: Option<usize>) -> Result<()> {
        self.id(name)?;
        bytes.map_or(Ok(()), check_size)
    }

    fn check(&self, deadline: Deadline) -> Vec<Probe> {
        check::probes(self, deadline)
    }
}

impl std::fmt::Debug for SecretsManager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretsManager(..)")
    }
}

fn check_size(bytes: usize) -> Result<()> {
    if (1..=MAX_VALUE_BYTES).contains(&bytes) {
        return Ok(());
    }
    Err(BackendError::Invalid(format!("a value there has from 1 to {MAX_VALUE_BYTES} bytes")))
}

/// Returns the text of a version's name. What can be none is none of the service's.
fn checked(id: &VersionId) -> Result<&str> {
    if (32..=64).contains(&id.0.len()) { Ok(&id.0) } else { Err(BackendError::NotFound) }
}

/// Returns a random UUID (RFC 9562), which becomes the version's name.
fn request_token() -> Result<String> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|_| BackendError::Failed("no random bytes".into()))?;
    let number = u128::from_be_bytes(random);
    // The version is 4, and the variant the one of the RFC.
    let number = number & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let hex = format!("{number:032x}");
    let part = |range: std::ops::Range<usize>| hex.get(range).unwrap_or_default();
    Ok([part(0..8), part(8..12), part(12..16), part(16..20), part(20..32)].join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_token_is_a_random_uuid() {
        let (one, other) = (request_token().unwrap(), request_token().unwrap());
        assert_ne!(one, other);
        for token in [one, other] {
            let parts: Vec<usize> = token.split('-').map(str::len).collect();
            assert_eq!(parts, [8, 4, 4, 4, 12], "{token}");
            let digit = |at: usize| token.as_bytes()[at];
            assert!(digit(14) == b'4' && b"89ab".contains(&digit(19)), "{token}");
        }
    }

    #[test]
    fn a_name_that_the_service_does_not_allow_is_refused_before_it_is_asked() {
        let text = "region = \"us-east-1\"\nprefix = \"prod\"\n";
        let settings: AwsSettings = toml::from_str(text).unwrap();
        let backend = SecretsManager::new(&settings, &|_| None).unwrap();
        assert_eq!(backend.id("a/b_c.d@e-f").unwrap(), "prod/a/b_c.d@e-f");
        for bad in ["", "a b", "a:b", "\u{e9}", "a\n", &"x".repeat(508)] {
            assert!(matches!(backend.takes(bad, None), Err(BackendError::Invalid(_))), "{bad}");
        }
        for (bytes, fits) in [(0, false), (1, true), (65_536, true), (65_537, false)] {
            assert_eq!(backend.takes("a", Some(bytes)).is_ok(), fits, "{bytes}");
        }
    }
}
