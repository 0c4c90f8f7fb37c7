//! Any bytes as a control command: an object or a refusal, and of the same keys when read again as JSON.
#![no_main]

use libfuzzer_sys::fuzz_target;
use secretfs::fs::fuzzing::parse_command;

fuzz_target!(|bytes: &[u8]| {
    let Some(command) = parse_command(bytes, "do") else { return };
    assert!(command.is_object());
    // Not equal: serde_json reads the last digit of a long fraction as it likes.
    let again = parse_command(command.to_string().as_bytes(), "do").unwrap();
    assert!(again.as_object().unwrap().keys().eq(command.as_object().unwrap().keys()));
});
