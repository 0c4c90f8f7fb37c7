//! Writing, as CONTRACT 4 and DECISIONS 5-8 promise it: one test a claim, on a real mount.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test file: its helpers are tests too"
)]

mod common;

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use common::{Person, Tried, World, close, eventually, inode, noise, number, read, word, write};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

const ADA: u32 = 61_001;

fn create_new(path: &Path) -> Tried<File> {
    OpenOptions::new().write(true).create_new(true).open(path).map_err(|err| number(&err))
}

fn open_to_write(path: &Path) -> File {
    OpenOptions::new().write(true).open(path).unwrap()
}

fn open_truncated(path: &Path) -> File {
    OpenOptions::new().write(true).create(true).truncate(true).open(path).unwrap()
}

fn outcome(tried: Result<(), std::io::Error>) -> i32 {
    tried.err().map_or(0, |err| number(&err))
}

#[test]
fn a_shell_redirection_makes_one_version_of_exactly_its_bytes() {
    let Some(world) = World::start() else { return };
    world.sh_ok("printf %s example-value > name");
    assert_eq!(world.get("name").unwrap(), b"example-value");
    assert_eq!(world.version("name"), 1);
    world.sh_ok("printf %s other > name");
    assert_eq!(world.get("name").unwrap(), b"other");
    assert_eq!(world.version("name"), 2);
}

#[test]
fn tee_cp_install_dd_and_mv_from_outside_store_a_file() {
    let Some(world) = World::start() else { return };
    let source = world.outside("source");
    let value = noise(1, 70_000);
    for how in [
        "tee name < SOURCE > /dev/null",
        "cp SOURCE name",
        "install -m 600 SOURCE name",
        "dd if=SOURCE of=name bs=997 status=none",
        "cat SOURCE > name",
        "mv -f SOURCE name",
    ] {
        common::write_file(&source, &value);
        world.put("name", "old");
        world.sh_ok(&how.replace("SOURCE", source.to_str().unwrap()));
        assert!(world.get("name").unwrap() == value, "{how}");
        assert_eq!(world.sh_ok("ls -A | grep -v '^[.]'"), "name\n", "{how}");
    }
    assert!(!source.exists());
}

#[test]
fn a_value_of_many_writes_is_one_version() {
    let Some(world) = World::start() else { return };
    let mut file = open_truncated(&world.path("name"));
    for byte in b"example-value" {
        file.write_all(&[*byte]).unwrap();
    }
    close(file).unwrap();
    assert_eq!(world.get("name").unwrap(), b"example-value");
    assert_eq!(world.version("name"), 1);
}

#[test]
fn appending_is_based_on_the_current_version() {
    let Some(world) = World::start() else { return };
    world.put("name", "one\n");
    world.sh_ok("echo two >> name");
    assert_eq!(world.get("name").unwrap(), b"one\ntwo\n");
    assert_eq!(world.version("name"), 2);
}

#[test]
fn pwrite_is_based_on_the_current_version() {
    let Some(world) = World::start() else { return };
    world.put("name", "0123456789");
    let file = open_to_write(&world.path("name"));
    file.write_all_at(b"abc", 3).unwrap();
    close(file).unwrap();
    assert_eq!(world.get("name").unwrap(), b"012abc6789");
    assert_eq!(world.version("name"), 2);
}

#[test]
fn pwrite_past_the_end_fills_the_gap_with_zeros() {
    let Some(world) = World::start() else { return };
    world.put("name", "ab");
    let file = open_to_write(&world.path("name"));
    file.write_all_at(b"z", 5).unwrap();
    close(file).unwrap();
    assert_eq!(world.get("name").unwrap(), b"ab\0\0\0z");
}

#[test]
fn a_file_opened_to_read_and_write_reads_what_it_has_written() {
    let Some(world) = World::start() else { return };
    world.put("name", "0123456789");
    let mut file = OpenOptions::new().read(true).write(true).open(world.path("name")).unwrap();
    file.seek(SeekFrom::Start(8)).unwrap();
    file.write_all(b"XYZ").unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    let mut seen = String::new();
    file.read_to_string(&mut seen).unwrap();
    assert_eq!(seen, "01234567XYZ");
    close(file).unwrap();
    assert_eq!(world.get("name").unwrap(), b"01234567XYZ");
}

