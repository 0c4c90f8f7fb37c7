//! Azure's client: the suite over a Key Vault, and what only Azure has: challenges, logins, names, soft deletion.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use secretfs::backend::azure::{Azure, AzureAuth, VaultKey};
use secretfs::backend::{
    Backend, BackendError, Deadline, KeyService, Put, Result, VersionId, Which,
};
use secretfs::model::Timestamp;
use serde_json::json;

use crate::conformance::{bytes, conforms, get, listed, put, time};
use crate::keyvault::{
    AUTHORITY, CLIENT, CLIENT_SECRET, FEDERATED, IDENTITY_HEADER, KeyVault, TENANT, VAULT, now,
    secret_variable, with_secret,
};

#[test]
fn azure_conforms() {
    let vault = KeyVault::start();
    vault.set(|state| state.lag = 1);
    conforms(&vault.client(|_| {}));
}

#[test]
fn azure_conforms_below_a_prefix() {
    let vault = KeyVault::start();
    put(&vault.client(|_| {}), "other/s", b"x");
    conforms(&vault.client(|settings| settings.prefix = "Some/where".into()));
}

#[test]
fn a_list_says_when_secrets_were_changed() {
    let vault = KeyVault::start();
    let client = vault.client(|_| {});
    let changed = |value| {
        put(&client, "a/b", value);
        client.list(None, time()).unwrap().changed["a/b"]
    };
    assert!(changed(b"one") < changed(b"two"));
    assert_eq!(client.list(None, time()).unwrap().behind, Duration::ZERO);
}

/// Opens a client by one of the ways to log in, without anything but those variables.
fn open(vault: &KeyVault, auth: AzureAuth, variables: &[(&str, &str)]) -> Result<Azure> {
    let variables: BTreeMap<_, _> = variables.iter().copied().collect();
    let mut settings = vault.settings(auth);
    settings.authority = None;
    Azure::new(&settings, &|name| variables.get(name).map(|value| (*value).to_owned()))
}

#[test]
fn every_way_to_log_in_works_from_settings_or_variables() {
    let vault = KeyVault::start();
    put(&vault.client(|_| {}), "s", b"x");
    let authority = format!("https://{AUTHORITY}/");
    let (tenant, client_id) = (Some(TENANT.to_owned()), Some(CLIENT.to_owned()));
    let (secret, token) =
        (vault.file("secret", &format!("{CLIENT_SECRET}\n")), vault.file("token", FEDERATED));
    let certificate = vault.certificate();
    let service = vault.service.url("");
    let app_service = vault.service.url("/msi/token");
    let host = ("AZURE_AUTHORITY_HOST", authority.as_str());
    let ids = [("AZURE_TENANT_ID", TENANT), ("AZURE_CLIENT_ID", CLIENT)];
    let file = token.to_str().unwrap().to_owned();
    let ways: [(AzureAuth, Vec<(&str, &str)>); 8] = [
        (with_secret(), vec![host, ("AZURE_CLIENT_SECRET", CLIENT_SECRET)]),
        (
            AzureAuth::ClientSecret { tenant: None, client_id: None, secret_file: Some(secret) },
            [vec![host], ids.to_vec()].concat(),
        ),
        (
            AzureAuth::ClientCertificate {
                tenant: tenant.clone(),
                client_id: client_id.clone(),
                certificate,
                key: None,
            },
            vec![("AZURE_AUTHORITY_HOST", AUTHORITY)],
        ),
        (
            AzureAuth::WorkloadIdentity {
                tenant,
                client_id: client_id.clone(),
                token_file: Some(token),
            },
            vec![host],
        ),
        (
            AzureAuth::WorkloadIdentity { tenant: None, client_id: None, token_file: None },
            [vec![host, ("AZURE_FEDERATED_TOKEN_FILE", &file)], ids.to_vec()].concat(),
        ),
        (
            AzureAuth::ManagedIdentity { client_id: None },
            vec![("AZURE_POD_IDENTITY_AUTHORITY_HOST", &service)],
        ),
        (
            AzureAuth::ManagedIdentity { client_id: client_id.clone() },
            vec![("AZURE_POD_IDENTITY_AUTHORITY_HOST", &service)],
        ),
        (
            AzureAuth::ManagedIdentity { client_id },
            vec![("IDENTITY_ENDPOINT", &app_service), ("IDENTITY_HEADER", IDENTITY_HEADER)],
        ),
    ];
    for (auth, variables) in ways {
        let client = open(&vault, auth.clone(), &variables).unwrap();
        assert_eq!(get(&client, "s"), Ok(b"x".to_vec()), "{auth:?}");
    }
}

