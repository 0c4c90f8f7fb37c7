//! Vault's client: the suite over a real `OpenBao`, and what only Vault has: logins, namespaces, seals, fields.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use base64ct::{Base64UrlUnpadded, Encoding};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use secretfs::backend::http::Method;
use secretfs::backend::vault::{AuthSettings, Engine, Vault};
use secretfs::backend::{Backend, BackendError, Expect, Put, Which};
use serde_json::{Value, json};

use crate::common::{eventually, write_file};
use crate::conformance::{bytes, conforms, get, listed, put, time};
use crate::servers::{OpenBao, Pair};

#[test]
fn vault_with_versions_conforms() {
    let Some(bao) = OpenBao::start() else { return };
    conforms(&bao.vault(|_| {}));
}

#[test]
fn vault_without_versions_conforms_below_a_prefix() {
    let Some(bao) = OpenBao::start() else { return };
    conforms(&bao.vault(|settings| {
        (settings.mount, settings.engine) = ("old".into(), Engine::Kv1);
        settings.prefix = "some/where".into();
    }));
}

#[test]
fn what_is_stored_is_what_vault_s_own_client_reads() {
    let Some(bao) = OpenBao::start() else { return };
    let vault = bao.vault(|settings| settings.prefix = "app/".into());
    put(&vault, "db", b"canary-7f3a");
    assert_eq!(bao.cli(&["kv", "get", "-field=value", "secret/app/db"]), "canary-7f3a");
    put(&vault, "object", br#"{"password":"x","user":"y"}"#);
    assert_eq!(bao.cli(&["kv", "get", "-field=user", "secret/app/object"]), "y");
    bao.cli(&["kv", "put", "secret/app/cli", "b=2", "a=1"]);
    assert_eq!(get(&vault, "cli").unwrap(), br#"{"a":"1","b":"2"}"#);
    bao.cli(&["kv", "put", "secret/app/cli", "value=alone"]);
    assert_eq!(get(&vault, "cli").unwrap(), b"alone");
    assert_eq!(listed(&vault).into_iter().collect::<Vec<_>>(), ["cli", "db", "object"]);
}

#[test]
fn a_version_that_is_deleted_or_destroyed_is_not_readable_and_the_others_are() {
    let Some(bao) = OpenBao::start() else { return };
    let vault = bao.vault(|_| {});
    let ids = ["one", "two", "three"].map(|value| put(&vault, "v", value.as_bytes()).id);
    bao.ask(Method::Post, "secret/delete/v", &json!({ "versions": [1] }));
    bao.ask(Method::Put, "secret/destroy/v", &json!({ "versions": [2] }));
    let readable: Vec<bool> =
        vault.versions("v", time()).unwrap().iter().map(|version| version.readable).collect();
    assert_eq!(readable, [false, false, true]);
    for (id, value) in ids.into_iter().zip([None, None, Some(&b"three"[..])]) {
        let read = vault.get("v", &Which::Id(id), time());
        assert_eq!(read.as_ref().ok().map(|read| read.value.expose()), value);
    }
    bao.ask(Method::Put, "secret/destroy/v", &json!({ "versions": [3] }));
    assert_eq!(vault.restore("v", time()).unwrap_err(), BackendError::NotFound);
}

#[test]
fn with_fields_each_secret_is_a_directory() {
    let Some(bao) = OpenBao::start() else { return };
    let vault = bao.vault(|settings| settings.fields = true);
    bao.cli(&["kv", "put", "secret/app/db", "user=y", "password=canary-7f3a"]);
    bao.cli(&["kv", "put", "secret/top", "port=5432"]);
    let names: Vec<_> = listed(&vault).into_iter().collect();
    assert_eq!(names, ["app/db/password", "app/db/user", "top/port"]);
    assert_eq!(get(&vault, "app/db/password").unwrap(), b"canary-7f3a");
    assert_eq!(get(&vault, "top").unwrap_err(), BackendError::NoName);
    let missing = ["app/db/missing", "app/db", "none/x"];
    for name in missing {
        assert_eq!(get(&vault, name).unwrap_err(), BackendError::NotFound, "{name}");
    }
    // The others stay.
    let second = put(&vault, "app/db/password", b"canary-9c1d");
    assert_eq!(get(&vault, "app/db/user").unwrap(), b"y");
    put(&vault, "new/one", b"x");
    assert_eq!(bao.cli(&["kv", "get", "-field=one", "secret/new"]), "x");
    let expect = |expect| Put { expect: Some(expect), ..Put::default() };
    let put_with = |name: &str, with| vault.put(name, &bytes(b"z"), &with, time()).map(drop);
    assert_eq!(put_with("app/db/user", expect(Expect::Absent)), Err(BackendError::Conflict));
    assert_eq!(put_with("app/db/port", expect(Expect::Absent)), Ok(()));
    let stale = expect(Expect::Version(second.id));
    assert_eq!(put_with("app/db/port", stale), Err(BackendError::Conflict));
    vault.delete("app/db/port", time()).unwrap();
    assert_eq!(get(&vault, "app/db/port").unwrap_err(), BackendError::NotFound);
    assert_eq!(vault.delete("app/db/port", time()).unwrap_err(), BackendError::NotFound);
    for refused in [vault.restore("app/db/user", time()), vault.destroy("app/db/user", time())] {
        assert!(matches!(refused, Err(BackendError::Unsupported(_))), "{refused:?}");
    }
}

/// Makes a policy that reads all, and a role whose tokens have it and live for so long.
fn approle(bao: &OpenBao, life: &Value) -> AuthSettings {
    let read = "path \"secret/*\" { capabilities = [\"read\", \"list\", \"create\", \"update\"] }";
    bao.ask(Method::Put, "sys/policies/acl/reader", &json!({ "policy": read }));
    bao.ask(Method::Post, "sys/auth/approle", &json!({ "type": "approle" }));
    let mut role = json!({ "token_policies": ["reader"] });
    for (key, value) in life.as_object().unwrap() {
        role[key] = value.clone();
    }
    bao.ask(Method::Post, "auth/approle/role/app", &role);
    let path = "auth/approle/role/app/role-id";
    let role_id = bao.ask(Method::Get, path, &Value::Null)["data"]["role_id"].clone();
    let made = bao.ask(Method::Post, "auth/approle/role/app/secret-id", &json!({}));
    let file = bao.path("secret-id");
    write_file(&file, format!("{}\n", made["data"]["secret_id"].as_str().unwrap()).as_bytes());
    AuthSettings::AppRole {
        mount: "approle".into(),
        role_id: role_id.as_str().unwrap().into(),
        secret_id_file: Some(file),
    }
}

/// Returns the accessors of the tokens that came by a login.
fn tokens(bao: &OpenBao) -> Vec<String> {
    let listed = bao.ask(Method::Get, "auth/token/accessors?list=true", &Value::Null);
    let accessors = listed["data"]["keys"].as_array().unwrap().iter();
    let accessors = accessors.map(|accessor| accessor.as_str().unwrap().to_owned());
    let by_login = |accessor: &String| {
        let body = json!({ "accessor": accessor });
        let looked = bao.ask(Method::Post, "auth/token/lookup-accessor", &body);
        looked["data"]["path"] == "auth/approle/login"
    };
    accessors.filter(by_login).collect()
}

#[test]
fn a_short_lived_token_runs_out_and_readers_do_not_see_it() {
    let Some(bao) = OpenBao::start() else { return };
    put(&bao.vault(|_| {}), "s", b"x");
    let auth = approle(&bao, &json!({ "token_ttl": "1s", "token_max_ttl": "2s" }));
    let vault = Vault::new(&bao.settings(auth), None).unwrap();
    let start = Instant::now();
    // Longer than one token can live.
    while start.elapsed() < Duration::from_secs(5) {
        assert_eq!(get(&vault, "s").unwrap(), b"x");
        std::thread::sleep(Duration::from_millis(30));
    }
}

#[test]
fn a_given_token_is_renewed_before_it_ends() {
    let Some(bao) = OpenBao::start() else { return };
    put(&bao.vault(|_| {}), "s", b"x");
    let made = bao.ask(
        Method::Post,
        "auth/token/create",
        &json!({ "policies": ["root"], "ttl": "3s", "period": "3s", "renewable": true }),
    );
    let token = made["auth"]["client_token"].as_str().unwrap();
    let settings = bao.settings(AuthSettings::Token { token_file: None });
    let vault = Vault::new(&settings, Some(bytes(token.as_bytes()))).unwrap();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(5) {
        assert_eq!(get(&vault, "s").unwrap(), b"x");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_revoked_token_is_replaced_by_one_login_however_many_readers_notice() {
    let Some(bao) = OpenBao::start() else { return };
    put(&bao.vault(|_| {}), "s", b"x");
    let auth = approle(&bao, &json!({ "token_ttl": "1h" }));
    let vault = Vault::new(&bao.settings(auth), None).unwrap();
    let read_by_many = || {
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| assert_eq!(get(&vault, "s").unwrap(), b"x"));
            }
        });
    };
    read_by_many();
    let first = tokens(&bao);
    assert_eq!(first.len(), 1, "one login for all");
    bao.ask(Method::Post, "auth/token/revoke-accessor", &json!({ "accessor": first[0] }));
    read_by_many();
    let second = tokens(&bao);
    assert!(second.len() == 1 && second != first, "{first:?} {second:?}");
}

