//! The configuration: built-in values, under the file, under the environment, under the flags.
//!
//! An unknown key or a value out of range is refused with its line and column and with what was
//! expected: a typing error in a security setting must not become its default. This is the only file
//! that reads the environment.

mod environment;
mod layer;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use environment::Environment;
pub use layer::{
    Absolute, AuditLayer, Bounded, CredentialsLayer, KeyLayer, Layer, LimitsLayer, LogLayer,
    OneiricLayer, TemplateLayer,
};

use super::paths::{Mode, Places};
use crate::backend;
use crate::broker::Limits;
use crate::keysource::WrappingKey;
use crate::model::SecretName;

/// Everything that can be configured, complete and checked.
#[derive(Clone, Debug)]
pub struct Config {
    pub mode: Mode,
    /// The file that was read, or would have been if it were there.
    pub file: PathBuf,
    pub mountpoint: PathBuf,
    pub state_dir: PathBuf,
    pub policy: PathBuf,
    /// How anomalies are looked for; the file need not be there.
    pub anomalies: PathBuf,
    /// How secrets are rotated; the file need not be there.
    pub rotation: PathBuf,
    /// Which secrets are kept where programs look for files; the file need not be there.
    pub injections: PathBuf,
    pub key: KeyConfig,
    pub audit: AuditConfig,
    /// `None`: systemd loads no credentials from us.
    pub credentials: Option<CredentialsConfig>,
    pub limits: Limits,
    pub io: IoMode,
    pub names: NamesMode,
    pub sandbox: SandboxMode,
    pub log: LogConfig,
    /// Threads that answer the kernel.
    pub threads: usize,
    /// The longest that a caller waits for anything.
    pub deadline: Duration,
    /// Who holds the mount while servers come and go.
    pub keeper: KeeperMode,
    /// How long a server may stay silent before it is replaced.
    pub watchdog: Duration,
    pub on_restart: OnRestart,
    /// The files below `.templates`.
    pub templates: Vec<TemplateLayer>,
    /// What is below `.oneiric`, if anything.
    pub oneiric: Option<OneiricLayer>,
    /// Services that keep secrets, by their names.
    pub backends: BTreeMap<String, backend::Settings>,
    /// Whether metadata and configuration with secrets in them are refused.
    pub scan_on_write: bool,
    /// Things to tell the administrator that are no errors.
    pub warnings: Vec<String>,
}

impl Config {
    /// The store's file.
    pub fn store(&self) -> PathBuf {
        self.state_dir.join("store.redb")
    }

    /// The file of what was learned from the log.
    pub fn learned(&self) -> PathBuf {
        self.state_dir.join("anomalies.learned")
    }

    /// Returns where it is remembered what was injected.
    pub fn injected(&self) -> PathBuf {
        self.state_dir.join("injected.json")
    }

    /// The journal of the store.
    pub fn journal(&self) -> PathBuf {
        crate::store::journal_of(&self.store())
    }

    /// The directory of the audit log.
    pub fn audit_dir(&self) -> PathBuf {
        self.state_dir.join("audit")
    }
}

/// Where the root key comes from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum KeyConfig {
    /// Sealed by a service under a key of its own.
    Backend(WrappingKey),
    /// A systemd credential of that name, found in `directory` (`$CREDENTIALS_DIRECTORY`).
    Credential {
        name: String,
        directory: Option<PathBuf>,
    },
    File(PathBuf),
    /// Asked for, or given by a descriptor or by `unseal`.
    Passphrase,
}

impl KeyConfig {
    /// Returns the word for it in the configuration.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Backend(_) => "backend",
            Self::Credential { .. } => "credential",
            Self::File(_) => "file",
            Self::Passphrase => "passphrase",
        }
    }
}

/// The socket from which systemd loads credentials.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CredentialsConfig {
    pub socket: PathBuf,
    /// The secrets behind credentials that have another name.
    pub names: BTreeMap<String, SecretName>,
}

/// How the audit log is kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AuditConfig {
    pub durability: Durability,
    pub segment_bytes: u64,
    /// `None` keeps everything.
    pub retention: Option<Duration>,
}

/// What an audit line has survived before the answer goes out.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Written after fdatasync(2): survives a power cut.
    Synced,
    /// Written to the page cache: survives any death of the process; synced each second.
    #[default]
    Written,
}

