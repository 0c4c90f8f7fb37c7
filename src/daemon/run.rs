//! The daemon's life: start in a fixed order, serve, end cleanly.
//!
//! First the process closes itself to others, then the observer is split off (before there are
//! threads or keys), then comes what can fail for a reason that a person can repair. Only when the mount
//! answers is anybody told that it does. An error on the way undoes what was done.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use super::background::Report;
use super::config::{Config, Sources};
use super::host::Daemon;
use super::init::{PassphraseInput, check_policy};
use super::lock::StoreLock;
use super::timers::Timers;
use super::{DaemonError, compose, logging, notify};
use crate::fs::control::Host;
use crate::system::{
    Asked, Mountpoint, Signals, Unmount, harden_process, is_stale, mounts, topmost, unmount,
};

/// The subtype by which our mounts are known.
pub const FS_TYPE: &str = "fuse.secretfs";

/// What a start needs.
#[derive(Debug)]
pub struct Start {
    pub sources: Sources,
    pub config: Config,
    pub passphrase: PassphraseInput,
    pub exceptions: compose::Exceptions,
    /// Whom to tell besides systemd, for a daemon in the background.
    pub report: Option<Report>,
}

/// Serves until SIGTERM, SIGINT or an unmount.
pub fn serve(mut start: Start) -> Result<(), DaemonError> {
    let report = start.report.take();
    match Serving::start(start) {
        Ok(mut serving) => {
            if let Some(report) = report {
                report.ready();
            }
            serving.until_the_end();
            serving.stop()
        }
        Err(error) => {
            let why = error.chain();
            tracing::error!(%why, "not started");
            if let Some(report) = report {
                report.failed(&error);
            }
            Err(error)
        }
    }
}

/// What wakes the main thread.
enum Wake {
    Reload,
    Stop,
    /// The session has ended by itself: somebody unmounted it, or aborted the connection.
    Unmounted,
}

struct Serving {
    daemon: Arc<Daemon>,
    mounted: compose::Mounted,
    mountpoint: Mountpoint,
    wakes: Receiver<Wake>,
    timers: Timers,
    still_mounted: bool,
    _lock: StoreLock,
}

impl Serving {
    fn start(start: Start) -> Result<Self, DaemonError> {
        let Start { sources, config, passphrase, exceptions, .. } = start;
        harden_process().map_err(DaemonError::io("closing the process to others"))?;
        let observer =
            compose::start_observer().map_err(DaemonError::io("starting the observer"))?;
        let level = logging::start(config.log, &sources.environment)
            .map_err(DaemonError::io("starting the log"))?;
        config.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        if !config.store().exists() {
            return Err(DaemonError::NoStore(config.state_dir));
        }
        let doing = format!("serving {}", config.mountpoint.display());
        let lock = StoreLock::take(&config.state_dir, &doing)?;
        let policy = check_policy(&config.policy)?;
        let parts = compose::open(&config, policy, &passphrase, exceptions)?;
        drop(passphrase);
        make_way(&config.mountpoint)?;
        let mountpoint = Mountpoint::prepare(&config.mountpoint)?;
        // Before the mount: a signal that comes between must unmount it again.
        let (wake, wakes) = mpsc::channel();
        watch_signals(wake.clone())?;
        let tasks = parts.housekeeping();
        let daemon = Arc::new(Daemon::new(parts, config.clone(), sources, level));
        let host: Arc<dyn Host> = Arc::clone(&daemon) as _;
        let on_end = Box::new(move || drop(wake.send(Wake::Unmounted)));
        let mounted = compose::mount(&config, daemon.parts(), observer, host, on_end)
            // What would have been covered is closed all the same: whoever writes there believes in a mount.
            .inspect_err(|_| drop(mountpoint.protect()))
            .map_err(|source| DaemonError::Mount { path: config.mountpoint.clone(), source })?;
        let timers = Timers::start(tasks).map_err(DaemonError::io("starting the timers"))?;
        let serving =
            Self { daemon, mounted, mountpoint, wakes, timers, still_mounted: true, _lock: lock };
        serving.announce(&config);
        Ok(serving)
    }

    /// Closes what the mount covers, and tells systemd that it serves: the handshake with the kernel
    /// is over.
    ///
    /// No look at the mount itself: a thread of this process that waits for this process's own answer
    /// cannot be killed, keeps `/dev/fuse` and the store's lock for ever, and nobody could start again.
    fn announce(&self, config: &Config) {
        self.daemon.mounted();
        match self.mountpoint.protect() {
            Ok(immutable) => tracing::debug!(immutable, "the covered directory is closed"),
            Err(error) => tracing::warn!(%error, "the covered directory could not be closed"),
        }
        let status = format!("serving {}", config.mountpoint.display());
        notify::ready(&status);
        tracing::info!(mountpoint = ?config.mountpoint, mode = config.mode.as_str(), "serving");
    }

