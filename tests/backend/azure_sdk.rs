//! Azure's own Python clients against the Key Vault of these tests, and against what ours has stored there: so that
//! neither is only as we imagine it.

use std::path::Path;
use std::process::Command;

use secretfs::backend::azure::VaultKey;
use secretfs::backend::{Backend, KeyService};
use serde_json::{Value, json};

use crate::common::{bounded, python, skip};
use crate::conformance::{bytes, get, put, time};
use crate::keyvault::{
    AUTHORITY, CLIENT, CLIENT_SECRET, FEDERATED, IDENTITY_HEADER, KeyVault, TENANT, VAULT,
    secret_variable, with_secret,
};

/// Runs one function of the script, and returns what it prints.
fn sdk(vault: &KeyVault, what: &str, variables: &[(&str, &str)]) -> Option<Value> {
    let python = python()?;
    let libraries = std::fs::read_dir(python.parent()?.parent()?.join("lib")).unwrap().flatten();
    let places = ["keyvault/keys", "keyvault/secrets", "identity"];
    let has_all = |library: &Path| {
        places.iter().all(|place| library.join("site-packages/azure").join(place).exists())
    };
    if !libraries.map(|library| library.path()).any(|library| has_all(&library)) {
        skip("no clients of Azure in target/python: scripts/setup-python.sh installs them");
        return None;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/backend/azure_sdk.py");
    let mut command = Command::new(python);
    command.arg(script).arg(what).env_clear();
    command.env("REQUESTS_CA_BUNDLE", vault.service.authority());
    command.env("HTTPS_PROXY", vault.proxy.url()).env("NO_PROXY", "127.0.0.1");
    command.env("VAULT", format!("https://{VAULT}")).env("AZURE_AUTHORITY_HOST", AUTHORITY);
    command.env("AZURE_TENANT_ID", TENANT).env("AZURE_CLIENT_ID", CLIENT);
    command.env("AZURE_CLIENT_SECRET", CLIENT_SECRET).envs(variables.iter().copied());
    let output = bounded(&mut command);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {errors}");
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn azure_s_own_client_finds_the_key_vault_as_azure_documents_it() {
    let vault = KeyVault::start();
    vault.set(|state| state.lag = 1);
    let Some(found) = sdk(&vault, "secrets", &[]) else { return };
    assert_eq!(
        found,
        json!({
            "current": "two", "first": "one", "versions": 2, "content_type": "text/plain",
            "tags": { "a": "b" }, "expires": true, "pages": [25, 25, 10],
            "missing": "ResourceNotFoundError SecretNotFound",
            "disabled": "HttpResponseError Forbidden SecretDisabled",
            "deleted": "ResourceNotFoundError SecretNotFound",
            "again": "ResourceExistsError Conflict ObjectIsDeletedButRecoverable",
            "deleted_names": ["s"], "recovered": "two", "purged": [],
            "too_long": "HttpResponseError BadParameter", "bad_name": "HttpResponseError BadParameter",
        })
    );
}

#[test]
fn azure_s_own_client_and_ours_read_what_the_other_has_stored() {
    let vault = KeyVault::start();
    let client = vault.client(|_| {});
    put(&client, "app/Db.key", "\u{e9}\"x\"\n".as_bytes());
    put(&client, "app/bytes", b"\xff\xfe");
    let Some(found) = sdk(&vault, "exchange", &[]) else { return };
    assert_eq!(
        found,
        json!({
            "app--bytes": ["//4=", "application/octet-stream;base64"],
            "app-----cd---cb---pkey": ["\u{e9}\"x\"\n", null],
        })
    );
    assert_eq!(get(&client, "theirs/s"), Ok("\u{1f511} theirs".as_bytes().to_vec()));
    let described = client.describe("theirs/s", time()).unwrap();
    assert_eq!(described.tags["kept"], "yes");
}

#[test]
fn azure_s_own_client_logs_in_every_way_that_ours_does() {
    let vault = KeyVault::start();
    put(&vault.client(|_| {}), "s", b"x");
    let certificate = vault.certificate();
    let token = vault.file("token", FEDERATED);
    let endpoint = vault.service.url("/msi/token");
    let imds = vault.service.url("");
    let (certificate, token) = (certificate.to_str().unwrap(), token.to_str().unwrap());
    for (how, variables) in [
        ("client_secret", vec![]),
        ("client_certificate", vec![("CERTIFICATE", certificate)]),
        ("workload_identity", vec![("AZURE_FEDERATED_TOKEN_FILE", token)]),
        ("managed_identity", vec![("AZURE_POD_IDENTITY_AUTHORITY_HOST", imds.as_str())]),
        (
            "managed_identity",
            vec![("IDENTITY_ENDPOINT", endpoint.as_str()), ("IDENTITY_HEADER", IDENTITY_HEADER)],
        ),
    ] {
        let variables = [vec![("HOW", how)], variables].concat();
        let Some(found) = sdk(&vault, "login", &variables) else { return };
        assert_eq!(found, "x", "{how}");
    }
}

#[test]
fn azure_s_own_client_opens_what_our_key_has_sealed_and_the_other_way_round() {
    let vault = KeyVault::start();
    vault.make_key("root");
    let key = VaultKey::new(&vault.settings(with_secret()), "root", &secret_variable).unwrap();
    let wrapped = key.wrap(&bytes(b"canary-7f3a"), time()).unwrap();
    let Some(found) = sdk(&vault, "keys", &[("WRAPPED", &wrapped)]) else { return };
    assert_eq!(found["opened"], "canary-7f3a");
    let theirs = found["wrapped"].as_str().unwrap();
    assert_eq!(key.unwrap(theirs, time()).unwrap().expose(), b"canary-9c1d");
}
