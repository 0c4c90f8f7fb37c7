//! `show`: everything about a secret but its value.

use super::Done;
use crate::cli::Context;
use crate::cli::args::Named;

pub(super) fn run(context: &Context, args: &Named) -> Done {
    let mut meta = context.client()?.meta(&args.name)?;
    if !context.out.is_json()
        && let Some(object) = meta.as_object_mut()
    {
        // People have `history` for those.
        object.remove("versions");
    }
    context.out.answer(&meta)
}
