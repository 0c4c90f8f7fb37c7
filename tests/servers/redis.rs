//! A Redis server that keeps its users in a file of its own.

use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::{ADMIN, Pair, Server, directory, mortal, port, program};
use crate::common::{bounded, write_file};

pub struct Redis {
    pub server: Server,
    pub port: u16,
    /// Where it speaks TLS alone.
    pub tls_port: u16,
    pub pair: Pair,
    client: PathBuf,
    dir: TempDir,
}

impl Redis {
    /// Starts one with the users of these lines beside `default`, who is the administrator. `None`, with a
    /// SKIP, where there is no Redis.
    pub fn start(users: &str) -> Option<Self> {
        let (redis, client) = (program("redis-server")?, program("redis-cli")?);
        let dir = directory();
        let file = dir.path().join("users.acl");
        write_file(&file, format!("user default on >{ADMIN} ~* &* +@all\n{users}\n").as_bytes());
        let (port, tls_port) = (port(), super::port());
        let pair = Pair::make(dir.path(), "tls", None);
        let mut command = mortal(&redis);
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        command.args(["--port", &port.to_string(), "--dir"]).arg(dir.path());
        command.args([
            "--tls-port",
            &tls_port.to_string(),
            "--tls-auth-clients",
            "no",
            "--tls-key-file",
        ]);
        command.arg(&pair.key).arg("--tls-cert-file").arg(&pair.certificate);
        command.arg("--tls-ca-cert-file").arg(&pair.certificate);
        command.arg("--unixsocket").arg(dir.path().join("socket")).arg("--aclfile").arg(&file);
        let server = Server::start(command, port, dir.path().join("log"));
        Some(Self { server, port, tls_port, pair, client, dir })
    }

    /// Returns the path of its socket.
    pub fn socket(&self) -> String {
        self.dir.path().join("socket").display().to_string()
    }

    /// Returns what it keeps of its users.
    pub fn saved(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("users.acl")).unwrap()
    }

    /// Tells whether redis-cli(1) logs in.
    pub fn lets_in(&self, user: &str, password: &str) -> bool {
        let mut command = Command::new(&self.client);
        command.env("REDISCLI_AUTH", password).args([
            "-h",
            "127.0.0.1",
            "-p",
            &self.port.to_string(),
        ]);
        let output = bounded(command.args(["--user", user, "PING"]));
        output.stdout == b"PONG\n"
    }
}
