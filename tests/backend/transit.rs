//! Vault's transit as the source of the root key, through the daemon and its effector.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use secretfs::backend::http::Method;
use serde_json::{Value, json};

use crate::common::write_file;
use crate::servers::OpenBao;
use crate::site::Site;

/// Mounts transit with two keys, and returns what the configuration says of the service.
fn service(bao: &OpenBao) -> String {
    bao.ask(Method::Post, "sys/mounts/transit", &json!({ "type": "transit" }));
    for key in ["secretfs", "other"] {
        bao.ask(Method::Post, &format!("transit/keys/{key}"), &json!({}));
    }
    let token = bao.path("token");
    write_file(&token, bao.root.as_bytes());
    format!(
        "[backend.corp]\nkind = \"vault\"\naddress = \"{}\"\n[backend.corp.connection]\nca = {:?}\n\
         [backend.corp.auth]\nmethod = \"token\"\ntoken_file = {:?}\n",
        bao.address(),
        bao.pair.certificate,
        token,
    )
}

fn configure(site: &Site, text: &str) {
    let path = site.config();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    drop(fs::remove_file(&path));
    write_file(&path, text.as_bytes());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
}

fn status(site: &Site) -> Value {
    serde_json::from_str(&site.ask(&["--json", "key", "status"])).unwrap()
}

const KEY: &str = "[key]\nsource = \"backend\"\nbackend = \"corp\"\nname = \"secretfs\"\n";

#[test]
fn a_store_opens_by_transit_and_by_nothing_else() {
    let (Some(bao), Some(mut site)) = (OpenBao::start(), Site::new()) else { return };
    configure(&site, &format!("{KEY}{}", service(&bao)));
    site.init();
    site.serve();
    fs::write(site.secret("s"), "canary-7f3a").unwrap();
    assert!(status(&site).to_string().contains("key secretfs of backend corp"));
    // Sealed and unsealed while it serves: the server in its sandbox cannot ask by itself.
    site.ask(&["seal"]);
    assert!(fs::read(site.secret("s")).is_err());
    site.ask(&["unseal"]);
    assert_eq!(fs::read_to_string(site.secret("s")).unwrap(), "canary-7f3a");
    site.stop();
    site.serve();
    assert_eq!(fs::read_to_string(site.secret("s")).unwrap(), "canary-7f3a");
    site.stop();
    // Without the key there, nobody opens it.
    bao.ask(Method::Post, "transit/keys/secretfs/config", &json!({ "deletion_allowed": true }));
    bao.ask(Method::Delete, "transit/keys/secretfs", &Value::Null);
    let (code, said) = site.refused(&["mount", "--foreground", site.secret("").to_str().unwrap()]);
    assert!(code == 7 || code == 12, "{code}: {said}");
    assert!(said.contains("the backend corp gave no key"), "{said}");
}

#[test]
fn the_source_is_changed_to_transit_while_mounted() {
    let (Some(bao), Some(mut site)) = (OpenBao::start(), Site::new()) else { return };
    let key = KEY.replace("source = \"backend\"", "source = \"file\"");
    configure(&site, &format!("{key}file = {:?}\n{}", site.key(), service(&bao)));
    site.init();
    site.serve();
    fs::write(site.secret("s"), "canary-7f3a").unwrap();
    let change = |name: &str| {
        ["key", "change-source", "backend", "--key-backend", "corp", "--key-name", name]
            .map(str::to_owned)
    };
    let change_to = change("secretfs");
    site.ask(&change_to.each_ref().map(String::as_str));
    site.ask(&["key", "rotate-root"]);
    site.stop();
    fs::remove_file(site.key()).unwrap();
    configure(
        &site,
        &format!(
            "{KEY}{}",
            fs::read_to_string(site.config())
                .unwrap()
                .split_once("[backend")
                .map(|(_, rest)| format!("[backend{rest}"))
                .unwrap()
        ),
    );
    site.serve();
    assert_eq!(fs::read_to_string(site.secret("s")).unwrap(), "canary-7f3a");
}

#[test]
fn the_effector_opens_under_no_other_key() {
    let (Some(bao), Some(mut site)) = (OpenBao::start(), Site::new()) else { return };
    configure(&site, &format!("{KEY}{}", service(&bao)));
    site.init();
    site.serve();
    let mount = site.secret("");
    let arguments = ["--mount", mount.to_str().unwrap(), "key", "change-source", "backend"];
    let other = ["--key-backend", "corp", "--key-name", "other"];
    let (_, said) = site.refused(&[&arguments[..], &other].concat());
    assert!(said.contains("does not have that backend and name"), "{said}");
    assert!(!status(&site).to_string().contains("key other"));
}
