//! The daemon as the control files see it.
//!
//! Nobody gets anything by having opened a control file: each command is first admitted, and recorded,
//! by the broker. What a command costs (reading files, stretching a passphrase) is paid only after
//! that.

mod check;
mod command;
mod elevate;
mod grant;
mod quarantine;
mod rotate;
mod scan;
mod words;

use std::fs::File;
use std::io::Write;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::alerts::Alerts;
use super::compose::{self, Parts};
use super::config::{Config, KeyConfig, Sources};
use super::error::chain;
use super::init::{
    PassphraseInput, check_alerts, check_anomalies, check_injections, check_policy, check_rotation,
};
use super::injections::Injections;
use super::logging::Level;
use super::renderings::read_renderings;
use super::supervision::Supervision;
use super::watch::Watch;
use super::{DaemonError, inspection, metrics, trust};
use crate::broker::{Broker, BrokerError, Origin, Progress, Put, Statistics, StoreError};
use crate::crypto::RootKey;
use crate::fs::Renderings;
use crate::fs::control::{Health, Held, Host};
use crate::model::{Caller, Clock, Timestamp};
use crate::rotation::Rotator;
use crate::route::{Routes, State};
use crate::system::{SecretBytes, mounts, topmost};
use check::LastCheck;
use command::Command;
use scan::Scans;

type Result<T> = std::result::Result<T, BrokerError>;

/// How long who asks again after a check is kept waiting.
const MOMENT: Duration = Duration::from_millis(500);

/// What the control files act upon.
pub(super) struct Daemon {
    parts: Parts,
    rotator: Rotator,
    renderings: Arc<Renderings>,
    watch: Arc<Watch>,
    injections: Arc<Injections>,
    alerts: Arc<Alerts>,
    routes: Routes,
    sources: Sources,
    config: ArcSwap<Config>,
    /// The key source as of now: it can be changed while the configuration still names the old one.
    key: Mutex<KeyConfig>,
    clock: Arc<dyn Clock>,
    started: Timestamp,
    level: Level,
    /// Why the last reload was refused.
    reload_fault: Mutex<Option<String>>,
    /// The mount's device, once it is mounted.
    device: OnceLock<(u32, u32)>,
    supervision: Arc<Supervision>,
    store_check: LastCheck,
    log_check: LastCheck,
    scans: Arc<Scans>,
}

impl Daemon {
    pub(super) fn new(
        (parts, rotator, renderings): (Parts, Rotator, Arc<Renderings>),
        (watch, injections, alerts, routes): (Arc<Watch>, Arc<Injections>, Arc<Alerts>, Routes),
        supervision: Arc<Supervision>,
        (config, sources): (Config, Sources),
        level: Level,
    ) -> Self {
        let clock = compose::clock();
        Self {
            key: Mutex::new(config.key.clone()),
            config: ArcSwap::from_pointee(config),
            started: clock.now(),
            reload_fault: Mutex::new(None),
            device: OnceLock::new(),
            parts,
            rotator,
            renderings,
            watch,
            injections,
            alerts,
            routes,
            sources,
            clock,
            level,
            supervision,
            store_check: LastCheck::default(),
            log_check: LastCheck::default(),
            scans: Arc::default(),
        }
    }

    pub(super) fn parts(&self) -> &Parts {
        &self.parts
    }

    /// Remembers what was mounted, so that a mount put over it is noticed.
    pub(super) fn mounted(&self) {
        let config = self.config.load();
        let table = mounts().unwrap_or_default();
        if let Some(ours) = topmost(&table, &config.mountpoint) {
            // Set once: there is one mount a daemon.
            let _ = self.device.set(ours.device);
        }
    }

    pub(super) fn renderings(&self) -> &Arc<Renderings> {
        &self.renderings
    }

