//! Azure Key Vault: secrets with their versions, tags and dates of expiry, and with soft deletion.
//!
//! Names are mapped as `name` has it. Stages and compare-and-set are none of Azure's. Deleting, restoring and
//! destroying only begin when Azure answers, so each of them is waited for.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{
    Abilities, Backend, BackendError, Deadline, Description, Fetched, Page, PageToken, Probe, Put,
    Result, Variables, Version, VersionId, Which,
};
use crate::system::SecretBytes;

mod answer;
mod assertion;
mod challenge;
mod check;
mod client;
mod key;
mod login;
mod name;
mod secret;
mod settings;
mod token;

pub use key::VaultKey;
pub use settings::{AzureAuth, AzureSettings};

use client::Client;
use secret::{Given, Item};

/// The first pause while something is waited for, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// The secrets of one vault below one prefix.
pub struct Azure {
    client: Client,
    prefix: String,
}

impl Azure {
    /// Asks nothing yet. Variables are those that Azure's own libraries know.
    pub fn new(settings: &AzureSettings, variables: &Variables<'_>) -> Result<Self> {
        let client = Client::new(settings, variables)?;
        let mut prefix = settings.prefix.clone();
        if !prefix.is_empty() && !prefix.ends_with('/') {
            prefix.push('/');
        }
        Ok(Self { client, prefix })
    }

    /// Returns what a secret is called at Azure.
    fn name(&self, path: &str) -> Result<String> {
        name::encode(&format!("{}{path}", self.prefix))
    }

    /// Returns the current version, without its value.
    fn current(&self, name: &str, deadline: Deadline) -> Result<Item> {
        self.client.all_versions(name, deadline)?.pop().ok_or(BackendError::NotFound)
    }

    /// Deletes a secret and waits until it can be brought back.
    fn remove(&self, name: &str, deadline: Deadline) -> Result<()> {
        self.client.remove(name, deadline)?;
        until(deadline, || match self.client.deleted(name, deadline) {
            Ok(_) => Ok(true),
            Err(BackendError::NotFound) => Ok(false),
            // Who may not look has done what there was to do.
            Err(BackendError::Denied(_)) => Ok(true),
            Err(error) => Err(error),
        })
    }
}

impl Backend for Azure {
    fn abilities(&self, _: Deadline) -> Result<Abilities> {
        Ok(Abilities {
            versions: true,
            stages: false,
            compare_and_set: false,
            restore: true,
            tags: true,
        })
    }

    fn get(&self, name: &str, which: &Which, deadline: Deadline) -> Result<Fetched> {
        let name = self.name(name)?;
        match which {
            Which::Current => self.client.read(&name, None, deadline),
            Which::Id(id) if !secret::is_version(&id.0) => Err(BackendError::NotFound),
            Which::Id(id) => self.client.read(&name, Some(id), deadline),
            Which::Stage(_) => Err(no_stages()),
        }
    }

    fn put(
        &self,
        name: &str,
        value: &SecretBytes,
        put: &Put,
        deadline: Deadline,
    ) -> Result<Version> {
        if put.expect.is_some() {
            return Err(BackendError::Unsupported("compare-and-set".into()));
        }
        let (name, given) = (self.name(name)?, Given::of(value, put)?);
        let before = match self.current(&name, deadline) {
            Ok(before) => Some(before),
            // There is none, or who may write may not list: then there is nothing to keep.
            Err(BackendError::NotFound | BackendError::Denied(_)) => None,
            Err(error) => return Err(error),
        };
        version(&self.client.write(&name, (&given, put.expires), before, deadline)?)
    }

    fn describe(&self, name: &str, deadline: Deadline) -> Result<Description> {
        let name = self.name(name)?;
        let versions = match self.client.all_versions(&name, deadline) {
            Ok(versions) => versions,
            Err(BackendError::NotFound) => {
                let item = self.client.deleted(&name, deadline)?;
                return Ok(Description { deleted: true, ..description(&item, &item) });
            }
            Err(error) => return Err(error),
        };
        let (Some(first), Some(last)) = (versions.first(), versions.last()) else {
            return Err(BackendError::NotFound);
        };
        Ok(description(first, last))
    }