#[test]
fn a_cut_of_the_current_value_is_a_version_of_its_own() {
    let Some(world) = World::start() else { return };
    world.put("name", b"example-value");
    let file = OpenOptions::new().write(true).open(world.path("name")).unwrap();
    file.set_len(7).unwrap();
    close(file).unwrap();
    assert_eq!(world.get("name").unwrap(), b"example");
    assert_eq!(world.version("name"), 2);
}

#[test]
fn ftruncate_of_a_written_file_shortens_what_is_published() {
    let Some(world) = World::start() else { return };
    let mut file = open_truncated(&world.path("name"));
    file.write_all(b"0123456789").unwrap();
    file.set_len(4).unwrap();
    close(file).unwrap();
    assert_eq!(world.get("name").unwrap(), b"0123");
}

#[test]
fn truncation_is_never_visible_to_a_reader() {
    let Some(world) = World::start() else { return };
    world.put("name", "old");
    let mut file = open_truncated(&world.path("name"));
    assert_eq!(world.get("name").unwrap(), b"old", "after open(O_TRUNC)");
    file.write_all(b"new").unwrap();
    assert_eq!(world.get("name").unwrap(), b"old", "before close");
    close(file).unwrap();
    assert_eq!(world.get("name").unwrap(), b"new");
}

#[test]
fn a_flush_without_data_publishes_nothing() {
    let Some(world) = World::start() else { return };
    world.put("name", "old");
    let mut file = open_truncated(&world.path("name"));
    close(file.try_clone().unwrap()).unwrap();
    file.sync_all().unwrap();
    assert_eq!(world.get("name").unwrap(), b"old");
    assert_eq!(world.version("name"), 1);
    file.write_all(b"new").unwrap();
    close(file).unwrap();
    assert_eq!((world.get("name").unwrap(), world.version("name")), (b"new".to_vec(), 2));
}

#[test]
fn a_flush_after_data_publishes_and_one_without_more_data_does_not_publish_again() {
    let Some(world) = World::start() else { return };
    let mut file = open_truncated(&world.path("name"));
    file.write_all(b"new").unwrap();
    close(file.try_clone().unwrap()).unwrap();
    assert_eq!(world.get("name").unwrap(), b"new");
    close(file.try_clone().unwrap()).unwrap();
    close(file).unwrap();
    assert_eq!(world.version("name"), 1);
}

#[test]
fn fsync_publishes() {
    let Some(world) = World::start() else { return };
    let mut file = open_truncated(&world.path("name"));
    file.write_all(b"new").unwrap();
    file.sync_all().unwrap();
    assert_eq!(world.get("name").unwrap(), b"new");
    close(file).unwrap();
    assert_eq!(world.version("name"), 1);
}

#[test]
fn two_programs_on_one_redirection_make_two_versions_of_which_the_last_has_it_all() {
    let Some(world) = World::start() else { return };
    world.sh_ok("(/bin/echo a; /bin/echo b) > name");
    assert_eq!(world.get("name").unwrap(), b"a\nb\n");
    assert_eq!(world.version("name"), 2);
    assert_eq!(world.get("name@1").unwrap(), b"a\n");
}

#[test]
fn an_empty_redirection_publishes_nothing() {
    let Some(world) = World::start() else { return };
    world.put("name", "old");
    world.sh_ok(": > name; cp /dev/null name; cat /dev/null > name");
    assert_eq!(world.get("name").unwrap(), b"old");
    assert_eq!(world.version("name"), 1);
    world.sh_ok(": > fresh");
    eventually("the draft is dropped", || world.get("fresh") == Err(libc::ENOENT));
}

#[test]
fn touching_a_new_name_makes_a_draft_that_is_gone_after_its_release() {
    let Some(world) = World::start() else { return };
    world.sh_ok("touch fresh || true");
    eventually("the draft is dropped", || fs::metadata(world.path("fresh")).is_err());
    assert!(!world.list("").contains(&"fresh".to_owned()));
}

