//! Variables for programs that know nothing of secretfs: each format through the programs that read it,
//! and back, byte for byte.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test file: its helpers are tests too"
)]

mod booted;
mod common;
mod container;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use booted::Boot;
use common::{Person, World, bounded, eventually, python, skip, write_file};
use container::{Engine, Yard};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const ADA: u32 = 61_401;

const ADA_READS_APP: &str = r#"
[[role]]
name = "reader"
allow = [{ names = ["app/open"], levels = ["read"] }]
[[role]]
name = "knower"
allow = [{ names = ["app/closed"], levels = ["write"] }]
[[binding]]
id = "ada-reads"
role = "reader"
uid = [61401]
[[binding]]
id = "ada-knows"
role = "knower"
uid = [61401]
"#;

/// Values that some format, quoting or parser stumbles over, each under the name of its variable.
fn hostile() -> BTreeMap<String, Vec<u8>> {
    let all_but_nul: Vec<u8> = (1..=255).collect();
    let text: String = ('\u{1}'..'\u{250}').collect();
    let values: [&[u8]; 26] = [
        b"plain",
        b"it's",
        b"say \"x\"",
        b"both ' and \" here",
        b"$HOME ${HOME} $(id) `id` \\$x",
        b"{{ x }} {% y %} ${SECRET_X}",
        b"line\nline\n",
        b"line\r\nline\r",
        b"trailing \n",
        b" lead and trail ",
        b"# comment",
        b"a #b",
        b"a=b;c&d|e>f",
        b"back\\slash \\n \\\\ end\\",
        b"'\"`",
        b"\ttab\t",
        b"*?[a] ~ !",
        b"-n",
        b"\xff\xfe",
        b"a\x01b\x1b[31m\x7f",
        "\u{e9}\u{1f511}\u{2028}\u{feff}\u{85}".as_bytes(),
        "\u{fffe}\u{fdd0}".as_bytes(),
        b"12345",
        b"-----BEGIN X-----\nQUJD\n-----END X-----\n",
        &all_but_nul,
        text.as_bytes(),
    ];
    let named = |(index, value): (usize, &[u8])| (format!("V{index:02}"), value.to_vec());
    values.into_iter().enumerate().map(named).collect()
}

struct Injected {
    world: World,
    values: BTreeMap<String, Vec<u8>>,
    out: PathBuf,
}

impl Injected {
    fn new() -> Option<Self> {
        let world = World::start()?;
        let values = hostile();
        for (name, value) in &values {
            world.put(&format!("app/{name}"), value);
        }
        let out = world.outside("out");
        fs::create_dir(&out).unwrap();
        Some(Self { world, values, out })
    }

    /// Writes, in one file, the variables of all values that the format holds; returns their names.
    fn file(&self, format: &str) -> (PathBuf, Vec<String>) {
        let held: Vec<String> = self
            .values
            .keys()
            .filter(|name| {
                let output = self.env(format, &[name.as_str()]);
                if !output.status.success() {
                    assert_eq!(output.status.code(), Some(9), "{output:?}");
                    assert!(output.stdout.is_empty(), "nothing of it comes out");
                    assert!(String::from_utf8_lossy(&output.stderr).contains(name.as_str()));
                }
                output.status.success()
            })
            .cloned()
            .collect();
        let names: Vec<&str> = held.iter().map(String::as_str).collect();
        let output = self.env(format, &names);
        assert!(output.status.success(), "{output:?}");
        let path = self.world.outside(format);
        write_file(&path, &output.stdout);
        (path, held)
    }

    fn env(&self, format: &str, names: &[&str]) -> Output {
        let mut command = self.world.secretfs();
        command.args(["env", "--format", format]);
        for name in names {
            command.arg("-e").arg(format!("{name}=app/{name}"));
        }
        bounded(&mut command)
    }

    /// Compares what a consumer has written into files with the values.
    fn compare(&self, consumer: &str, names: &[String]) {
        for name in names {
            let read = fs::read(self.out.join(name));
            let read = read.unwrap_or_else(|err| panic!("{consumer} did not have {name}: {err}"));
            assert_eq!(read, self.values[name], "{consumer} reads {name}");
            fs::remove_file(self.out.join(name)).unwrap();
        }
    }

