//! One layer of configuration: what one source says, and nothing about what it leaves out.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Unexpected, Visitor};

use super::{
    Durability, Fault, IoMode, KeeperMode, KeyConfig, LogLevel, LogTarget, NamesMode, OnRestart,
    SandboxMode,
};
use crate::backend;
use crate::fs::Template;
use crate::inject::oneiric::Project;
use crate::keysource::WrappingKey;
use crate::model::SecretName;

/// The keys of the file, all optional. The same keys can come from the environment and from flags.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layer {
    pub mountpoint: Option<Absolute>,
    pub state_dir: Option<Absolute>,
    pub policy: Option<Absolute>,
    pub anomalies: Option<Absolute>,
    pub rotation: Option<Absolute>,
    pub injections: Option<Absolute>,
    pub io: Option<IoMode>,
    pub names: Option<NamesMode>,
    pub sandbox: Option<SandboxMode>,
    pub threads: Option<Bounded<1, 64>>,
    pub deadline_seconds: Option<Bounded<1, 60>>,
    pub keeper: Option<KeeperMode>,
    pub watchdog_seconds: Option<Bounded<1, 600>>,
    pub on_restart: Option<OnRestart>,
    pub scan_on_write: Option<bool>,
    #[serde(default)]
    pub key: KeyLayer,
    #[serde(default)]
    pub audit: AuditLayer,
    #[serde(default)]
    pub credentials: CredentialsLayer,
    #[serde(default)]
    pub limits: LimitsLayer,
    #[serde(default)]
    pub log: LogLayer,
    /// The tables `[[template]]`.
    pub template: Option<Vec<TemplateLayer>>,
    pub oneiric: Option<OneiricLayer>,
    /// The tables `[backend.NAME]`.
    #[serde(default)]
    pub backend: BTreeMap<String, backend::Settings>,
}

/// One table `[[template]]`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct TemplateLayer {
    pub name: TemplateName,
    pub file: Absolute,
    /// Below which placeholders are looked up by their variable.
    pub dir: Option<SecretName>,
    /// Braces are text.
    #[serde(default)]
    pub plain: bool,
    /// Texts that stand for secrets.
    #[serde(default)]
    pub patterns: BTreeMap<String, SecretName>,
}

/// The table `[oneiric]`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct OneiricLayer {
    pub projects: Vec<ProjectName>,
    pub dir: Option<SecretName>,
}

/// The table `[key]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyLayer {
    pub source: Option<Source>,
    pub file: Option<Absolute>,
    pub credential: Option<CredentialName>,
    /// A `[backend.NAME]`, and the name of its key.
    pub backend: Option<String>,
    pub name: Option<String>,
}

/// The values of `key.source`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    Backend,
    Credential,
    File,
    Passphrase,
}

/// The table `[audit]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditLayer {
    pub durability: Option<Durability>,
    pub segment_mib: Option<Bounded<1, 4096>>,
    /// 0 keeps everything.
    pub retention_days: Option<Bounded<0, 36_500>>,
}

/// The table `[credentials]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CredentialsLayer {
    pub socket: Option<Absolute>,
    /// Secrets by credential.
    pub names: Option<BTreeMap<String, SecretName>>,
}

/// The table `[limits]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsLayer {
    /// At most 16 MiB: a value is held in locked memory as a whole.
    pub max_value_bytes: Option<Bounded<1, 16_777_216>>,
    pub trash_days: Option<Bounded<0, 36_500>>,
    /// Earlier versions kept a secret; 0 keeps all.
    pub keep_versions: Option<Bounded<0, 1_000_000>>,
    /// How long one code elevates a login session; a day at most.
    pub elevation_minutes: Option<Bounded<1, 1_440>>,
    pub refuse_expired: Option<bool>,
    /// 0: no limit.
    pub secrets_per_uid: Option<Bounded<0, 1_000_000_000>>,
    /// 0: no limit.
    pub directories_per_uid: Option<Bounded<0, 1_000_000_000>>,
}

/// The table `[log]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogLayer {
    pub target: Option<LogTarget>,
    pub level: Option<LogLevel>,
}

impl Layer {
    /// Parses a configuration file.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        toml::from_str(text).map_err(|err| {
            let (line, column) = err.span().map_or((1, 1), |span| place(text, span.start));
            Fault { line, column, message: err.message().to_owned() }
        })
    }

    /// Lays `over` over this layer: what it says wins.
    #[must_use]
    pub fn under(self, over: Self) -> Self {
        Self {
            mountpoint: over.mountpoint.or(self.mountpoint),
            state_dir: over.state_dir.or(self.state_dir),
            policy: over.policy.or(self.policy),
            anomalies: over.anomalies.or(self.anomalies),
            rotation: over.rotation.or(self.rotation),
            injections: over.injections.or(self.injections),
            io: over.io.or(self.io),
            names: over.names.or(self.names),
            sandbox: over.sandbox.or(self.sandbox),
            threads: over.threads.or(self.threads),
            deadline_seconds: over.deadline_seconds.or(self.deadline_seconds),
            keeper: over.keeper.or(self.keeper),
            watchdog_seconds: over.watchdog_seconds.or(self.watchdog_seconds),
            on_restart: over.on_restart.or(self.on_restart),
            scan_on_write: over.scan_on_write.or(self.scan_on_write),
            key: self.key.under(over.key),
            audit: AuditLayer {
                durability: over.audit.durability.or(self.audit.durability),
                segment_mib: over.audit.segment_mib.or(self.audit.segment_mib),
                retention_days: over.audit.retention_days.or(self.audit.retention_days),
            },
            credentials: CredentialsLayer {
                socket: over.credentials.socket.or(self.credentials.socket),
                names: over.credentials.names.or(self.credentials.names),
            },
            limits: LimitsLayer {
                max_value_bytes: over.limits.max_value_bytes.or(self.limits.max_value_bytes),
                trash_days: over.limits.trash_days.or(self.limits.trash_days),
                keep_versions: over.limits.keep_versions.or(self.limits.keep_versions),
                elevation_minutes: over.limits.elevation_minutes.or(self.limits.elevation_minutes),
                refuse_expired: over.limits.refuse_expired.or(self.limits.refuse_expired),
                secrets_per_uid: over.limits.secrets_per_uid.or(self.limits.secrets_per_uid),
                directories_per_uid: over
                    .limits
                    .directories_per_uid
                    .or(self.limits.directories_per_uid),
            },
            log: LogLayer {
                target: over.log.target.or(self.log.target),
                level: over.log.level.or(self.log.level),
            },
            template: over.template.or(self.template),
            oneiric: over.oneiric.or(self.oneiric),
            // Only the file has them.
            backend: if over.backend.is_empty() { self.backend } else { over.backend },
        }
    }
}

