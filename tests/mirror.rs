//! `import` from a service, `export` and `sync`: real services on one side, a real mount on the other, and the real
//! command line between them, killed and started again.
//!
//! `SECRETFS_CAMPAIGN=full` imports 10,000 secrets instead of a few hundred.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::indexing_slicing,
    reason = "a test file"
)]

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
use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

use common::{bounded_by, eventually, noise, read, write, write_file};
use keyvault::{AUTHORITY, CLIENT, CLIENT_SECRET, KeyVault, TENANT, VAULT};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use secretfs::backend::{Backend, Deadline, Put, VersionId, Which};
use secretfs::system::SecretBytes;
use serde_json::Value;
use servers::{Moto, OpenBao};
use site::Site;

/// How long a whole copy may take before a test gives it up.
const PATIENCE: Duration = Duration::from_secs(1800);

fn is_full() -> bool {
    std::env::var("SECRETFS_CAMPAIGN").is_ok_and(|value| value == "full")
}

fn time() -> Deadline {
    Deadline::within(Duration::from_secs(20))
}

fn put(backend: &dyn Backend, name: &str, value: &[u8]) {
    let value = SecretBytes::copy_from(value).unwrap();
    let binary = std::str::from_utf8(value.expose()).is_err();
    backend.put(name, &value, &Put { binary, ..Put::default() }, time()).unwrap();
}

/// Returns every version's value, oldest first.
fn history(backend: &dyn Backend, name: &str) -> Vec<Vec<u8>> {
    let versions = backend.versions(name, time()).unwrap();
    let value = |id: VersionId| backend.get(name, &Which::Id(id), time()).unwrap().value;
    versions.into_iter().map(|version| value(version.id).expose().to_vec()).collect()
}

fn names(backend: &dyn Backend) -> Vec<String> {
    let mut names = Vec::new();
    let mut next = None;
    loop {
        let page = backend.list(next.as_ref(), time()).unwrap();
        names.extend(page.names);
        next = page.next;
        if next.is_none() {
            names.sort();
            return names;
        }
    }
}

/// A mounted store whose configuration names services.
struct Store(Site);

impl Store {
    fn serve(backends: &str) -> Option<Self> {
        let mut site = Site::new()?;
        fs::create_dir_all(site.config().parent().unwrap()).unwrap();
        write_file(&site.config(), backends.as_bytes());
        site.serve();
        Some(Self(site))
    }

    /// The table of a server, with its root token in a file.
    fn bao(bao: &OpenBao, name: &str, more: &str) -> String {
        let token = secret_file(&bao.path("token"), &bao.root);
        format!(
            "[backend.{name}]\nkind = \"vault\"\naddress = \"{}\"\n{more}\n\
             [backend.{name}.connection]\nca = {:?}\n\
             [backend.{name}.auth]\nmethod = \"token\"\ntoken_file = {token}\n",
            bao.address(),
            bao.pair.certificate,
        )
    }

    fn run(&self, args: &[&str]) -> Output {
        let mount = self.0.secret("");
        let all = [&["--mount", mount.to_str().unwrap()], args].concat();
        bounded_by(PATIENCE, self.0.command(&all).stdin(Stdio::null()))
    }

    /// Runs a copy that must end with all equal, and returns what it says.
    fn copies(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap() + &said
    }

    /// Runs a copy with `--json` and returns its code and document.
    fn document(&self, args: &[&str]) -> (i32, Value) {
        let output = self.run(&[&["--json"], args].concat());
        let document = serde_json::from_slice(&output.stdout);
        (output.status.code().unwrap(), document.unwrap_or_else(|_| panic!("{output:?}")))
    }

