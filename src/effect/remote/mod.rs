//! A service that keeps secrets, as the server sees it: a process of the effector's speaks to it.
//!
//! The server has no network. The process that has is started with the first call and stays, with its
//! connections and its tokens; the server names a service and can neither say where it is nor see how
//! it is logged in to. Each call has a channel of its own, of which one end is sent over the process's, so that
//! calls at the same time know nothing of each other.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Effector;
use crate::backend::{
    Abilities, Backend, BackendError, Deadline, Description, Fetched, Page, PageToken, Probe, Put,
    Result, Version, VersionId, Which,
};
use crate::system::{Channel, SecretBytes};

mod message;
mod server;
#[cfg(test)]
mod tests;

pub(super) use server::serve_backend;

use message::{Call, Opened, Reply, Request, receive, send};

/// How much longer than its time a call may take to say so. A process that does not even do that hangs.
const GRACE: Duration = Duration::from_secs(1);

/// A service behind the effector.
pub struct RemoteBackend {
    effector: Arc<Effector>,
    name: String,
    running: Mutex<Option<Running>>,
    abilities: OnceLock<Abilities>,
}

struct Running {
    channel: Channel,
    started: Instant,
}

impl RemoteBackend {
    /// Asks nothing yet. `name` is the service's in the configuration.
    pub fn new(effector: Arc<Effector>, name: &str) -> Self {
        let (running, abilities) = (Mutex::default(), OnceLock::new());
        Self { effector, name: name.to_owned(), running, abilities }
    }

    /// Makes a call and waits for its answer, no longer than its time.
    fn call(
        &self,
        call: Call,
        value: Option<&SecretBytes>,
        deadline: Deadline,
    ) -> Result<(Reply, Option<SecretBytes>)> {
        let time = deadline.left()?;
        let (ours, theirs) = Channel::pair().map_err(gone)?;
        let started = self.hand_over(&theirs, deadline)?;
        drop(theirs);
        send(&ours, &Request { call, time }, value).map_err(gone)?;
        if ours.await_message(Instant::now() + time + GRACE).is_err() {
            self.end_hanging(started);
            return Err(BackendError::TimedOut);
        }
        let (reply, value) = receive::<std::result::Result<Reply, BackendError>>(&ours)
            .map_err(gone)?
            .ok_or_else(|| gone(io::Error::other("it died before it answered")))?;
        Ok((reply?, value))
    }

    /// Hands the end of a call's channel to the process, or to the next one if it has died.
    fn hand_over(&self, end: &Channel, deadline: Deadline) -> Result<Instant> {
        let mut running = self.running.lock();
        if let Some(present) = &*running {
            if present.channel.send_descriptors(&[end.as_fd()]).is_ok() {
                return Ok(present.started);
            }
            tracing::warn!(backend = self.name, "the process of a backend has died");
        }
        *running = None;
        let (begun, _) = self.start(deadline)?;
        let next = running.insert(begun);
        next.channel.send_descriptors(&[end.as_fd()]).map_err(gone)?;
        Ok(next.started)
    }

    /// Has a process begin; with what its service can do.
    fn start(&self, deadline: Deadline) -> Result<(Running, Abilities)> {
        let started = Instant::now();
        let channel = self.effector.begin_backend(&self.name).map_err(gone)?;
        if channel.await_message(started + deadline.left()?).is_err() {
            return Err(BackendError::TimedOut);
        }
        let opened = channel.receive::<Opened>().map_err(gone)?;
        let abilities =
            opened.ok_or_else(|| gone(io::Error::other("it died before it began")))??;
        // Those of one service do not change.
        let abilities = *self.abilities.get_or_init(|| abilities);
        Ok((Running { channel, started }, abilities))
    }

    fn end_hanging(&self, started: Instant) {
        let mut running = self.running.lock();
        if running.as_ref().is_some_and(|present| present.started == started) {
            tracing::error!(backend = self.name, "the process of a backend hangs and is ended");
            // It ends with its channel.
            *running = None;
        }
    }

