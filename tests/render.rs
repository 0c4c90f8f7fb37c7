//! `render` and `import`: files with secrets in them, and secrets out of files.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test file: its helpers are tests too"
)]

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use common::{Person, World, bounded, eventually, write_file};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const ADA: u32 = 61_501;

const ADA_READS_OPEN: &str = r#"
[[role]]
name = "reader"
allow = [{ names = ["app/open"], levels = ["read"] }]
[[role]]
name = "writer"
allow = [{ names = ["app/closed"], levels = ["write"] }]
[[binding]]
id = "ada-reads"
role = "reader"
uid = [61501]
[[binding]]
id = "ada-writes"
role = "writer"
uid = [61501]
"#;

fn secretfs(world: &World, args: &[&str]) -> Output {
    bounded(world.secretfs().args(args))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Makes a file beside the mount and returns its path as text.
fn file(world: &World, name: &str, content: &str) -> String {
    let path = world.outside(name);
    write_file(&path, content.as_bytes());
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_template_is_filled_in_all_three_spellings_into_a_private_file() {
    let Some(world) = World::start() else { return };
    world.put("api-key", "k1");
    world.put("prod/db/password", "p\"w\n");
    let template = file(
        &world,
        "t",
        "a={{ API_KEY }}\nb={{ secret(\"prod/db/password\") | trim | json }}\nc=${SECRET_API_KEY} d=@X@\n",
    );
    let out = world.outside("out");
    let out = out.to_str().unwrap();
    let args = ["render", &template, "-o", out, "--pattern", "@X@=api-key"];
    let output = secretfs(&world, &args);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(fs::read_to_string(out).unwrap(), "a=k1\nb=\"p\\\"w\"\nc=k1 d=k1\n");
    assert_eq!(fs::metadata(out).unwrap().permissions().mode() & 0o777, 0o600);
    let shared = ["--mode", "0640", "--owner", "daemon:bin"];
    assert!(secretfs(&world, &[&args[..], &shared].concat()).status.success());
    let found = fs::metadata(out).unwrap();
    assert_eq!((found.permissions().mode() & 0o777, found.uid(), found.gid()), (0o640, 1, 2));
    let output =
        secretfs(&world, &["render", &template, "--dir", "prod", "--pattern", "@X@=api-key"]);
    assert!(text(&output.stderr).contains("there is no secret for API_KEY"), "{output:?}");
}

#[test]
fn hostile_values_come_out_as_they_are_and_large_ones_too() {
    let Some(world) = World::start() else { return };
    let values: [&[u8]; 4] = [
        &(0..=255).collect::<Vec<u8>>(),
        b"{{ X }}${SECRET_X}{% if %}",
        b"\n",
        &common::noise(3, 1 << 20),
    ];
    let template = file(&world, "t", "<{{ V }}|${SECRET_V}>\n");
    for value in values {
        world.put("v", value);
        let output = secretfs(&world, &["render", &template]);
        let expected = [b"<", value, b"|", value, b">\n"].concat();
        assert!(output.stdout == expected, "{:?}", text(&output.stderr));
    }
}

#[test]
fn what_is_unknown_or_may_not_be_read_fails_the_whole_and_writes_nothing() {
    let Some(world) = World::with_policy(ADA_READS_OPEN) else { return };
    world.put("app/open", "canary-7f3a");
    world.put("app/closed", "closed");
    let out = world.outside("out");
    let unknown = file(&world, "t", "{{ APP_OPEN }}\n  {{ NOPE }}");
    let output = secretfs(&world, &["render", &unknown, "-o", out.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(9));
    assert!(text(&output.stderr).contains("line 2, column 6: there is no secret for NOPE"));
    assert!(!out.exists());
    for placeholder in ["{{ APP_CLOSED }}", "{{ secret('app/closed') }}", "${SECRET_APP_CLOSED}"] {
        let template = file(&world, "t", &format!("{{{{ APP_OPEN }}}} {placeholder}"));
        fs::set_permissions(&template, fs::Permissions::from_mode(0o644)).unwrap();
        let mut command = Person::new(ADA).command(env!("CARGO_BIN_EXE_secretfs"));
        command.env("HOME", "/nonexistent").arg("--mount").arg(world.path(""));
        let output = bounded(command.args(["render", &template]));
        assert_eq!(output.status.code(), Some(5), "{placeholder}: {output:?}");
        assert!(output.stdout.is_empty() && !text(&output.stderr).contains("canary"));
    }
}

/// A process that is ended with its test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGKILL);
        drop(self.0.wait());
    }
}

#[test]
fn a_watched_file_follows_its_secrets_as_one_set_and_runs_a_command_each_time() {
    let Some(world) = World::start() else { return };
    world.put("tls/cert", "c0");
    world.put("tls/key", "k0");
    let template = file(&world, "t", "{{ TLS_CERT }} {{ TLS_KEY }}");
    let (out, log) = (world.outside("out"), world.outside("log"));
    let script = format!("cat {0} >> {1}; echo >> {1}", out.display(), log.display());
    let secretfs = world.secretfs();
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "SIGKILL"]).arg(secretfs.get_program());
    command.args(secretfs.get_args()).arg("render").arg(&template).arg("-o").arg(&out);
    command.args(["--watch", "--exec", &script]).env("XDG_CONFIG_HOME", world.outside("config"));
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let _child = Ended(child);
    let shows = |content: &str| fs::read_to_string(&out).is_ok_and(|found| found == content);
    eventually("it is written at once", || shows("c0 k0"));
    for n in 1..=20 {
        world.put("tls/cert", format!("c{n}"));
        world.put("tls/key", format!("k{n}"));
        eventually("it follows", || shows(&format!("c{n} k{n}")));
    }
    eventually("the command has seen the last", || {
        fs::read_to_string(&log).is_ok_and(|log| log.ends_with("c20 k20\n"))
    });
    fs::remove_file(world.path("tls/key")).unwrap();
    world.put("tls/cert", "c21");
    // The file stays as it was until all of it can be had again.
    world.put("tls/key", "k21");
    eventually("it follows", || shows("c21 k21"));
    let log = fs::read_to_string(&log).unwrap();
    assert!(!log.contains("c21 k20"), "{log}");
}

