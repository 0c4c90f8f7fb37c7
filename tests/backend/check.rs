//! `secretfs backend check`, as an administrator types it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::common::{bounded, write_file};
use crate::conformance::put;
use crate::servers::{OpenBao, directory};

/// Runs it with a configuration, and with the token in the environment.
fn check(config: &Path, token: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_secretfs"));
    command.env_clear().env("HOME", "/nonexistent").env("VAULT_TOKEN", token);
    command.arg("--config").arg(config).args(["backend", "check"]).args(arguments);
    bounded(&mut command)
}

fn written(dir: &Path, text: &str) -> PathBuf {
    let path = dir.join("secretfs.toml");
    write_file(&path, text.as_bytes());
    path
}

#[test]
fn a_backend_is_checked_from_the_command_line() {
    let Some(bao) = OpenBao::start() else { return };
    put(&bao.vault(|_| {}), "app/canary-name", b"canary-7f3a");
    let config = format!(
        "[backend.corp]\nkind = \"vault\"\naddress = \"{}\"\nprefix = \"app\"\n\
         [backend.corp.connection]\nca = \"{}\"\n[backend.corp.auth]\nmethod = \"token\"\n",
        bao.address(),
        bao.pair.certificate.display(),
    );
    let config = written(&bao.path(""), &config);
    let output = check(&config, &bao.root, &["corp"]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said} {}", String::from_utf8_lossy(&output.stderr));
    let whats: Vec<_> = said.lines().map(|line| line.split('\t').next().unwrap()).collect();
    assert_eq!(whats, ["reachable", "clock", "authenticated", "may list", "may read"]);
    assert!(said.contains("canary-name") && !said.contains("canary-7f3a"), "{said}");

    let output = check(&config, "canary-token", &["corp", "--json"]);
    assert_eq!(output.status.code(), Some(11));
    let text = String::from_utf8(output.stdout).unwrap();
    let document: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&document["works"], &document["kind"]), (&json!(false), &json!("vault")));
    let last = document["probes"].as_array().unwrap().last().unwrap();
    assert_eq!((&last["what"], &last["worked"]), (&json!("authenticated"), &json!(false)));
    assert!(!text.contains("canary-token"), "{text}");

    let output = check(&config, &bao.root, &["other"]);
    assert_eq!(output.status.code(), Some(12));
    assert!(String::from_utf8(output.stderr).unwrap().contains("it has corp"));
}

#[test]
fn a_setting_that_is_none_is_refused_with_its_place() {
    let dir = directory();
    for (wrong, named) in [
        ("kind = \"vault\"\naddres = \"https://vault.example\"\n", "addres"),
        (
            "kind = \"vault\"\naddress = \"https://vault.example\"\nauth = { method = \"ldap\" }\n",
            "ldap",
        ),
        ("kind = \"no-such-kind\"\n", "no-such-kind"),
    ] {
        let config = written(dir.path(), &format!("[backend.x]\n{wrong}"));
        let output = check(&config, "", &["x"]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(12), "{said}");
        assert!(said.contains("line ") && said.contains(named), "{said}");
        std::fs::remove_file(config).unwrap();
    }
}
