//! Oneiric, as it really behaves: its own loader and hooks read what secretfs gives it, and secretfs loads what
//! its loader loads.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test file: its helpers are tests too"
)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use common::{World, bounded, python, write_file};
use serde_json::{Value, json};

/// Trees that are compared.
const TREES: usize = 500;

/// The seed of the trees.
const SEED: &str = "6";

/// Values that some loader takes for something else than text.
const AWKWARD: [(&str, &str); 12] = [
    ("number", "12345"),
    ("truth", "true"),
    ("nothing", "null"),
    ("date", "2024-01-01"),
    ("commas", "a, b"),
    ("pem", "-----BEGIN X-----\nQQ==\n-----END X-----\n"),
    ("emoji", "\u{1f511}"),
    ("separator", "a\u{2028}b\u{85}c"),
    ("delete", "\u{7f}\u{1}"),
    ("lines", "a\r\nb\r"),
    ("quotes", "it's \"x\" \\n {{ x }}"),
    ("spaces", " x "),
];

fn run_python(python: &Path, program: &str, change: impl FnOnce(&mut Command)) -> Value {
    let mut command = Command::new(python);
    command.arg("-c").arg(program);
    change(&mut command);
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let last = said.lines().last();
    last.and_then(|line| serde_json::from_str(line).ok())
        .unwrap_or_else(|| panic!("{said}\n{}", String::from_utf8_lossy(&output.stderr)))
}

/// Prints `secrets.inline` as Oneiric's own loader has it.
const INLINE: &str = "import json\n\
    from oneiric.core.config import load_settings\n\
    s = load_settings(project_name='mahavishnu')\n\
    print('\\n' + json.dumps([s.secrets.inline, s.secrets.cache_ttl_seconds, (s.model_extra or {}).get('auth')]))\n";

/// The adapters' package wants every backend there is; the adapters for files and the environment do not.
const STUB: &str = "import asyncio, json, sys, types\n\
    import oneiric\n\
    for name in ('oneiric.adapters', 'oneiric.adapters.secrets'):\n\
    \tstub = types.ModuleType(name)\n\
    \tstub.__path__ = [oneiric.__path__[0] + '/' + '/'.join(name.split('.')[1:])]\n\
    \tsys.modules[name] = stub\n";

#[test]
fn the_settings_of_500_random_trees_are_those_of_oneiric_s_own_loader() {
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().unwrap();
    let trees = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oneiric/trees.py");
    let count = TREES.to_string();
    let python = |args: &[&str]| Command::new(&python).arg(&trees).args(args).output().unwrap();
    let top = dir.path().to_str().unwrap();
    let made = python(&["make", top, &count, SEED]);
    assert!(made.status.success(), "{made:?}");
    for index in 0..TREES {
        let tree = dir.path().join(index.to_string());
        let variables = fs::read(tree.join("env.json")).unwrap();
        let variables: BTreeMap<String, String> = serde_json::from_slice(&variables).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_secretfs"));
        command.args(["oneiric", "load", "--project", "app"]).current_dir(tree.join("root"));
        let output = command.env_clear().envs(variables).output().unwrap();
        if output.status.success() {
            write_file(&tree.join("ours.json"), &output.stdout);
        } else {
            assert_eq!(output.status.code(), Some(9), "{output:?}");
        }
    }
    let checked = python(&["check", top, &count]);
    let said = String::from_utf8_lossy(&checked.stdout);
    assert!(
        checked.status.success(),
        "seed {SEED}: {said}\n{}",
        String::from_utf8_lossy(&checked.stderr)
    );
}

fn secretfs(world: &World, args: &[&str]) -> Output {
    let output = bounded(world.secretfs().args(args));
    assert!(output.status.success(), "{args:?}: {output:?}");
    output
}

fn awkward_world() -> Option<World> {
    let world = World::start()?;
    for (name, value) in AWKWARD {
        world.put(&format!("app/{name}-key"), value);
    }
    Some(world)
}

