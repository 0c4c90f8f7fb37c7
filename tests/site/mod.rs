//! A place where secretfs is installed, and whose daemon a test starts, stops and kills as it likes.
//!
//! Where a [`World`](crate::common::World) is a mount that works, a [`Site`] is what an administrator
//! has: a directory with configuration, key, store and mountpoint, and the real command line. Dropping
//! it kills every process that was started for it, takes its mounts away and removes the directory,
//! also when a test panics.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::indexing_slicing,
    reason = "shared by several test programs, each of which uses a part of it"
)]

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::common::{DEADLINE, Person, bounded, can_mount, eventually, parse_lines};

mod clock;

use clock::Clock;

/// An installed secretfs.
pub struct Site {
    dir: PathBuf,
    person: Option<Person>,
    daemon: Option<Child>,
    clock: Option<Clock>,
}

impl Site {
    /// Makes an empty one of root's.
    pub fn new() -> Option<Self> {
        Self::make(None)
    }

    /// Makes an empty one of an ordinary user's.
    pub fn of(person: Person) -> Option<Self> {
        Self::make(Some(person))
    }

    fn make(person: Option<Person>) -> Option<Self> {
        if !can_mount() {
            return None;
        }
        let shm = Path::new("/dev/shm");
        let parent = if shm.is_dir() { shm.to_path_buf() } else { std::env::temp_dir() };
        let named = tempfile::Builder::new().prefix("secretfs-site-").tempdir_in(parent).unwrap();
        let dir = named.keep();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o711)).unwrap();
        if let Some(person) = &person {
            chown(&dir, Some(person.uid), Some(person.gid)).unwrap();
        }
        Some(Self { dir, person, daemon: None, clock: None })
    }

    /// Has daemons that are started from now on go by a clock which the test moves.
    pub fn simulate_time(&mut self) {
        self.clock = Some(Clock::new());
    }

    /// Lets time pass for the daemon.
    pub fn pass(&self, time: Duration) {
        self.clock.as_ref().expect("simulated time").pass(time);
    }

    /// Returns the path of something beside the mount.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Returns the mountpoint, or something below it.
    pub fn secret(&self, name: &str) -> PathBuf {
        let mount = self.dir.join("secrets");
        if name.is_empty() { mount } else { mount.join(name) }
    }

    pub fn state(&self) -> PathBuf {
        self.dir.join("data/secretfs")
    }

    pub fn store(&self) -> PathBuf {
        self.state().join("store.redb")
    }

    pub fn config(&self) -> PathBuf {
        self.dir.join("config/secretfs/secretfs.toml")
    }

    pub fn policy(&self) -> PathBuf {
        self.dir.join("config/secretfs/policy.toml")
    }

    pub fn key(&self) -> PathBuf {
        self.dir.join("config/secretfs/root.key")
    }

    /// Returns a command line of secretfs, without a mount.
    pub fn command(&self, args: &[&str]) -> Command {
        let binary = env!("CARGO_BIN_EXE_secretfs");
        let mut command = match &self.person {
            None => Command::new(binary),
            Some(person) => person.command(binary),
        };
        self.surround(&mut command);
        command.args(args);
        command
    }

    /// Gives a command this site's environment.
    pub fn surround(&self, command: &mut Command) {
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("SECRETFS_") {
                command.env_remove(variable);
            }
        }
        for variable in ["SUDO_UID", "NOTIFY_SOCKET", "CREDENTIALS_DIRECTORY"] {
            command.env_remove(variable);
        }
        command
            .env("XDG_CONFIG_HOME", self.dir.join("config"))
            .env("XDG_DATA_HOME", self.dir.join("data"))
            .env("XDG_RUNTIME_DIR", &self.dir)
            .env("HOME", &self.dir)
            .current_dir("/");
        if let Some(clock) = &self.clock {
            clock.surround(command);
        }
    }

    /// Runs a command line of secretfs.
    pub fn run(&self, args: &[&str]) -> Output {
        bounded(&mut self.command(args))
    }

    /// Runs a command line that must succeed, and returns what it printed.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command line that talks to this site's mount and must succeed.
    pub fn ask(&self, args: &[&str]) -> String {
        let mount = self.secret("");
        self.ok(&[&["--mount", mount.to_str().unwrap()], args].concat())
    }

    /// Runs a command line that must fail with a message and without a panic; returns exit code and message.
    pub fn refused(&self, args: &[&str]) -> (i32, String) {
        refusal(&self.run(args), args)
    }

    /// Makes the store with its files.
    pub fn init(&self) {
        self.ok(&["init"]);
    }

    /// Starts a daemon in the foreground, makes the store if there is none, and waits until it serves.
    pub fn serve(&mut self) {
        self.serve_with(&[]);
    }

    /// The same with more arguments of `up` or, where there is a store, of `mount`.
    pub fn serve_with(&mut self, more: &[&str]) {
        assert!(self.daemon.is_none(), "one daemon at a time");
        let verb = if self.store().exists() { "mount" } else { "up" };
        let stderr = self.log();
        let mut command = self.foreground(verb, more);
        let child = command.stdout(Stdio::null()).stderr(stderr).spawn().unwrap();
        self.daemon = Some(child);
        let start = Instant::now();
        while !self.health().is_some_and(|word| ["ok", "degraded", "sealed"].contains(&&*word)) {
            let ended = self.daemon.as_mut().unwrap().try_wait().unwrap();
            if ended.is_some() || start.elapsed() > DEADLINE {
                panic!("no mount ({ended:?}); the daemon said: {}", self.said());
            }
            std::thread::sleep(Duration::from_millis(3));
        }
    }

    /// Returns a command that serves in the foreground, and ends with the test that started it.
    pub fn foreground(&self, verb: &str, more: &[&str]) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "SIGKILL"]);
        if let Some(Person { uid, gid, .. }) = &self.person {
            let ids = [format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".into()];
            command.args(ids);
        }
        command.arg(env!("CARGO_BIN_EXE_secretfs"));
        self.surround(&mut command);
        command.args([verb, "--foreground"]).args(more).arg(self.secret(""));
        command.stdin(Stdio::null());
        command
    }

    /// Returns the word in `.control/health`, as the owner reads it.
    pub fn health(&self) -> Option<String> {
        let path = self.secret(".control/health");
        let bytes = match &self.person {
            None => fs::read(path).ok()?,
            Some(person) => {
                let output = bounded(person.command("cat").arg(path));
                output.status.success().then_some(output.stdout)?
            }
        };
        Some(String::from_utf8(bytes).unwrap().trim().to_owned())
    }

    /// Returns what the daemon in the foreground has logged.
    pub fn said(&self) -> String {
        fs::read_to_string(self.path("stderr")).unwrap_or_default()
    }

    pub fn log(&self) -> File {
        OpenOptions::new().create(true).append(true).open(self.path("stderr")).unwrap()
    }

    /// Returns the pid of the daemon, in the foreground or not, as its lock says.
    pub fn pid(&self) -> u32 {
        let lock = fs::read_to_string(self.state().join("lock")).unwrap();
        lock.split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// Returns the pid of the keeper of the daemon, in the foreground or not.
    pub fn keeper(&self) -> u32 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
        parent.unwrap().trim().parse().unwrap()
    }

    /// Kills the daemon, its keeper and with it its server, without warning: the mount stays behind,
    /// dead.
    pub fn kill(&mut self) {
        let child = self.daemon.take().expect("a daemon in the foreground");
        let server = self.pid();
        self.kill_child(child);
        // The kernel kills the server with its keeper; until it is gone it has the store.
        eventually("the server is gone", || !Path::new(&format!("/proc/{server}/exe")).exists());
    }

    /// Kills a process of this site and waits for its end, which nothing may hold up.
    pub fn kill_child(&self, mut child: Child) {
        child.kill().unwrap();
        let start = Instant::now();
        while child.try_wait().unwrap().is_none() {
            if start.elapsed() > DEADLINE {
                // Cuts the connection, so that at least this test ends.
                let _ = umount2(&self.secret(""), MntFlags::MNT_FORCE);
                panic!("the daemon cannot be killed: it waits for an answer of its own");
            }
            std::thread::sleep(Duration::from_micros(500));
        }
    }

    /// Sends the daemon in the foreground a signal and waits for its end.
    pub fn end(&mut self, signal: Signal) -> ExitStatus {
        let child = self.daemon.as_ref().expect("a daemon in the foreground");
        kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
        self.ended().expect("the daemon ends")
    }

    /// Waits for the end of the daemon in the foreground.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let mut child = self.daemon.take()?;
        let start = Instant::now();
        while start.elapsed() < DEADLINE {
            if let Some(status) = child.try_wait().unwrap() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(3));
        }
        self.daemon = Some(child);
        None
    }

    /// Ends the daemon in the foreground as an administrator would.
    pub fn stop(&mut self) {
        let status = self.end(Signal::SIGTERM);
        assert!(status.success(), "{status:?}: {}", self.said());
    }

    /// Unmounts by the command line. Tries again: while another test of this program starts a process,
    /// the fork holds the files that are open in this one, ours in the mount included.
    pub fn unmount(&self, more: &[&str]) {
        let mount = self.secret("");
        let args = [&["--mount", mount.to_str().unwrap(), "umount"], more].concat();
        eventually("the mount is not busy", || self.run(&args).status.success());
    }

    /// Tells whether something is mounted at the mountpoint.
    pub fn is_mounted(&self) -> bool {
        self.mounts().contains(&self.secret(""))
    }

    /// Returns the audit log's lines.
    pub fn audit(&self) -> Vec<Value> {
        parse_lines(&fs::read(self.secret(".control/audit/log")).unwrap())
    }

    /// Asserts that store and log are whole, by the mounted daemon's own word.
    pub fn assert_whole(&self) {
        let verified: Value = serde_json::from_str(&self.ask(&["--json", "verify"])).unwrap();
        assert_eq!(verified["faults"], serde_json::json!([]), "{verified}");
        let audit: Value = serde_json::from_str(&self.ask(&["--json", "audit", "verify"])).unwrap();
        assert_eq!(audit["ok"], true, "{audit}");
    }

    /// Returns what is mounted in the directory, the last one first.
    fn mounts(&self) -> Vec<PathBuf> {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let paths = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
        let mut paths: Vec<_> = paths.filter(|path| path.starts_with(&self.dir)).collect();
        paths.reverse();
        paths
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for pid in processes_with(&self.dir) {
            let _ = kill(pid, Signal::SIGKILL);
        }
        let daemon = self.daemon.take();
        for mount in self.mounts() {
            // Forced first: a daemon that hangs is no reason to leave anything behind.
            let _ = umount2(&mount, MntFlags::MNT_FORCE);
            let _ = umount2(&mount, MntFlags::MNT_DETACH);
        }
        if let Some(mut child) = daemon {
            drop(child.kill());
            drop(child.wait());
        }
        if std::thread::panicking() {
            eprintln!("the daemon said: {}", self.said());
        }
        if fs::remove_dir_all(&self.dir).is_err() {
            // Mountpoints protect themselves while nothing is mounted.
            drop(Command::new("chattr").args(["-R", "-i"]).arg(&self.dir).output());
            drop(Command::new("rm").arg("-rf").arg(&self.dir).output());
        }
    }
}

/// Returns the live processes of secretfs whose environment names `dir`, which nobody else's does.
pub fn processes_with(dir: &Path) -> Vec<Pid> {
    let ours = |pid: &Pid| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let dir = dir.to_str().unwrap().as_bytes();
        comm.starts_with("secretfs") && environment.windows(dir.len()).any(|part| part == dir)
    };
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.map(Pid::from_raw).filter(ours).collect()
}

/// Returns the exit code and the message of a command that must have failed in order.
pub fn refusal(output: &Output, what: &[&str]) -> (i32, String) {
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(!said.contains("panicked"), "{what:?}: {said}");
    let code = output.status.code().unwrap_or_else(|| panic!("{what:?} was killed: {output:?}"));
    assert!(![0, 101].contains(&code) && !said.is_empty(), "{what:?}: {output:?}");
    (code, said)
}