#[test]
fn a_credential_that_is_wrong_is_not_accepted_and_not_repeated() {
    let vault = KeyVault::start();
    let host = ("AZURE_AUTHORITY_HOST", "https://login.test");
    let refused = |auth, variables: &[_], number: &str| {
        let client = open(&vault, auth, &[&[host], variables].concat()).unwrap();
        let error = get(&client, "s").unwrap_err();
        assert!(matches!(error, BackendError::Unauthenticated(_)), "{error:?}");
        let said = error.to_string();
        assert!(said.contains(number) && !said.contains("canary"), "{said}");
    };
    refused(with_secret(), &[("AZURE_CLIENT_SECRET", "canary-other")], "AADSTS7000215");
    let ids = |tenant: &str, client: &str| (Some(tenant.to_owned()), Some(client.to_owned()));
    for ((tenant, client_id), number) in
        [(ids("nobody", CLIENT), "AADSTS90002"), (ids(TENANT, "nobody"), "AADSTS700016")]
    {
        let auth = AzureAuth::ClientSecret { tenant, client_id, secret_file: None };
        refused(auth, &[("AZURE_CLIENT_SECRET", CLIENT_SECRET)], number);
    }
    // Another key than that of the certificate which the application has.
    let (tenant, client_id) = ids(TENANT, CLIENT);
    let first = std::fs::read_to_string(vault.certificate()).unwrap();
    let own = std::fs::read_to_string(vault.certificate()).unwrap();
    let key = vault.file("other.key", first.split("-----BEGIN CERT").next().unwrap());
    let certificate = vault.file("own.pem", &own);
    let auth = AzureAuth::ClientCertificate { tenant, client_id, certificate, key: Some(key) };
    refused(auth, &[], "AADSTS700027");
    let (tenant, client_id) = ids(TENANT, CLIENT);
    let token_file = Some(vault.file("token", "canary.other.token"));
    let auth = AzureAuth::WorkloadIdentity { tenant, client_id, token_file };
    refused(auth, &[], "AADSTS700027");
    let service = vault.service.url("/msi/token");
    let variables = [("IDENTITY_ENDPOINT", service.as_str()), ("IDENTITY_HEADER", "canary-other")];
    refused(AzureAuth::ManagedIdentity { client_id: None }, &variables, "401");
}

#[test]
fn what_is_missing_is_said_before_anything_is_asked() {
    let vault = KeyVault::start();
    let nothing = |auth| open(&vault, auth, &[]).unwrap_err().to_string();
    assert!(nothing(with_secret()).contains("AZURE_CLIENT_SECRET"));
    let auth = AzureAuth::WorkloadIdentity { tenant: None, client_id: None, token_file: None };
    assert!(nothing(auth).contains("AZURE_FEDERATED_TOKEN_FILE"));
    let secret_file = Some(vault.file("secret", CLIENT_SECRET));
    let auth = AzureAuth::ClientSecret { tenant: None, client_id: None, secret_file };
    assert!(nothing(auth).contains("AZURE_TENANT_ID"));
    assert!(vault.service.asked().is_empty());
}

#[test]
fn a_vault_that_asks_for_a_token_for_something_else_gets_none() {
    let vault = KeyVault::start();
    for resource in ["https://management.azure.com", "https://test", "https://corp.vault.test"] {
        let challenge =
            format!("Bearer authorization=\"https://evil.test/t\", resource=\"{resource}\"");
        vault.set(|state| state.challenge = Some(challenge));
        let error = get(&vault.client(|_| {}), "s").unwrap_err();
        assert!(matches!(error, BackendError::Unauthenticated(_)), "{error:?}");
    }
    assert_eq!(vault.set(|state| state.logins), 0);
    // Whatever authority it names, credentials go to the configured one.
    let challenge = "Bearer authorization=\"https://evil.test/t\", resource=\"https://vault.test\"";
    vault.set(|state| state.challenge = Some(challenge.to_owned()));
    put(&vault.client(|_| {}), "s", b"x");
    assert!(!vault.proxy.hosts().iter().any(|host| host.contains("evil")));
    let other = vault.client(|settings| settings.resource = Some("https://vault.azure.cn".into()));
    assert!(matches!(get(&other, "s"), Err(BackendError::Unauthenticated(_))));
    let same = vault.client(|settings| settings.resource = Some("https://vault.test".into()));
    assert_eq!(get(&same, "s"), Ok(b"x".to_vec()));
}

#[test]
fn no_value_is_sent_before_the_vault_has_said_what_it_is() {
    let vault = KeyVault::start();
    put(&vault.client(|_| {}), "s", b"canary-7f3a");
    let asked = vault.service.asked();
    let first = asked.first().unwrap();
    assert!(first.body.is_empty() && !first.headers.contains_key("authorization"));
    let hosts = vault.proxy.hosts();
    assert!(hosts.iter().all(|host| [VAULT, AUTHORITY].contains(&host.trim_end_matches(":443"))));
}

