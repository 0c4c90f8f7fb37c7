//! `mv`: a secret gets another name and keeps its history.

use std::fs;

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use serde_json::json;

use super::Done;
use crate::cli::Context;
use crate::cli::args::Mv;
use crate::cli::error::Failure;

pub(super) fn run(context: &Context, args: &Mv) -> Done {
    let Mv { from, to, no_clobber } = args;
    let client = context.client()?;
    if let Some(parent) = to.parent() {
        fs::create_dir_all(client.path(parent.as_str()))
            .map_err(|err| Failure::from_errno(parent.as_str(), &err))?;
    }
    let flags = if *no_clobber { RenameFlags::RENAME_NOREPLACE } else { RenameFlags::empty() };
    let (source, target) = (client.path(from.as_str()), client.path(to.as_str()));
    renameat2(AT_FDCWD, &source, AT_FDCWD, &target, flags)
        .map_err(|errno| Failure::from_errno(format!("{from} to {to}"), &errno.into()))?;
    context.out.done(format_args!("{from} is now {to}"), &json!({ "from": from, "to": to }))
}
