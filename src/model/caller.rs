//! Who asks. What the kernel vouches for, apart from what a process merely says.

use std::path::PathBuf;
use std::sync::Arc;

use super::{Gid, Session, Timestamp, Uid};

/// The caller of one request.
///
/// `uid` and `gid` are authentic. Whatever could not be known is `None`, and a rule that binds it
/// does not match.
#[derive(Clone, Debug)]
pub struct Caller {
    pub uid: Uid,
    pub gid: Gid,
    /// Supplementary groups; read only when a rule binds groups.
    pub groups: Option<Arc<[Gid]>>,
    /// The thread that asks; `None` for a caller outside our pid namespace.
    pub tid: Option<u32>,
    /// Its process as of the first request seen from it.
    pub process: Option<Arc<Process>>,
    /// Finds the process where it was not looked for: see [`complete`](Self::complete).
    pub finder: Option<Arc<dyn FindProcess>>,
    /// The program it runs right now; read only when a rule binds it.
    pub exe_now: Option<Arc<Exe>>,
    /// Its login session; read only when a rule asks for it, and `None` where there is none.
    pub session: Option<Session>,
    /// Set for the service manager, which asks in the name of its process's unit: whose the ids and
    /// the program are says nothing of who gets the value, so only what names a unit allows anything.
    pub for_unit: bool,
    /// What it asks; `None` for what no request of the kernel's stands behind.
    pub request: Option<Request>,
}

/// One request of the kernel's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Request {
    /// Its number, which no other request of the same mount has.
    pub number: u64,
    /// It comes again, because the server that had it first died.
    pub resent: bool,
}

impl Request {
    /// Reads the kernel's own number.
    pub fn from_kernel(unique: u64) -> Self {
        // FUSE_UNIQUE_RESEND.
        const RESENT: u64 = 1 << 63;
        Self { number: unique & !RESENT, resent: unique & RESENT != 0 }
    }
}

impl Caller {
    /// Returns the caller with its process, for a record. Most questions about names are answered
    /// by the uid alone, and finding out the process would be half of what they cost.
    #[must_use]
    pub fn complete(&self) -> Self {
        let mut complete = self.clone();
        if let (None, Some(finder), Some(tid)) = (&self.process, &self.finder, self.tid) {
            complete.process = finder.find(self.uid, tid);
        }
        complete
    }

    /// Returns a caller of whom nothing but the ids is known.
    pub fn with_ids(uid: Uid, gid: Gid) -> Self {
        Self {
            uid,
            gid,
            groups: None,
            tid: None,
            process: None,
            finder: None,
            exe_now: None,
            session: None,
            for_unit: false,
            request: None,
        }
    }

    /// Returns the caller as it asks `request`.
    #[must_use]
    pub fn asking(self, request: Request) -> Self {
        Self { request: Some(request), ..self }
    }
}

/// Finds the process of a caller whose request still waits for its answer.
pub trait FindProcess: std::fmt::Debug + Send + Sync {
    /// Returns the process of the thread `tid`, if that is `uid`'s.
    fn find(&self, uid: Uid, tid: u32) -> Option<Arc<Process>>;
}

/// Which facts about a caller some rule asks for, beyond those that are known anyway.
///
/// They are costly to find out, so nobody looks for what no rule needs.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Needs {
    /// Supplementary groups.
    pub groups: bool,
    /// The path of the program that runs right now.
    pub exe: bool,
    /// The digest of that program.
    pub exe_sha256: bool,
    /// Its unit, container or age.
    pub process: bool,
    /// Its login session.
    pub session: bool,
}

/// A process, held by a pidfd while it is in the table of processes, so that its pid is its own.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Process {
    /// Thread group id: what `ps` calls the pid.
    pub pid: u32,
    pub started: Timestamp,
    /// `comm` as the process chose it: any bytes but NUL and, to be escaped wherever it is shown.
    pub comm: Vec<u8>,
    pub exe: Option<Exe>,
    /// The systemd unit's full cgroup path below its slice root, as in `system.slice/nginx.service`.
    pub unit: Option<Box<str>>,
    pub container: Option<Container>,
}

/// An executable file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Exe {
    pub path: PathBuf,
    /// SHA-256 of its bytes; computed only when a rule asks for it.
    pub sha256: Option<[u8; 32]>,
}

/// A container, told from the cgroup that its runtime made.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Container {
    /// The runtime: `docker`, `podman`, `containerd`, `crio`, `nspawn` or `lxc`.
    pub runtime: Box<str>,
    /// The full id, or the name where the runtime puts the name into the cgroup.
    pub id: Box<str>,
}
