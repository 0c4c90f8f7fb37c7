//! The grammar: what it takes, what it refuses, and that no value of a secret can be in argv.

use std::collections::BTreeSet;

use clap::{CommandFactory, Parser};

use super::args::{Cli, Command};
use crate::generate::{Generator, Password};

/// What arguments may take, by the name that is shown for it. None is a value of a secret.
const TAKEN: [&str; 52] = [
    "ACTION",
    "CREDENTIAL_NAME",
    "DIR",
    "ENVIRONMENT",
    "FD",
    "FILE",
    "FORMAT",
    "FROM",
    "GID",
    "MOUNTPOINT",
    "N",
    "NAME",
    "NEW_NAME",
    "OUTCOME",
    "PATH",
    "PATTERN",
    "REV..REV",
    "SERVICE",
    "SEVERITY",
    "SHELL",
    "SOURCE",
    "TAG",
    "SPAN",
    "TEXT",
    "TO",
    "TYPE",
    "UID",
    "UID|USER",
    "UNIT",
    "WHAT",
    "WHEN",
    "COMMAND",
    "FORM",
    "IN",
    "LAYER",
    "MODE",
    "OUT",
    "PATTERN=NAME",
    "PREFIX",
    "PROJECT",
    "SECONDS",
    "SETTING",
    "SIGNAL",
    "USER[:GROUP]",
    "VAR=NAME",
    "VARIABLE",
    "CONTAINER",
    "GID|GROUP",
    "GRANT",
    "LEVEL",
    "REASON",
    "SHA256",
];

fn taken_by(command: &clap::Command, path: &str, found: &mut BTreeSet<(String, String)>) {
    for arg in command.get_arguments().filter(|arg| arg.get_action().takes_values()) {
        let shown = arg.get_value_names().unwrap_or_default();
        for name in shown.iter().map(ToString::to_string).chain(shown.is_empty().then(String::new))
        {
            found.insert((format!("{path} {}", arg.get_id()), name));
        }
    }
    for sub in command.get_subcommands() {
        taken_by(sub, &format!("{path} {}", sub.get_name()), found);
    }
}

#[test]
fn no_command_takes_a_value_or_a_passphrase_in_argv() {
    let mut found = BTreeSet::new();
    taken_by(&Cli::command(), "secretfs", &mut found);
    assert!(found.len() > 40, "the tree was walked");
    for (argument, name) in &found {
        assert!(TAKEN.contains(&name.as_str()), "{argument} takes {name:?}");
        let words = ["value", "password", "secret"];
        assert!(!words.iter().any(|word| argument.ends_with(word)), "{argument}");
    }
    // The only free text is a description; a passphrase comes by a descriptor's number.
    let texts: Vec<_> = found.iter().filter(|(_, name)| name == "TEXT").collect();
    assert_eq!(texts.len(), 1);
    let put = ["secretfs", "put", "name", "example-value"];
    assert!(Cli::try_parse_from(put).is_err());
    assert!(Cli::try_parse_from(["secretfs", "unseal", "--passphrase", "example"]).is_err());
    assert!(Cli::try_parse_from(["secretfs", "init", "--passphrase=example"]).is_err());
}

#[test]
fn the_grammar_holds_together() {
    Cli::command().debug_assert();
}

#[test]
fn a_generated_value_needs_no_kind_and_takes_one_only_after_an_equals_sign() {
    let of_length = |length| Some(Generator::Password(Password::url_safe(length).unwrap()));
    let parsed = |args: &[&str]| {
        let cli = Cli::try_parse_from([&["secretfs", "put"], args].concat()).ok()?;
        let Command::Put(put) = cli.command else { return None };
        Some((put.generate, put.name.to_string()))
    };
    assert_eq!(parsed(&["--generate", "a/b"]), Some((of_length(32), "a/b".into())));
    assert_eq!(parsed(&["--generate=64", "x"]), Some((of_length(64), "x".into())));
    assert_eq!(parsed(&["--generate=uuid", "x"]), Some((Some(Generator::Uuid {}), "x".into())));
    assert_eq!(parsed(&["x"]), Some((None, "x".into())));
    assert_eq!(parsed(&["--generate=4", "x"]), None);
    assert_eq!(parsed(&["--generate", "--file", "f", "x"]), None);
}

#[test]
fn bad_names_are_refused_before_anything_is_asked_of_the_daemon() {
    for bad in ["", "../x", "a@7", ".control", "a b", "a\nb", "a//b"] {
        assert!(Cli::try_parse_from(["secretfs", "get", "--", bad]).is_err(), "{bad:?}");
    }
}

#[test]
fn a_directory_is_taken_as_completion_offers_it() {
    for args in [["ls", "a/b/"], ["log", "a/b/"], ["container-args", "--path=a/b/"]] {
        assert!(Cli::try_parse_from(["secretfs"].iter().chain(&args)).is_ok(), "{args:?}");
    }
    assert!(Cli::try_parse_from(["secretfs", "ls", "a//"]).is_err());
}

#[test]
fn json_and_mount_may_stand_before_or_behind_the_command() {
    for args in [["--json", "ls"], ["ls", "--json"]] {
        let cli = Cli::try_parse_from(["secretfs"].iter().chain(&args)).unwrap();
        assert!(cli.global.json);
    }
}

#[test]
fn every_command_of_the_contract_is_there() {
    let commands = [
        "up",
        "init",
        "mount",
        "umount",
        "status",
        "put",
        "get",
        "ls",
        "show",
        "history",
        "rm",
        "restore",
        "destroy",
        "mv",
        "edit",
        "log",
        "audit",
        "policy",
        "key",
        "backend",
        "backup",
        "verify",
        "explain",
        "run",
        "env",
        "render",
        "inject",
        "import",
        "oneiric",
        "doctor",
        "abort",
        "container-args",
        "whoami",
        "seal",
        "unseal",
        "completions",
        "man",
    ];
    let grammar = Cli::command();
    for name in commands {
        let command = grammar.find_subcommand(name).unwrap();
        assert!(!command.is_hide_set() && command.get_about().is_some(), "{name}");
    }
    assert!(grammar.find_subcommand("observer").unwrap().is_hide_set());
}

#[test]
fn the_help_tells_every_exit_code() {
    let help = Cli::command().render_long_help().to_string();
    let words: Vec<_> = help.split_whitespace().collect();
    for code in 0..=12 {
        assert!(words.contains(&code.to_string().as_str()), "{code}");
    }
}