#[test]
fn oneiric_s_loader_and_env_adapter_have_what_run_gives_them() {
    let (Some(python), Some(world)) = (python(), awkward_world()) else { return };
    let program = format!(
        "{STUB}from oneiric.adapters.secrets.env import EnvSecretAdapter\n\
        from oneiric.core.config import load_settings\n\
        s = load_settings(project_name='mahavishnu')\n\
        names = sys.argv[1].split(',')\n\
        read = {{n: asyncio.run(EnvSecretAdapter().get_secret(n)) for n in names}}\n\
        print('\\n' + json.dumps([s.secrets.inline, read]))\n"
    );
    let ids: Vec<String> = AWKWARD.iter().map(|(name, _)| format!("{name}_key")).collect();
    let mut command = world.secretfs();
    command.args(["run", "--oneiric", "--dir", "app", "--"]).arg(python).args(["-c", &program]);
    let output = bounded(command.arg(ids.join(",")).current_dir(world.outside("")));
    let said = String::from_utf8(output.stdout).unwrap();
    let read: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    let expected: BTreeMap<String, &str> =
        AWKWARD.iter().map(|(name, value)| (format!("{name}_key"), *value)).collect();
    assert_eq!(read[1], json!(expected), "the adapter of the environment");
    // Oneiric's loader would take these for something else, and then refuse all of its settings.
    let coerced = ["number_key", "truth_key", "commas_key"];
    let kept: BTreeMap<_, _> =
        expected.iter().filter(|(name, _)| !coerced.contains(&name.as_str())).collect();
    assert_eq!(read[0], json!(kept), "inline");
    let noted = String::from_utf8(output.stderr).unwrap();
    for name in ["app/number-key", "app/truth-key", "app/commas-key"] {
        assert!(noted.contains(&format!("{name}: not among the INLINE variables")), "{noted}");
    }
    let env = secretfs(&world, &["env", "--format", "sh", "--oneiric", "-e", "K=app/emoji-key"]);
    let lines = String::from_utf8(env.stdout).unwrap();
    for name in ["MAHAVISHNU_SECRETS__K", "MAHAVISHNU_SECRETS__INLINE__K", "ONEIRIC_SECRET_K"] {
        assert!(lines.contains(&format!("export {name}='\u{1f511}'\n")), "{lines}");
    }
}

#[test]
fn oneiric_s_file_adapter_and_hook_read_a_rendered_file_and_the_new_value_after_a_rotation() {
    let (Some(python), Some(world)) = (python(), awkward_world()) else { return };
    let template = world.outside("secrets.json.in");
    let lines = AWKWARD
        .map(|(name, _)| format!("\"{name}-key\": {{{{ secret('app/{name}-key') | json }}}}"));
    write_file(&template, format!("{{{}}}\n", lines.join(",\n")).as_bytes());
    let rendered = world.outside("secrets.json");
    let render = ["render", template.to_str().unwrap(), "-o", rendered.to_str().unwrap()];
    secretfs(&world, &render);
    let program = format!(
        "{STUB}from oneiric.adapters.secrets.file import FileSecretAdapter, FileSecretSettings\n\
        from oneiric.core.config import SecretsConfig, SecretsHook\n\
        adapter = FileSecretAdapter(FileSecretSettings(path=sys.argv[1], reload_on_access=True))\n\
        class Lifecycle:\n\
        \tget_instance = staticmethod(lambda domain, key: adapter)\n\
        hook = SecretsHook(Lifecycle(), SecretsConfig(provider='file', cache_ttl_seconds=0))\n\
        names = sys.argv[2].split(',')\n\
        for line in sys.stdin:\n\
        \tprint('\\n' + json.dumps({{n: asyncio.run(hook.get(n)) for n in names}}), flush=True)\n"
    );
    let ids: Vec<String> = AWKWARD.iter().map(|(name, _)| format!("{name}-key")).collect();
    let mut child = Command::new(python)
        .args(["-c", &program])
        .arg(&rendered)
        .arg(ids.join(","))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ask = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || {
        ask.write_all(b"\n").unwrap();
        let found = lines.by_ref().map(Result::unwrap).find(|line| line.starts_with('{'));
        serde_json::from_str::<BTreeMap<String, String>>(&found.unwrap()).unwrap()
    };
    let mut expected: BTreeMap<String, String> =
        AWKWARD.map(|(name, value)| (format!("{name}-key"), value.to_owned())).into();
    assert_eq!(next(), expected);
    world.put("app/truth-key", "false");
    secretfs(&world, &render);
    expected.insert("truth-key".into(), "false".into());
    assert_eq!(next(), expected);
    drop(ask);
    child.wait().unwrap();
}

