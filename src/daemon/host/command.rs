//! The commands of `.control/admin`: a JSON object whose `do` names one.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::broker::BrokerError;
use crate::daemon::config::{Environment, KeyConfig};
use crate::keysource::WrappingKey;
use crate::model::{Gid, SecretName, Uid, Version};
use crate::system::SecretBytes;

/// A parsed command. Its `Debug` is logged, so a passphrase in it shows nothing.
#[derive(Debug, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Command {
    AuditVerify {
        /// The one that was begun, to be waited for.
        check: Option<u64>,
    },
    Explain {
        name: SecretName,
        uid: Uid,
        gid: Gid,
    },
    KeyChangeSource {
        #[serde(flatten)]
        key: KeySourceNamed,
        passphrase: Option<Passphrase>,
    },
    KeyRotateEpoch,
    KeyRotateRoot {
        passphrase: Option<Passphrase>,
    },
    KeyStatus,
    PolicyShow,
    PutEmpty {
        name: SecretName,
        expect: Option<Version>,
        #[serde(default)]
        create: bool,
    },
    Upgrade {
        path: PathBuf,
    },
    Verify {
        /// The one that was begun, to be waited for.
        check: Option<u64>,
    },
}

impl Command {
    /// Parses a command; the fault says what was expected.
    pub(super) fn parse(command: &Value) -> Result<Self, BrokerError> {
        Self::deserialize(command).map_err(|err| BrokerError::Invalid(err.to_string()))
    }
}

/// A key source as a command names it.
#[derive(Debug, Deserialize)]
pub(super) struct KeySourceNamed {
    source: String,
    file: Option<PathBuf>,
    credential: Option<String>,
    backend: Option<String>,
    name: Option<String>,
}

impl KeySourceNamed {
    /// Returns it as the configuration would have it.
    pub(super) fn config(self, environment: &Environment) -> Result<KeyConfig, BrokerError> {
        let invalid = |why: &str| BrokerError::Invalid(why.to_owned());
        if let ("backend", Some(backend), Some(name)) =
            (self.source.as_str(), self.backend, self.name)
        {
            return Ok(KeyConfig::Backend(WrappingKey { backend, name }));
        }
        match (self.source.as_str(), self.file, self.credential) {
            ("credential", None, Some(name)) => Ok(KeyConfig::Credential {
                name,
                directory: environment.absolute_path("CREDENTIALS_DIRECTORY"),
            }),
            ("file", Some(path), None) if path.is_absolute() => Ok(KeyConfig::File(path)),
            ("file", Some(_), None) => Err(invalid("the key file's path must be absolute")),
            ("passphrase", None, None) => Ok(KeyConfig::Passphrase),
            ("credential" | "file" | "passphrase", ..) => {
                Err(invalid("file goes with source file, credential with source credential"))
            }
            ("backend", ..) => Err(invalid("backend and name go with source backend")),
            _ => Err(invalid("source must be backend, file, passphrase or credential")),
        }
    }
}

/// A passphrase that came in a command.
pub(super) struct Passphrase(pub(super) SecretBytes);

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

impl<'de> Deserialize<'de> for Passphrase {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(from)?);
        SecretBytes::copy_from(text.as_bytes()).map(Self).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::logging::tests::logged;
    use serde_json::json;

    #[test]
    fn commands_are_known_by_name_and_unknown_ones_are_refused_with_the_list() {
        let put = Command::parse(&json!({ "do": "put-empty", "name": "a/b" })).unwrap();
        assert!(matches!(put, Command::PutEmpty { expect: None, create: false, .. }));
        let err = Command::parse(&json!({ "do": "drop-everything" })).unwrap_err().to_string();
        assert!(err.contains("drop-everything") && err.contains("audit-verify"), "{err}");
        for bad in [json!({}), json!([]), json!({ "do": "put-empty", "name": "../x" })] {
            assert!(Command::parse(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_key_source_is_taken_only_with_what_belongs_to_it() {
        let config = |command: Value| {
            let parsed = Command::parse(&command).unwrap();
            let Command::KeyChangeSource { key, .. } = parsed else { unreachable!("{parsed:?}") };
            key.config(&Environment::default())
        };
        let named = |source: &str, key: &str, value: &str| {
            config(json!({ "do": "key-change-source", "source": source, key: value }))
        };
        assert_eq!(named("file", "file", "/k").unwrap(), KeyConfig::File("/k".into()));
        assert_eq!(named("passphrase", "passphrase", "x").unwrap(), KeyConfig::Passphrase);
        assert!(named("file", "file", "relative").is_err());
        assert!(named("file", "credential", "k").is_err());
        assert!(named("tpm", "file", "/k").is_err());
    }

    #[test]
    fn a_passphrase_in_a_command_reaches_no_log() {
        let command = json!({ "do": "key-rotate-root", "passphrase": "canary-7f3a" });
        let command = Command::parse(&command).unwrap();
        let text = logged(|| tracing::info!(?command, "admin command"));
        assert!(text.contains("KeyRotateRoot") && !text.contains("canary-7f3a"), "{text}");
    }

    #[test]
    fn a_malformed_passphrase_is_not_quoted_in_the_refusal() {
        let command = json!({ "do": "key-rotate-root", "passphrase": ["canary-7f3a"] });
        let err = Command::parse(&command).unwrap_err().to_string();
        assert!(!err.contains("canary-7f3a"), "{err}");
    }
}
