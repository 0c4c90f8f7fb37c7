//! A world of its own for each test: a store, a policy and the real binary that mounts them.
//!
//! A [`World`] leaves nothing behind, also when a test panics: dropping it kills the daemon, detaches
//! the mount and removes the directory. Every path down to the mount is 0711, so that people other
//! than root reach it. Where there is no root or no `/dev/fuse`, a test says SKIP and passes, unless
//! `SECRETFS_REQUIRE_ALL=1` asks for all of them.
#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::indexing_slicing,
    reason = "shared by several test programs, each of which uses a part of it"
)]

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::Value;

pub mod person;
pub mod syscall;

pub use person::Person;

/// The longest that anything is waited for; nothing asserts that it is shorter.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// The policy of most tests: root is the only admin, and nobody else may do anything.
pub const ROOT_IS_ADMIN: &str = r#"
[[role]]
name = "admin"
allow = [{ names = ["**"], levels = ["admin"] }]

[[binding]]
id = "admins"
role = "admin"
uid = [0]
"#;

/// An errno, or what came of it.
pub type Tried<T> = Result<T, i32>;

/// A mounted store.
pub struct World {
    child: Child,
    dir: PathBuf,
    mount: PathBuf,
}

impl World {
    /// Mounts an empty store whose admin is root.
    pub fn start() -> Option<Self> {
        Self::with_policy("")
    }

    /// Mounts an empty store with [`ROOT_IS_ADMIN`] and more.
    pub fn with_policy(more: &str) -> Option<Self> {
        Self::with(&format!("{ROOT_IS_ADMIN}\n{more}"), "")
    }

    /// Mounts an empty store with exactly this policy and this configuration.
    pub fn with(policy: &str, config: &str) -> Option<Self> {
        if !can_mount() {
            return None;
        }
        let dir = new_directory();
        let mount = dir.join("secrets");
        for (path, mode) in [(dir.join("config/secretfs"), 0o700), (mount.clone(), 0o755)] {
            DirBuilder::new().recursive(true).mode(mode).create(&path).unwrap();
        }
        write_file(&dir.join("config/secretfs/policy.toml"), policy.as_bytes());
        if !config.is_empty() {
            write_file(&dir.join("config/secretfs/secretfs.toml"), config.as_bytes());
        }
        let child = spawn(&dir, &mount);
        let mut world = Self { child, dir, mount };
        world.wait_until_it_serves();
        Some(world)
    }

    /// Returns the path of something below the mount.
    pub fn path(&self, name: &str) -> PathBuf {
        self.mount.join(name)
    }

    /// Returns the mountpoint as text, for scripts.
    pub fn mountpoint(&self) -> &str {
        self.mount.to_str().unwrap()
    }

