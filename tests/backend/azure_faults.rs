//! The fault table with Key Vault: each call against each fault, of the vault and of whoever gives tokens.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use secretfs::backend::azure::Azure;
use secretfs::backend::http::Connection;
use secretfs::backend::{BackendError, Deadline};
use serde_json::json;

use crate::conformance::{listed, put, time};
use crate::faults::{CALLS, Call, Expected, many_real, table};
use crate::keyvault::{KeyVault, secret_variable, with_secret};
use crate::service::Reply;

#[test]
fn every_call_ends_as_it_should_whatever_is_wrong_with_the_key_vault() {
    let refused = Reply::json(401, &json!({ "error": { "code": "Unauthorized" } }));
    for (fault, reply, expected) in table(refused) {
        std::thread::scope(|scope| {
            for (call, run) in CALLS {
                // One that has a token already, and one that has to get it.
                for warm in [true, false] {
                    let (fault, reply) = ((fault, call, warm), reply.clone());
                    scope.spawn(move || ends_as_it_should(fault, run, (reply, expected)));
                }
            }
        });
    }
}

fn ends_as_it_should(
    (fault, call, warm): (&str, &str, bool),
    run: Call,
    (reply, expected): (Reply, Expected),
) {
    let vault = KeyVault::start();
    put(&vault.client(|_| {}), "s", b"x");
    let client = vault.client(|_| {});
    if warm {
        client_is_warm(&client);
    }
    let time_is_up = matches!(reply, Reply::Silence | Reply::Trickle);
    vault.set(|state| state.fault = Some(reply));
    let allowed = Duration::from_secs(if time_is_up { 1 } else { 20 });
    let start = Instant::now();
    let failed = run(&client, Deadline::within(allowed)).unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(20), "{call} with {fault}");
    assert!(expected(&failed), "{call} with {fault}, warm {warm}: {failed:?}");
    assert!(!format!("{failed:?} {failed}").contains("canary"), "{failed:?}");
    vault.set(|state| state.fault = None);
    assert_eq!(run(&client, time()), Ok(()), "{call} after {fault}");
}

fn client_is_warm(client: &Azure) {
    CALLS[0].1(client, time()).unwrap();
}

#[test]
fn a_key_vault_that_is_down_or_another_one_is_unreachable_for_every_call() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("https://{}", listener.local_addr().unwrap());
    drop(listener);
    let (vault, other) = (KeyVault::start(), KeyVault::start());
    let down = |settings: &mut secretfs::backend::azure::AzureSettings| {
        settings.address = nobody;
        settings.connection.proxy = None;
    };
    let wrong = |settings: &mut secretfs::backend::azure::AzureSettings| {
        settings.connection =
            Connection { ca: Some(other.service.authority()), ..vault.connection() };
    };
    for client in [vault.client(down), vault.client(wrong)] {
        for (call, run) in CALLS {
            let failed = run(&client, time()).unwrap_err();
            assert!(matches!(failed, BackendError::Unreachable(_)), "{call}: {failed:?}");
        }
    }
    assert!(vault.service.asked().is_empty(), "nothing was said to who is not trusted");
}

#[test]
fn a_token_that_is_revoked_or_over_costs_one_login_whatever_is_called() {
    for (call, run) in CALLS {
        let vault = KeyVault::start();
        put(&vault.client(|_| {}), "s", b"x");
        let client = Azure::new(&vault.settings(with_secret()), &secret_variable).unwrap();
        client_is_warm(&client);
        vault.set(|state| {
            state.logins = 0;
            state.revoke();
        });
        std::thread::scope(|scope| {
            for _ in 0..20 {
                // One of them deletes, and the others find that it is gone.
                scope.spawn(|| match run(&client, time()) {
                    Ok(()) | Err(BackendError::NotFound) => {}
                    Err(error) => panic!("{call}: {error:?}"),
                });
            }
        });
        assert_eq!(vault.set(|state| state.logins), 1, "{call}");
    }
}

#[test]
fn many_names_of_a_key_vault_are_listed_page_by_page() {
    let vault = KeyVault::start();
    let many = many_real();
    vault.set(|state| state.fill((0..many).map(|n| format!("d{}--n{n}", n % 100))));
    let found = listed(&vault.client(|_| {}));
    assert_eq!(found.len(), many);
    assert!((0..many).all(|n| found.contains(&format!("d{}/n{n}", n % 100))));
}
