//! Makes a store: directories, configuration, policy, key and the empty store, in that order.
//!
//! The store's file comes last and by rename, so it is the sign that all the rest is there: an `init`
//! that was interrupted can be run again. What exists already is kept, never replaced.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::RawFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::unistd::{geteuid, getuid};

use super::DaemonError;
use super::compose;
use super::config::{Config, Environment, KeyConfig};
use super::injections;
use super::lock::StoreLock;
use super::paths::Mode;
use super::trust::{self, TrustError};
use super::wrapping;
use crate::anomaly;
use crate::model::{StoreId, TextError, Uid};
use crate::rotation::Settings;
use crate::system::{SecretBytes, atomic_file};

/// Where a passphrase comes from, when the key source is one.
#[derive(Debug)]
pub enum PassphraseInput {
    /// The terminal.
    Ask,
    /// One line of an open descriptor, which the process was given and which stays open.
    Descriptor(RawFd),
    Given(SecretBytes),
}

/// What was made.
#[derive(Debug)]
pub struct Made {
    pub store_id: StoreId,
    pub admins: Vec<Uid>,
    /// Files that were there already and are used as they are.
    pub kept: Vec<PathBuf>,
}

/// Returns who is an admin when nobody is named: the caller, and under sudo the person behind it.
pub fn default_admins(environment: &Environment) -> Vec<Uid> {
    admins_of(getuid().as_raw(), environment)
}

fn admins_of(uid: u32, environment: &Environment) -> Vec<Uid> {
    let mut admins = vec![Uid(uid)];
    // Only sudo sets this for root; anybody else could set it to anything.
    let sudo_uid = environment.text("SUDO_UID").and_then(|uid| uid.parse().ok()).map(Uid);
    if let Some(person) = sudo_uid.filter(|person| uid == 0 && !admins.contains(person)) {
        admins.push(person);
    }
    admins
}

/// Makes everything that `config` names.
pub fn init(
    config: &Config,
    admins: Vec<Uid>,
    passphrase: &PassphraseInput,
) -> Result<Made, DaemonError> {
    let store = config.store();
    if store.exists() {
        return Err(DaemonError::Exists(store));
    }
    if config.journal().exists() {
        return Err(DaemonError::JournalAlone(config.journal()));
    }
    if let KeyConfig::Backend(key) = &config.key
        && !config.backends.contains_key(&key.backend)
    {
        return Err(DaemonError::Key(wrapping::no_such_backend(&key.backend)));
    }
    make_directory(&config.state_dir, 0o700)?;
    let _lock = StoreLock::take(&config.state_dir, "making the store")?;
    let readable = if config.mode == Mode::System { 0o755 } else { 0o700 };
    let mut kept = Vec::new();
    let mut file = |path: &Path, text: &str, mode| {
        if let Some(directory) = path.parent() {
            make_directory(directory, readable)?;
        }
        match atomic_file::create_new(path, text.as_bytes(), mode) {
            Ok(()) => Ok(()),
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {
                kept.push(path.to_path_buf());
                Ok(())
            }
            Err(err) => Err(DaemonError::io(format!("writing {}", path.display()))(err)),
        }
    };
    file(&config.file, &config_text(config), 0o644)?;
    file(&config.policy, &compose::initial_policy(&admins), 0o644)?;
    // A policy that was there before must be one that the daemon will take.
    check_policy(&config.policy)?;
    if let KeyConfig::File(key) = &config.key {
        key.parent().map_or(Ok(()), |directory| make_directory(directory, readable))?;
    }
    let unfinished = config.state_dir.join("store.redb.new");
    remove_if_there(&unfinished)?;
    let store_id = compose::create_store(&unfinished, config, passphrase)?;
    publish(&unfinished, &store).map_err(DaemonError::io("putting the store in place"))?;
    Ok(Made { store_id, admins, kept })
}

/// Reads how secrets are rotated; no file means that none is by itself.
pub(super) fn check_rotation(path: &Path) -> Result<Settings, DaemonError> {
    check_settings(path, Settings::parse)
}

/// Reads which files are kept for programs; no file means none.
pub(super) fn check_injections(path: &Path) -> Result<injections::Settings, DaemonError> {
    check_settings(path, injections::Settings::parse)
}

/// Reads how anomalies are looked for; no file means the usual way.
pub(super) fn check_anomalies(path: &Path) -> Result<anomaly::Settings, DaemonError> {
    check_settings(path, anomaly::Settings::parse)
}