    /// Returns the path of a file beside the mount, on an ordinary filesystem.
    pub fn outside(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Returns the daemon's policy file.
    pub fn policy_file(&self) -> PathBuf {
        self.dir.join("config/secretfs/policy.toml")
    }

    /// Replaces the policy file; nothing counts before a reload.
    pub fn set_policy(&self, more: &str) {
        write_file(&self.policy_file(), format!("{ROOT_IS_ADMIN}\n{more}").as_bytes());
    }

    /// Stores a value as root and returns its version.
    pub fn put(&self, name: &str, value: impl AsRef<[u8]>) -> u64 {
        if let Some((parent, _)) = name.rsplit_once('/') {
            fs::create_dir_all(self.path(parent)).unwrap();
        }
        write(&self.path(name), value.as_ref())
            .unwrap_or_else(|e| panic!("put {name}: {}", word(e)));
        self.version(name)
    }

    /// Reads a value as root.
    pub fn get(&self, name: &str) -> Tried<Vec<u8>> {
        read(&self.path(name))
    }

    /// Returns the number of the current version.
    pub fn version(&self, name: &str) -> u64 {
        self.attribute(name, "version").unwrap().parse().unwrap()
    }

    /// Returns an attribute `user.secretfs.*`, as root sees it.
    pub fn attribute(&self, name: &str, attribute: &str) -> Option<String> {
        let found = xattr::get(self.path(name), format!("user.secretfs.{attribute}")).ok()??;
        Some(String::from_utf8(found).unwrap())
    }

    /// Sets an attribute `user.secretfs.*` as root.
    pub fn set_attribute(&self, name: &str, attribute: &str, value: &str) {
        let attribute = format!("user.secretfs.{attribute}");
        xattr::set(self.path(name), attribute, value.as_bytes()).unwrap();
    }

    /// Lists a directory as root, sorted.
    pub fn list(&self, directory: &str) -> Vec<String> {
        list(&self.path(directory)).unwrap()
    }

    /// Runs a command of a control file as root, as the shell does; the errno is the verdict.
    pub fn control(&self, file: &str, command: &str) -> Result<Value, Refusal> {
        control(&self.path(&format!(".control/{file}")), command)
    }

    /// Returns the audit log's lines as root reads them.
    pub fn audit(&self) -> Vec<Value> {
        parse_lines(&self.get(".control/audit/log").unwrap())
    }

    /// Returns the audit lines about a secret with that action and outcome by that uid.
    pub fn audit_of(&self, name: &str, action: &str, outcome: &str, uid: u32) -> Vec<Value> {
        let fits = |line: &Value| {
            line["secret"] == name
                && line["action"] == action
                && line["outcome"] == outcome
                && line["uid"] == uid
        };
        self.audit().into_iter().filter(fits).collect()
    }

    /// Runs a script of the shell in the mount's root, as root.
    pub fn sh(&self, script: &str) -> Output {
        bounded(Command::new("sh").args(["-c", script]).current_dir(&self.mount))
    }

    /// Runs a script that must succeed and returns what it printed.
    pub fn sh_ok(&self, script: &str) -> String {
        let output = self.sh(script);
        assert!(output.status.success(), "{script}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Returns a command of `secretfs` itself that talks to this mount.
    pub fn secretfs(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_secretfs"));
        clean(&mut command, &self.dir).arg("--mount").arg(&self.mount);
        command
    }

    /// Kills the daemon without warning and mounts the same store again.
    pub fn kill_and_restart(&mut self) {
        self.stop();
        self.child = spawn(&self.dir, &self.mount);
        self.wait_until_it_serves();
    }

    /// Returns the server's pid, as its lock says.
    pub fn pid(&self) -> u32 {
        let lock = self.dir.join("data/secretfs/lock");
        let mut pid = None;
        // It is empty for a moment while a server takes it.
        eventually("the lock names a process", || {
            let text = fs::read_to_string(&lock).unwrap();
            pid = text.split(' ').nth(1).and_then(|pid| pid.parse().ok());
            pid.is_some()
        });
        pid.unwrap()
    }

    /// Returns the keeper's pid.
    pub fn keeper(&self) -> u32 {
        self.child.id()
    }

    fn wait_until_it_serves(&mut self) {
        let health = self.path(".control/health");
        let start = Instant::now();
        while !fs::read(&health).is_ok_and(|word| word.starts_with(b"ok")) {
            let ended = self.child.try_wait().unwrap();
            if ended.is_some() || start.elapsed() > DEADLINE {
                panic!("no mount ({ended:?}); the daemon said: {}", self.said());
            }
            std::thread::sleep(Duration::from_millis(3));
        }
    }

    /// Returns what the daemon has logged.
    pub fn said(&self) -> String {
        fs::read_to_string(self.dir.join("stderr")).unwrap_or_default()
    }

    fn stop(&mut self) {
        // Its helper processes are in the group too.
        let _ = killpg(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGKILL);
        while umount2(&self.mount, MntFlags::MNT_DETACH).is_ok() {}
        drop(self.child.wait());
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            eprintln!("the daemon said: {}", self.said());
        }
        if fs::remove_dir_all(&self.dir).is_err() {
            // The mountpoint protects itself while nothing is mounted.
            drop(Command::new("chattr").arg("-i").arg(&self.mount).output());
            drop(fs::set_permissions(&self.mount, fs::Permissions::from_mode(0o700)));
            drop(fs::remove_dir_all(&self.dir));
        }
    }
}

/// Tells whether tests can mount here; says SKIP where not.
pub fn can_mount() -> bool {
    let lacks = match () {
        () if !nix::unistd::geteuid().is_root() => "root",
        () if OpenOptions::new().read(true).write(true).open("/dev/fuse").is_err() => "/dev/fuse",
        () => return true,
    };
    skip(&format!("no {lacks} here"));
    false
}

/// Says why a test does not run; fails where every test must.
pub fn skip(why: &str) {
    let all = std::env::var_os("SECRETFS_REQUIRE_ALL").is_some_and(|value| value == "1");
    assert!(!all, "{why}, and SECRETFS_REQUIRE_ALL=1");
    eprintln!("SKIP: {why}");
}

/// Returns the Python with the packages of `scripts/setup-python.sh`; says SKIP where it is not.
pub fn python() -> Option<PathBuf> {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python/bin/python");
    if !python.exists() {
        skip("no target/python here: scripts/setup-python.sh makes it");
        return None;
    }
    Some(python)
}

/// A command's errno, and what the descriptor said about it.
#[derive(Debug)]
pub struct Refusal {
    pub errno: i32,
    pub reply: String,
}

/// Writes one command into a control file and reads the reply from the same descriptor.
pub fn control(path: &Path, command: &str) -> Result<Value, Refusal> {
    let fail =
        |err: io::Error| Refusal { errno: err.raw_os_error().unwrap(), reply: String::new() };
    let mut file = OpenOptions::new().read(true).write(true).open(path).map_err(fail)?;
    let verdict = file.write(command.as_bytes());
    let mut reply = String::new();
    let read = file.read_to_string(&mut reply);
    match verdict {
        Ok(written) => {
            assert_eq!(written, command.len(), "{}", path.display());
            read.map_err(fail)?;
            Ok(serde_json::from_str(&reply).unwrap_or_else(|err| panic!("{err} in {reply:?}")))
        }
        Err(err) => Err(Refusal { reply, ..fail(err) }),
    }
}

/// Writes a whole file as `open(O_TRUNC), write, close` does; close's error counts.
pub fn write(path: &Path, value: &[u8]) -> Tried<()> {
    let opened = OpenOptions::new().write(true).create(true).truncate(true).open(path);
    let mut file = opened.map_err(|err| number(&err))?;
    file.write_all(value).map_err(|err| number(&err))?;
    close(file)
}

/// Closes a file and returns what close(2) says.
pub fn close(file: File) -> Tried<()> {
    nix::unistd::close(OwnedFd::from(file)).map_err(|errno| errno as i32)
}

/// Reads a whole file.
pub fn read(path: &Path) -> Tried<Vec<u8>> {
    fs::read(path).map_err(|err| number(&err))
}

/// Lists a directory, sorted.
pub fn list(path: &Path) -> Tried<Vec<String>> {
    let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().into_string().unwrap());
    let read = fs::read_dir(path).and_then(|entries| entries.map(name).collect());
    let mut names: Vec<String> = read.map_err(|err| number(&err))?;
    names.sort();
    Ok(names)
}

/// Returns the inode number.
pub fn inode(path: &Path) -> u64 {
    fs::metadata(path).unwrap().ino()
}

/// Returns the errno of an error.
pub fn number(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or_else(|| panic!("no errno: {error}"))
}

/// Returns an errno's name, for messages.
pub fn word(errno: i32) -> String {
    format!("{:?}", nix::errno::Errno::from_raw(errno))
}

/// Parses JSON lines.
pub fn parse_lines(text: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(text).unwrap();
    text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

/// Waits until something holds; panics at the deadline.
pub fn eventually(claim: &str, holds: impl FnMut() -> bool) {
    eventually_by(DEADLINE, claim, holds);
}

/// Does so with another deadline.
pub fn eventually_by(deadline: Duration, claim: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < deadline, "never: {claim}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Runs a program to its end, or kills it at the deadline.
pub fn bounded(command: &mut Command) -> Output {
    bounded_by(DEADLINE, command)
}

/// Does so within another time.
pub fn bounded_by(time: Duration, command: &mut Command) -> Output {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let child = command.spawn().unwrap();
    let group = Pid::from_raw(child.id().cast_signed());
    let (done, wait) = std::sync::mpsc::channel::<()>();
    let watchdog = std::thread::spawn(move || {
        if wait.recv_timeout(time) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            let _ = killpg(group, Signal::SIGKILL);
        }
    });
    let output = child.wait_with_output().unwrap();
    drop(done);
    watchdog.join().unwrap();
    output
}

/// Copies a program that is to be run. Not in this process: a child that another test starts at that moment
/// would hold the copy open for writing, and nobody could run it.
pub fn copy_program(from: &Path, to: &Path) {
    let output = bounded(Command::new("cp").arg(from).arg(to));
    assert!(output.status.success(), "{output:?}");
}

/// Writes an ordinary file.
pub fn write_file(path: &Path, bytes: &[u8]) {
    File::create(path).unwrap().write_all(bytes).unwrap();
}

/// Returns bytes that repeat nowhere soon: xorshift from a fixed seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..len).map(|_| next()).collect()
}

fn new_directory() -> PathBuf {
    // Memory rather than a disk where there is some: the tests are not about how fast a disk is.
    let shm = Path::new("/dev/shm");
    let parent = if shm.is_dir() { shm.to_path_buf() } else { std::env::temp_dir() };
    let dir = tempfile::Builder::new().prefix("secretfs-test-").tempdir_in(parent).unwrap().keep();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o711)).unwrap();
    dir
}

fn spawn(dir: &Path, mount: &Path) -> Child {
    // A daemon must not outlive a test program that was killed.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "SIGKILL", env!("CARGO_BIN_EXE_secretfs")]);
    clean(&mut command, dir).args(["up", "--foreground"]).arg(mount);
    let stderr = OpenOptions::new().create(true).append(true).open(dir.join("stderr")).unwrap();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
    command.process_group(0).spawn().unwrap()
}

fn clean<'a>(command: &'a mut Command, dir: &Path) -> &'a mut Command {
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("SECRETFS_") {
            command.env_remove(variable);
        }
    }
    for variable in ["SUDO_UID", "NOTIFY_SOCKET", "CREDENTIALS_DIRECTORY"] {
        command.env_remove(variable);
    }
    command
        .env("XDG_CONFIG_HOME", dir.join("config"))
        .env("XDG_DATA_HOME", dir.join("data"))
        .env("XDG_STATE_HOME", dir.join("state"))
        .env("XDG_RUNTIME_DIR", dir)
        .env("HOME", dir)
}

/// Returns a command that runs one of the scripts in Python.
pub fn script(name: &str) -> Command {
    let mut command = Command::new("python3");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name));
    command
}
