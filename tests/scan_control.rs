//! `.control/scan`: files are read in the caller's place, and never one that the caller could not read.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test file: its helpers are tests too"
)]

mod common;
mod site;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Person, Refusal, World, bounded, control};
use serde_json::{Value, json};
use site::Site;

const ADA: u32 = 61_001;
const BEN: u32 = 61_002;
const TEAM: u32 = 61_100;

/// Ada and her group may read something; nobody else may.
const ADA_READS: &str = r#"
[[role]]
name = "reader"
allow = [{ names = ["mine"], levels = ["read"] }]
[[binding]]
id = "ada"
role = "reader"
uid = [61001]
"#;

/// A world with a directory of Ada's beside its mount.
fn world() -> Option<(World, PathBuf)> {
    let world = World::with_policy(ADA_READS)?;
    let files = world.outside("files");
    fs::create_dir(&files).unwrap();
    fs::set_permissions(&files, fs::Permissions::from_mode(0o755)).unwrap();
    chown(&files, Some(ADA), Some(ADA)).unwrap();
    Some((world, files))
}

/// Writes a file that has a secret in it, with a mode and an owner.
fn leak(path: &Path, mode: u32, owner: u32, group: u32) {
    let token = format!("ghp_{}{}", "x7Kq2mV9bTnR4wLz8YcP", "s5JdF3gH6aUe0Q");
    let key = format!("-----BEGIN {0} KEY-----\nMIIEpAIBAAKCAQEA\n", "RSA PRIVATE");
    let text = format!("password = \"q8W!zt5#Lp\"\ntoken = \"{token}\"\n{key}");
    common::write_file(path, text.as_bytes());
    chown(path, Some(owner), Some(group)).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Has a path scanned by whoever calls.
fn scan(world: &World, path: &Path) -> Result<Value, String> {
    scan_at(&world.path(".control/scan"), path)
}

fn scan_at(control_file: &Path, path: &Path) -> Result<Value, String> {
    control(control_file, &json!({ "path": path }).to_string())
        .map_err(|Refusal { errno, reply }| format!("{errno}: {reply}"))
}

fn scan_as(person: &Person, world: &World, path: &Path) -> Result<Value, String> {
    person.run(|| scan(world, path))
}

/// Returns the names of the files in which something was found.
fn found(report: &Value) -> Vec<String> {
    let findings = report["findings"].as_array().unwrap().iter();
    let name = |finding: &Value| {
        Path::new(finding["file"].as_str().unwrap()).file_name().unwrap().to_owned()
    };
    let mut names: Vec<String> =
        findings.map(|finding| name(finding).into_string().unwrap()).collect();
    names.sort();
    names.dedup();
    names
}

#[test]
fn the_reply_is_the_report_and_the_request_is_on_record() {
    let Some((world, files)) = world() else { return };
    leak(&files.join("a.env"), 0o600, ADA, ADA);
    let ada = Person::new(ADA);
    let script = format!(
        "exec 3<>{0}/.control/scan; echo {1} >&3; cat <&3",
        world.mountpoint(),
        files.display()
    );
    let output = ada.sh(&script);
    let report: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    assert_eq!(found(&report), ["a.env"]);
    assert_eq!(report["complete"], true, "{report}");
    assert!(!report.to_string().contains("q8W!zt5#Lp"), "{report}");
    let reason = format!("scan {}", files.display());
    let lines = world.audit();
    let line = lines.iter().find(|line| line["reason"] == reason.as_str()).unwrap();
    assert_eq!((&line["action"], &line["outcome"]), (&json!("control"), &json!("allowed")));
    assert_eq!(line["uid"], ADA);
}

#[test]
fn a_relative_path_begins_where_the_caller_stands() {
    let Some((world, files)) = world() else { return };
    leak(&files.join("a.env"), 0o600, ADA, ADA);
    let report = Person::new(ADA).run(|| {
        std::env::set_current_dir(&files).unwrap();
        scan(&world, Path::new("a.env"))
    });
    assert_eq!(found(&report.unwrap()), ["a.env"]);
}

#[test]
fn whom_the_policy_gives_nothing_is_refused_and_recorded() {
    let Some((world, files)) = world() else { return };
    let refused = scan_as(&Person::new(BEN), &world, &files).unwrap_err();
    assert!(refused.starts_with("13:"), "{refused}");
    assert!(world.audit().iter().any(|line| line["uid"] == BEN && line["outcome"] == "denied"));
}

#[test]
fn what_the_caller_cannot_read_is_not_read_for_it() {
    let Some((world, files)) = world() else { return };
    leak(&files.join("own"), 0o600, ADA, ADA);
    leak(&files.join("team"), 0o640, 0, TEAM);
    leak(&files.join("roots"), 0o600, 0, 0);
    fs::create_dir(files.join("closed")).unwrap();
    leak(&files.join("closed/open"), 0o644, ADA, ADA);
    fs::set_permissions(files.join("closed"), fs::Permissions::from_mode(0o700)).unwrap();
    symlink(files.join("roots"), files.join("link")).unwrap();

    let alone = scan_as(&Person::new(ADA), &world, &files).unwrap();
    assert_eq!(found(&alone), ["own"]);
    assert_eq!(alone["complete"], false);
    let with_team = scan_as(&Person::new(ADA).in_groups(&[TEAM]), &world, &files).unwrap();
    assert_eq!(found(&with_team), ["own", "team"]);
    for path in ["roots", "link", "closed/open", "closed"] {
        let report = scan_as(&Person::new(ADA), &world, &files.join(path)).unwrap();
        assert_eq!(
            (report["open"].as_u64(), &report["complete"]),
            (Some(0), &json!(false)),
            "{path}"
        );
    }
    // Root is asked for its ids, too, and not for what it may beyond them.
    let roots = scan(&world, &files).unwrap();
    assert_eq!(found(&roots), ["open", "roots", "team"]);
}

#[test]
fn a_path_that_is_swapped_while_it_is_read_leads_nowhere_else() {
    let Some((world, files)) = world() else { return };
    fs::create_dir(files.join("theirs")).unwrap();
    leak(&files.join("theirs/secret"), 0o600, 0, 0);
    fs::create_dir(files.join("real")).unwrap();
    common::write_file(&files.join("real/secret"), b"nothing\n");
    symlink("real", files.join("way")).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0_u32.. {
                if done.load(Ordering::Relaxed) {
                    return;
                }
                let next = files.join("next");
                symlink(if n % 2 == 0 { "theirs" } else { "real" }, &next).unwrap();
                fs::rename(&next, files.join("way")).unwrap();
            }
        });
        for _ in 0..5 {
            let report = scan_as(&Person::new(ADA), &world, &files.join("way")).unwrap();
            assert_eq!(report["open"], 0, "{report}");
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn the_processes_that_serve_it_give_nothing_away() {
    let Some((world, _)) = world() else { return };
    world.put("mine", "v");
    let server = format!("/proc/{}", world.pid());
    let own = ["fd", "mem", "environ", "maps", "exe", "root", "task"]
        .map(|file| format!("/proc/self/{file}"));
    for path in own.iter().map(String::as_str).chain([
        server.as_str(),
        "/proc/thread-self/fd/3",
        "/sys/kernel",
    ]) {
        let report = scan_as(&Person::new(ADA), &world, Path::new(path)).unwrap();
        // The kernel's files are not there for it.
        assert_eq!(
            (&report["open"], &report["totals"]["files"]),
            (&json!(0), &json!(0)),
            "{path} {report}"
        );
        assert_eq!(report["complete"], false, "{path}");
    }
    assert_eq!(world.get("mine").unwrap(), b"v");
}

/// Runs a script as Ada in a mount namespace of its own, in which root has run another one first.
fn in_own_view(world: &World, before: &str, path: &Path) -> Value {
    let ada = format!("setpriv --reuid={ADA} --regid={ADA} --clear-groups sh -c \"$1\"");
    let script = format!("{before} && exec {ada}");
    let asks = format!(
        "exec 3<>{}/.control/scan; printf %s '{}' >&3; cat <&3",
        world.mountpoint(),
        json!({ "path": path })
    );
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh", &asks]);
    let output = bounded(&mut command);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

#[test]
fn the_caller_s_own_mounts_and_root_are_what_it_sees() {
    let Some((world, files)) = world() else { return };
    for name in ["here", "there"] {
        fs::create_dir(files.join(name)).unwrap();
        leak(&files.join(name).join(name), 0o644, ADA, ADA);
    }
    let (here, there) = (files.join("here"), files.join("there"));
    let bind = format!("mount --bind {} {}", there.display(), here.display());
    assert_eq!(found(&in_own_view(&world, &bind, &here)), ["there"]);
    assert_eq!(found(&scan_as(&Person::new(ADA), &world, &here).unwrap()), ["here"]);
    let cover = format!("mount -t tmpfs none {}", here.display());
    assert_eq!(found(&in_own_view(&world, &cover, &here)), [""; 0]);
    // Nothing of what is done in its copy of a view is seen outside.
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(mounts.contains(world.mountpoint()) && mounts.contains(" /proc "), "{mounts}");

    // Behind another root, the same path is another file.
    let script = format!(
        "mkdir -p {0}/jail/secrets {0}/jail/bin && for d in bin lib lib64 usr; do test ! -e /$d || \
         {{ mkdir -p {0}/jail/$d; mount --bind /$d {0}/jail/$d; }}; done; \
         mount --bind {1} {0}/jail/secrets; cp {0}/there/there {0}/jail/file; chmod 644 {0}/jail/file; \
         exec chroot --userspec={ADA}:{ADA} --groups= {0}/jail sh -c 'exec 3<>/secrets/.control/scan; \
         echo /file >&3; cat <&3'",
        files.display(),
        world.mountpoint()
    );
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", &script]);
    let output = bounded(&mut command);
    let report: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    assert_eq!(found(&report), ["file"]);
}

#[test]
fn a_mount_of_secrets_is_not_read_on_the_caller_s_behalf() {
    let Some((world, files)) = world() else { return };
    world.put("mine", "q8W!zt5#Lp-and-more");
    fs::create_dir(files.join("bound")).unwrap();
    let bind = format!("mount --bind {} {}", world.mountpoint(), files.join("bound").display());
    in_own_view(&world, &bind, &files);
    in_own_view(&world, &bind, &files.join("bound/mine"));
    scan_as(&Person::new(ADA), &world, &world.path("mine")).unwrap();
    assert_eq!(world.audit_of("mine", "read", "allowed", ADA), [Value::Null; 0]);
}

#[test]
fn a_caller_with_two_users_rights_or_fewer_than_its_ids_is_refused() {
    let Some((world, files)) = world() else { return };
    leak(&files.join("own"), 0o600, ADA, ADA);
    let path = world.path(".control/scan");
    let refused = Person::new(0).run(|| {
        let (ada, root) = (nix::unistd::Uid::from_raw(ADA), nix::unistd::Uid::from_raw(0));
        nix::unistd::setresuid(ada, root, root).unwrap();
        scan_at(&path, &files)
    });
    assert!(
        refused.as_ref().is_err_and(|why| why.contains("13:") && why.contains("ids")),
        "{refused:?}"
    );
    let refused = Person::new(ADA).run(|| {
        nix::sys::prctl::set_no_new_privs().unwrap();
        scan_at(&path, &files)
    });
    assert!(refused.as_ref().is_err_and(|why| why.contains("no_new_privs")), "{refused:?}");
    // A program of more rights that is made to write into what it was handed.
    let handed = fs::File::options().read(true).write(true).open(&path).unwrap();
    let written = Person::new(ADA).run(|| {
        std::io::Write::write(&mut &handed, files.to_str().unwrap().as_bytes())
            .map_err(|error| error.raw_os_error())
    });
    assert_eq!(written, Err(Some(libc::EACCES)));
    let failures: Vec<Value> =
        world.audit().into_iter().filter(|line| line["outcome"] == "failed").collect();
    assert_eq!(failures.len(), 2, "{failures:?}");
}

/// Returns the processes of a user that scan in its place.
fn scanning(uid: u32) -> Vec<nix::unistd::Pid> {
    let entries = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let entry = entry.ok()?;
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let command = fs::read_to_string(entry.path().join("cmdline")).ok()?;
        let status = fs::read_to_string(entry.path().join("status")).ok()?;
        let is_theirs = status.contains(&format!("Uid:\t{uid}\t"));
        (is_theirs && command.contains("--search")).then(|| nix::unistd::Pid::from_raw(pid))
    });
    entries.collect()
}

