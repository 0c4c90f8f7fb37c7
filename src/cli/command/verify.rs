//! `verify`: every record and value in the store is opened and compared.

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::cli::Context;
use crate::cli::client::Client;
use crate::cli::error::{Failure, Kind};

pub(super) fn run(context: &Context) -> Result<ExitCode, Failure> {
    let found = check(context, &context.client()?, "verify")?;
    context.out.answer(&found)?;
    let faults = found.get("faults").and_then(|faults| faults.as_array()).map_or(0, Vec::len);
    if faults > 0 {
        context.out.note(format_args!("{faults} faults: restore a backup, see `secretfs backup`"));
        return Ok(ExitCode::from(Kind::Decryption.exit_code()));
    }
    Ok(ExitCode::SUCCESS)
}

/// Has the daemon check something, and waits as long as that takes: each request of ours is a short one,
/// so that this process can be killed at any time.
pub(super) fn check(context: &Context, client: &Client, command: &str) -> Result<Value, Failure> {
    let mut reply = client.admin(&json!({ "do": command }))?;
    while reply.get("state").and_then(Value::as_str) == Some("running") {
        let number = |key: &str| reply.get(key).and_then(Value::as_u64).unwrap_or_default();
        match (number("done"), number("total")) {
            (_, 0) => context.out.progress("verifying"),
            (done, total) => context.out.progress(format_args!("verifying: {done} of {total}")),
        }
        reply = client.admin(&json!({ "do": command, "check": number("check") }))?;
    }
    context.out.progress("");
    Ok(reply)
}
