//! Real programs that read files of `.templates` and take new values while they run: nginx, PostgreSQL and its
//! clients, and pydantic-settings.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test fails by panicking"
)]

mod common;
mod servers;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use common::{World, bounded, eventually, python, write_file};
use servers::{Postgresql, Server, port, program};

/// What PostgreSQL's own user may read.
const POLICY: &str = r#"
[[role]]
name = "replication"
allow = [{ names = ["db/replication"], levels = ["read"] }]

[[binding]]
id = "postgres"
role = "replication"
uid = ["postgres"]
"#;

/// Writes templates with a configuration that names them, and has it read.
fn register(world: &World, templates: &[(&str, &str, &str)]) {
    let mut config = String::new();
    for (name, text, more) in templates {
        let file = world.outside(&format!("config/secretfs/{name}.in"));
        write_file(&file, text.as_bytes());
        config.push_str(&format!("[[template]]\nname = {name:?}\nfile = {file:?}\n{more}\n"));
    }
    write_file(&world.outside("config/secretfs/secretfs.toml"), config.as_bytes());
    world.control("reload", "\n").unwrap();
}

#[test]
fn nginx_runs_on_a_configuration_with_secrets_and_takes_a_new_one_at_a_reload() {
    let (Some(nginx), Some(curl)) = (program("nginx"), program("curl")) else { return };
    let Some(world) = World::start() else { return };
    world.put("web/token", "canary-first");
    world.put("web/banner", "hello");
    let (port, home) = (port(), world.outside("nginx"));
    fs::create_dir(&home).unwrap();
    // Longer than nginx's buffer of 4096 bytes: it asks for the size, and wants so many bytes.
    let main = format!(
        "daemon off;\nworker_processes 1;\nerror_log stderr notice;\npid {home}/pid;\nevents {{}}\n{filler}\
         http {{ access_log off; client_body_temp_path {home}/b; proxy_temp_path {home}/p;\n\
         fastcgi_temp_path {home}/f; uwsgi_temp_path {home}/u; scgi_temp_path {home}/s;\n\
         server {{ listen 127.0.0.1:{port}; include {snippet};\n\
         location / {{ return 200 ${{SECRET_WEB_BANNER}}; }} }} }}\n",
        home = home.display(),
        filler = "# as many bytes as it takes\n".repeat(400),
        snippet = world.path(".templates/token.conf").display(),
    );
    let snippet = "if ($http_x_token != \"{{ WEB_TOKEN }}\") { return 403; }\n";
    register(&world, &[("nginx.conf", &main, "plain = true"), ("token.conf", snippet, "")]);
    let mut command = Command::new(nginx);
    command.args(["-e", "stderr", "-p"]).arg(&home);
    command.arg("-c").arg(world.path(".templates/nginx.conf"));
    let server = Server::start(command, port, world.outside("nginx.log"));
    let page = |token: &str| {
        let header = format!("X-Token: {token}");
        let url = format!("http://127.0.0.1:{port}/");
        let output =
            bounded(Command::new(&curl).args(["-sf", "--noproxy", "*", "-H", &header, &url]));
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(page("canary-first"), "hello", "{}", server.said());
    assert_eq!(page("canary-second"), "");
    world.put("web/token", "canary-second");
    world.put("web/banner", "goodbye");
    assert_eq!(page("canary-first"), "hello", "nothing changes before a reload");
    server.signal(Signal::SIGHUP);
    eventually("nginx takes the new token", || page("canary-second") == "goodbye");
    eventually("the old one is gone", || page("canary-first").is_empty());
    let reads = world.audit_of("web/token", "read", "allowed", 0);
    assert!(reads.iter().any(|line| line["version"] == 2 && line["comm"] == "nginx"), "{reads:?}");
}

#[test]
fn postgresql_includes_a_file_with_a_password_and_its_client_logs_in_by_another_through_a_rotation()
{
    let Some(world) = World::with_policy(POLICY) else { return };
    let roles = "CREATE ROLE app LOGIN PASSWORD 'canary-first'";
    let Some(database) = Postgresql::start(roles) else { return };
    let psql = program("psql").unwrap();
    world.put("db/app", "canary-first");
    world.put("db/replication", "canary-first");
    let include = "primary_conninfo = 'host=primary user=rep password={{ DB_REPLICATION }}'\n";
    register(
        &world,
        &[("pgpass", "127.0.0.1:*:*:app:{{ DB_APP }}\n", ""), ("pg.conf", include, "")],
    );
    let config = database.sql("SHOW config_file");
    let mut file = fs::OpenOptions::new().append(true).open(config.trim()).unwrap();
    let line = format!("include '{}'\n", world.path(".templates/pg.conf").display());
    file.write_all(line.as_bytes()).unwrap();
    let connects_with = |password: &str| {
        database.sql("SELECT pg_reload_conf()");
        let expected = format!("host=primary user=rep password={password}\n");
        eventually("the server has the value", || {
            database.sql("SHOW primary_conninfo") == expected
        });
    };
    let logs_in = || {
        let mut command = Command::new(&psql);
        command.env("PGPASSFILE", world.path(".templates/pgpass")).args(["-wh", "127.0.0.1", "-p"]);
        command.arg(database.port.to_string()).args(["-U", "app", "-d", "postgres", "-XAtc"]);
        bounded(command.arg("SELECT current_user")).stdout == b"app\n"
    };
    connects_with("canary-first");
    assert!(logs_in());
    database.sql("ALTER ROLE app PASSWORD 'canary-second'");
    assert!(!logs_in(), "the password is what decides");
    world.put("db/app", "canary-second");
    world.put("db/replication", "canary-second");
    assert!(logs_in());
    connects_with("canary-second");
    let postgres = servers::account("postgres").unwrap().uid;
    let reads = world.audit_of("db/replication", "read", "allowed", postgres);
    assert!(reads.iter().any(|line| line["version"] == 2), "{reads:?}");
    assert!(world.audit_of("db/app", "read", "allowed", postgres).is_empty());
}

#[test]
fn pydantic_settings_read_a_directory_of_secrets_and_a_layer_of_yaml_through_a_rotation() {
    let (Some(python), Some(world)) = (python(), World::start()) else { return };
    world.put("app/api_key", "canary-first");
    world.put("app/number", "12345");
    world.put("app/pem", "-----BEGIN X-----\nQQ==\n-----END X-----\n");
    let yaml = "database:\n  password: {{ secret('app/api_key') | yaml }}\n  number: {{ secret('app/number') | yaml }}\n\
                  pem: {{ secret('app/pem') | yaml }}\n";
    register(&world, &[("settings.yaml", yaml, "")]);
    let program = "import json, sys\n\
        from pydantic import SecretStr\n\
        from pydantic_settings import BaseSettings, SettingsConfigDict, YamlConfigSettingsSource\n\
        class FromDirectory(BaseSettings):\n\
        \tmodel_config = SettingsConfigDict(secrets_dir=sys.argv[1])\n\
        \tapi_key: SecretStr\n\
        \tnumber: str\n\
        class FromLayer(BaseSettings):\n\
        \tmodel_config = SettingsConfigDict(yaml_file=sys.argv[2])\n\
        \tdatabase: dict[str, str]\n\
        \tpem: str\n\
        \t@classmethod\n\
        \tdef settings_customise_sources(cls, settings_cls, **sources):\n\
        \t\treturn (YamlConfigSettingsSource(settings_cls),)\n\
        for line in sys.stdin:\n\
        \td, l = FromDirectory(), FromLayer()\n\
        \tprint(json.dumps([d.api_key.get_secret_value(), d.number, l.database, l.pem]), flush=True)\n";
    let mut child = Command::new(python)
        .args(["-c", program])
        .arg(world.path("app"))
        .arg(world.path(".templates/settings.yaml"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ask = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for value in ["canary-first", "it's: {new} #1"] {
        world.put("app/api_key", value);
        ask.write_all(b"\n").unwrap();
        let read: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        let database = json!({"password": value, "number": "12345"});
        let pem = "-----BEGIN X-----\nQQ==\n-----END X-----\n";
        assert_eq!(read, json!([value, "12345", database, pem]));
    }
    drop(ask);
    child.wait().unwrap();
}