#[test]
fn a_draft_is_seen_by_its_creator_alone() {
    let policy = r#"
[[role]]
name = "all"
allow = [{ names = ["**"], levels = ["read", "write", "delete"] }]
[[binding]]
role = "all"
uid = [61001]
"#;
    let Some(world) = World::with_policy(policy) else { return };
    let path = world.path("fresh");
    let mut file = create_new(&path).unwrap();
    assert!(fs::metadata(&path).is_ok());
    let theirs = Person::new(ADA).run(|| read(&path).err());
    assert!(matches!(theirs, Some(libc::ENOENT | libc::EACCES)), "{theirs:?}");
    let listed = Person::new(ADA).run(|| common::list(path.parent().unwrap()));
    assert!(!listed.unwrap().contains(&"fresh".to_owned()));
    file.write_all(b"v").unwrap();
    close(file).unwrap();
    assert_eq!(Person::new(ADA).run(|| read(&path)).unwrap(), b"v");
}

#[test]
fn touch_never_makes_a_version() {
    let Some(world) = World::start() else { return };
    world.put("name", "old");
    drop(world.sh("touch name; touch -d 2020-01-01 name; touch -c name; touch -a name"));
    assert_eq!(world.get("name").unwrap(), b"old");
    assert_eq!(world.version("name"), 1);
}

#[test]
fn rename_over_a_secret_makes_a_version_that_keeps_metadata_inode_and_history() {
    let Some(world) = World::start() else { return };
    world.put("name", "old");
    world.set_attribute("name", "description", "what it is for");
    world.set_attribute("name", "tags", "a,b");
    let (before, created) = (inode(&world.path("name")), world.attribute("name", "id"));
    world.sh_ok("printf %s new > .name.tmp && mv .name.tmp name");
    assert_eq!(world.get("name").unwrap(), b"new");
    assert_eq!(world.version("name"), 2);
    assert_eq!(inode(&world.path("name")), before);
    assert_eq!(world.attribute("name", "id"), created);
    assert_eq!(world.attribute("name", "description").unwrap(), "what it is for");
    assert_eq!(world.attribute("name", "tags").unwrap(), "a,b");
    assert_eq!(world.get("name@1").unwrap(), b"old");
    assert_eq!(world.get(".name.tmp"), Err(libc::ENOENT));
}

#[test]
fn renaming_a_secret_onto_another_makes_a_version_and_puts_the_source_into_the_trash() {
    let Some(world) = World::start() else { return };
    world.put("source", "first");
    world.put("source", "new");
    world.put("target", "old");
    fs::rename(world.path("source"), world.path("target")).unwrap();
    assert_eq!(world.get("target").unwrap(), b"new");
    assert_eq!(world.get("target@1").unwrap(), b"old");
    assert_eq!(world.version("target"), 2);
    assert_eq!(world.get("source"), Err(libc::ENOENT));
    assert_eq!(world.list(".control/trash").len(), 1);
}

#[test]
fn renaming_onto_itself_changes_nothing() {
    let Some(world) = World::start() else { return };
    world.put("name", "old");
    fs::rename(world.path("name"), world.path("name")).unwrap();
    assert_eq!(world.get("name").unwrap(), b"old");
    assert_eq!(world.version("name"), 1);
}

#[test]
fn creating_exclusively_or_renaming_without_replacing_fails_where_a_secret_is() {
    let Some(world) = World::start() else { return };
    world.put("name", "old");
    world.put("other", "other");
    let (name, other) = (world.path("name"), world.path("other"));
    assert_eq!(create_new(&name).unwrap_err(), libc::EEXIST);
    let flags = RenameFlags::RENAME_NOREPLACE;
    let renamed = renameat2(AT_FDCWD, &other, AT_FDCWD, &name, flags).unwrap_err();
    assert_eq!(renamed as i32, libc::EEXIST);
    assert_eq!(outcome(fs::hard_link(&other, &name)), libc::EEXIST);
    assert_eq!((world.get("name").unwrap(), world.version("name")), (b"old".to_vec(), 1));
    assert_eq!(world.get("other").unwrap(), b"other");
}

