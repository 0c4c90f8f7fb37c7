//! A PostgreSQL server that wants passwords over TCP, and believes whoever comes by its socket.

use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::{ADMIN, Pair, Server, account, directory, port, program, succeed};
use crate::common::{bounded, eventually, write_file};

pub struct Postgresql {
    pub server: Server,
    pub port: u16,
    pub pair: Pair,
    psql: PathBuf,
    dir: TempDir,
}

impl Postgresql {
    /// Starts one with a superuser `postgres` and these statements done. `None`, with a SKIP, where there is
    /// no PostgreSQL.
    pub fn start(statements: &str) -> Option<Self> {
        let (initdb, postgres) = (program("initdb")?, program("postgres")?);
        let (psql, owner) = (program("psql")?, account("postgres")?);
        let dir = directory();
        chown(dir.path(), Some(owner.uid), Some(owner.gid)).unwrap();
        let data = dir.path().join("data");
        let mut make = owner.command(initdb);
        succeed(make.args(["--no-sync", "-A", "trust", "-U", "postgres", "-D"]).arg(&data));
        let (port, pair) = (port(), Pair::make(dir.path(), "tls", Some(&owner)));
        let settings = format!(
            "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = '{}'\n\
             fsync = off\nshared_buffers = 16MB\nssl = on\nssl_key_file = '{}'\nssl_cert_file = '{}'\n",
            dir.path().display(),
            pair.key.display(),
            pair.certificate.display()
        );
        write_file(&data.join("postgresql.auto.conf"), settings.as_bytes());
        let access = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
        write_file(&data.join("pg_hba.conf"), access.as_bytes());
        let mut command = owner.command("setpriv");
        command.args(["--pdeathsig", "SIGKILL"]).arg(postgres).arg("-D").arg(&data);
        let server = Server::start(command, port, dir.path().join("log"));
        let started = Self { server, port, pair, psql, dir };
        eventually("PostgreSQL answers", || started.query("SELECT 1").is_some());
        started.sql(&format!("ALTER ROLE postgres PASSWORD '{ADMIN}'; {statements}"));
        Some(started)
    }

    /// Returns the directory of its socket.
    pub fn socket(&self) -> String {
        format!("{}/.s.PGSQL.{}", self.dir.path().display(), self.port)
    }

    /// Runs statements as the superuser, and returns what they print.
    pub fn sql(&self, statements: &str) -> String {
        self.query(statements).unwrap_or_else(|| panic!("{statements}: {}", self.server.said()))
    }

    /// Tells whether psql(1) logs in.
    pub fn lets_in(&self, user: &str, password: &str) -> bool {
        let mut command = Command::new(&self.psql);
        command.env("PGPASSWORD", password).args(["-h", "127.0.0.1", "-p", &self.port.to_string()]);
        command.args(["-U", user, "-d", "postgres", "-XAtc", "SELECT 1"]);
        bounded(&mut command).status.success()
    }

    fn query(&self, statements: &str) -> Option<String> {
        let directory = self.dir.path().display();
        let target = format!("host={directory} port={} user=postgres dbname=postgres", self.port);
        let mut command = Command::new(&self.psql);
        let output =
            bounded(command.args(["-XAtq", "-v", "ON_ERROR_STOP=1", &target, "-c", statements]));
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    }
}
