//! Where things are unless the configuration says otherwise.
//!
//! The system's places are those of the Filesystem Hierarchy Standard; a user's are those of the XDG
//! Base Directory Specification. A user's default mountpoint is `~/secrets`, not something below
//! `$XDG_RUNTIME_DIR`: the path is the same in cron jobs, SSH sessions and scripts, where no login
//! session has set that variable.

use std::path::{Path, PathBuf};

use super::config::Environment;

/// For whom the daemon runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// For the whole host.
    System,
    /// For one user, root as a person included.
    User,
}

impl Mode {
    /// Decides which it is: the system's where it was asked for, and for root on a host that has the
    /// system's configuration. An unprivileged user could not run the system's daemon anyhow.
    pub fn choose(asked_for_system: bool, is_root: bool) -> Self {
        let configured = is_root && Path::new(SYSTEM_CONFIG).exists();
        if asked_for_system || configured { Self::System } else { Self::User }
    }

    /// Returns the word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
        }
    }
}

/// The system's configuration file.
pub const SYSTEM_CONFIG: &str = "/etc/secretfs/secretfs.toml";

/// Default paths.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Places {
    pub config_file: PathBuf,
    pub policy: PathBuf,
    /// The root key's file. It lies apart from the store, so that a copy of the store alone opens
    /// nothing.
    pub key_file: PathBuf,
    pub state_dir: PathBuf,
    pub mountpoint: PathBuf,
}

impl Places {
    /// Returns the defaults of a mode.
    pub fn new(mode: Mode, environment: &Environment) -> Self {
        match mode {
            Mode::System => Self::system(),
            Mode::User => Self::user(environment),
        }
    }

    fn system() -> Self {
        Self {
            config_file: SYSTEM_CONFIG.into(),
            policy: "/etc/secretfs/policy.toml".into(),
            key_file: "/etc/secretfs/root.key".into(),
            state_dir: "/var/lib/secretfs".into(),
            mountpoint: "/secrets".into(),
        }
    }

    fn user(environment: &Environment) -> Self {
        let home = environment.home();
        let base = |variable: &str, fallback: &str| {
            environment
                .absolute_path(variable)
                .unwrap_or_else(|| home.join(fallback))
                .join("secretfs")
        };
        let config = base("XDG_CONFIG_HOME", ".config");
        Self {
            config_file: config.join("secretfs.toml"),
            policy: config.join("policy.toml"),
            key_file: config.join("root.key"),
            state_dir: base("XDG_DATA_HOME", ".local/share"),
            mountpoint: home.join("secrets"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_places_follow_xdg_and_ignore_relative_paths_in_it() {
        let environment = Environment::of([
            ("HOME", "/home/ada"),
            ("XDG_CONFIG_HOME", "/cfg"),
            ("XDG_DATA_HOME", "relative"),
        ]);
        let places = Places::new(Mode::User, &environment);
        assert_eq!(places.config_file, Path::new("/cfg/secretfs/secretfs.toml"));
        assert_eq!(places.state_dir, Path::new("/home/ada/.local/share/secretfs"));
        assert_eq!(places.mountpoint, Path::new("/home/ada/secrets"));
        assert!(!places.key_file.starts_with(&places.state_dir));
    }

    #[test]
    fn an_unprivileged_user_gets_the_system_mode_only_when_asking_for_it() {
        assert_eq!(Mode::choose(false, false), Mode::User);
        assert_eq!(Mode::choose(true, false), Mode::System);
    }
}