    fn spawn(&self, args: &[&str]) -> Child {
        let mount = self.0.secret("");
        let all = [&["--mount", mount.to_str().unwrap()], args].concat();
        let mut command = self.0.command(&all);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn value(&self, name: &str) -> Vec<u8> {
        read(&self.0.secret(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn history(&self, name: &str) -> Vec<Vec<u8>> {
        let listed = self.0.ask(&["--json", "history", name]);
        let versions: Vec<Value> = serde_json::from_str(&listed).unwrap();
        let view = |version: &Value| self.value(&format!("{name}@{}", version["version"]));
        versions.iter().map(view).collect()
    }

    fn count(&self, directory: &str) -> usize {
        count_files(&self.0.secret(directory))
    }
}

/// Counts the files below a directory, as far as they can be listed at this moment.
fn count_files(directory: &Path) -> usize {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let count = |entry: fs::DirEntry| match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
        true => count_files(&entry.path()),
        false => 1,
    };
    entries.map(count).sum()
}

/// Writes a credential that is its owner's alone, and returns its path as TOML has it.
fn secret_file(path: &Path, text: &str) -> String {
    write_file(path, text.as_bytes());
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    format!("{path:?}")
}

fn named<'a>(document: &'a Value, list: &str, name: &str) -> &'a Value {
    let all = document[list].as_array().unwrap();
    all.iter().find(|one| one["name"] == name).unwrap_or_else(|| panic!("{name}: {document}"))
}

#[test]
fn the_secrets_of_a_real_server_come_with_their_versions_and_go_to_another_place_of_it() {
    let Some(bao) = OpenBao::start() else { return };
    let Some(store) = Store::serve(&Store::bao(&bao, "corp", "")) else { return };
    let vault = bao.vault(|_| {});
    for value in [&b"one"[..], b"two", b"one", b"\xff\x00three"] {
        put(&vault, "app/db/password", value);
    }
    put(&vault, "app/key", b"canary-7f3a");
    put(&vault, "other/key", b"canary-other");
    bao.cli(&[
        "kv",
        "metadata",
        "put",
        "-custom-metadata=blue=true",
        "-custom-metadata=service=shop",
        "-custom-metadata=odd=x/y",
        "secret/app/key",
    ]);

    let import = ["import", "vault", "--prefix", "app/", "--dir", "m"];
    let planned = store.copies(&[&import[..], &["--dry-run"]].concat());
    assert!(
        planned.contains("db/password\tcreate\t4\t\n") && !planned.contains("other"),
        "{planned}"
    );
    assert!(!planned.contains("canary"), "{planned}");
    assert_eq!(store.0.ask(&["ls", "-R"]), "", "nothing was changed");

    let said = store.copies(&import);
    assert!(said.contains("plan: 2 secrets: 2 create; 5 versions"), "{said}");
    assert!(said.contains("2 secrets copied in 5 versions; 2 compared: 2 equal"), "{said}");
    assert!(
        said.contains("not copied, for 1 of them: the tag odd") && !said.contains("canary"),
        "{said}"
    );
    assert_eq!(store.history("m/db/password"), history(&vault, "app/db/password"));
    let shown: Value = serde_json::from_str(&store.0.ask(&["--json", "show", "m/key"])).unwrap();
    assert_eq!((&shown["tags"][0], &shown["service"]), (&"blue".into(), &"shop".into()));

    let said = store.copies(&import);
    assert!(said.contains("0 secrets copied in 0 versions"), "{said}");
    assert_eq!(store.history("m/key").len(), 1, "the second time there is nothing to do");

    store.copies(&["export", "corp", "--dir", "m", "--prefix", "copy"]);
    assert_eq!(history(&vault, "copy/db/password"), history(&vault, "app/db/password"));
    let tags = vault.describe("copy/key", time()).unwrap().tags;
    assert_eq!((tags["blue"].as_str(), tags["service"].as_str()), ("true", "shop"));
    assert!(!names(&vault).contains(&"copy/m/key".to_owned()));
}

#[test]
fn what_another_has_changed_is_a_conflict_and_is_replaced_by_who_says_so() {
    let Some(bao) = OpenBao::start() else { return };
    let Some(store) = Store::serve(&Store::bao(&bao, "corp", "")) else { return };
    let vault = bao.vault(|_| {});
    for (name, value) in [("a", "one"), ("b", "one"), ("c", "one"), ("Odd name", "x")] {
        put(&vault, name, value.as_bytes());
    }
    store.run(&["import", "corp"]);
    write(&store.0.secret("a"), b"mine").unwrap();
    write(&store.0.secret("b"), b"mine").unwrap();
    put(&vault, "b", b"two");
    put(&vault, "c", b"two");

    let (code, document) = store.document(&["import", "corp"]);
    assert_eq!((code, &document["equal"]), (1, &false.into()), "{document}");
    let found = |name: &str| named(&document, "found", name)["what"].as_str().unwrap();
    let all = ["a", "b", "c", "Odd name"].map(found);
    assert_eq!(all, ["ahead", "conflict", "equal", "impossible"]);
    assert_eq!((store.value("a"), store.value("b")), (b"mine".to_vec(), b"mine".to_vec()));
    assert_eq!(store.value("c"), b"two");

    let (code, _) = store.document(&["import", "corp", "--replace"]);
    assert_eq!(code, 1, "the odd name still cannot be here");
    assert_eq!(store.history("b"), [&b"one"[..], b"mine", b"two"].map(<[u8]>::to_vec));
    assert_eq!(store.history("a").last().unwrap(), b"one");
}

/// The value of the `number`-th secret: some are longer than one write to the mount is.
fn nth(number: usize, version: usize) -> Vec<u8> {
    let length = if number.is_multiple_of(50) { 200_000 } else { 20 + number % 100 };
    noise((number * 8 + version) as u64, length)
}

#[test]
fn an_import_that_was_killed_twice_goes_on_and_all_is_equal_in_the_end() {
    let Some(bao) = OpenBao::start() else { return };
    let Some(store) = Store::serve(&Store::bao(&bao, "corp", "")) else { return };
    let count = if is_full() { 10_000 } else { 300 };
    let name = |number: usize| format!("d{}/s{number}", number % 40);
    // Each third one has a history.
    let versions = |number: usize| if number.is_multiple_of(3) { 2 } else { 1 };
    std::thread::scope(|scope| {
        for part in 0..8 {
            let bao = &bao;
            scope.spawn(move || {
                let vault = bao.vault(|_| {});
                for number in (part..count).step_by(8) {
                    (0..versions(number))
                        .for_each(|version| put(&vault, &name(number), &nth(number, version)));
                }
            });
        }
    });
    let import = ["import", "corp", "--dir", "m"];
    let (mut begun, start) = (0, Instant::now());
    for part in [count / 4, count / 2] {
        let mut child = store.spawn(&import);
        eventually_by(PATIENCE, "it is in the middle", || store.count("m") >= part);
        child.kill().unwrap();
        assert!(!child.wait().unwrap().success(), "it was killed in the middle");
        let there = store.count("m");
        assert!(there > begun && there < count, "{there} of {count} are there");
        begun = there;
    }
    let (code, document) = store.document(&import);
    let took = start.elapsed();
    assert_eq!((code, &document["equal"]), (0, &true.into()));
    assert_eq!(document["found"].as_array().unwrap().len(), count);
    let kept = document["plan"].as_array().unwrap().iter().filter(|one| one["what"] == "equal");
    assert!(kept.count() > 0, "what was there is not copied again");
    let start = Instant::now();
    store.copies(&import);
    eprintln!("{count} secrets: in {took:?}, and nothing to do in {:?}", start.elapsed());
    for number in 0..count {
        let expected: Vec<_> = (0..versions(number)).map(|version| nth(number, version)).collect();
        let local = format!("m/{}", name(number));
        assert!(store.value(&local) == expected[expected.len() - 1], "{local} is another");
        // Asking for histories one by one takes its time.
        if number.is_multiple_of(count / 100) {
            assert!(store.history(&local) == expected, "{local} has another history");
        }
    }
    let left = common::list(&store.0.secret("")).unwrap();
    assert!(!left.iter().any(|name| name.contains("copy")), "a scratch file is left: {left:?}");
}

/// As [`eventually`], for longer.
fn eventually_by(time: Duration, claim: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < time, "not within {time:?}: {claim}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn secrets_go_to_secrets_manager_and_come_back_with_their_versions() {
    let Some(moto) = Moto::start() else { return };
    let credentials = moto.credentials();
    let backend = format!(
        "[backend.cloud]\nkind = \"aws_secrets_manager\"\nregion = \"{}\"\nendpoint = \"{}\"\n\
         prefix = \"prod/\"\ncredentials_file = {credentials}\n",
        servers::moto::REGION,
        moto.url(),
    );
    let there = moto.client(|settings| settings.prefix = "prod/".into());
    round_trip(&backend, "aws", &there, 65_536);
}

#[test]
fn secrets_go_to_a_key_vault_and_come_back_with_their_versions() {
    let vault = KeyVault::start();
    let secret = vault.file("client-secret", CLIENT_SECRET);
    let secret = secret_file(&secret, CLIENT_SECRET);
    let backend = format!(
        "[backend.corp]\nkind = \"azure_key_vault\"\naddress = \"https://{VAULT}\"\nprefix = \"prod\"\n\
         authority = \"https://{AUTHORITY}\"\n\
         [backend.corp.connection]\nca = \"{}\"\nproxy = \"{}\"\n\
         [backend.corp.auth]\nmethod = \"client_secret\"\n\
         tenant = \"{TENANT}\"\nclient_id = \"{CLIENT}\"\nsecret_file = {secret}\n",
        vault.service.authority().display(),
        vault.proxy.url(),
    );
    let there = vault.client(|settings| settings.prefix = "prod".into());
    round_trip(&backend, "azure", &there, 25 << 10);
}

/// Exports a store, imports it into another one, and compares the histories.
fn round_trip(backends: &str, kind: &str, there: &dyn Backend, longest: usize) {
    let Some(store) = Store::serve(backends) else { return };
    for value in [&b"one"[..], b"two", b"one"] {
        write(&store.0.secret("a"), value).unwrap();
    }
    store.0.ask(&["put", "app/Key_1", "--file", "/dev/null", "--allow-empty"]);
    fs::create_dir_all(store.0.secret("app")).unwrap();
    write(&store.0.secret("app/bytes.bin"), b"\xff\xfe\x00").unwrap();
    write(&store.0.secret("app/long"), &vec![b'x'; longest + 1]).unwrap();
    xattr::set(store.0.secret("a"), "user.secretfs.tags", b"blue,green").unwrap();

    let (code, document) = store.document(&["export", kind]);
    assert_eq!(code, 1, "{document}");
    assert_eq!(named(&document, "plan", "app/long")["what"], "impossible");
    assert!(!names(there).contains(&"app/long".to_owned()));
    assert_eq!(history(there, "a"), [&b"one"[..], b"two", b"one"].map(<[u8]>::to_vec));
    let tags = there.describe("a", time()).unwrap().tags;
    assert_eq!((tags["blue"].as_str(), tags["green"].as_str()), ("true", "true"));
    // The second time there is nothing to do.
    let (_, document) = store.document(&["export", kind]);
    assert_eq!(document["copied"], Value::Array(Vec::new()), "{document}");

    let Some(other) = Store::serve(backends) else { return };
    other.copies(&["import", kind]);
    assert_eq!(other.history("a"), store.history("a"));
    assert_eq!(other.value("app/bytes.bin"), b"\xff\xfe\x00");
    let shown: Value = serde_json::from_str(&other.0.ask(&["--json", "show", "a"])).unwrap();
    assert_eq!(shown["tags"], serde_json::json!(["blue", "green"]));
}

#[test]
fn a_mirror_follows_its_source_over_an_outage_until_it_is_asked_to_stop() {
    let Some(mut bao) = OpenBao::start_lasting() else { return };
    let Some(store) = Store::serve(&Store::bao(&bao, "corp", "")) else { return };
    put(&bao.vault(|_| {}), "app/a", b"one");
    put(&bao.vault(|_| {}), "app/other", b"theirs");
    fs::create_dir(store.0.secret("m")).unwrap();
    write(&store.0.secret("m/other"), b"ours").unwrap();
    let args = ["sync", "corp:app", "local:m", "--watch", "--every", "1"];
    let child = store.spawn(&args);
    let is = |name: &str, value: &[u8]| read(&store.0.secret(name)).is_ok_and(|it| it == value);
    eventually("it is copied", || is("m/a", b"one"));
    put(&bao.vault(|_| {}), "app/a", b"two");
    put(&bao.vault(|_| {}), "app/b", b"one");
    eventually("changes are", || is("m/a", b"two") && is("m/b", b"one"));
    let reads = |site: &Site| {
        let lines = site.audit().into_iter();
        lines
            .filter(|line| {
                line["action"] == "read"
                    && line["path"]
                        .as_str()
                        .is_some_and(|path| path.starts_with("m/") && path != "m/other")
            })
            .count()
    };
    let before = reads(&store.0);
    bao.stop();
    bao.start_again();
    put(&bao.vault(|_| {}), "app/c", b"three");
    eventually_by(PATIENCE, "it goes on after the outage", || is("m/c", b"three"));
    write(&store.0.secret("m/other"), b"theirs").unwrap();
    // The round in which that is seen.
    put(&bao.vault(|_| {}), "app/d", b"four");
    eventually_by(PATIENCE, "it goes on", || is("m/d", b"four"));
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said.matches("other: conflict").count(), 1, "each round says it anew: {said}");
    // What is equal and has no new version is not read in each round.
    assert!(reads(&store.0) < before + 8, "{before}");
}