/// How the kernel reads values.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IoMode {
    /// Through the page cache, which is invalidated at release.
    Cached,
    /// Each read(2) is asked of the daemon.
    #[default]
    Direct,
}

/// Who holds the mount while servers come and go.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeeperMode {
    /// systemd where it started us, else a process of our own.
    #[default]
    Auto,
    /// Nobody: the mount dies with the server.
    Off,
}

/// What becomes of the key when a server is succeeded by another.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnRestart {
    /// The next server has it.
    #[default]
    Keep,
    /// The next server is sealed.
    Seal,
}

/// Whether the server gives up what it does not need.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SandboxMode {
    /// Where a keeper, or systemd, mounts for it.
    #[default]
    Auto,
    Off,
}

/// As whose files secrets are presented, and who is told their names by the kernel.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NamesMode {
    /// The same to everybody, and the kernel checks permissions too: nobody else can watch.
    Hidden,
    /// As the caller's own.
    #[default]
    Own,
}

/// Where the daemon's own log goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LogConfig {
    pub target: LogTarget,
    pub level: LogLevel,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogTarget {
    /// The journal when standard error is connected to it, else standard error.
    #[default]
    Auto,
    Journald,
    Stderr,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    Debug,
    Error,
    #[default]
    Info,
    Trace,
    Warn,
}

/// Where to look, and what is laid over what is found there.
#[derive(Clone, Debug)]
pub struct Sources {
    pub mode: Mode,
    /// `--config`: then the file must exist.
    pub file: Option<PathBuf>,
    pub environment: Environment,
    pub flags: Layer,
}

impl Sources {
    /// Reads the file and joins the layers.
    pub fn load(&self) -> Result<Config, ConfigError> {
        let places = Places::new(self.mode, &self.environment);
        let named = self.file.clone().or_else(|| self.environment.absolute_path("SECRETFS_CONFIG"));
        let path = named.clone().unwrap_or_else(|| places.config_file.clone());
        let from_file = match std::fs::read_to_string(&path) {
            Ok(text) => Layer::parse(&text).map_err(|fault| fault.in_file(&path))?,
            Err(err) if err.kind() == io::ErrorKind::NotFound && named.is_none() => {
                Layer::default()
            }
            Err(source) => return Err(ConfigError::Unreadable { path, source }),
        };
        let from_environment = self.environment.layer()?;
        let joined = from_file.under(from_environment).under(self.flags.clone());
        let mut config = resolve(self.mode, joined, &places, &self.environment);
        config.file = path;
        config.warnings = self.environment.unknown_variables();
        Ok(config)
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{path}, line {line}, column {column}: {message}")]
    Invalid {
        path: PathBuf,
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
        message: String,
    },
    #[error("the configuration {path} cannot be read")]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("environment variable {variable}: {message}")]
    Variable { variable: &'static str, message: String },
}

/// A fault in a text, before it is known which file it came from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fault {
    pub line: usize,
    pub column: usize,
    pub message: String,
}

impl Fault {
    fn in_file(self, path: &Path) -> ConfigError {
        let Self { line, column, message } = self;
        ConfigError::Invalid { path: path.into(), line, column, message }
    }
}

const DAY: u64 = 24 * 3600;

/// Fills in the built-in values.
fn resolve(mode: Mode, layer: Layer, places: &Places, environment: &Environment) -> Config {
    let Layer {
        mountpoint,
        state_dir,
        policy,
        anomalies,
        injections,
        rotation,
        io,
        names,
        threads,
        deadline_seconds,
        ..
    } = layer;
    let Layer { keeper, watchdog_seconds, on_restart, template, oneiric, scan_on_write, .. } =
        layer;
    let path = |given: Option<Absolute>, default: &Path| {
        given.map_or_else(|| default.to_path_buf(), |path| path.0)
    };
    let policy = path(policy, &places.policy);
    Config {
        mode,
        file: places.config_file.clone(),
        mountpoint: path(mountpoint, &places.mountpoint),
        state_dir: path(state_dir, &places.state_dir),
        anomalies: path(anomalies, &policy.with_file_name("anomalies.toml")),
        rotation: path(rotation, &policy.with_file_name("rotation.toml")),
        injections: path(injections, &policy.with_file_name("injections.toml")),
        policy,
        key: resolve_key(layer.key, places, environment),
        audit: AuditConfig {
            durability: layer.audit.durability.unwrap_or_default(),
            segment_bytes: layer.audit.segment_mib.map_or(64, |mib| mib.0) << 20,
            retention: days(layer.audit.retention_days.map_or(90, |days| days.0)),
        },
        credentials: layer.credentials.socket.map(|socket| CredentialsConfig {
            socket: socket.0,
            names: layer.credentials.names.unwrap_or_default(),
        }),
        limits: resolve_limits(&layer.limits),
        io: io.unwrap_or_default(),
        names: names.unwrap_or_default(),
        sandbox: layer.sandbox.unwrap_or_default(),
        log: LogConfig {
            target: layer.log.target.unwrap_or_default(),
            level: layer.log.level.unwrap_or_default(),
        },
        threads: threads.map_or_else(default_threads, |threads| {
            usize::try_from(threads.0).unwrap_or(usize::MAX)
        }),
        deadline: Duration::from_secs(deadline_seconds.map_or(5, |seconds| seconds.0)),
        keeper: keeper.unwrap_or_default(),
        watchdog: Duration::from_secs(watchdog_seconds.map_or(10, |seconds| seconds.0)),
        on_restart: on_restart.unwrap_or_default(),
        templates: template.unwrap_or_default(),
        oneiric,
        backends: layer.backend,
        scan_on_write: scan_on_write.unwrap_or(true),
        warnings: Vec::new(),
    }
}

/// Returns one thread for each CPU that this process may run on. More of them only take requests from
/// each other, with cold caches: nothing on such a thread waits for anything but the kernel.
fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(64)
}

