//! Who learns names from the kernel, in both modes of `names`, with real users and watches of inotify(7).
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::indexing_slicing,
    reason = "a test file: its helpers are tests too"
)]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use common::{Person, ROOT_IS_ADMIN, Tried, World, list, read, write};

const ADA: u32 = 61_001;
const BOB: u32 = 61_002;

/// Ada may read and write everything, Bob what is his.
const POLICY: &str = r#"
[[role]]
name = "all"
allow = [{ names = ["**"], levels = ["read", "write", "delete"] }]
[[role]]
name = "bobs"
allow = [{ names = ["bob/*"], levels = ["read"] }]
[[binding]]
id = "ada"
role = "all"
uid = [61001]
[[binding]]
id = "bob"
role = "bobs"
uid = [61002]
"#;

fn world(config: &str) -> Option<World> {
    let world = World::with(&format!("{ROOT_IS_ADMIN}\n{POLICY}"), config)?;
    world.put("prod/key", "example-value");
    world.put("bob/own", "example-value");
    Some(world)
}

fn hidden() -> Option<World> {
    world("names = \"hidden\"\n")
}

/// What somebody is told who wants to watch these paths.
fn watches(world: &World, uid: u32, paths: &[&str]) -> Vec<Tried<()>> {
    let watch = |path: &&str| common::syscall::watch(&world.path(path)).map(drop);
    Person::new(uid).run(|| paths.iter().map(watch).collect())
}

/// The names in the events that wait.
fn names(inotify: &OwnedFd) -> Vec<String> {
    let mut buffer = [0; 65_536];
    let read = nix::unistd::read(inotify, &mut buffer).unwrap_or(0);
    let text = String::from_utf8_lossy(&buffer[..read]).into_owned();
    let words = text.split(|c: char| !c.is_ascii_alphanumeric());
    words.filter(|word| word.len() > 2).map(str::to_owned).collect()
}

#[test]
fn in_the_hidden_mode_nobody_but_the_mount_s_owner_can_watch_or_list_any_directory() {
    let Some(world) = hidden() else { return };
    let directories = ["", "prod", "bob", ".control", ".control/trash", ".by", ".by/type"];
    // Ada may do everything with every secret, and the kernel still tells her nothing of others'.
    for uid in [ADA, BOB] {
        let refused = watches(&world, uid, &directories);
        assert_eq!(refused, [Err(libc::EACCES); 7], "{uid}");
        let listed = Person::new(uid).run(|| list(&world.path("")));
        assert_eq!(listed, Err(libc::EACCES), "{uid}");
    }
    assert_eq!(world.list("prod"), ["key"]);
    common::syscall::watch(&world.path("")).unwrap();
}

#[test]
fn in_the_own_mode_the_root_directory_can_be_watched_and_one_without_any_right_cannot() {
    let Some(world) = world("") else { return };
    assert_eq!(watches(&world, BOB, &["prod", "prod/key"]), [Err(libc::EACCES); 2]);
    assert_eq!(watches(&world, BOB, &["", "bob"]), [Ok(()); 2]);
    // What THREATS says of this mode: the root directory tells of what others open in it, by name.
    world.put("canary", "example-value");
    let (mut watching, mut watched) = std::io::pipe().unwrap();
    let (mut opening, mut opened) = std::io::pipe().unwrap();
    let seen = std::thread::scope(|scope| {
        let root = world.path("");
        let seen = scope.spawn(move || {
            Person::new(BOB).run(|| {
                let inotify = common::syscall::watch(&root).unwrap();
                watched.write_all(b".").unwrap();
                opening.read_exact(&mut [0]).unwrap();
                names(&inotify)
            })
        });
        watching.read_exact(&mut [0]).unwrap();
        world.get("canary").unwrap();
        opened.write_all(b".").unwrap();
        seen.join().unwrap()
    });
    assert!(seen.contains(&"canary".into()), "{seen:?}");
}

#[test]
fn in_the_hidden_mode_a_secret_is_shown_alike_to_all_and_is_the_daemon_s_unless_pinned() {
    let Some(world) = hidden() else { return };
    let shown = |uid| {
        let path = world.path("prod/key");
        Person::new(uid).run(|| {
            let found = fs::metadata(&path).unwrap();
            (found.uid(), found.gid(), found.mode() & 0o7777)
        })
    };
    assert_eq!([shown(0), shown(ADA)], [(0, 0, 0o600); 2]);
    world.set_attribute("prod/key", "owner", "61001");
    world.set_attribute("prod/key", "group", "61002");
    world.set_attribute("prod/key", "mode", "0640");
    assert_eq!([shown(0), shown(ADA)], [(ADA, BOB, 0o640); 2]);
    let directory = fs::metadata(world.path("prod")).unwrap();
    assert_eq!((directory.uid(), directory.mode() & 0o7777), (0, 0o711));
}