    /// Reads policy, configuration and templates again; `caller` is `None` for SIGHUP. Nothing changes unless
    /// everything is good.
    pub(super) fn reload_as(&self, caller: Option<&Caller>) -> Result<Value> {
        let outcome = self.try_reload(caller);
        let fault = outcome.as_ref().err().map(|error| chain(error));
        match &fault {
            None => tracing::info!("policy and configuration reloaded"),
            Some(fault) => tracing::error!(%fault, "reload refused, nothing has changed"),
        }
        if let (Some(caller), Err(error)) = (caller, &outcome)
            && !matches!(error, BrokerError::Denied | BrokerError::Refused(_))
        {
            self.broker().note_failed_control(caller, "reload", error);
        }
        *self.reload_fault.lock() = fault;
        outcome
    }

    fn try_reload(&self, caller: Option<&Caller>) -> Result<Value> {
        let new = self.sources.load().map_err(|error| BrokerError::Invalid(chain(&error)))?;
        let policy = check_policy(&new.policy).map_err(|error| invalid(&error))?;
        let rotation = check_rotation(&new.rotation).map_err(|error| invalid(&error))?;
        let renderings = read_renderings(&new).map_err(|error| invalid(&error))?;
        if let Some(objection) = inspection::files(&new).into_iter().next() {
            return Err(BrokerError::Invalid(objection));
        }
        let anomalies = check_anomalies(&new.anomalies).map_err(|error| invalid(&error))?;
        let injections =
            check_injections(&self.config.load().injections).map_err(|error| invalid(&error))?;
        let alerts = check_alerts(&self.config.load().alerts).map_err(|error| invalid(&error))?;
        self.broker().replace_policy(caller, policy)?;
        self.alerts.replace_settings(alerts);
        self.injections.replace_settings(injections);
        self.watch.replace_settings(anomalies);
        self.rotator.replace_settings(rotation);
        self.renderings.replace(renderings);
        self.level.set(new.log.level);
        let restart = restart_needed(&self.config.load(), &new);
        let reply = json!({ "reloaded": true, "restart_needed": restart });
        // What only a restart changes keeps its old value, so that `status` tells the truth.
        let mut now = Config::clone(&self.config.load());
        (now.log, now.policy, now.warnings) = (new.log, new.policy, new.warnings);
        (now.templates, now.oneiric) = (new.templates, new.oneiric);
        (now.rotation, now.anomalies) = (new.rotation, new.anomalies);
        self.config.store(Arc::new(now));
        Ok(reply)
    }

    fn broker(&self) -> &Broker {
        &self.parts.broker
    }

    /// Admits a control command that the broker does not admit by itself.
    fn admit(&self, caller: &Caller, command: &str) -> Result<()> {
        self.broker().admit_control(caller, command)
    }

    /// Refuses (and records) a caller who is no admin, before the command costs anything. For an
    /// admin nothing is recorded: the broker records the command itself.
    fn admins_only(&self, caller: &Caller, command: &str) -> Result<()> {
        if self.broker().is_admin(caller) { Ok(()) } else { self.admit(caller, command) }
    }