#[test]
fn what_is_imported_from_a_dotenv_file_is_there_under_the_placeholder_that_is_left() {
    let Some(world) = World::start() else { return };
    let content = "# c\nPORT=80\nDB_PASSWORD='p w' # n\nexport API_KEY=\"k\\n1\"\nURL=pg://u:pw@h/d\nREF=${DB_PASSWORD}\n";
    let path = file(&world, ".env", content);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let import = ["import", "dotenv", &path, "--dir", "app", "--rewrite"];
    let output = secretfs(&world, &[&import[..], &["--dry-run"]].concat());
    assert_eq!(text(&output.stdout).matches("would be created").count(), 3, "{output:?}");
    assert_eq!(fs::read_to_string(&path).unwrap(), content);
    assert!(world.get("app/api-key").is_err());
    let output = secretfs(&world, &import);
    assert!(output.status.success(), "{output:?}");
    let expected = "# c\nPORT=80\nDB_PASSWORD=${SECRET_APP_DB_PASSWORD} # n\nexport API_KEY=${SECRET_APP_API_KEY}\n\
        URL=${SECRET_APP_URL}\nREF=${DB_PASSWORD}\n";
    assert_eq!(fs::read_to_string(&path).unwrap(), expected);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(world.get("app/api-key").unwrap(), b"k\n1");
    let script = "printf '%s|' \"$PORT\" \"$DB_PASSWORD\" \"$API_KEY\" \"$URL\"";
    let output = secretfs(&world, &["run", "--env-file", &path, "--", "sh", "-c", script]);
    assert_eq!(text(&output.stdout), "80|p w|k\n1|pg://u:pw@h/d|");
    // Again, there is nothing left to import.
    assert_eq!(secretfs(&world, &import).status.code(), Some(9));
}