#[test]
fn creating_exclusively_and_renaming_without_replacing_work_where_nothing_is() {
    let Some(world) = World::start() else { return };
    let mut file = create_new(&world.path("name")).unwrap();
    file.write_all(b"v").unwrap();
    close(file).unwrap();
    let (from, to) = (world.path("name"), world.path("moved"));
    renameat2(AT_FDCWD, &from, AT_FDCWD, &to, RenameFlags::RENAME_NOREPLACE).unwrap();
    assert_eq!(world.get("moved").unwrap(), b"v");
    assert_eq!(world.get("name"), Err(libc::ENOENT));
}

#[test]
fn exchanging_two_secrets_is_refused_or_done_and_never_loses_one() {
    let Some(world) = World::start() else { return };
    world.put("a", "1");
    world.put("b", "2");
    let (a, b) = (world.path("a"), world.path("b"));
    let expected: [&[u8]; 2] =
        match renameat2(AT_FDCWD, &a, AT_FDCWD, &b, RenameFlags::RENAME_EXCHANGE) {
            Ok(()) => [b"2", b"1"],
            Err(_) => [b"1", b"2"],
        };
    assert_eq!([world.get("a").unwrap(), world.get("b").unwrap()], expected);
}

#[test]
fn mv_onto_a_free_name_takes_the_history_along() {
    let Some(world) = World::start() else { return };
    world.put("a", "first");
    world.put("a", "second");
    world.set_attribute("a", "description", "kept");
    world.sh_ok("mkdir dir && mv a dir/b");
    assert_eq!(world.get("a"), Err(libc::ENOENT));
    assert_eq!(world.get("dir/b").unwrap(), b"second");
    assert_eq!(world.get("dir/b@1").unwrap(), b"first");
    assert_eq!(world.version("dir/b"), 2);
    assert_eq!(world.attribute("dir/b", "description").unwrap(), "kept");
    assert!(world.list(".control/trash").is_empty());
}

#[test]
fn mv_needs_delete_on_the_source_and_write_on_the_target() {
    let policy = r#"
[[role]]
name = "mover"
allow = [
  { names = ["from/can"], levels = ["read", "write", "delete"] },
  { names = ["from/cannot"], levels = ["read", "write"] },
  { names = ["to/can"], levels = ["write"] },
  { names = ["to/cannot"], levels = ["read", "delete"] },
]
[[binding]]
role = "mover"
uid = [61001]
"#;
    let Some(world) = World::with_policy(policy) else { return };
    world.put("from/can", "v");
    world.put("from/cannot", "v");
    fs::create_dir(world.path("to")).unwrap();
    let ada = Person::new(ADA);
    let mv = |from: &str, to: &str| {
        let (from, to) = (world.path(from), world.path(to));
        ada.run(|| outcome(fs::rename(&from, &to)))
    };
    assert_eq!(mv("from/cannot", "to/can"), libc::EACCES);
    assert_eq!(mv("from/can", "to/cannot"), libc::EACCES);
    assert_eq!(world.get("from/can").unwrap(), b"v");
    assert_eq!(mv("from/can", "to/can"), 0);
    assert_eq!(world.get("to/can").unwrap(), b"v");
}

#[test]
fn rm_puts_a_secret_into_the_trash_and_mv_out_of_it_restores_it_with_its_history() {
    let Some(world) = World::start() else { return };
    world.put("dir/name", "first");
    world.put("dir/name", "second");
    world.sh_ok("rm dir/name");
    assert_eq!(world.get("dir/name"), Err(libc::ENOENT));
    let trash = world.list(".control/trash");
    assert_eq!(trash.len(), 1, "{trash:?}");
    let entry = world.path(&format!(".control/trash/{}", trash[0]));
    drop(fs::create_dir(world.path("dir")));
    fs::rename(entry, world.path("dir/name")).unwrap();
    assert_eq!(world.get("dir/name").unwrap(), b"second");
    assert_eq!(world.get("dir/name@1").unwrap(), b"first");
    assert!(world.list(".control/trash").is_empty());
}

