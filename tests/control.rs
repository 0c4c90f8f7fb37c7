//! The files under `.control`, as CONTRACT 5 promises them, and the mount itself.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test file: its helpers are tests too"
)]

mod common;

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::Instant;

use common::{DEADLINE, Person, World, control, eventually, number, read, word, write};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;

const ADA: u32 = 61_001;

const COMMANDS: [&str; 8] =
    ["admin", "elevate", "explain", "grant", "reload", "revoke", "seal", "unseal"];

const ADA_READS_MINE: &str = r#"
[[role]]
name = "reader"
allow = [{ names = ["mine", "mine-*"], levels = ["read"] }]
[[binding]]
id = "ada"
role = "reader"
uid = [61001]
"#;

fn text(world: &World, file: &str) -> String {
    String::from_utf8(world.get(&format!(".control/{file}")).unwrap()).unwrap()
}

/// Returns the values of lines `key: value`.
fn values(text: &str, key: &str) -> Vec<String> {
    let pairs =
        text.lines().map(|line| line.split_once(": ").unwrap_or_else(|| panic!("{line:?}")));
    pairs.filter(|(found, _)| *found == key).map(|(_, value)| value.to_owned()).collect()
}

#[test]
fn a_command_file_read_without_writing_prints_usage_and_does_nothing() {
    let Some(world) = World::start() else { return };
    world.put("name", "v");
    for file in COMMANDS {
        let usage = text(&world, file);
        assert!(usage.ends_with('\n') && usage.len() > 5, "{file}: {usage:?}");
    }
    assert_eq!(text(&world, "health"), "ok\n");
    assert_eq!(world.get("name").unwrap(), b"v");
}

#[test]
fn the_files_of_the_contract_are_there_and_have_one_kind() {
    let Some(world) = World::start() else { return };
    let listed = world.list(".control");
    let files = ["status", "health", "version", "whoami", "events", "metrics", "backup", "restore"];
    for file in files.iter().chain(&COMMANDS) {
        assert!(listed.contains(&(*file).to_owned()), "{file} is not in {listed:?}");
        assert!(fs::metadata(world.path(&format!(".control/{file}"))).unwrap().is_file(), "{file}");
    }
    assert_eq!(world.list(".control/trash"), [""; 0]);
    assert!(world.list(".control/audit").iter().any(|name| name == "log"));
    assert!(world.list("").contains(&".control".to_owned()));
}

#[test]
fn nothing_can_be_made_renamed_or_removed_among_control_files() {
    let Some(world) = World::start() else { return };
    world.put("name", "v");
    let control = world.path(".control");
    assert!(write(&control.join("new"), b"x").is_err());
    assert!(fs::create_dir(control.join("new")).is_err());
    assert!(fs::remove_file(control.join("health")).is_err());
    assert!(fs::rename(control.join("health"), world.path("health")).is_err());
    assert!(fs::rename(world.path("name"), control.join("health")).is_err());
    assert!(fs::remove_dir(control.join("audit")).is_err());
    assert!(fs::remove_dir(&control).is_err());
    assert_eq!(text(&world, "health"), "ok\n");
    assert_eq!(world.get("name").unwrap(), b"v");
}

