//! Keys of AWS that never leave it, over moto with its signature check on.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use secretfs::backend::aws::Kms;
use secretfs::backend::{BackendError, KeyService};

use crate::common::write_file;
use crate::conformance::{bytes, time};
use crate::servers::Moto;
use crate::servers::moto::environment;
use crate::site::Site;

/// Makes a key under this alias.
fn made(moto: &Moto, alias: &str) -> String {
    moto.boto(&format!(
        "key = kms.create_key()['KeyMetadata']['KeyId']\n\
         kms.create_alias(AliasName='alias/{alias}', TargetKeyId=key)\n\
         print(key)"
    ))
}

fn key(moto: &Moto, name: &str) -> Kms {
    Kms::new(&moto.settings(), name, &environment(&moto.key())).unwrap()
}

#[test]
fn what_a_key_seals_it_opens_in_its_context_and_nobody_else_does() {
    let Some(moto) = Moto::start() else { return };
    let id = made(&moto, "secretfs");
    let kms = key(&moto, "alias/secretfs");
    let plain = bytes(b"canary-7f3a\xff\x00");
    let wrapped = kms.wrap(&plain, time()).unwrap();
    assert!(!wrapped.contains("canary"));
    assert_ne!(kms.wrap(&plain, time()).unwrap(), wrapped, "it is sealed with a nonce");
    for name in [&*id, "alias/secretfs"] {
        let opened = key(&moto, name).unwrap(&wrapped, time()).unwrap();
        assert!(opened.constant_time_eq(&plain));
    }
    // AWS's own client, with the context and without.
    let opened = moto.boto(&format!(
        "import base64\n\
         sealed = base64.b64decode('{wrapped}')\n\
         print(kms.decrypt(CiphertextBlob=sealed, EncryptionContext={{'secretfs': 'root key'}})['Plaintext'])\n\
         try: kms.decrypt(CiphertextBlob=sealed)\n\
         except kms.exceptions.InvalidCiphertextException: print('refused')"
    ));
    assert_eq!(opened, "b'canary-7f3a\\xff\\x00'\nrefused");
    let mut tampered = wrapped.clone().into_bytes();
    let last = tampered.len() - 8;
    tampered[last] = if tampered[last] == b'A' { b'B' } else { b'A' };
    let tampered = String::from_utf8(tampered).unwrap();
    for bad in [&*tampered, "AAAA", "no base64", ""] {
        let failed = kms.unwrap(bad, time()).unwrap_err();
        assert!(!failed.is_passing(), "{bad}: {failed:?}");
    }
}

#[test]
fn a_key_that_is_not_there_seals_nothing() {
    let Some(moto) = Moto::start() else { return };
    let failed = key(&moto, "alias/none").wrap(&bytes(b"x"), time()).unwrap_err();
    assert_eq!(failed, BackendError::NotFound);
    let stranger = Kms::new(
        &moto.settings(),
        "alias/none",
        &environment(&[
            ("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE"),
            ("AWS_SECRET_ACCESS_KEY", "canary-9c1d"),
        ]),
    );
    let refused = stranger.unwrap().wrap(&bytes(b"x"), time()).unwrap_err();
    assert!(matches!(refused, BackendError::Unauthenticated(_)), "{refused:?}");
}

#[test]
fn a_store_opens_by_kms_and_by_nobody_else() {
    let (Some(moto), Some(mut site)) = (Moto::start(), Site::new()) else { return };
    made(&moto, "secretfs");
    let credentials = moto.path("credentials");
    let (key_id, secret) = (&moto.key_id, &moto.secret);
    let text = format!("[default]\naws_access_key_id={key_id}\naws_secret_access_key={secret}\n");
    write_file(&credentials, text.as_bytes());
    let config = format!(
        "[key]\nsource = \"backend\"\nbackend = \"aws\"\nname = \"alias/secretfs\"\n\
         [backend.aws]\nkind = \"aws_secrets_manager\"\nregion = \"us-east-1\"\n\
         kms_endpoint = \"{}\"\ncredentials_file = {credentials:?}\n",
        moto.url()
    );
    let path = site.config();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    write_file(&path, config.as_bytes());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    site.init();
    site.serve();
    fs::write(site.secret("s"), "canary-7f3a").unwrap();
    site.ask(&["seal"]);
    assert!(fs::read(site.secret("s")).is_err());
    site.ask(&["unseal"]);
    assert_eq!(fs::read_to_string(site.secret("s")).unwrap(), "canary-7f3a");
    site.stop();
    // Who has only the store has nothing.
    fs::remove_file(&credentials).unwrap();
    write_file(&credentials, text.replace(secret, "canary-9c1d").as_bytes());
    let (code, said) = site.refused(&["mount", "--foreground", site.secret("").to_str().unwrap()]);
    assert!(code == 7 || code == 12, "{code}: {said}");
    assert!(said.contains("the backend aws gave no key"), "{said}");
}
