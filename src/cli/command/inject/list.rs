//! `inject list`: the files that the daemon keeps by `injections.toml`, and the programs that it tells.

use std::fs;

use serde_json::Value;

use super::Done;
use crate::cli::Context;
use crate::cli::error::{Failure, Kind};
use crate::cli::table::short_time;

const COLUMNS: [&str; 6] = ["target", "secret", "version", "when", "state", "error"];

pub(super) fn run(context: &Context) -> Done {
    let (client, out) = (context.client()?, &context.out);
    let text = fs::read_to_string(client.path(".control/injections"))
        .map_err(|err| Failure::from_errno("the injections", &err).hint("they are for admins"))?;
    let malformed = |err: serde_json::Error| {
        Failure::new(Kind::BackendConnection, "the injections", err.to_string())
    };
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).map_err(malformed))
        .collect::<Result<_, _>>()?;
    if out.is_json() {
        return lines.iter().try_for_each(|line| out.json(line));
    }
    if lines.is_empty() && out.is_terminal() {
        return out.line("nothing is kept: injections.toml has no file and no consumer");
    }
    let rows: Vec<Vec<String>> = lines.iter().map(row).collect();
    out.table(&COLUMNS, &rows)
}

/// A consumer is told of many secrets: of several their number is shown.
fn row(line: &Value) -> Vec<String> {
    let text = |key: &str| line.get(key).and_then(Value::as_str).unwrap_or_default();
    let (target, secret, version) = match line.get("consumer") {
        Some(_) => {
            let told = line.get("versions").and_then(Value::as_object);
            let (secret, version) = match told.map(|told| (told.len(), told.iter().next())) {
                Some((1, Some((name, version)))) => (name.clone(), version.as_u64()),
                Some((count, _)) => (format!("{count} secrets"), None),
                None => (String::new(), None),
            };
            (format!("consumer {}", text("consumer")), secret, version)
        }
        None => {
            let version = line.get("version").and_then(Value::as_u64);
            (text("target").to_owned(), text("secret").to_owned(), version)
        }
    };
    vec![
        target,
        secret,
        version.map(|version| version.to_string()).unwrap_or_default(),
        short_time(text("time")),
        text("state").to_owned(),
        text("error").to_owned(),
    ]
}
