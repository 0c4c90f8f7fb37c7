//! `explain`: what the caller may do with a secret, and which rule says so.

use super::Done;
use crate::cli::Context;
use crate::cli::args::Named;
use crate::cli::error::Kind;

pub(super) fn run(context: &Context, args: &Named) -> Done {
    let answer = context.client()?.read_json(&format!("{}@why", args.name));
    let answer = answer.map_err(|failure| {
        if failure.kind != Kind::Authorization {
            return failure;
        }
        let hint = "you have no right on it; an admin sees why by `secretfs policy explain NAME --uid UID`";
        failure.hint(hint)
    })?;
    context.out.answer(&answer)
}
