//! A MariaDB server whose `root` comes by its socket, and `admin` with a password from anywhere.

use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::process::{Command, Output};

use tempfile::TempDir;

use super::{ADMIN, Pair, Server, account, directory, mortal, port, program, succeed};
use crate::common::{bounded, eventually};

pub struct Mariadb {
    pub server: Server,
    pub port: u16,
    pub pair: Pair,
    client: PathBuf,
    dir: TempDir,
}

impl Mariadb {
    /// Starts one with these statements done. `None`, with a SKIP, where there is no MariaDB.
    pub fn start(statements: &str) -> Option<Self> {
        let (install, mariadbd) = (program("mariadb-install-db")?, program("mariadbd")?);
        let (client, owner) = (program("mariadb")?, account("mysql")?);
        let dir = directory();
        chown(dir.path(), Some(owner.uid), Some(owner.gid)).unwrap();
        let data = format!("--datadir={}", dir.path().join("data").display());
        let small = ["--innodb-buffer-pool-size=16M", "--innodb-flush-log-at-trx-commit=0"];
        let mut make = Command::new(install);
        make.args(["--no-defaults", "--user=mysql", "--skip-test-db", &data]).args(small);
        succeed(&mut make);
        let (port, pair) = (port(), Pair::make(dir.path(), "tls", Some(&owner)));
        let mut command = mortal(&mariadbd);
        command
            .args(["--no-defaults", "--user=mysql", "--bind-address=127.0.0.1", &data])
            .args(small);
        command.arg(format!("--port={port}"));
        command.arg(format!("--ssl-key={}", pair.key.display()));
        command.arg(format!("--ssl-cert={}", pair.certificate.display()));
        command.arg(format!("--socket={}", dir.path().join("socket").display()));
        command.arg(format!("--pid-file={}", dir.path().join("pid").display()));
        let server = Server::start(command, port, dir.path().join("log"));
        let started = Self { server, port, pair, client, dir };
        eventually("MariaDB answers", || started.query("SELECT 1").status.success());
        started.sql(&format!(
            "CREATE USER admin@'%' IDENTIFIED BY '{ADMIN}'; GRANT ALL ON *.* TO admin@'%' WITH GRANT OPTION; \
             {statements}"
        ));
        Some(started)
    }

    /// Returns the path of its socket.
    pub fn socket(&self) -> String {
        self.dir.path().join("socket").display().to_string()
    }

    /// Runs statements as root, and returns what they print.
    pub fn sql(&self, statements: &str) -> String {
        let output = self.query(statements);
        assert!(output.status.success(), "{statements}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Tells whether mariadb(1) logs in.
    pub fn lets_in(&self, user: &str, password: &str) -> bool {
        let mut command = Command::new(&self.client);
        command.env("MYSQL_PWD", password).args([
            "--no-defaults",
            "--host=127.0.0.1",
            "--execute=SELECT 1",
        ]);
        command.arg(format!("--port={}", self.port)).arg(format!("--user={user}"));
        bounded(&mut command).status.success()
    }

    fn query(&self, statements: &str) -> Output {
        let mut command = Command::new(&self.client);
        command.args(["--no-defaults", "--user=root", "--batch", "--skip-column-names"]);
        command.arg(format!("--socket={}", self.socket()));
        bounded(command.arg(format!("--execute={statements}")))
    }
}
