//! Any bytes where a header, a keyring, a record or a value should be: malformed, damaged or refused.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use secretfs::crypto::{Header, Keyring, RootKey};
use secretfs::model::{SecretId, StoreId, Timestamp, Version};
use secretfs::system::SecretBytes;

const STORE: StoreId = StoreId([7; 16]);

static ROOT: LazyLock<RootKey> = LazyLock::new(|| RootKey::generate().unwrap());
static KEYS: LazyLock<Keyring> =
    LazyLock::new(|| Keyring::generate(STORE, Timestamp::UNIX_EPOCH).unwrap());

fuzz_target!(|bytes: &[u8]| {
    if let Ok(header) = Header::decode(bytes) {
        assert_eq!(header.encode().as_deref(), Ok(bytes), "two headers are one");
        let key = SecretBytes::copy_from(&[7; 32]).unwrap();
        // A passphrase's slot may ask for as much memory as its parameters allow; the others are cheap.
        let cheap = header.slots.iter().filter(|slot| !slot.kind.describe().contains("passphrase"));
        cheap.for_each(|slot| assert!(slot.open(header.store, &key).is_err()));
    }
    assert!(Keyring::open(STORE, &ROOT, bytes).is_err());
    assert!(KEYS.open_record(SecretId([1; 16]), bytes).is_err());
    assert!(KEYS.open_value(SecretId([1; 16]), Version(1), bytes).is_err());
});
