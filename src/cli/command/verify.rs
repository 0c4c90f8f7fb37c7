//! `verify`: every record and value in the store is opened and compared.

use std::process::ExitCode;

use serde_json::json;

use crate::cli::Context;
use crate::cli::error::{Failure, Kind};

pub(super) fn run(context: &Context) -> Result<ExitCode, Failure> {
    let found = context.client()?.admin(&json!({ "do": "verify" }))?;
    context.out.answer(&found)?;
    let faults = found.get("faults").and_then(|faults| faults.as_array()).map_or(0, Vec::len);
    if faults > 0 {
        context.out.note(format_args!("{faults} faults: restore a backup, see `secretfs backup`"));
        return Ok(ExitCode::from(Kind::Decryption.exit_code()));
    }
    Ok(ExitCode::SUCCESS)
}
