//! Rotations of what real services keep, on a real mount: `OpenBao` with a real PostgreSQL that accepts the value, and
//! Secrets Manager and Key Vault, which compare nothing.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test file")]

mod common;
#[path = "backend/keyvault/mod.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests of backends")]
mod keyvault;
mod servers;
#[path = "backend/service.rs"]
mod service;
mod site;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use common::{eventually, read, write, write_file};
use keyvault::{AUTHORITY, CLIENT, CLIENT_SECRET, KeyVault, TENANT, VAULT};
use secretfs::backend::{Backend, Deadline, Put, Which};
use secretfs::system::SecretBytes;
use serde_json::Value;
use servers::{ADMIN, Moto, OpenBao, Postgresql};
use site::Site;

/// Mounts a store whose directory `cloud` comes from the backend `there`, which the table describes.
fn mounted(backend: &str) -> Option<Site> {
    let mut site = Site::new()?;
    let route = "[[route]]\npath = \"cloud\"\nbackend = \"there\"\ntimeout_seconds = 3\n";
    fs::create_dir_all(site.config().parent().unwrap()).unwrap();
    write_file(&site.config(), format!("{route}{backend}").as_bytes());
    site.serve();
    Some(site)
}

/// Writes a credential that the effector reads, and returns its path as configurations name it.
fn secret_file(path: &Path, content: &str) -> String {
    write_file(path, content.as_bytes());
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    format!("{path:?}")
}

/// Has the daemon read another `rotation.toml`.
fn configure(site: &Site, rotation: &str) {
    write_file(&site.config().with_file_name("rotation.toml"), rotation.as_bytes());
    write(&site.secret(".control/reload"), b"\n").unwrap();
}

