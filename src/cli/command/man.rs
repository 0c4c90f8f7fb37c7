//! `man`: manual pages out of the grammar.

use serde_json::json;

use super::{Done, grammar};
use crate::cli::Context;
use crate::cli::args::Man;
use crate::cli::error::{Failure, Kind};

pub(super) fn run(context: &Context, args: &Man) -> Done {
    let shown = args.directory.display().to_string();
    // Built, so that the pages of subcommands are called `secretfs-put` and not `put`.
    let mut grammar = grammar().disable_help_subcommand(true);
    grammar.build();
    clap_mangen::generate_to(grammar, &args.directory)
        .map_err(|err| Failure::new(Kind::Config, shown.clone(), err.to_string()))?;
    context.out.done(format_args!("manual pages are in {shown}"), &json!({ "directory": shown }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{Cli, Command};
    use clap::Parser;

    #[test]
    fn every_command_has_a_page() {
        let dir = tempfile::tempdir().unwrap();
        let mut grammar = grammar().disable_help_subcommand(true);
        grammar.build();
        clap_mangen::generate_to(grammar, dir.path()).unwrap();
        for page in ["secretfs.1", "secretfs-put.1", "secretfs-key-rotate-epoch.1"] {
            assert!(dir.path().join(page).exists(), "{page}");
        }
        assert!(!dir.path().join("secretfs-observer.1").exists());
        let parsed = Cli::try_parse_from(["secretfs", "man", "/tmp"]).unwrap();
        assert!(matches!(parsed.command, Command::Man(_)));
    }
}
