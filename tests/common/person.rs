//! Other people: work that a child process does under another uid, gid, groups and cgroup.
//!
//! The test's own process stays root. A closure runs in a forked child, which sends back what it
//! returns; a command runs through `setpriv`.
#![expect(unsafe_code, reason = "fork(2) has no safe form")]

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Gid, Pid, Uid, fork, pipe, setgroups, setresgid, setresuid};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{DEADLINE, bounded};

/// Whom a child process runs as.
#[derive(Clone, Debug)]
pub struct Person {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub cgroups: Vec<PathBuf>,
}

impl Person {
    /// Returns somebody with a group of their own and no other.
    pub fn new(uid: u32) -> Self {
        Self { uid, gid: uid, groups: Vec::new(), cgroups: Vec::new() }
    }

    /// Adds supplementary groups.
    #[must_use]
    pub fn in_groups(self, groups: &[u32]) -> Self {
        Self { groups: groups.to_vec(), ..self }
    }

    /// Puts them into a cgroup.
    #[must_use]
    pub fn in_cgroup(mut self, cgroup: &Cgroup) -> Self {
        self.cgroups.push(cgroup.0.clone());
        self
    }

    /// Runs work as this person in a child process, and returns what it returned; a panic there is a
    /// panic here.
    pub fn run<T: Serialize + DeserializeOwned>(&self, work: impl FnOnce() -> T) -> T {
        let (reader, writer) = pipe().unwrap();
        // SAFETY: the child runs the closure and ends with `_exit`; glibc makes its allocator usable
        // after a fork, and nothing else that another thread may have locked is used.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => self.be(writer, work),
            ForkResult::Parent { child } => {
                drop(writer);
                let sent = receive(child, &reader);
                let sent: Result<T, String> = serde_json::from_slice(&sent)
                    .unwrap_or_else(|err| panic!("uid {}: no answer: {err}", self.uid));
                sent.unwrap_or_else(|panic| panic!("uid {}: {panic}", self.uid))
            }
        }
    }

    fn be<T: Serialize>(&self, writer: OwnedFd, work: impl FnOnce() -> T) -> ! {
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            self.become_it();
            work()
        }));
        let outcome = outcome.map_err(|panic| match panic.downcast::<String>() {
            Ok(text) => *text,
            Err(other) => {
                other.downcast::<&str>().map_or("panic".into(), |text| (*text).to_owned())
            }
        });
        let text = serde_json::to_vec(&outcome).unwrap_or_default();
        drop(File::from(writer).write_all(&text));
        // SAFETY: ends the process without the destructors, which belong to the parent.
        unsafe { libc::_exit(0) }
    }

    fn become_it(&self) {
        for cgroup in &self.cgroups {
            let pid = std::process::id().to_string();
            File::options()
                .write(true)
                .open(cgroup.join("cgroup.procs"))
                .and_then(|mut procs| procs.write_all(pid.as_bytes()))
                .unwrap();
        }
        let groups: Vec<Gid> = self.groups.iter().copied().map(Gid::from_raw).collect();
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        setgroups(&groups).unwrap();
        setresgid(gid, gid, gid).unwrap();
        setresuid(uid, uid, uid).unwrap();
        // As after an execve, which a login has behind it.
        nix::sys::prctl::set_dumpable(true).unwrap();
    }

    /// Returns a command that runs a program as this person.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("setpriv");
        command.arg(format!("--reuid={}", self.uid)).arg(format!("--regid={}", self.gid));
        if self.groups.is_empty() {
            command.arg("--clear-groups");
        } else {
            let groups: Vec<String> = self.groups.iter().map(u32::to_string).collect();
            command.arg(format!("--groups={}", groups.join(",")));
        }
        command.arg(program.as_ref()).current_dir("/");
        command
    }

    /// Runs a script of the shell as this person.
    pub fn sh(&self, script: &str) -> Output {
        bounded(self.command("/bin/sh").args(["-c", script]))
    }
}

/// Reads what the child sends until it ends, or kills it at the deadline.
fn receive(child: Pid, reader: &OwnedFd) -> Vec<u8> {
    let start = Instant::now();
    let mut sent = Vec::new();
    loop {
        let left = DEADLINE.saturating_sub(start.elapsed());
        let timeout = PollTimeout::try_from(left).unwrap();
        let mut ready = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
        if poll(&mut ready, timeout).unwrap() == 0 {
            let _ = kill(child, Signal::SIGKILL);
            let _ = waitpid(child, None);
            panic!("a child process hung");
        }
        let mut buffer = [0; 65_536];
        match nix::unistd::read(reader, &mut buffer).unwrap() {
            0 => break,
            read => sent.extend_from_slice(&buffer[..read]),
        }
    }
    let _ = waitpid(child, None);
    sent
}

/// A cgroup; removed with the directories above it that are empty when it is dropped.
#[derive(Debug)]
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// Makes a cgroup such as `system.slice/x.service` in the hierarchy that names systemd's units.
    /// `None` where none can be made.
    pub fn make(path: &str) -> Option<Self> {
        Self::make_in(&Self::root()?, path)
    }

    /// Makes a cgroup that counts the memory of those in it. `None` where none can be made.
    pub fn make_counting_memory(name: &str) -> Option<Self> {
        let roots = ["/sys/fs/cgroup/memory", "/sys/fs/cgroup"].map(Path::new);
        let root = roots.into_iter().find(|root| root.join("cgroup.procs").exists())?;
        let made = Self::make_in(root, name)?;
        made.memory().is_some().then_some(made)
    }

    /// Returns how many bytes are charged to it; page cache counts.
    pub fn memory(&self) -> Option<u64> {
        let files = ["memory.usage_in_bytes", "memory.current"];
        let text = files.into_iter().find_map(|file| fs::read_to_string(self.0.join(file)).ok())?;
        text.trim().parse().ok()
    }

    fn make_in(root: &Path, path: &str) -> Option<Self> {
        let full = root.join(path);
        // Another test may be removing the slice at the same moment.
        let made = (0..100).any(|_| fs::create_dir_all(&full).is_ok());
        made.then_some(Self(full))
    }

    /// Returns where it is in the filesystem.
    pub fn path(&self) -> &Path {
        &self.0
    }

    fn root() -> Option<PathBuf> {
        if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
            return Some("/sys/fs/cgroup".into());
        }
        let named = ["/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"];
        named.into_iter().map(PathBuf::from).find(|root| root.join("cgroup.procs").exists())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let start = Instant::now();
        // Empty a moment after its last process has ended.
        while fs::remove_dir(&self.0).is_err() && self.0.exists() && start.elapsed() < DEADLINE {
            std::thread::yield_now();
        }
        let is_root = |path: &Path| path.parent() == Some(Path::new("/sys/fs/cgroup"));
        let above = self.0.ancestors().skip(1).take_while(|path| !is_root(path));
        for directory in above {
            if fs::remove_dir(directory).is_err() {
                break;
            }
        }
    }
}
