//! A log whose one segment is any bytes: reading and verifying end in an answer, and no such bytes verify.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use secretfs::audit::{AuditKey, Filter, query, verify};
use secretfs::crypto::Keyring;
use secretfs::model::{StoreId, Timestamp};

static KEYS: LazyLock<Keyring> =
    LazyLock::new(|| Keyring::generate(StoreId([7; 16]), Timestamp::UNIX_EPOCH).unwrap());
static LOG: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());

fuzz_target!(|bytes: &[u8]| {
    let name = format!("{:020}.jsonl", 1);
    std::fs::write(LOG.path().join(name), bytes).unwrap();
    if let Ok(entries) = query(LOG.path(), &Filter::default()) {
        entries.for_each(drop);
    }
    let verified = verify(LOG.path(), &AuditKey::new(KEYS.audit_key()), None);
    // The key is new in each run, so no line that a corpus remembers is a true one.
    assert!(verified.is_err() || bytes.is_empty(), "{verified:?}");
});
