//! What a service cannot do, or can never take, is refused before anything is asked of it: not even a token.

use std::collections::BTreeMap;

use secretfs::backend::vault::{Engine, Vault, VaultSettings};
use secretfs::backend::{Backend, BackendError, Expect, Put, Result, VersionId, Which};
use secretfs::model::Timestamp;

use crate::conformance::{bytes, time};
use crate::keyvault::KeyVault;
use crate::service::Service;
use crate::{aws_faults, faults};

/// Tries everything that a service says it cannot do.
fn refuses_what_it_cannot(backend: &dyn Backend, name: &str, takes_expiry: bool) {
    let able = backend.abilities(time()).unwrap();
    let version = VersionId("1".repeat(32));
    let put = |put: Put| backend.put(name, &bytes(b"x"), &put, time()).map(drop);
    let expecting = |expect| put(Put { expect: Some(expect), ..Put::default() });
    let staged = Which::Stage("AWSPENDING".into());
    let expires = Some(Timestamp::from_second(4_000_000_000).unwrap());
    let mut tried: Vec<(&str, Result<()>)> = Vec::new();
    if !able.compare_and_set {
        tried.push(("absent", expecting(Expect::Absent)));
        tried.push(("expected", expecting(Expect::Version(version.clone()))));
    }
    if !able.stages {
        tried.push(("stage", backend.stage(name, "AWSPENDING", &version, time())));
        tried.push(("by stage", backend.get(name, &staged, time()).map(drop)));
    }
    if !able.tags {
        tried.push(("tags", backend.tag(name, &BTreeMap::new(), time())));
    }
    if !able.restore {
        tried.push(("restore", backend.restore(name, time())));
    }
    if !takes_expiry {
        tried.push(("expiry", put(Put { expires, ..Put::default() })));
    }
    assert!(!tried.is_empty());
    for (what, refused) in tried {
        assert!(matches!(refused, Err(BackendError::Unsupported(_))), "{what}: {refused:?}");
    }
}

/// Puts what no service of this kind can take.
fn refuses_what_it_cannot_take(backend: &dyn Backend, bad: &[(&str, Vec<u8>)]) {
    for (name, value) in bad {
        let refused = backend.put(name, &bytes(value), &Put::default(), time());
        let length = value.len();
        assert!(matches!(refused, Err(BackendError::Invalid(_))), "{name}, {length}: {refused:?}");
    }
}

fn was_not_asked(service: &Service) {
    assert_eq!(service.asked().len(), 0);
}

#[test]
fn vault_is_not_asked_for_what_it_cannot_do() {
    let fake = faults::Fake::start(Vec::new(), true);
    let client = |engine, fields| {
        Vault::new(&VaultSettings { engine, fields, ..fake.settings() }, None).unwrap()
    };
    for (engine, fields) in
        [(Engine::Kv1, false), (Engine::Kv1, true), (Engine::Kv2, false), (Engine::Kv2, true)]
    {
        refuses_what_it_cannot(&client(engine, fields), "a/b", false);
    }
    let fields = client(Engine::Kv2, true);
    let whole = [fields.destroy("a/b", time()), client(Engine::Kv1, true).delete("a/b", time())];
    for refused in whole {
        assert!(matches!(refused, Err(BackendError::Unsupported(_))), "{refused:?}");
    }
    refuses_what_it_cannot_take(&fields, &[("a/b", b"\xff".to_vec())]);
    let directory = fields.get("a", &Which::Current, time());
    assert_eq!(
        directory.unwrap_err(),
        BackendError::NoName,
        "with fields it is none of a secret's"
    );
    let older = client(Engine::Kv1, false).get("a", &Which::Id(VersionId("7".into())), time());
    assert_eq!(older.unwrap_err(), BackendError::NotFound);
    was_not_asked(&fake.service);
}

#[test]
fn secrets_manager_is_not_asked_for_what_it_cannot_do() {
    let fake = aws_faults::Fake::start(0);
    refuses_what_it_cannot(&fake.client(), "a/b", false);
    let bad = [("a", Vec::new()), ("a", vec![b'x'; 65_537]), ("a b", b"x".to_vec())];
    refuses_what_it_cannot_take(&fake.client(), &bad);
    was_not_asked(&fake.service);
}

#[test]
fn key_vault_is_not_asked_for_what_it_cannot_do() {
    let vault = KeyVault::start();
    let client = vault.client(|_| {});
    refuses_what_it_cannot(&client, "a/b", true);
    let (long, bytes) = (vec![b'x'; (25 << 10) + 1], vec![0xff; 20_000]);
    let bad = [("a", long), ("a", bytes), (&*"a/".repeat(64), b"x".to_vec())];
    refuses_what_it_cannot_take(&client, &bad);
    was_not_asked(&vault.service);
}
