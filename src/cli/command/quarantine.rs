//! `quarantine`: who is kept from every secret for a while, as a reaction to a finding or by an admin.

use serde_json::{Value, json};

use super::Done;
use crate::cli::Context;
use crate::cli::account::Account;
use crate::cli::args::{Quarantine, QuarantineCommand};
use crate::cli::out::text_of;
use crate::cli::table::{row, short_time};

const COLUMNS: [&str; 4] = ["uid", "until", "cause", "reason"];

pub(super) fn run(context: &Context, args: &Quarantine) -> Done {
    let client = context.client()?;
    let ask = |command: Value| client.control("admin", command.to_string().as_bytes());
    match &args.command {
        Some(QuarantineCommand::Add { user, lasting, reason }) => {
            let uid = Account::find(user)?.uid.as_raw();
            let begun = ask(json!({
                "do": "quarantine", "uid": uid, "for": lasting, "reason": reason,
            }))?;
            let until = begun.get("until").map(text_of).unwrap_or_default();
            let said = format!("{user} is quarantined until {}", short_time(&until));
            context.out.done(said, &begun)
        }
        Some(QuarantineCommand::Lift { user }) => {
            let uid = Account::find(user)?.uid.as_raw();
            let ended = ask(json!({ "do": "quarantine-lift", "uid": uid }))?;
            context.out.done(format_args!("{user} is not quarantined any more"), &ended)
        }
        Some(QuarantineCommand::List) | None => {
            let held = ask(json!({ "do": "quarantine-list" }))?;
            context.out.json(&held)?;
            let rows: Vec<Vec<String>> = held.as_array().into_iter().flatten().map(cells).collect();
            context.out.table(&COLUMNS, &rows)
        }
    }
}

fn cells(held: &Value) -> Vec<String> {
    let mut cells = row(held, &COLUMNS);
    if let Some(until) = cells.get_mut(1) {
        *until = short_time(until);
    }
    cells
}
