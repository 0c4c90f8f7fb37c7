//! `ls`: secrets and directories, as far as the caller may know of them.

use serde_json::{Value, json};

use super::Done;
use crate::cli::Context;
use crate::cli::args::Ls;
use crate::cli::client::Client;
use crate::cli::error::{Failure, Kind};
use crate::cli::table::{row, short_time};
use crate::model::SecretName;

const COLUMNS: [&str; 7] = ["type", "version", "size", "modified", "expires", "status", "name"];

pub(super) fn run(context: &Context, args: &Ls) -> Done {
    let client = context.client()?;
    let start = args.directory.as_ref().map_or("", SecretName::as_str);
    let mut found = Vec::new();
    collect(&client, start, args.recursive, &mut found)?;
    let want_all = args.long || context.out.is_json();
    let entries: Vec<Value> =
        found.iter().map(|entry| describe(&client, entry, want_all)).collect();
    context.out.json(&json!(entries))?;
    if !args.long {
        return found.iter().try_for_each(|entry| {
            let slash = if entry.is_directory { "/" } else { "" };
            context.out.line(format_args!("{}{slash}", entry.shown(start, args.recursive)))
        });
    }
    let rows: Vec<Vec<String>> = entries.iter().map(long_row).collect();
    context.out.table(&COLUMNS, &rows)
}

/// Returns the names of all secrets that the caller may know of.
pub(super) fn names(client: &Client) -> Result<Vec<SecretName>, Failure> {
    let mut found = Vec::new();
    collect(client, "", true, &mut found)?;
    let secrets = found.iter().filter(|entry| !entry.is_directory);
    Ok(secrets.filter_map(|entry| entry.path.parse().ok()).collect())
}

struct Entry {
    path: String,
    is_directory: bool,
}

impl Entry {
    /// Returns what a listing shows: the last segment, or with subdirectories the path.
    fn shown(&self, start: &str, recursive: bool) -> &str {
        if recursive {
            return &self.path;
        }
        let below = self.path.strip_prefix(start).unwrap_or(&self.path);
        below.trim_start_matches('/')
    }
}

fn collect(client: &Client, directory: &str, recursive: bool, found: &mut Vec<Entry>) -> Done {
    for (name, is_directory) in client.list(directory)? {
        // `.control` and its like are not for a list of secrets.
        if name.starts_with('.') {
            continue;
        }
        let path = if directory.is_empty() { name } else { format!("{directory}/{name}") };
        // Deeper than names can be means that the tree is not what it should be.
        if path.len() > SecretName::MAX_BYTES {
            return Err(Failure::new(Kind::BackendConnection, path, "the tree has no end"));
        }
        if recursive && is_directory {
            collect(client, &path, recursive, found)?;
        } else {
            found.push(Entry { path, is_directory });
        }
    }
    Ok(())
}

fn describe(client: &Client, entry: &Entry, all: bool) -> Value {
    if entry.is_directory {
        return json!({ "name": entry.path, "kind": "directory" });
    }
    let name = entry.path.parse::<SecretName>().ok().filter(|_| all);
    // Gone since the listing, or not ours to describe: the name is all there is to say.
    let Some(mut meta) = name.and_then(|name| client.meta(&name).ok()) else {
        return json!({ "name": entry.path, "kind": "secret" });
    };
    if let Some(object) = meta.as_object_mut() {
        object.insert("kind".into(), "secret".into());
        object.remove("versions");
    }
    meta
}

fn long_row(entry: &Value) -> Vec<String> {
    let mut cells = row(entry, &COLUMNS);
    for index in [3, 4] {
        if let Some(cell) = cells.get_mut(index) {
            *cell = short_time(cell);
        }
    }
    if let (Some(name), true) = (cells.last_mut(), entry["kind"] == "directory") {
        name.push('/');
    }
    cells
}