#[test]
fn the_reply_is_read_from_the_descriptor_that_took_the_command() {
    let Some(world) = World::start() else { return };
    world.put("name", "v");
    let reply = world.sh_ok("exec 3<>.control/explain; echo name >&3; cat <&3");
    let reply: Value = serde_json::from_str(&reply).unwrap();
    assert!(reply["levels"].is_array(), "{reply}");
    let object = world.control("explain", r#"{"secret": "name"}"#).unwrap();
    assert_eq!(object, reply, "a JSON object is the same command as a bare line");
}

#[test]
fn the_verdict_of_a_command_is_the_errno_of_its_write() {
    let Some(world) = World::with_policy(ADA_READS_MINE) else { return };
    world.put("mine", "v");
    for (file, command) in [
        ("explain", "a b c\n"),
        ("explain", "{\"secret\": 3}"),
        ("admin", "nonsense\n"),
        ("admin", "{\n"),
    ] {
        let refusal = world.control(file, command).unwrap_err();
        assert_eq!(refusal.errno, libc::EINVAL, "{file} {command:?}: {refusal:?}");
    }
    assert_eq!(world.sh("echo nonsense > .control/admin").status.code(), Some(1));
    let path = world.path(".control/seal");
    assert_eq!(Person::new(ADA).run(|| control(&path, "\n").unwrap_err().errno), libc::EACCES);
    assert_eq!(text(&world, "health"), "ok\n");
}

#[test]
fn the_reply_to_a_refused_command_says_why() {
    let Some(world) = World::start() else { return };
    let refusal = world.control("admin", "nonsense\n").unwrap_err();
    let reply: Value = serde_json::from_str(&refusal.reply).unwrap();
    assert!(reply["error"].as_str().is_some_and(|why| why.contains("nonsense")), "{reply}");
}

#[test]
fn a_command_is_one_write_of_at_most_four_kib() {
    let Some(world) = World::start() else { return };
    let long = format!("{{\"secret\": \"{}\"}}", "x".repeat(4096));
    let refusal = world.control("explain", &long).unwrap_err();
    assert!(
        matches!(refusal.errno, libc::EFBIG | libc::EINVAL | libc::E2BIG),
        "{}",
        word(refusal.errno)
    );
    let mut file =
        OpenOptions::new().read(true).write(true).open(world.path(".control/explain")).unwrap();
    file.write_all(b"name\n").unwrap();
    let mut first = String::new();
    file.read_to_string(&mut first).unwrap();
    assert!(serde_json::from_str::<Value>(&first).is_ok(), "{first:?}");
}

#[test]
fn command_files_are_streams() {
    let Some(world) = World::start() else { return };
    let mut file =
        OpenOptions::new().read(true).write(true).open(world.path(".control/explain")).unwrap();
    let sought = file.seek(SeekFrom::Start(1)).map_err(|err| number(&err));
    assert_eq!(sought, Err(libc::ESPIPE));
}

#[test]
fn status_is_lines_of_key_and_value() {
    let Some(world) = World::start() else { return };
    world.put("name", "v");
    let status = text(&world, "status");
    assert_eq!(values(&status, "health"), ["ok"]);
    assert_eq!(values(&status, "secrets"), ["1"]);
    assert_eq!(values(&status, "mountpoint"), [world.mountpoint()]);
    assert_eq!(values(&status, "pid"), [world.pid().to_string()]);
    assert_eq!(values(&text(&world, "version"), "version"), [env!("CARGO_PKG_VERSION")]);
}

#[test]
fn whoami_says_as_whom_one_is_seen() {
    let Some(world) = World::start() else { return };
    let path = world.path(".control/whoami");
    let ada = Person { gid: 62_000, ..Person::new(ADA) };
    let (pid, said) = ada.run(|| (std::process::id(), fs::read_to_string(&path).unwrap()));
    assert_eq!(values(&said, "uid"), [ADA.to_string()]);
    assert_eq!(values(&said, "gid"), ["62000"]);
    assert_eq!(values(&said, "pid"), [pid.to_string()]);
    assert_eq!(values(&text(&world, "whoami"), "uid"), ["0"]);
}

#[test]
fn explain_says_which_rule_allows_and_not_whether_a_hidden_secret_exists() {
    let Some(world) = World::with_policy(ADA_READS_MINE) else { return };
    world.put("mine", "v");
    world.put("theirs", "canary-7f3a");
    let path = world.path(".control/explain");
    let ask = |name: &str| Person::new(ADA).run(|| control(&path, &format!("{name}\n")).ok());
    let mine = ask("mine").unwrap().to_string();
    assert!(mine.contains("ada"), "{mine}");
    let [hidden, absent] = ["theirs", "absent"].map(ask);
    let same = |reply: Option<Value>| reply.map(|r| r.to_string().replace("theirs", "absent"));
    assert_eq!(same(hidden), same(absent));
}

#[test]
fn seal_makes_every_read_fail_and_unseal_brings_them_back() {
    let Some(world) = World::start() else { return };
    world.put("name", "v");
    world.control("seal", "\n").unwrap();
    assert_eq!(text(&world, "health"), "sealed\n");
    assert_eq!(world.get("name"), Err(libc::ENOKEY));
    world.control("unseal", "\n").unwrap();
    assert_eq!(text(&world, "health"), "ok\n");
    assert_eq!(world.get("name").unwrap(), b"v");
    world.sh_ok(
        "echo > .control/seal && ! cat name 2>/dev/null && echo > .control/unseal && cat name",
    );
    let sealed = world
        .audit()
        .iter()
        .filter(|line| line["action"].as_str().is_some_and(|a| a.contains("seal")))
        .count();
    assert!(sealed >= 4 || controls(&world).len() >= 4, "{:?}", world.audit());
}

fn controls(world: &World) -> Vec<Value> {
    world.audit().into_iter().filter(|line| line["action"] == "control").collect()
}

#[test]
fn a_control_command_of_somebody_without_the_right_is_refused_and_recorded() {
    let Some(world) = World::with_policy(ADA_READS_MINE) else { return };
    for file in ["seal", "unseal", "reload", "admin"] {
        let path = world.path(&format!(".control/{file}"));
        let command = if file == "admin" { "key-status\n" } else { "\n" };
        let errno =
            Person::new(ADA).run(|| control(&path, command).err().map(|refusal| refusal.errno));
        assert_eq!(errno, Some(libc::EACCES), "{file}");
    }
    let refused = |line: &&Value| line["uid"] == ADA && line["outcome"] == "denied";
    let lines = world.audit();
    assert_eq!(lines.iter().filter(refused).count(), 4, "{lines:?}");
    let backup = world.path(".control/backup");
    assert_eq!(Person::new(ADA).run(|| read(&backup).map(drop)), Err(libc::EACCES));
}

#[test]
fn unseal_neither_echoes_nor_logs_what_was_written() {
    let Some(world) = World::start() else { return };
    world.control("seal", "\n").unwrap();
    let refusal = world.control("unseal", "canary-7f3a\n");
    if let Err(refusal) = &refusal {
        assert!(!refusal.reply.contains("canary-7f3a"), "{refusal:?}");
    }
    world.control("unseal", "\n").unwrap();
    let log = world.get(".control/audit/log").unwrap();
    assert!(!String::from_utf8_lossy(&log).contains("canary-7f3a"));
    assert!(!world.said().contains("canary-7f3a"));
}

#[test]
fn a_reload_puts_a_good_policy_into_force() {
    let Some(world) = World::start() else { return };
    world.put("mine", "v");
    let path = world.path("mine");
    let ada = Person::new(ADA);
    assert_eq!(ada.run(|| read(&path)), Err(libc::EACCES));
    world.set_policy(ADA_READS_MINE);
    assert_eq!(ada.run(|| read(&path)), Err(libc::EACCES), "nothing counts before the reload");
    world.control("reload", "\n").unwrap();
    assert_eq!(ada.run(|| read(&path)).unwrap(), b"v");
    world.set_policy("");
    world.control("reload", "\n").unwrap();
    assert_eq!(ada.run(|| read(&path)), Err(libc::EACCES));
}

#[test]
fn a_reload_of_a_bad_policy_changes_nothing_and_says_which_line() {
    let Some(world) = World::with_policy(ADA_READS_MINE) else { return };
    world.put("mine", "v");
    let bad =
        format!("{}\n[[binding]]\nrole = \"nobody-has-this\"\nuid = [5]\n", common::ROOT_IS_ADMIN);
    let line = bad.lines().position(|line| line.contains("nobody-has-this")).unwrap() + 1;
    common::write_file(&world.policy_file(), bad.as_bytes());
    let refusal = world.control("reload", "\n").unwrap_err();
    assert_eq!(refusal.errno, libc::EINVAL);
    assert!(refusal.reply.contains(&format!("line {line}")), "{refusal:?}");
    let path = world.path("mine");
    assert_eq!(Person::new(ADA).run(|| read(&path)).unwrap(), b"v");
}

#[test]
fn a_policy_that_others_could_write_is_not_loaded() {
    let Some(world) = World::with_policy(ADA_READS_MINE) else { return };
    world.put("mine", "v");
    world.set_policy("");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    fs::set_permissions(world.policy_file(), mode).unwrap();
    assert!(world.control("reload", "\n").is_err());
    let path = world.path("mine");
    assert_eq!(Person::new(ADA).run(|| read(&path)).unwrap(), b"v");
}

#[test]
fn sighup_reloads_too() {
    let Some(world) = World::start() else { return };
    world.put("mine", "v");
    world.set_policy(ADA_READS_MINE);
    let pid = nix::unistd::Pid::from_raw(world.pid().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGHUP).unwrap();
    let path = world.path("mine");
    eventually("the policy is in force", || Person::new(ADA).run(|| read(&path)).is_ok());
}

#[test]
fn metrics_are_prometheus_text_without_names_of_secrets() {
    let Some(world) = World::start() else { return };
    world.put("name-of-a-secret", "canary-7f3a");
    world.get("name-of-a-secret").unwrap();
    let metrics = text(&world, "metrics");
    let mut samples = 0;
    for line in metrics.lines().filter(|line| !line.is_empty()) {
        if let Some(comment) = line.strip_prefix('#') {
            assert!([" HELP ", " TYPE "].iter().any(|start| comment.starts_with(start)), "{line}");
            continue;
        }
        let (name, value) = line.rsplit_once(' ').unwrap();
        let bare = name.split('{').next().unwrap();
        assert!(bare.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{line}");
        let parts = ["_bucket", "_sum", "_count"];
        let whole = parts.iter().find_map(|part| bare.strip_suffix(part)).unwrap_or(bare);
        assert!(metrics.contains(&format!("# TYPE {whole} ")), "{line}");
        value.parse::<f64>().unwrap_or_else(|err| panic!("{line}: {err}"));
        samples += 1;
    }
    assert!(samples > 3);
    assert!(!metrics.contains("name-of-a-secret") && !metrics.contains("canary-7f3a"));
}

#[test]
fn the_audit_log_needs_admin_and_is_whole_json_lines_in_order() {
    let Some(world) = World::with_policy(ADA_READS_MINE) else { return };
    world.put("mine", "example-value");
    let (path, log) = (world.path("mine"), world.path(".control/audit/log"));
    Person::new(ADA).run(|| read(&path)).unwrap();
    assert_eq!(Person::new(ADA).run(|| read(&log).map(drop)), Err(libc::EACCES));
    let lines = world.audit();
    let seqs: Vec<_> = lines.iter().map(|line| line["seq"].as_u64().unwrap()).collect();
    assert!(seqs.windows(2).all(|pair| pair[1] == pair[0] + 1), "{seqs:?}");
    let fields = [
        "seq",
        "time",
        "action",
        "outcome",
        "secret",
        "version",
        "uid",
        "user",
        "gid",
        "pid",
        "start_time",
        "exe",
        "comm",
        "unit",
        "container",
        "rule",
        "reason",
        "prev",
        "mac",
    ];
    let line = &world.audit_of("mine", "read", "allowed", ADA)[0];
    for field in fields {
        assert!(line.get(field).is_some(), "{field} is not in {line}");
    }
    assert!(line["rule"].as_str().unwrap().contains("ada"), "{line}");
    assert!(!lines.iter().any(|line| line.to_string().contains("example-value")));
    let chained = lines.windows(2).all(|pair| pair[1]["prev"] == pair[0]["mac"]);
    assert!(chained);
}

#[test]
fn the_line_is_there_before_the_answer_to_open() {
    let Some(world) = World::start() else { return };
    world.put("name", "v");
    for reads in 1..=5 {
        let file = File::open(world.path("name")).unwrap();
        assert_eq!(world.audit_of("name", "read", "allowed", 0).len(), reads);
        drop(file);
    }
}

#[test]
fn hostile_bytes_of_a_caller_make_one_clean_line() {
    let Some(world) = World::start() else { return };
    world.put("name", "v");
    let path = world.path("name");
    let comm = c"\x1b[31m\n\",\"x\":\xff\x7f";
    Person::new(0).run(|| {
        nix::sys::prctl::set_name(comm).unwrap();
        read(&path).unwrap()
    });
    let log = world.get(".control/audit/log").unwrap();
    assert!(log.iter().all(|byte| *byte == b'\n' || (0x20..0x7f).contains(byte)));
    let line = world.audit_of("name", "read", "allowed", 0).pop().unwrap();
    assert!(line["comm"].as_str().unwrap().starts_with("\u{1b}[31m\n"), "{line}");
    assert!(line.get("x").is_none());
}

#[test]
fn the_head_of_the_log_is_its_last_line_s() {
    let Some(world) = World::start() else { return };
    world.put("name", "v");
    let head = text(&world, "audit/head");
    let last = world.audit();
    let mentions = |line: &Value| head.contains(&line["seq"].to_string());
    assert!(last.iter().rev().take(3).any(mentions), "{head} {last:?}");
    let mut verify = world.secretfs();
    let output = common::bounded(verify.args(["audit", "verify"]));
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn tail_follows_the_events() {
    let Some(world) = World::start() else { return };
    let mut tail = Command::new("tail")
        .args(["-n", "+1", "-f"])
        .arg(world.path(".control/events"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (sender, lines) = std::sync::mpsc::channel();
    let stdout = BufReader::new(tail.stdout.take().unwrap());
    let reader = std::thread::spawn(move || {
        for line in stdout.lines().map_while(Result::ok) {
            drop(sender.send(line));
        }
    });
    let start = Instant::now();
    let mut seen = Vec::new();
    let mut turn = 0;
    while start.elapsed() < DEADLINE
        && !seen.iter().any(|line: &String| line.contains("followed-2"))
    {
        turn += 1;
        world.put(&format!("followed-{turn}"), "canary-7f3a");
        seen.extend(lines.recv_timeout(std::time::Duration::from_secs(2)));
        seen.extend(lines.try_iter());
    }
    tail.kill().unwrap();
    tail.wait().unwrap();
    reader.join().unwrap();
    assert!(seen.iter().any(|line| line.contains("followed-2")), "{seen:?}");
    assert!(seen.iter().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{seen:?}");
    assert!(!seen.iter().any(|line| line.contains("canary-7f3a")));
}

#[test]
fn a_reader_of_events_can_poll() {
    let Some(world) = World::start() else { return };
    let mut events = File::open(world.path(".control/events")).unwrap();
    let mut all = Vec::new();
    events.read_to_end(&mut all).unwrap();
    let ready = |file: &File, timeout: u16| {
        let mut fds = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::from(timeout)).unwrap() > 0
    };
    assert!(!ready(&events, 0), "nothing has happened since");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| ready(&events, 20_000));
        world.put("name", "v");
        assert!(waiting.join().unwrap());
    });
    let mut text = String::new();
    events.read_to_string(&mut text).unwrap();
    assert!(text.lines().any(|line| line.contains("\"name\"")), "{text:?}");
}

#[test]
fn events_show_only_what_the_reader_may_know() {
    let Some(world) = World::with_policy(ADA_READS_MINE) else { return };
    let path = world.path(".control/events");
    let follow = || {
        let (mut events, mut text) = (File::open(&path).unwrap(), String::new());
        let start = Instant::now();
        while !text.contains("mine-last") && start.elapsed() < DEADLINE / 2 {
            events.read_to_string(&mut text).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        text
    };
    let seen = std::thread::scope(|scope| {
        let reader = scope.spawn(|| Person::new(ADA).run(follow));
        while !reader.is_finished() {
            world.put("theirs", "canary-7f3a");
            world.put("mine-last", "v");
        }
        reader.join().unwrap()
    });
    assert!(seen.contains("mine-last"), "{seen:?}");
    assert!(!seen.contains("theirs") && !seen.contains("canary-7f3a"), "{seen}");
}

#[test]
fn health_can_be_polled() {
    let Some(world) = World::start() else { return };
    let mut health = File::open(world.path(".control/health")).unwrap();
    let mut word = String::new();
    health.read_to_string(&mut word).unwrap();
    assert_eq!(word, "ok\n");
    let ready = |timeout: u16| {
        let events = PollFlags::POLLIN | PollFlags::POLLPRI;
        let mut fds = [PollFd::new(health.as_fd(), events)];
        poll(&mut fds, PollTimeout::from(timeout)).unwrap() > 0
    };
    assert!(!ready(0), "nothing has changed");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| ready(20_000));
        world.control("seal", "\n").unwrap();
        assert!(waiting.join().unwrap());
    });
    assert_eq!(text(&world, "health"), "sealed\n");
}

