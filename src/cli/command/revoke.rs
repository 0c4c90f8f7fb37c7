//! `revoke`: nobody gets the value any more, from now on.

use serde_json::json;

use super::Done;
use crate::cli::Context;
use crate::cli::args::Named;

pub(super) fn run(context: &Context, args: &Named) -> Done {
    let name = &args.name;
    context.client()?.set_attribute(name, "status", "revoked")?;
    let said = format_args!("{name} is revoked until it has a new value: put or rotate it");
    context.out.done(said, &json!({ "name": name, "status": "revoked" }))
}
