//! The documents, held to what is there: each promise names a test that exists, each command and key that
//! they speak of is one, links lead somewhere, and all of it is ASCII.
#![expect(clippy::unwrap_used, reason = "a test file")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Commands whose next word is a command too, or may be one.
const GROUPS: [&str; 10] = [
    "audit",
    "backend",
    "backup",
    "grant",
    "inject",
    "key",
    "oneiric",
    "policy",
    "quarantine",
    "scan",
];

#[test]
fn every_promise_names_a_test_that_exists() {
    let text = read("docs/SEMANTICS.md");
    let promises = promises(&text);
    assert!(promises.len() > 50, "only {} promises were found", promises.len());
    let wrong: Vec<String> = promises.iter().flat_map(|promise| faults(promise)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_other_test_that_a_document_names_exists() {
    let mut wrong = Vec::new();
    for path in documents() {
        let text = fs::read_to_string(&path).unwrap();
        let missing = witnesses(&text).into_iter().filter(|(file, name)| !exists(file, name));
        wrong.extend(missing.map(|(file, name)| format!("{}: {file}::{name}", path.display())));
    }
    assert!(wrong.is_empty(), "no such tests:\n{}", wrong.join("\n"));
}

#[test]
fn a_promise_without_a_test_and_a_test_that_is_not_there_are_seen() {
    let text = "1. It holds\n   in two lines.\n2. So does this. [test: tests/documents.rs::nowhere]\n\n\
                | a | b |\n|---|---|\n| c | d |\n| e | f [test: tests/documents.rs::read] |\n";
    let promises = promises(text);
    assert_eq!(promises.len(), 4);
    let faulty = promises.iter().filter(|promise| !faults(promise).is_empty());
    assert_eq!(faulty.count(), 3);
}

#[test]
fn every_command_and_flag_in_the_documents_is_one_of_the_program() {
    let mut wrong = Vec::new();
    let mut checked = 0;
    for path in documents() {
        let text = fs::read_to_string(&path).unwrap();
        for line in commands(&text) {
            checked += 1;
            let (command, flags) = parts(&line);
            let help = help(&command);
            let known =
                |flag: &&String| help.as_ref().is_some_and(|help| help.contains(flag.as_str()));
            if help.is_none() || !flags.iter().all(|flag| known(&flag)) {
                wrong.push(format!("{}: {line}", path.display()));
            }
        }
    }
    assert!(checked > 40, "only {checked} commands were found");
    assert!(wrong.is_empty(), "no such commands or flags:\n{}", wrong.join("\n"));
}

#[test]
fn a_command_that_is_not_there_is_seen() {
    assert!(help(&["no-such-command".into()]).is_none());
    let line = "secretfs --mount /m policy explain NAME --uid 7";
    let (command, flags) = parts(line);
    assert_eq!(command, ["policy", "explain"]);
    assert_eq!(flags, ["--mount", "--uid"]);
}

#[test]
fn every_configuration_key_stands_in_the_manual_with_its_built_in_value() {
    let (manual, sample) = (read("docs/OPERATIONS.md"), read("systemd/secretfs.toml"));
    let mut table = String::new();
    let mut checked = 0;
    for line in sample.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            table = format!("{name}.");
        }
        let Some((key, value)) = line.split_once(" = ") else { continue };
        if key.starts_with("# ") || key.contains(' ') {
            continue;
        }
        let key = key.trim_start_matches('#');
        let row = format!("| `{table}{key}` |");
        let found = manual.lines().find(|line| line.starts_with(&row));
        let value = value.trim_matches('"');
        assert!(found.is_some_and(|row| row.contains(value)), "{table}{key} = {value}");
        checked += 1;
    }
    assert!(checked > 15, "only {checked} keys were found");
}

