//! How a server stands to whoever holds its mount, and what it got from the server before it.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::config::{Config, Environment};
use super::confinement::Confinement;
use super::keeper::is_connected;
use super::keeper::message::{FromServer, Launch, ToServer};
use super::mounting::{Mounting, is_mounted};
use super::{DaemonError, compose, notify};
use crate::fs::{Death, Journal};
use crate::identity::Observer;
use crate::system::{Channel, KeyCell, die_with_parent, name_process};

/// What outlives this server.
pub(super) struct Supervision {
    pub(super) by: By,
    pub(super) journal: Arc<Journal>,
    pub(super) key: Arc<KeyCell>,
    /// How the server before this one ended, if there was one.
    pub(super) predecessor: Option<Death>,
    pub(super) restarts: u64,
    /// When the mount was made, in seconds since 1970.
    pub(super) since: i64,
    /// The device, where an earlier server has left it.
    device: Option<OwnedFd>,
    pub(super) passphrase: Option<OwnedFd>,
    observer: Option<Observer>,
    pub(super) confinement: Confinement,
}

/// Who holds the mount.
#[derive(Clone, Debug)]
pub(super) enum By {
    Keeper(Arc<Channel>),
    Nobody,
    Systemd,
}

impl By {
    /// Returns the word for it in `status`.
    pub(super) fn as_str(&self) -> &'static str {
        match self {
            Self::Keeper(_) => "keeper",
            Self::Nobody => "none",
            Self::Systemd => "systemd",
        }
    }

    /// Tells the keeper something, where there is one. One that is gone takes us along.
    pub(super) fn tell(&self, message: &FromServer) {
        if let Self::Keeper(channel) = self
            && let Err(error) = channel.send(message)
        {
            tracing::warn!(%error, "the keeper was not told");
        }
    }
}

impl Supervision {
    /// Takes what the keeper gives to the process that it has started, once it does. `None`: it ends without having
    /// needed it.
    pub(super) fn by_keeper() -> io::Result<Option<Self>> {
        let channel = Arc::new(Channel::inherited()?);
        let by = By::Keeper(Arc::clone(&channel));
        let observer = compose::start_observer(&by)?;
        let launch = match channel.receive()? {
            Some(ToServer::Launch(launch)) => launch,
            Some(_) => return Err(io::ErrorKind::InvalidData.into()),
            None => return Ok(None),
        };
        name_process(c"secretfs")?;
        let mut descriptors = channel.receive_descriptors()?.into_iter();
        let mut next = || descriptors.next().ok_or(io::ErrorKind::InvalidData);
        let Launch { keeper, predecessor, restarts, since, passphrase } = launch;
        let journal = Arc::new(Journal::from_memory(next()?)?);
        let key = Arc::new(KeyCell::from_memory(next()?)?);
        let passphrase = passphrase.then(next).transpose()?;
        die_with_parent(keeper)?;
        journal.begin_generation();
        Ok(Some(Self {
            by,
            journal,
            key,
            predecessor,
            restarts,
            since,
            device: None,
            passphrase,
            observer: Some(observer),
            confinement: Confinement::Off,
        }))
    }

    /// Begins with what systemd keeps for this service; where there is nothing, and without systemd,
    /// with nothing.
    pub(super) fn alone(mountpoint: &Path) -> io::Result<Self> {
        let kept = notify::kept_descriptors().filter(|kept| is_live(&kept.device, mountpoint));
        let since = compose::clock().now().as_second();
        let taken = kept.and_then(|kept| {
            let journal = Journal::from_memory(kept.journal).ok()?;
            Some((journal, KeyCell::from_memory(kept.key).ok()?, kept.device))
        });
        let (journal, key, device) = match taken {
            Some((journal, key, device)) => (journal, key, Some(device)),
            None => (Journal::new()?, KeyCell::new()?, None),
        };
        // One that has died before it served has left nothing.
        let has_served = device.is_some() && journal.is_mounted();
        let restarts = journal.begin_generation() - 1;
        Ok(Self {
            by: if device.is_some() { By::Systemd } else { By::Nobody },
            journal: Arc::new(journal),
            key: Arc::new(key),
            // systemd does not say how: the worst is assumed.
            predecessor: has_served.then_some(Death::Crashed),
            restarts,
            since,
            device,
            passphrase: None,
            observer: None,
            confinement: Confinement::Off,
        })
    }

