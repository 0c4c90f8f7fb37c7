//! `seal`: the daemon forgets its keys.

use super::Done;
use crate::cli::Context;

pub(super) fn run(context: &Context) -> Done {
    let answer = context.client()?.control("seal", b"\n")?;
    context.out.done("sealed: every read fails until `secretfs unseal`", &answer)
}
