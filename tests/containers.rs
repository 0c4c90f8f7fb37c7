//! Secrets in containers, with real runtimes: binds follow rotation, and the policy sees who it is on
//! the host (THREATS A4, A5).
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::indexing_slicing,
    reason = "a test file: its helpers are tests too"
)]

mod common;
mod container;
mod site;

use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use common::{Person, World, bounded, read};
use container::{CGROUP_PARENT, Engine, ROOTLESS, Yard};
use site::Site;

/// Whoever may read what is below `app`: users of the host, of whom some are root in a namespace.
const APP: &str = r#"
[[role]]
name = "app"
allow = [{ names = ["app/**"], levels = ["read"] }]

[[binding]]
id = "app"
role = "app"
uid = [61001, 61009, 300000, 361001]
"#;

const MAPPED: [&str; 2] = ["--uidmap=0:300000:65536", "--gidmap=0:300000:65536"];
const DENIED: &str = "Permission denied";

/// A mount with secrets below `app`, and one beside it that root alone may read.
fn world() -> Option<World> {
    let world = World::with_policy(APP)?;
    world.put("app/db", "first");
    world.put("app/token", "first");
    world.put("hidden/key", "canary-7f3a");
    Some(world)
}

/// Runs `secretfs container-args` and returns its document.
fn container_args(world: &World, engine: Engine, args: &[&str]) -> Value {
    let mut command = world.secretfs();
    let output = bounded(command.args(["--json", "container-args", engine.flag()]).args(args));
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Returns the lines about reads of a secret by that uid.
fn reads(world: &World, name: &str, outcome: &str, uid: u32) -> Vec<Value> {
    world.audit_of(name, "read", outcome, uid)
}

/// Returns the lines that say no to that uid about a secret, whatever it had asked for.
fn refusals(world: &World, name: &str, uid: u32) -> Vec<Value> {
    let fits =
        |line: &Value| line["secret"] == name && line["outcome"] == "denied" && line["uid"] == uid;
    world.audit().into_iter().filter(fits).collect()
}

/// A directory and a single file, bound into a container, show each version as soon as it is made.
fn follows_rotation(engine: Engine, more: &[&str], uid: u32) -> Option<World> {
    let world = world()?;
    let yard = Yard::make(engine, world.outside("yard"))?;
    let said = [
        container_args(&world, engine, &["--path=app/"]),
        container_args(&world, engine, &["--path=app/token", "--target=/run/single"]),
    ];
    let mut inside = yard.start(&said, more);
    assert_eq!(inside.sh("ls /run/secrets"), "db\ntoken\n");
    let mut both = |expected: &str| {
        for path in ["/run/secrets/db", "/run/secrets/token", "/run/single/token"] {
            assert_eq!(inside.cat(path), expected, "{path}");
        }
    };
    both("first");
    for name in ["app/db", "app/token"] {
        world.put(name, "the second version");
    }
    both("the second version");
    world.sh_ok("cd app; for name in db token; do printf third > .new; mv .new $name; done");
    both("third");
    world.sh_ok("cd app; rm db token; printf fourth > db; printf fourth > token");
    both("fourth");
    let refused =
        inside.sh("echo x > /run/secrets/db; echo x > /run/single/token; touch /run/secrets/new");
    assert_eq!(refused.matches("Read-only file system").count(), 3, "{refused}");
    assert!(!reads(&world, "app/token", "allowed", uid).is_empty(), "{:?}", world.audit());
    drop(inside);
    drop(yard);
    Some(world)
}

/// Returns the containers that the log has with the reads of a uid, each once.
fn containers(world: &World, uid: u32) -> Vec<Value> {
    let mut found: Vec<Value> = reads(world, "app/db", "allowed", uid)
        .iter()
        .map(|line| line["container"].clone())
        .collect();
    found.dedup();
    found
}

#[test]
fn binds_follow_rotation_in_podman_with_runc_and_the_container_is_recorded() {
    let Some(world) = follows_rotation(Engine::PodmanRunc, &["--user=61001"], 61_001) else {
        return;
    };
    let found = containers(&world, 61_001);
    let id = found[0].as_str().and_then(|name| name.strip_prefix("podman:"));
    assert!(found.len() == 1 && id.is_some_and(|id| id.len() == 64), "{found:?}");
}

#[test]
fn binds_follow_rotation_in_podman_with_crun_and_without_a_cgroup_no_container_is_recorded() {
    let Some(world) = follows_rotation(Engine::PodmanCrun, &["--user=61001"], 61_001) else {
        return;
    };
    assert_eq!(containers(&world, 61_001), [Value::Null]);
}

#[test]
fn binds_follow_rotation_in_a_user_namespace() {
    drop(follows_rotation(Engine::PodmanRunc, &MAPPED, 300_000));
}

#[test]
fn binds_follow_rotation_in_a_container_of_an_ordinary_user() {
    let Some(world) = follows_rotation(Engine::Rootless, &[], ROOTLESS) else { return };
    assert_eq!(containers(&world, ROOTLESS), [Value::Null]);
}

#[test]
fn binds_follow_rotation_in_runc_alone() {
    drop(follows_rotation(Engine::Runc, &[], 0));
}

#[test]
fn binds_follow_rotation_in_crun_alone() {
    drop(follows_rotation(Engine::Crun, &[], 0));
}

#[test]
fn binds_follow_rotation_in_bwrap() {
    drop(follows_rotation(Engine::Bwrap, &[], 0));
}

#[test]
fn in_a_user_namespace_the_host_s_uid_counts_and_root_there_is_nobody_special() {
    let Some(world) = world() else { return };
    let Some(yard) = Yard::make(Engine::PodmanRunc, world.outside("yard")) else { return };
    let said = [container_args(&world, Engine::PodmanRunc, &[])];
    let mut root = yard.start(&said, &MAPPED);
    assert_eq!(root.sh("id -u"), "0\n");
    assert_eq!(root.cat("/run/secrets/app/db"), "first");
    assert!(root.cat("/run/secrets/hidden/key").contains(DENIED));
    assert_eq!(root.sh("ls /run/secrets"), "app\n");
    let mut stranger = yard.start(&said, &[&MAPPED[..], &["--user=61002"]].concat());
    assert!(stranger.cat("/run/secrets/app/db").contains(DENIED));
    assert_eq!(reads(&world, "app/db", "allowed", 300_000).len(), 1);
    assert!(refusals(&world, "hidden", 300_000)[0]["container"].is_string());
    assert!(!refusals(&world, "app", 361_002).is_empty());
    assert!(reads(&world, "hidden/key", "allowed", 0).is_empty());
}

#[test]
fn a_refused_user_of_a_container_gets_eacces_and_a_line_with_its_uid_on_the_host() {
    let Some(world) = world() else { return };
    let Some(yard) = Yard::make(Engine::PodmanRunc, world.outside("yard")) else { return };
    let said = [container_args(&world, Engine::PodmanRunc, &["--path=app"])];
    let mut inside = yard.start(&said, &["--user=61002"]);
    assert!(inside.cat("/run/secrets/db").contains(DENIED));
    assert!(inside.sh("ls /run/secrets").contains(DENIED));
    let lines = refusals(&world, "app/db", 61_002);
    assert!(lines[0]["container"].as_str().unwrap().starts_with("podman:"), "{lines:?}");
    assert_eq!((&lines[0]["gid"], &lines[0]["exe"]), (&0.into(), &"/bin/busybox".into()));
}

#[test]
fn a_container_is_bound_by_the_id_that_its_runtime_gave_it() {
    let Some(world) = world() else { return };
    let Some(yard) = Yard::make(Engine::PodmanRunc, world.outside("yard")) else { return };
    let said = [container_args(&world, Engine::PodmanRunc, &["--path=app"])];
    let file = world.outside("id");
    let mut bound = yard.start(&said, &["--user=61003", "--cidfile", file.to_str().unwrap()]);
    let mut other =
        yard.start(&said, &["--user=61003", &format!("--cgroup-parent=/{CGROUP_PARENT}")]);
    assert!(bound.cat("/run/secrets/db").contains(DENIED));
    let id = std::fs::read_to_string(&file).unwrap();
    let binding = format!("[[binding]]\nrole = \"app\"\ncontainer = \"podman:{}\"\n", &id[..12]);
    world.set_policy(&format!("{APP}{binding}"));
    world.control("reload", "\n").unwrap();
    assert_eq!(bound.cat("/run/secrets/db"), "first");
    assert!(other.cat("/run/secrets/db").contains(DENIED));
    assert_eq!(Person::new(61_003).run(|| read(&world.path("app/db"))), Err(libc::EACCES));
    let refused = refusals(&world, "app/db", 61_003);
    let names = refused.iter().filter_map(|line| line["container"].as_str());
    assert!(names.clone().any(|name| name != format!("podman:{id}")), "{refused:?}");
}

#[test]
fn a_container_in_the_cgroup_of_its_service_is_known_beside_the_unit() {
    let Some(world) = world() else { return };
    let Some(yard) = Yard::make(Engine::PodmanCrun, world.outside("yard")) else { return };
    let unit = format!("secretfs-test-{}q.service", std::process::id());
    let said = [container_args(&world, Engine::PodmanCrun, &["--path=app"])];
    // As Quadlet has it. Privileged, because crun may not load a filter of devices here.
    let split = ["--user=61001", "--cgroups=split", "--privileged", "--pids-limit=-1"];
    let mut inside = yard.start_in_service(&unit, &said, &split);
    assert_eq!(inside.cat("/run/secrets/db"), "first");
    let line = &reads(&world, "app/db", "allowed", 61_001)[0];
    assert_eq!(line["unit"], format!("system.slice/{unit}"), "{line}");
    assert!(line["container"].as_str().is_some_and(|name| name.starts_with("podman:")), "{line}");
}

#[test]
fn two_places_of_one_name_and_a_place_that_is_not_there_are_refused() {
    let Some(world) = world() else { return };
    world.put("other/db", "example-value");
    let run = |args: &[&str]| bounded(world.secretfs().arg("container-args").args(args));
    for (args, code) in [
        (&["--path=app/db", "--path=other/db"][..], 12),
        (&["--path=app/nothing"], 3),
        (&["--target=secrets"], 12),
        (&["--across-remounts"], 12),
        (&["--docker", "--podman"], 2),
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{args:?}: {output:?}");
    }
}

#[test]
fn an_unmount_leaves_a_container_its_secrets_and_says_so() {
    let Some(world) = world() else { return };
    let Some(yard) = Yard::make(Engine::Bwrap, world.outside("yard")) else { return };
    if std::fs::read_dir("/sys/fs/fuse/connections").unwrap().next().is_none() {
        return common::skip("no fusectl here");
    }
    let said = [container_args(&world, Engine::Bwrap, &["--path=app"])];
    let mut inside = yard.start(&said, &[]);
    assert_eq!(inside.cat("/run/secrets/db"), "first");
    let output = bounded(world.secretfs().args(["umount", world.mountpoint()]));
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("still used"), "{output:?}");
    assert_eq!(inside.cat("/run/secrets/db"), "first");
}

