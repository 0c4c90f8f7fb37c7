//! A Key Vault with its Entra and its metadata services, as Azure documents them: there is none to be had for tests.
//!
//! Azure's own Python client is run against it too (`azure_sdk.rs`), so that it is not only as ours imagines it.
//! It has Azure's names: behind a proxy, `corp.vault.test` and `login.test` are this process, over TLS. What Azure
//! does in its own time, such as deleting, takes `lag` looks here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use secretfs::backend::azure::{Azure, AzureAuth, AzureSettings};
use secretfs::backend::http::Connection;
use secretfs::model::Clock;
use secretfs::system::SystemClock;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::write_file;
use crate::service::{Asked, Reply, Service};

mod entra;
mod keys;
mod proxy;
mod secrets;

pub use proxy::Proxy;

pub const VAULT: &str = "corp.vault.test";
pub const AUTHORITY: &str = "login.test";
pub const RESOURCE: &str = "https://vault.test";
pub const TENANT: &str = "5a7b1c9e-0000-4000-8000-000000000001";
pub const CLIENT: &str = "5a7b1c9e-0000-4000-8000-000000000002";
pub const CLIENT_SECRET: &str = "canary-secret~.&=%7f3a";
pub const FEDERATED: &str = "canary.federated.token";
pub const IDENTITY_HEADER: &str = "canary-header";

/// The versions of the API that it speaks.
const VERSIONS: [&str; 6] = ["7.3", "7.4", "7.5", "7.6", "2025-07-01", "2026-04-01"];

/// A running one.
pub struct KeyVault {
    pub service: Service,
    pub proxy: Proxy,
    state: Arc<Mutex<State>>,
    dir: TempDir,
}

pub struct State {
    pub fault: Option<Reply>,
    /// How many looks it takes until something is deleted, restored or purged.
    pub lag: usize,
    /// How long a token lives.
    pub life: Duration,
    /// What the roles of whoever asks do not allow: `get`, `list`, `set`, `delete`, `purge`.
    pub denied: BTreeSet<&'static str>,
    /// What the challenge says instead.
    pub challenge: Option<String>,
    /// Where the next page is said to be.
    pub elsewhere: Option<&'static str>,
    pub logins: usize,
    tokens: BTreeMap<String, Instant>,
    /// The certificate of the application, in DER.
    certificate: Option<Vec<u8>>,
    live: BTreeMap<String, secrets::Secret>,
    deleted: BTreeMap<String, secrets::Secret>,
    keys: BTreeMap<String, Vec<keys::Key>>,
    /// Its clock: unless it stands, no second sees two versions.
    second: i64,
    pub clock_stands: bool,
    dir: PathBuf,
}

impl KeyVault {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = Arc::new(Mutex::new(State::new(dir.path())));
        let shared = Arc::clone(&state);
        let names = ["127.0.0.1", VAULT, AUTHORITY, "evil.test"];
        let service = Service::start_as(&names, move |asked| shared.lock().unwrap().answer(asked));
        let proxy = Proxy::start(service.port());
        Self { service, proxy, state, dir }
    }

    pub fn set<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap())
    }

    /// Returns the path of a file of this server's, written.
    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        write_file(&path, content.as_bytes());
        path
    }

    /// Gives the application a certificate with its key, in one file.
    pub fn certificate(&self) -> PathBuf {
        let (pem, der) = entra::certificate(self.dir.path());
        self.set(|state| state.certificate = Some(der));
        pem
    }

    /// Makes a version of a key.
    pub fn make_key(&self, name: &str) {
        self.set(|state| state.make_key(name));
    }

    pub fn connection(&self) -> Connection {
        Connection {
            ca: Some(self.service.authority()),
            proxy: Some(self.proxy.url()),
            ..Connection::default()
        }
    }

    pub fn settings(&self, auth: AzureAuth) -> AzureSettings {
        AzureSettings {
            address: format!("https://{VAULT}"),
            connection: self.connection(),
            prefix: String::new(),
            authority: Some(format!("https://{AUTHORITY}")),
            resource: None,
            auth,
        }
    }

    /// Returns a client with a secret, after a change of its settings.
    pub fn client(&self, change: impl FnOnce(&mut AzureSettings)) -> Azure {
        let mut settings = self.settings(with_secret());
        change(&mut settings);
        Azure::new(&settings, &secret_variable).unwrap()
    }
}

/// By the secret in the variable.
pub fn with_secret() -> AzureAuth {
    let (tenant, client_id) = (Some(TENANT.into()), Some(CLIENT.into()));
    AzureAuth::ClientSecret { tenant, client_id, secret_file: None }
}

