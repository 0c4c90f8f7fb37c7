//! The layers of `docs/ARCHITECTURE.md`, held: who may import whom, how long a file may be, and that
//! each says what it is.
#![expect(clippy::unwrap_used, reason = "a test file")]

use std::fs;
use std::path::{Path, PathBuf};

/// Each module with the modules that it may import.
const LAYERS: [(&str, &[&str]); 25] = [
    ("model", &[]),
    ("system", &["model"]),
    ("anomaly", &["audit", "model"]),
    ("audit", &["model", "system"]),
    ("credential", &["model", "system"]),
    ("crypto", &["model", "system"]),
    ("effect", &["backend", "credential", "model", "system"]),
    ("generate", &["credential", "crypto", "model", "system"]),
    ("identity", &["model", "system"]),
    ("inject", &["model", "system"]),
    ("policy", &["model"]),
    ("report", &["anomaly", "audit", "model", "policy"]),
    ("scan", &["model", "system"]),
    ("schedule", &["model"]),
    ("store", &["model", "system"]),
    ("versions", &["model"]),
    ("keysource", &["crypto", "model", "system"]),
    ("backend", &["inject", "model", "system"]),
    ("broker", &["audit", "crypto", "model", "policy", "store", "system", "versions"]),
    ("route", &["backend", "broker", "model", "system"]),
    ("rotation", &["broker", "credential", "effect", "generate", "model", "schedule", "system"]),
    ("fs", &["broker", "identity", "inject", "model", "system"]),
    (
        "daemon",
        &[
            "anomaly",
            "audit",
            "backend",
            "broker",
            "credential",
            "crypto",
            "effect",
            "fs",
            "generate",
            "identity",
            "inject",
            "keysource",
            "model",
            "policy",
            "rotation",
            "route",
            "scan",
            "schedule",
            "store",
            "system",
            "versions",
        ],
    ),
    (
        "cli",
        &[
            "anomaly",
            "audit",
            "backend",
            "broker",
            "credential",
            "crypto",
            "daemon",
            "effect",
            "fs",
            "generate",
            "identity",
            "inject",
            "keysource",
            "model",
            "policy",
            "report",
            "rotation",
            "scan",
            "schedule",
            "store",
            "system",
            "versions",
        ],
    ),
    ("main", &["cli", "system"]),
];

/// Files longer than this are split.
const MAX_LINES: usize = 800;

#[test]
fn arrows_between_modules_point_down_only() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let module = module_of(&path);
        if module == "lib" {
            continue;
        }
        let (_, allowed) = LAYERS
            .iter()
            .find(|(name, _)| *name == module)
            .unwrap_or_else(|| panic!("the module {module} is in no layer"));
        for imported in imports(&text) {
            if imported != module && !allowed.contains(&imported.as_str()) {
                wrong.push(format!("{}: {module} -> {imported}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "arrows that the table does not have:\n{}", wrong.join("\n"));
}

#[test]
fn the_test_sees_an_arrow_that_points_up() {
    let text = "use crate::broker::Broker;\nuse crate::{model::Uid, fs::Tree};\nlet x = crate::audit::Seq(1);";
    assert_eq!(imports(text), ["broker", "model", "fs", "audit"]);
}

#[test]
fn no_file_is_longer_than_a_reader_bears_and_each_begins_with_what_it_is() {
    for (path, text) in sources() {
        let lines = text.lines().count();
        assert!(lines <= MAX_LINES, "{} has {lines} lines", path.display());
        assert!(text.starts_with("//!"), "{} does not say what it is", path.display());
    }
}

#[test]
fn unsafe_code_is_in_system_alone() {
    for (path, text) in sources() {
        let module = module_of(&path);
        if module != "system" {
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            let found =
                code.filter(|line| line.contains("unsafe ") || line.contains("unsafe{")).count();
            assert_eq!(found, 0, "{} has unsafe code", path.display());
        }
    }
}

#[test]
fn fuser_is_known_to_its_adapter_alone() {
    for (path, text) in sources() {
        let adapters =
            ["fs/fuse.rs", "fs/fuse/reply.rs", "fs/fuse/whole.rs", "fs/mount.rs", "fs/takeover.rs"];
        let adapter = adapters.iter().any(|adapter| path.ends_with(adapter));
        let names_fuser = text
            .lines()
            .any(|line| line.trim_start().starts_with("use fuser") || line.contains("fuser::"));
        assert!(adapter || !names_fuser, "{} names fuser", path.display());
    }
}

fn sources() -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    assert!(files.len() > 50, "the sources were not found");
    files
}

fn collect(directory: &Path, files: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            files.push((path, text));
        }
    }
}

/// Returns the top-level module that a file belongs to.
fn module_of(path: &Path) -> String {
    let below = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
    let first = below.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// Returns the top-level modules that a text names behind `crate::` or `secretfs::`, in order.
fn imports(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for root in ["crate::", "secretfs::"] {
        for (at, _) in text.match_indices(root) {
            let rest = &text[at + root.len()..];
            match rest.strip_prefix('{') {
                Some(group) => found.extend(group_members(group)),
                None => found.extend(first_word(rest)),
            }
        }
    }
    found
}

/// Returns the first words of the members of a `use` group, nested groups left out.
fn group_members(group: &str) -> Vec<String> {
    let mut depth = 1;
    let mut members = vec![String::new()];
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => members.push(String::new()),
            _ if depth == 1 => members.last_mut().unwrap().push(c),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    members.iter().filter_map(|member| first_word(member.trim_start())).collect()
}

fn first_word(text: &str) -> Option<String> {
    let word: String = text.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
    (!word.is_empty()).then_some(word)
}
