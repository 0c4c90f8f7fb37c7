//! The daemon's life: start in a fixed order, serve, end cleanly.
//!
//! First the process closes itself to others, then the observer is split off (before there are
//! threads or keys), then comes what can fail for a reason that a person can repair. Only when the mount
//! answers is anybody told that it does. An error on the way undoes what was done.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::getppid;

use super::alerts::Alerting;
use super::background::Report;
use super::config::{Config, Sources};
use super::host::Daemon;
use super::init::{
    PassphraseInput, check_alerts, check_anomalies, check_injections, check_policy, check_rotation,
};
use super::injections::{Injecting, Injections};
use super::keeper::message::{FromServer, ToServer};
use super::lock::{SERVING, StoreLock};
use super::mounting::{self, Mounting};
use super::renderings::read_renderings;
use super::supervision::{By, Supervision};
use super::timers::Timers;
use super::watch::Watching;
use super::{DaemonError, compose, inspection, logging, notify, ownership};
use crate::fs::control::Host;
use crate::fs::{Renderings, Tree};
use crate::rotation::Rotations;
use crate::route::Refreshing;
use crate::system::{Asked, Channel, Signals, die_with_parent, harden_process, name_process};

pub use super::mounting::FS_TYPE;

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

/// Serves until SIGTERM, SIGINT or an unmount, for systemd or with nobody who keeps the mount.
pub fn serve(mut start: Start) -> Result<(), DaemonError> {
    let report = start.report.take();
    let begun = Supervision::alone(&start.config.mountpoint)
        .map_err(DaemonError::io("preparing for another server"))
        .and_then(|supervision| Serving::start(start, supervision));
    match begun {
        Ok(serving) => {
            report.into_iter().for_each(Report::ready);
            serving.until_the_end()
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

/// The keeper has told this process to be the server.
#[derive(Debug)]
pub struct Turn(Supervision);

/// Waits for the keeper, which has started this process, to tell it to be the server: at once, or as a spare when the
/// server before is dead. `None`: the keeper ends without having needed it.
///
/// Nothing is to be read before that: it might be old by then. The process has this `name` meanwhile.
pub fn await_turn(name: &CStr) -> Result<Option<Turn>, DaemonError> {
    harden_process().map_err(DaemonError::io("closing the process to others"))?;
    let turn = name_process(name)
        .and_then(|()| die_with_parent(getppid().as_raw().cast_unsigned()))
        .and_then(|()| Supervision::by_keeper());
    Ok(turn.map_err(DaemonError::io("meeting the keeper"))?.map(Turn))
}

/// Serves for a keeper, whose turn for this process it is.
pub fn serve_kept(mut start: Start, Turn(mut supervision): Turn) -> Result<(), DaemonError> {
    let by = supervision.by.clone();
    let starting = Starting::begin(by.clone(), start.config.watchdog)
        .map_err(DaemonError::io("starting the watchdog"))?;
    let passphrase = supervision.passphrase.take();
    if let Some(passphrase) = &passphrase {
        start.passphrase = PassphraseInput::Descriptor(passphrase.as_raw_fd());
    }
    let begun = Serving::start(start, supervision);
    drop(starting);
    match begun {
        Ok(serving) => {
            by.tell(&FromServer::Ready);
            serving.until_the_end()
        }
        Err(error) => {
            let why = error.chain();
            tracing::error!(%why, "not started");
            by.tell(&FromServer::Failed(why));
            Err(error)
        }
    }
}

/// Says that all is well while a start takes its time; the keeper hears when the process is stopped.
struct Starting(#[expect(dead_code, reason = "its end is what the thread waits for")] Sender<()>);

/// A start that takes longer does not come to an end.
const LONGEST_START: Duration = Duration::from_secs(120);

impl Starting {
    fn begin(by: By, watchdog: Duration) -> std::io::Result<Self> {
        let (sender, ended) = mpsc::channel::<()>();
        let deadline = Instant::now() + LONGEST_START;
        thread::Builder::new().name("starting".into()).spawn(move || {
            while ended.recv_timeout(watchdog / 4) == Err(RecvTimeoutError::Timeout)
                && Instant::now() < deadline
            {
                by.tell(&FromServer::Alive);
            }
        })?;
        Ok(Self(sender))
    }
}

/// What wakes the main thread.
enum Wake {
    Reload,
    /// To make room for a successor.
    Retire,
    /// A signal asks for the end.
    Stop,
    /// The mount is out of the tree, and its keeper wants us to end.
    TakenAway,
    /// The session has ended by itself: somebody unmounted it, or aborted the connection.
    Unmounted,
}

/// How serving ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum End {
    /// Another server goes on.
    Retired,
    /// We unmount.
    Stopped,
    /// Others have taken the mount out of the tree.
    TakenAway,
    /// The session has ended.
    Unmounted,
}

struct Serving {
    daemon: Arc<Daemon>,
    mounted: compose::Mounted,
    supervision: Arc<Supervision>,
    /// What made the mount, if this process did.
    mounting: Option<Mounting>,
    config: Config,
    wakes: Receiver<Wake>,
    timers: Timers,
    rotations: Rotations,
    watching: Watching,
    alerting: Alerting,
    injecting: Injecting,
    refreshing: Refreshing,
    injections: Arc<Injections>,
    _device: OwnedFd,
    _lock: StoreLock,
}

impl Serving {
    fn start(start: Start, mut supervision: Supervision) -> Result<Self, DaemonError> {
        let Start { sources, config, passphrase, exceptions, .. } = start;
        harden_process().map_err(DaemonError::io("closing the process to others"))?;
        let observer = supervision.observer().map_err(DaemonError::io("starting the observer"))?;
        let level = logging::start(config.log, &sources.environment)
            .map_err(DaemonError::io("starting the log"))?;
        config.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        if !config.store().exists() {
            return Err(DaemonError::NoStore(config.state_dir));
        }
        let doing = format!("{SERVING} {}", config.mountpoint.display());
        let lock = StoreLock::take_over(&config.state_dir, &doing)?;
        ownership::claim(&config);
        let policy = check_policy(&config.policy)?;
        let rotation = check_rotation(&config.rotation)?;
        let anomalies = check_anomalies(&config.anomalies)?;
        let injections = check_injections(&config.injections)?;
        let alerts = check_alerts(&config.alerts)?;
        let renderings = Arc::new(Renderings::default());
        renderings.replace(read_renderings(&config)?);
        supervision.confine(&config).map_err(DaemonError::io("entering the sandbox"))?;
        let effects = compose::effects(&supervision.by, &config);
        let parts =
            compose::open(&config, policy, &passphrase, exceptions, (&supervision, effects))?;
        drop(passphrase);
        // Before the mount: a signal that comes between must unmount it again.
        let (wake, wakes) = mpsc::channel();
        watch_signals(wake.clone())?;
        let (mounting, device) = supervision.device(&config)?;
        let supervision = Arc::new(supervision);
        inspection::begin(&config, &parts.broker);
        let tasks = parts.housekeeping();
        let rotator = compose::rotator(&parts, rotation);
        let watch = compose::watch(&config, &parts, anomalies);
        let injections = compose::injections(&config, &parts, injections);
        let alerts = compose::alerts(&config, &parts, alerts);
        let routes = compose::routes(&config, &parts)?;
        let shared =
            (Arc::clone(&watch), Arc::clone(&injections), Arc::clone(&alerts), routes.clone());
        let daemon = Arc::new(Daemon::new(
            (parts, rotator.clone(), renderings),
            shared,
            Arc::clone(&supervision),
            (config.clone(), sources),
            level,
        ));
        let host: Arc<dyn Host> = Arc::clone(&daemon) as _;
        let to_main = wake.clone();
        let on_end = Box::new(move || drop(to_main.send(Wake::Unmounted)));
        let mounted = compose::serve(
            &config,
            daemon.parts(),
            (&supervision, &device),
            (observer, host, Arc::clone(daemon.renderings())),
            on_end,
        );
        let mounted = mounted.map_err(|source| {
            // A mount that nobody serves would hang whoever enters it.
            if let Some(Err(error)) = mounting.as_ref().map(Mounting::take_away) {
                tracing::warn!(why = error.chain(), "not unmounted");
            }
            DaemonError::Mount { path: config.mountpoint.clone(), source }
        })?;
        let rotations =
            rotator.start().map_err(DaemonError::io("starting the schedule of rotations"))?;
        let watching =
            watch.start().map_err(DaemonError::io("starting the watch for anomalies"))?;
        let alerting = alerts.start().map_err(DaemonError::io("starting to tell of alerts"))?;
        let injecting =
            injections.start().map_err(DaemonError::io("starting to keep injected files"))?;
        let refreshing =
            routes.start().map_err(DaemonError::io("starting to refresh what backends keep"))?;
        let timers = Timers::start(tasks).map_err(DaemonError::io("starting the timers"))?;
        watch_over(&supervision.by, config.watchdog, mounted.tree(), wake)
            .map_err(DaemonError::io("starting the watchdog"))?;
        let serving = Self {
            daemon,
            mounted,
            supervision,
            mounting,
            config,
            wakes,
            timers,
            rotations,
            watching,
            alerting,
            injecting,
            refreshing,
            injections,
            _device: device,
            _lock: lock,
        };
        serving.announce();
        Ok(serving)
    }

    /// Closes what the mount covers, and tells systemd that it serves: the handshake with the kernel
    /// is over.
    fn announce(&self) {
        let config = &self.config;
        self.daemon.mounted();
        self.mounting.iter().for_each(Mounting::protect);
        let status = format!("serving {}", config.mountpoint.display());
        notify::ready(&status);
        let generation = self.supervision.journal.generation();
        let mode = config.mode.as_str();
        tracing::info!(mountpoint = ?config.mountpoint, mode, generation, "serving");
    }

    fn until_the_end(self) -> Result<(), DaemonError> {
        let end = self.serve();
        self.end(end)
    }

    fn serve(&self) -> End {
        // All senders gone means that the session's thread is gone too.
        while let Ok(wake) = self.wakes.recv() {
            match wake {
                Wake::Reload => {
                    notify::reloading();
                    let outcome = self.daemon.reload_as(None);
                    notify::ready(if outcome.is_ok() { "reloaded" } else { "reload refused" });
                }
                Wake::Retire => return End::Retired,
                Wake::Stop => match &self.supervision.by {
                    // It unmounts, and then tells us.
                    By::Keeper(_) => self.supervision.by.tell(&FromServer::Stop),
                    By::Nobody => return End::Stopped,
                    // Whether it is a restart, systemd alone knows: what is run after us unmounts.
                    By::Systemd => return End::Retired,
                },
                Wake::TakenAway => return End::TakenAway,
                Wake::Unmounted => return End::Unmounted,
            }
        }
        End::Unmounted
    }

    fn end(self, end: End) -> Result<(), DaemonError> {
        tracing::info!(mountpoint = ?self.config.mountpoint, ?end, "stopping");
        drop(self.timers);
        drop(self.rotations);
        drop(self.watching);
        drop(self.alerting);
        drop(self.injecting);
        drop(self.refreshing);
        if end != End::Retired {
            self.injections.take_away();
        }
        match end {
            End::Retired => {
                notify::stopping("another server goes on");
                self.mounted.tree().drain(self.config.deadline);
                self.daemon.parts().broker.close();
                tracing::info!("stopped");
                return Ok(());
            }
            End::Stopped => {
                notify::stopping("unmounting");
                mounting::take_away(&self.config.mountpoint)?;
            }
            End::TakenAway => {}
            End::Unmounted => {
                notify::stopping("unmounted");
                self.supervision.by.tell(&FromServer::Unmounted);
            }
        }
        let ended = end == End::Unmounted || session_ends_within(&self.wakes, LAST_FILES);
        self.mounting.iter().for_each(Mounting::protect);
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
            Ok(Wake::Reload | Wake::Retire | Wake::Stop | Wake::TakenAway) => {}
            Err(RecvTimeoutError::Timeout) => return false,
        }
    }
}

/// Says again and again that all is well, as long as it is, and hears what the keeper says.
fn watch_over(
    by: &By,
    watchdog: Duration,
    tree: &Arc<Tree>,
    wake: Sender<Wake>,
) -> std::io::Result<()> {
    let patience = match by {
        By::Keeper(channel) => {
            let channel = Arc::clone(channel);
            thread::Builder::new().name("keeper".into()).spawn(move || listen(&channel, &wake))?;
            watchdog
        }
        By::Nobody | By::Systemd => match notify::watchdog() {
            Some(patience) => patience,
            None => return Ok(()),
        },
    };
    let (by, mut pulse) = (by.clone(), tree.pulse(patience));
    thread::Builder::new().name("watchdog".into()).spawn(move || {
        loop {
            thread::sleep(patience / 4);
            if pulse.is_well() {
                by.tell(&FromServer::Alive);
                notify::alive();
            } else {
                tracing::error!("a request holds a thread up for too long");
            }
        }
    })?;
    Ok(())
}

fn listen(channel: &Channel, wake: &Sender<Wake>) {
    while let Ok(Some(message)) = channel.receive() {
        let told = wake.send(match message {
            ToServer::Reload => Wake::Reload,
            ToServer::Retire => Wake::Retire,
            ToServer::Stop => Wake::TakenAway,
            ToServer::Launch(_) | ToServer::Mounted => continue,
        });
        if told.is_err() {
            return;
        }
    }
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
