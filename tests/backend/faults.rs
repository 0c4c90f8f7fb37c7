//! The fault table: each call of a client against a service with each fault, which must end as it should, in time,
//! and leave a client behind that works as soon as the service does.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use secretfs::backend::http::{Connection, Method};
use secretfs::backend::vault::{AuthSettings, Engine, Vault, VaultSettings};
use secretfs::backend::{Backend, BackendError, Deadline, Put, Result, Which};
use serde_json::json;

use crate::conformance::{bytes, listed, time};
use crate::servers::OpenBao;
use crate::service::{Asked, Reply, Service};

/// How many secrets are listed, as the issue has it.
pub const MANY: usize = 100_000;

/// How many a real server has to be given first.
pub fn many_real() -> usize {
    let full = std::env::var_os("SECRETFS_CAMPAIGN").is_some_and(|value| value == "full");
    if full { MANY } else { 2_500 }
}

/// A Vault that is right but for its fault.
pub struct Fake {
    pub service: Service,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    fault: Option<Reply>,
    /// The number of the token that is accepted.
    token: usize,
    logins: usize,
    /// What is in each directory.
    directories: BTreeMap<String, BTreeSet<String>>,
    /// Knows `limit` and `after`, as `OpenBao` does.
    pages: bool,
}

impl Fake {
    pub fn start(names: Vec<String>, pages: bool) -> Self {
        let mut directories: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for name in names {
            let mut start = 0;
            for (slash, _) in name.match_indices('/').chain([(name.len() - 1, "")]) {
                let inside = directories.entry(name[..start].to_owned()).or_default();
                inside.insert(name[start..=slash].to_owned());
                start = slash + 1;
            }
        }
        let state = Arc::new(Mutex::new(State { directories, pages, ..State::default() }));
        let shared = Arc::clone(&state);
        let service = Service::start(move |asked| shared.lock().unwrap().answer(asked));
        Self { service, state }
    }

    pub fn settings(&self) -> VaultSettings {
        VaultSettings {
            address: self.service.url(""),
            connection: Connection { ca: Some(self.service.authority()), ..Connection::default() },
            namespace: None,
            mount: "secret".into(),
            engine: Engine::Kv2,
            prefix: String::new(),
            fields: false,
            auth: AuthSettings::AppRole {
                mount: "approle".into(),
                role_id: "example".into(),
                secret_id_file: None,
            },
        }
    }

    pub fn client(&self) -> Vault {
        Vault::new(&self.settings(), None).unwrap()
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
    }
}

impl State {
    fn answer(&mut self, asked: &Asked) -> Reply {
        if let Some(fault) = &self.fault {
            return fault.clone();
        }
        let path = asked.path.strip_prefix("/v1/").unwrap();
        if path == "auth/approle/login" {
            self.logins += 1;
            let token = format!("token-{}", self.token);
            let auth = json!({ "client_token": token, "lease_duration": 3600, "renewable": true });
            return Reply::json(200, &json!({ "auth": auth }));
        }
        let refused = Reply::json(403, &json!({ "errors": ["permission denied"] }));
        if asked.headers.get("x-vault-token") != Some(&format!("token-{}", self.token)) {
            return refused;
        }
        let made = "2026-11-28T22:00:00.5Z";
        let version =
            json!({ "version": 1, "created_time": made, "deletion_time": "", "destroyed": false });
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let data = match (asked.method.as_str(), path) {
            ("GET", "auth/token/lookup-self") => json!({ "ttl": 3600, "renewable": true }),
            ("GET", "secret/data/s") => json!({ "data": { "value": "x" }, "metadata": version }),
            ("POST" | "DELETE", "secret/data/s") => version,
            ("GET", path) if query.contains("list=true") => {
                let directory = path.strip_prefix("secret/metadata/").unwrap();
                return self.list(directory, query);
            }
            ("GET", "secret/metadata/s") => json!({
                "current_version": 1, "created_time": made, "updated_time": made,
                "custom_metadata": null, "versions": { "1": version },
            }),
            _ => return Reply::json(404, &json!({ "errors": [] })),
        };
        Reply::json(200, &json!({ "data": data }))
    }