    /// Says what is wrong with the mount, as others see it.
    fn mount_fault(&self) -> Option<&'static str> {
        let ours = *self.device.get()?;
        let table = mounts().ok()?;
        match topmost(&table, &self.config.load().mountpoint) {
            None => Some("the mount was taken away"),
            Some(found) if found.device != ours => Some("something is mounted over the mount"),
            Some(_) => None,
        }
    }

    /// Says what a person should look at.
    fn faults(&self, statistics: &Statistics) -> Vec<String> {
        let integrity = &statistics.integrity;
        let known = ["verified", "verifying"].contains(&integrity.as_str()) || statistics.sealed;
        let integrity = (!known).then(|| format!("integrity: {integrity}"));
        let reload = self.reload_fault.lock().as_ref().map(|why| format!("last reload: {why}"));
        let audit = statistics.audit_fault.as_ref().map(|why| format!("nothing is served: {why}"));
        let mount = self.mount_fault().map(str::to_owned);
        let backends = self.routes.down().into_iter();
        let backends = backends.map(|(backend, why)| format!("backend {backend} is down: {why}"));
        let others = self.injections.faults().into_iter().chain(self.alerts.faults());
        let faults = integrity.into_iter().chain(audit).chain(reload).chain(mount);
        faults.chain(others).chain(backends).collect()
    }

    fn uptime_seconds(&self) -> u64 {
        let seconds = self.clock.now().duration_since(self.started).as_secs();
        u64::try_from(seconds).unwrap_or(0)
    }

    /// Changes the key source, or with the same one makes a new root key.
    fn rotate_root(
        &self,
        caller: &Caller,
        key: KeyConfig,
        passphrase: Option<SecretBytes>,
    ) -> Result<Value> {
        self.admins_only(caller, "key-rotate-root")?;
        if key == KeyConfig::Passphrase && passphrase.is_none() {
            return Err(BrokerError::Invalid("the new passphrase is missing".into()));
        }
        let input = passphrase.map_or(PassphraseInput::Ask, PassphraseInput::Given);
        // One at a time: the last one's key is the one that is left to the next server.
        let mut held = self.key.lock();
        let (config, cell) = (self.config.load(), &self.supervision.key);
        let (mut made, wrapping) = (None, self.parts.wrapping());
        let mut slot = |store, root: &RootKey| {
            let slot = compose::new_slot((&key, &input), &wrapping, store, root)?;
            let kept = SecretBytes::copy_from(root.expose().expose());
            let kept = kept.map_err(|error| error.to_string())?;
            // A server that is killed in between does not tell whether the store has it.
            compose::keep_key(&config, cell, |cell| cell.put_beside(&kept));
            made = Some(kept);
            Ok(slot)
        };
        let rotated = self.broker().rotate_root(caller, &mut slot);
        if let (Ok(()), Some(made)) = (&rotated, made) {
            compose::keep_key(&config, cell, |cell| cell.put(&made));
        }
        self.forget_key_if_sealed();
        rotated?;
        let changed = *held != key;
        let reply = json!({
            "rotated": "root",
            "source": key.as_str(),
            "config_must_change": changed,
            "config": self.config.load().file,
        });
        *held = key;
        Ok(reply)
    }

    /// Forgets what was left to the next server while somebody has sealed the store.
    fn forget_key_if_sealed(&self) {
        if self.broker().is_sealed() {
            self.supervision.key.wipe();
        }
    }

    fn run(&self, caller: &Caller, command: Command) -> Result<Value> {
        match command {
            Command::AuditVerify { check } => {
                let (broker, by) = (self.broker().clone(), caller.clone());
                self.check(caller, &self.log_check, check, move |_| broker.verify_audit(&by))
            }
            Command::Explain { name, uid, gid } => {
                self.admit(caller, "explain")?;
                self.broker().explain(&Caller::with_ids(uid, gid), &name)
            }
            Command::KeyChangeSource { key, passphrase } => {
                let key = key.config(&self.sources.environment)?;
                self.rotate_root(caller, key, passphrase.map(|phrase| phrase.0))
            }
            Command::KeyRotateEpoch => {
                let epoch = self.broker().rotate_epoch(caller)?;
                Ok(json!({ "rotated": "epoch", "epoch": epoch }))
            }
            Command::KeyRotateRoot { passphrase } => {
                let key = self.key.lock().clone();
                self.rotate_root(caller, key, passphrase.map(|phrase| phrase.0))
            }
            Command::KeyStatus => self.broker().key_status(caller),
            Command::PolicyShow => {
                self.admit(caller, "policy-show")?;
                let path = self.config.load().policy.clone();
                let text = trust::read(&path).map_err(|error| invalid(&error.into()))?;
                Ok(json!({ "path": path, "policy": text }))
            }
            Command::PutEmpty { name, expect, create } => {
                let put = Put {
                    expect,
                    create_new: create,
                    allow_empty: true,
                    origin: Origin::Daemon,
                    ..Put::default()
                };
                let nothing = SecretBytes::copy_from(&[]).map_err(no_memory)?;
                let version = self.broker().write(caller, &name, nothing, &put)?;
                Ok(json!({ "name": name, "version": version }))
            }
            Command::Quarantine { uid, lasting, reason } => {
                self.run_quarantine(caller, uid, &lasting, &reason)
            }
            Command::QuarantineLift { uid } => self.run_quarantine_lift(caller, uid),
            Command::QuarantineList => self.run_quarantine_list(caller),
            Command::Upgrade { path } => {
                self.admit(caller, "upgrade")?;
                trust::check_program(&path).map_err(|error| invalid(&error.into()))?;
                let generation = self.supervision.journal.generation();
                let asked = self.supervision.upgrade(path);
                asked.map_err(|why| BrokerError::Invalid(why.into()))?;
                Ok(json!({ "upgrading": true, "generation": generation }))
            }
            Command::Verify { check } => {
                let (broker, by) = (self.broker().clone(), caller.clone());
                self.check(caller, &self.store_check, check, move |progress| {
                    let found = broker.verify(&by, progress)?;
                    serde_json::to_value(found).map_err(|err| BrokerError::Invalid(err.to_string()))
                })
            }
        }
    }

    /// Begins a check, or waits on for one that was begun. Returns its verdict, or how far it is: the
    /// caller asks again, and nobody waits beyond the deadline.
    fn check(
        &self,
        caller: &Caller,
        last: &LastCheck,
        begun: Option<u64>,
        run: impl FnOnce(&Progress) -> Result<Value> + Send + 'static,
    ) -> Result<Value> {
        self.admins_only(caller, "verify")?;
        match begun {
            None => {
                let check = last.begin(run).map_err(StoreError::Io)?;
                check.wait(self.config.load().deadline / 2)
            }
            Some(number) => {
                let lost = || BrokerError::Invalid("that check is not known: begin another".into());
                last.numbered(number).ok_or_else(lost)?.wait(MOMENT)
            }
        }
    }
}

