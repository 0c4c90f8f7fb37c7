//! A log whose one segment is any bytes: reading and verifying end in an answer, and no line of it verifies.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use secretfs::audit::{AuditKey, Filter, Head, query, verify};
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
    // The key is new in each run, so no line that a corpus remembers is a true one. A file without a
    // whole line is one that a writer has just made: it verifies, and says nothing.
    assert!(verified.map_or(true, |verified| verified.head == Head::EMPTY));
});
