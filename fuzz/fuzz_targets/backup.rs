//! Any bytes as a backup: they fill a store or are refused, and what was filled is written back the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use secretfs::broker::{read_header, unpack_backup, write_backup};
use secretfs::store::MemoryStore;

fuzz_target!(|bytes: &[u8]| {
    let store = MemoryStore::new();
    if unpack_backup(&mut &*bytes, &store).is_err() {
        return;
    }
    let (mut first, mut second) = (Vec::new(), Vec::new());
    write_backup(&store, &mut first).unwrap();
    unpack_backup(&mut &first[..], &store).unwrap();
    write_backup(&store, &mut second).unwrap();
    assert_eq!(first, second);
    let _ = read_header(&store);
});