    fn list(&self, directory: &str, query: &str) -> Reply {
        let inside = self.directories.get(directory).into_iter().flatten();
        let mut keys: Vec<&str> = inside.map(String::as_str).collect();
        if self.pages {
            let value = |key| query.split('&').find_map(|pair| pair.strip_prefix(key)).unwrap();
            let after = value("after=").replace("%2F", "/");
            keys.retain(|key| *key > after.as_str());
            keys.truncate(value("limit=").parse().unwrap());
        }
        if keys.is_empty() {
            return Reply::json(404, &json!({ "errors": [] }));
        }
        Reply::json(200, &json!({ "data": { "keys": keys } }))
    }
}

/// Each call, without what it gives.
pub type Call = fn(&dyn Backend, Deadline) -> Result<()>;

pub const CALLS: [(&str, Call); 6] = [
    ("get", |backend, deadline| backend.get("s", &Which::Current, deadline).map(drop)),
    ("put", |backend, deadline| {
        backend.put("s", &bytes(b"canary-7f3a"), &Put::default(), deadline).map(drop)
    }),
    ("describe", |backend, deadline| backend.describe("s", deadline).map(drop)),
    ("versions", |backend, deadline| backend.versions("s", deadline).map(drop)),
    ("list", |backend, deadline| backend.list(None, deadline).map(drop)),
    ("delete", |backend, deadline| backend.delete("s", deadline)),
];

/// What a fault has to look like.
pub type Expected = fn(&BackendError) -> bool;

/// Returns the faults that a service answers with, where `refused` is how it refuses a token.
pub fn table(refused: Reply) -> [(&'static str, Reply, Expected); 8] {
    [
        ("slow", Reply::Silence, |error| *error == BackendError::TimedOut),
        ("a byte now and then", Reply::Trickle, |error| *error == BackendError::TimedOut),
        ("429", Reply::status(429, &[("Retry-After", "7")]), |error| {
            *error == BackendError::Throttled { retry_after: Some(Duration::from_secs(7)) }
        }),
        ("500", Reply::json(500, &json!({ "errors": ["canary-7f3a"] })), is_failed),
        ("503", Reply::json(503, &json!({ "errors": ["canary-7f3a"] })), is_failed),
        (
            "truncated body",
            Reply::CutOff { status: 200, body: b"{\"canary-7f3a\":".to_vec() },
            is_failed,
        ),
        ("no JSON", Reply::json(200, &json!("canary-7f3a")), is_failed),
        ("expired token", refused, |error| matches!(error, BackendError::Unauthenticated(_))),
    ]
}

#[test]
fn every_call_ends_as_it_should_whatever_is_wrong_with_the_service() {
    let denied = Reply::json(403, &json!({ "errors": ["permission denied"] }));
    for (fault, reply, expected) in table(denied) {
        for (call, run) in CALLS {
            // One that has a token already, and one that has to get it.
            for warm in [true, false] {
                let fake = Fake::start(vec!["s".into()], true);
                let client = fake.client();
                if warm {
                    run(&client, time()).unwrap();
                }
                let named = format!("{call} with {fault}, warm {warm}");
                fails_and_heals(&client, (&named, run), (&reply, expected), |fault| {
                    fake.set(|state| state.fault = fault);
                });
            }
        }
    }
}

/// A call fails in time as it should while the service has a fault, and works as soon as it has none.
pub fn fails_and_heals(
    client: &dyn Backend,
    (named, run): (&str, Call),
    (reply, expected): (&Reply, Expected),
    set_fault: impl Fn(Option<Reply>),
) {
    set_fault(Some(reply.clone()));
    let time_is_up = matches!(reply, Reply::Silence | Reply::Trickle);
    let allowed = Duration::from_secs(if time_is_up { 1 } else { 20 });
    let start = Instant::now();
    let failed = run(client, Deadline::within(allowed)).unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(20), "{named}");
    assert!(expected(&failed), "{named}: {failed:?}");
    assert!(!format!("{failed:?} {failed}").contains("canary"), "{failed:?}");
    set_fault(None);
    assert_eq!(run(client, time()), Ok(()), "after {named}");
}

