//! A key of Key Vault as the source of the root key, through the daemon and its effector.

use std::fs;

use crate::keyvault::{AUTHORITY, CLIENT, CLIENT_SECRET, KeyVault, TENANT, VAULT};
use crate::site::Site;
use crate::transit::{KEY, configure, status};

/// Returns what the configuration says of the service.
fn service(vault: &KeyVault) -> String {
    format!(
        "[backend.corp]\nkind = \"azure_key_vault\"\naddress = \"https://{VAULT}\"\n\
         authority = \"https://{AUTHORITY}\"\n\
         [backend.corp.connection]\nca = {:?}\nproxy = \"{}\"\n\
         [backend.corp.auth]\nmethod = \"client_secret\"\ntenant = \"{TENANT}\"\n\
         client_id = \"{CLIENT}\"\nsecret_file = {:?}\n",
        vault.service.authority(),
        vault.proxy.url(),
        vault.file("secret", CLIENT_SECRET),
    )
}

#[test]
fn a_store_opens_by_a_key_of_key_vault_and_by_nothing_else() {
    let Some(mut site) = Site::new() else { return };
    let vault = KeyVault::start();
    vault.make_key("secretfs");
    configure(&site, &format!("{KEY}{}", service(&vault)));
    site.init();
    site.serve();
    fs::write(site.secret("s"), "canary-7f3a").unwrap();
    assert!(status(&site).to_string().contains("key secretfs of backend corp"));
    // What the older version has sealed opens by it.
    vault.make_key("secretfs");
    site.ask(&["seal"]);
    assert!(fs::read(site.secret("s")).is_err());
    site.ask(&["unseal"]);
    assert_eq!(fs::read_to_string(site.secret("s")).unwrap(), "canary-7f3a");
    site.stop();
    vault.set(|state| state.lose_keys());
    let mount = site.secret("");
    let (code, said) = site.refused(&["mount", "--foreground", mount.to_str().unwrap()]);
    assert!(code == 7 || code == 12, "{code}: {said}");
    assert!(said.contains("the backend corp gave no key"), "{said}");
}