impl Host for Daemon {
    fn status(&self) -> Vec<(String, String)> {
        let statistics = self.broker().statistics();
        let config = self.config.load();
        let faults = self.faults(&statistics);
        let durability = format!("{:?}", config.audit.durability).to_lowercase();
        let mut pairs: Vec<(&str, String)> = vec![
            ("health", health(&statistics, &faults).as_str().into()),
            ("version", env!("CARGO_PKG_VERSION").into()),
            ("pid", std::process::id().to_string()),
            ("mode", config.mode.as_str().into()),
            ("mountpoint", config.mountpoint.display().to_string()),
            ("state_dir", config.state_dir.display().to_string()),
            ("config", config.file.display().to_string()),
            ("policy", config.policy.display().to_string()),
            ("key_source", self.key.lock().as_str().into()),
            ("io", format!("{:?}", config.io).to_lowercase()),
            ("names", format!("{:?}", config.names).to_lowercase()),
            ("audit_durability", durability),
            ("started", self.started.to_string()),
            ("uptime_seconds", self.uptime_seconds().to_string()),
        ];
        pairs.extend(self.supervision.status());
        pairs.extend(counts(&statistics));
        pairs.extend(self.rotation_status());
        pairs.extend(self.routes.states().iter().map(|state| ("route", route_words(state))));
        pairs.extend(faults.into_iter().map(|fault| ("fault", fault)));
        pairs.extend(config.warnings.iter().map(|warning| ("warning", warning.clone())));
        pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }

    fn health(&self) -> Health {
        let statistics = self.broker().statistics();
        health(&statistics, &self.faults(&statistics))
    }

    fn anomalies(&self) -> String {
        self.watch.text()
    }

    fn injections(&self) -> String {
        self.injections.text()
    }

