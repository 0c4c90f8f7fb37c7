//! What the configuration refuses, where it says the fault is, and which source wins.

use super::*;

fn sources(environment: Environment, flags: Layer) -> Sources {
    Sources { mode: Mode::User, file: None, environment, flags }
}

fn file(dir: &tempfile::TempDir, text: &str) -> PathBuf {
    let path = dir.path().join("secretfs.toml");
    let mut file = std::fs::File::create(&path).unwrap();
    io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    path
}

#[test]
fn faults_are_reported_with_line_column_and_what_was_expected() {
    let cases: [(&str, usize, usize, &[&str]); 20] = [
        ("mountpont = \"/s\"", 1, 1, &["mountpont", "mountpoint", "state_dir"]),
        ("threads = 2\n\n[key]\nsorce = \"file\"", 4, 1, &["sorce", "source"]),
        ("[kye]\nsource = \"file\"", 1, 2, &["kye", "key"]),
        ("threads = 0", 1, 11, &["integer `0`", "from 1 to 64"]),
        ("threads = -3", 1, 11, &["integer `-3`", "from 1 to 64"]),
        ("threads = \"4\"", 1, 11, &["string", "a whole number from 1 to 64"]),
        ("deadline_seconds = 1.5", 1, 20, &["floating point", "from 1 to 60"]),
        ("io = \"fast\"", 1, 6, &["fast", "cached", "direct"]),
        ("names = \"mine\"", 1, 9, &["mine", "hidden", "own"]),
        ("mountpoint = \"secrets\"", 1, 14, &["secrets", "absolute path"]),
        ("[audit]\n  durability = 'sync'", 2, 16, &["sync", "synced", "written"]),
        ("[limits]\nmax_value_bytes = 16777217", 2, 19, &["from 1 to 16777216"]),
        ("[key]\ncredential = \"../x\"", 2, 14, &["../x", "credential name"]),
        ("[credentials]\nsocket = \"run\"", 2, 10, &["run", "absolute path"]),
        ("[credentials]\nnames = { a = \"../b\" }", 2, 15, &["segment"]),
        ("threads = 1\nthreads = 2", 2, 1, &["duplicate key"]),
        ("[[template]]\nname = \"a/b\"\nfile = \"/x\"", 2, 8, &["a/b", "a file name"]),
        ("[[template]]\nname = \"a\"\nfile = \"x\"", 3, 8, &["absolute path"]),
        ("[[template]]\nname = \"a\"", 1, 1, &["missing field `file`"]),
        ("[oneiric]\nprojects = [\"a b\"]", 2, 12, &["a b", "project"]),
    ];
    for (text, line, column, expected) in cases {
        let fault = Layer::parse(text).unwrap_err();
        assert_eq!((fault.line, fault.column), (line, column), "{text}: {}", fault.message);
        for word in expected {
            assert!(fault.message.contains(word), "{text}: {} has no {word}", fault.message);
        }
    }
}

#[test]
fn a_text_that_is_no_toml_is_refused_with_its_line() {
    let fault = Layer::parse("threads = 1\nthis is not toml\n").unwrap_err();
    assert_eq!(fault.line, 2);
}

#[test]
fn columns_are_counted_in_characters() {
    let fault = Layer::parse("key = { file = \"/\u{e9}\u{e9}\", sorce = 1 }").unwrap_err();
    assert_eq!((fault.line, fault.column), (1, 23));
}

#[test]
fn flags_win_over_the_environment_the_environment_over_the_file_and_the_file_over_the_built_in() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, "threads = 2\ndeadline_seconds = 2\nio = \"cached\"");
    let environment = Environment::of([
        ("SECRETFS_THREADS", "3"),
        ("SECRETFS_DEADLINE_SECONDS", "3"),
        ("HOME", "/home/ada"),
    ]);
    let flags = Layer { threads: Some(Bounded(4)), ..Layer::default() };
    let config = Sources { file: Some(path), ..sources(environment, flags) }.load().unwrap();
    assert_eq!(config.threads, 4);
    assert_eq!(config.deadline, Duration::from_secs(3));
    assert_eq!(config.io, IoMode::Cached);
    assert_eq!(config.audit.durability, Durability::Written);
}

