//! `secretfs backend check` for Vault: one thing after the other, until one fails.

use std::time::Instant;

use super::Vault;
use super::list;
use crate::backend::{BackendError, Deadline, Probe, Result};

pub(super) fn probes(vault: &Vault, deadline: Deadline) -> Vec<Probe> {
    let steps: [(&'static str, Step); 5] = [
        ("reachable", reachable),
        ("clock", clock),
        ("authenticated", authenticated),
        ("may list", may_list),
        ("may read", may_read),
    ];
    let mut probes = Vec::new();
    for (what, step) in steps {
        let found = step(vault, deadline);
        let worked = found.is_ok();
        let note = found.unwrap_or_else(|error| error.to_string());
        probes.push(Probe { what, worked, note });
        if !worked {
            break;
        }
    }
    probes
}

/// Tries one thing, and says what was found.
type Step = fn(&Vault, Deadline) -> Result<String>;

fn reachable(vault: &Vault, deadline: Deadline) -> Result<String> {
    let start = Instant::now();
    let answer = vault.kv.client.health(deadline)?;
    let latency = start.elapsed().as_millis();
    match answer.status {
        200 => Ok(format!("{latency} ms")),
        501 => Err(BackendError::Failed("it is not initialized".into())),
        503 => Err(BackendError::Failed("it is sealed".into())),
        status => Err(BackendError::Failed(format!("its health is status {status}"))),
    }
}

fn clock(vault: &Vault, deadline: Deadline) -> Result<String> {
    vault.kv.client.health(deadline)?.skew()
}

fn authenticated(vault: &Vault, deadline: Deadline) -> Result<String> {
    let left = vault.kv.client.authenticate(deadline)?;
    Ok(left.map_or_else(
        || "a token without an end".into(),
        |left| format!("a token for {} s", left.as_secs()),
    ))
}

fn may_list(vault: &Vault, deadline: Deadline) -> Result<String> {
    let page = list::page(&vault.kv, &vault.prefix, false, None, deadline)?;
    let more = if page.next.is_some() { " or more" } else { "" };
    Ok(format!("{}{more} names", page.names.len()))
}

fn may_read(vault: &Vault, deadline: Deadline) -> Result<String> {
    let page = list::page(&vault.kv, &vault.prefix, false, None, deadline)?;
    for name in page.names {
        match vault.kv.read(&format!("{}{name}", vault.prefix), None, deadline) {
            Ok(_) => return Ok(name),
            // Deleted ones are listed too.
            Err(BackendError::NotFound) => {}
            Err(error) => return Err(error),
        }
    }
    Ok("there is nothing to read".into())
}