    fn metrics(&self, held: &Held) -> String {
        let statistics = self.broker().statistics();
        metrics::text(&metrics::Figures {
            held,
            healthy: health(&statistics, &self.faults(&statistics)) == Health::Ok,
            statistics: &statistics,
            uptime: self.uptime_seconds(),
            rotations: self.rotations(),
            queues: &self.alerts.queues(),
            backends: &self.routes.states(),
        })
    }

    fn reload(&self, caller: &Caller) -> Result<Value> {
        self.admins_only(caller, "reload")?;
        self.reload_as(Some(caller))
    }

    fn seal(&self, caller: &Caller) -> Result<Value> {
        self.broker().seal(caller)?;
        tracing::warn!(uid = caller.uid.0, "sealed");
        Ok(json!({ "sealed": true }))
    }

    fn unseal(&self, caller: &Caller, passphrase: Option<SecretBytes>) -> Result<Value> {
        if !self.broker().may_unseal(caller) {
            self.admit(caller, "unseal")?;
        }
        let key = self.key.lock().clone();
        let root = match (passphrase, &key) {
            (Some(phrase), _) => {
                let given = PassphraseInput::Given(phrase);
                self.parts.unlock(&KeyConfig::Passphrase, &given)?
            }
            (None, KeyConfig::Passphrase) => {
                return Err(BrokerError::Invalid("a passphrase is needed to unseal".into()));
            }
            (None, key) => self.parts.unlock(key, &PassphraseInput::Ask)?,
        };
        let kept = SecretBytes::copy_from(root.expose().expose()).map_err(no_memory)?;
        self.broker().unseal(caller, root)?;
        compose::keep_key(&self.config.load(), &self.supervision.key, |cell| cell.put(&kept));
        self.forget_key_if_sealed();
        tracing::warn!(uid = caller.uid.0, "unsealed");
        Ok(json!({ "sealed": false }))
    }

    fn rotate(&self, caller: &Caller, command: &Value) -> Result<Value> {
        self.run_rotate(caller, command)
    }

    fn elevate(&self, caller: &Caller, command: &SecretBytes) -> Result<Value> {
        self.run_elevate(caller, command)
    }

    fn grant(&self, caller: &Caller, command: &Value) -> Result<Value> {
        self.run_grant(caller, command)
    }

    fn revoke_grant(&self, caller: &Caller, command: &Value) -> Result<Value> {
        self.run_revoke_grant(caller, command)
    }

    fn holders(&self, caller: &Caller, command: &Value) -> Result<Value> {
        self.run_holders(caller, command)
    }

    fn scan(&self, caller: &Caller, command: &Value) -> Result<Value> {
        self.run_scan(caller, command)
    }

    fn admin(&self, caller: &Caller, command: &Value) -> Result<Value> {
        let command = Command::parse(command)?;
        tracing::info!(uid = caller.uid.0, ?command, "admin command");
        self.run(caller, command)
    }

    fn backup(&self, caller: &Caller, out: &mut dyn Write) -> Result<()> {
        self.broker().backup(caller, out)
    }

    fn spool(&self) -> Result<File> {
        // Where the store has its room, and root alone may look.
        let spool = tempfile::tempfile_in(&self.config.load().state_dir);
        Ok(spool.map_err(StoreError::Io)?)
    }

    fn restore(&self, caller: &Caller, backup: File) -> Result<()> {
        let outcome = self.broker().restore_backup(caller, backup);
        match &outcome {
            Ok(()) => tracing::warn!(uid = caller.uid.0, "restored from a backup"),
            Err(BrokerError::Denied | BrokerError::Refused(_)) => {}
            Err(error) => {
                tracing::error!(uid = caller.uid.0, error = %chain(error), "not restored");
                self.broker().note_failed_control(caller, "backup-restore", error);
            }
        }
        outcome
    }
}

fn health(statistics: &Statistics, faults: &[String]) -> Health {
    if statistics.sealed {
        Health::Sealed
    } else if faults.is_empty() {
        Health::Ok
    } else {
        Health::Degraded
    }
}