#[test]
fn every_variable_sets_a_key_of_the_file() {
    let numbers = Environment::of([
        ("SECRETFS_AUDIT_RETENTION_DAYS", "0"),
        ("SECRETFS_AUDIT_SEGMENT_MIB", "1"),
        ("SECRETFS_KEEP_VERSIONS", "3"),
        ("SECRETFS_MAX_VALUE_BYTES", "10"),
        ("SECRETFS_TRASH_DAYS", "1"),
        ("SECRETFS_KEY_CREDENTIAL", "root"),
        ("CREDENTIALS_DIRECTORY", "/run/credentials/secretfs.service"),
        ("SECRETFS_STATE_DIR", "/state"),
        ("SECRETFS_DURABILITY", "synced"),
    ]);
    let config = sources(numbers, Layer::default()).load().unwrap();
    assert_eq!(config.audit.retention, None);
    assert_eq!(config.audit.segment_bytes, 1 << 20);
    assert_eq!(config.audit.durability, Durability::Synced);
    assert_eq!(config.limits.keep_versions, Some(3));
    assert_eq!(config.limits.max_value_bytes, 10);
    assert_eq!(config.store(), Path::new("/state/store.redb"));
    assert_eq!(
        config.key,
        KeyConfig::Credential {
            name: "root".into(),
            directory: Some("/run/credentials/secretfs.service".into()),
        }
    );
}

#[test]
fn a_bad_variable_is_refused_by_its_name_and_an_unknown_one_is_told_of() {
    let bad = Environment::of([("SECRETFS_THREADS", "many")]);
    let err = sources(bad, Layer::default()).load().unwrap_err();
    assert_eq!(
        err.to_string(),
        "environment variable SECRETFS_THREADS: a whole number was expected"
    );
    let unknown = Environment::of([("SECRETFS_TREADS", "4"), ("SECRETFS_MOUNT", "/s")]);
    let config = sources(unknown, Layer::default()).load().unwrap();
    assert_eq!(config.warnings, ["environment variable SECRETFS_TREADS is no setting of secretfs"]);
}

#[test]
fn a_key_file_on_the_command_line_wins_over_a_passphrase_in_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, "[key]\nsource = \"passphrase\"");
    let key = KeyLayer { file: Some(Absolute("/k".into())), ..KeyLayer::default() };
    let flags = Layer { key, ..Layer::default() };
    let both = Sources { file: Some(path.clone()), ..sources(Environment::default(), flags) };
    assert_eq!(both.load().unwrap().key, KeyConfig::File("/k".into()));
    let file_alone =
        Sources { file: Some(path), ..sources(Environment::default(), Layer::default()) };
    assert_eq!(file_alone.load().unwrap().key, KeyConfig::Passphrase);
}

#[test]
fn a_named_file_must_exist_and_the_default_one_need_not() {
    let environment = Environment::of([("HOME", "/nonexistent")]);
    let default = sources(environment, Layer::default());
    assert!(default.load().is_ok());
    let named = Sources { file: Some("/nonexistent/secretfs.toml".into()), ..default };
    assert!(matches!(named.load(), Err(ConfigError::Unreadable { .. })));
}

#[test]
fn the_values_of_the_environment_are_never_shown() {
    let environment = Environment::of([("OTHER_TOKEN", "canary-7f3a")]);
    let shown = format!("{environment:?}");
    assert!(shown.contains("OTHER_TOKEN") && !shown.contains("canary-7f3a"));
}

#[test]
fn the_example_shows_every_key_with_its_built_in_value() {
    let example = include_str!("../../../systemd/secretfs.toml");
    let shown = Layer::parse(example).unwrap();
    let environment = Environment::default();
    let places = Places::new(Mode::System, &environment);
    let built_in = resolve(Mode::System, Layer::default(), &places, &environment);
    let from_example = resolve(Mode::System, shown.clone(), &places, &environment);
    assert_eq!(format!("{from_example:?}"), format!("{built_in:?}"));
    // `None` would mean a key that the example leaves out; `credential`, and `backend` with `name`, exclude
    // `file`, there is no socket, no template and no `.oneiric` by itself, and what `threads` is depends on
    // the machine.
    let left_out = format!("{shown:?}").matches("None").count();
    assert_eq!(left_out, 7, "{shown:?}");
}

#[test]
fn a_limit_of_zero_is_none_and_one_that_is_not_given_has_its_built_in_value() {
    let limits = |text: &str| {
        let flags = Layer::parse(text).unwrap();
        let config = sources(Environment::default(), flags).load().unwrap();
        (config.limits.secrets_per_uid, config.limits.directories_per_uid)
    };
    assert_eq!(limits(""), (Some(100_000), Some(10_000)));
    assert_eq!(limits("[limits]\nsecrets_per_uid = 0\ndirectories_per_uid = 7\n"), (None, Some(7)));
}