    fn refused(&self, names: &[String]) -> Vec<String> {
        self.values.keys().filter(|name| !names.contains(name)).cloned().collect()
    }
}

/// Returns a Node that knows `--env-file`.
fn node() -> Option<PathBuf> {
    let knows = |node: &Path| {
        let output = Command::new(node).args(["--env-file=/dev/null", "--eval", "0"]).output();
        output.is_ok_and(|output| output.status.success())
    };
    let wheel = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python/bin/node");
    let found = [PathBuf::from("node"), wheel].into_iter().find(|node| knows(node));
    if found.is_none() {
        skip("no node with --env-file here");
    }
    found
}

#[test]
fn every_shell_reads_back_the_exact_bytes() {
    let Some(injected) = Injected::new() else { return };
    let (file, names) = injected.file("sh");
    assert!(injected.refused(&names).is_empty());
    let script = format!(
        ". {}; cd {}; for n in {}; do eval \"v=\\${{$n}}\"; printf %s \"$v\" > $n; done",
        file.display(),
        injected.out.display(),
        names.join(" ")
    );
    for shell in ["dash", "bash"] {
        let output = bounded(Command::new(shell).arg("-c").arg(&script));
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        injected.compare(shell, &names);
    }
}

#[test]
fn node_and_python_dotenv_read_back_the_exact_text_alike() {
    let (Some(node), Some(python)) = (node(), python()) else { return };
    let Some(injected) = Injected::new() else { return };
    let (file, names) = injected.file("dotenv");
    // Carriage returns, `${`, bytes, and quotes of both kinds that nothing can stand around.
    let refused = ["V04", "V05", "V07", "V14", "V18", "V24", "V25"];
    assert_eq!(injected.refused(&names), refused);
    let mut reads = Command::new(node);
    reads.arg(format!("--env-file={}", file.display())).arg("--eval");
    reads.arg("for (const n of process.argv.slice(1)) fs.writeFileSync(n, process.env[n])");
    let output = bounded(reads.args(&names).current_dir(&injected.out));
    assert!(output.status.success(), "{output:?}");
    injected.compare("node", &names);
    let mut reads = Command::new(python);
    reads.arg("-c").arg(
        "import dotenv, sys\n\
         for name, value in dotenv.dotenv_values(sys.argv[1]).items():\n\
         \topen(name, 'wb').write(value.encode())",
    );
    let output = bounded(reads.arg(file).current_dir(&injected.out));
    assert!(output.status.success(), "{output:?}");
    injected.compare("python-dotenv", &names);
}

#[test]
fn a_shell_node_and_python_dotenv_that_run_have_the_new_value_after_a_rotation() {
    let (Some(node), Some(python)) = (node(), python()) else { return };
    let Some(world) = World::start() else { return };
    let [out, file] = ["out", "env"].map(|name| world.outside(name).display().to_string());
    let secretfs = world.secretfs();
    let words = [secretfs.get_program()].into_iter().chain(secretfs.get_args());
    let words: Vec<_> = words.map(|word| word.to_str().unwrap()).collect();
    let env = format!("{} env -e KEY=app/key --format", words.join(" "));
    let (node, python) = (node.display(), python.display());
    let programs = [
        format!(r#"eval "$({env} sh)"; printf %s "$KEY" >{out}; exec sleep 1000"#),
        format!(
            r#"{env} dotenv >{file}; exec {node} --env-file={file} \
            --eval 'fs.writeFileSync("{out}", process.env.KEY); setInterval(() => 0, 1000)'"#
        ),
        format!(
            r#"{env} dotenv >{file}; exec {python} -c 'import dotenv, time
open("{out}", "w").write(dotenv.dotenv_values("{file}")["KEY"])
time.sleep(1000)'"#
        ),
    ];
    for program in programs {
        world.put("app/key", "first");
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM"]).args(&words);
        command.args(["run", "-e", "KEY=app/key", "--watch", "--", "sh", "-c", &program]);
        let running = Running(command.stdin(Stdio::null()).spawn().unwrap());
        for value in ["first", "sec'ond $HOME", "third # x"] {
            world.put("app/key", value);
            eventually("it runs with that", || {
                fs::read(&out).is_ok_and(|read| read == value.as_bytes())
            });
        }
        drop(running);
    }
}

/// A program that is asked to end, also when the test fails.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGTERM);
        drop(self.0.wait());
    }
}

