//! `history`: the versions of a secret.

use serde_json::Value;

use super::Done;
use crate::cli::Context;
use crate::cli::args::Named;
use crate::cli::table::{row, short_time};

const COLUMNS: [&str; 5] = ["version", "state", "created", "created_by", "size"];

pub(super) fn run(context: &Context, args: &Named) -> Done {
    let meta = context.client()?.meta(&args.name)?;
    let versions = meta.get("versions").cloned().unwrap_or(Value::Array(Vec::new()));
    context.out.json(&versions)?;
    let rows: Vec<Vec<String>> = versions
        .as_array()
        .into_iter()
        .flatten()
        .map(|version| {
            let mut cells = row(version, &COLUMNS);
            if let Some(created) = cells.get_mut(2) {
                *created = short_time(created);
            }
            cells
        })
        .collect();
    context.out.table(&COLUMNS, &rows)
}
