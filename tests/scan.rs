//! `secretfs scan` as its users run it: exit codes, reports without secrets, what is skipped and what is not.
//!
//! Nothing here looks like a secret: texts to be found come from the examples of the rules.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test file"
)]

mod common;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use common::World;
use secretfs::scan::git::What;
use secretfs::scan::{self, Engine, RuleSet, Wanted, walk};

const FOUND: i32 = 1;
const INCOMPLETE: i32 = 2;

/// A directory with files of its own.
struct Tree(tempfile::TempDir);

impl Tree {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn with(self, path: &str, text: impl AsRef<[u8]>) -> Self {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        common::write_file(&path, text.as_ref());
        self
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn run(&self, program: &str, args: &[&str]) -> Output {
        let mut command = Command::new(program);
        command.args(args).current_dir(self.path()).env_remove("GIT_DIR").env("HOME", self.path());
        for (key, value) in [("GIT_AUTHOR_NAME", "a"), ("GIT_COMMITTER_NAME", "a")] {
            command.env(key, value).env(key.replace("NAME", "EMAIL"), "a@localhost");
        }
        command.output().unwrap()
    }

    fn git(&self, args: &[&str]) {
        let output = self.run("git", args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn scan(&self, args: &[&str]) -> Output {
        self.run(env!("CARGO_BIN_EXE_secretfs"), &[&["scan"], args].concat())
    }

    /// Returns the exit code and the report in JSON.
    fn report(&self, args: &[&str]) -> (i32, Value) {
        let output = self.scan(&[&["--format", "json"], args].concat());
        let report = serde_json::from_slice(&output.stdout);
        let said = || String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code().unwrap(), report.unwrap_or_else(|_| panic!("no report: {}", said())))
    }

    /// Returns "file rule" of each open finding.
    fn found(&self, args: &[&str]) -> Vec<String> {
        let (_, report) = self.report(args);
        let findings = report["findings"].as_array().unwrap();
        let word = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
        let open = findings.iter().filter(|finding| finding["state"] == "open");
        open.map(|finding| format!("{} {}", word(finding, "file"), word(finding, "rule"))).collect()
    }
}

/// Returns the first text that the rule must find.
fn example(rule: &str) -> String {
    let text =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/scan/rules.toml"));
    let rules: toml::Table = text.unwrap().parse().unwrap();
    let rules = rules["rule"].as_array().unwrap();
    let rule =
        rules.iter().find(|known| known["id"].as_str() == Some(rule)).expect("the rule is there");
    rule["positive"][0].as_str().unwrap().to_owned()
}

/// A line whose token has check digits, so that it is found wherever it stands.
fn line() -> String {
    example("github-pat")
}

/// Returns the part of the example that must be in no report.
fn token(line: &str) -> &str {
    let start = line.find("ghp_").unwrap();
    let end = line[start..].find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    &line[start..end.map_or(line.len(), |end| start + end)]
}

#[test]
fn exit_codes_tell_nothing_found_from_found_and_from_not_finished() {
    let clean = Tree::new().with("a.txt", "nothing here\n");
    assert_eq!(clean.report(&[]).0, 0);
    assert!(String::from_utf8_lossy(&clean.scan(&[]).stdout).contains("no secrets found"));
    let dirty = Tree::new().with("a.txt", line());
    assert_eq!(dirty.report(&[]).0, FOUND);
    let missing = clean.scan(&["not-there"]);
    assert_eq!(missing.status.code(), Some(INCOMPLETE));
    let said = String::from_utf8_lossy(&missing.stdout).into_owned();
    assert!(said.contains("not-there") && said.contains("in what could be read"), "{said}");
    assert_eq!(clean.scan(&["--rules", "not-there"]).status.code(), Some(INCOMPLETE));
}

#[test]
fn no_report_holds_the_secret_in_any_form() {
    let line = line();
    let secret = token(&line);
    let tree = Tree::new().with("a.env", format!("{line}\npassword = \"{secret}\" # {secret}\n"));
    for format in ["text", "json", "sarif", "csv", "html"] {
        for more in [&[][..], &["--explain"], &["--suppressed"]] {
            let output = tree.scan(&[&["--format", format], more].concat());
            let text = String::from_utf8(output.stdout).unwrap();
            assert!(text.contains("github-pat"), "{format}");
            // Not a part of it either.
            assert!(!text.contains(&secret[6..14]), "{format}");
        }
    }
}

#[test]
fn a_finding_says_where_it_stands() {
    let tree = Tree::new().with("d/a.txt", format!("one\ntwo\n  {}\n", token(&line())));
    let (_, report) = tree.report(&[]);
    let finding = &report["findings"][0];
    assert_eq!((finding["file"].as_str(), finding["line"].as_u64()), (Some("d/a.txt"), Some(3)));
    assert_eq!(finding["column"], 3);
    assert_eq!(finding["severity"], "critical");
    assert!(finding["confidence"].as_f64().unwrap() > 0.9);
}

#[test]
fn a_secret_far_into_a_huge_line_is_found_once_with_its_column() {
    // Longer than several pieces, and across the border of two in one of the cases.
    for before in [0_usize, 262_000, 262_144, 300_000, 900_001] {
        let text =
            format!("x\n{} {} {}", "ab ".repeat(before / 3), token(&line()), "cd ".repeat(200_000));
        let tree = Tree::new().with("a.txt", &text);
        let (_, report) = tree.report(&[]);
        let findings = report["findings"].as_array().unwrap();
        assert_eq!(findings.len(), 1, "{before}");
        let column = u64::try_from(text.find("ghp_").unwrap() - 1).unwrap();
        assert_eq!((&findings[0]["line"], &findings[0]["column"]), (&2.into(), &column.into()));
    }
}

#[test]
fn what_cannot_be_read_is_reported_and_never_counts_as_clean() {
    if nix::unistd::geteuid().is_root() && !has_setpriv() {
        return;
    }
    let tree = Tree::new().with("closed/a.txt", "x").with("b.txt", "y").with("c.txt", "z");
    let set = |path: &str, mode: u32| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs::set_permissions(tree.path().join(path), mode).unwrap();
    };
    set("", 0o755);
    set("b.txt", 0o000);
    set("closed", 0o000);
    let program = tree.path().join("secretfs");
    fs::copy(env!("CARGO_BIN_EXE_secretfs"), &program).unwrap();
    let output = if nix::unistd::geteuid().is_root() {
        tree.run(
            "setpriv",
            &[
                "--reuid=65534",
                "--clear-groups",
                "./secretfs",
                "scan",
                "--json",
                "--exclude",
                "secretfs",
            ],
        )
    } else {
        tree.run("./secretfs", &["scan", "--json", "--exclude", "secretfs"])
    };
    set("closed", 0o755);
    assert_eq!(output.status.code(), Some(INCOMPLETE));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["complete"], false);
    let unread: Vec<_> =
        report["unread"].as_array().unwrap().iter().map(|one| &one["path"]).collect();
    assert_eq!(unread, ["b.txt", "closed"]);
}

