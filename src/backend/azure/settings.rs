//! The table `[backend.NAME]` of a Key Vault: where it is, which part of it is ours, and who we are there.
//!
//! No value in it is a secret: those are in files that it names, or in the variables that Azure's own
//! libraries read.

use std::path::PathBuf;

use serde::Deserialize;

use crate::backend::http::{Connection, address};
use crate::backend::{BackendError, Result};

/// All about one vault, as the configuration has it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct AzureSettings {
    /// `https://NAME.vault.azure.net`.
    pub address: String,
    #[serde(default)]
    pub connection: Connection,
    /// What stands before each name there.
    #[serde(default)]
    pub prefix: String,
    /// Where tokens come from: without it `AZURE_AUTHORITY_HOST`, or the public cloud's.
    pub authority: Option<String>,
    /// What tokens are for, where the vault's host is not directly below it.
    pub resource: Option<String>,
    pub auth: AzureAuth,
}

/// How a token is had. What is not said is in `AZURE_TENANT_ID` and `AZURE_CLIENT_ID`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(tag = "method", rename_all = "snake_case", deny_unknown_fields)]
pub enum AzureAuth {
    ClientCertificate {
        tenant: Option<String>,
        client_id: Option<String>,
        /// In PEM.
        certificate: PathBuf,
        /// An RSA key in PEM; it may be in the certificate's file.
        key: Option<PathBuf>,
    },
    ClientSecret {
        tenant: Option<String>,
        client_id: Option<String>,
        /// Without it `AZURE_CLIENT_SECRET`.
        secret_file: Option<PathBuf>,
    },
    /// By what the machine is: of App Service if its variables are there, and else by the metadata service.
    ManagedIdentity {
        /// Which of several.
        client_id: Option<String>,
    },
    /// By a token of somebody else, such as Kubernetes.
    WorkloadIdentity {
        tenant: Option<String>,
        client_id: Option<String>,
        /// Without it `AZURE_FEDERATED_TOKEN_FILE`.
        token_file: Option<PathBuf>,
    },
}

impl AzureSettings {
    /// Refuses what can never work.
    pub(super) fn check(&self) -> Result<()> {
        let vault = address(&self.address)?;
        if vault.path() != "/" || vault.query().is_some() {
            return Err(invalid("address is https://NAME.vault.azure.net, without a path"));
        }
        for url in self.authority.iter().chain(&self.resource) {
            address(url)?;
        }
        let prefix = self.prefix.trim_end_matches('/');
        if !self.prefix.is_empty() && super::name::encode(prefix).is_err() {
            return Err(invalid("prefix is a path as secrets have it"));
        }
        Ok(())
    }
}

pub(super) fn invalid(why: &str) -> BackendError {
    BackendError::Invalid(why.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "address = \"https://corp.vault.azure.net\"\nprefix = \"prod/\"\n\
                        [auth]\nmethod = \"client_secret\"\ntenant = \"t\"\nclient_id = \"c\"\n";

    #[test]
    fn settings_are_read_and_a_typing_error_is_refused() {
        let settings: AzureSettings = toml::from_str(TEXT).unwrap();
        settings.check().unwrap();
        for (good, bad) in
            [("prefix", "prefx"), ("client_id", "clientid"), ("_secret\"", "_password\"")]
        {
            assert!(toml::from_str::<AzureSettings>(&TEXT.replace(good, bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_can_never_work_is_refused_at_once() {
        let good: AzureSettings = toml::from_str(TEXT).unwrap();
        let refused = |change: fn(&mut AzureSettings)| {
            let mut bad = good.clone();
            change(&mut bad);
            assert!(matches!(bad.check(), Err(BackendError::Invalid(_))), "{bad:?}");
        };
        refused(|bad| bad.address = "http://corp.vault.azure.net".into());
        refused(|bad| bad.address = "https://corp.vault.azure.net/secrets".into());
        refused(|bad| bad.authority = Some("http://login.example".into()));
        refused(|bad| bad.resource = Some("vault.azure.net".into()));
        refused(|bad| bad.prefix = "/prod".into());
        refused(|bad| bad.prefix = "a//b".into());
    }
}
