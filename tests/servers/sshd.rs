//! An OpenSSH server, and a user of whom nobody but it and who is told has heard.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::{Server, directory, mortal, port, program, succeed};
use crate::common::{bounded, can_mount, write_file};

/// Who logs in. The number is nobody else's here.
pub const USER: &str = "deploy";
const UID: u32 = 61_107;

pub struct Sshd {
    pub server: Server,
    pub port: u16,
    dir: TempDir,
}

impl Sshd {
    /// Starts one. `None`, with a SKIP, where there is no OpenSSH or no root.
    pub fn start() -> Option<Self> {
        let (sshd, _) = (program("sshd")?, program("ssh")?);
        can_mount().then_some(())?;
        let dir = directory();
        let home = dir.path().join("home");
        fs::DirBuilder::new().mode(0o755).create(&home).unwrap();
        chown(&home, Some(UID), Some(UID)).unwrap();
        let mut accounts = fs::read_to_string("/etc/passwd").unwrap();
        accounts.push_str(&format!("{USER}:x:{UID}:{UID}::{}:/bin/sh\n", home.display()));
        write_file(&dir.path().join("passwd"), accounts.as_bytes());
        let (host, _) = key(dir.path(), "host");
        let port = port();
        let config = format!(
            "ListenAddress 127.0.0.1\nPort {port}\nHostKey {}\nPidFile none\nUsePAM no\n\
             StrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n",
            host.display()
        );
        write_file(&dir.path().join("sshd_config"), config.as_bytes());
        // sshd wants its directory for privilege separation, which its package's unit makes.
        drop(fs::create_dir("/run/sshd"));
        let mut command = mortal(Path::new("unshare"));
        command.args(knowing(dir.path())).arg(sshd).args(["-D", "-e", "-f"]);
        command.arg(dir.path().join("sshd_config"));
        let server = Server::start(command, port, dir.path().join("log"));
        Some(Self { server, port, dir })
    }

    /// Returns arguments of unshare(1) after which a program knows the user.
    pub fn knowing(&self) -> Vec<String> {
        knowing(self.dir.path())
    }

    /// Returns the user's file of keys.
    pub fn authorized_keys(&self) -> PathBuf {
        self.dir.path().join("home/.ssh/authorized_keys")
    }

    /// Returns a new private key and its public half.
    pub fn new_key(&self, name: &str) -> (String, String) {
        let (path, public) = key(self.dir.path(), name);
        (fs::read_to_string(path).unwrap(), public)
    }

    /// Returns a file that holds the server's own key, for those who want to know it.
    pub fn known_hosts(&self) -> PathBuf {
        let path = self.dir.path().join("known_hosts");
        let public = fs::read_to_string(self.dir.path().join("host.pub")).unwrap();
        write_file(&path, format!("[127.0.0.1]:{} {public}", self.port).as_bytes());
        path
    }

    /// Tells whether ssh(1) logs in with a private key.
    pub fn lets_in(&self, private: &str) -> bool {
        let path = self.dir.path().join("trying");
        drop(fs::remove_file(&path));
        let mut file =
            fs::File::options().write(true).create_new(true).mode(0o600).open(&path).unwrap();
        file.write_all(private.as_bytes()).unwrap();
        let mut command = Command::new("ssh");
        command
            .args(["-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-i"])
            .arg(&path);
        command.args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]);
        command.args(["-p", &self.port.to_string(), &format!("{USER}@127.0.0.1"), "true"]);
        bounded(&mut command).status.success()
    }
}

fn knowing(dir: &Path) -> Vec<String> {
    let passwd = dir.join("passwd");
    let script = format!("mount --bind {} /etc/passwd && exec \"$@\"", passwd.display());
    ["--mount", "--propagation=private", "sh", "-c", &script, "sh"].map(str::to_owned).to_vec()
}

/// Makes a key pair; returns the path of the private half, and the public one.
fn key(dir: &Path, name: &str) -> (PathBuf, String) {
    let path = dir.join(name);
    let mut command = Command::new("ssh-keygen");
    succeed(command.args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"]).arg(&path));
    let public = fs::read_to_string(path.with_extension("pub")).unwrap();
    (path, public.trim().to_owned())
}