#[test]
fn the_trash_shows_a_caller_only_what_it_may_know() {
    let policy = ADA_READS_MINE.replace("\"read\"", "\"read\", \"delete\", \"write\"");
    let Some(world) = World::with_policy(&policy) else { return };
    world.put("mine", "v");
    world.put("theirs", "canary-7f3a");
    world.sh_ok("rm mine theirs");
    let trash = world.path(".control/trash");
    let seen = Person::new(ADA).run(|| common::list(&trash)).unwrap();
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert!(seen[0].contains("mine"), "{seen:?}");
    assert_eq!(world.list(".control/trash").len(), 2);
    let to = world.path("mine-back");
    let from = trash.join(&seen[0]);
    let theirs =
        world.list(".control/trash").into_iter().find(|name| name.contains("theirs")).unwrap();
    let theirs = trash.join(theirs);
    let moved = Person::new(ADA).run(|| {
        let mv = |from: &std::path::Path| fs::rename(from, &to).map_err(|err| number(&err));
        (mv(&theirs).is_ok(), mv(&from))
    });
    assert_eq!(moved, (false, Ok(())));
    assert_eq!(world.get("mine-back").unwrap(), b"v");
}

#[test]
fn deleted_secrets_of_one_name_are_entries_of_which_each_keeps_its_name() {
    let Some(world) = World::start() else { return };
    for value in ["one", "two", "three"] {
        world.put("dir/name", value);
        world.sh_ok("rm dir/name");
    }
    let entries = world.list(".control/trash");
    assert_eq!(entries.len(), 3, "{entries:?}");
    // Whoever has listed them must not destroy another because one was restored meanwhile.
    let entry = |name: &str| world.path(&format!(".control/trash/{name}"));
    fs::rename(entry(&entries[0]), world.path("back")).unwrap();
    assert_eq!(world.list(".control/trash"), entries[1..]);
    fs::remove_file(entry(&entries[1])).unwrap();
    fs::rename(entry(&entries[2]), world.path("last")).unwrap();
    let values = [world.get("back").unwrap(), world.get("last").unwrap()];
    assert_ne!(values[0], values[1]);
}

