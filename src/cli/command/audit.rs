//! `audit`: whether the log is whole, and where it ends.

use std::process::ExitCode;

use serde_json::Value;

use super::verify::check;
use crate::cli::Context;
use crate::cli::args::Audit;
use crate::cli::error::{Failure, Kind};

pub(super) fn run(context: &Context, args: &Audit) -> Result<ExitCode, Failure> {
    let client = context.client()?;
    match args {
        Audit::Head => {
            context.out.answer(&client.read_json(".control/audit/head")?)?;
            Ok(ExitCode::SUCCESS)
        }
        Audit::Verify => {
            let found = check(context, &client, "audit-verify")?;
            context.out.answer(&found)?;
            Ok(verdict(&found))
        }
    }
}

/// A log that is not whole is a finding: it is printed, and the code tells.
fn verdict(found: &Value) -> ExitCode {
    if found.get("ok").and_then(Value::as_bool) == Some(false) {
        return ExitCode::from(Kind::Decryption.exit_code());
    }
    ExitCode::SUCCESS
}