fn has_setpriv() -> bool {
    let there = Command::new("setpriv").arg("--version").stdout(Stdio::null()).status().is_ok();
    assert!(there || std::env::var_os("SECRETFS_REQUIRE_ALL").is_none(), "setpriv is missing");
    there
}

#[test]
fn a_scan_whose_time_is_up_says_what_it_has_not_read() {
    let tree = Tree::new().with("a", "x\n").with("large", "word \n".repeat(1 << 18));
    let engine = Engine::new(RuleSet::built_in().unwrap()).unwrap();
    let late = Wanted { until: Some(std::time::Instant::now()), ..Wanted::default() };
    let (selection, progress) = (walk::Selection::default(), walk::Progress::default());
    let what = What { engine: &engine, wanted: &late, selection: &selection, progress: &progress };
    let result = walk::scan(&what, &[tree.path().to_owned()]);
    assert!(!result.is_complete() && result.totals.files == 0);
    assert_eq!(result.unread[0].why, "the time was up");
    // Nor does one large file keep it.
    let text = "word \n".repeat(1 << 18);
    let result = scan::scan_reader(&engine, &late, "large", &mut text.as_bytes());
    assert_eq!(result.unread[0].why, "the time was up");
    assert!(result.totals.bytes > 0 && result.totals.bytes < 1 << 19);
}