/// Reads a file that need not be there.
fn check_settings<S: Default>(
    path: &Path,
    parse: fn(&str) -> Result<S, TextError>,
) -> Result<S, DaemonError> {
    let text = match trust::read(path) {
        Err(TrustError::Unreadable { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok(S::default());
        }
        read => read?,
    };
    parse(&text).map_err(|source| DaemonError::Settings { path: path.into(), source })
}

/// Reads a policy as the daemon does.
pub(super) fn check_policy(path: &Path) -> Result<crate::policy::Policy, DaemonError> {
    let text = trust::read(path)?;
    compose::parse_policy(&text).map_err(|source| DaemonError::Policy { path: path.into(), source })
}

fn make_directory(path: &Path, mode: u32) -> Result<(), DaemonError> {
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(DaemonError::io(format!("making the directory {}", path.display())))
}

pub(super) fn remove_if_there(path: &Path) -> Result<(), DaemonError> {
    match fs::remove_file(path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => {
            Err(DaemonError::io(format!("removing {}", path.display()))(err))
        }
        _ => Ok(()),
    }
}

fn publish(from: &Path, to: &Path) -> io::Result<()> {
    File::open(from)?.sync_all()?;
    fs::rename(from, to)?;
    to.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

/// Returns a configuration that says where `init` put things, so that a later start without the
/// flags and variables of this one finds them.
fn config_text(config: &Config) -> String {
    let quoted = |path: &Path| toml::Value::String(path.display().to_string()).to_string();
    let key = match &config.key {
        KeyConfig::Backend(key) => {
            let text = |text: &str| toml::Value::String(text.into()).to_string();
            let (backend, name) = (text(&key.backend), text(&key.name));
            format!("source = \"backend\"\nbackend = {backend}\nname = {name}")
        }
        KeyConfig::Credential { name, .. } => {
            format!("source = \"credential\"\ncredential = \"{name}\"")
        }
        KeyConfig::File(path) => format!("source = \"file\"\nfile = {}", quoted(path)),
        KeyConfig::Passphrase => "source = \"passphrase\"".into(),
    };
    let owner = geteuid();
    let mountpoint = quoted(&config.mountpoint);
    let state_dir = quoted(&config.state_dir);
    let policy = quoted(&config.policy);
    format!(
        "# Configuration of secretfs, made by `secretfs init` for uid {owner}.\n\
         # Flags win over SECRETFS_* variables, they over this file, and it over the built-in values.\n\
         # `secretfs doctor` checks it; `secretfs.toml` in the documentation shows every key.\n\n\
         mountpoint = {mountpoint}\nstate_dir = {state_dir}\npolicy = {policy}\n\n[key]\n{key}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::config::{Layer, Sources};

    #[test]
    fn the_person_behind_sudo_is_an_admin_too_but_nobody_else_can_claim_to_be_one() {
        let sudo = Environment::of([("SUDO_UID", "1000")]);
        assert_eq!(admins_of(0, &sudo), [Uid(0), Uid(1000)]);
        assert_eq!(admins_of(1001, &sudo), [Uid(1001)]);
        assert_eq!(admins_of(0, &Environment::of([("SUDO_UID", "0")])), [Uid(0)]);
        assert_eq!(admins_of(0, &Environment::of([("SUDO_UID", "x")])), [Uid(0)]);
    }

    #[test]
    fn the_configuration_that_init_writes_leads_to_the_same_places_without_flags() {
        let environment = Environment::of([
            ("HOME", "/home/\"ada\" \u{e9}"),
            ("SECRETFS_KEY_CREDENTIAL", "root"),
            ("SECRETFS_MOUNTPOINT", "/m"),
        ]);
        let load = |environment| {
            let flags = Layer::default();
            Sources { mode: Mode::User, file: None, environment, flags }.load().unwrap()
        };
        let made = load(environment);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secretfs.toml");
        atomic_file::create_new(&path, config_text(&made).as_bytes(), 0o644).unwrap();
        let mut sources = Sources {
            mode: Mode::User,
            file: Some(path),
            environment: Environment::of([("HOME", "/other")]),
            flags: Layer::default(),
        };
        let read = sources.load().unwrap();
        assert_eq!((read.mountpoint, read.state_dir, read.policy), {
            (made.mountpoint, made.state_dir, made.policy)
        });
        assert_eq!(read.key, made.key);
        sources.environment = Environment::of([("SECRETFS_MOUNTPOINT", "/n")]);
        assert_eq!(sources.load().unwrap().mountpoint, Path::new("/n"));
    }
}