#[test]
fn relative_links_lead_somewhere_and_the_text_is_ascii() {
    let mut wrong = Vec::new();
    for path in documents() {
        let text = fs::read_to_string(&path).unwrap();
        if !text.is_ascii() {
            wrong.push(format!("{} is not ASCII", path.display()));
        }
        let targets = between(&text, "](", ")").into_iter();
        for target in targets.filter(|target| !target.contains("://") && !target.starts_with('#')) {
            let file = target.split('#').next().unwrap_or_default();
            if !path.parent().unwrap().join(file).exists() {
                wrong.push(format!("{}: {target}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

fn documents() -> Vec<PathBuf> {
    let pages = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut documents: Vec<PathBuf> =
        pages.filter(|path| path.extension().is_some_and(|ending| ending == "md")).collect();
    documents.push(root().join("README.md"));
    documents.sort();
    documents
}

/// Returns the numbered paragraphs and the rows of tables below their headings.
fn promises(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut in_paragraph = false;
    let mut in_table = false;
    for line in text.lines() {
        let numbered =
            line.split_once(". ").is_some_and(|(number, _)| number.parse::<u32>().is_ok());
        if line.starts_with('|') {
            // The heading and the rule below it come before `in_table`.
            if in_table {
                found.push(line.to_owned());
            }
            in_table |= line.starts_with("|--");
            in_paragraph = false;
            continue;
        }
        in_table = false;
        if numbered {
            found.push(line.to_owned());
            in_paragraph = true;
        } else if line.starts_with("   ") && in_paragraph {
            let last = found.last_mut().unwrap();
            last.push(' ');
            last.push_str(line.trim_start());
        } else {
            in_paragraph = false;
        }
    }
    found
}

/// Returns what is wrong with a promise.
fn faults(promise: &str) -> Vec<String> {
    let named = witnesses(promise);
    if named.is_empty() {
        return vec![format!("no test: {promise}")];
    }
    let missing = named.into_iter().filter(|(file, name)| !exists(file, name));
    missing.map(|(file, name)| format!("{file}::{name} is not there: {promise}")).collect()
}

/// Returns the file and the function of each `[test: file::function, ...]`.
fn witnesses(text: &str) -> Vec<(String, String)> {
    let groups = between(text, "[test: ", "]");
    let all = groups.iter().flat_map(|group| group.split(", "));
    let pairs = all.map(|one| one.split_once("::").unwrap_or((one, "")));
    pairs.map(|(file, name)| (file.to_owned(), name.to_owned())).collect()
}

fn exists(file: &str, name: &str) -> bool {
    let text = fs::read_to_string(root().join(file)).unwrap_or_default();
    !name.is_empty() && text.contains(&format!("fn {name}("))
}

/// Returns the command lines of this program in code, fenced or not.
fn commands(text: &str) -> Vec<String> {
    let mut fenced = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if fenced {
            let line = line.trim_start_matches(['$', '#', ' ']).trim_start_matches("sudo ");
            found.extend(command_of(line));
        } else {
            found.extend(between(line, "`", "`").into_iter().filter_map(command_of));
        }
    }
    found
}

fn command_of(code: &str) -> Option<String> {
    let rest = code.strip_prefix("secretfs ")?;
    // The comment behind a command, the rest of a pipe, and other columns are not part of it.
    let end = rest.find([';', '|', '<', '>']).or_else(|| rest.find("  "));
    let rest = end.and_then(|end| rest.get(..end)).unwrap_or(rest);
    rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '-')
        .then(|| format!("secretfs {rest}"))
}

/// Splits a command line into its commands and its long flags.
fn parts(line: &str) -> (Vec<String>, Vec<String>) {
    let words: Vec<&str> = line.split_whitespace().skip(1).collect();
    let flag =
        |word: &str| word.trim_matches(['[', ']']).split('=').next().unwrap_or_default().to_owned();
    let flags = words.iter().map(|word| flag(word)).filter(|word| word.starts_with("--")).collect();
    let mut command = Vec::new();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        if word == "--mount" || word == "--config" {
            words.next();
        } else if !word.starts_with('-') {
            let goes_on = command.is_empty() && GROUPS.contains(&word);
            command.push(word.to_owned());
            if !goes_on {
                break;
            }
        }
    }
    (command, flags)
}

/// Returns the help of a command, or `None` if there is no such command.
fn help(command: &[String]) -> Option<String> {
    let mut program = Command::new(env!("CARGO_BIN_EXE_secretfs"));
    let output = program.args(command).arg("--help").stdin(Stdio::null()).output().unwrap();
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

fn between<'a>(text: &'a str, open: &str, close: &str) -> Vec<&'a str> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once(open) {
        let Some((inside, next)) = after.split_once(close) else { break };
        found.push(inside);
        rest = next;
    }
    found
}
