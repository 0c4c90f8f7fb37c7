//! The key-value engine's own API, both versions of it: what is asked where, and what is in the answers.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::answer::{Data, parse, strange};
use super::client::{Call, Client};
use super::settings::Engine;
use crate::backend::http::{Answer, Method, percent_encoded};
use crate::backend::{BackendError, Deadline, Result};
use crate::model::{Clock, Timestamp};
use crate::system::{SecretBuffer, SecretBytes, SystemClock};

/// One engine. Paths are without its mount.
pub(super) struct Kv {
    pub(super) client: Client,
    mount: String,
    pub(super) engine: Engine,
}

/// The version of a secret whose engine knows none.
pub(super) const UNVERSIONED: u64 = 0;

impl Kv {
    pub(super) fn new(client: Client, mount: &str, engine: Engine) -> Self {
        Self { client, mount: percent_encoded(mount, true), engine }
    }

    /// Reads a version's object; the current one without a number.
    pub(super) fn read(
        &self,
        path: &str,
        version: Option<u64>,
        deadline: Deadline,
    ) -> Result<Stored> {
        let query = version.map_or_else(String::new, |version| format!("?version={version}"));
        let answer = match self.engine {
            Engine::Kv1 => self.get(&format!("{}/{}", self.mount, encoded(path)), deadline)?,
            Engine::Kv2 => self.get(&format!("{}{query}", self.path("data", path)), deadline)?,
        };
        let made = match self.engine {
            Engine::Kv1 => Made { version: UNVERSIONED, ..Made::default() },
            Engine::Kv2 => parse::<Data<Read<'_>>>(&answer)?.data.metadata,
        };
        Ok(Stored { made, answer, engine: self.engine })
    }

    /// Writes an object as a new version, if the current one is `cas` (0: there is none).
    pub(super) fn write(
        &self,
        path: &str,
        object: &SecretBytes,
        cas: Option<u64>,
        deadline: Deadline,
    ) -> Result<Made> {
        match self.engine {
            Engine::Kv1 => {
                let path = format!("{}/{}", self.mount, encoded(path));
                let body = Some(object.expose());
                let call = Call { method: Method::Post, path: &path, body, is_patch: false };
                self.client.ask(call, deadline)?;
                Ok(Made { version: UNVERSIONED, ..Made::default() })
            }
            Engine::Kv2 => self.write_version(path, object, (cas, Method::Post), deadline),
        }
    }

    /// Merges an object into the current version, in one step at the server.
    pub(super) fn merge(
        &self,
        path: &str,
        object: &SecretBytes,
        cas: Option<u64>,
        deadline: Deadline,
    ) -> Result<Made> {
        self.needs_versions("merging")?;
        self.write_version(path, object, (cas, Method::Patch), deadline)
    }

    fn write_version(
        &self,
        path: &str,
        object: &SecretBytes,
        (cas, method): (Option<u64>, Method),
        deadline: Deadline,
    ) -> Result<Made> {
        let options = cas.map_or_else(String::new, |cas| format!("\"cas\":{cas}"));
        let mut body = SecretBuffer::new();
        for part in [b"{\"options\":{", options.as_bytes(), b"},\"data\":", object.expose(), b"}"] {
            body.write_at(body.len(), part)?;
        }
        let path = self.path("data", path);
        let body = Some(body.expose());
        let call = Call { method, path: &path, body, is_patch: method == Method::Patch };
        Ok(parse::<Data<Made>>(&self.client.ask(call, deadline)?)?.data)
    }

    /// Returns what is known of a secret and its versions.
    pub(super) fn metadata(&self, path: &str, deadline: Deadline) -> Result<Metadata> {
        self.needs_versions("metadata")?;
        let answer = self.get(&self.path("metadata", path), deadline)?;
        Ok(parse::<Data<Metadata>>(&answer)?.data)
    }

    /// Replaces the tags.
    pub(super) fn tag(
        &self,
        path: &str,
        tags: &BTreeMap<String, String>,
        deadline: Deadline,
    ) -> Result<()> {
        self.needs_versions("tags")?;
        self.post(&self.path("metadata", path), &json!({ "custom_metadata": tags }), deadline)
    }

    /// Deletes the current version: softly where there are versions.
    pub(super) fn delete(&self, path: &str, deadline: Deadline) -> Result<()> {
        let path = match self.engine {
            Engine::Kv1 => format!("{}/{}", self.mount, encoded(path)),
            Engine::Kv2 => self.path("data", path),
        };
        let call = Call { method: Method::Delete, path: &path, ..Call::default() };
        self.client.ask(call, deadline).map(drop)
    }

    /// Brings a version back.
    pub(super) fn undelete(&self, path: &str, version: u64, deadline: Deadline) -> Result<()> {
        self.needs_versions("restoring")?;
        self.post(&self.path("undelete", path), &json!({ "versions": [version] }), deadline)
    }

    /// Removes a secret with all that is known of it.
    pub(super) fn destroy(&self, path: &str, deadline: Deadline) -> Result<()> {
        match self.engine {
            Engine::Kv1 => self.delete(path, deadline),
            Engine::Kv2 => {
                let path = self.path("metadata", path);
                let call = Call { method: Method::Delete, path: &path, ..Call::default() };
                self.client.ask(call, deadline).map(drop)
            }
        }
    }