#[test]
fn what_a_token_may_not_do_is_denied_and_costs_no_other_login() {
    let Some(bao) = OpenBao::start() else { return };
    put(&bao.vault(|_| {}), "s", b"x");
    let auth = approle(&bao, &json!({ "token_ttl": "1h" }));
    let vault = Vault::new(&bao.settings(auth), None).unwrap();
    for _ in 0..3 {
        let denied = vault.destroy("s", time()).unwrap_err();
        assert!(matches!(denied, BackendError::Denied(_)), "{denied:?}");
    }
    assert_eq!(tokens(&bao).len(), 1);
    assert_eq!(get(&vault, "s").unwrap(), b"x");
}

#[test]
fn whoever_is_not_known_is_unauthenticated() {
    let Some(bao) = OpenBao::start() else { return };
    let good = approle(&bao, &json!({}));
    let AuthSettings::AppRole { mount, role_id, secret_id_file } = good.clone() else { return };
    write_file(&bao.path("wrong"), b"canary-7f3a\n");
    let app = |mount: &str, role_id: &str, file| AuthSettings::AppRole {
        mount: mount.into(),
        role_id: role_id.into(),
        secret_id_file: file,
    };
    for bad in [
        app(&mount, "canary-role", secret_id_file.clone()),
        app(&mount, &role_id, Some(bao.path("wrong"))),
        app(&mount, &role_id, Some(bao.path("missing"))),
        app("nowhere", &role_id, secret_id_file),
        AuthSettings::Token { token_file: None },
        AuthSettings::Token { token_file: Some(bao.path("wrong")) },
    ] {
        let vault = Vault::new(&bao.settings(bad.clone()), None).unwrap();
        let failed = get(&vault, "s").unwrap_err();
        assert!(matches!(failed, BackendError::Unauthenticated(_)), "{bad:?}: {failed:?}");
        assert!(!failed.to_string().contains("canary") && !failed.is_passing(), "{failed}");
        let probes = vault.check(time());
        let last = probes.last().unwrap();
        assert_eq!((probes.len(), last.what, last.worked), (3, "authenticated", false));
    }
}