#[test]
fn a_service_that_is_away_ends_the_copy_and_says_how_it_goes_on() {
    let Some(mut bao) = OpenBao::start() else { return };
    let Some(store) = Store::serve(&Store::bao(&bao, "corp", "")) else { return };
    bao.stop();
    let mount = store.0.secret("");
    let (code, said) = store.0.refused(&["--mount", mount.to_str().unwrap(), "import", "corp"]);
    assert!(code == 11 && said.contains("goes on where it was"), "{code} {said}");
}

#[test]
fn what_is_no_copy_is_refused_with_a_word_on_what_is_missing() {
    let Some(bao) = OpenBao::start() else { return };
    let both = Store::bao(&bao, "one", "")
        + &Store::bao(&bao, "two", "mount = \"old\"\nengine = \"kv-v1\"");
    let Some(store) = Store::serve(&both) else { return };
    for (args, code, word) in [
        (&["import", "json"][..], 2, "FILE"),
        (&["import", "one", "/etc/hostname"], 2, "FILE"),
        (&["import", "json", "/etc/hostname", "--prefix", "x"], 2, "--prefix"),
        (&["import", "json", "/etc/hostname", "--yes"], 2, "--yes"),
        (&["import", "one", "--rewrite"], 2, "FILE"),
        (&["import", "three"], 12, "it has one, two"),
        (&["import", "vault"], 12, "name one of them: one, two"),
        (&["import", "azure"], 12, "it has one, two"),
        (&["sync", "one:a", "one:a/b"], 12, "within"),
        (&["sync", "local", "local:a"], 12, "within"),
        (&["sync", "one", "local", "--every", "5"], 2, "--watch"),
        (&["sync", "one", "local", "--watch", "--dry-run"], 2, "--dry-run"),
    ] {
        let mount = store.0.secret("");
        let all = [&["--mount", mount.to_str().unwrap()], args].concat();
        let (found, said) = store.0.refused(&all);
        assert!(found == code && said.contains(word), "{args:?}: {found} {said}");
    }
    // From one service to another, of which one has no versions.
    let one = bao.vault(|_| {});
    put(&one, "a/b", b"first");
    put(&one, "a/b", b"second");
    store.copies(&["sync", "one:a", "two:x"]);
    store.copies(&["sync", "one:a", "two:x"]);
    let old = bao.vault(|settings| {
        settings.mount = "old".into();
        settings.engine = secretfs::backend::vault::Engine::Kv1;
    });
    assert_eq!(history(&old, "x/b"), [b"second".to_vec()]);
}

