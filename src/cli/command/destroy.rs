//! `destroy`: a secret in the trash goes for good; without a name, what is in the trash.

use std::fs;
use std::io::{self, IsTerminal};

use serde_json::json;

use super::Done;
use super::restore::{entry, trashed};
use crate::cli::Context;
use crate::cli::args::Destroy;
use crate::cli::error::{Failure, Kind};

pub(super) fn run(context: &Context, args: &Destroy) -> Done {
    let client = context.client()?;
    let Some(name) = &args.name else {
        let entries: Vec<String> =
            client.list(".control/trash")?.into_iter().map(|(name, _)| name).collect();
        context.out.json(&json!(entries))?;
        return entries.iter().try_for_each(|entry| context.out.line(entry));
    };
    let entry = entry(&client, name)?;
    if !args.force {
        confirm(context, &format!("Destroy {entry} and all its versions for good?"), "--force")?;
    }
    fs::remove_file(client.path(&trashed(&entry)))
        .map_err(|err| Failure::from_errno(entry.as_str(), &err))?;
    context.out.done(format_args!("{entry} is destroyed"), &json!({ "destroyed": entry }))
}

/// Asks a person; without one, `flag` is needed.
pub(super) fn confirm(context: &Context, question: &str, flag: &str) -> Done {
    let refused = |why: &str| {
        Failure::new(Kind::Config, "not done", why)
            .hint(format!("use {flag} to do it without asking"))
    };
    if !io::stdin().is_terminal() {
        return Err(refused("there is nobody to ask"));
    }
    context.out.note(format_args!("{question} Type yes: "));
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(|err| refused(&err.to_string()))?;
    if answer.trim() == "yes" { Ok(()) } else { Err(refused("the answer was not yes")) }
}
