//! `restore`: a secret comes back from the trash, under its name or another one.

use std::fs;

use serde_json::json;

use super::Done;
use crate::cli::Context;
use crate::cli::args::Restore;
use crate::cli::client::Client;
use crate::cli::error::{Failure, Kind};
use crate::model::SecretName;

pub(super) fn run(context: &Context, args: &Restore) -> Done {
    let client = context.client()?;
    let entry = entry(&client, &args.name)?;
    let to = match &args.to {
        Some(name) => name.clone(),
        None => original(&entry)?,
    };
    if let Some(parent) = to.parent() {
        fs::create_dir_all(client.path(parent.as_str()))
            .map_err(|err| Failure::from_errno(parent.as_str(), &err))?;
    }
    let (from, target) = (client.path(&trashed(&entry)), client.path(to.as_str()));
    // A rename that replaces would make a version of what is there; restoring must not.
    let flags = nix::fcntl::RenameFlags::RENAME_NOREPLACE;
    nix::fcntl::renameat2(nix::fcntl::AT_FDCWD, &from, nix::fcntl::AT_FDCWD, &target, flags)
        .map_err(|errno| Failure::from_errno(to.as_str(), &errno.into()))?;
    context.out.done(format_args!("{to} is back"), &json!({ "name": to, "restored": true }))
}

/// Returns the path of an entry of the trash.
pub(super) fn trashed(entry: &str) -> String {
    format!(".control/trash/{entry}")
}

/// Finds the entry for what a person wrote: a name's newest one, or an entry as it is listed.
pub(super) fn entry(client: &Client, written: &str) -> Result<String, Failure> {
    let entries = client.list(".control/trash")?;
    let names: Vec<String> = entries.into_iter().map(|(name, _)| name).collect();
    newest(&names, &flat(written)).ok_or_else(|| {
        Failure::new(Kind::SecretNotFound, written, "there is no such secret in the trash")
            .hint("`secretfs destroy` without a name lists it")
    })
}

/// Returns the entry of that very name if it has a number, else the newest one of the name: later
/// ones have higher numbers.
fn newest(entries: &[String], wanted: &str) -> Option<String> {
    let number = |entry: &String| match entry.strip_prefix(wanted)?.strip_prefix('~') {
        Some(number) => number.parse::<u32>().ok(),
        None => (entry == wanted).then_some(1),
    };
    let of_name = entries.iter().filter_map(|entry| Some((number(entry)?, entry)));
    of_name.max().map(|(_, entry)| entry.clone())
}

/// The trash is one directory: it shows a name's slashes as colons, which no name contains.
fn flat(name: &str) -> String {
    name.replace('/', ":")
}

/// Returns the name that an entry had; older ones of one name end in `~` and a number.
fn original(entry: &str) -> Result<SecretName, Failure> {
    let plain = entry.split_once('~').map_or(entry, |(plain, _)| plain);
    plain.replace(':', "/").parse().map_err(|err: crate::model::NameError| {
        Failure::new(Kind::SecretNotFound, entry, err.to_string()).hint("name it with --to")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_entries_of_the_trash_lead_to_each_other() {
        assert_eq!(flat("prod/db/password"), "prod:db:password");
        assert_eq!(flat("prod:db~2"), "prod:db~2");
        assert_eq!(original("prod:db:password~12").unwrap().as_str(), "prod/db/password");
        assert!(original(".:x").is_err());
    }
}
