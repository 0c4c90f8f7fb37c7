//! `holders` and `stale`: which live processes hold which version.

use serde_json::{Value, json};

use super::Done;
use crate::cli::Context;
use crate::cli::args::Named;
use crate::cli::table::{row, short_time};

const COLUMNS: [&str; 9] =
    ["secret", "version", "current", "pid", "uid", "exe", "unit", "container", "opened"];

pub(super) fn run(context: &Context, args: &Named) -> Done {
    ask(context, &json!({ "secret": args.name }))
}

pub(super) fn stale(context: &Context) -> Done {
    ask(context, &json!({ "stale": true }))
}

fn ask(context: &Context, question: &Value) -> Done {
    let reply = context.client()?.control("holders", question.to_string().as_bytes())?;
    let holders = reply.get("holders").cloned().unwrap_or(Value::Array(Vec::new()));
    context.out.json(&holders)?;
    let rows: Vec<Vec<String>> = holders.as_array().into_iter().flatten().map(cells).collect();
    context.out.table(&COLUMNS, &rows)
}

fn cells(holder: &Value) -> Vec<String> {
    let mut cells = row(holder, &COLUMNS);
    if let Some(opened) = cells.last_mut() {
        *opened = short_time(opened);
    }
    cells
}