#[test]
fn what_is_imported_from_yaml_and_json_is_replaced_where_it_stands() {
    let Some(world) = World::start() else { return };
    let yaml = "db: {host: h, password: 'it''s'}\ntokens:\n  - \"t\\u00e91\" # c\nkey: |\n  line\n  more\nlast: &x !!str x\nlast_token: &y 't'\npw: &z !!str p\n";
    let path = file(&world, "c.yaml", yaml);
    let output = secretfs(&world, &["import", "yaml", &path, "--rewrite"]);
    assert!(output.status.success(), "{output:?}");
    let expected = "db: {host: h, password: \"${SECRET_DB_PASSWORD}\"}\ntokens:\n  - \"${SECRET_TOKENS_0}\" # c\n\
        key: \"${SECRET_KEY}\"\nlast: &x !!str x\nlast_token: &y \"${SECRET_LAST_TOKEN}\"\npw: &z !!str \"${SECRET_PW}\"\n";
    assert_eq!(fs::read_to_string(&path).unwrap(), expected);
    assert_eq!(world.get("db/password").unwrap(), b"it's");
    assert_eq!(world.get("tokens/0").unwrap(), "t\u{e9}1".as_bytes());
    assert_eq!(world.get("key").unwrap(), b"line\nmore\n");
    let path = file(
        &world,
        "c.json",
        "{ \"a\": {\"b\": \"q\\\"\\ud83d\\udd11\"},\n  \"c\": [true, \"x\"] }\n",
    );
    let output = secretfs(&world, &["import", "json", &path, "--rewrite", "--all", "--dir", "j"]);
    assert!(output.status.success(), "{output:?}");
    let expected =
        "{ \"a\": {\"b\": \"${SECRET_J_A_B}\"},\n  \"c\": [true, \"${SECRET_J_C_1}\"] }\n";
    assert_eq!(fs::read_to_string(&path).unwrap(), expected);
    assert_eq!(world.get("j/a/b").unwrap(), "q\"\u{1f511}".as_bytes());
    let rendered = secretfs(&world, &["render", &path, "--plain"]);
    assert!(text(&rendered.stdout).contains("\"x\""));
}

