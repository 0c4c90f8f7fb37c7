//! `unseal`: the daemon gets its keys back, from its key source or by a passphrase.

use super::Done;
use super::mount::MAX_PASSPHRASE;
use crate::cli::Context;
use crate::cli::args::Unseal;
use crate::cli::error::{Failure, Kind};
use crate::cli::plaintext;
use crate::system::read_line;

pub(super) fn run(context: &Context, args: &Unseal) -> Done {
    let client = context.client()?;
    let from_fd = args.from.passphrase_fd.map(|fd| {
        read_line(fd, MAX_PASSPHRASE)
            .map_err(|err| Failure::new(Kind::Config, "--passphrase-fd", err.to_string()))
    });
    let answer = match (from_fd, args.passphrase) {
        (Some(phrase), _) => client.control("unseal", phrase?.expose())?,
        (None, true) => client.control("unseal", plaintext::prompt("Passphrase: ")?.expose())?,
        // An empty line asks the configured source again.
        (None, false) => client.control("unseal", b"\n").map_err(|failure| {
            let hint = "give a passphrase with --passphrase, if that is the key source".to_owned();
            Failure { hint, ..failure }
        })?,
    };
    context.out.done("unsealed", &answer)
}
