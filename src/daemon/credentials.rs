//! The socket from which systemd loads credentials: `LoadCredential=NAME:/run/secretfs/credentials`.
//!
//! systemd.exec(5) has the protocol: the manager connects from an abstract address that names the unit
//! and the credential, and reads to the end of the stream. Whoever connects can write what it likes
//! into that address, so the kernel's word on the peer (root, in that unit's control group) must agree
//! with it. An end without a byte would be an empty credential, so a refusal is an answer that is
//! larger than a credential may be: it makes the unit fail.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{Shutdown, getsockopt, shutdown};

use super::config::CredentialsConfig;
use crate::broker::{Broker, BrokerError, Opened, Which};
use crate::identity::Callers;
use crate::model::{Caller, Gid, Process, SecretName, Uid};

/// Units that are served at one time. Others wait in the socket's queue.
const THREADS: usize = 4;

/// How long a credential waits while its secret is changed where it is used.
const CHANGE: Duration = Duration::from_secs(4);

/// Longer than the 1 MiB that systemd takes as a credential.
const REFUSAL_BYTES: usize = (1 << 20) + 4096;

/// The socket, served by threads of its own. When dropped it is closed and its file removed.
pub(super) struct CredentialSocket {
    listener: Arc<UnixListener>,
    path: PathBuf,
    threads: Vec<JoinHandle<()>>,
}

/// What every thread needs.
struct Office {
    broker: Broker,
    callers: Arc<Callers>,
    /// The secrets behind credentials that are not called like them.
    names: BTreeMap<String, SecretName>,
    /// How long the peer may take to read.
    patience: Duration,
}

impl CredentialSocket {
    /// Binds the socket, for root alone, and starts to answer. A file that a dead daemon has left
    /// there is replaced. Errors: `AddrInUse` where another process listens.
    pub(super) fn start(
        config: &CredentialsConfig,
        broker: &Broker,
        callers: &Arc<Callers>,
        patience: Duration,
    ) -> io::Result<Self> {
        remove_stale(&config.socket)?;
        let listener = Arc::new(UnixListener::bind(&config.socket)?);
        std::fs::set_permissions(&config.socket, PermissionsExt::from_mode(0o600))?;
        let office = Arc::new(Office {
            broker: broker.clone(),
            callers: Arc::clone(callers),
            names: config.names.clone(),
            patience,
        });
        let mut socket = Self { listener, path: config.socket.clone(), threads: Vec::new() };
        for number in 0..THREADS {
            let (listener, office) = (Arc::clone(&socket.listener), Arc::clone(&office));
            let thread = thread::Builder::new()
                .name(format!("credentials-{number}"))
                .spawn(move || office.serve(&listener))?;
            socket.threads.push(thread);
        }
        Ok(socket)
    }
}

impl Drop for CredentialSocket {
    fn drop(&mut self) {
        // Wakes the threads that wait for a peer.
        if let Err(error) = shutdown(self.listener.as_raw_fd(), Shutdown::Both) {
            tracing::warn!(%error, "the credential socket could not be closed");
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the credential socket panicked");
            }
        }
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(%error, "the credential socket's file could not be removed");
        }
    }
}

impl fmt::Debug for CredentialSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialSocket").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Office {
    fn serve(&self, listener: &UnixListener) {
        loop {
            match listener.accept() {
                Ok((peer, address)) => self.answer(peer, &address),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Closed by `drop`.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => return,
                Err(error) => {
                    tracing::error!(%error, "the credential socket takes no more");
                    return;
                }
            }
        }
    }

    fn answer(&self, mut peer: UnixStream, address: &SocketAddr) {
        let answered = match self.credential(&peer, address) {
            Ok(opened) => peer
                .set_write_timeout(Some(self.patience))
                .and_then(|()| peer.write_all(opened.value.expose())),
            Err(refusal) => {
                tracing::warn!(%refusal, "a credential was refused");
                peer.set_write_timeout(Some(self.patience)).and_then(|()| refuse(&mut peer))
            }
        };
        if let Err(error) = answered {
            tracing::warn!(%error, "a unit did not take its credential to the end");
        }
    }

    fn credential(&self, peer: &UnixStream, address: &SocketAddr) -> Result<Opened, Refusal> {
        let claim = address.as_abstract_name().and_then(Claim::parse).ok_or(Refusal::Address)?;
        let credentials = getsockopt(peer, PeerCredentials).map_err(io::Error::from)?;
        let (uid, gid) = (Uid(credentials.uid()), Gid(credentials.gid()));
        let tid = u32::try_from(credentials.pid()).unwrap_or(0);
        let caller = self.callers.identify(uid, gid, tid, self.broker.needs());
        let caller = claim.vouched_for(caller).map_err(|caller| {
            let what = format!("credential {} for {}", claim.credential, claim.unit);
            self.broker.note_failed_control(&caller, &what, &BrokerError::Denied);
            Refusal::Peer { unit: claim.unit.into(), uid }
        })?;
        let name = match self.names.get(claim.credential) {
            Some(name) => name.clone(),
            None => claim.credential.parse().map_err(BrokerError::Name)?,
        };
        let opened = match self.broker.read(&caller, &name, Which::Current) {
            Err(BrokerError::Changing(_)) => {
                self.broker.wait_unheld(&name, CHANGE)?;
                self.broker.read(&caller, &name, Which::Current)?
            }
            opened => opened?,
        };
        tracing::info!(unit = claim.unit, credential = claim.credential, "credential given");
        Ok(opened)
    }
}