#[test]
fn a_next_page_at_another_host_is_not_asked_for() {
    let vault = KeyVault::start();
    vault.set(|state| state.fill((0..60).map(|n| format!("n{n}"))));
    vault.set(|state| state.elsewhere = Some("evil.test"));
    let failed = vault.client(|_| {}).list(None, time()).unwrap_err();
    assert!(matches!(failed, BackendError::Failed(_)), "{failed:?}");
    assert!(!vault.proxy.hosts().iter().any(|host| host.contains("evil")));
}

#[test]
fn a_short_lived_token_is_replaced_and_readers_do_not_see_it() {
    let vault = KeyVault::start();
    vault.set(|state| state.life = Duration::from_secs(1));
    let client = vault.client(|_| {});
    put(&client, "s", b"x");
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(2500) {
        assert_eq!(get(&client, "s"), Ok(b"x".to_vec()));
    }
    let logins = vault.set(|state| state.logins);
    assert!((2..20).contains(&logins), "{logins} logins in the life of three tokens");
}

#[test]
fn a_version_that_is_disabled_or_not_valid_yet_is_not_readable_and_the_others_are() {
    let vault = KeyVault::start();
    let client = vault.client(|_| {});
    let expires = Timestamp::from_second(now() + 1000).unwrap();
    let expiring = Put { expires: Some(expires), ..Put::default() };
    client.put("v", &bytes(b"expiring"), &expiring, time()).unwrap();
    assert_eq!(client.get("v", &Which::Current, time()).unwrap().expires, Some(expires));
    assert_eq!(client.describe("v", time()).unwrap().expires, Some(expires));
    vault.set(|state| {
        state.change_newest("v", &json!({ "attributes": { "exp": now() - 1000 } }));
    });
    assert_eq!(get(&client, "v"), Ok(b"expiring".to_vec()), "as Azure has it");
    put(&client, "v", b"disabled");
    vault.set(|state| state.change_newest("v", &json!({ "attributes": { "enabled": false } })));
    let said = get(&client, "v").unwrap_err();
    assert_eq!(said, BackendError::Denied("it is disabled".into()));
    put(&client, "v", b"early");
    vault.set(|state| {
        state.change_newest("v", &json!({ "attributes": { "nbf": now() + 1000 } }));
    });
    assert!(matches!(get(&client, "v"), Err(BackendError::Denied(_))));
    let versions = client.versions("v", time()).unwrap();
    let readable: Vec<bool> = versions.iter().map(|version| version.readable).collect();
    assert_eq!(readable, [true, false, false]);
    let unknown = Which::Id(VersionId("0123456789abcdef0123456789abcdef".into()));
    assert_eq!(client.get("v", &unknown, time()).unwrap_err(), BackendError::NotFound);
}

#[test]
fn the_current_version_is_known_where_two_are_of_one_second() {
    let vault = KeyVault::start();
    let client = vault.client(|_| {});
    vault.set(|state| state.clock_stands = true);
    for value in 0..6_u8 {
        let version = put(&client, "s", &[b'0' + value]);
        assert_eq!(client.describe("s", time()).unwrap().current, Some(version.id.clone()));
        assert_eq!(client.versions("s", time()).unwrap().last().unwrap().id, version.id);
    }
}

#[test]
fn a_new_version_keeps_tags_and_content_type() {
    let vault = KeyVault::start();
    let client = vault.client(|_| {});
    put(&client, "s", b"one");
    vault.set(|state| {
        let more = json!({ "contentType": "text/x-example", "tags": { "service": "example" } });
        state.change_newest("s", &more);
    });
    put(&client, "s", b"two");
    assert_eq!(vault.set(|state| state.newest("s")["contentType"].clone()), "text/x-example");
    assert_eq!(client.describe("s", time()).unwrap().tags["service"], "example");
    put(&client, "s", b"\xff\xfe");
    let newest = vault.set(|state| state.newest("s"));
    assert_eq!(newest["value"], "//4=");
    assert_eq!(newest["contentType"], "application/octet-stream;base64");
    put(&client, "s", b"text again");
    assert!(vault.set(|state| state.newest("s"))["contentType"].is_null());
    assert_eq!(get(&client, "s"), Ok(b"text again".to_vec()));
}

#[test]
fn names_of_others_are_listed_as_they_are_read_and_strange_ones_are_left_out() {
    let vault = KeyVault::start();
    let names = ["MySecret", "prod--DB", "a---b", "x----"].map(str::to_owned);
    vault.set(|state| {
        for name in names {
            state.put_as(&name);
        }
    });
    let client = vault.client(|_| {});
    let found: Vec<_> = listed(&client).into_iter().collect();
    assert_eq!(found, ["mysecret", "prod/db"]);
    assert!(found.iter().all(|name| get(&client, name).is_ok()));
}