#[test]
fn rm_in_the_trash_destroys() {
    let Some(world) = World::start() else { return };
    world.put("name", "canary-7f3a");
    world.sh_ok("rm name && rm .control/trash/*");
    assert!(world.list(".control/trash").is_empty());
    assert_eq!(world.get("name"), Err(libc::ENOENT));
}

#[test]
fn a_name_that_was_deleted_can_be_used_again_and_has_the_same_inode() {
    let Some(world) = World::start() else { return };
    world.put("name", "old");
    let before = inode(&world.path("name"));
    world.sh_ok("rm name");
    world.put("name", "new");
    assert_eq!(world.get("name").unwrap(), b"new");
    assert_eq!(inode(&world.path("name")), before);
    assert_eq!(world.list(".control/trash").len(), 1);
}

#[test]
fn mkdir_and_rmdir_do_as_expected() {
    let Some(world) = World::start() else { return };
    world.sh_ok("mkdir -p a/b");
    assert!(fs::metadata(world.path("a/b")).unwrap().is_dir());
    assert_eq!(outcome(fs::create_dir(world.path("a"))), libc::EEXIST);
    world.put("a/b/name", "v");
    assert_eq!(outcome(fs::create_dir(world.path("a/b/name"))), libc::EEXIST);
    assert_eq!(outcome(fs::remove_dir(world.path("a/b"))), libc::ENOTEMPTY);
    assert_eq!(outcome(fs::remove_dir(world.path("a"))), libc::ENOTEMPTY);
    assert_eq!(outcome(fs::remove_dir(world.path("a/b/name"))), libc::ENOTDIR);
    let unlinked = outcome(fs::remove_file(world.path("a/b")));
    assert!(matches!(unlinked, libc::EISDIR | libc::EPERM), "{}", word(unlinked));
    assert_eq!(world.get("a/b/name").unwrap(), b"v");
}

#[test]
fn an_empty_directory_of_mkdir_can_be_removed_and_one_without_mkdir_lives_with_its_secret() {
    let Some(world) = World::start() else { return };
    world.sh_ok("mkdir kept && rmdir kept && mkdir dir");
    assert_eq!(outcome(fs::metadata(world.path("kept")).map(drop)), libc::ENOENT);
    world.put("dir/name", "v");
    world.sh_ok("rm dir/name");
    assert!(world.list("").contains(&"dir".to_owned()), "mkdir made it");
    world.sh_ok("rmdir dir");
    assert!(!world.list("").contains(&"dir".to_owned()));
}

#[test]
fn rm_r_and_mv_of_a_directory_keep_every_secret_recoverable() {
    let Some(world) = World::start() else { return };
    for name in ["dir/a", "dir/b", "dir/sub/c"] {
        world.put(name, name);
    }
    world.sh_ok("rm -r dir");
    assert!(!world.list("").contains(&"dir".to_owned()));
    assert_eq!(world.list(".control/trash").len(), 3);
}

#[test]
fn chmod_and_chown_take_the_presented_value_and_refuse_another_and_times_are_ignored() {
    let Some(world) = World::start() else { return };
    world.put("name", "v");
    let path = world.path("name");
    let found = fs::metadata(&path).unwrap();
    let chmod = |mode| outcome(fs::set_permissions(&path, Permissions::from_mode(mode)));
    assert_eq!(chmod(found.mode() & 0o7777), 0);
    assert_eq!(chmod(0o644), libc::EPERM);
    let chown = |uid, gid| outcome(std::os::unix::fs::chown(&path, Some(uid), Some(gid)));
    assert_eq!(chown(found.uid(), found.gid()), 0);
    assert_eq!(chown(ADA, ADA), libc::EPERM);
    let times = |modified| {
        let file = File::open(&path).unwrap();
        let times = fs::FileTimes::new().set_modified(modified);
        outcome(file.set_times(times))
    };
    assert_eq!(times(found.modified().unwrap()), 0);
    assert_eq!(times(std::time::SystemTime::UNIX_EPOCH), 0);
    assert_eq!(fs::metadata(&path).unwrap().mode(), found.mode());
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), found.modified().unwrap());
    assert_eq!(world.version("name"), 1);
}