/// Why a credential is not given.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("the peer's address names no unit and credential")]
    Address,
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error("the peer cannot be told")]
    Io(#[from] io::Error),
    #[error("uid {uid} connected in the name of {unit}, to which it does not belong")]
    Peer { unit: String, uid: Uid },
}

/// What the peer's address says: `RANDOM/unit/UNIT/CREDENTIAL`.
#[derive(Debug, Eq, PartialEq)]
struct Claim<'a> {
    unit: &'a str,
    credential: &'a str,
}

impl<'a> Claim<'a> {
    fn parse(address: &'a [u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(address).ok()?.split('/');
        let (_random, kind) = (parts.next()?, parts.next()?);
        let (unit, credential) = (parts.next()?, parts.next()?);
        let is_whole = parts.next().is_none() && !unit.is_empty() && !credential.is_empty();
        (kind == "unit" && is_whole).then_some(Self { unit, credential })
    }

    /// Returns the caller as whom the policy is asked; as an error one that is not what it claims.
    ///
    /// The manager itself may connect, for a unit that has no process yet; a unit of a slice other
    /// than `system.slice` is then not told from one that is in it.
    fn vouched_for(&self, mut caller: Caller) -> Result<Caller, Box<Caller>> {
        caller.for_unit = true;
        let Some(process) = caller.process.clone().filter(|_| caller.uid == Uid(0)) else {
            return Err(Box::new(caller));
        };
        match process.unit.as_deref() {
            Some(path) if path.rsplit('/').next() == Some(self.unit) => Ok(caller),
            Some("init.scope") => {
                let unit = Some(format!("system.slice/{}", self.unit).into());
                caller.process = Some(Arc::new(Process { unit, ..Process::clone(&process) }));
                Ok(caller)
            }
            Some(_) | None => Err(Box::new(caller)),
        }
    }
}

fn refuse(peer: &mut UnixStream) -> io::Result<()> {
    let line = b"refused by secretfs\n";
    peer.write_all(&line.repeat(REFUSAL_BYTES.div_ceil(line.len())))
}

/// Removes the socket's file unless somebody listens on it. Anything but a socket is left alone.
fn remove_stale(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
        }
        Err(error) => Err(error),
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    fn caller(uid: u32, unit: Option<&str>) -> Caller {
        let process = Process {
            pid: 7,
            started: Timestamp::UNIX_EPOCH,
            comm: b"(sd-mkdcreds)".to_vec(),
            exe: None,
            unit: unit.map(Into::into),
            container: None,
        };
        let ids = Caller::with_ids(Uid(uid), Gid(uid));
        Caller { process: Some(Arc::new(process)), ..ids }
    }

    fn unit_of(caller: &Caller) -> Option<&str> {
        caller.process.as_ref()?.unit.as_deref()
    }

    const CLAIM: Claim<'_> = Claim { unit: "web.service", credential: "tls" };

    #[test]
    fn the_address_names_a_unit_and_a_credential_and_nothing_more() {
        assert_eq!(Claim::parse(b"adf9d86b6eda275e/unit/web.service/tls"), Some(CLAIM));
        let bad: [&[u8]; 7] = [
            b"",
            b"adf9/unit/web.service",
            b"adf9/unit//tls",
            b"adf9/unit/web.service/",
            b"adf9/unit/web.service/tls/more",
            b"adf9/user/web.service/tls",
            b"adf9/unit/\xff/tls",
        ];
        for address in bad {
            assert_eq!(Claim::parse(address), None, "{address:?}");
        }
    }

    #[test]
    fn root_in_the_unit_s_control_group_is_believed() {
        let trusted = CLAIM.vouched_for(caller(0, Some("system.slice/web.service"))).unwrap();
        assert_eq!(unit_of(&trusted), Some("system.slice/web.service"));
        assert!(trusted.for_unit, "that it is root must not count");
    }

    #[test]
    fn the_manager_itself_speaks_for_a_unit_of_the_system_slice() {
        let trusted = CLAIM.vouched_for(caller(0, Some("init.scope"))).unwrap();
        assert_eq!(unit_of(&trusted), Some("system.slice/web.service"));
    }

    #[test]
    fn another_user_another_unit_and_a_process_that_is_not_known_are_not_believed() {
        let liars = [
            caller(1000, Some("system.slice/web.service")),
            caller(0, Some("system.slice/other.service")),
            caller(0, Some("user.slice/user-0.slice/init.scope")),
            caller(0, None),
            Caller::with_ids(Uid(0), Gid(0)),
        ];
        for liar in liars {
            assert!(CLAIM.vouched_for(liar).is_err());
        }
    }

    #[test]
    fn a_refusal_is_more_than_systemd_takes_as_a_credential() {
        let (mut here, there) = UnixStream::pair().unwrap();
        let reader = thread::spawn(move || io::copy(&mut { there }, &mut io::sink()).unwrap());
        refuse(&mut here).unwrap();
        drop(here);
        assert!(reader.join().unwrap() > 1 << 20);
    }

    #[test]
    fn only_a_socket_that_nobody_listens_on_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        assert!(remove_stale(&path).is_ok());
        let listener = UnixListener::bind(&path).unwrap();
        assert_eq!(remove_stale(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        remove_stale(&path).unwrap();
        assert!(!path.exists());
        std::fs::File::create(&path).unwrap();
        assert_eq!(remove_stale(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }
}