#[test]
fn a_token_file_that_is_written_anew_is_read_anew() {
    let Some(bao) = OpenBao::start() else { return };
    put(&bao.vault(|_| {}), "s", b"x");
    let token = || {
        let made = bao.ask(Method::Post, "auth/token/create", &json!({ "ttl": "1h" }));
        made["auth"]["client_token"].as_str().unwrap().to_owned()
    };
    let (file, first) = (bao.path("token"), token());
    write_file(&file, first.as_bytes());
    let auth = AuthSettings::Token { token_file: Some(file.clone()) };
    let vault = Vault::new(&bao.settings(auth), None).unwrap();
    assert_eq!(get(&vault, "s").unwrap(), b"x");
    bao.ask(Method::Post, "auth/token/revoke", &json!({ "token": first }));
    let refused = get(&vault, "s").unwrap_err();
    assert!(matches!(refused, BackendError::Unauthenticated(_)), "{refused:?}");
    fs::remove_file(&file).unwrap();
    write_file(&file, token().as_bytes());
    assert_eq!(get(&vault, "s").unwrap(), b"x");
}

#[test]
fn a_certificate_logs_in() {
    let Some(bao) = OpenBao::start() else { return };
    put(&bao.vault(|_| {}), "s", b"x");
    approle(&bao, &json!({}));
    let [known, other] =
        ["known", "other"].map(|name| Pair::make(Path::new(&bao.path("")), name, None));
    bao.ask(Method::Post, "sys/auth/cert", &json!({ "type": "cert" }));
    let certificate = fs::read_to_string(&known.certificate).unwrap();
    let web = json!({ "certificate": certificate, "token_policies": ["reader"] });
    bao.ask(Method::Post, "auth/cert/certs/web", &web);
    let read_with = |pair: &Pair, role: Option<&str>| {
        let auth = AuthSettings::Cert { mount: "cert".into(), role: role.map(str::to_owned) };
        let mut settings = bao.settings(auth);
        settings.connection.certificate = Some(pair.certificate.clone());
        settings.connection.key = Some(pair.key.clone());
        get(&Vault::new(&settings, None).unwrap(), "s")
    };
    for role in [None, Some("web")] {
        assert_eq!(read_with(&known, role).unwrap(), b"x");
    }
    for (pair, role) in [(&other, None), (&known, Some("no-such-role"))] {
        let failed = read_with(pair, role).unwrap_err();
        assert!(matches!(failed, BackendError::Unauthenticated(_)), "{failed:?}");
    }
}