#[test]
fn names_that_are_oneiric_s_own_settings_are_refused() {
    let Some(world) = World::start() else { return };
    for name in ["provider", "key", "domain", "inline", "cache-ttl-seconds", "refresh-interval"] {
        world.put(&format!("{name}/{name}"), "x");
        let output =
            bounded(world.secretfs().args(["env", "--format", "sh", "--oneiric", "--dir", name]));
        assert_eq!(output.status.code(), Some(9), "{name}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn oneiric_reads_what_sync_has_written_as_the_same_text_and_the_new_value_after_the_next() {
    let (Some(python), Some(world)) = (python(), awkward_world()) else { return };
    let xdg = world.outside("config");
    let sync = ["oneiric", "sync", "--all"];
    secretfs(&world, &sync);
    let file = xdg.join("mahavishnu/local.yaml");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let load = || {
        run_python(&python, INLINE, |command| {
            command.current_dir(world.outside("")).env("XDG_CONFIG_HOME", &xdg);
        })
    };
    let loaded = load();
    for (name, value) in AWKWARD {
        assert_eq!(loaded[0][format!("app-{name}-key")], value, "{name}");
        assert_eq!(loaded[0][format!("app_{name}_key")], value, "{name}");
    }
    assert_eq!(loaded[1], 0.0, "Oneiric is not to keep what it has read");
    world.put("app/number-key", "second");
    secretfs(&world, &["oneiric", "sync", "app/number-key", "--at", "auth.secret"]);
    let loaded = load();
    assert_eq!(loaded[0]["app-number-key"], "second");
    assert_eq!(loaded[2], json!({"secret": "second"}));
    world.set_attribute("app/truth-key", "oneiric_path", "auth.token");
    secretfs(&world, &["oneiric", "sync", "app/truth-key"]);
    assert_eq!(load()[2], json!({"secret": "second", "token": "true"}));
    assert_eq!(loaded[0]["app-truth-key"], "true", "what was there stays");
}

#[test]
fn a_layer_that_somebody_else_wrote_is_left_alone_without_force() {
    let Some(world) = World::start() else { return };
    world.put("api-key", "value");
    let settings = world.outside("settings");
    fs::create_dir(&settings).unwrap();
    write_file(&settings.join("local.yaml"), b"# mine\nserver: {port: 80, tags: [a, '1']}\n");
    let root = world.outside("");
    let sync = [
        "oneiric",
        "sync",
        "api-key",
        "--layer",
        "settings-local",
        "--root",
        root.to_str().unwrap(),
    ];
    let output = bounded(world.secretfs().args(sync));
    assert_eq!(output.status.code(), Some(9));
    secretfs(&world, &[&sync[..], &["--force"]].concat());
    let load = ["oneiric", "load", "--root", root.to_str().unwrap()];
    let loaded: Value = serde_json::from_slice(&secretfs(&world, &load).stdout).unwrap();
    let inline = json!({"api-key": "value", "api_key": "value"});
    let expected = json!({
        "secrets": {"cache_ttl_seconds": 0, "inline": inline}, "server": {"port": 80, "tags": ["a", "1"]},
    });
    assert_eq!(loaded, expected);
}

#[test]
fn a_load_tells_which_layer_each_setting_comes_from_and_stores_those_that_are_secrets() {
    let Some(world) = World::start() else { return };
    let root = world.outside("");
    let (settings, xdg) = (root.join("settings"), world.outside("config/mahavishnu"));
    fs::create_dir_all(&settings).unwrap();
    fs::create_dir_all(&xdg).unwrap();
    write_file(&settings.join("mahavishnu.yaml"), b"auth: {secret: canary-1, user: u}\nport: 80\n");
    write_file(&xdg.join("local.yaml"), b"secrets: {inline: {open-ai: canary-2}}\nport: 81\n");
    let place = ["--root", root.to_str().unwrap()];
    let with_env = |args: &[&str]| {
        let mut command = world.secretfs();
        command.env("MAHAVISHNU_AUTH__TOKEN", "canary-3").args(["oneiric", "load"]);
        bounded(command.args(place).args(args))
    };
    let explained = String::from_utf8(with_env(&["--explain"]).stdout).unwrap();
    assert!(!explained.contains("canary"), "{explained}");
    let lines: Vec<Vec<&str>> = explained.lines().map(|line| line.split('\t').collect()).collect();
    let origin = |setting: &str| lines.iter().find(|line| line[0] == setting).unwrap()[1];
    assert!(origin("port").ends_with("mahavishnu/local.yaml"));
    assert!(origin("auth.secret").ends_with("settings/mahavishnu.yaml"));
    assert_eq!(origin("auth.token"), "the environment");
    let output = with_env(&["--import", "--dir", "m", "--dry-run"]);
    assert!(output.status.success() && world.get("m/open-ai").is_err(), "{output:?}");
    let output = with_env(&["--import", "--dir", "m"]);
    assert!(output.status.success(), "{output:?}");
    let stored = |name: &str| String::from_utf8(world.get(name).unwrap()).unwrap();
    assert_eq!(stored("m/auth/secret"), "canary-1");
    assert_eq!(stored("m/open-ai"), "canary-2");
    assert_eq!(stored("m/auth/token"), "canary-3");
    assert!(world.get("m/port").is_err() && world.get("m/auth/user").is_err());
}

/// A world with settings for Oneiric on the mount.
fn world_with_layers(policy: &str, dir: &str) -> Option<World> {
    let config =
        format!("[oneiric]\nprojects = [\"other\", \"mahavishnu\", \"other\"]\ndir = {dir:?}\n");
    World::with(&format!("{}\n{policy}", common::ROOT_IS_ADMIN), &config)
}

/// A program of Python that answers each line it is sent with a line of JSON.
struct Running {
    child: std::process::Child,
    ask: Option<std::process::ChildStdin>,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Running {
    fn start(python: &Path, program: &str, change: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new(python);
        command.arg("-c").arg(program).stdin(Stdio::piped()).stdout(Stdio::piped());
        change(&mut command);
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { ask: child.stdin.take(), child, lines }
    }

    fn answer(&mut self) -> Value {
        self.ask.as_mut().unwrap().write_all(b"\n").unwrap();
        let found =
            self.lines.by_ref().map(Result::unwrap).find(|line| line.starts_with(['{', '[']));
        serde_json::from_str(&found.unwrap()).unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.ask.take());
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn oneiric_s_loader_reads_the_mount_s_layers_as_the_same_text_and_the_new_value_after_a_rotation() {
    let (Some(python), Some(world)) = (python(), world_with_layers("", "app")) else { return };
    for (name, value) in AWKWARD {
        world.put(&format!("app/{name}-key"), value);
    }
    world.put("app/db/password", "x".repeat(1 << 20));
    world.put("elsewhere", "not below the directory");
    world.set_attribute("app/quotes-key", "oneiric_path", "auth.secret");
    let program = "import json, sys\n\
        from oneiric.core.config import load_settings\n\
        for line in sys.stdin:\n\
        \ts = load_settings(project_name='mahavishnu')\n\
        \tprint('\\n' + json.dumps([s.secrets.inline, s.secrets.cache_ttl_seconds, (s.model_extra or {}).get('auth')]), flush=True)\n";
    let by_tree = |command: &mut Command| {
        command.env("XDG_CONFIG_HOME", world.path(".oneiric/xdg")).current_dir(world.outside(""));
    };
    let by_name = |command: &mut Command| {
        command.env("XDG_CONFIG_HOME", "/nonexistent").current_dir(world.outside(""));
        command.env("MAHAVISHNU_CONFIG", world.path(".oneiric/mahavishnu.yaml"));
    };
    let mut readers =
        [Running::start(&python, program, by_tree), Running::start(&python, program, by_name)];
    let mut expected = BTreeMap::new();
    let mut expect = |name: &str, value: &str| {
        for key in [name.to_owned(), name.replace('-', "_")] {
            expected.insert(key, value.to_owned());
        }
    };
    AWKWARD.iter().for_each(|(name, value)| expect(&format!("{name}-key"), value));
    expect("db-password", &"x".repeat(1 << 20));
    for reader in &mut readers {
        let loaded = reader.answer();
        assert_eq!(loaded[0], json!(expected));
        assert_eq!(loaded[1], 0.0, "Oneiric is not to keep what it has read");
        assert_eq!(loaded[2], json!({"secret": "it's \"x\" \\n {{ x }}"}));
    }
    world.put("app/quotes-key", "second");
    for reader in &mut readers {
        let loaded = reader.answer();
        assert_eq!(
            (&loaded[0]["quotes-key"], &loaded[2]["secret"]),
            (&json!("second"), &json!("second"))
        );
    }
}

#[test]
fn oneiric_s_adapters_read_the_mount_s_files_and_the_new_value_after_a_rotation() {
    let (Some(python), Some(world)) = (python(), world_with_layers("", "app")) else { return };
    for (name, value) in AWKWARD.iter().filter(|(name, _)| *name != "lines") {
        world.put(&format!("app/{name}-key"), value);
    }
    let program = format!(
        "{STUB}import os, dotenv\n\
        from oneiric.adapters.secrets.env import EnvSecretAdapter\n\
        from oneiric.adapters.secrets.file import FileSecretAdapter, FileSecretSettings\n\
        adapter = FileSecretAdapter(FileSecretSettings(path=sys.argv[1] + '/secrets.json', reload_on_access=True))\n\
        names = sys.argv[2].split(',')\n\
        for line in sys.stdin:\n\
        \tos.environ.update(dotenv.dotenv_values(sys.argv[1] + '/secrets.env', interpolate=False))\n\
        \tread = [{{n: asyncio.run(a.get_secret(n)) for n in names}} for a in (adapter, EnvSecretAdapter())]\n\
        \tprint('\\n' + json.dumps(read), flush=True)\n"
    );
    let expected: BTreeMap<String, &str> = AWKWARD
        .iter()
        .filter(|(name, _)| *name != "lines")
        .map(|(name, value)| (format!("{name}_key"), *value))
        .collect();
    let ids: Vec<&str> = expected.keys().map(String::as_str).collect();
    let mut reader = Running::start(&python, &program, |command| {
        command.arg(world.path(".oneiric")).arg(ids.join(","));
    });
    assert_eq!(reader.answer(), json!([expected, expected]));
    world.put("app/truth-key", "false");
    let read = reader.answer();
    assert_eq!((&read[0]["truth_key"], &read[1]["truth_key"]), (&json!("false"), &json!("false")));
    // Dotenv holds no carriage return: an error, and nothing partial.
    world.put("app/lines-key", "a\r\nb");
    assert_eq!(world.get(".oneiric/secrets.env"), Err(libc::EINVAL));
    assert!(world.said().contains("not rendered for .oneiric/secrets.env"), "{}", world.said());
    assert!(world.get(".oneiric/secrets.json").is_ok());
}

#[test]
fn a_layer_has_what_its_reader_may_read_or_nothing_at_all() {
    const ADA: u32 = 61_001;
    const EVE: u32 = 61_003;
    let policy = "[[role]]\nname = \"a\"\nallow = [{ names = [\"app/ada-*\"], levels = [\"read\"] }]\n\
        [[role]]\nname = \"e\"\nallow = [{ names = [\"other/*\"], levels = [\"read\"] }]\n\
        [[binding]]\nid = \"ada\"\nrole = \"a\"\nuid = [61001]\n\
        [[binding]]\nid = \"eve\"\nrole = \"e\"\nuid = [61003]\n";
    let Some(world) = world_with_layers(policy, "app") else { return };
    for name in ["app/ada-one", "app/ada-two", "app/root-only"] {
        world.put(name, format!("canary-{name}"));
    }
    let files =
        ["mahavishnu.yaml", "other.yaml", "secrets.env", "secrets.json", "xdg/other/local.yaml"];
    let read_as = |uid: u32, file: &str| {
        let path = world.path(&format!(".oneiric/{file}"));
        common::Person::new(uid).run(|| common::read(&path))
    };
    for file in files {
        let text = String::from_utf8(read_as(ADA, file).unwrap()).unwrap();
        assert!(
            text.contains("canary-app/ada-one") && text.contains("canary-app/ada-two"),
            "{text}"
        );
        assert!(!text.to_lowercase().contains("root"), "{text}");
        assert_eq!(read_as(EVE, file), Err(libc::EACCES), "{file}: there is nothing for Eve");
    }
    assert!(world.audit_of("app/root-only", "read", "allowed", ADA).is_empty());
    let reads = world.audit_of("app/ada-two", "read", "allowed", ADA);
    assert_eq!(reads.len(), files.len());
    assert_eq!(reads[0]["reason"], "for .oneiric/mahavishnu.yaml");
    let listed = world.list(".oneiric");
    assert_eq!(listed, ["mahavishnu.yaml", "other.yaml", "secrets.env", "secrets.json", "xdg"]);
    assert_eq!(world.get(".oneiric/absent.yaml"), Err(libc::ENOENT));
    world.set_attribute("app/ada-one", "status", "revoked");
    for file in files {
        assert_eq!(
            read_as(ADA, file),
            Err(libc::EKEYREVOKED),
            "{file}: a missing setting is worse"
        );
    }
    world.put("app/ada-one", [0xff, 0xfe]);
    for file in files {
        assert_eq!(read_as(ADA, file), Err(libc::EINVAL), "{file}: settings are text");
    }
}

#[test]
fn names_that_are_oneiric_s_own_are_refused_on_the_mount_and_by_sync_too() {
    let Some(world) = world_with_layers("", "app") else { return };
    world.put("app/refresh-interval", "x");
    for file in ["mahavishnu.yaml", "secrets.env", "secrets.json", "xdg/other/local.yaml"] {
        assert_eq!(world.get(&format!(".oneiric/{file}")), Err(libc::EINVAL), "{file}");
    }
    world.put("provider", "x");
    let output = bounded(world.secretfs().args(["oneiric", "sync", "provider"]));
    assert_eq!(output.status.code(), Some(9), "{output:?}");
}
