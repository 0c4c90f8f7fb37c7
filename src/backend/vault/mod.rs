//! `HashiCorp` Vault and `OpenBao`: secrets of a key-value engine, with its versions, tags and soft deletion.
//!
//! Both speak the same API. A secret is shown as `shape` has it, or with `fields` as a directory with a file for
//! each of its fields, which then have their secret's versions. Stages and dates of expiry are none of Vault's.

use std::collections::BTreeMap;

use super::{
    Abilities, Backend, BackendError, Deadline, Description, Expect, Fetched, Page, PageToken,
    Probe, Put, Result, Version, VersionId, Which,
};
use crate::system::SecretBytes;

mod answer;
mod check;
mod client;
mod kv;
mod list;
mod login;
mod session;
mod settings;
mod shape;
mod transit;

pub use settings::{AuthSettings, Engine, VaultSettings};
pub use transit::Transit;

use client::Client;
use kv::{Kv, Made, Metadata, UNVERSIONED};
use shape::Fields;

/// The secrets of one engine below one prefix.
pub struct Vault {
    kv: Kv,
    prefix: String,
    /// Each secret is a directory of its fields.
    fields: bool,
}

impl Vault {
    /// Asks nothing yet. `token` is the one of `VAULT_TOKEN`, which is used where the settings name no file.
    pub fn new(settings: &VaultSettings, token: Option<SecretBytes>) -> Result<Self> {
        let client = Client::new(settings, token)?;
        let mut prefix = settings.prefix.clone();
        if !prefix.is_empty() && !prefix.ends_with('/') {
            prefix.push('/');
        }
        let kv = Kv::new(client, &settings.mount, settings.engine);
        Ok(Self { kv, prefix, fields: settings.fields })
    }

    /// Returns where a secret is, and which of its fields is meant.
    fn place<'a>(&self, name: &'a str) -> Result<(String, Option<&'a str>)> {
        if !self.fields {
            return Ok((format!("{}{name}", self.prefix), None));
        }
        let (secret, field) = name.rsplit_once('/').ok_or(BackendError::NoName)?;
        Ok((format!("{}{secret}", self.prefix), Some(field)))
    }

    /// Returns where a secret is, for what cannot be done with one of its fields.
    fn whole(&self, name: &str, what: &str) -> Result<String> {
        match self.place(name)? {
            (path, None) => Ok(path),
            (_, Some(_)) => Err(BackendError::Unsupported(format!("{what} of a single field"))),
        }
    }

    /// Puts one field into a secret, which keeps its others.
    fn put_field(
        &self,
        path: &str,
        (field, value): (&str, &SecretBytes),
        expect: Option<&Expect>,
        deadline: Deadline,
    ) -> Result<Made> {
        let text = std::str::from_utf8(value.expose())
            .map_err(|_| BackendError::Invalid("a field holds text alone".into()))?;
        let object = shape::one(field, text)?;
        let cas = match expect {
            None => None,
            Some(Expect::Version(id)) => Some(number(id)?),
            Some(Expect::Absent) => self.version_without(path, field, deadline)?,
        };
        match self.kv.merge(path, &object, cas, deadline) {
            // There is no such secret, or it is deleted: then this is its only field.
            Err(BackendError::NotFound) => self.kv.write(path, &object, cas, deadline),
            merged => merged,
        }
    }

    /// Returns the version of a secret that has no such field; 0 without any.
    fn version_without(&self, path: &str, field: &str, deadline: Deadline) -> Result<Option<u64>> {
        match self.kv.read(path, None, deadline) {
            Ok(stored) => {
                let fields = Fields::parse(stored.object()?).ok_or_else(answer::strange)?;
                let is_there = fields.names().any(|name| name == field);
                if is_there { Err(BackendError::Conflict) } else { Ok(Some(stored.made.version)) }
            }
            Err(BackendError::NotFound) => Ok(Some(0)),
            Err(error) => Err(error),
        }
    }

    /// Makes sure that a field is there, where fields are files.
    fn find_field(&self, path: &str, field: Option<&str>, deadline: Deadline) -> Result<()> {
        let Some(field) = field else { return Ok(()) };
        let stored = self.kv.read(path, None, deadline)?;
        Fields::parse(stored.object()?).ok_or_else(answer::strange)?.field(field).map(drop)
    }

    /// Returns what is known of a secret that is there and not deleted.
    fn undeleted(&self, path: &str, deadline: Deadline) -> Result<Metadata> {
        let metadata = self.kv.metadata(path, deadline)?;
        let is_there = metadata.current().is_some_and(kv::VersionMetadata::is_readable);
        if is_there { Ok(metadata) } else { Err(BackendError::NotFound) }
    }
}