#[test]
fn a_jwt_of_somebody_else_logs_in() {
    let Some(bao) = OpenBao::start() else { return };
    put(&bao.vault(|_| {}), "s", b"x");
    approle(&bao, &json!({}));
    let random = SystemRandom::new();
    let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
    let made = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
    let key = EcdsaKeyPair::from_pkcs8(algorithm, made.as_ref(), &random).unwrap();
    bao.ask(Method::Post, "sys/auth/jwt", &json!({ "type": "jwt" }));
    let public = public_pem(key.public_key().as_ref());
    bao.ask(Method::Post, "auth/jwt/config", &json!({ "jwt_validation_pubkeys": [public] }));
    bao.ask(
        Method::Post,
        "auth/jwt/role/pod",
        &json!({
            "role_type": "jwt", "bound_audiences": ["secretfs"], "user_claim": "sub",
            "token_policies": ["reader"],
        }),
    );
    let read_as = |audience: &str, role: &str| {
        let claims = json!({
            "sub": "pod", "aud": audience, "iat": 1_700_000_000_u64, "exp": 4_000_000_000_u64,
        });
        let encode = |part: &Value| Base64UrlUnpadded::encode_string(part.to_string().as_bytes());
        let signed = format!("{}.{}", encode(&json!({ "alg": "ES256" })), encode(&claims));
        let signature = key.sign(&random, signed.as_bytes()).unwrap();
        let signature = Base64UrlUnpadded::encode_string(signature.as_ref());
        let file = bao.path(&format!("{audience}-{role}.jwt"));
        write_file(&file, format!("{signed}.{signature}").as_bytes());
        let auth = AuthSettings::Jwt { mount: "jwt".into(), role: role.into(), jwt_file: file };
        get(&Vault::new(&bao.settings(auth), None).unwrap(), "s")
    };
    assert_eq!(read_as("secretfs", "pod").unwrap(), b"x");
    for (audience, role) in [("other", "pod"), ("secretfs", "no-such-role")] {
        let failed = read_as(audience, role).unwrap_err();
        assert!(matches!(failed, BackendError::Unauthenticated(_)), "{failed:?}");
    }
}

/// Writes a point of P-256 as a public key is written in PEM.
fn public_pem(point: &[u8]) -> String {
    let head = [
        0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08,
        0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
    ];
    let der = [&head[..], point].concat();
    pem_rfc7468::encode_string("PUBLIC KEY", pem_rfc7468::LineEnding::LF, &der).unwrap()
}

#[test]
fn a_namespace_has_secrets_of_its_own() {
    let Some(bao) = OpenBao::start() else { return };
    bao.ask(Method::Post, "sys/namespaces/team", &json!({}));
    let engine = json!({ "type": "kv", "options": { "version": "2" } });
    bao.ask_in(Method::Post, "sys/mounts/secret", &engine, Some("team"));
    let root = bao.vault(|_| {});
    let team = bao.vault(|settings| settings.namespace = Some("team".into()));
    eventually("the engine is ready", || team.list(None, time()).is_ok());
    put(&root, "s", b"root's");
    put(&team, "s", b"team's");
    assert_eq!(
        (get(&root, "s").unwrap(), get(&team, "s").unwrap()),
        (b"root's".into(), b"team's".into())
    );
    assert!(team.check(time()).iter().all(|probe| probe.worked));
}

#[test]
fn a_sealed_server_is_a_failure_that_passes() {
    let Some(bao) = OpenBao::start() else { return };
    let vault = bao.vault(|_| {});
    put(&vault, "s", b"x");
    bao.seal();
    let failed = get(&vault, "s").unwrap_err();
    assert!(failed.is_passing() && failed.to_string().contains("sealed"), "{failed:?}");
    let probes = vault.check(time());
    assert!(probes.len() == 1 && !probes[0].worked && probes[0].note.contains("sealed"));
    // Nor does one that has to log in first take it for a wrong credential.
    let auth = AuthSettings::AppRole {
        mount: "approle".into(),
        role_id: "example".into(),
        secret_id_file: None,
    };
    let failed = get(&Vault::new(&bao.settings(auth), None).unwrap(), "s").unwrap_err();
    assert!(failed.is_passing(), "{failed:?}");
    bao.unseal();
    assert_eq!(get(&vault, "s").unwrap(), b"x");
}
