//! `whoami`: as whom the daemon sees the caller.

use super::Done;
use super::status::document;
use crate::cli::Context;

pub(super) fn run(context: &Context) -> Done {
    let text = context.client()?.read_text(".control/whoami")?;
    let pairs: Vec<(&str, &str)> = text.lines().filter_map(|line| line.split_once(": ")).collect();
    context.out.answer(&document(&pairs))
}
