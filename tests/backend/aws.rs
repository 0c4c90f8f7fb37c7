//! Secrets Manager's client: the suite over moto with its signature check on, and what only AWS has: stages, binary
//! values, permissions.

use std::process::Command;
use std::time::Duration;

use secretfs::backend::{Backend, BackendError, Put, VersionId, Which};

use crate::common::{bounded, write_file};
use crate::conformance::{bytes, conforms, get, listed, put, time};
use crate::servers::Moto;

#[test]
fn secrets_manager_conforms() {
    let Some(moto) = Moto::start() else { return };
    conforms(&moto.client(|_| {}));
}

#[test]
fn secrets_manager_conforms_below_a_prefix() {
    let Some(moto) = Moto::start() else { return };
    for name in ["top", "some", "some/whereabouts", "some/where-else"] {
        moto.boto(&format!("sm.create_secret(Name='{name}', SecretString='x')"));
    }
    conforms(&moto.client(|settings| settings.prefix = "some/where".into()));
}

#[test]
fn what_is_stored_is_what_aws_s_own_client_reads() {
    let Some(moto) = Moto::start() else { return };
    let backend = moto.client(|settings| settings.prefix = "app".into());
    put(&backend, "text", "canary-7f3a \"\u{e9}\"\n".as_bytes());
    backend.put("bytes", &bytes(b"\xff\x00"), &Put::default(), time()).unwrap();
    let binary = Put { binary: true, ..Put::default() };
    backend.put("said", &bytes(b"text"), &binary, time()).unwrap();
    let read = moto.boto(
        "for name in ('text', 'bytes', 'said'):\n\
         \x20   got = sm.get_secret_value(SecretId='app/' + name)\n\
         \x20   print(ascii(got.get('SecretString') or got['SecretBinary']))",
    );
    assert_eq!(read, "'canary-7f3a \"\\xe9\"\\n'\nb'\\xff\\x00'\nb'text'");
    moto.boto(
        "sm.create_secret(Name='app/theirs', SecretString='one', Description='why',\n\
         \x20   Tags=[{'Key': 'service', 'Value': 'example'}])\n\
         sm.put_secret_value(SecretId='app/theirs', SecretBinary=b'\\xfe')",
    );
    assert_eq!(get(&backend, "theirs").unwrap(), b"\xfe");
    let described = backend.describe("theirs", time()).unwrap();
    assert_eq!(described.description.as_deref(), Some("why"));
    assert_eq!(described.tags["service"], "example");
    assert!(described.created.is_some() && described.changed.is_some() && !described.deleted);
    let names: Vec<_> = listed(&backend).into_iter().collect();
    assert_eq!(names, ["bytes", "said", "text", "theirs"]);
}

#[test]
fn a_list_says_when_secrets_were_changed_and_how_far_it_may_be_behind() {
    let Some(moto) = Moto::start() else { return };
    let backend = moto.client(|settings| settings.prefix = "app".into());
    put(&backend, "a/b", b"one");
    let page = backend.list(None, time()).unwrap();
    assert_eq!(page.behind, Duration::from_secs(300));
    assert_eq!(page.changed.into_keys().collect::<Vec<_>>(), ["a/b"]);
}

#[test]
fn current_previous_and_pending_are_stages_as_the_service_moves_them() {
    let Some(moto) = Moto::start() else { return };
    let backend = moto.client(|_| {});
    let staged = |stage: &str| {
        let read = backend.get("s", &Which::Stage(stage.into()), time());
        read.map(|read| read.value.expose().to_vec())
    };
    let first = put(&backend, "s", b"one");
    let second = put(&backend, "s", b"two");
    assert_eq!(second.stages, ["AWSCURRENT"]);
    assert_eq!(staged("AWSPREVIOUS").unwrap(), b"one");
    assert_eq!(staged("AWSPENDING").unwrap_err(), BackendError::NotFound);
    // As one who rotates elsewhere puts it.
    let pending = moto.boto(
        "print(sm.put_secret_value(SecretId='s', SecretString='three', VersionStages=['AWSPENDING'])['VersionId'])",
    );
    assert_eq!(
        (staged("AWSPENDING").unwrap(), get(&backend, "s").unwrap()),
        (b"three".to_vec(), b"two".to_vec())
    );
    backend.stage("s", "AWSCURRENT", &VersionId(pending), time()).unwrap();
    assert_eq!(
        (get(&backend, "s").unwrap(), staged("AWSPREVIOUS").unwrap()),
        (b"three".to_vec(), b"two".to_vec())
    );
    // And back, twice: the second time there is nothing to do.
    for _ in 0..2 {
        backend.stage("s", "AWSCURRENT", &first.id, time()).unwrap();
        assert_eq!(
            (get(&backend, "s").unwrap(), staged("AWSPREVIOUS").unwrap()),
            (b"one".to_vec(), b"three".to_vec())
        );
        let current = backend.describe("s", time()).unwrap().current;
        assert_eq!(current, Some(first.id.clone()));
    }
    let nowhere = VersionId("0".repeat(32));
    for (name, to) in [("s", &nowhere), ("none", &first.id)] {
        let moved = backend.stage(name, "AWSCURRENT", to, time());
        assert_eq!(moved, Err(BackendError::NotFound), "{name}");
    }
    for id in ["1".to_owned(), "0".repeat(32)] {
        let read = backend.get("s", &Which::Id(VersionId(id)), time());
        assert_eq!(read.unwrap_err(), BackendError::NotFound);
    }
}