#[test]
fn a_directory_of_files_and_what_env_prints_are_imported() {
    let Some(world) = World::start() else { return };
    let top = world.outside("old");
    fs::create_dir_all(top.join("db")).unwrap();
    write_file(&top.join("db/pass"), b"\xff\x00x");
    write_file(&top.join("api"), b"a");
    write_file(&top.join(".hidden"), b"h");
    std::os::unix::fs::symlink("/etc/passwd", top.join("link")).unwrap();
    let import = ["import", "dir", top.to_str().unwrap(), "--dir", "old", "--rewrite"];
    let output = secretfs(&world, &import);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(world.get("old/db/pass").unwrap(), b"\xff\x00x");
    assert_eq!(fs::read_to_string(top.join("db/pass")).unwrap(), "${SECRET_OLD_DB_PASS}");
    assert_eq!(
        (world.list("old"), world.list("old/db")),
        (vec!["api".into(), "db".into()], vec!["pass".into()])
    );
    let path = file(&world, "environ", "A=1\nmore\0MY_TOKEN='t'\0");
    let output = secretfs(&world, &["import", "env", &path]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(world.get("my-token").unwrap(), b"'t'");
    assert!(world.get("a").is_err());
}

#[test]
fn a_name_that_is_taken_stops_an_import_before_anything_is_stored() {
    let Some(world) = World::start() else { return };
    world.put("b-key", "other");
    let path = file(&world, "e", "A_KEY=1\nB_KEY=2\n");
    let output = secretfs(&world, &["import", "dotenv", &path, "--rewrite"]);
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    assert!(world.get("a-key").is_err());
    assert_eq!(fs::read_to_string(&path).unwrap(), "A_KEY=1\nB_KEY=2\n");
    assert!(secretfs(&world, &["import", "dotenv", &path, "--replace"]).status.success());
    assert_eq!(
        (world.get("a-key").unwrap(), world.get("b-key").unwrap()),
        (b"1".to_vec(), b"2".to_vec())
    );
    let path = file(&world, "e", "a_key=1\nA_KEY=3\n");
    assert_eq!(
        secretfs(&world, &["import", "dotenv", &path, "--replace", "--rewrite"]).status.code(),
        Some(4)
    );
    assert!(Path::new(&path).exists());
}

#[test]
fn a_link_leads_to_the_secret_and_follows_it_and_nothing_of_others_is_replaced() {
    let Some(world) = World::start() else { return };
    world.put("app/key", "v1");
    world.put("app/other", "o1");
    let path = world.outside("key.pem");
    let place = path.to_str().unwrap();
    assert!(secretfs(&world, &["inject", "file", "app/key", place]).status.success());
    assert_eq!(fs::read_link(&path).unwrap(), world.path("app/key"));
    world.put("app/key", "v2");
    assert_eq!(fs::read(&path).unwrap(), b"v2");
    assert!(secretfs(&world, &["inject", "file", "app/other", place]).status.success());
    assert_eq!(fs::read(&path).unwrap(), b"o1");
    assert_eq!(secretfs(&world, &["inject", "file", "app/none", place]).status.code(), Some(3));
    assert!(secretfs(&world, &["inject", "remove", place]).status.success());
    assert!(fs::symlink_metadata(&path).is_err());
    let mine = file(&world, "mine", "mine");
    for args in [&["inject", "file", "app/key", &mine][..], &["inject", "remove", &mine]] {
        assert_eq!(secretfs(&world, args).status.code(), Some(9), "{args:?}");
    }
    std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
    assert_eq!(secretfs(&world, &["inject", "file", "app/key", place]).status.code(), Some(9));
    assert_eq!(
        (fs::read(&mine).unwrap(), fs::read_link(&path).unwrap()),
        (b"mine".to_vec(), "/etc/passwd".into())
    );
}

#[test]
fn a_copy_in_memory_is_always_whole_and_kept_current_and_leaves_nothing_when_it_is_removed() {
    let Some(world) = World::start() else { return };
    world.put("key", "0".repeat(10_000));
    world.put("cert", "c");
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let (key, cert) = (dir.path().join("key"), dir.path().join("cert"));
    let copy = [
        "inject",
        "file",
        "cert",
        cert.to_str().unwrap(),
        "--copy",
        "--mode",
        "0440",
        "--owner",
        "daemon:bin",
    ];
    assert!(secretfs(&world, &copy).status.success());
    let found = fs::metadata(&cert).unwrap();
    assert_eq!((found.permissions().mode() & 0o777, found.uid(), found.gid()), (0o440, 1, 2));
    let secretfs_command = world.secretfs();
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "SIGKILL"]).arg(secretfs_command.get_program());
    command.args(secretfs_command.get_args()).args(["inject", "file", "key"]).arg(&key);
    command.args(["--copy", "--watch"]).env("XDG_CONFIG_HOME", world.outside("config"));
    let watcher = Ended(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap());
    eventually("it is there", || key.exists());
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    for n in 1..=9 {
        let value = n.to_string().repeat(10_000).into_bytes();
        world.put("key", &value);
        eventually("it follows", || {
            let read = fs::read(&key).unwrap();
            assert!(read.len() == 10_000 && read.iter().all(|byte| *byte == read[0]), "it is torn");
            assert_eq!(fs::read(&cert).unwrap(), b"c", "the other stays");
            read == value
        });
    }
    // Both links, `..data`, what it leads to, and what a change locks.
    eventually("the old ones are gone", || fs::read_dir(dir.path()).unwrap().count() == 5);
    drop(watcher);
    for path in [&key, &cert] {
        assert!(secretfs(&world, &["inject", "remove", path.to_str().unwrap()]).status.success());
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    let disk = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let place = disk.path().join("key");
    let output = secretfs(&world, &["inject", "file", "key", place.to_str().unwrap(), "--copy"]);
    assert_eq!(output.status.code(), Some(9), "{output:?}");
    assert_eq!(fs::read_dir(disk.path()).unwrap().count(), 0);
}
