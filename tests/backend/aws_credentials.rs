//! Where AWS's credential is found and how it is kept fresh: each source with a real check of the signature behind it,
//! and the metadata services of containers and instances as small servers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use secretfs::backend::aws::SecretsManager;
use secretfs::backend::{Backend, BackendError, Deadline};
use serde_json::{Value, json};

use crate::common::write_file;
use crate::conformance::{get, put, time};
use crate::servers::Moto;
use crate::service::{Asked, Reply, Service};

/// Puts a secret that each client has to read.
fn with_secret(moto: &Moto) {
    put(&moto.client(|_| {}), "s", b"canary-7f3a");
}

fn reads(client: &SecretsManager) {
    assert_eq!(get(client, "s").unwrap(), b"canary-7f3a");
}

fn is_unauthenticated(client: &SecretsManager, word: &str) {
    let refused = get(client, "s").unwrap_err();
    let is = matches!(refused, BackendError::Unauthenticated(_) | BackendError::Unsupported(_));
    assert!(is && refused.to_string().contains(word), "{refused:?}");
}

#[test]
fn profiles_of_the_shared_files_are_keys_and_roles() {
    let Some(moto) = Moto::start() else { return };
    with_secret(&moto);
    let role = moto.role();
    let (id, key) = (&moto.key_id, &moto.secret);
    let credentials = moto.path("credentials");
    let keys = format!("aws_access_key_id = {id}\naws_secret_access_key = {key}\n");
    write_file(&credentials, format!("[default]\n{keys}[base]\n{keys}[wrong]\n").as_bytes());
    let config = format!(
        "[profile role]\nrole_arn = {role}\nsource_profile = base\n\
         [profile far]\nrole_arn = {role}\nsource_profile = role\nrole_session_name = far\n\
         [profile self]\nrole_arn = {role}\nsource_profile = self\n{keys}\
         [profile one]\nrole_arn = {role}\nsource_profile = other\n\
         [profile other]\nrole_arn = {role}\nsource_profile = one\n\
         [profile program]\ncredential_process = /bin/false\n\
         [profile nobody]\nrole_arn = {role}\n"
    );
    write_file(&moto.path("config"), config.as_bytes());
    let config = moto.path("config").display().to_string();
    let far = moto.client_of(&[], |settings| {
        settings.profile = Some("far".into());
        settings.credentials_file = Some(credentials.clone());
        settings.config_file = Some(moto.path("config"));
    });
    reads(&far);
    let variables = [
        ("AWS_SHARED_CREDENTIALS_FILE", &*credentials.display().to_string()),
        ("AWS_CONFIG_FILE", &config),
    ]
    .map(|(name, value)| (name, value.to_owned()));
    let variables: Vec<(&str, &str)> =
        variables.iter().map(|(name, value)| (*name, &**value)).collect();
    let of = |profile: Option<&str>| {
        moto.client_of(&variables, |settings| settings.profile = profile.map(str::to_owned))
    };
    for good in [None, Some("base"), Some("role"), Some("far"), Some("self")] {
        reads(&of(good));
    }
    for (bad, word) in [
        ("missing", "no profile missing"),
        ("wrong", "no credential"),
        ("one", "circle"),
        ("program", "credential_process"),
        ("nobody", "by whom"),
    ] {
        is_unauthenticated(&of(Some(bad)), word);
    }
    // One of the settings is the only one: nobody is somebody else because a profile is missing.
    let with_key =
        [&variables[..], &[("AWS_ACCESS_KEY_ID", id), ("AWS_SECRET_ACCESS_KEY", key)]].concat();
    let missing = |settings: &mut secretfs::backend::aws::AwsSettings| {
        settings.profile = Some("missing".into())
    };
    is_unauthenticated(&moto.client_of(&with_key, missing), "no profile");
    reads(&moto.client_of(&[&with_key[..], &[("AWS_PROFILE", "missing")]].concat(), |_| {}));
    is_unauthenticated(
        &moto.client_of(&[&variables[..], &[("AWS_PROFILE", "missing")]].concat(), |_| {}),
        "no profile",
    );
}