#[test]
fn two_writers_at_once_make_two_versions_of_which_the_last_closed_is_current() {
    let Some(world) = World::start() else { return };
    world.put("name", "old");
    let (mut first, mut second) =
        (open_truncated(&world.path("name")), open_truncated(&world.path("name")));
    second.write_all(b"second").unwrap();
    first.write_all(b"first").unwrap();
    close(first).unwrap();
    close(second).unwrap();
    assert_eq!(world.version("name"), 3);
    assert_eq!(world.get("name").unwrap(), b"second");
    assert_eq!(world.get("name@2").unwrap(), b"first");
    assert_eq!(world.get("name@previous").unwrap(), b"first");
}

#[test]
fn of_many_writers_at_once_none_is_lost() {
    const WRITERS: usize = 8;
    const EACH: usize = 10;
    let Some(world) = World::start() else { return };
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let path = world.path("name");
            scope.spawn(move || {
                for turn in 0..EACH {
                    write(&path, format!("{writer}-{turn}").as_bytes()).unwrap();
                }
            });
        }
    });
    let versions = WRITERS * EACH;
    assert_eq!(world.version("name"), versions as u64);
    let mut seen: Vec<_> =
        (1..=versions).map(|n| world.get(&format!("name@{n}")).unwrap()).collect();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), versions);
}

#[test]
fn a_value_above_the_limit_is_efbig_and_publishes_nothing() {
    let Some(world) = World::start() else { return };
    let most = noise(2, 1 << 20);
    world.put("name", &most);
    assert!(world.get("name").unwrap() == most);
    let more = noise(3, (1 << 20) + 1);
    assert_eq!(write(&world.path("name"), &more), Err(libc::EFBIG));
    assert_eq!(write(&world.path("fresh"), &more), Err(libc::EFBIG));
    let file = open_to_write(&world.path("name"));
    assert_eq!(outcome(file.write_all_at(b"x", 1 << 40)), libc::EFBIG);
    assert_eq!(outcome(file.set_len(1 << 40)), libc::EFBIG);
    drop(file);
    assert!(world.get("name").unwrap() == most);
    assert_eq!(world.version("name"), 1);
    assert_eq!(world.get("fresh"), Err(libc::ENOENT));
}

#[test]
fn the_limit_can_be_configured() {
    let config = "[limits]\nmax_value_bytes = 10\n";
    let Some(world) = World::with(common::ROOT_IS_ADMIN, config) else { return };
    world.put("name", "0123456789");
    assert_eq!(write(&world.path("name"), b"0123456789a"), Err(libc::EFBIG));
    assert_eq!(world.sh("printf %s 0123456789a > name").status.code(), Some(1));
    assert_eq!(world.get("name").unwrap(), b"0123456789");
}

#[test]
fn an_expectation_is_checked_at_close() {
    let Some(world) = World::start() else { return };
    world.put("name", "one");
    assert_eq!(write(&world.path("name@expect=1"), b"two"), Ok(()));
    assert_eq!(write(&world.path("name@expect=1"), b"lost"), Err(libc::EBUSY));
    assert_eq!(world.get("name").unwrap(), b"two");
    assert_eq!(world.version("name"), 2);
}

#[test]
fn an_expectation_that_was_true_at_open_fails_at_close_when_another_came_between() {
    let Some(world) = World::start() else { return };
    world.put("name", "one");
    let mut file = open_to_write(&world.path("name@expect=1"));
    file.write_all(b"mine").unwrap();
    world.put("name", "theirs");
    assert_eq!(close(file), Err(libc::EBUSY));
    assert_eq!(world.get("name").unwrap(), b"theirs");
    assert_eq!(world.version("name"), 2);
}

#[test]
fn links_devices_and_holes_are_refused() {
    let Some(world) = World::start() else { return };
    world.put("name", "0123456789");
    let refused = [
        outcome(std::os::unix::fs::symlink("name", world.path("link"))),
        outcome(fs::hard_link(world.path("name"), world.path("link"))),
        nix::unistd::mkfifo(&world.path("link"), nix::sys::stat::Mode::S_IRWXU).unwrap_err() as i32,
        fallocate_hole(&world.path("name")),
    ];
    for errno in refused {
        assert!(matches!(errno, libc::EPERM | libc::EOPNOTSUPP | libc::ENOSYS), "{}", word(errno));
    }
    assert_eq!(outcome(fs::symlink_metadata(world.path("link")).map(drop)), libc::ENOENT);
    assert_eq!(world.get("name").unwrap(), b"0123456789");
}

