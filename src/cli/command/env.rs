//! `env`: variables as text that another program reads.

use std::sync::Arc;

use super::Done;
use crate::cli::Context;
use crate::cli::args::{Env, FormatName};
use crate::cli::error::{Failure, Kind};
use crate::cli::selection::Chosen;
use crate::inject::Format;

pub(super) fn run(context: &Context, args: &Env) -> Done {
    let client = Arc::new(context.client()?);
    let set = Chosen::of(&client, &args.selection)?.read(context, &client, &args.selection)?;
    let pairs = set.variables.iter().map(|(variable, value)| (variable, value));
    let text = format(args.format).write(pairs).map_err(|err| {
        Failure::new(Kind::Injection, "the variables", err.to_string())
            .hint("`--format json` holds every value")
    })?;
    context.out.bytes(text.expose())
}

fn format(name: FormatName) -> Format {
    match name {
        FormatName::Docker => Format::Docker,
        FormatName::Dotenv => Format::Dotenv,
        FormatName::Json => Format::Json,
        FormatName::Sh => Format::Sh,
        FormatName::Systemd => Format::Systemd,
    }
}