#[test]
fn a_backup_that_is_read_is_encrypted_and_restores() {
    let Some(world) = World::start() else { return };
    world.put("name-in-backup", "canary-7f3a");
    let backup = world.get(".control/backup").unwrap();
    let holds = |bytes: &[u8]| backup.windows(bytes.len()).any(|window| window == bytes);
    assert!(backup.len() > 100 && !holds(b"canary-7f3a") && !holds(b"name-in-backup"));
    world.put("name-in-backup", "later");
    let written = write(&world.path(".control/restore"), &backup);
    assert_eq!(written, Ok(()));
    assert_eq!(world.get("name-in-backup").unwrap(), b"canary-7f3a");
    let mut damaged = backup;
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    assert!(write(&world.path(".control/restore"), &damaged).is_err());
    assert_eq!(world.get("name-in-backup").unwrap(), b"canary-7f3a");
}

#[test]
fn the_mount_is_nosuid_nodev_noexec_of_subtype_secretfs_and_says_nothing_in_statfs() {
    let Some(world) = World::start() else { return };
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line =
        table.lines().find(|line| line.contains(&format!(" {} ", world.mountpoint()))).unwrap();
    for option in ["nosuid", "nodev", "noexec", "allow_other", " fuse.secretfs "] {
        assert!(line.contains(option), "{option}: {line}");
    }
    assert!(!line.contains("default_permissions"), "{line}");
    world.put("script", "#!/bin/sh\necho ran\n");
    let ran = Command::new(world.path("script")).output();
    assert_eq!(ran.map_err(|err| number(&err)).err(), Some(libc::EACCES));
    let found = nix::sys::statfs::statfs(&world.path("")).unwrap();
    assert_eq!(
        (found.blocks(), found.blocks_free(), found.files(), found.files_free()),
        (0, 0, 0, 0)
    );
}