fn rotating(site: &Site, name: &str) -> Child {
    let mut command = site.command(&["--mount"]);
    command.arg(site.secret("")).args(["--json", "rotate", name]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn outcome(child: Child) -> Value {
    let output = child.wait_with_output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// Where a verifier stops while there is such a file.
const VERIFIER: &str = r#"#!/bin/bash
dir="$(dirname "$0")"
[ -e "$dir/stop" ] || exit 0
: > "$dir/verifying"
while [ -e "$dir/stop" ]; do sleep 0.02; done
rm "$dir/verifying"
"#;

/// A password of a PostgreSQL's user `app`, which a server keeps.
struct Database {
    bao: OpenBao,
    postgresql: Postgresql,
    site: Site,
}

impl Database {
    fn start() -> Option<Self> {
        let postgresql = Postgresql::start("CREATE ROLE app LOGIN PASSWORD 'canary-a'")?;
        let bao = OpenBao::start()?;
        bao.cli(&["kv", "put", "secret/db/app", "value=canary-a"]);
        let token = secret_file(&bao.path("token"), &bao.root);
        let site = mounted(&format!(
            "[backend.there]\nkind = \"vault\"\naddress = \"{}\"\n\
             [backend.there.connection]\nca = {:?}\n\
             [backend.there.auth]\nmethod = \"token\"\ntoken_file = {token}\n",
            bao.address(),
            bao.pair.certificate,
        ))?;
        write(&site.secret("admin"), ADMIN.as_bytes()).unwrap();
        Some(Self { bao, postgresql, site })
    }

    /// Has the password verified so.
    fn verify_by(&self, verifier: &str) {
        let plan = format!(
            "[[rotation]]\nnames = [\"cloud/db/app\"]\nverify = {verifier}\n[rotation.target]\n\
             kind = \"postgresql\"\naddress = \"127.0.0.1:{}\"\nuser = \"app\"\n\
             admin_user = \"postgres\"\nadmin_secret = \"admin\"\n",
            self.postgresql.port
        );
        configure(&self.site, &plan);
    }

    /// Begins a rotation, does something while the target has the new value and the service has not, and goes on.
    fn while_verifying(&self, then: impl FnOnce()) -> Child {
        let (stop, verifying) = (self.site.path("stop"), self.site.path("verifying"));
        write_file(&stop, b"");
        let child = rotating(&self.site, "cloud/db/app");
        eventually("it is verified", || verifying.exists());
        then();
        fs::remove_file(stop).unwrap();
        child
    }

    fn there(&self) -> String {
        self.bao.cli(&["kv", "get", "-field=value", "secret/db/app"])
    }

    /// Tells whether readers get what the server has, which the database accepts.
    fn agrees(&self) -> bool {
        let there = self.there();
        let here = read(&self.site.secret("cloud/db/app"));
        here.is_ok_and(|here| here == there.as_bytes()) && self.postgresql.lets_in("app", &there)
    }

    fn forwards(&self) -> usize {
        self.site.audit().iter().filter(|line| line["action"] == "forward").count()
    }
}

#[test]
fn a_password_at_a_real_openbao_and_a_real_postgresql_agrees_whatever_happens_in_between() {
    let Some(mut database) = Database::start() else { return };
    database.verify_by("{ kind = \"login\" }");
    let rotated = outcome(rotating(&database.site, "cloud/db/app"));
    assert!(rotated["success"] == true && rotated["error"].is_null(), "{rotated:#}");
    assert_eq!(rotated["verified_by"], "login");
    assert!(database.agrees() && !database.postgresql.lets_in("app", "canary-a"));
    assert_eq!(
        database.bao.cli(&["kv", "get", "-version=1", "-field=value", "secret/db/app"]),
        "canary-a"
    );

    let verifier = database.site.path("verifier");
    write_file(&verifier, VERIFIER.as_bytes());
    fs::set_permissions(&verifier, Permissions::from_mode(0o755)).unwrap();
    database.verify_by(&format!("{{ kind = \"exec\", command = {{ argv = [{verifier:?}] }} }}"));

    // Somebody else makes a version there.
    let child = database.while_verifying(|| {
        database.bao.cli(&["kv", "put", "secret/db/app", "value=canary-theirs"]);
    });
    let overtaken = outcome(child);
    assert_eq!(overtaken["success"], false, "{overtaken:#}");
    assert!(overtaken["error"].as_str().unwrap().contains("somebody else"), "{overtaken:#}");
    assert!(database.agrees() && database.there() == "canary-theirs");

    // The server does not answer.
    let child = database.while_verifying(|| database.bao.server.freeze());
    let refused = outcome(child);
    assert!(refused["success"] == false && refused["rolled_back"] == true, "{refused:#}");
    assert!(database.postgresql.lets_in("app", "canary-theirs"));
    database.bao.server.thaw();
    assert!(database.agrees() && database.there() == "canary-theirs");

    // The daemon is killed while the server does not answer.
    let before = database.forwards();
    let mut child = database.while_verifying(|| database.bao.server.freeze());
    eventually("it is on its way", || database.forwards() > before);
    database.site.kill();
    database.bao.server.thaw();
    database.site.serve();
    eventually("it goes on", || database.there() != "canary-theirs" && database.agrees());
    drop(child.kill());
    drop(child.wait());
    eventually("it has come to its end", || {
        outcome(rotating(&database.site, "cloud/db/app"))["success"] == true
    });
    assert!(database.agrees());
    database.site.assert_whole();
}

fn time() -> Deadline {
    Deadline::within(Duration::from_secs(20))
}

/// Rotates without a target what a service keeps.
fn rotates(site: &Site, there: &dyn Backend) {
    let put = |value: &[u8]| {
        let value = SecretBytes::copy_from(value).unwrap();
        there.put("app/key", &value, &Put::default(), time()).unwrap();
    };
    put(b"canary-a");
    let name = "cloud/app/key";
    let rotate = || {
        let rotated = outcome(rotating(site, name));
        assert!(rotated["success"] == true && rotated["error"].is_null(), "{rotated:#}");
        let has = there.get("app/key", &Which::Current, time()).unwrap();
        assert_eq!(read(&site.secret(name)).unwrap(), has.value.expose());
        has.value
    };
    let first = rotate();
    assert_ne!(first.expose(), b"canary-a");
    // What somebody else has made meanwhile is the version before the next one.
    put(b"canary-b");
    assert_ne!(rotate().expose(), first.expose());
    let before = site.secret(&format!("{name}@previous"));
    assert_eq!(read(&before).unwrap(), b"canary-b");
    assert_eq!(there.versions("app/key", time()).unwrap().len(), 4);
    site.assert_whole();
}

#[test]
fn a_secret_of_secrets_manager_is_rotated() {
    let Some(moto) = Moto::start() else { return };
    let credentials = moto.credentials();
    let Some(site) = mounted(&format!(
        "[backend.there]\nkind = \"aws_secrets_manager\"\nregion = \"{}\"\nendpoint = \"{}\"\n\
         prefix = \"prod/\"\ncredentials_file = {credentials}\n",
        servers::moto::REGION,
        moto.url(),
    )) else {
        return;
    };
    rotates(&site, &moto.client(|settings| settings.prefix = "prod/".into()));
}

#[test]
fn a_secret_of_a_key_vault_is_rotated() {
    let vault = KeyVault::start();
    let path: PathBuf = vault.file("client-secret", CLIENT_SECRET);
    let secret = secret_file(&path, CLIENT_SECRET);
    let Some(site) = mounted(&format!(
        "[backend.there]\nkind = \"azure_key_vault\"\naddress = \"https://{VAULT}\"\nprefix = \"prod\"\n\
         authority = \"https://{AUTHORITY}\"\n\
         [backend.there.connection]\nca = {:?}\nproxy = \"{}\"\n\
         [backend.there.auth]\nmethod = \"client_secret\"\n\
         tenant = \"{TENANT}\"\nclient_id = \"{CLIENT}\"\nsecret_file = {secret}\n",
        vault.service.authority(),
        vault.proxy.url(),
    )) else {
        return;
    };
    rotates(&site, &vault.client(|settings| settings.prefix = "prod".into()));
}