    /// Makes a call whose answer says nothing.
    fn done(&self, call: Call, deadline: Deadline) -> Result<()> {
        match self.call(call, None, deadline)? {
            (Reply::Done, None) => Ok(()),
            _ => Err(strange()),
        }
    }
}

impl Backend for RemoteBackend {
    /// The process says it when it begins, which it does now if nothing was asked of it before.
    fn abilities(&self, deadline: Deadline) -> Result<Abilities> {
        if let Some(abilities) = self.abilities.get() {
            return Ok(*abilities);
        }
        let mut running = self.running.lock();
        // Somebody else has had it begin meanwhile.
        if let Some(abilities) = self.abilities.get() {
            return Ok(*abilities);
        }
        let (begun, abilities) = self.start(deadline)?;
        *running = Some(begun);
        Ok(abilities)
    }

    fn get(&self, name: &str, which: &Which, deadline: Deadline) -> Result<Fetched> {
        let call = Call::Get { name: name.to_owned(), which: which.clone() };
        match self.call(call, None, deadline)? {
            (Reply::Fetched { version, created, expires }, Some(value)) => {
                Ok(Fetched { version, value, created, expires })
            }
            _ => Err(strange()),
        }
    }

    fn put(
        &self,
        name: &str,
        value: &SecretBytes,
        put: &Put,
        deadline: Deadline,
    ) -> Result<Version> {
        let call = Call::Put { name: name.to_owned(), put: put.clone() };
        match self.call(call, Some(value), deadline)? {
            (Reply::Version(version), None) => Ok(version),
            _ => Err(strange()),
        }
    }

    fn describe(&self, name: &str, deadline: Deadline) -> Result<Description> {
        match self.call(Call::Describe { name: name.to_owned() }, None, deadline)? {
            (Reply::Description(description), None) => Ok(description),
            _ => Err(strange()),
        }
    }

    fn versions(&self, name: &str, deadline: Deadline) -> Result<Vec<Version>> {
        match self.call(Call::Versions { name: name.to_owned() }, None, deadline)? {
            (Reply::Versions(versions), None) => Ok(versions),
            _ => Err(strange()),
        }
    }

    fn list(&self, page: Option<&PageToken>, deadline: Deadline) -> Result<Page> {
        match self.call(Call::List { page: page.cloned() }, None, deadline)? {
            (Reply::Page(page), None) => Ok(page),
            _ => Err(strange()),
        }
    }

    fn tag(&self, name: &str, tags: &BTreeMap<String, String>, deadline: Deadline) -> Result<()> {
        self.done(Call::Tag { name: name.to_owned(), tags: tags.clone() }, deadline)
    }

    fn stage(&self, name: &str, stage: &str, to: &VersionId, deadline: Deadline) -> Result<()> {
        let (name, stage) = (name.to_owned(), stage.to_owned());
        self.done(Call::Stage { name, stage, to: to.clone() }, deadline)
    }

    fn delete(&self, name: &str, deadline: Deadline) -> Result<()> {
        self.done(Call::Delete { name: name.to_owned() }, deadline)
    }

    fn restore(&self, name: &str, deadline: Deadline) -> Result<()> {
        self.done(Call::Restore { name: name.to_owned() }, deadline)
    }

    fn destroy(&self, name: &str, deadline: Deadline) -> Result<()> {
        self.done(Call::Destroy { name: name.to_owned() }, deadline)
    }

    /// Tries what can be tried from here: whether the service lists its names.
    fn check(&self, deadline: Deadline) -> Vec<Probe> {
        let listed = self.list(None, deadline);
        let note = match &listed {
            Ok(page) => format!("{} names on the first page", page.names.len()),
            Err(error) => error.to_string(),
        };
        vec![Probe { what: "may list", worked: listed.is_ok(), note }]
    }
}

impl std::fmt::Debug for RemoteBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteBackend").field("name", &self.name).finish_non_exhaustive()
    }
}

fn gone(error: io::Error) -> BackendError {
    BackendError::Unreachable(format!("the effector is gone: {error}"))
}

fn strange() -> BackendError {
    BackendError::Failed("the effector answers something else".into())
}