    /// Lists one directory, which is empty or ends in a slash: names, and directories with a slash. OpenBao gives
    /// at most `limit` of them behind `after`; Vault knows neither and gives all.
    pub(super) fn list(
        &self,
        directory: &str,
        (after, limit): (&str, usize),
        deadline: Deadline,
    ) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Keys {
            /// An empty directory may have none.
            keys: Option<Vec<String>>,
        }
        let place = match self.engine {
            Engine::Kv1 => format!("{}/{}", self.mount, encoded(directory)),
            Engine::Kv2 => self.path("metadata", directory),
        };
        let after = percent_encoded(after, false);
        let path = format!("{place}?list=true&limit={limit}&after={after}");
        match self.get(&path, deadline) {
            Ok(answer) => Ok(parse::<Data<Keys>>(&answer)?.data.keys.unwrap_or_default()),
            // Or it is none at all.
            Err(BackendError::NotFound) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    fn get(&self, path: &str, deadline: Deadline) -> Result<Answer> {
        self.client.ask(Call { path, ..Call::default() }, deadline)
    }

    fn post(&self, path: &str, body: &serde_json::Value, deadline: Deadline) -> Result<()> {
        let body = body.to_string();
        let body = Some(body.as_bytes());
        let call = Call { method: Method::Post, path, body, is_patch: false };
        self.client.ask(call, deadline).map(drop)
    }

    fn path(&self, part: &str, path: &str) -> String {
        format!("{}/{part}/{}", self.mount, encoded(path))
    }

    /// Fails where there are no versions, before anything is asked.
    pub(super) fn needs_versions(&self, what: &str) -> Result<()> {
        match self.engine {
            Engine::Kv1 => Err(BackendError::Unsupported(format!("{what} in kv-v1"))),
            Engine::Kv2 => Ok(()),
        }
    }
}

fn encoded(path: &str) -> String {
    percent_encoded(path, true)
}

/// A version's object, where it came from the wire.
pub(super) struct Stored {
    pub(super) made: Made,
    answer: Answer,
    engine: Engine,
}

impl Stored {
    /// Returns the text of the object.
    pub(super) fn object(&self) -> Result<&str> {
        let data = match self.engine {
            Engine::Kv1 => parse::<Data<&RawValue>>(&self.answer)?.data,
            Engine::Kv2 => parse::<Data<Read<'_>>>(&self.answer)?.data.data,
        };
        // A version that is deleted has none.
        Some(data.get()).filter(|text| *text != "null").ok_or(BackendError::NotFound)
    }
}

#[derive(Deserialize)]
struct Read<'a> {
    #[serde(borrow)]
    data: &'a RawValue,
    metadata: Made,
}

/// What the engine says of a version that it has or has just made.
#[derive(Default, Deserialize)]
pub(super) struct Made {
    pub(super) version: u64,
    created_time: Option<Timestamp>,
    #[serde(default)]
    deletion_time: String,
}

impl Made {
    pub(super) fn created(&self) -> Option<Timestamp> {
        self.created_time
    }

    /// Returns when it deletes itself.
    pub(super) fn expires(&self) -> Option<Timestamp> {
        self.deletion_time.parse().ok()
    }
}

/// What the engine says of a secret.
#[derive(Deserialize)]
pub(super) struct Metadata {
    pub(super) current_version: u64,
    pub(super) created_time: Option<Timestamp>,
    pub(super) updated_time: Option<Timestamp>,
    pub(super) custom_metadata: Option<BTreeMap<String, String>>,
    versions: BTreeMap<String, VersionMetadata>,
}

/// What it says of one of its versions.
#[derive(Deserialize)]
pub(super) struct VersionMetadata {
    pub(super) created_time: Option<Timestamp>,
    deletion_time: String,
    destroyed: bool,
}

impl Metadata {
    /// Returns the versions, oldest first.
    pub(super) fn versions(&self) -> Result<Vec<(u64, &VersionMetadata)>> {
        let numbered = self
            .versions
            .iter()
            .map(|(number, version)| Ok((number.parse().map_err(|_| strange())?, version)));
        let mut versions: Vec<_> = numbered.collect::<Result<_>>()?;
        versions.sort_unstable_by_key(|(number, _)| *number);
        Ok(versions)
    }

    /// Returns the current version, unless the engine has forgotten it or there never was one.
    pub(super) fn current(&self) -> Option<&VersionMetadata> {
        self.versions.get(&self.current_version.to_string())
    }
}

impl VersionMetadata {
    /// Tells whether its value can be read now. It may be set to delete itself later.
    pub(super) fn is_readable(&self) -> bool {
        let gone = self.expires().is_some_and(|at| at <= SystemClock.now());
        !self.destroyed && !gone
    }

    /// Tells whether it was deleted and can be brought back.
    pub(super) fn is_deleted(&self) -> bool {
        !self.destroyed && !self.is_readable()
    }

    /// Returns when it deletes, or has deleted, itself.
    pub(super) fn expires(&self) -> Option<Timestamp> {
        self.deletion_time.parse().ok()
    }
}
