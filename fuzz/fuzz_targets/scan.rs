//! Any bytes as a file: the engine, every decoder and the archives take them, and every report can be
//! written of what they find.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use secretfs::scan::report::{self, Format, Look};
use secretfs::scan::{Confidence, Engine, RuleSet, Wanted, scan_reader};

fuzz_target!(|bytes: &[u8]| {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    let engine = ENGINE.get_or_init(|| Engine::new(RuleSet::built_in().unwrap()).unwrap());
    let min_confidence = Confidence::new(0.0);
    let wanted = Wanted { min_confidence, explain: true, ..Wanted::default() };
    let scan = scan_reader(engine, &wanted, "x.yaml", &mut &bytes[..]);
    for finding in &scan.findings {
        assert!(finding.place.line >= 1 && finding.place.column >= 1);
        assert!(finding.place.end_line >= finding.place.line);
    }
    for format in Format::ALL {
        let _ = report::write(&scan, format, Look { color: true, suppressed: true });
    }
});
