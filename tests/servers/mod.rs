//! Real servers at which credentials are used, each with a directory and a port of its own.
//!
//! Dropping one ends it and removes its directory; it does not outlive a test that is killed. Passwords are
//! tried with the server's own client, so that what a test believes does not hang on our code.
#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::indexing_slicing,
    reason = "shared by several test programs, each of which uses a part of it"
)]

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User};
use tempfile::TempDir;

use crate::common::{DEADLINE, Person, bounded, skip, write_file};

pub mod mariadb;
pub mod moto;
pub mod openbao;
pub mod postgresql;
pub mod redis;
pub mod sshd;

pub use mariadb::Mariadb;
pub use moto::Moto;
pub use openbao::OpenBao;
pub use postgresql::Postgresql;
pub use redis::Redis;
pub use sshd::Sshd;

/// The administrator's password, where a server has one.
pub const ADMIN: &str = "canary-admin";

/// Finds a program in the usual directories of programs and daemons; says SKIP where it is not.
pub fn program(name: &str) -> Option<PathBuf> {
    let usual = ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/lib/postgresql/15/bin"];
    let mut places: Vec<PathBuf> = usual.iter().map(PathBuf::from).collect();
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    places.extend(versions.map(|entry| entry.path().join("bin")));
    let found = places.iter().map(|dir| dir.join(name)).find(|path| path.exists());
    if found.is_none() {
        skip(&format!("no {name} here"));
    }
    found
}

/// Returns an account of the host; says SKIP where there is none.
pub fn account(name: &str) -> Option<Person> {
    let user = User::from_name(name).unwrap();
    if user.is_none() {
        skip(&format!("no user {name} here"));
    }
    let user = user?;
    let mut person = Person::new(user.uid.as_raw());
    person.gid = user.gid.as_raw();
    Some(person)
}

/// Returns a port of 127.0.0.1 that was free a moment ago.
pub fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A server, ended when dropped.
pub struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts a server and waits until it takes connections.
    pub fn start(mut command: Command, port: u16, log: PathBuf) -> Self {
        let output = fs::File::create(&log).unwrap();
        let errors = output.try_clone().unwrap();
        let child = command.stdin(Stdio::null()).stdout(output).stderr(errors).spawn().unwrap();
        let mut server = Self { child, log };
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let ended = server.child.try_wait().unwrap();
            assert!(ended.is_none(), "ended with {ended:?}: {}", server.said());
            assert!(start.elapsed() < DEADLINE, "does not listen: {}", server.said());
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        server
    }

    pub fn signal(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(self.child.id().cast_signed()), signal);
    }

    /// Ends it without warning, and waits until it has.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        drop(self.child.wait());
    }

    /// Has it neither answer nor end.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Has it go on.
    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.signal(Signal::SIGCONT);
        // An orderly end takes its children with it. PostgreSQL's word for "at once" is SIGQUIT, nginx's
        // and sshd's SIGTERM.
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGQUIT, Signal::SIGKILL] {
            self.signal(signal);
            let start = Instant::now();
            while start.elapsed() < DEADLINE / 10 {
                if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                    return;
                }
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
        }
        drop(self.child.wait());
        if std::thread::panicking() {
            eprintln!("the server said: {}", self.said());
        }
    }
}

/// Runs a command that must succeed and returns what it printed.
pub fn succeed(command: &mut Command) -> String {
    let output: Output = bounded(command);
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A key and a certificate for 127.0.0.1 and localhost, which is its own authority.
pub struct Pair {
    pub key: PathBuf,
    pub certificate: PathBuf,
}

impl Pair {
    /// Makes one in a directory; the key is this user's.
    pub fn make(dir: &Path, name: &str, owner: Option<&Person>) -> Self {
        let [key, certificate] = ["key", "pem"].map(|kind| dir.join(format!("{name}.{kind}")));
        let config = dir.join("openssl.cnf");
        write_file(&config, b"[req]\ndistinguished_name = dn\n[dn]\n");
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]);
        command.args(["-nodes", "-days", "2", "-subj", "/CN=localhost", "-config"]).arg(&config);
        command.args(["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]);
        command.arg("-keyout").arg(&key).arg("-out").arg(&certificate);
        succeed(&mut command);
        if let Some(owner) = owner {
            chown(&key, Some(owner.uid), Some(owner.gid)).unwrap();
        }
        Self { key, certificate }
    }
}

/// Returns a directory that other users reach.
pub fn directory() -> TempDir {
    let dir = tempfile::Builder::new().prefix("secretfs-server-").tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
    dir
}

/// Returns a command that does not outlive the thread that starts it.
pub fn mortal(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "SIGKILL"]).arg(program);
    command
}