#[test]
fn a_scan_that_hangs_is_ended_and_the_next_one_begins() {
    // Nobody else's, so that its processes can be told.
    const CYD: u32 = 61_077;
    let policy = ADA_READS.replace("61001", "61077");
    let Some(world) = World::with_policy(&policy) else { return };
    let path = world.path(".control/scan");
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| Person::new(CYD).run(|| scan_at(&path, Path::new("/usr"))));
        common::eventually("it is scanned", || {
            let found = scanning(CYD);
            let stop = nix::sys::signal::Signal::SIGSTOP;
            found.iter().any(|pid| nix::sys::signal::kill(*pid, stop).is_ok())
        });
        let refused = asked.join().unwrap().unwrap_err();
        assert!(refused.starts_with(&format!("{}:", libc::ETIMEDOUT)), "{refused}");
    });
    common::eventually("it is gone", || scanning(CYD).is_empty());
    let empty = world.outside("empty");
    fs::create_dir(&empty).unwrap();
    fs::set_permissions(&empty, fs::Permissions::from_mode(0o755)).unwrap();
    let mut last = Err(String::new());
    common::eventually("the next one begins", || {
        last = scan_as(&Person::new(CYD), &world, &empty);
        last.is_ok()
    });
    assert_eq!(last.unwrap()["complete"], true);
}

/// Somebody whom the system knows by name, which mounting without root asks for.
fn nobody() -> Person {
    let user = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    Person { gid: user.gid.as_raw(), ..Person::new(user.uid.as_raw()) }
}

#[test]
fn a_daemon_without_rights_acts_for_its_own_user_and_for_nobody_else() {
    let Some(mut site) = Site::of(nobody()) else { return };
    site.init();
    site.serve();
    let files = site.path("files");
    fs::create_dir(&files).unwrap();
    leak(&files.join("own"), 0o600, nobody().uid, nobody().gid);
    leak(&files.join("roots"), 0o600, 0, 0);
    let path = site.secret(".control/scan");
    let report = nobody().run(|| scan_at(&path, &files)).unwrap();
    assert_eq!(found(&report), ["own"]);
    let refused = nobody().in_groups(&[TEAM]).run(|| scan_at(&path, &files)).unwrap_err();
    assert!(refused.starts_with("13:") && refused.contains("not root"), "{refused}");
}