fn resolve_key(key: KeyLayer, places: &Places, environment: &Environment) -> KeyConfig {
    // Naming a file or a credential says where the key is; `source` settles it when both are named.
    let source = key.source.unwrap_or(match (&key.file, &key.credential, &key.backend) {
        (None, Some(_), _) => layer::Source::Credential,
        (None, None, Some(_)) => layer::Source::Backend,
        (Some(_), ..) | (None, None, None) => layer::Source::File,
    });
    match source {
        layer::Source::Backend => KeyConfig::Backend(WrappingKey {
            backend: key.backend.unwrap_or_default(),
            name: key.name.unwrap_or_else(|| "secretfs".into()),
        }),
        layer::Source::Credential => KeyConfig::Credential {
            name: key.credential.map_or_else(|| "secretfs-root-key".into(), |name| name.0),
            directory: environment.absolute_path("CREDENTIALS_DIRECTORY"),
        },
        layer::Source::File => {
            KeyConfig::File(key.file.map_or_else(|| places.key_file.clone(), |path| path.0))
        }
        layer::Source::Passphrase => KeyConfig::Passphrase,
    }
}

fn resolve_limits(layer: &LimitsLayer) -> Limits {
    let default = Limits::default();
    Limits {
        max_value_bytes: layer.max_value_bytes.map_or(default.max_value_bytes, |bytes| bytes.0),
        trash_retention: layer
            .trash_days
            .map_or(default.trash_retention, |days| Duration::from_secs(days.0 * DAY)),
        keep_versions: limit(layer.keep_versions, default.keep_versions.map(u64::from))
            .map(|count| u32::try_from(count).unwrap_or(u32::MAX)),
        secrets_per_uid: limit(layer.secrets_per_uid, default.secrets_per_uid),
        directories_per_uid: limit(layer.directories_per_uid, default.directories_per_uid),
        elevation: layer
            .elevation_minutes
            .map_or(default.elevation, |minutes| Duration::from_secs(minutes.0 * 60)),
        refuse_expired: layer.refuse_expired.unwrap_or(default.refuse_expired),
        ..Limits::default()
    }
}

/// Reads a limit: 0 is "none" in the file, where there is no way to write an absent value over one.
fn limit<const MAX: u64>(given: Option<Bounded<0, MAX>>, default: Option<u64>) -> Option<u64> {
    given.map_or(default, |Bounded(count)| (count > 0).then_some(count))
}

fn days(count: u64) -> Option<Duration> {
    (count > 0).then(|| Duration::from_secs(count * DAY))
}

#[cfg(test)]
mod tests;
