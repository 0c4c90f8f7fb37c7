//! Any bytes as a name: whatever it stands for lies in the directory it was looked up in, and no name
//! leads out of it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use secretfs::fs::fuzzing::secret_meant;
use secretfs::fs::is_scratch_name;
use secretfs::model::{Pattern, SecretName};

fuzz_target!(|bytes: &[u8]| {
    let directory: SecretName = "app/db".parse().unwrap();
    if let Some(meant) = secret_meant(Some(&directory), bytes) {
        assert!(meant.is_below(&directory) || meant == directory, "{meant}");
        assert_eq!(meant.as_str().parse::<SecretName>().as_ref(), Ok(&meant));
    }
    let _ = secret_meant(None, bytes);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(name) = text.parse::<SecretName>() {
        assert!(name.segments().all(|segment| !segment.is_empty() && !segment.starts_with('.')));
        let _ = is_scratch_name(name.leaf());
    }
    if let Ok(pattern) = text.parse::<Pattern>() {
        let _ = (pattern.matches(&directory), pattern.may_match_below(&directory));
    }
});