fn fallocate_hole(path: &Path) -> i32 {
    use nix::fcntl::{FallocateFlags, fallocate};
    let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    fallocate(open_to_write(path), hole, 0, 4).map_or_else(|errno| errno as i32, |()| 0)
}

#[test]
fn a_killed_writer_leaves_the_old_value_or_what_it_had_written() {
    let Some(world) = World::start() else { return };
    world.put("name", "old");
    let mut writer = Command::new("sh")
        .args(["-c", "exec dd of=name bs=4 status=none"])
        .current_dir(world.path(""))
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    writer.stdin.as_mut().unwrap().write_all(b"half").unwrap();
    let taken = |pid| fs::read_to_string(format!("/proc/{pid}/io")).unwrap().contains("wchar: 4\n");
    eventually("dd has written", || taken(writer.id()));
    writer.kill().unwrap();
    writer.wait().unwrap();
    let value = world.get("name").unwrap();
    assert!(value == b"old" || value == b"half", "{value:?}");
    world.put("name", "next");
    assert_eq!(world.get("name").unwrap(), b"next");
}

#[test]
fn an_empty_secret_needs_put_with_allow_empty() {
    let Some(world) = World::start() else { return };
    let put = |more: &[&str]| {
        let mut command = world.secretfs();
        common::bounded(command.args(["put", "name"]).args(more)).status.success()
    };
    assert!(!put(&[]));
    assert_eq!(world.get("name"), Err(libc::ENOENT));
    assert!(put(&["--allow-empty"]));
    assert_eq!(world.get("name").unwrap(), b"");
    assert_eq!(fs::metadata(world.path("name")).unwrap().len(), 0);
}

#[test]
fn what_was_acknowledged_is_there_after_the_daemon_was_killed() {
    let Some(mut world) = World::start() else { return };
    for turn in 0..3 {
        let value = format!("value {turn}");
        world.put("name", &value);
        world.put(&format!("dir/{turn}"), &value);
        world.kill_and_restart();
        assert_eq!(world.get("name").unwrap(), value.as_bytes());
        assert_eq!(world.get(&format!("dir/{turn}")).unwrap(), value.as_bytes());
    }
    assert_eq!(world.version("name"), 3);
}

#[test]
fn write_alone_lets_somebody_write_and_not_read() {
    let policy = r#"
[[role]]
name = "drop"
allow = [{ names = ["inbox"], levels = ["write"] }]
[[binding]]
role = "drop"
uid = [61001]
"#;
    let Some(world) = World::with_policy(policy) else { return };
    world.put("inbox", "canary-7f3a");
    let path = world.path("inbox");
    let ada = Person::new(ADA);
    assert_eq!(ada.run(|| read(&path)), Err(libc::EACCES));
    let both =
        || OpenOptions::new().read(true).write(true).open(&path).err().map(|err| number(&err));
    assert_eq!(ada.run(both), Some(libc::EACCES));
    assert_eq!(ada.run(|| write(&path, b"theirs")), Ok(()));
    assert_eq!(world.get("inbox").unwrap(), b"theirs");
    assert_eq!(world.version("inbox"), 2);
}

#[test]
fn every_version_made_is_recorded_with_who_made_it() {
    let Some(world) = World::start() else { return };
    world.put("name", "one");
    world.put("name", "two");
    let lines: Vec<_> = world
        .audit()
        .into_iter()
        .filter(|line| line["secret"] == "name" && line["outcome"] == "allowed")
        .filter(|line| ["write", "create"].iter().any(|action| line["action"] == *action))
        .collect();
    let versions: Vec<_> = lines.iter().filter_map(|line| line["version"].as_u64()).collect();
    assert_eq!(versions, [1, 2], "{lines:?}");
    assert!(lines.iter().all(|line| line["uid"] == 0 && line["pid"].is_u64()), "{lines:?}");
}