#[test]
fn crawlers_meet_each_secret_once() {
    let Some(world) = World::start() else { return };
    world.put("dir/name", "canary-7f3a");
    world.put("top", "canary-7f3a");
    assert_eq!(world.sh_ok("grep -rl canary-7f3a . | sort"), "./dir/name\n./top\n");
    let found = world.sh_ok("find . -type f -not -path './.control/*' | sort");
    assert_eq!(found, "./dir/name\n./top\n");
}

#[test]
fn ending_the_daemon_in_order_leaves_no_mount() {
    let Some(world) = World::start() else { return };
    world.put("name", "v");
    let pid = nix::unistd::Pid::from_raw(world.pid().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    let mounted =
        || fs::read_to_string("/proc/self/mountinfo").unwrap().contains(world.mountpoint());
    eventually("it is unmounted", || !mounted());
    // Nobody may write plaintext into what is left.
    assert!(write(&world.path("name"), b"canary-7f3a").is_err() || !world.path("name").exists());
}

#[test]
fn why_says_what_a_caller_may_do_and_not_whether_a_hidden_secret_exists() {
    let Some(world) = World::with_policy(ADA_READS_MINE) else { return };
    world.put("mine", "example-value");
    world.put("theirs", "canary-7f3a");
    let why = |name: &str| {
        let path = world.path(&format!("{name}@why"));
        let (text, size) = Person::new(ADA).run(|| {
            let size = fs::metadata(&path).map(|found| found.len()).unwrap_or_default();
            (read(&path).unwrap(), size)
        });
        assert_eq!(text.len() as u64, size, "{name}");
        String::from_utf8(text).unwrap()
    };
    let answer: Value = serde_json::from_str(&why("mine")).unwrap();
    let explained = Person::new(ADA).run(|| {
        let reply = control(&world.path(".control/explain"), "mine\n");
        reply.map(|reply| reply.to_string()).map_err(|err| err.errno)
    });
    assert_eq!(Ok(answer.to_string()), explained);
    assert!(answer.to_string().contains("ada: reader allow 1"), "{answer}");
    assert_eq!(why("theirs").replace("theirs", "absent"), why("absent"));
    assert!(!why("theirs").contains("ada: reader allow"), "no rule is about it");
    assert_eq!(world.audit_of("mine", "read", "allowed", ADA).len(), 0, "no value was read");
}

#[test]
fn env_and_json_show_what_the_caller_may_read_and_each_value_is_a_read_on_record() {
    let policy = ADA_READS_MINE.replace("\"mine\", \"mine-*\"", "\"app/mine\", \"app/mine-*\"");
    let Some(world) = World::with_policy(&policy) else { return };
    for (name, value) in [("mine", "it's"), ("mine-2", "two"), ("theirs", "canary-7f3a")] {
        world.put(&format!("app/{name}"), value);
    }
    let ada = Person::new(ADA);
    let script =
        format!(". '{}' && printf '%s %s' \"$MINE\" \"$MINE_2\"", world.path("app/@env").display());
    let output = ada.sh(&script);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "it's two", "{output:?}");
    let json = ada.run(|| read(&world.path("app/@json"))).unwrap();
    let json: Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(json, serde_json::json!({ "mine": "it's", "mine-2": "two" }));
    for name in ["app/mine", "app/mine-2"] {
        assert_eq!(world.audit_of(name, "read", "allowed", ADA).len(), 2, "{name}");
    }
    assert!(world.audit_of("app/theirs", "read", "allowed", ADA).is_empty());
    world.set_attribute("app/mine-2", "status", "revoked");
    for view in ["app/@env", "app/@json"] {
        let whole = ada.run(|| read(&world.path(view)));
        assert_eq!(
            whole,
            Err(libc::EKEYREVOKED),
            "{view}: one that cannot be read fails the whole"
        );
    }
}

#[test]
fn meta_is_for_whoever_has_any_level_and_is_no_read() {
    let policy = ADA_READS_MINE.replace("[\"read\"]", "[\"delete\"]");
    let Some(world) = World::with_policy(&policy) else { return };
    world.put("mine", "canary-7f3a");
    world.put("theirs", "canary-7f3a");
    let [mine, theirs] =
        ["mine@meta", "theirs@meta"].map(|view| Person::new(ADA).run(|| read(&world.path(view))));
    let text = String::from_utf8(mine.unwrap()).unwrap();
    assert!(text.contains("\"version\": 1") && !text.contains("canary"), "{text}");
    assert_eq!(theirs, Err(libc::EACCES));
    assert!(world.audit_of("mine", "read", "allowed", ADA).is_empty());
}