#[test]
fn many_files_a_huge_line_and_random_bytes_take_no_more_memory_than_a_few() {
    // The script's own counts take minutes; memory would grow with these, too.
    let output = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/scan-extremes.py"))
        .args(["--program", env!("CARGO_BIN_EXE_secretfs"), "--files", "2000"])
        .args(["--line-bytes", "6000000", "--random-bytes", "300000"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn links_are_not_followed_and_do_not_loop() {
    let outside = Tree::new().with("a.txt", line());
    let tree = Tree::new().with("b.txt", "nothing\n");
    std::os::unix::fs::symlink(tree.path(), tree.path().join("loop")).unwrap();
    std::os::unix::fs::symlink(outside.path(), tree.path().join("out")).unwrap();
    assert_eq!(tree.report(&[]).0, 0);
    assert_eq!(tree.found(&["out/a.txt"]), ["out/a.txt github-pat"]);
}

#[test]
fn binary_files_are_skipped_and_counted() {
    let tree = Tree::new().with("a.bin", [b"\x7fELF\0\0\x01\x02", line().as_bytes()].concat());
    let (code, report) = tree.report(&[]);
    assert_eq!((code, &report["totals"]["binary"]), (0, &1.into()));
}

#[test]
fn gitignore_is_honoured_unless_told_otherwise() {
    let tree = Tree::new().with(".gitignore", "ignored/\n").with("ignored/a.txt", line());
    tree.git(&["init", "-q"]);
    assert_eq!(tree.found(&[]), [""; 0]);
    assert_eq!(tree.found(&["--no-ignore"]), ["ignored/a.txt github-pat"]);
}

#[test]
fn only_files_types_and_severities_that_are_asked_for_are_reported() {
    let tree = Tree::new().with("a/x.txt", line()).with("b/y.env", line());
    assert_eq!(tree.found(&["--only", "*.env"]), ["b/y.env github-pat"]);
    assert_eq!(tree.found(&["--exclude", "b/"]), ["a/x.txt github-pat"]);
    assert_eq!(tree.found(&["--type", "ssh_key"]), [""; 0]);
    let medium = Tree::new().with("x.yaml", example("jwt"));
    assert_eq!(medium.found(&[]).len(), 1);
    assert_eq!(medium.found(&["--min-severity", "critical"]), [""; 0]);
}

#[test]
fn encoded_and_packed_secrets_are_found() {
    let line = line();
    let utf16: Vec<u8> =
        [0xfeff].into_iter().chain(line.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    let hex: String = line.bytes().map(|byte| format!("{byte:02x}")).collect();
    let notebook = serde_json::json!({ "cells": [{ "source": [format!("x = \"{line}\"\n")] }] });
    let percent: String = line.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let tree = Tree::new()
        .with("utf16.txt", utf16)
        .with("hex.txt", hex)
        .with("percent.txt", percent)
        .with("book.ipynb", notebook.to_string())
        .with("plain.txt", &line);
    for (program, args) in [
        (
            "python3",
            &[
                "-c",
                "import base64;print(base64.b64encode(open('plain.txt','rb').read()).decode())",
            ][..],
        ),
        ("tar", &["-cf", "t.tar", "plain.txt"]),
        ("tar", &["-czf", "t.tgz", "plain.txt"]),
        ("python3", &["-m", "zipfile", "-c", "z.docx", "t.tgz"]),
    ] {
        let output = tree.run(program, args);
        assert!(output.status.success(), "{program}");
        if !output.stdout.is_empty() {
            common::write_file(&tree.path().join("base64.txt"), &output.stdout);
        }
    }
    fs::remove_file(tree.path().join("plain.txt")).unwrap();
    let mut found = tree.found(&[]);
    found.sort();
    let places = [
        "base64.txt",
        "book.ipynb",
        "hex.txt",
        "percent.txt",
        "t.tar!/plain.txt",
        "t.tgz!/t.tar!/plain.txt",
        "utf16.txt",
        "z.docx!/t.tgz!/t.tar!/plain.txt",
    ];
    assert_eq!(found, places.map(|place| format!("{place} github-pat")));
}

#[test]
fn a_file_that_unpacks_without_end_is_given_up_and_reported() {
    let tree = Tree::new();
    let script =
        "import gzip;f=gzip.open('b.gz','wb',9);[f.write(b'\\n'*(1<<20)) for _ in range(1100)]";
    assert!(tree.run("python3", &["-c", script]).status.success());
    let (code, report) = tree.report(&[]);
    assert_eq!((code, report["unread"].as_array().unwrap().len()), (INCOMPLETE, 1));
}

#[test]
fn accepted_findings_are_left_out_and_can_still_be_listed() {
    let line = line();
    let tree = Tree::new()
        .with("a.txt", format!("{line} # secretfs:allow\n"))
        .with("b.txt", &line)
        .with("allow.toml", "[[allow]]\nrule = 'github-pat'\npath = 'b.txt'\nreason = 'a test'\n");
    assert_eq!(tree.found(&[]), ["b.txt github-pat"]);
    assert_eq!(tree.found(&["--rules", "allow.toml"]), [""; 0]);
    let (code, report) = tree.report(&["--rules", "allow.toml", "--suppressed"]);
    let reasons: Vec<_> =
        report["findings"].as_array().unwrap().iter().map(|finding| &finding["reason"]).collect();
    assert_eq!(code, 0);
    assert_eq!(reasons, ["allowed by a comment", "allowed: a test"]);
}

#[test]
fn a_baseline_accepts_what_is_there_also_when_it_moves_and_nothing_new() {
    let line = line();
    let tree = Tree::new().with("a.txt", &line);
    assert_eq!(tree.scan(&["--write-baseline", "base.json"]).status.code(), Some(0));
    let tree = tree.with("a.txt", format!("moved\n\n{line}\n"));
    assert_eq!(tree.found(&["--baseline", "base.json"]), [""; 0]);
    let tree = tree.with("b.txt", &line);
    assert_eq!(tree.found(&["--baseline", "base.json"]), ["b.txt github-pat"]);
    let baseline = fs::read_to_string(tree.path().join("base.json")).unwrap();
    assert!(!baseline.contains(&token(&line)[6..14]));
}

#[test]
fn own_rules_add_to_the_built_in_ones_and_replace_them() {
    let rule = "[[rule]]\nid = 'ours'\ndescription = 'Ours'\ntype = 'api_key'\nseverity = 'high'\n\
                keywords = ['ours_']\nregex = 'ours_[a-z0-9]{20}'\npositive = ['ours_8fk2mq9vl4nr8wtz1pxc']\n\
                negative = ['ours_short']\n";
    let tree = Tree::new().with("a.txt", "x ours_8fk2mq9vl4nr8wtz1pxc\n").with("r.toml", rule);
    let only = ["--only", "a.txt", "--rules", "r.toml"];
    assert_eq!(tree.found(&only), ["a.txt ours"]);
    assert_eq!(tree.scan(&["rules", "--test", "--rules", "r.toml"]).status.code(), Some(0));
    let tree = tree.with("r.toml", format!("{rule}\nunknown = 1"));
    let refused = tree.scan(&only);
    assert_eq!(refused.status.code(), Some(INCOMPLETE));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("unknown"));
}

#[test]
fn what_is_filtered_is_explained() {
    let tree = Tree::new().with("a.yaml", "password: changeme\n");
    let (code, report) = tree.report(&["--explain"]);
    assert_eq!(code, 0);
    let finding = &report["findings"][0];
    assert_eq!(finding["state"], "filtered");
    assert!(finding["reason"].as_str().unwrap().contains("filled in"));
}

#[test]
fn standard_input_is_scanned_too() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_secretfs"))
        .args(["scan", "-", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(line().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(FOUND));
}

#[test]
fn sarif_is_valid_against_its_schema() {
    let tree = Tree::new().with("a b.txt", format!("{}\n{} # secretfs:allow\n", line(), line()));
    let report = tree.path().join("r.sarif");
    let output =
        tree.scan(&["--format", "sarif", "--suppressed", "-o", "r.sarif", ".", "not-there"]);
    assert_eq!(output.status.code(), Some(INCOMPLETE));
    let check = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/sarif-check.sh");
    let checked = Command::new(check).arg(&report).output().unwrap();
    if checked.status.code() == Some(3) && std::env::var_os("SECRETFS_REQUIRE_ALL").is_none() {
        return;
    }
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let sarif: Value = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
    assert_eq!(sarif["runs"][0]["results"].as_array().unwrap().len(), 2);
    assert_eq!(sarif["runs"][0]["invocations"][0]["executionSuccessful"], false);
}

#[test]
fn what_is_staged_is_scanned_as_it_is_staged() {
    let tree = Tree::new().with("old.txt", line());
    tree.git(&["init", "-q"]);
    tree.git(&["add", "."]);
    assert_eq!(tree.found(&["--staged"]), ["old.txt github-pat"]);
    tree.git(&["commit", "-qm", "x"]);
    assert_eq!(tree.found(&["--staged"]), [""; 0]);
    let tree = tree.with("new.txt", line());
    tree.git(&["add", "new.txt"]);
    // The worktree is clean again, and the index is not.
    let tree = tree.with("new.txt", "nothing\n");
    assert_eq!(tree.found(&["--staged"]), ["new.txt github-pat"]);
    let outside = Tree::new();
    assert_eq!(outside.scan(&["--staged"]).status.code(), Some(INCOMPLETE));
}

#[test]
fn a_history_is_scanned_with_the_commit_that_brought_each_secret() {
    let tree = Tree::new().with("a.txt", "nothing\n");
    tree.git(&["init", "-q"]);
    for (file, text) in
        [("a.txt", "nothing\n"), ("a.txt", &line()), ("a.txt", "gone\n"), ("b.txt", &line())]
    {
        common::write_file(&tree.path().join(file), text.as_bytes());
        tree.git(&["add", "."]);
        tree.git(&["commit", "-qm", "x"]);
    }
    let second = tree.run("git", &["rev-parse", "HEAD~2"]).stdout;
    let (code, report) = tree.report(&["--history"]);
    let findings = report["findings"].as_array().unwrap();
    // The blob of b.txt is that of a.txt: read once, and found where it first was.
    assert_eq!((code, findings.len()), (FOUND, 1));
    assert_eq!(findings[0]["commit"]["id"], String::from_utf8(second).unwrap().trim());
    assert_eq!(report["totals"]["commits"], 4);
    assert_eq!(tree.found(&["--history=HEAD~2..HEAD~1"]), [""; 0]);
    assert_eq!(tree.scan(&["--history=--output=x"]).status.code(), Some(INCOMPLETE));
}

#[test]
fn the_hook_refuses_a_commit_with_a_secret_and_runs_the_hook_that_was_there() {
    let tree = Tree::new();
    tree.git(&["init", "-q"]);
    let earlier = tree.path().join(".git/hooks/pre-commit");
    fs::create_dir_all(earlier.parent().unwrap()).unwrap();
    common::write_file(&earlier, b"#!/bin/sh\ntouch ran\n");
    fs::set_permissions(&earlier, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    assert!(tree.scan(&["hook", "install"]).status.success());
    let tree = tree.with("a.txt", line());
    tree.git(&["add", "a.txt"]);
    assert!(!tree.run("git", &["commit", "-qm", "x"]).status.success());
    assert!(tree.path().join("ran").exists());
    let tree = tree.with("a.txt", "nothing\n");
    tree.git(&["add", "a.txt"]);
    tree.git(&["commit", "-qm", "x"]);
    assert!(tree.scan(&["hook", "uninstall"]).status.success());
    assert_eq!(fs::read_to_string(&earlier).unwrap(), "#!/bin/sh\ntouch ran\n");
}

#[test]
fn every_stored_version_is_found_by_name_and_never_printed() {
    let Some(world) = World::start() else { return };
    for value in ["example-value-one", "example-value-two"] {
        world.put("prod/token", value);
    }
    let tree = Tree::new()
        .with("a.txt", "x=example-value-one;")
        .with("b.txt", "ZXhhbXBsZS12YWx1ZS10d28=")
        .with("c.txt", "example-value-three");
    let output = tree.run(
        env!("CARGO_BIN_EXE_secretfs"),
        &["--mount", world.mountpoint(), "scan", "--own", "--format", "json"],
    );
    assert_eq!(output.status.code(), Some(FOUND), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains("example-value"));
    let report: Value = serde_json::from_str(&text).unwrap();
    let found: Vec<_> =
        report["findings"].as_array().unwrap().iter().map(|one| &one["description"]).collect();
    assert_eq!(
        found,
        ["The stored secret prod/token, version 1", "The stored secret prod/token, version 2"]
    );
    let once = |line: &&Value| line["reason"] == "scan for 2 stored values";
    assert_eq!(world.audit().iter().filter(once).count(), 1);
}

#[test]
fn a_mount_of_secrets_is_not_read_by_any_name_and_that_is_said() {
    let Some(world) = World::start() else { return };
    world.put("prod/token", "example-value-one");
    let tree = Tree::new();
    std::os::unix::fs::symlink(world.path("prod"), tree.path().join("link")).unwrap();
    for path in
        [world.path(""), world.path("prod"), world.path("prod/token"), tree.path().join("link")]
    {
        let output = tree.scan(&["--format", "json", path.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(INCOMPLETE), "{output:?}");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["unread"][0]["why"], "it is in a mount of secretfs");
    }
    assert_eq!(world.audit_of("prod/token", "read", "allowed", 0), [Value::Null; 0]);
}

#[test]
fn a_stored_value_is_found_in_a_binary_file_and_what_is_around_it_is_not_shown() {
    let Some(world) = World::start() else { return };
    world.put("prod/token", "example-value-one");
    let tree =
        Tree::new().with("core", b"\0\x01ghost\0example-value-one\0neighbour\0").with("b", "\0\0");
    let output = tree.run(
        env!("CARGO_BIN_EXE_secretfs"),
        &["--mount", world.mountpoint(), "scan", "--own", "--format", "json"],
    );
    let text = String::from_utf8(output.stdout).unwrap();
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["findings"][0]["stored"]["secret"], "prod/token");
    assert_eq!((&report["findings"][0]["column"], &report["open"]), (&9.into(), &1.into()));
    assert!(!text.contains("neighbour") && !text.contains("example-value"), "{text}");
}

#[test]
fn a_secret_that_leaked_is_rotated_when_somebody_says_so() {
    let Some(world) = World::start() else { return };
    for (name, value) in [
        ("leaked", "example-value-one"),
        ("old", "example-value-two"),
        ("kept", "example-value-six"),
    ] {
        world.put(name, value);
    }
    world.put("old", "example-value-new");
    let tree = Tree::new().with("a", "x=example-value-one\ny=example-value-two\n");
    let scan = |more: &[&str]| {
        let args = [&["--mount", world.mountpoint(), "scan", "--own", "--rotate"], more].concat();
        tree.run(env!("CARGO_BIN_EXE_secretfs"), &args)
    };
    let said = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    // There is nobody to ask.
    let output = scan(&[]);
    assert_eq!(output.status.code(), Some(FOUND), "{output:?}");
    assert!(said(&output).contains("leaked not rotated"), "{}", said(&output));
    assert_eq!(world.version("leaked"), 1);
    let output = scan(&["--yes", "--format", "json"]);
    assert_eq!(output.status.code(), Some(FOUND), "{output:?}");
    serde_json::from_slice::<Value>(&output.stdout).unwrap();
    assert!(said(&output).contains("old: only earlier versions"), "{}", said(&output));
    assert_eq!(["leaked", "old", "kept"].map(|name| world.version(name)), [2, 2, 1]);
    assert_ne!(world.get("leaked").unwrap(), b"example-value-one");
    // What leaked then is no value of today.
    let output = scan(&["--yes"]);
    assert!(said(&output).contains("leaked: only earlier versions"), "{}", said(&output));
    assert_eq!(world.version("leaked"), 2);
}

/// Returns a description that has a secret in it, and the secret's beginning.
fn description_with_a_secret() -> (String, String) {
    let example = example("github-pat");
    let token = example.split("ghp_").nth(1).unwrap();
    let token: String = token.chars().take_while(char::is_ascii_alphanumeric).collect();
    (format!("was ghp_{token} before"), token)
}

#[test]
fn metadata_with_a_secret_in_it_is_refused_and_the_log_says_why() {
    let Some(world) = World::start() else { return };
    world.put("name", "v");
    let (bad, token) = description_with_a_secret();
    let set =
        |value: &str| xattr::set(world.path("name"), "user.secretfs.description", value.as_bytes());
    assert_eq!(set(&bad).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    set("the deploy token of team x, see the wiki").unwrap();
    let line = world.audit_of("name", "set_attribute", "failed", 0).pop().unwrap();
    let reason = line["reason"].as_str().unwrap();
    assert!(reason.contains("line 1, column 5") && reason.contains("github-pat"), "{reason}");
    common::eventually("the daemon's log says it too", || world.said().contains("github-pat"));
    // By the command line, which says it as well; the value is stored before.
    let mut put = world.secretfs();
    put.args(["put", "other", "--generate", "--description", &bad]);
    let output = common::bounded(&mut put);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("github-pat, critical"), "{said}");
    for text in [said, world.said(), format!("{:?}", world.audit())] {
        assert!(!text.contains(&token), "{text}");
    }
}

#[test]
fn configuration_with_a_secret_in_it_is_not_reloaded() {
    let Some(world) = World::start() else { return };
    let (bad, token) = description_with_a_secret();
    world.set_policy(&format!("# {bad}\n"));
    let refused = world.control("reload", "\n").unwrap_err();
    assert_eq!(refused.errno, libc::EINVAL);
    assert!(
        refused.reply.contains("policy.toml: line") && !refused.reply.contains(&token),
        "{refused:?}"
    );
    world.set_policy("# nothing\n");
    world.control("reload", "\n").unwrap();
}

#[test]
fn nothing_that_is_written_is_looked_into_where_that_is_switched_off() {
    let Some(world) = World::with(common::ROOT_IS_ADMIN, "scan_on_write = false\n") else { return };
    world.put("name", "v");
    let (bad, _) = description_with_a_secret();
    world.set_attribute("name", "description", &bad);
    world.set_policy(&format!("# {bad}\n"));
    world.control("reload", "\n").unwrap();
}