impl Backend for Vault {
    fn abilities(&self, _: Deadline) -> Result<Abilities> {
        let versioned = self.kv.engine == Engine::Kv2;
        Ok(Abilities {
            versions: versioned,
            stages: false,
            compare_and_set: versioned,
            restore: versioned && !self.fields,
            tags: versioned && !self.fields,
        })
    }

    fn get(&self, name: &str, which: &Which, deadline: Deadline) -> Result<Fetched> {
        let (path, field) = self.place(name)?;
        let version = match which {
            Which::Current => None,
            // It has no other than the one that it calls current.
            Which::Id(id) if self.kv.engine == Engine::Kv1 && number(id)? != UNVERSIONED => {
                return Err(BackendError::NotFound);
            }
            Which::Id(id) => Some(number(id)?),
            Which::Stage(_) => return Err(no_stages()),
        };
        let stored = self.kv.read(&path, version, deadline)?;
        let object = stored.object()?;
        let value = match field {
            None => shape::file(object)?,
            Some(field) => Fields::parse(object).ok_or_else(answer::strange)?.field(field)?,
        };
        let made = &stored.made;
        let version = id(made.version);
        Ok(Fetched { version, value, created: made.created(), expires: made.expires() })
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
        if put.expect.is_some() && self.kv.engine == Engine::Kv1 {
            return Err(BackendError::Unsupported("compare-and-set in kv-v1".into()));
        }
        let (path, field) = self.place(name)?;
        let made = match field {
            Some(field) => self.put_field(&path, (field, value), put.expect.as_ref(), deadline)?,
            None => {
                let cas = match &put.expect {
                    None => None,
                    Some(Expect::Absent) => Some(0),
                    Some(Expect::Version(id)) => Some(number(id)?),
                };
                self.kv.write(&path, &shape::object(value)?, cas, deadline)?
            }
        };
        let created = made.created();
        Ok(Version { id: id(made.version), created, stages: Vec::new(), readable: true })
    }

    fn describe(&self, name: &str, deadline: Deadline) -> Result<Description> {
        let (path, field) = self.place(name)?;
        if self.kv.engine == Engine::Kv1 {
            // It has no way to ask for less.
            self.kv.read(&path, None, deadline)?;
            self.find_field(&path, field, deadline)?;
            return Ok(Description { current: Some(id(UNVERSIONED)), ..Description::default() });
        }
        let description = described(&self.kv.metadata(&path, deadline)?)?;
        if !description.deleted {
            self.find_field(&path, field, deadline)?;
        }
        Ok(description)
    }

    fn versions(&self, name: &str, deadline: Deadline) -> Result<Vec<Version>> {
        let (path, field) = self.place(name)?;
        if self.kv.engine == Engine::Kv1 {
            self.find_field(&path, field, deadline)?;
            self.kv.read(&path, None, deadline)?;
            let id = id(UNVERSIONED);
            return Ok(vec![Version { id, created: None, stages: Vec::new(), readable: true }]);
        }
        versions(&self.kv.metadata(&path, deadline)?)
    }