    fn versions(&self, name: &str, deadline: Deadline) -> Result<Vec<Version>> {
        self.client.all_versions(&self.name(name)?, deadline)?.iter().map(version).collect()
    }

    fn list(&self, page: Option<&PageToken>, deadline: Deadline) -> Result<Page> {
        let link = page.map(|token| token.0.as_str());
        if link.is_some_and(|link| !link.starts_with("secrets?")) {
            return Err(BackendError::Invalid("the page is malformed".into()));
        }
        let (items, next) = self.client.names(link, deadline)?;
        let mut page = Page { next: next.map(PageToken), ..Page::default() };
        for item in &items {
            let path = item.name().and_then(name::decode);
            if let Some(name) = path.as_ref().and_then(|path| path.strip_prefix(&self.prefix)) {
                page.add(name, item.attributes.updated());
            }
        }
        Ok(page)
    }

    fn tag(&self, name: &str, tags: &BTreeMap<String, String>, deadline: Deadline) -> Result<()> {
        self.client.set_tags(&self.name(name)?, tags, deadline)
    }

    fn stage(&self, _: &str, _: &str, _: &VersionId, _: Deadline) -> Result<()> {
        Err(no_stages())
    }

    fn delete(&self, name: &str, deadline: Deadline) -> Result<()> {
        self.remove(&self.name(name)?, deadline)
    }

    fn restore(&self, name: &str, deadline: Deadline) -> Result<()> {
        let name = self.name(name)?;
        match self.client.recover(&name, deadline) {
            // It may be there.
            Err(BackendError::NotFound) => return self.current(&name, deadline).map(drop),
            other => other?,
        }
        until(deadline, || match self.current(&name, deadline) {
            Ok(_) => Ok(true),
            Err(BackendError::NotFound) => Ok(false),
            Err(BackendError::Denied(_)) => Ok(true),
            Err(error) => Err(error),
        })
    }

    fn destroy(&self, name: &str, deadline: Deadline) -> Result<()> {
        let name = self.name(name)?;
        match self.remove(&name, deadline) {
            // It may be deleted already.
            Err(BackendError::NotFound) => {}
            other => other?,
        }
        self.client.purge(&name, deadline)?;
        until(deadline, || match self.client.deleted(&name, deadline) {
            Ok(_) => Ok(false),
            Err(BackendError::NotFound | BackendError::Denied(_)) => Ok(true),
            Err(error) => Err(error),
        })
    }

    fn takes(&self, name: &str, bytes: Option<usize>) -> Result<()> {
        self.name(name)?;
        // Bytes that are no text take more.
        let is_too_long = bytes.is_some_and(|bytes| bytes > secret::MAX_VALUE_BYTES);
        if is_too_long { Err(secret::too_long()) } else { Ok(()) }
    }

    fn check(&self, deadline: Deadline) -> Vec<Probe> {
        check::probes(self, deadline)
    }
}

impl std::fmt::Debug for Azure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Azure(..)")
    }
}

/// Asks again and again, with longer pauses, until something is so.
fn until(deadline: Deadline, is_so: impl Fn() -> Result<bool>) -> Result<()> {
    let (mut pause, longest) = PAUSES;
    while !is_so()? {
        std::thread::sleep(pause.min(deadline.left()?));
        pause = (pause * 2).min(longest);
    }
    Ok(())
}

fn version(item: &Item) -> Result<Version> {
    Ok(Version {
        id: item.version().ok_or_else(answer::strange)?,
        created: item.attributes.created(),
        stages: Vec::new(),
        readable: item.attributes.is_readable(),
    })
}

/// Describes a secret by its first version and its current one.
fn description(first: &Item, last: &Item) -> Description {
    Description {
        current: last.version(),
        created: first.attributes.created(),
        changed: last.attributes.updated(),
        expires: last.attributes.expires(),
        description: None,
        tags: last.tags.clone().unwrap_or_default(),
        deleted: false,
    }
}

fn no_stages() -> BackendError {
    BackendError::Unsupported("stages".into())
}
