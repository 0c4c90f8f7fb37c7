//! Any text as a configuration file: a layer, or a fault that can be shown.
#![no_main]

use libfuzzer_sys::fuzz_target;
use secretfs::daemon::config::Layer;

fuzz_target!(|text: &str| {
    match Layer::parse(text) {
        Ok(layer) => drop(Layer::default().under(layer)),
        Err(fault) => drop(format!("{fault:?}")),
    }
});
