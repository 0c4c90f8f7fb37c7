//! The values of the mounted store that the caller may read, to be looked for.
//!
//! Each is read through the mount, so the policy decides and the audit log has a line for each.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher;

use serde_json::{Value, json};

use crate::cli::Context;
use crate::cli::client::Client;
use crate::cli::command::{destroy, rotate as rotation};
use crate::cli::error::{Failure, Kind};
use crate::cli::out::text_of;
use crate::model::SecretName;
use crate::scan::{Origin, Scan, Stored};

/// Reads every version of every secret that the caller may read.
pub(super) fn stored(context: &Context) -> Result<Stored, Failure> {
    let client = context.client()?;
    // The standard library's hashes are keyed at random.
    let mut stored = Stored::new(RandomState::new().hash_one("secretfs scan"));
    let (mut refused, mut short, mut values) = (0_usize, 0_usize, 0_usize);
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
            let origin = Origin { secret: name.clone(), version };
            let added = stored.add(&origin, &value);
            let added = added.map_err(|error| {
                Failure::new(Kind::Scanning, origin.to_string(), error.to_string())
            })?;
            short += usize::from(!added);
            values += usize::from(added);
        }
    }
    // One line for what they were read for, beside the one of each read.
    let command = json!({ "own": values }).to_string();
    client.control("scan", command.as_bytes())?;
    for (count, what) in
        [(refused, "not yours to read"), (short, "too short to be told from other text")]
    {
        if count > 0 {
            context.out.note(format_args!("{count} stored values are not looked for: {what}"));
        }
    }
    Ok(stored)
}

/// Rotates each secret of which the current value was found, as far as somebody says yes. Returns whether none failed.
pub(super) fn rotate(context: &Context, scan: &Scan, yes: Answer) -> Result<bool, Failure> {
    let client = context.client()?;
    let mut versions: BTreeMap<&SecretName, BTreeSet<u64>> = BTreeMap::new();
    for origin in scan.open().filter_map(|finding| finding.stored.as_ref()) {
        versions.entry(&origin.secret).or_default().insert(origin.version);
    }
    let mut all_well = true;
    for (name, found) in versions {
        let current = client.meta(name)?.get("version").and_then(Value::as_u64);
        if !current.is_some_and(|current| found.contains(&current)) {
            context.out.note(format_args!("{name}: only earlier versions were found"));
            continue;
        }
        if yes == Answer::Ask
            && let Err(failure) = destroy::confirm(context, &format!("Rotate {name}?"), "--yes")
        {
            context.out.note(format_args!("{name} not rotated: {}", failure.why));
            continue;
        }
        let why = match rotation::one(context, &client, name) {
            Ok(outcome) if outcome.get("success") == Some(&Value::Bool(true)) => {
                let version = outcome.get("new_version").map(text_of).unwrap_or_default();
                context.out.note(format_args!("{name} rotated: its version is {version}"));
                continue;
            }
            Ok(outcome) => outcome.get("error").map(text_of).unwrap_or_default(),
            Err(failure) => failure.why,
        };
        all_well = false;
        context.out.note(format_args!("{name} not rotated: {why}"));
    }
    Ok(all_well)
}

/// Whether somebody is asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Answer {
    Ask,
    Yes,
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
