//! What `secretfs backend check` tries: one thing after the other, until one fails.

use super::{Deadline, Probe, Result};

/// Tries one thing, and says what was found.
pub(super) type Step<B> = fn(&B, Deadline) -> Result<String>;

/// Tries all of it.
pub(super) fn probes<B>(
    backend: &B,
    steps: &[(&'static str, Step<B>)],
    deadline: Deadline,
) -> Vec<Probe> {
    let mut probes = Vec::new();
    for (what, step) in steps {
        let found = step(backend, deadline);
        let worked = found.is_ok();
        let note = found.unwrap_or_else(|error| error.to_string());
        probes.push(Probe { what, worked, note });
        if !worked {
            break;
        }
    }
    probes
}
