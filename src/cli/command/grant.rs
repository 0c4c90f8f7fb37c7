//! `grant`: levels on top of the policy, for a time.

use serde_json::{Value, json};

use super::Done;
use crate::cli::Context;
use crate::cli::args::{Grant, GrantCommand, GrantGive};
use crate::cli::client::Client;
use crate::cli::error::{Failure, Kind};
use crate::cli::out::text_of;
use crate::cli::table::{row, short_time};
use crate::model::GrantId;

const COLUMNS: [&str; 9] =
    ["id", "state", "names", "levels", "whom", "until", "uses", "asked_by", "reason"];

pub(super) fn run(context: &Context, args: &Grant) -> Done {
    match (&args.command, &args.give) {
        (None, Some(give)) => grant(context, give),
        (Some(GrantCommand::Approve { grant }), _) => approve(context, *grant),
        (Some(GrantCommand::Revoke { grant }), _) => revoke(context, *grant),
        (Some(GrantCommand::List) | None, _) => list(context),
    }
}

fn grant(context: &Context, args: &GrantGive) -> Done {
    let mut command = json!({
        "names": args.names,
        "levels": args.levels,
        "reason": args.reason,
        "uid": args.uid,
        "gid": args.gid,
        "unit": args.unit,
        "container": args.container,
        "exe": args.exe,
        "exe_sha256": args.exe_sha256,
    });
    if let Some(command) = command.as_object_mut() {
        command.extend(args.uses.map(|uses| ("uses".into(), uses.get().into())));
        command.extend(args.lasting.as_ref().map(|span| ("for".into(), span.as_str().into())));
        command.extend(args.break_glass.then(|| ("break_glass".into(), true.into())));
    }
    let given = context.client()?.control("grant", command.to_string().as_bytes())?;
    context.out.done(standing(&given), &given)
}

fn approve(context: &Context, grant: GrantId) -> Done {
    let command = json!({ "approve": grant.to_string() }).to_string();
    let approved = context.client()?.control("grant", command.as_bytes())?;
    context.out.done(standing(&approved), &approved)
}

/// Says how a grant stands.
fn standing(grant: &Value) -> String {
    let of = |key: &str| grant.get(key).map(text_of).unwrap_or_default();
    let (id, until) = (of("id"), short_time(&of("until")));
    if of("state") == "waiting" {
        let agreed = grant.get("approved_by").and_then(Value::as_array).map_or(0, Vec::len);
        let wanted = of("approvers");
        return format!(
            "grant {id} waits, until {until} at most: {agreed} of {wanted} admins have agreed by \
             `secretfs grant approve {id}`"
        );
    }
    format!("grant {id} to {}, until {until}", of("whom"))
}

fn revoke(context: &Context, grant: GrantId) -> Done {
    let command = json!({ "grant": grant.to_string() }).to_string();
    let revoked = context.client()?.control("revoke", command.as_bytes())?;
    context.out.done(format_args!("grant {grant} is revoked"), &revoked)
}

fn list(context: &Context) -> Done {
    let client = context.client()?;
    let mut grants = Vec::new();
    for (id, _) in client.list(".control/grants")? {
        grants.extend(shown(&client, &id)?);
    }
    context.out.json(&Value::from(grants.clone()))?;
    let rows: Vec<Vec<String>> = grants.iter().map(cells).collect();
    context.out.table(&COLUMNS, &rows)
}

/// Returns a grant; `None` if it has ended since it was listed.
fn shown(client: &Client, id: &str) -> Result<Option<Value>, Failure> {
    match client.read_json(&format!(".control/grants/{id}")) {
        Err(failure) if failure.kind == Kind::SecretNotFound => Ok(None),
        read => read.map(Some),
    }
}

fn cells(grant: &Value) -> Vec<String> {
    let mut cells = row(grant, &COLUMNS);
    let [_, _, _, levels, _, until, uses, ..] = cells.as_mut_slice() else { return cells };
    *levels = levels_of(grant);
    *until = short_time(until);
    if !uses.is_empty() {
        *uses = format!("{} of {uses}", grant.get("used").map(text_of).unwrap_or_default());
    }
    cells
}

fn levels_of(grant: &Value) -> String {
    let levels = grant.get("levels").and_then(Value::as_array).into_iter().flatten();
    levels.map(text_of).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_what_to_whom_until_when_and_how_often() {
        let mut grant = json!({
            "id": "0001abff1009", "state": "in force", "names": "prod/*", "levels": ["read", "write"], "whom": "uid 33",
            "until": "2026-11-28T12:00:00.5Z", "uses": 3, "used": 1, "asked_by": 0, "reason": "why",
        });
        assert_eq!(cells(&grant)[3..5], ["read write", "uid 33"]);
        assert_eq!(cells(&grant)[6..], ["1 of 3", "0", "why"]);
        grant["uses"] = Value::Null;
        assert_eq!(cells(&grant)[6], "");
    }
}