#[test]
fn the_fields_of_a_secret_are_copied_as_files_each_with_the_versions_that_it_has() {
    let Some(bao) = OpenBao::start() else { return };
    let Some(store) = Store::serve(&Store::bao(&bao, "corp", "fields = true")) else { return };
    bao.cli(&["kv", "put", "secret/db", "user=example-user"]);
    bao.cli(&["kv", "put", "secret/db", "user=example-user", "password=one"]);
    bao.cli(&["kv", "patch", "secret/db", "password=two"]);
    store.copies(&["import", "corp"]);
    assert_eq!(store.history("db/password"), [&b"one"[..], b"two"].map(<[u8]>::to_vec));
    assert_eq!(store.value("db/user"), b"example-user");
    store.copies(&["sync", "local", "corp:copy"]);
    let copied = ["user", "password"].map(|field| {
        bao.cli(&["kv", "get", &format!("-field={field}"), "secret/copy/db"]).trim_end().to_owned()
    });
    assert_eq!(copied, ["example-user", "two"]);
}

#[test]
fn what_comes_from_a_service_by_a_route_is_not_exported_to_it() {
    let Some(bao) = OpenBao::start() else { return };
    let route = "[[route]]\npath = \"cloud\"\nbackend = \"corp\"\n";
    let Some(store) = Store::serve(&(route.to_owned() + &Store::bao(&bao, "corp", ""))) else {
        return;
    };
    let vault = bao.vault(|_| {});
    put(&vault, "there", b"canary-7f3a");
    eventually("it is fetched", || read(&store.0.secret("cloud/there")).is_ok());
    write(&store.0.secret("here"), b"example-value").unwrap();
    store.copies(&["export", "corp"]);
    store.copies(&["export", "corp"]);
    assert_eq!(names(&vault), ["here", "there"]);
}