impl KeyLayer {
    /// Returns the layer that names one source, or none.
    pub fn named(
        passphrase: bool,
        file: Option<Absolute>,
        credential: Option<String>,
    ) -> Result<Self, String> {
        let credential = credential.map(CredentialName::try_from).transpose()?;
        let source = passphrase.then_some(Source::Passphrase);
        Ok(Self { source, file, credential, ..Self::default() })
    }

    /// Returns the layer that names a service's key as well, if one is given.
    #[must_use]
    pub fn or_backend(self, key: Option<WrappingKey>) -> Self {
        match key {
            None => self,
            Some(WrappingKey { backend, name }) => {
                Self { backend: Some(backend), name: Some(name), ..self }
            }
        }
    }

    /// Returns the source that [`named`](Self::named) was given.
    pub fn given(&self) -> Option<KeyConfig> {
        if let (Some(backend), Some(name)) = (&self.backend, &self.name) {
            let key = WrappingKey { backend: backend.clone(), name: name.clone() };
            return Some(KeyConfig::Backend(key));
        }
        match (self.source, &self.file, &self.credential) {
            (_, Some(file), _) => Some(KeyConfig::File(file.0.clone())),
            (_, None, Some(name)) => {
                Some(KeyConfig::Credential { name: name.0.clone(), directory: None })
            }
            (Some(Source::Passphrase), None, None) => Some(KeyConfig::Passphrase),
            (Some(Source::Backend | Source::Credential | Source::File) | None, None, None) => None,
        }
    }

    /// A layer that names where the key is also settles the source, unless it names the source.
    fn under(self, over: Self) -> Self {
        let implied = match (&over.file, &over.credential, &over.backend) {
            (Some(_), None, None) => Some(Source::File),
            (None, Some(_), None) => Some(Source::Credential),
            (None, None, Some(_)) => Some(Source::Backend),
            // None, or more than one.
            _ => None,
        };
        Self {
            source: over.source.or(implied).or(self.source),
            file: over.file.or(self.file),
            credential: over.credential.or(self.credential),
            backend: over.backend.or(self.backend),
            name: over.name.or(self.name),
        }
    }
}

/// Returns the line and column, from 1 and in characters, of a byte offset.
fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}

/// A whole number from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Bounded<const MIN: u64, const MAX: u64>(pub u64);

impl<'de, const MIN: u64, const MAX: u64> Deserialize<'de> for Bounded<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Within<const MIN: u64, const MAX: u64>;
        impl<const MIN: u64, const MAX: u64> Visitor<'_> for Within<MIN, MAX> {
            type Value = Bounded<MIN, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a whole number from {MIN} to {MAX}")
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
                let refused = || E::invalid_value(Unexpected::Signed(value), &self);
                let number = u64::try_from(value).map_err(|_| refused())?;
                if (MIN..=MAX).contains(&number) { Ok(Bounded(number)) } else { Err(refused()) }
            }
        }
        from.deserialize_i64(Within)
    }
}

/// A path from the root. `~` and variables are not expanded: the daemon has no shell.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Absolute(pub PathBuf);

impl<'de> Deserialize<'de> for Absolute {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let path = PathBuf::deserialize(from)?;
        if path.is_absolute() {
            return Ok(Self(path));
        }
        let shown = path.display().to_string();
        Err(D::Error::invalid_value(
            Unexpected::Str(&shown),
            &"an absolute path such as \"/secrets\"",
        ))
    }
}

/// The name of a file below `.templates`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "String")]
pub struct TemplateName(pub String);

impl TryFrom<String> for TemplateName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        if Template::is_name(&name) {
            return Ok(Self(name));
        }
        Err(format!("{name:?}: expected a file name of letters, digits, `.`, `_` and `-`"))
    }
}

/// The name of a program that has Oneiric's settings.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "String")]
pub struct ProjectName(pub Project);

impl TryFrom<String> for ProjectName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        name.parse().map(Self).map_err(|why| format!("{name:?}: {why}"))
    }
}

/// The name of a systemd credential: a file name.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "String")]
pub struct CredentialName(pub String);

impl TryFrom<String> for CredentialName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if !name.is_empty() && !name.starts_with('.') && name.chars().all(allowed) {
            return Ok(Self(name));
        }
        Err(format!("{name:?}: expected a credential name of letters, digits, `.`, `_` and `-`"))
    }
}