fn counts(statistics: &Statistics) -> [(&'static str, String); 10] {
    let Statistics { sealed, integrity, secrets, in_trash, generation, audit_seq, .. } = statistics;
    let Statistics { reads_allowed, refused, writes, failures, .. } = statistics;
    [
        ("sealed", if *sealed { "yes" } else { "no" }.into()),
        ("integrity", integrity.clone()),
        ("secrets", secrets.to_string()),
        ("in_trash", in_trash.to_string()),
        ("generation", generation.to_string()),
        ("audit_seq", audit_seq.to_string()),
        ("reads_allowed", reads_allowed.to_string()),
        ("refused", refused.to_string()),
        ("writes", writes.to_string()),
        ("failures", failures.to_string()),
    ]
}

/// Names the keys of the file whose new value a reload does not bring into effect.
fn restart_needed(old: &Config, new: &Config) -> Vec<&'static str> {
    let changed = [
        ("mountpoint", old.mountpoint != new.mountpoint),
        ("state_dir", old.state_dir != new.state_dir),
        ("key", old.key != new.key),
        ("audit", old.audit != new.audit),
        ("credentials", old.credentials != new.credentials),
        ("limits", format!("{:?}", old.limits) != format!("{:?}", new.limits)),
        ("io", old.io != new.io),
        ("alerts", old.alerts != new.alerts),
        ("injections", old.injections != new.injections),
        ("names", old.names != new.names),
        ("sandbox", old.sandbox != new.sandbox),
        ("route", old.routes != new.routes),
        ("scan_on_write", old.scan_on_write != new.scan_on_write),
        ("threads", old.threads != new.threads),
        ("deadline_seconds", old.deadline != new.deadline),
        ("keeper", old.keeper != new.keeper),
        ("watchdog_seconds", old.watchdog != new.watchdog),
        ("on_restart", old.on_restart != new.on_restart),
        ("log.target", old.log.target != new.log.target),
    ];
    changed.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
}

/// Says how it stands with a service.
fn route_words(state: &State) -> String {
    let State { backend, path, down, copies, oldest, .. } = state;
    let how = down.as_ref().map_or_else(|| "up".to_owned(), |why| format!("down ({why})"));
    let seconds = oldest.as_secs();
    format!("{path} from {backend}: {how}, {copies} copies, the oldest of {seconds} s ago")
}

fn invalid(error: &DaemonError) -> BrokerError {
    BrokerError::Invalid(error.chain())
}

fn no_memory(error: crate::system::MemoryError) -> BrokerError {
    BrokerError::Invalid(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::config::{Environment, Layer};
    use crate::daemon::paths::Mode;

    #[test]
    fn health_is_one_word_and_sealed_comes_before_any_fault() {
        let fault = ["integrity: 3 faults".to_owned()];
        let sealed = Statistics { sealed: true, ..Statistics::default() };
        assert_eq!(health(&Statistics::default(), &[]), Health::Ok);
        assert_eq!(health(&Statistics::default(), &fault), Health::Degraded);
        assert_eq!(health(&sealed, &fault), Health::Sealed);
    }

    #[test]
    fn a_reload_names_what_only_a_restart_changes() {
        let load = |variables: &[(&str, &str)]| {
            let environment = Environment::of(variables.iter().copied());
            let (file, flags) = (None, Layer::default());
            Sources { mode: Mode::User, file, environment, flags }.load().unwrap()
        };
        let old = load(&[("HOME", "/nonexistent")]);
        let new = load(&[
            ("HOME", "/nonexistent"),
            ("SECRETFS_THREADS", "9"),
            ("SECRETFS_LOG_LEVEL", "debug"),
            ("SECRETFS_TRASH_DAYS", "1"),
        ]);
        assert_eq!(restart_needed(&old, &new), ["limits", "threads"]);
        assert!(restart_needed(&old, &old).is_empty());
    }
}