#[test]
fn in_the_hidden_mode_the_kernel_and_the_policy_must_both_allow() {
    let Some(world) = hidden() else { return };
    let (key, own) = (world.path("prod/key"), world.path("bob/own"));
    let reads = |uid, path: &Path| Person::new(uid).run(|| read(path).map(drop));
    // The policy allows and the owner is the daemon.
    assert_eq!(reads(ADA, &key), Err(libc::EACCES));
    assert_eq!(reads(BOB, &own), Err(libc::EACCES));
    // Owner and policy agree.
    world.set_attribute("prod/key", "owner", "61001");
    world.set_attribute("bob/own", "owner", "61002");
    assert_eq!([reads(ADA, &key), reads(BOB, &own)], [Ok(()); 2]);
    assert_eq!(reads(ADA, &world.path("prod/key@1")), Ok(()));
    assert_eq!(reads(ADA, &own), Err(libc::EACCES));
    // The owner without a rule, and root without one, get nothing by owning or by their capabilities.
    world.set_attribute("prod/key", "owner", "61002");
    world.set_attribute("prod/key", "mode", "0666");
    assert_eq!(reads(BOB, &key), Err(libc::EACCES));
    let refused = world.audit_of("prod/key", "read", "denied", BOB);
    assert!(refused.is_empty(), "looking it up was refused already: {refused:?}");
    // A group will do.
    world.set_attribute("prod/key", "owner", "0");
    world.set_attribute("prod/key", "group", "61007");
    world.set_attribute("prod/key", "mode", "0660");
    let member = Person::new(ADA).in_groups(&[61_007]);
    assert_eq!(member.run(|| read(&key).map(drop)), Ok(()));
    assert_eq!(member.run(|| write(&key, b"another")), Ok(()));
    assert_eq!(world.version("prod/key"), 2);
}

#[test]
fn in_the_hidden_mode_only_the_mount_s_owner_makes_and_removes_names() {
    let Some(world) = hidden() else { return };
    let (new, key) = (world.path("prod/new"), world.path("prod/key"));
    let tried = Person::new(ADA).run(|| {
        let remove = fs::remove_file(&key).map_err(|err| common::number(&err));
        let rename = fs::rename(&key, &new).map_err(|err| common::number(&err));
        [write(&new, b"v"), remove, rename]
    });
    assert_eq!(tried, [Err(libc::EACCES); 3]);
    world.put("prod/new", "v");
    fs::rename(world.path("prod/new"), world.path("prod/newer")).unwrap();
    fs::remove_file(world.path("prod/newer")).unwrap();
    world.sh_ok(
        "cd prod && sed -i s/example/another/ key && rm key && mv ../.control/trash/prod:key key",
    );
    assert_eq!(world.get("prod/key").unwrap(), b"another-value");
}

#[test]
fn in_the_hidden_mode_control_files_are_within_everybody_s_reach_by_name() {
    let Some(world) = hidden() else { return };
    let bob = Person::new(BOB);
    let whoami = world.path(".control/whoami");
    let text = String::from_utf8(bob.run(|| read(&whoami)).unwrap()).unwrap();
    assert!(text.contains("uid: 61002"), "{text}");
    let status = String::from_utf8(world.get(".control/status").unwrap()).unwrap();
    assert!(status.lines().any(|line| line == "names: hidden"), "{status}");
    let backup = world.path(".control/backup");
    assert_eq!(bob.run(|| read(&backup)), Err(libc::EACCES));
    // The command line takes the way by names too.
    world.set_attribute("bob/own", "owner", "61002");
    let binary = env!("CARGO_BIN_EXE_secretfs");
    let got = bob.sh(&format!("{binary} --mount {} get bob/own", world.mountpoint()));
    assert_eq!(got.stdout, b"example-value", "{got:?}");
}

#[test]
fn in_the_hidden_mode_users_at_once_never_get_each_other_s_permissions() {
    let Some(world) = hidden() else { return };
    world.set_attribute("bob/own", "owner", "61002");
    let count =
        if std::env::var_os("SECRETFS_CAMPAIGN").is_some_and(|c| c == "full") { 2000 } else { 40 };
    let path = world.path("bob/own");
    std::thread::scope(|scope| {
        for (uid, expected) in [(BOB, Ok(())), (ADA, Err(libc::EACCES)), (0, Ok(()))] {
            let path = &path;
            scope.spawn(move || {
                for _ in 0..count {
                    assert_eq!(Person::new(uid).run(|| read(path).map(drop)), expected, "{uid}");
                }
            });
        }
    });
}
