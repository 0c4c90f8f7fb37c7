//! Stores what was found somewhere else: everything is checked before the first secret is written.

use std::collections::BTreeMap;

use serde_json::json;

use super::Context;
use super::args::Storing;
use super::client::{Client, Writing};
use super::error::{Failure, Kind};
use super::names;
use crate::inject::env_name;
use crate::model::SecretName;
use crate::system::SecretBytes;

/// A secret outside the store.
#[derive(Debug)]
pub(crate) struct Found {
    pub name: SecretName,
    pub value: SecretBytes,
    /// Where it was, for people.
    pub from: String,
}

/// What is done with one that was found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Action {
    Create,
    Keep,
    Replace,
}

/// Stores them all. Errors, with nothing stored: a name that is taken, by another value.
pub(crate) fn store(
    context: &Context,
    client: &Client,
    found: &[Found],
    storing: &Storing,
) -> Result<(), Failure> {
    let actions = plan(client, found, storing)?;
    let mut document = Vec::new();
    let mut lines = Vec::new();
    for (one, action) in found.iter().zip(actions) {
        if !storing.dry_run && action != Action::Keep {
            let how = Writing { create: action == Action::Create, ..Writing::default() };
            client.write_value(&one.name, &one.value, how)?;
        }
        let word = match (action, storing.dry_run) {
            (Action::Create, false) => "created",
            (Action::Create, true) => "would be created",
            (Action::Keep, _) => "is there with this value",
            (Action::Replace, false) => "has a new version",
            (Action::Replace, true) => "would get a new version",
        };
        lines.push(format!("{} {word} (from {})", one.name, one.from));
        document.push(json!({ "name": one.name, "from": one.from, "outcome": word }));
    }
    context.out.json(&json!(document))?;
    lines.iter().try_for_each(|line| context.out.line(line))
}

fn plan(client: &Client, found: &[Found], storing: &Storing) -> Result<Vec<Action>, Failure> {
    let mut by_name = BTreeMap::<&SecretName, &Found>::new();
    for one in found {
        let first = by_name.insert(&one.name, one);
        if let Some(first) = first.filter(|first| !first.value.constant_time_eq(&one.value)) {
            let why = format!("{} and {} would both be stored under it", first.from, one.from);
            return Err(Failure::new(Kind::SecretAlreadyExists, one.name.as_str(), why));
        }
    }
    let mut planned: Vec<&SecretName> = Vec::new();
    let mut actions = Vec::new();
    for one in found {
        let action = match client.read_value(&one.name, "") {
            // The same value from two places is stored once.
            _ if planned.contains(&&one.name) => Action::Keep,
            Err(failure) if failure.kind == Kind::SecretNotFound => Action::Create,
            Ok(value) if value.constant_time_eq(&one.value) => Action::Keep,
            Ok(_) if storing.replace => Action::Replace,
            Ok(_) => {
                return Err(Failure::new(
                    Kind::SecretAlreadyExists,
                    one.name.as_str(),
                    "it has another value",
                )
                .hint("look at both, then use --replace, or --dir for another place"));
            }
            Err(failure) => return Err(failure),
        };
        planned.push(&one.name);
        actions.push(action);
    }
    Ok(actions)
}

/// Returns the name for what stands at the end of a way of names, such as `database-url` for
/// `DATABASE_URL` and `auth/secret` for `auth`, `secret`.
pub(crate) fn name_for(
    directory: Option<&SecretName>,
    path: &[String],
) -> Result<SecretName, Failure> {
    let segments: Vec<String> = path.iter().map(|key| segment(key)).collect();
    let joined = segments.join("/");
    let whole = directory.map_or(joined.clone(), |directory| format!("{directory}/{joined}"));
    whole.parse().map_err(|err| {
        Failure::new(Kind::Config, path.join("."), format!("no name can be made of it: {err}"))
    })
}

fn segment(key: &str) -> String {
    let mapped = key.chars().map(|c| match c {
        'A'..='Z' => c.to_ascii_lowercase(),
        'a'..='z' | '0'..='9' | '.' | '-' => c,
        _ => '-',
    });
    let mapped: String = mapped.collect();
    mapped.trim_matches(['-', '.']).to_owned()
}

/// Returns what stands for a secret in a file. Error: it would stand for another one too.
pub(crate) fn placeholder(name: &SecretName, others: &[SecretName]) -> Result<String, Failure> {
    let variable = env_name(name.as_str());
    let same = |other: &&SecretName| *other != name && env_name(other.as_str()) == variable;
    match others.iter().find(same) {
        Some(other) => {
            let why = format!("${{SECRET_{variable}}} would mean {other} too");
            Err(Failure::new(Kind::Injection, name.as_str(), why)
                .hint("choose another place with --dir"))
        }
        None => Ok(format!("${{SECRET_{variable}}}")),
    }
}

/// Returns the placeholders for all that was found, in its order.
pub(crate) fn placeholders(client: &Client, found: &[Found]) -> Result<Vec<String>, Failure> {
    let mut others = names::below(client, None)?;
    others.extend(found.iter().map(|one| one.name.clone()));
    found.iter().map(|one| placeholder(&one.name, &others)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(path: &[&str]) -> String {
        let path: Vec<String> = path.iter().map(|key| (*key).to_owned()).collect();
        name_for(Some(&"app".parse().unwrap()), &path).unwrap().to_string()
    }

    #[test]
    fn keys_become_names_whose_variable_is_the_key_again() {
        assert_eq!(name(&["DATABASE_URL"]), "app/database-url");
        assert_eq!(name(&["auth", "secret_key"]), "app/auth/secret-key");
        assert_eq!(name(&["a b\u{e9}c"]), "app/a-b-c");
        assert!(name_for(None, &["...".to_owned()]).is_err());
        let name: SecretName = name(&["DATABASE_URL"]).parse().unwrap();
        assert_eq!(placeholder(&name, &[]).unwrap(), "${SECRET_APP_DATABASE_URL}");
        let other = "app/database.url".parse().unwrap();
        assert!(placeholder(&name, &[other]).is_err());
    }
}