    fn history(&self, name: &str, deadline: Deadline) -> Result<(Description, Vec<Version>)> {
        let (path, field) = self.place(name)?;
        if self.kv.engine == Engine::Kv1 {
            return Ok((self.describe(name, deadline)?, self.versions(name, deadline)?));
        }
        let metadata = self.kv.metadata(&path, deadline)?;
        let description = described(&metadata)?;
        if description.deleted {
            return Ok((description, Vec::new()));
        }
        self.find_field(&path, field, deadline)?;
        Ok((description, versions(&metadata)?))
    }

    fn list(&self, page: Option<&PageToken>, deadline: Deadline) -> Result<Page> {
        list::page(&self.kv, &self.prefix, self.fields, page, deadline)
    }

    fn tag(&self, name: &str, tags: &BTreeMap<String, String>, deadline: Deadline) -> Result<()> {
        let path = self.whole(name, "tags")?;
        // Tagging what is not there would make it, without a version.
        self.undeleted(&path, deadline)?;
        self.kv.tag(&path, tags, deadline)
    }

    fn stage(&self, _: &str, _: &str, _: &VersionId, _: Deadline) -> Result<()> {
        Err(no_stages())
    }

    fn delete(&self, name: &str, deadline: Deadline) -> Result<()> {
        let (path, field) = self.place(name)?;
        if let Some(field) = field {
            self.kv.needs_versions("deleting a single field")?;
            self.find_field(&path, Some(field), deadline)?;
            let object = serde_json::json!({ field: null }).to_string();
            let object = SecretBytes::copy_from(object.as_bytes())?;
            return self.kv.merge(&path, &object, None, deadline).map(drop);
        }
        // Vault says of what is not there that it is gone.
        match self.kv.engine {
            Engine::Kv1 => self.kv.read(&path, None, deadline).map(drop)?,
            Engine::Kv2 => self.undeleted(&path, deadline).map(drop)?,
        }
        self.kv.delete(&path, deadline)
    }

    fn restore(&self, name: &str, deadline: Deadline) -> Result<()> {
        let path = self.whole(name, "restoring")?;
        let metadata = self.kv.metadata(&path, deadline)?;
        let current = metadata.current().ok_or(BackendError::NotFound)?;
        if current.is_deleted() {
            return self.kv.undelete(&path, metadata.current_version, deadline);
        }
        if current.is_readable() { Ok(()) } else { Err(BackendError::NotFound) }
    }

    fn destroy(&self, name: &str, deadline: Deadline) -> Result<()> {
        self.kv.destroy(&self.whole(name, "destroying")?, deadline)
    }

    fn takes(&self, name: &str, _: Option<usize>) -> Result<()> {
        self.place(name).map(drop)
    }

    fn check(&self, deadline: Deadline) -> Vec<Probe> {
        check::probes(self, deadline)
    }
}

/// Returns what the metadata say of a secret.
fn described(metadata: &Metadata) -> Result<Description> {
    let current = metadata.current().ok_or(BackendError::NotFound)?;
    let deleted = current.is_deleted();
    Ok(Description {
        current: Some(id(metadata.current_version)),
        created: metadata.created_time,
        changed: metadata.updated_time,
        expires: current.expires().filter(|_| !deleted),
        description: None,
        tags: metadata.custom_metadata.clone().unwrap_or_default(),
        deleted,
    })
}

/// Returns the versions that the metadata name, oldest first.
fn versions(metadata: &Metadata) -> Result<Vec<Version>> {
    let versions = metadata.versions()?.into_iter().map(|(number, version)| Version {
        id: id(number),
        created: version.created_time,
        stages: Vec::new(),
        readable: version.is_readable(),
    });
    Ok(versions.collect())
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vault(..)")
    }
}

fn id(number: u64) -> VersionId {
    VersionId(number.to_string())
}

/// Returns the number of a version. What is none is none of Vault's.
fn number(id: &VersionId) -> Result<u64> {
    id.0.parse().map_err(|_| BackendError::NotFound)
}

fn no_stages() -> BackendError {
    BackendError::Unsupported("stages".into())
}