#[test]
fn a_deleted_secret_keeps_its_name_until_it_is_restored_or_destroyed() {
    let vault = KeyVault::start();
    vault.set(|state| state.lag = 3);
    let client = vault.client(|_| {});
    put(&client, "s", b"x");
    client.delete("s", time()).unwrap();
    let again = client.put("s", &bytes(b"y"), &Put::default(), time()).unwrap_err();
    assert!(matches!(again, BackendError::Invalid(_)), "{again:?}");
    assert!(client.describe("s", time()).unwrap().deleted);
    client.restore("s", time()).unwrap();
    assert_eq!(get(&client, "s"), Ok(b"x".to_vec()));
    client.restore("s", time()).unwrap();
    // Who may not purge is told so, and what was deleted stays so.
    vault.set(|state| state.denied.insert("purge"));
    assert!(matches!(client.destroy("s", time()), Err(BackendError::Denied(_))));
    vault.set(|state| state.denied.clear());
    client.destroy("s", time()).unwrap();
    put(&client, "s", b"anew");
    vault.set(|state| state.lag = usize::MAX);
    let short = Deadline::within(Duration::from_secs(1));
    assert_eq!(client.delete("s", short), Err(BackendError::TimedOut));
}

#[test]
fn what_is_not_allowed_is_denied_and_costs_no_other_login() {
    let vault = KeyVault::start();
    let client = vault.client(|_| {});
    put(&client, "s", b"x");
    vault.set(|state| state.denied.extend(["get", "list", "delete"]));
    let denied =
        |tried: Result<()>| assert!(matches!(tried, Err(BackendError::Denied(_))), "{tried:?}");
    denied(get(&client, "s").map(drop));
    denied(client.list(None, time()).map(drop));
    denied(client.delete("s", time()));
    put(&client, "s", b"who may set alone puts");
    assert_eq!(vault.set(|state| state.logins), 1);
    let probes = client.check(time());
    let last = probes.last().unwrap();
    assert_eq!((last.what, last.worked), ("may list", false));
}

#[test]
fn a_check_finds_what_is_below_the_prefix_wherever_it_is() {
    let vault = KeyVault::start();
    vault.set(|state| state.fill((0..60).map(|n| format!("n{n}"))));
    let client = vault.client(|settings| settings.prefix = "z".into());
    put(&client, "s", b"x");
    let notes: Vec<_> = client.check(time()).into_iter().map(|probe| probe.note).collect();
    assert_eq!(notes[3..], ["1 names", "s"]);
}

#[test]
fn a_value_that_is_too_long_is_refused_here() {
    let vault = KeyVault::start();
    let client = vault.client(|_| {});
    let put = |len| client.put("s", &bytes(&vec![b'x'; len]), &Put::default(), time()).map(drop);
    assert_eq!(put(25 << 10), Ok(()));
    assert!(matches!(put((25 << 10) + 1), Err(BackendError::Invalid(_))));
}

#[test]
fn a_key_wraps_and_the_version_that_did_unwraps() {
    let vault = KeyVault::start();
    vault.make_key("root");
    let settings = vault.settings(with_secret());
    let key = VaultKey::new(&settings, "root", &secret_variable).unwrap();
    let wrapped = key.wrap(&bytes(b"canary-7f3a"), time()).unwrap();
    assert!(!wrapped.contains("canary"));
    vault.make_key("root");
    let newer = key.wrap(&bytes(b"canary-7f3a"), time()).unwrap();
    assert_ne!(wrapped.split_once('.').unwrap().0, newer.split_once('.').unwrap().0);
    for wrapped in [&wrapped, &newer] {
        assert_eq!(key.unwrap(wrapped, time()).unwrap().expose(), b"canary-7f3a");
    }
    let (version, sealed) = newer.split_once('.').unwrap();
    let damaged = format!("{version}.AAAA{}", &sealed[4..]);
    assert!(matches!(key.unwrap(&damaged, time()), Err(BackendError::Invalid(_))));
    for strange in ["", "x", "../secrets/s.AAAA", sealed] {
        assert!(matches!(key.unwrap(strange, time()), Err(BackendError::Invalid(_))), "{strange}");
    }
    let unknown = format!("{}.{sealed}", "0".repeat(32));
    assert_eq!(key.unwrap(&unknown, time()).unwrap_err(), BackendError::NotFound);
    assert!(VaultKey::new(&settings, "a/b", &secret_variable).is_err());
}
