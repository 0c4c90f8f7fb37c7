//! From uid, gid and thread id to a caller: a hit in the table, or a look into `/proc`.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;

use crate::model::{Caller, Clock, Exe, FindProcess, Gid, Needs, Process, Uid};
use crate::system::{PidFd, procfs};

use super::cgroup::Place;
use super::observer::{Digest, Observer};
use super::table::{Entry, Guard, Table};

/// How much is remembered.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Threads in the table; each holds one file descriptor.
    pub capacity: usize,
    /// How long a look at a thread serves for records. What a rule binds is looked at each time.
    pub look_age: Duration,
}

/// The least number of thread ids at which none can come back within the default age of a look: a
/// thread takes more than a microsecond to make.
const ENOUGH_IDS: u32 = 32_768;

impl Default for Options {
    fn default() -> Self {
        // Where there is no such file, ids may be few.
        let ids = procfs::pid_max().unwrap_or(0);
        let look_age = if ids >= ENOUGH_IDS { Duration::from_millis(1) } else { Duration::ZERO };
        Self { capacity: 512, look_age }
    }
}

/// Tells who is calling. Share it by reference: all its methods may be called at the same time.
pub struct Callers {
    table: Table,
    look_age: Duration,
    observer: Option<Arc<Observer>>,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Callers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Callers").field("table", &self.table).finish_non_exhaustive()
    }
}

impl Callers {
    /// Returns an empty table. Without an observer, `exe` is known only of processes that we may
    /// look at ourselves, and no digest is.
    pub fn new(options: Options, observer: Option<Arc<Observer>>, clock: Arc<dyn Clock>) -> Self {
        let Options { capacity, look_age } = options;
        Self { table: Table::with_capacity(capacity), look_age, observer, clock }
    }

    /// Returns the caller of a request that is still waiting for its reply, from the numbers in
    /// the request's header. `tid` 0 is a caller outside our pid namespace.
    ///
    /// The process is `None` also if the thread's own uid is not the one in the header: then
    /// somebody acts in its name, such as an overlayfs or an `io_uring` with another personality.
    pub fn identify(&self, uid: Uid, gid: Gid, tid: u32, needs: Needs) -> Caller {
        let mut caller = Caller::with_ids(uid, gid);
        if tid == 0 {
            return caller;
        }
        caller.tid = Some(tid);
        let look_age = if needs == Needs::default() { self.look_age } else { Duration::ZERO };
        let Some(entry) = self.entry(uid, tid, look_age) else { return caller };
        let wants_exe = needs.exe || needs.exe_sha256;
        if needs.groups || needs.session || wants_exe {
            let groups = needs.groups.then(|| procfs::status(tid).ok()).flatten();
            let session = needs.session.then(|| procfs::session(tid).ok()).flatten();
            let exe_now = wants_exe.then(|| self.exe(uid, tid, digest_wanted(needs))).flatten();
            // What was read is the caller's only if the thread was there all the time.
            if entry.verify(tid) != Some(uid) {
                return caller;
            }
            caller.groups = groups.map(|status| status.groups.into());
            caller.session = session.flatten();
            caller.exe_now = exe_now.map(Arc::new);
        }
        caller.process = Some(entry.process.clone());
        caller
    }

    fn entry(&self, uid: Uid, tid: u32, look_age: Duration) -> Option<Arc<Entry>> {
        if let Some(entry) = self.table.find(tid) {
            match entry.verify_lately(look_age, uid, tid) {
                Some(fsuid) => return (fsuid == uid).then_some(entry),
                None => self.table.remove(tid),
            }
        }
        let entry = Arc::new(self.look_up(uid, tid).ok()?);
        // The guard was made before everything else was read: if it still holds, nothing of it
        // is another thread's.
        let fsuid = entry.verify(tid)?;
        self.table.insert(tid, entry.clone());
        (fsuid == uid).then_some(entry)
    }

    fn look_up(&self, uid: Uid, tid: u32) -> io::Result<Entry> {
        let (guard, pid) = guard(tid)?;
        // The name and the start are those of the process, not of one of its threads.
        let stat = procfs::stat(pid)?;
        let file = procfs::cgroup(tid)?;
        let place = Place::parse(&file);
        let claim = place.and_then(|place| place.container());
        let container = place.zip(claim).and_then(|(place, claim)| {
            is_root_s(&place.parents(&claim)).then_some(claim.container)
        });
        let process = Process {
            pid,
            started: procfs::wall_time(stat.start_ticks, self.clock.now())?,
            comm: stat.comm,
            exe: self.exe(uid, tid, Digest::Unwanted),
            unit: place.and_then(|place| place.unit()).map(Into::into),
            container,
        };
        Ok(Entry::new(Arc::new(process), guard))
    }

    /// Reads what the thread runs: by ourselves if we may, or else by the observer.
    fn exe(&self, uid: Uid, tid: u32, digest: Digest) -> Option<Exe> {
        let observe = || self.observer.as_ref()?.exe(uid, tid, digest);
        match (procfs::exe(tid), digest) {
            (Ok(path), Digest::Unwanted) => Some(Exe { path, sha256: None }),
            (Ok(path), Digest::Wanted) => observe().or(Some(Exe { path, sha256: None })),
            (Err(error), _) if error.kind() == io::ErrorKind::PermissionDenied => observe(),
            (Err(_), _) => None,
        }
    }

    #[cfg(test)]
    pub(super) fn table(&self) -> &Table {
        &self.table
    }
}

impl FindProcess for Callers {
    fn find(&self, uid: Uid, tid: u32) -> Option<Arc<Process>> {
        self.entry(uid, tid, self.look_age).map(|entry| Arc::clone(&entry.process))
    }
}

fn digest_wanted(needs: Needs) -> Digest {
    if needs.exe_sha256 { Digest::Wanted } else { Digest::Unwanted }
}

fn guard(tid: u32) -> io::Result<(Guard, u32)> {
    let by_pidfd = PidFd::of_thread(tid).and_then(|fd| fd.info().map(|info| (fd, info)));
    match by_pidfd {
        Ok((fd, info)) => Ok((Guard::PidFd { fd, cgroup: info.cgroup }, info.pid)),
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Err(error),
        // An older kernel, a filter of system calls, or no descriptor left.
        Err(_) => {
            let ticks = procfs::stat(tid)?.start_ticks;
            Ok((Guard::StartTicks(ticks), procfs::status(tid)?.pid))
        }
    }
}

/// Tells whether the cgroup in which a container's was made is root's alone. Elsewhere anybody may
/// make one with the name of another's container.
pub(super) fn is_root_s(candidates: &[String]) -> bool {
    let found = candidates.iter().find_map(|path| std::fs::metadata(path).ok());
    found.is_some_and(|found| found.uid() == 0 && found.mode() & 0o022 == 0)
}