    /// Returns this server's observer, which is started unless a keeper has been asked for it already. To be called once,
    /// before any thread.
    pub(super) fn observer(&mut self) -> io::Result<Observer> {
        self.observer.take().map_or_else(|| compose::start_observer(&self.by), Ok)
    }

    /// Gives up for good what this process does not need from here on.
    pub(super) fn confine(&mut self, config: &Config) -> io::Result<()> {
        let mounted_by_others = matches!(self.by, By::Keeper(_)) || self.device.is_some();
        self.confinement = Confinement::enter(config, mounted_by_others)?;
        Ok(())
    }

    /// Returns the device of the mount, which is made now unless it is there. What has made it is
    /// returned where that is this process.
    pub(super) fn device(
        &mut self,
        config: &Config,
    ) -> Result<(Option<Mounting>, OwnedFd), DaemonError> {
        if let Some(device) = self.device.take() {
            return Ok((None, device));
        }
        let By::Keeper(channel) = &self.by else {
            let (mounting, device) = Mounting::make(config)?;
            return Ok((Some(mounting), device));
        };
        let handed_over = || {
            channel.send(&FromServer::Opened)?;
            match channel.receive()? {
                Some(ToServer::Mounted) => {}
                // It has failed to mount, and says so itself.
                Some(_) | None => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
            channel.receive_descriptors()?.pop().ok_or_else(|| io::ErrorKind::InvalidData.into())
        };
        let device = handed_over().map_err(DaemonError::io("getting the mount from the keeper"))?;
        Ok((None, device))
    }

    /// Returns what the log's first line says about this start.
    pub(super) fn start_line(&self) -> serde_json::Value {
        serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"),
            "mount": format!("{:016x}", self.journal.mount()),
            "generation": self.journal.generation(),
            "after": self.predecessor.map(death_word),
        })
    }

    /// Returns pairs for `status`.
    pub(super) fn status(&self) -> Vec<(&'static str, String)> {
        let since = crate::model::Timestamp::from_second(self.since);
        vec![
            ("keeper", self.by.as_str().into()),
            ("program", program()),
            ("server_generation", self.journal.generation().to_string()),
            ("restarts", self.restarts.to_string()),
            ("mounted", since.map_or_else(|_| String::new(), |since| since.to_string())),
            ("last_end", self.predecessor.map_or("none", death_word).into()),
            ("key_memory", self.key.kind().as_str().into()),
            ("sandbox", self.confinement.as_str().into()),
        ]
    }

    /// Asks for another program to take over. Errors: why that cannot be.
    pub(super) fn upgrade(&self, program: PathBuf) -> Result<(), &'static str> {
        match &self.by {
            By::Keeper(channel) => channel
                .send(&FromServer::Upgrade(program))
                .map_err(|_| "the keeper does not listen"),
            By::Nobody => Err("nobody holds the mount meanwhile: `keeper = \"off\"`"),
            By::Systemd => {
                Err("systemd holds the mount: install the program, then `systemctl restart`")
            }
        }
    }
}

/// Tells whether a kept mount is still there, and where it is looked for.
fn is_live(device: &OwnedFd, mountpoint: &Path) -> bool {
    is_mounted(mountpoint).unwrap_or(false) && is_connected(device)
}

/// Tells whether systemd has started us and waits to hear from us.
pub(super) fn is_systemd_s(environment: &Environment) -> bool {
    environment.value("NOTIFY_SOCKET").is_some()
}

fn death_word(death: Death) -> &'static str {
    match death {
        Death::Crashed => "crashed",
        Death::Killed => "killed",
        Death::Retired => "retired",
    }
}

impl std::fmt::Debug for Supervision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Supervision").field("by", &self.by).finish_non_exhaustive()
    }
}

fn program() -> String {
    std::env::current_exe().map_or_else(|_| String::new(), |path| path.display().to_string())
}