#[test]
fn json_holds_every_text_and_shows_other_bytes_in_base64() {
    let Some(python) = python() else { return };
    let Some(injected) = Injected::new() else { return };
    let big = common::noise(7, 1 << 20);
    injected.world.put("app/V99", &big);
    let output =
        bounded(injected.world.secretfs().args(["env", "--format", "json", "--dir", "app"]));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let file = injected.world.outside("json");
    write_file(&file, &output.stdout);
    let mut reads = Command::new(python);
    reads.arg("-c").arg(
        "import base64, json, sys\n\
         for name, value in json.load(open(sys.argv[1])).items():\n\
         \traw = value.encode() if isinstance(value, str) else base64.b64decode(value['base64'])\n\
         \topen(name, 'wb').write(raw)",
    );
    let output = bounded(reads.arg(file).current_dir(&injected.out));
    assert!(output.status.success(), "{output:?}");
    injected.compare("json", &injected.values.keys().cloned().collect::<Vec<_>>());
    assert_eq!(fs::read(injected.out.join("V99")).unwrap(), big);
}

#[test]
fn podman_reads_back_the_exact_lines_of_a_docker_file() {
    let Some(injected) = Injected::new() else { return };
    let (file, names) = injected.file("docker");
    // What has more than one line, or ends in half a line end, or is no text.
    let refused = ["V06", "V07", "V08", "V18", "V23", "V24", "V25"];
    assert_eq!(injected.refused(&names), refused);
    let Some(yard) = Yard::make(Engine::PodmanRunc, injected.world.outside("yard")) else { return };
    let mut inside = yard.start(&[], &["--env-file", file.to_str().unwrap()]);
    let script = format!(
        "for n in {}; do eval \"v=\\${{$n}}\"; printf %s \"$v\" | od -An -v -tx1 | tr -d ' \\n'; echo; done",
        names.join(" ")
    );
    let said = inside.sh(&script);
    for (name, line) in names.iter().zip(said.lines()) {
        let expected: String =
            injected.values[name].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(line, expected, "{name}");
    }
    assert_eq!(said.lines().count(), names.len());
}

#[test]
fn a_unit_s_environment_file_has_the_exact_text() {
    let Some(boot) = Boot::new() else { return };
    let values = hostile();
    // Control characters but tab and line end, bytes, and what Unicode calls no character.
    let refused = ["V07", "V18", "V19", "V21", "V24", "V25"];
    let held = values.iter().filter(|(name, _)| !refused.contains(&name.as_str()));
    let held: Vec<(&String, &Vec<u8>)> = held.collect();
    let octal = |value: &[u8]| value.iter().map(|byte| format!("\\{byte:03o}")).collect::<String>();
    let mut report = String::from("mkdir /secrets/app\n");
    for (name, value) in &values {
        report += &format!("printf '{}' >/secrets/app/{name}\n", octal(value));
    }
    report += &format!(
        "for n in {}; do secretfs env --format systemd -e $n=app/$n >/dev/null || claim refused $n; done\n",
        values.keys().cloned().collect::<Vec<_>>().join(" ")
    );
    let chosen: Vec<String> =
        held.iter().map(|(name, _)| format!("-e {name}=app/{name}")).collect();
    report += &format!("secretfs env --format systemd {} >/run/app.env\n", chosen.join(" "));
    report += "systemctl start reads\nfor f in /run/read/*; do claim $(basename $f): $(od -An -v -tx1 $f | tr -d ' \\n'); done\n";
    // A rotation is seen by the next start of what reads a file anew.
    report += "printf second >/secrets/app/V00\nsecretfs env --format systemd -e V00=app/V00 >/run/app.env\n\
        systemctl restart reads\nclaim rotated: $(cat /run/read/V00)\n";
    let script = "import os\nfor n in os.environ:\n    if n.startswith('V'):\n        open('/run/read/' + n, 'wb').write(os.environb[n.encode()])\n";
    let unit = "[Service]\nType=oneshot\nRuntimeDirectory=read\nRuntimeDirectoryPreserve=yes\n\
        EnvironmentFile=/run/app.env\nExecStart=/usr/bin/python3 /units/reads.py\n";
    let claims = boot
        .unit("reads.service", unit)
        .unit("reads.py", script)
        .run("secretfs init --system\n", &report);
    for name in refused {
        claims.have(&format!("refused {name}"));
    }
    for (name, value) in held {
        let hex: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
        claims.have(&format!("{name}: {hex}"));
    }
    claims.have("rotated: second");
}

