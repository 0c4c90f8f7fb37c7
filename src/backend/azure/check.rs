//! `secretfs backend check` for Key Vault: one thing after the other, until one fails.

use std::time::Instant;

use super::Azure;
use crate::backend::check::{self, Step};
use crate::backend::{Backend, BackendError, Deadline, Page, Probe, Result, Which};

pub(super) fn probes(azure: &Azure, deadline: Deadline) -> Vec<Probe> {
    let steps: [(&'static str, Step<Azure>); 5] = [
        ("reachable", reachable),
        ("clock", clock),
        ("authenticated", authenticated),
        ("may list", may_list),
        ("may read", may_read),
    ];
    check::probes(azure, &steps, deadline)
}

fn reachable(azure: &Azure, deadline: Deadline) -> Result<String> {
    let start = Instant::now();
    azure.client.challenge(deadline)?;
    Ok(format!("{} ms", start.elapsed().as_millis()))
}

fn clock(azure: &Azure, deadline: Deadline) -> Result<String> {
    azure.client.challenge(deadline)?.skew()
}

fn authenticated(azure: &Azure, deadline: Deadline) -> Result<String> {
    let left = azure.client.authenticate(deadline)?;
    Ok(format!("a token for {} s", left.as_secs()))
}

fn may_list(azure: &Azure, deadline: Deadline) -> Result<String> {
    let page = first_names(azure, deadline)?;
    let more = if page.next.is_some() { " or more" } else { "" };
    Ok(format!("{}{more} names", page.names.len()))
}

fn may_read(azure: &Azure, deadline: Deadline) -> Result<String> {
    let mut refused = None;
    for name in first_names(azure, deadline)?.names {
        match azure.get(&name, &Which::Current, deadline) {
            Ok(_) => return Ok(name),
            // It has just gone, or is disabled and another one is not.
            Err(BackendError::NotFound) => {}
            Err(error @ BackendError::Denied(_)) => refused = Some(error),
            Err(error) => return Err(error),
        }
    }
    refused.map_or_else(|| Ok("there is nothing to read".into()), Err)
}

/// Returns the first page that has a name below the prefix, or the last one.
fn first_names(azure: &Azure, deadline: Deadline) -> Result<Page> {
    let mut page = azure.list(None, deadline)?;
    while let Some(next) = page.next.take_if(|_| page.names.is_empty()) {
        page = azure.list(Some(&next), deadline)?;
    }
    Ok(page)
}
