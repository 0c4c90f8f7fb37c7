//! Scratch names and the editors that use them (DECISIONS 8): they hold data, and never become secrets.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test file: its helpers are tests too"
)]

mod common;

use std::fs;
use std::process::Command;

use common::{Person, World, inode, number, read, write};

const ADA: u32 = 61_001;
const BOB: u32 = 61_002;

#[test]
fn scratch_names_hold_data_for_their_creator_and_never_become_secrets() {
    let policy = r#"
[[role]]
name = "writer"
allow = [{ names = ["*"], levels = ["read", "write", "delete"] }]
[[binding]]
role = "writer"
uid = [61001, 61002]
"#;
    let Some(mut world) = World::with_policy(policy) else { return };
    let names = [".name.swp", ".name.swx", "4913", "name~", "sedAb3xY9", "#name#", "x.tmp", ".x"];
    for name in names {
        let path = world.path(name);
        let mine = Person::new(ADA).run(|| write(&path, b"canary-7f3a").and_then(|()| read(&path)));
        assert_eq!(mine.as_deref(), Ok(&b"canary-7f3a"[..]), "{name}");
        for other in [Person::new(BOB), Person::new(0)] {
            let theirs = other.run(|| read(&path));
            assert!(matches!(theirs, Err(libc::ENOENT | libc::EACCES)), "{name}: {theirs:?}");
            let listed = other.run(|| common::list(path.parent().unwrap())).unwrap();
            assert!(!listed.contains(&name.to_owned()), "{name} in {listed:?}");
        }
        assert!(Person::new(ADA).run(|| fs::metadata(&path).is_ok()), "{name}");
    }
    let status = String::from_utf8(world.get(".control/status").unwrap()).unwrap();
    assert!(status.contains("secrets: 0\n"), "{status}");
    world.kill_and_restart();
    for name in names {
        let path = world.path(name);
        assert_eq!(Person::new(ADA).run(|| read(&path)), Err(libc::ENOENT), "{name}");
    }
}

#[test]
fn a_scratch_file_can_be_removed_renamed_and_written_again() {
    let Some(world) = World::start() else { return };
    world.sh_ok(
        "echo 1 > .a.tmp && echo 2 > .a.tmp && mv .a.tmp .b.tmp && grep -qx 2 .b.tmp && rm .b.tmp",
    );
    assert_eq!(world.get(".a.tmp"), Err(libc::ENOENT));
    assert_eq!(world.get(".b.tmp"), Err(libc::ENOENT));
    assert!(world.list(".control/trash").is_empty());
}

#[test]
fn a_scratch_file_renamed_onto_a_free_name_becomes_a_secret() {
    let Some(world) = World::start() else { return };
    world.sh_ok("printf %s v > .name.tmp && mv .name.tmp name");
    assert_eq!(world.get("name").unwrap(), b"v");
    assert_eq!(world.version("name"), 1);
}

#[test]
fn renaming_a_scratch_file_over_a_secret_needs_write_on_it() {
    let policy = r#"
[[role]]
name = "writer"
allow = [{ names = ["mine"], levels = ["read", "write"] }, { names = ["theirs"], levels = ["read"] }]
[[binding]]
role = "writer"
uid = [61001]
"#;
    let Some(world) = World::with_policy(policy) else { return };
    world.put("mine", "old");
    world.put("theirs", "old");
    let over = |name: &str| {
        let (scratch, target) = (world.path(".x.tmp"), world.path(name));
        Person::new(ADA).run(|| {
            write(&scratch, b"new")?;
            fs::rename(&scratch, &target).map_err(|err| number(&err))
        })
    };
    assert_eq!(over("theirs"), Err(libc::EACCES));
    assert_eq!(over("mine"), Ok(()));
    assert_eq!(world.get("theirs").unwrap(), b"old");
    assert_eq!(world.get("mine").unwrap(), b"new");
}

#[test]
fn sed_in_place_makes_a_version_and_leaves_nothing_behind() {
    let Some(world) = World::start() else { return };
    world.put("name", "old value\n");
    let before = inode(&world.path("name"));
    world.sh_ok("sed -i s/old/new/ name");
    assert_eq!(world.get("name").unwrap(), b"new value\n");
    assert_eq!(world.version("name"), 2);
    assert_eq!(inode(&world.path("name")), before);
    assert_eq!(world.sh_ok("ls -A | grep -v '^[.]'"), "name\n");
}

#[test]
fn vim_makes_a_version_and_leaves_nothing_behind() {
    let Some(world) = World::start() else { return };
    if Command::new("vim").arg("--version").output().is_err() {
        return common::skip("no vim here");
    }
    for (version, options) in
        (2..).zip(["", "set backup", "set backupcopy=yes", "set nowritebackup"])
    {
        world.put("name", "old value\n");
        let start = world.version("name");
        let script =
            format!("vim -N -u NONE -i NONE -es -c '{options}' -c '%s/old/new/' -c 'x' name");
        world.sh_ok(&script.replace("-c '' ", ""));
        assert_eq!(world.get("name").unwrap(), b"new value\n", "{options}");
        assert_eq!(world.version("name"), start + 1, "{options} ({version})");
        drop(world.sh("rm -f name~"));
        let left = world.sh_ok(
            "ls -A | grep -v -e '^[.]by$' -e '^[.]control$' -e '^[.]templates$' -e '^[.]oneiric$'",
        );
        assert_eq!(left, "name\n", "{options}");
    }
}

#[test]
fn put_refuses_a_scratch_name() {
    let Some(world) = World::start() else { return };
    common::write_file(&world.outside("value"), b"v");
    for name in ["name~", "4913", "x.tmp"] {
        let mut command = world.secretfs();
        let output =
            common::bounded(command.args(["put", name, "--file"]).arg(world.outside("value")));
        assert!(!output.status.success(), "{name}: {output:?}");
    }
}