#[test]
fn what_no_environment_holds_is_a_clear_error_in_every_format_but_json() {
    let Some(world) = World::start() else { return };
    world.put("big", vec![b'x'; 1 << 20]);
    world.put("nul", b"canary\0");
    for format in ["sh", "dotenv", "systemd", "docker"] {
        for (name, why) in [("big", "128 KiB"), ("nul", "NUL")] {
            let mut command = world.secretfs();
            let output =
                bounded(command.args(["env", "--format", format, "-e", &format!("A={name}")]));
            assert_eq!(output.status.code(), Some(9), "{format} {name}");
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(said.contains(why) && !said.contains("canary"), "{format}: {said}");
            assert!(output.stdout.is_empty());
        }
    }
}

#[test]
fn names_below_a_directory_become_variables_and_a_collision_is_an_error() {
    let Some(world) = World::start() else { return };
    for name in ["app/db/pass-word", "app/api.key", "app/2fa", "other"] {
        world.put(name, name);
    }
    let env = |args: &[&str]| bounded(world.secretfs().args(["env", "--format", "sh"]).args(args));
    let text = |args: &[&str]| String::from_utf8(env(args).stdout).unwrap();
    assert_eq!(
        text(&["--dir", "app"]),
        "export API_KEY='app/api.key'\nexport DB_PASS_WORD='app/db/pass-word'\nexport _2FA='app/2fa'\n"
    );
    assert_eq!(
        text(&["--dir", "app/db", "--prefix", "X_"]),
        "export X_PASS_WORD='app/db/pass-word'\n"
    );
    assert_eq!(text(&["--all", "--prefix", "P"]).lines().count(), 4);
    world.put("app/api-key", "second");
    let output = env(&["--dir", "app"]);
    assert_eq!(output.status.code(), Some(9));
    assert!(output.stdout.is_empty());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("app/api-key and app/api.key would both be API_KEY"), "{said}");
    assert_eq!(env(&["-e", "A-B=other"]).status.code(), Some(2));
    assert_eq!(env(&[]).status.code(), Some(9));
    assert_eq!(env(&["-e", "A=nowhere"]).status.code(), Some(3));
}

#[test]
fn a_caller_without_rights_to_one_secret_gets_an_error_and_no_byte() {
    let Some(world) = World::with_policy(ADA_READS_APP) else { return };
    world.put("app/open", "canary-7f3a");
    world.put("app/closed", "closed");
    world.put("hidden", "hidden");
    let ran = world.outside("ran");
    let as_ada = |args: &[&str]| {
        let mut command = Person::new(ADA).command(env!("CARGO_BIN_EXE_secretfs"));
        bounded(command.env("HOME", "/nonexistent").arg("--mount").arg(world.path("")).args(args))
    };
    let touch = format!("touch {}", ran.display());
    let run = ["run", "-e", "A=app/open", "-e", "B=app/closed", "--", "sh", "-c", &touch];
    for args in [
        &["env", "--format", "sh", "--dir", "app"][..],
        &["env", "--format", "json", "-e", "A=app/open", "-e", "B=hidden"],
        &["run", "--dir", "app", "--", "sh", "-c", "echo $OPEN"],
        &run,
    ] {
        let output = as_ada(args);
        assert_eq!(output.status.code(), Some(5), "{args:?}: {output:?}");
        assert!(output.stdout.is_empty(), "{args:?}");
        assert!(!String::from_utf8_lossy(&output.stderr).contains("canary"), "{args:?}");
    }
    assert!(!ran.exists());
    let output = as_ada(&["env", "--format", "sh", "-e", "A=app/open"]);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "export A='canary-7f3a'\n");
}

