//! `secretfs backend check` for Secrets Manager: one thing after the other, until one fails.

use std::time::Instant;

use super::{SecretsManager, client};
use crate::backend::check::{self, Step};
use crate::backend::{Backend, BackendError, Deadline, Probe, Result, Which};

pub(super) fn probes(backend: &SecretsManager, deadline: Deadline) -> Vec<Probe> {
    let steps: [(&'static str, Step<SecretsManager>); 5] = [
        ("reachable", reachable),
        ("clock", clock),
        ("authenticated", authenticated),
        ("may list", may_list),
        ("may read", may_read),
    ];
    check::probes(backend, &steps, deadline)
}

/// Whoever answers a stranger is there, whatever the answer.
fn reachable(backend: &SecretsManager, deadline: Deadline) -> Result<String> {
    let start = Instant::now();
    backend.client.ask_unknown("ListSecrets", deadline)?;
    Ok(format!("{} ms", start.elapsed().as_millis()))
}

fn clock(backend: &SecretsManager, deadline: Deadline) -> Result<String> {
    backend.client.ask_unknown("ListSecrets", deadline)?.skew()
}

fn authenticated(backend: &SecretsManager, deadline: Deadline) -> Result<String> {
    match backend.list(None, deadline) {
        // Only somebody who is known is denied something.
        Ok(_) | Err(BackendError::Denied(_)) => {}
        Err(error) => return Err(error),
    }
    Ok(client::life(&*backend.client.credential(deadline)?))
}

fn may_list(backend: &SecretsManager, deadline: Deadline) -> Result<String> {
    let page = backend.list(None, deadline)?;
    let more = if page.next.is_some() { " or more" } else { "" };
    Ok(format!("{}{more} names", page.names.len()))
}

fn may_read(backend: &SecretsManager, deadline: Deadline) -> Result<String> {
    for name in backend.list(None, deadline)?.names {
        match backend.get(&name, &Which::Current, deadline) {
            Ok(_) => return Ok(name),
            // One that has no value yet, or just went away.
            Err(BackendError::NotFound) => {}
            Err(error) => return Err(error),
        }
    }
    Ok("there is nothing to read".into())
}
