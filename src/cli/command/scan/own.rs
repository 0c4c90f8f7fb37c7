//! The values of the mounted store that the caller may read, to be looked for.
//!
//! Each is read through the mount, so the policy decides and the audit log has a line for each.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use serde_json::Value;

use crate::cli::Context;
use crate::cli::client::Client;
use crate::cli::error::{Failure, Kind};
use crate::model::SecretName;
use crate::scan::Stored;

/// Reads every version of every secret that the caller may read.
pub(super) fn stored(context: &Context) -> Result<Stored, Failure> {
    let client = context.client()?;
    // The standard library's hashes are keyed at random.
    let mut stored = Stored::new(RandomState::new().hash_one("secretfs scan"));
    let (mut refused, mut short) = (0_usize, 0_usize);
    let mut names = Vec::new();
    collect(&client, "", &mut names)?;
    for name in names {
        let Ok(meta) = client.meta(&name) else {
            refused += 1;
            continue;
        };
        let versions = meta.get("versions").and_then(Value::as_array).cloned().unwrap_or_default();
        for version in
            versions.iter().filter_map(|version| version.get("version").and_then(Value::as_u64))
        {
            let value = match client.read_value(&name, &format!("@{version}")) {
                Ok(value) => value,
                // Not for this caller, or gone meanwhile: of others it may not even learn whether they leaked.
                Err(failure)
                    if matches!(failure.kind, Kind::Authorization | Kind::SecretNotFound) =>
                {
                    refused += 1;
                    continue;
                }
                Err(failure) => return Err(failure),
            };
            let label = format!("{name}, version {version}");
            let added = stored.add(&label, &value);
            let added =
                added.map_err(|error| Failure::new(Kind::Scanning, label, error.to_string()))?;
            short += usize::from(!added);
        }
    }
    for (count, what) in
        [(refused, "not yours to read"), (short, "too short to be told from other text")]
    {
        if count > 0 {
            context.out.note(format_args!("{count} stored values are not looked for: {what}"));
        }
    }
    Ok(stored)
}

fn collect(client: &Client, directory: &str, names: &mut Vec<SecretName>) -> Result<(), Failure> {
    for (name, is_directory) in client.list(directory)? {
        let path = if directory.is_empty() { name } else { format!("{directory}/{name}") };
        // `.control` and its like are no secrets.
        let Ok(name) = path.parse::<SecretName>() else { continue };
        if is_directory {
            // One that may not be listed holds nothing that may be read.
            match collect(client, &path, names) {
                Err(failure) if failure.kind == Kind::Authorization => {}
                done => done?,
            }
        } else {
            names.push(name);
        }
    }
    Ok(())
}
