//! `explain`: what the caller may do with a secret, and which rule says so.

use super::Done;
use crate::cli::Context;
use crate::cli::args::Named;

pub(super) fn run(context: &Context, args: &Named) -> Done {
    let answer = context.client()?.read_json(&format!("{}@why", args.name))?;
    context.out.answer(&answer)
}