#[test]
fn pydantic_settings_reads_its_secrets_dir_on_the_mount_and_the_new_values_after_a_rotation() {
    let Some(python) = python() else { return };
    let Some(world) = World::start() else { return };
    world.put("app/api_key", "first");
    world.put("app/db_password", "p1");
    let program = "import sys\n\
        from pydantic_settings import BaseSettings, SettingsConfigDict\n\
        class S(BaseSettings):\n\
        \tmodel_config = SettingsConfigDict(secrets_dir=sys.argv[1])\n\
        \tapi_key: str\n\
        \tdb_password: str\n\
        for line in sys.stdin:\n\
        \ts = S(); print(s.api_key, s.db_password, flush=True)\n";
    let mut child = Command::new(python)
        .args(["-c", program])
        .arg(world.path("app"))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut ask = child.stdin.take().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let mut next = || {
        std::io::Write::write_all(&mut ask, b"\n").unwrap();
        lines.next().unwrap().unwrap()
    };
    assert_eq!(next(), "first p1");
    world.put("app/api_key", "second");
    assert_eq!(next(), "second p1");
    drop(ask);
    child.wait().unwrap();
}

#[test]
fn a_secret_s_own_variable_takes_the_place_of_the_one_made_of_its_name_everywhere() {
    let Some(world) = World::start() else { return };
    let value = world.outside("value");
    write_file(&value, b"canary-7f3a");
    let put = ["put", "app/db-pass", "--env-name", "DATABASE_PASSWORD", "--file"];
    assert!(bounded(world.secretfs().args(put).arg(&value)).status.success());
    world.put("app/other", "x");
    let env = |args: &[&str]| {
        let output = bounded(world.secretfs().args(["env", "--format", "dotenv"]).args(args));
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(env(&["--dir", "app"]), "DATABASE_PASSWORD='canary-7f3a'\nOTHER='x'\n");
    let prefixed = env(&["--all", "--prefix", "X_"]);
    assert_eq!(prefixed, "X_APP_OTHER='x'\nX_DATABASE_PASSWORD='canary-7f3a'\n");
    let view = String::from_utf8(world.get("app/@env").unwrap()).unwrap();
    assert_eq!(view, "DATABASE_PASSWORD='canary-7f3a'\nOTHER='x'\n");
    let template = world.outside("t");
    write_file(&template, b"{{ DATABASE_PASSWORD }}");
    let render = || bounded(world.secretfs().arg("render").arg(&template));
    assert_eq!(render().stdout, b"canary-7f3a");
    write_file(&template, b"{{ APP_DB_PASS }}");
    assert!(!render().status.success(), "the other one is not there beside it");
    assert_eq!(world.attribute("app/db-pass", "env_name").unwrap(), "DATABASE_PASSWORD");
    xattr::remove(world.path("app/db-pass"), "user.secretfs.env_name").unwrap();
    assert_eq!(world.attribute("app/db-pass", "env_name").unwrap(), "APP_DB_PASS");
    assert_eq!(render().stdout, b"canary-7f3a");
    let bad = xattr::set(world.path("app/other"), "user.secretfs.env_name", b"A-B").unwrap_err();
    assert_eq!(bad.raw_os_error(), Some(libc::EINVAL));
    world.set_attribute("app/other", "env_name", "APP_DB_PASS");
    let twice = bounded(world.secretfs().args(["env", "--format", "sh", "--all"]));
    assert_eq!(twice.status.code(), Some(9), "two secrets would be one variable");
}