#[test]
fn files_that_are_written_anew_are_read_anew() {
    let Some(moto) = Moto::start() else { return };
    with_secret(&moto);
    let path = moto.path("credentials");
    let write = |id: &str| {
        let text =
            format!("[default]\naws_access_key_id={id}\naws_secret_access_key={}\n", moto.secret);
        drop(std::fs::remove_file(&path));
        write_file(&path, text.as_bytes());
    };
    write("AKIAEXAMPLE");
    let path = path.display().to_string();
    let client = moto.client_of(&[("AWS_SHARED_CREDENTIALS_FILE", &path)], |_| {});
    is_unauthenticated(&client, "not known");
    write(&moto.key_id);
    reads(&client);
}

#[test]
fn a_role_of_the_settings_is_assumed_with_what_there_is() {
    let Some(moto) = Moto::start() else { return };
    with_secret(&moto);
    let role = moto.role();
    let client = moto.client(|settings| settings.role = Some(role));
    reads(&client);
    let probes = client.check(time());
    assert!(probes[2].note.starts_with("by a key of a role, for 3"), "{probes:?}");
}

#[test]
fn a_web_identity_is_a_role_for_a_token_in_a_file() {
    let Some(moto) = Moto::start_unchecked() else { return };
    with_secret(&moto);
    let (role, file) = (moto.role(), moto.path("token"));
    write_file(&file, b"eyJhbGciOiJub25lIn0.e30.\n");
    let file = file.display().to_string();
    let variables = [("AWS_WEB_IDENTITY_TOKEN_FILE", &*file), ("AWS_ROLE_ARN", &*role)];
    let client = moto.client_of(&variables, |_| {});
    reads(&client);
    let probes = client.check(time());
    assert!(probes[2].note.starts_with("by a key of a web identity, for 3"), "{probes:?}");
    let missing = [("AWS_WEB_IDENTITY_TOKEN_FILE", "/nonexistent/token"), ("AWS_ROLE_ARN", &*role)];
    is_unauthenticated(&moto.client_of(&missing, |_| {}), "/nonexistent/token");
}

#[test]
fn a_container_s_endpoint_gives_one_for_its_token() {
    let Some(moto) = Moto::start() else { return };
    with_secret(&moto);
    let given = moto.role_credential(&moto.role());
    let service = Service::start(move |asked| {
        let is_known =
            asked.headers.get("authorization").is_some_and(|token| token == "canary-9c1d");
        match (asked.path.as_str(), is_known) {
            ("/v2/credentials", true) => Reply::json(200, &given),
            _ => Reply::status(403, &[]),
        }
    });
    let (url, file) = (service.url("/v2/credentials"), moto.path("authorization"));
    write_file(&file, b"canary-9c1d\n");
    let file = file.display().to_string();
    let of = |token: (&str, &str)| {
        let variables = [("AWS_CONTAINER_CREDENTIALS_FULL_URI", &*url), token];
        moto.client_of(&variables, |settings| settings.connection.ca = Some(service.authority()))
    };
    reads(&of(("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &file)));
    reads(&of(("AWS_CONTAINER_AUTHORIZATION_TOKEN", "canary-9c1d")));
    is_unauthenticated(&of(("AWS_CONTAINER_AUTHORIZATION_TOKEN", "wrong")), "refuses");
}

/// An instance's metadata in their second version, which answer nobody without a token.
fn instance(given: impl Fn() -> Value + Send + Sync + 'static) -> Service {
    let roles = "/latest/meta-data/iam/security-credentials/";
    Service::start(move |asked: &Asked| {
        let header = |name: &str| asked.headers.get(name).map(String::as_str);
        if (asked.method.as_str(), asked.path.as_str()) == ("PUT", "/latest/api/token") {
            assert!(header("x-aws-ec2-metadata-token-ttl-seconds").is_some());
            return Reply::Answer {
                status: 200,
                headers: Vec::new(),
                body: b"canary-token".to_vec(),
            };
        }
        if header("x-aws-ec2-metadata-token") != Some("canary-token") {
            return Reply::status(401, &[]);
        }
        match asked.path.strip_prefix(roles) {
            Some("") => Reply::Answer { status: 200, headers: Vec::new(), body: b"app".to_vec() },
            Some("app") => Reply::json(200, &given()),
            _ => Reply::status(404, &[]),
        }
    })
}

fn on(moto: &Moto, instance: &Service) -> SecretsManager {
    let url = instance.url("");
    let variables = [("AWS_EC2_METADATA_SERVICE_ENDPOINT", &*url)];
    moto.client_of(&variables, |settings| settings.connection.ca = Some(instance.authority()))
}

#[test]
fn an_instance_s_metadata_give_one_for_a_token_of_their_own() {
    let Some(moto) = Moto::start() else { return };
    with_secret(&moto);
    let given = moto.role_credential(&moto.role());
    let instance = instance(move || given.clone());
    let client = on(&moto, &instance);
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| reads(&client));
        }
    });
    assert_eq!(instance.asked().len(), 3, "one token, one role, one credential for all");
}