pub fn is_failed(error: &BackendError) -> bool {
    matches!(error, BackendError::Failed(_))
}

/// A call of many at once succeeds for each.
pub fn succeeds_for_many(client: &dyn Backend, run: Call) {
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| run(client, time()).unwrap());
        }
    });
}

/// Returns an address at which nobody listens.
pub fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("https://{}", listener.local_addr().unwrap())
}

/// Every call of a client finds nobody, or nobody whom it trusts.
pub fn reaches_nobody(client: &dyn Backend) {
    for (call, run) in CALLS {
        let failed = run(client, time()).unwrap_err();
        assert!(matches!(failed, BackendError::Unreachable(_)), "{call}: {failed:?}");
    }
}

#[test]
fn a_service_that_is_down_or_another_one_is_unreachable_for_every_call() {
    let (fake, other) = (Fake::start(Vec::new(), true), Fake::start(Vec::new(), true));
    let down = VaultSettings { address: nobody(), ..fake.settings() };
    let wrong = VaultSettings { connection: other.settings().connection, ..fake.settings() };
    for settings in [down, wrong] {
        reaches_nobody(&Vault::new(&settings, None).unwrap());
    }
    assert!(fake.service.asked().is_empty(), "nothing was said to who is not trusted");
}

#[test]
fn a_token_that_is_revoked_costs_one_login_whatever_is_called() {
    for (call, run) in CALLS {
        let fake = Fake::start(vec!["s".into()], true);
        let client = fake.client();
        run(&client, time()).unwrap();
        fake.set(|state| state.token += 1);
        succeeds_for_many(&client, run);
        fake.set(|state| assert_eq!(state.logins, 2, "{call}"));
    }
}

#[test]
fn many_readers_that_wait_for_a_login_that_fails_ask_once() {
    let fake = Fake::start(vec!["s".into()], true);
    fake.set(|state| state.fault = Some(Reply::json(500, &json!({}))));
    let client = fake.client();
    let barrier = std::sync::Barrier::new(50);
    std::thread::scope(|scope| {
        for _ in 0..50 {
            scope.spawn(|| {
                barrier.wait();
                CALLS[0].1(&client, time()).unwrap_err();
            });
        }
    });
    let asked = fake.service.asked().len();
    assert!(asked < 50, "{asked} logins for 50 readers");
}

#[test]
fn a_hundred_thousand_names_are_listed_in_one_directory_or_in_many() {
    let flat = (0..MANY).map(|n| format!("n{n}")).collect::<Vec<_>>();
    let deep = (0..MANY).map(|n| format!("a/d{}/n{n}", n % 1000)).collect::<Vec<_>>();
    // Vault gives a directory as a whole, which is the longest answer there is.
    for (names, pages) in [(flat, false), (deep.clone(), false), (deep, true)] {
        let fake = Fake::start(names.clone(), pages);
        let found = listed(&fake.client());
        assert_eq!(found.len(), MANY);
        assert!(names.iter().all(|name| found.contains(name)));
    }
}

#[test]
fn a_real_server_lists_many_names_page_by_page() {
    let Some(bao) = OpenBao::start() else { return };
    let many = many_real();
    std::thread::scope(|scope| {
        for part in 0..8 {
            let bao = &bao;
            scope.spawn(move || {
                for n in (part..many).step_by(8) {
                    let body = json!({ "data": { "value": "x" } });
                    bao.ask(Method::Post, &format!("secret/data/many/n{n}"), &body);
                }
            });
        }
    });
    let vault = bao.vault(|_| {});
    assert_eq!(listed(&vault).len(), many);
    let first = vault.list(None, time()).unwrap();
    assert!(first.names.len() < many && first.next.is_some(), "a page is a part of it");
}