/// Ends a daemon in the background as an administrator would.
fn end(pid: u32) {
    let pid = Pid::from_raw(pid.cast_signed());
    kill(pid, Signal::SIGTERM).unwrap();
    common::eventually("the daemon ends", || kill(pid, None).is_err());
}

#[test]
fn a_container_that_was_given_the_directory_of_a_mountpoint_sees_a_later_mount() {
    let Some(site) = Site::new() else { return };
    let Some(yard) = Yard::make(Engine::PodmanRunc, site.path("yard")) else { return };
    // A name that has to be quoted for CSV and for a shell.
    let shared = site.path("it's,shared");
    std::fs::create_dir(&shared).unwrap();
    let prepare = "mount --bind \"$0\" \"$0\" && mount --make-shared \"$0\"";
    let prepared = Command::new("sh").args(["-c", prepare]).arg(&shared).status().unwrap();
    assert!(prepared.success());
    let mount = shared.join("secrets");
    let mount = mount.to_str().unwrap();
    site.ok(&["up", mount]);
    common::write_file(&shared.join("secrets/db"), b"first");
    let args = ["--mount", mount, "--json", "container-args"];
    let said: Vec<Value> = [&["--across-remounts"][..], &["--target=/run/single"]]
        .iter()
        .map(|more| serde_json::from_str(&site.ok(&[&args[..], more].concat())).unwrap())
        .collect();
    let mut inside = yard.start(&said, &[]);
    assert_eq!(inside.cat("/run/secrets/secrets/db"), "first");
    assert_eq!(inside.cat("/run/single/db"), "first");
    end(site.pid());
    site.ok(&["mount", mount]);
    assert_eq!(inside.cat("/run/secrets/secrets/db"), "first");
    let dead = inside.cat("/run/single/db");
    assert!(!dead.contains("first"), "a bind of the mount itself is of the old one: {dead}");
    drop(inside);
}
