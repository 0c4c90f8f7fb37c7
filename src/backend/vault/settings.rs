//! The table `[backend.NAME]` of a Vault: where it is, which part of it is ours, and who we are there.
//!
//! No value in it is a secret: those are in files that it names, or in `VAULT_TOKEN`.

use std::path::PathBuf;

use serde::Deserialize;

use crate::backend::http::Connection;
use crate::backend::{BackendError, Result};

/// All about one Vault, as the configuration has it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct VaultSettings {
    /// `https://HOST:PORT`.
    pub address: String,
    #[serde(default)]
    pub connection: Connection,
    pub namespace: Option<String>,
    /// Where the key-value engine is mounted.
    #[serde(default = "default_mount")]
    pub mount: String,
    #[serde(default)]
    pub engine: Engine,
    /// What stands before each name there.
    #[serde(default)]
    pub prefix: String,
    /// Each secret is a directory, with its fields as files.
    #[serde(default)]
    pub fields: bool,
    pub auth: AuthSettings,
}

/// Which of the two engines it is.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
pub enum Engine {
    /// Without versions.
    #[serde(rename = "kv-v1")]
    Kv1,
    #[default]
    #[serde(rename = "kv-v2")]
    Kv2,
}

/// How a token is had.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(tag = "method", rename_all = "lowercase", deny_unknown_fields)]
pub enum AuthSettings {
    AppRole {
        #[serde(default = "default_approle")]
        mount: String,
        role_id: String,
        /// Not there for a role that binds no secret id.
        secret_id_file: Option<PathBuf>,
    },
    /// By the certificate of the connection.
    Cert {
        #[serde(default = "default_cert")]
        mount: String,
        /// The certificate's name there; any that fits without it.
        role: Option<String>,
    },
    /// By a token of somebody else, such as Kubernetes.
    Jwt {
        #[serde(default = "default_jwt")]
        mount: String,
        role: String,
        jwt_file: PathBuf,
    },
    /// By a token that is there already: in a file, or else in `VAULT_TOKEN`.
    Token { token_file: Option<PathBuf> },
}

fn default_mount() -> String {
    "secret".into()
}

fn default_approle() -> String {
    "approle".into()
}

fn default_cert() -> String {
    "cert".into()
}

fn default_jwt() -> String {
    "jwt".into()
}

impl VaultSettings {
    /// Refuses what can never work.
    pub(super) fn check(&self) -> Result<()> {
        crate::backend::http::address(&self.address)?;
        let shows_itself = self.connection.certificate.is_some();
        if matches!(self.auth, AuthSettings::Cert { .. }) && !shows_itself {
            return Err(invalid("auth by certificate needs one in `connection`"));
        }
        let is_path = |path: &str| !path.split('/').any(|part| part.is_empty() || part == "..");
        if !is_path(&self.mount) {
            return Err(invalid("mount is a path without a slash at either end"));
        }
        if !self.prefix.is_empty() && !is_path(self.prefix.trim_end_matches('/')) {
            return Err(invalid("prefix is a path without a slash at its beginning"));
        }
        Ok(())
    }
}

fn invalid(why: &str) -> BackendError {
    BackendError::Invalid(why.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_and_a_typing_error_is_refused() {
        let text = "address = \"https://vault.example:8200\"\nprefix = \"prod/\"\n\
                    [connection]\nca = \"/etc/ca.pem\"\n\
                    [auth]\nmethod = \"approle\"\nrole_id = \"example\"\n";
        let settings: VaultSettings = toml::from_str(text).unwrap();
        assert_eq!((settings.mount.as_str(), settings.engine), ("secret", Engine::Kv2));
        settings.check().unwrap();
        for (good, bad) in [
            ("prefix", "prefx"),
            ("ca =", "cafile ="),
            ("role_id", "roleid"),
            ("\"approle\"", "\"ldap\""),
        ] {
            assert!(toml::from_str::<VaultSettings>(&text.replace(good, bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_can_never_work_is_refused_at_once() {
        let text = "address = \"https://vault.example\"\n[auth]\nmethod = \"token\"\n";
        let good: VaultSettings = toml::from_str(text).unwrap();
        let refused = |change: fn(&mut VaultSettings)| {
            let mut bad = good.clone();
            change(&mut bad);
            assert!(matches!(bad.check(), Err(BackendError::Invalid(_))), "{bad:?}");
        };
        refused(|bad| bad.address = "http://vault.example".into());
        refused(|bad| bad.mount = "secret/".into());
        refused(|bad| bad.prefix = "/prod".into());
        refused(|bad| bad.prefix = "a/../b".into());
        refused(|bad| bad.auth = AuthSettings::Cert { mount: "cert".into(), role: None });
        good.check().unwrap();
    }
}