    fn until_the_end(&mut self) {
        // All senders gone means that the session's thread is gone too.
        while let Ok(wake) = self.wakes.recv() {
            match wake {
                Wake::Reload => {
                    notify::reloading();
                    let outcome = self.daemon.reload_as(None);
                    notify::ready(if outcome.is_ok() { "reloaded" } else { "reload refused" });
                }
                Wake::Stop => return,
                Wake::Unmounted => {
                    self.still_mounted = false;
                    return;
                }
            }
        }
    }

    fn stop(self) -> Result<(), DaemonError> {
        let path = self.mountpoint.path().to_path_buf();
        notify::stopping("unmounting");
        tracing::info!(mountpoint = ?path, "stopping");
        drop(self.timers);
        let mut ended = !self.still_mounted;
        if self.still_mounted {
            take_away(&path)?;
            ended = session_ends_within(&self.wakes, LAST_FILES);
        }
        if let Err(error) = self.mountpoint.protect() {
            tracing::warn!(%error, "the mountpoint could not be closed");
        }
        if ended {
            self.mounted.join();
        } else {
            // A detached mount lives until its last file is closed. We do not wait longer for whoever
            // holds one: the end of this process fails their reads.
            tracing::warn!("files were still open");
        }
        self.daemon.parts().broker.close();
        tracing::info!("stopped");
        Ok(())
    }
}

/// How long open files may hold up the end after the mount is out of the tree.
const LAST_FILES: Duration = Duration::from_secs(3);

fn session_ends_within(wakes: &Receiver<Wake>, at_most: Duration) -> bool {
    let deadline = Instant::now() + at_most;
    loop {
        match wakes.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Wake::Unmounted) | Err(RecvTimeoutError::Disconnected) => return true,
            // Another SIGTERM does not hurry us.
            Ok(Wake::Reload | Wake::Stop) => {}
            Err(RecvTimeoutError::Timeout) => return false,
        }
    }
}

fn take_away(path: &Path) -> Result<(), DaemonError> {
    unmount(path, Unmount::IfUnused)
        .or_else(|_| unmount(path, Unmount::Detach))
        .map_err(DaemonError::io(format!("unmounting {}", path.display())))
}

/// Detaches mounts that dead daemons have left; refuses where a live one serves.
fn make_way(path: &Path) -> Result<(), DaemonError> {
    // Each turn takes one stacked mount away; more than a few would be somebody else's game.
    for _ in 0..16 {
        let table = mounts().map_err(DaemonError::io("reading the mount table"))?;
        match topmost(&table, path) {
            Some(found) if found.fs_type == FS_TYPE && is_stale(path) => {
                tracing::warn!(mountpoint = ?path, "detaching the mount of a daemon that died");
                unmount(path, Unmount::Detach)
                    .map_err(DaemonError::io(format!("detaching {}", path.display())))?;
            }
            Some(found) if found.fs_type == FS_TYPE => return Err(DaemonError::Busy(path.into())),
            Some(_) | None => return Ok(()),
        }
    }
    Err(DaemonError::Busy(path.into()))
}

fn watch_signals(wake: Sender<Wake>) -> Result<(), DaemonError> {
    let signals = Signals::register().map_err(DaemonError::io("taking signals over"))?;
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            for asked in signals {
                let told = wake.send(match asked {
                    Asked::Reload => Wake::Reload,
                    Asked::Stop => Wake::Stop,
                });
                if told.is_err() {
                    return;
                }
            }
        })
        .map_err(DaemonError::io("starting the thread for signals"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_without_a_mount_is_free_and_foreign_mounts_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        assert!(make_way(dir.path()).is_ok());
        assert!(make_way(Path::new("/proc")).is_ok());
    }

    #[test]
    fn the_unit_has_no_option_that_would_hide_the_mount_from_the_host() {
        let unit = include_str!("../../systemd/secretfs.service");
        let settings = || unit.lines().filter(|line| !line.starts_with('#'));
        // Those that make systemd unshare the mount namespace (systemd.exec(5); THREATS F4).
        let hiding = [
            "BindPaths",
            "BindReadOnlyPaths",
            "DynamicUser",
            "ExecPaths",
            "InaccessiblePaths",
            "MountFlags",
            "NoExecPaths",
            "PrivateDevices",
            "PrivateIPC",
            "PrivateMounts",
            "PrivateNetwork",
            "PrivateTmp",
            "PrivateUsers",
            "ProcSubset",
            "ProtectControlGroups",
            "ProtectHome",
            "ProtectHostname",
            "ProtectKernelLogs",
            "ProtectKernelModules",
            "ProtectKernelTunables",
            "ProtectProc",
            "ProtectSystem",
            "ReadOnlyPaths",
            "ReadWritePaths",
            "RootDirectory",
            "RootImage",
            "TemporaryFileSystem",
        ];
        for line in settings() {
            let name = line.split('=').next().unwrap();
            assert!(!hiding.contains(&name), "{line}");
        }
        assert!(settings().any(|line| line == "Type=notify"));
    }
}