pub fn secret_variable(name: &str) -> Option<String> {
    (name == "AZURE_CLIENT_SECRET").then(|| CLIENT_SECRET.to_owned())
}

impl State {
    fn new(dir: &Path) -> Self {
        Self {
            fault: None,
            lag: 0,
            life: Duration::from_secs(3600),
            denied: BTreeSet::new(),
            challenge: None,
            elsewhere: None,
            logins: 0,
            tokens: BTreeMap::new(),
            certificate: None,
            live: BTreeMap::new(),
            deleted: BTreeMap::new(),
            keys: BTreeMap::new(),
            second: 0,
            clock_stands: false,
            dir: dir.to_owned(),
        }
    }

    /// Takes all tokens back.
    pub fn revoke(&mut self) {
        self.tokens.clear();
    }

    fn answer(&mut self, asked: &Asked) -> Reply {
        if let Some(fault) = &self.fault {
            return fault.clone();
        }
        let host = asked.headers.get("host").map_or("", |host| host.trim_end_matches(":443"));
        match host {
            AUTHORITY => self.entra(asked),
            VAULT => self.vault(asked),
            host if host.starts_with("127.0.0.1:") => self.metadata(asked),
            _ => Reply::json(404, &Value::Null),
        }
    }

    fn vault(&mut self, asked: &Asked) -> Reply {
        let bearer = asked.headers.get("authorization").and_then(|it| it.strip_prefix("Bearer "));
        let is_known = bearer.and_then(|bearer| self.tokens.get(bearer));
        if is_known.is_none_or(|end| Instant::now() >= *end) {
            return self.challenged(bearer.is_some());
        }
        let (path, query) = parts(asked);
        if !query.get("api-version").is_some_and(|version| VERSIONS.contains(&version.as_str())) {
            return refused(400, "BadParameter", None);
        }
        let body = match asked.body.as_slice() {
            [] => Value::Null,
            text => match serde_json::from_slice(text) {
                Ok(body) => body,
                Err(_) => return refused(400, "BadParameter", None),
            },
        };
        let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let name = segments.get(1).copied().unwrap_or("x");
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if name.is_empty() || name.len() > 127 || !name.bytes().all(is_name) {
            return refused(400, "BadParameter", None);
        }
        match segments.as_slice() {
            ["keys", name, rest @ ..] => self.key(&asked.method, name, rest, &body),
            ["secrets" | "deletedsecrets", ..] => {
                self.secret(&asked.method, &segments, &query, &body)
            }
            _ => refused(404, "NotFound", None),
        }
    }

    fn challenged(&self, had_one: bool) -> Reply {
        let error = if had_one { ", error=\"invalid_token\"" } else { "" };
        let challenge = self.challenge.clone().unwrap_or_else(|| {
            format!("Bearer authorization=\"https://{AUTHORITY}/{TENANT}\", resource=\"{RESOURCE}\"{error}")
        });
        let message = "AKV10000: Request is missing a Bearer or PoP token.";
        let body = json!({ "error": { "code": "Unauthorized", "message": message } });
        let headers = vec![("WWW-Authenticate", challenge), ("Date", http_date())];
        Reply::Answer { status: 401, headers, body: body.to_string().into_bytes() }
    }
}

/// Returns a refusal as Azure words them; it quotes, as Azure does, what nobody should repeat.
fn refused(status: u16, code: &str, inner: Option<&str>) -> Reply {
    let mut error = json!({ "code": code, "message": "canary-7f3a is what you have asked for" });
    if let Some(inner) = inner {
        error["innererror"] = json!({ "code": inner });
    }
    Reply::json(status, &json!({ "error": error }))
}

/// Returns the path and the query of a request.
fn parts(asked: &Asked) -> (&str, BTreeMap<String, String>) {
    let (path, query) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
    (path, form(query))
}

/// Decodes a form, or a query.
fn form(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (decoded(name), decoded(value))).collect()
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let digits = [rest.next().unwrap(), rest.next().unwrap()];
                let digits = String::from_utf8(digits.to_vec()).unwrap();
                bytes.push(u8::from_str_radix(&digits, 16).unwrap());
            }
            b'+' => bytes.push(b' '),
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).unwrap()
}

pub fn now() -> i64 {
    SystemClock.now().as_second()
}

fn http_date() -> String {
    let now = jiff::Timestamp::from_second(now()).unwrap();
    jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&now).unwrap()
}

/// Returns a number of 32 hexadecimal digits that nothing else has.
fn unique() -> String {
    let mut bytes = [0; 16];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes).unwrap();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}