#[test]
fn a_credential_that_is_refused_is_replaced_once_however_many_readers_notice() {
    let Some(moto) = Moto::start() else { return };
    with_secret(&moto);
    let role = moto.role();
    let credentials = [moto.role_credential(&role), moto.role_credential(&role)];
    let given = Arc::new(AtomicUsize::new(0));
    let instance = instance({
        let given = Arc::clone(&given);
        move || {
            let mut credential = credentials[given.fetch_add(1, Ordering::SeqCst).min(1)].clone();
            if given.load(Ordering::SeqCst) == 1 {
                credential["AccessKeyId"] = json!("ASIAREVOKED");
            }
            credential
        }
    });
    let client = on(&moto, &instance);
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| reads(&client));
        }
    });
    assert_eq!(given.load(Ordering::SeqCst), 2);
}

#[test]
fn a_credential_is_replaced_before_it_ends_and_used_on_if_that_fails() {
    let Some(moto) = Moto::start() else { return };
    with_secret(&moto);
    let given = moto.role_credential(&moto.role());
    let count = Arc::new(AtomicUsize::new(0));
    let instance = instance({
        let count = Arc::clone(&count);
        move || {
            // The first two live for six seconds and the third is none.
            match count.fetch_add(1, Ordering::SeqCst) {
                0 | 1 => {
                    let end = secretfs::model::Clock::now(&secretfs::system::SystemClock);
                    let mut given = given.clone();
                    given["Expiration"] = json!((end + Duration::from_secs(6)).to_string());
                    given
                }
                _ => json!("no credential"),
            }
        }
    });
    let client = on(&moto, &instance);
    crate::common::eventually("it is replaced, and not again and again", || {
        reads(&client);
        count.load(Ordering::SeqCst) == 3
    });
    reads(&client);
}

#[test]
fn with_no_credential_anywhere_a_call_says_so_and_ends() {
    let Some(moto) = Moto::start() else { return };
    let off = [("AWS_EC2_METADATA_DISABLED", "true")];
    is_unauthenticated(&moto.client_of(&off, |_| {}), "no credential is in the environment");
    let gone =
        moto.client_of(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1")], |_| {});
    let failed = get(&gone, "s").unwrap_err();
    assert!(matches!(failed, BackendError::Unreachable(_)), "{failed:?}");
    // Nobody is ever at this address of the machine's own network.
    let silent = Service::that_answers(Reply::Silence);
    let client = on(&moto, &silent);
    let failed = client.list(None, Deadline::within(Duration::from_secs(20))).unwrap_err();
    assert!(matches!(failed, BackendError::Unreachable(_)), "long before the deadline: {failed:?}");
}
