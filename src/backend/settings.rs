//! The table `[backend.NAME]` of the configuration: its `kind` says which service it is, and which keys it has.

use std::sync::Arc;

use serde::Deserialize;

#[cfg(feature = "aws")]
use super::aws::{AwsSettings, Kms, SecretsManager};
#[cfg(feature = "vault")]
use super::vault::{Transit, Vault, VaultSettings};
use super::{Backend, KeyService, Result};
#[cfg(feature = "vault")]
use crate::system::SecretBytes;

/// One service, as the configuration has it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Settings {
    #[cfg(feature = "aws")]
    AwsSecretsManager(AwsSettings),
    #[cfg(feature = "vault")]
    Vault(VaultSettings),
}

/// Looks a variable of the environment up.
pub type Variables<'a> = dyn Fn(&str) -> Option<String> + 'a;

impl Settings {
    /// Returns the word for the service.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        // By value, so that a build without any service has nothing to match.
        match *self {
            #[cfg(feature = "aws")]
            Self::AwsSecretsManager(_) => "aws_secrets_manager",
            #[cfg(feature = "vault")]
            Self::Vault(_) => "vault",
        }
    }

    /// Makes the client. It asks nothing yet; `Invalid` says which setting can never work.
    #[allow(unused_variables, reason = "a build without any service uses none")]
    pub fn open(&self, variables: &Variables<'_>) -> Result<Arc<dyn Backend>> {
        match *self {
            #[cfg(feature = "aws")]
            Self::AwsSecretsManager(ref settings) => {
                Ok(Arc::new(SecretsManager::new(settings, variables)?))
            }
            #[cfg(feature = "vault")]
            Self::Vault(ref settings) => Ok(Arc::new(Vault::new(settings, token(variables)?)?)),
        }
    }

    /// Makes the client for one of the service's keys: for Vault `MOUNT/KEY`, at `transit` without a mount; for AWS a
    /// key of KMS.
    #[allow(unused_variables, reason = "a build without any service uses none")]
    pub fn open_key(&self, key: &str, variables: &Variables<'_>) -> Result<Box<dyn KeyService>> {
        match *self {
            #[cfg(feature = "aws")]
            Self::AwsSecretsManager(ref settings) => {
                Ok(Box::new(Kms::new(settings, key, variables)?))
            }
            #[cfg(feature = "vault")]
            Self::Vault(ref settings) => {
                let place = key.rsplit_once('/').unwrap_or(("transit", key));
                Ok(Box::new(Transit::new(settings, place, token(variables)?)?))
            }
        }
    }
}

#[cfg(feature = "vault")]
fn token(variables: &Variables<'_>) -> Result<Option<SecretBytes>> {
    let token = variables("VAULT_TOKEN").map(zeroize::Zeroizing::new);
    Ok(token.map(|token| SecretBytes::copy_from(token.as_bytes())).transpose()?)
}