#[test]
fn what_is_deleted_is_put_only_after_it_was_restored_or_destroyed() {
    let Some(moto) = Moto::start() else { return };
    let backend = moto.client(|settings| settings.recovery_days = 7);
    put(&backend, "d", b"one");
    backend.delete("d", time()).unwrap();
    let days = moto.boto(
        "from datetime import datetime, timezone\n\
         left = sm.describe_secret(SecretId='d')['DeletedDate'] - datetime.now(timezone.utc)\n\
         print(round(left.total_seconds() / 86400))",
    );
    assert_eq!(days, "7");
    assert!(backend.versions("d", time()).unwrap().iter().all(|version| !version.readable));
    assert_eq!(backend.tag("d", &[].into(), time()), Err(BackendError::NotFound));
    backend.destroy("d", time()).unwrap();
    put(&backend, "d", b"two");
    assert_eq!(get(&backend, "d").unwrap(), b"two");
}

#[test]
fn many_who_make_the_same_secret_at_once_all_make_a_version() {
    let Some(moto) = Moto::start() else { return };
    let backend = moto.client(|_| {});
    std::thread::scope(|scope| {
        for n in 0..8_u8 {
            let backend = &backend;
            scope.spawn(move || put(backend, "raced", &[b'0' + n]));
        }
    });
    assert_eq!(backend.versions("raced", time()).unwrap().len(), 8);
}

#[test]
fn a_value_that_the_service_does_not_take_is_refused_here() {
    let Some(moto) = Moto::start() else { return };
    let backend = moto.client(|_| {});
    for bad in [&b""[..], &vec![b'x'; 65_537]] {
        let refused = backend.put("v", &bytes(bad), &Put::default(), time()).unwrap_err();
        assert!(matches!(refused, BackendError::Invalid(_)), "{refused:?}");
    }
    put(&backend, "v", &vec![b'x'; 65_536]);
    assert_eq!(get(&backend, "v").unwrap().len(), 65_536);
    let expires = Put { expires: Some(secretfs::model::Timestamp::UNIX_EPOCH), ..Put::default() };
    let refused = backend.put("v", &bytes(b"x"), &expires, time()).unwrap_err();
    assert!(matches!(refused, BackendError::Unsupported(_)), "{refused:?}");
}

#[test]
fn who_may_not_is_denied_and_who_is_not_known_is_unauthenticated() {
    let Some(moto) = Moto::start() else { return };
    put(&moto.client(|_| {}), "s", b"x");
    let made = moto.boto(
        "iam.create_user(UserName='reader')\n\
         key = iam.create_access_key(UserName='reader')['AccessKey']\n\
         may = {'Effect': 'Allow', 'Action': 'secretsmanager:GetSecretValue', 'Resource': '*'}\n\
         iam.put_user_policy(UserName='reader', PolicyName='p',\n\
         \x20   PolicyDocument=json.dumps({'Version': '2012-10-17', 'Statement': [may]}))\n\
         print(key['AccessKeyId'], key['SecretAccessKey'])",
    );
    let (id, key) = made.split_once(' ').unwrap();
    let of = |id: &str, key: &str, token: &str| {
        let variables = [
            ("AWS_ACCESS_KEY_ID", id),
            ("AWS_SECRET_ACCESS_KEY", key),
            ("AWS_SESSION_TOKEN", token),
        ];
        moto.client_of(&variables, |_| {})
    };
    let reader = of(id, key, "");
    assert_eq!(get(&reader, "s").unwrap(), b"x");
    for denied in [reader.list(None, time()).map(drop), reader.delete("s", time())] {
        assert!(matches!(denied, Err(BackendError::Denied(_))), "{denied:?}");
    }
    let probes = reader.check(time());
    let last = probes.last().unwrap();
    assert_eq!((last.what, last.worked, probes.len()), ("may list", false, 4), "{probes:?}");
    for stranger in
        [of(id, "canary-7f3a", ""), of("AKIAEXAMPLE", key, ""), of(id, key, "canary-7f3a")]
    {
        let refused = get(&stranger, "s").unwrap_err();
        assert!(matches!(refused, BackendError::Unauthenticated(_)), "{refused:?}");
        assert!(!refused.to_string().contains("canary"), "{refused}");
        let probes = stranger.check(time());
        assert_eq!(probes.last().unwrap().what, "authenticated", "{probes:?}");
    }
}

#[test]
fn it_is_checked_from_the_command_line_with_the_variables_of_aws_s_own_tools() {
    let Some(moto) = Moto::start() else { return };
    put(&moto.client(|_| {}), "prod/canary-name", b"canary-7f3a");
    let config = format!(
        "[backend.aws]\nkind = \"aws_secrets_manager\"\nregion = \"us-east-1\"\nprefix = \"prod/\"\nendpoint = \"{}\"\n",
        moto.url()
    );
    let path = moto.path("secretfs.toml");
    write_file(&path, config.as_bytes());
    let check = |secret: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_secretfs"));
        command.env_clear().env("HOME", "/nonexistent");
        command.env("AWS_ACCESS_KEY_ID", &moto.key_id).env("AWS_SECRET_ACCESS_KEY", secret);
        command.arg("--config").arg(&path).args(["backend", "check", "aws"]);
        let output = bounded(&mut command);
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, said) = check(&moto.secret);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("authenticated\tyes\tby a key of the environment"), "{said}");
    assert!(said.contains("may read\tyes\tcanary-name") && !said.contains("canary-7f3a"), "{said}");
    let (code, said) = check("canary-9c1d");
    assert_eq!(code, Some(11), "{said}");
    assert!(said.contains("authenticated\tno") && !said.contains("canary-9c1d"), "{said}");
}
