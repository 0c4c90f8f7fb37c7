//! Keys of AWS that never leave it, over moto with its signature check on.

use secretfs::backend::aws::Kms;
use secretfs::backend::{BackendError, KeyService};

use crate::conformance::{bytes, time};
use crate::servers::Moto;
use crate::servers::moto::environment;

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
