//! Any bytes as a control command: an object or a refusal, and the same again when read as JSON.
#![no_main]

use libfuzzer_sys::fuzz_target;
use secretfs::fs::fuzzing::parse_command;

fuzz_target!(|bytes: &[u8]| {
    let Some(command) = parse_command(bytes, "do") else { return };
    assert!(command.is_object());
    let again = parse_command(command.to_string().as_bytes(), "do");
    assert_eq!(again, Some(command));
});
