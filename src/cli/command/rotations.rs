//! `rotations`: how rotations ended, and what is due.
//!
//! What a secret's own note remembers is shown to who may know of the secret; all rotations are in the
//! audit log, which is for admins.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader};

use serde_json::{Value, json};

use super::Done;
use crate::cli::Context;
use crate::cli::args::Rotations;
use crate::cli::client::Client;
use crate::cli::error::Failure;
use crate::cli::out::text_of;
use crate::cli::table::{row, short_time};

const COLUMNS: [&str; 8] =
    ["finished", "secret", "result", "version", "verified by", "seconds", "steps", "error"];

const DUE: [&str; 3] = ["secret", "at", "reason"];

pub(super) fn run(context: &Context, args: &Rotations) -> Done {
    let client = context.client()?;
    if args.due {
        let reply = client.control("rotate", br#"{"due": true}"#)?;
        context.out.json(&reply)?;
        let due = reply.get("due").and_then(Value::as_array).into_iter().flatten();
        let rows: Vec<Vec<String>> = due.map(|due| row(due, &DUE)).collect();
        return context.out.table(&DUE, &rows);
    }
    let outcomes = match &args.name {
        Some(name) => {
            let question = json!({ "history": name }).to_string();
            let mut known = client.control("rotate", question.as_bytes())?;
            let mut known = known.as_array_mut().map(std::mem::take).unwrap_or_default();
            // The last ones are at the end, as in every listing.
            known.reverse();
            let surplus = if args.limit == 0 { 0 } else { known.len().saturating_sub(args.limit) };
            known.split_off(surplus)
        }
        None => recorded(&client, args.limit)?,
    };
    outcomes.iter().try_for_each(|outcome| context.out.json(outcome))?;
    let rows: Vec<Vec<String>> = outcomes.iter().map(cells).collect();
    context.out.table(&COLUMNS, &rows)
}

/// Returns the results of rotations that the audit log has.
fn recorded(client: &Client, limit: usize) -> Result<Vec<Value>, Failure> {
    let fail = |err: std::io::Error| {
        Failure::from_errno("the audit log", &err).hint("it is for admins: name a secret")
    };
    let file = File::open(client.path(".control/audit/log")).map_err(fail)?;
    let mut kept = VecDeque::new();
    for line in BufReader::new(file).split(b'\n') {
        let Ok(mut event) = serde_json::from_slice::<Value>(&line.map_err(fail)?) else { continue };
        if event.get("action").and_then(Value::as_str) != Some("rotate") {
            continue;
        }
        let Some(outcome) = event.get_mut("detail").map(Value::take).filter(Value::is_object)
        else {
            continue;
        };
        kept.push_back(outcome);
        if limit > 0 && kept.len() > limit {
            kept.pop_front();
        }
    }
    Ok(kept.into())
}

fn cells(outcome: &Value) -> Vec<String> {
    let text = |key: &str| outcome.get(key).map(text_of).unwrap_or_default();
    let flag = |key: &str| outcome.get(key).and_then(Value::as_bool).unwrap_or_default();
    let result = match (flag("success"), flag("rolled_back")) {
        (true, _) => "rotated",
        (false, true) => "rolled back",
        (false, false) => "failed",
    };
    let version = match text("new_version") {
        new if new.is_empty() => text("old_version"),
        new => format!("{} -> {new}", text("old_version")),
    };
    let steps = outcome.get("steps").and_then(Value::as_array).into_iter().flatten();
    let steps: Vec<String> =
        steps.map(|step| step.get("step").map(text_of).unwrap_or_default()).collect();
    let seconds = outcome.get("duration").and_then(Value::as_f64).unwrap_or_default();
    vec![
        short_time(&text("finished")),
        text("secret"),
        result.to_owned(),
        version,
        text("verified_by"),
        format!("{seconds:.3}"),
        steps.join(" "),
        text("error"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_what_became_of_the_rotation() {
        let mut outcome = json!({
            "secret": "a", "success": true, "rolled_back": false, "old_version": 3, "new_version": 4,
            "finished": "2026-11-24T12:00:00.5Z", "duration": 0.25, "steps": [{ "step": "switch" }],
        });
        assert_eq!(cells(&outcome)[2..7], ["rotated", "3 -> 4", "", "0.250", "switch"]);
        outcome["success"] = false.into();
        outcome["rolled_back"] = true.into();
        outcome["new_version"] = Value::Null;
        assert_eq!(cells(&outcome)[2..4], ["rolled back", "3"]);
    }
}
