//! The environment: a copy taken once, and the settings in it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use serde::Deserialize;
use toml::{Table, Value};

use super::{ConfigError, Layer};

/// The variables of the process as they were at start.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<OsString, OsString>);

/// Values may be anything, other programs' secrets included, so only their names are shown.
impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

enum Kind {
    Number,
    Text,
}

/// Variable, table, key. A variable that is empty counts as unset.
const SETTINGS: [(&str, &str, &str, Kind); 27] = [
    ("SECRETFS_ALERTS", "", "alerts", Kind::Text),
    ("SECRETFS_ANOMALIES", "", "anomalies", Kind::Text),
    ("SECRETFS_AUDIT_RETENTION_DAYS", "audit", "retention_days", Kind::Number),
    ("SECRETFS_AUDIT_SEGMENT_MIB", "audit", "segment_mib", Kind::Number),
    ("SECRETFS_DEADLINE_SECONDS", "", "deadline_seconds", Kind::Number),
    ("SECRETFS_DURABILITY", "audit", "durability", Kind::Text),
    ("SECRETFS_ELEVATION_MINUTES", "limits", "elevation_minutes", Kind::Number),
    ("SECRETFS_INJECTIONS", "", "injections", Kind::Text),
    ("SECRETFS_IO", "", "io", Kind::Text),
    ("SECRETFS_KEEPER", "", "keeper", Kind::Text),
    ("SECRETFS_KEEP_VERSIONS", "limits", "keep_versions", Kind::Number),
    ("SECRETFS_KEY_CREDENTIAL", "key", "credential", Kind::Text),
    ("SECRETFS_KEY_FILE", "key", "file", Kind::Text),
    ("SECRETFS_KEY_SOURCE", "key", "source", Kind::Text),
    ("SECRETFS_LOG_LEVEL", "log", "level", Kind::Text),
    ("SECRETFS_LOG_TARGET", "log", "target", Kind::Text),
    ("SECRETFS_MAX_VALUE_BYTES", "limits", "max_value_bytes", Kind::Number),
    ("SECRETFS_MOUNTPOINT", "", "mountpoint", Kind::Text),
    ("SECRETFS_NAMES", "", "names", Kind::Text),
    ("SECRETFS_ON_RESTART", "", "on_restart", Kind::Text),
    ("SECRETFS_POLICY", "", "policy", Kind::Text),
    ("SECRETFS_ROTATION", "", "rotation", Kind::Text),
    ("SECRETFS_SANDBOX", "", "sandbox", Kind::Text),
    ("SECRETFS_STATE_DIR", "", "state_dir", Kind::Text),
    ("SECRETFS_THREADS", "", "threads", Kind::Number),
    ("SECRETFS_TRASH_DAYS", "limits", "trash_days", Kind::Number),
    ("SECRETFS_WATCHDOG_SECONDS", "", "watchdog_seconds", Kind::Number),
];

/// Variables with our prefix that are no settings of the daemon.
const OTHERS: [&str; 4] =
    ["SECRETFS_CAMPAIGN", "SECRETFS_CONFIG", "SECRETFS_MOUNT", "SECRETFS_REQUIRE_ALL"];

impl Environment {
    /// Copies the environment of this process.
    pub fn of_process() -> Self {
        Self(std::env::vars_os().collect())
    }

    /// Returns the variables of this process that are text, in its own order.
    pub fn in_order() -> Vec<(String, String)> {
        let text = |(name, value): (OsString, OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        std::env::vars_os().filter_map(text).collect()
    }

    /// Returns an environment of those variables alone.
    pub fn of<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }

    /// Returns a variable that is set and not empty.
    pub fn value(&self, variable: &str) -> Option<&OsStr> {
        self.0.get(OsStr::new(variable)).filter(|value| !value.is_empty()).map(OsString::as_os_str)
    }

    /// Returns a variable that is set, empty or not.
    pub fn set_value(&self, variable: &str) -> Option<&OsStr> {
        self.0.get(OsStr::new(variable)).map(OsString::as_os_str)
    }

    /// Returns a variable as text, if it is UTF-8.
    pub fn text(&self, variable: &str) -> Option<&str> {
        self.value(variable)?.to_str()
    }

    /// Returns a variable that holds an absolute path; the XDG specification wants others ignored.
    pub fn absolute_path(&self, variable: &str) -> Option<PathBuf> {
        self.value(variable).map(PathBuf::from).filter(|path| path.is_absolute())
    }

    /// Returns the home directory: `$HOME`, else the one of the user database, else `/`.
    pub fn home(&self) -> PathBuf {
        self.absolute_path("HOME")
            .or_else(|| Some(nix::unistd::User::from_uid(nix::unistd::geteuid()).ok()??.dir))
            .unwrap_or_else(|| "/".into())
    }

    /// Returns what the variables say, each checked as if it stood in the file.
    pub(super) fn layer(&self) -> Result<Layer, ConfigError> {
        let mut joined = Layer::default();
        for (variable, table, key, kind) in &SETTINGS {
            if let Some(value) = self.value(variable) {
                let layer = one_setting(value, table, key, kind)
                    .map_err(|message| ConfigError::Variable { variable, message })?;
                joined = joined.under(layer);
            }
        }
        Ok(joined)
    }

    /// Returns a warning for each variable that looks like a setting and is none.
    pub(super) fn unknown_variables(&self) -> Vec<String> {
        let names = self.0.keys().filter_map(|name| name.to_str());
        names
            .filter(|name| name.starts_with("SECRETFS_"))
            .filter(|name| !SETTINGS.iter().any(|(known, ..)| known == name))
            .filter(|name| !OTHERS.contains(name))
            .map(|name| format!("environment variable {name} is no setting of secretfs"))
            .collect()
    }
}

fn one_setting(value: &OsStr, table: &str, key: &str, kind: &Kind) -> Result<Layer, String> {
    let text = value.to_str().ok_or("is not UTF-8")?;
    let value = match kind {
        Kind::Number => Value::Integer(text.parse().map_err(|_| "a whole number was expected")?),
        Kind::Text => Value::String(text.into()),
    };
    let mut root = Table::from_iter([(key.to_owned(), value)]);
    if !table.is_empty() {
        root = Table::from_iter([(table.to_owned(), Value::Table(root))]);
    }
    Layer::deserialize(root).map_err(|err| err.message().to_owned())
}
