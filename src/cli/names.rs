//! The secrets of the mount by name, as far as the caller may know of them.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, Mutex, PoisonError};

use super::client::Client;
use super::error::{Failure, Kind};
use crate::inject::{Lookup, relative, variable_of};
use crate::model::{Injection, SecretName};

/// Returns every secret below a directory; `None` is the whole mount.
pub(crate) fn below(
    client: &Client,
    directory: Option<&SecretName>,
) -> Result<Vec<SecretName>, Failure> {
    let mut found = Vec::new();
    collect(client, directory, &mut found)?;
    Ok(found)
}

fn collect(
    client: &Client,
    directory: Option<&SecretName>,
    found: &mut Vec<SecretName>,
) -> Result<(), Failure> {
    for (segment, is_directory) in client.list(directory.map_or("", SecretName::as_str))? {
        // What is no name is the filesystem's own, or deeper than the tree can be.
        let Ok(name) = SecretName::join(directory, &segment) else { continue };
        if is_directory {
            collect(client, Some(&name), found)?;
        } else {
            found.push(name);
        }
    }
    Ok(())
}

/// Returns what programs know a secret by, where that is not its name.
pub(crate) fn injection(client: &Client, name: &SecretName) -> Result<Injection, Failure> {
    serde_json::from_value(client.meta(name)?)
        .map_err(|err| Failure::new(Kind::Injection, name.as_str(), err.to_string()))
}

/// What placeholders are looked up in. The tree is listed once, when the first one asks by variable.
pub(crate) struct Names {
    client: Arc<Client>,
    directory: Option<SecretName>,
    listed: Mutex<Option<BTreeMap<String, Vec<SecretName>>>>,
    failure: Mutex<Option<Failure>>,
}

impl Names {
    pub(crate) fn of(client: &Arc<Client>, directory: Option<&SecretName>) -> Arc<Self> {
        Arc::new(Self {
            client: Arc::clone(client),
            directory: directory.cloned(),
            listed: Mutex::default(),
            failure: Mutex::default(),
        })
    }

    /// Returns why the tree could not be listed, if that is so.
    pub(crate) fn failure(&self) -> Option<Failure> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn list(&self) -> BTreeMap<String, Vec<SecretName>> {
        let directory = self.directory.as_ref();
        let named = below(&self.client, directory).and_then(|names| {
            let with_variable = |name: SecretName| {
                let own = injection(&self.client, &name)?.env_name;
                Ok((variable_of(own.as_ref(), relative(&name, directory)), name))
            };
            names.into_iter().map(with_variable).collect::<Result<Vec<_>, Failure>>()
        });
        let named = named.unwrap_or_else(|failure| {
            *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
            Vec::new()
        });
        let mut variables = BTreeMap::<String, Vec<SecretName>>::new();
        for (variable, name) in named {
            variables.entry(variable).or_default().push(name);
        }
        variables
    }
}

impl Lookup for Names {
    fn named(&self, variable: &str) -> Vec<SecretName> {
        let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        let listed = listed.get_or_insert_with(|| self.list());
        listed.get(variable).cloned().unwrap_or_default()
    }

    fn exists(&self, name: &SecretName) -> bool {
        let found = fs::symlink_metadata(self.client.path(name.as_str()));
        // Whatever else is wrong, reading it will say.
        !matches!(found, Err(err) if err.kind() == std::io::ErrorKind::NotFound)
    }
}
