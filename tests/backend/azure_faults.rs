//! The fault table with Key Vault: each call against each fault, of the vault and of whoever gives tokens.

use secretfs::backend::BackendError;
use secretfs::backend::azure::Azure;
use secretfs::backend::http::Connection;
use serde_json::json;

use crate::conformance::{listed, put, time};
use crate::faults::{CALLS, Call, Expected, MANY, fails_and_heals, nobody, reaches_nobody, table};
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
    let named = format!("{call} with {fault}, warm {warm}");
    fails_and_heals(&client, (&named, run), (&reply, expected), |fault| {
        vault.set(|state| state.fault = fault);
    });
}

fn client_is_warm(client: &Azure) {
    CALLS[0].1(client, time()).unwrap();
}

#[test]
fn a_key_vault_that_is_down_or_another_one_is_unreachable_for_every_call() {
    let (vault, other) = (KeyVault::start(), KeyVault::start());
    let down = |settings: &mut secretfs::backend::azure::AzureSettings| {
        settings.address = nobody();
        settings.connection.proxy = None;
    };
    let wrong = |settings: &mut secretfs::backend::azure::AzureSettings| {
        settings.connection =
            Connection { ca: Some(other.service.authority()), ..vault.connection() };
    };
    for client in [vault.client(down), vault.client(wrong)] {
        reaches_nobody(&client);
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
fn a_hundred_thousand_names_of_a_key_vault_are_listed_page_by_page() {
    let vault = KeyVault::start();
    vault.set(|state| state.fill((0..MANY).map(|n| format!("d{}--n{n}", n % 100))));
    let found = listed(&vault.client(|_| {}));
    assert_eq!(found.len(), MANY);
    assert!((0..MANY).all(|n| found.contains(&format!("d{}/n{n}", n % 100))));
}
