//! `rm`: a secret goes to the trash.

use std::fs;

use serde_json::json;

use super::Done;
use crate::cli::Context;
use crate::cli::args::Named;
use crate::cli::error::Failure;

pub(super) fn run(context: &Context, args: &Named) -> Done {
    let name = &args.name;
    let client = context.client()?;
    fs::remove_file(client.path(name.as_str()))
        .map_err(|err| Failure::from_errno(name.as_str(), &err))?;
    let line = format!("{name} is in the trash; `secretfs restore {name}` brings it back");
    context.out.done(line, &json!({ "name": name, "in_trash": true }))
}
