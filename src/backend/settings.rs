//! The table `[backend.NAME]` of the configuration: its `kind` says which service it is, and which keys it has.

use std::sync::Arc;

use serde::Deserialize;

#[cfg(feature = "aws")]
use super::aws::{AwsSettings, Kms, SecretsManager};
#[cfg(feature = "azure")]
use super::azure::{Azure, AzureSettings, VaultKey};
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
    #[cfg(feature = "azure")]
    AzureKeyVault(AzureSettings),
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
            #[cfg(feature = "azure")]
            Self::AzureKeyVault(_) => "azure_key_vault",
            #[cfg(feature = "vault")]
            Self::Vault(_) => "vault",
        }
    }

    /// Returns the settings for what is below a place of this backend's.
    #[must_use]
    #[allow(unused_variables, reason = "a build without any service uses none")]
    pub fn below(self, place: &str) -> Self {
        match self {
            #[cfg(feature = "aws")]
            Self::AwsSecretsManager(mut settings) => {
                extend(&mut settings.prefix, place);
                Self::AwsSecretsManager(settings)
            }
            #[cfg(feature = "azure")]
            Self::AzureKeyVault(mut settings) => {
                extend(&mut settings.prefix, place);
                Self::AzureKeyVault(settings)
            }
            #[cfg(feature = "vault")]
            Self::Vault(mut settings) => {
                extend(&mut settings.prefix, place);
                Self::Vault(settings)
            }
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
            #[cfg(feature = "azure")]
            Self::AzureKeyVault(ref settings) => Ok(Arc::new(Azure::new(settings, variables)?)),
            #[cfg(feature = "vault")]
            Self::Vault(ref settings) => Ok(Arc::new(Vault::new(settings, token(variables)?)?)),
        }
    }

    /// Makes the client for one of the service's keys: for Vault `MOUNT/KEY`, at `transit` without a mount; for AWS a
    /// key of KMS; for Azure a key of the same vault.
    #[allow(unused_variables, reason = "a build without any service uses none")]
    pub fn open_key(&self, key: &str, variables: &Variables<'_>) -> Result<Box<dyn KeyService>> {
        match *self {
            #[cfg(feature = "aws")]
            Self::AwsSecretsManager(ref settings) => {
                Ok(Box::new(Kms::new(settings, key, variables)?))
            }
            #[cfg(feature = "azure")]
            Self::AzureKeyVault(ref settings) => {
                Ok(Box::new(VaultKey::new(settings, key, variables)?))
            }
            #[cfg(feature = "vault")]
            Self::Vault(ref settings) => {
                let place = key.rsplit_once('/').unwrap_or(("transit", key));
                Ok(Box::new(Transit::new(settings, place, token(variables)?)?))
            }
        }
    }
}

/// Puts a place behind a prefix, which ends in a slash or is to get one.
#[cfg(any(feature = "aws", feature = "azure", feature = "vault"))]
fn extend(prefix: &mut String, place: &str) {
    if !prefix.is_empty() && !prefix.ends_with('/') {
        prefix.push('/');
    }
    prefix.push_str(place);
}

#[cfg(feature = "vault")]
fn token(variables: &Variables<'_>) -> Result<Option<SecretBytes>> {
    let token = variables("VAULT_TOKEN").map(zeroize::Zeroizing::new);
    Ok(token.map(|token| SecretBytes::copy_from(token.as_bytes())).transpose()?)
}

#[cfg(all(test, feature = "aws"))]
mod tests {
    use super::*;

    #[test]
    fn a_place_comes_behind_the_prefix_that_the_settings_have() {
        let below = |prefix: &str, place: &str| {
            let text = format!("kind = \"aws_secrets_manager\"\nprefix = \"{prefix}\"\n");
            let settings: Settings = toml::from_str(&text).unwrap();
            #[allow(irrefutable_let_patterns, reason = "in a build of one service it is")]
            let Settings::AwsSecretsManager(settings) = settings.below(place) else {
                unreachable!()
            };
            settings.prefix
        };
        assert_eq!(below("", "app/db"), "app/db");
        assert_eq!(below("prod/", "app"), "prod/app");
        assert_eq!(below("prod", "app"), "prod/app");
        assert_eq!(below("prod/", ""), "prod/");
    }
}
