//! What an error means, as CONTRACT 7 promises it, and that no error tells what is hidden (THREATS K1
//! and K4).
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test file: its helpers are tests too"
)]

mod common;

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use common::{Person, Tried, World, number, read, word, write};
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::Mode;

const ADA: u32 = 61_001;

/// Ada may do everything but admin below `mine/`, and nothing elsewhere.
const ADA_HAS_HERS: &str = r#"
[[role]]
name = "own"
allow = [{ names = ["mine/*"], levels = ["read", "write", "delete"] }]
[[binding]]
role = "own"
uid = [61001]
"#;

/// A thing to do with a name; `mine` is a secret of the caller's own.
type Operation = fn(&Path, &Path) -> Tried<String>;

fn done(result: std::io::Result<()>) -> Tried<String> {
    result.map(|()| "done".into()).map_err(|err| number(&err))
}

fn said<T: std::fmt::Debug>(result: nix::Result<T>) -> Tried<String> {
    result.map(|value| format!("{value:?}")).map_err(|errno| errno as i32)
}

fn opened(options: &OpenOptions, path: &Path) -> Tried<String> {
    done(options.open(path).map(drop))
}

fn view(path: &Path, view: &str) -> Tried<String> {
    let name = path.file_name().unwrap().to_str().unwrap();
    done(fs::read(path.with_file_name(format!("{name}@{view}"))).map(drop))
}

/// Those of the contract: EACCES and nothing else.
const REFUSED: [(&str, Operation); 12] = [
    ("open for reading", |path, _| done(File::open(path).map(drop))),
    ("open for writing", |path, _| opened(OpenOptions::new().write(true), path)),
    ("open to truncate", |path, _| opened(OpenOptions::new().write(true).truncate(true), path)),
    ("stat", |path, _| done(fs::metadata(path).map(drop))),
    ("getxattr", |path, _| done(xattr::get(path, "user.secretfs.version").map(drop))),
    ("unlink", |path, _| done(fs::remove_file(path))),
    ("rename from", |path, mine| done(fs::rename(path, mine))),
    ("rename onto", |path, mine| done(fs::rename(mine, path))),
    ("mkdir", |path, _| done(fs::create_dir(path))),
    ("create exclusively", |path, _| opened(OpenOptions::new().write(true).create_new(true), path)),
    ("create", |path, _| opened(OpenOptions::new().write(true).create(true), path)),
    ("readdir", |path, _| done(fs::read_dir(path).map(drop))),
];

/// Others: any error, as long as it is the same one.
const OTHERS: [(&str, Operation); 22] = [
    ("link from", |path, mine| done(fs::hard_link(path, mine.with_file_name("linked")))),
    ("link onto", |path, mine| done(fs::hard_link(mine, path))),
    ("symlink", |path, _| done(std::os::unix::fs::symlink("mine/a", path))),
    ("mkfifo", |path, _| said(nix::unistd::mkfifo(path, Mode::S_IRWXU))),
    ("lstat", |path, _| done(fs::symlink_metadata(path).map(drop))),
    ("listxattr", |path, _| done(xattr::list(path).map(drop))),
    ("setxattr", |path, _| done(xattr::set(path, "user.secretfs.description", b"x"))),
    ("removexattr", |path, _| done(xattr::remove(path, "user.secretfs.description"))),
    ("rmdir", |path, _| done(fs::remove_dir(path))),
    ("chmod", |path, _| {
        done(fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)))
    }),
    ("chown", |path, _| done(std::os::unix::fs::chown(path, Some(ADA), Some(ADA)))),
    ("truncate", |path, _| said(nix::unistd::truncate(path, 0))),
    ("access", |path, _| said(nix::unistd::access(path, nix::unistd::AccessFlags::F_OK))),
    ("readlink", |path, _| done(fs::read_link(path).map(drop))),
    ("chdir", |path, _| said(nix::unistd::chdir(path))),
    ("statfs", |path, _| said(nix::sys::statfs::statfs(path).map(|_| ()))),
    ("O_PATH", |path, _| opened(OpenOptions::new().read(true).custom_flags(libc::O_PATH), path)),
    ("inotify", |path, _| common::syscall::watch(path).map(|_| String::new())),
    ("below", |path, _| done(fs::metadata(path.join("x")).map(drop))),
    ("view of a version", |path, _| view(path, "1")),
    ("view of metadata", |path, _| view(path, "meta")),
    ("view why", |path, _| view(path, "why")),
];

#[test]
fn a_hidden_name_and_an_absent_one_answer_alike_and_with_eacces() {
    let Some(world) = World::with_policy(ADA_HAS_HERS) else { return };
    world.put("mine/a", "v");
    world.put("theirs/hidden", "canary-7f3a");
    world.put("hidden", "canary-7f3a");
    for (hidden, absent) in [("theirs/hidden", "theirs/absent"), ("hidden", "absent")] {
        for (operation, work) in REFUSED {
            let [hidden, absent] = as_ada(&world, work, [hidden, absent]);
            assert_eq!((&hidden, &absent), (&Err(libc::EACCES), &Err(libc::EACCES)), "{operation}");
        }
    }
    assert_eq!(world.get("mine/a").unwrap(), b"v");
    assert_eq!(world.get("hidden").unwrap(), b"canary-7f3a");
}

#[test]
fn no_other_operation_tells_a_hidden_name_from_an_absent_one() {
    let Some(world) = World::with_policy(ADA_HAS_HERS) else { return };
    world.put("mine/a", "v");
    world.put("theirs/hidden", "canary-7f3a");
    world.put("hidden", "canary-7f3a");
    world.put("directory/x", "canary-7f3a");
    for (hidden, absent) in
        [("theirs/hidden", "theirs/absent"), ("hidden", "absent"), ("directory", "absent")]
    {
        for (operation, work) in OTHERS {
            let [hidden, absent] = as_ada(&world, work, [hidden, absent]);
            assert_eq!(hidden, absent, "{operation}");
            // Why not is for everybody to know: it depends on the policy alone.
            assert!(hidden.is_err() || operation == "view why", "{operation}");
        }
    }
}

#[test]
fn where_somebody_may_make_scratch_files_hidden_names_and_absent_ones_answer_alike_too() {
    let policy = ADA_HAS_HERS.replace("mine/*", "mine");
    let Some(world) = World::with_policy(&policy) else { return };
    world.put("hidden", "canary-7f3a");
    for (operation, work) in REFUSED.iter().chain(&OTHERS) {
        world.put("mine", "v");
        let [hidden, absent] = as_ada(&world, *work, ["hidden", "absent"]);
        assert_eq!(hidden, absent, "{operation}");
        assert_eq!(world.get("hidden").unwrap(), b"canary-7f3a", "{operation}");
    }
}

#[test]
fn while_sealed_a_hidden_name_and_an_absent_one_answer_alike() {
    let Some(world) = World::with_policy(ADA_HAS_HERS) else { return };
    world.put("mine/a", "v");
    world.put("hidden", "canary-7f3a");
    world.control("seal", "\n").unwrap();
    for (operation, work) in REFUSED.iter().chain(&OTHERS) {
        let [hidden, absent] = as_ada(&world, *work, ["hidden", "absent"]);
        assert_eq!(hidden, absent, "{operation}");
    }
}

fn as_ada(world: &World, work: Operation, names: [&str; 2]) -> [Tried<String>; 2] {
    let mine = world.path(if world.path("mine").is_file() { "mine" } else { "mine/a" });
    let ada = Person::new(ADA);
    names.map(|name| {
        let path = world.path(name);
        ada.run(|| work(&path, &mine))
    })
}

#[test]
fn nobody_else_is_told_a_size() {
    let Some(world) = World::with_policy(ADA_HAS_HERS) else { return };
    world.put("hidden", vec![b'x'; 12_345]);
    let path = world.path("hidden");
    let handle = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(&path).unwrap();
    let open = File::open(&path).unwrap();
    assert_eq!(handle.metadata().unwrap().size(), 12_345);
    let sizes = Person::new(ADA).run(|| {
        let size = |found: std::io::Result<fs::Metadata>| found.map_or(0, |found| found.size());
        [size(fs::metadata(&path)), size(handle.metadata()), size(open.metadata())]
    });
    assert_eq!(sizes[..2], [0, 0]);
    assert!([0, 12_345].contains(&sizes[2]), "whoever was given the handle may know its length");
}

#[test]
fn directories_say_nothing_of_what_is_hidden_in_them() {
    let Some(world) = World::with_policy(ADA_HAS_HERS) else { return };
    world.put("mine/a", "v");
    let (root, mine) = (world.path(""), world.path("mine"));
    let look = || {
        let seen = |path: &Path| {
            let found = fs::metadata(path).unwrap();
            (
                found.nlink(),
                found.size(),
                found.mtime(),
                found.blocks(),
                common::list(path).unwrap(),
            )
        };
        let statfs = nix::sys::statfs::statfs(&root).unwrap();
        (seen(&root), seen(&mine), statfs.files(), statfs.blocks(), statfs.files_free())
    };
    let before = Person::new(ADA).run(look);
    for name in ["hidden-1", "hidden-2", "dir/hidden-3"] {
        world.put(name, "canary-7f3a");
    }
    assert_eq!(Person::new(ADA).run(look), before);
}

#[test]
fn a_known_name_that_is_not_there_is_enoent() {
    let Some(world) = World::with_policy(ADA_HAS_HERS) else { return };
    world.put("mine/a", "v");
    let (absent, to) = (world.path("mine/none"), world.path("mine/b"));
    let errors = Person::new(ADA).run(|| {
        [
            read(&absent).err(),
            fs::metadata(&absent).err().map(|err| number(&err)),
            fs::remove_file(&absent).err().map(|err| number(&err)),
            fs::rename(&absent, &to).err().map(|err| number(&err)),
            xattr::get(&absent, "user.secretfs.version").err().map(|err| number(&err)),
        ]
    });
    assert_eq!(errors, [Some(libc::ENOENT); 5]);
}

#[test]
fn while_sealed_every_read_and_write_is_enokey_until_unsealed() {
    let Some(world) = World::start() else { return };
    world.put("name", "v");
    let mut open = File::open(world.path("name")).unwrap();
    world.control("seal", "\n").unwrap();
    assert_eq!(world.get("name"), Err(libc::ENOKEY));
    assert_eq!(write(&world.path("name"), b"x"), Err(libc::ENOKEY));
    assert_eq!(write(&world.path("fresh"), b"x"), Err(libc::ENOKEY));
    let unlinked = fs::remove_file(world.path("name")).unwrap_err();
    assert_eq!(number(&unlinked), libc::ENOKEY);
    let read = open.read(&mut [0; 9]).map_err(|err| number(&err));
    assert_eq!(read, Err(libc::ENOKEY), "an open handle holds no value any more");
    world.control("unseal", "\n").unwrap();
    assert_eq!(world.get("name").unwrap(), b"v");
}

#[test]
fn a_revoked_secret_is_ekeyrevoked() {
    let Some(world) = World::start() else { return };
    world.put("name", "v");
    world.set_attribute("name", "status", "revoked");
    assert_eq!(world.get("name"), Err(libc::EKEYREVOKED));
    assert_eq!(world.attribute("name", "status").unwrap(), "revoked");
    world.set_attribute("name", "status", "active");
    assert_eq!(world.get("name").unwrap(), b"v");
}

#[test]
fn a_secret_past_its_expiry_is_ekeyexpired() {
    let Some(world) = World::start() else { return };
    world.put("name", "v");
    world.set_attribute("name", "expires", "2999-01-01T00:00:00Z");
    assert_eq!(world.get("name").unwrap(), b"v");
    world.set_attribute("name", "expires", "2020-01-01T00:00:00Z");
    assert_eq!(world.get("name"), Err(libc::EKEYEXPIRED));
    world.set_attribute("name", "expires", "2999-01-01T00:00:00Z");
    assert_eq!(world.get("name").unwrap(), b"v");
}

#[test]
fn an_expectation_that_is_not_met_is_ebusy_and_a_value_too_big_is_efbig() {
    let Some(world) = World::start() else { return };
    world.put("name", "v");
    assert_eq!(write(&world.path("name@expect=9"), b"x"), Err(libc::EBUSY));
    assert_eq!(write(&world.path("name"), &vec![b'x'; (1 << 20) + 1]), Err(libc::EFBIG));
    assert!(world.get("name").unwrap() == b"v", "what was too big was published in part");
}

#[test]
fn a_bad_name_is_einval_at_create_and_enoent_at_lookup() {
    let Some(world) = World::start() else { return };
    for bad in ["a b", "a:b", "a+b", "\u{e9}", "a\nb", "a*"] {
        let path = world.path(bad);
        assert_eq!(write(&path, b"x"), Err(libc::EINVAL), "{bad:?}");
        assert_eq!(fs::create_dir(&path).map_err(|err| number(&err)), Err(libc::EINVAL), "{bad:?}");
        assert_eq!(read(&path), Err(libc::ENOENT), "{bad:?}");
    }
    let long = world.path(&"x".repeat(256));
    let created = write(&long, b"x").unwrap_err();
    assert!(matches!(created, libc::EINVAL | libc::ENAMETOOLONG), "{}", word(created));
    let looked = read(&long).unwrap_err();
    assert!(matches!(looked, libc::ENOENT | libc::ENAMETOOLONG), "{}", word(looked));
    world.put(&"x".repeat(255), "v");
}

#[test]
fn a_name_deeper_than_32_segments_or_longer_than_1024_bytes_cannot_be_made() {
    let Some(world) = World::start() else { return };
    world.put(&["d"; 32].join("/"), "v");
    let deeper = world.path(&["e"; 33].join("/"));
    let made = fs::create_dir_all(deeper.parent().unwrap()).map_err(|err| number(&err));
    let tried = made.and_then(|()| write(&deeper, b"v"));
    assert!(matches!(tried, Err(libc::EINVAL | libc::ENAMETOOLONG)), "{tried:?}");
    let longer = world.path(&["y".repeat(250).as_str(); 5].join("/"));
    let made = fs::create_dir_all(longer.parent().unwrap()).map_err(|err| number(&err));
    let tried = made.and_then(|()| write(&longer, b"v"));
    assert!(matches!(tried, Err(libc::EINVAL | libc::ENAMETOOLONG)), "{tried:?}");
}

#[test]
fn the_usual_errors_are_as_everywhere() {
    let Some(world) = World::start() else { return };
    world.put("dir/name", "v");
    let open = |path: &str, options: &OpenOptions| {
        options.open(world.path(path)).map(drop).map_err(|err| number(&err))
    };
    assert_eq!(open("dir", OpenOptions::new().write(true)), Err(libc::EISDIR));
    assert_eq!(open("dir/name/x", OpenOptions::new().read(true)), Err(libc::ENOTDIR));
    assert_eq!(
        open("dir/name", OpenOptions::new().write(true).create_new(true)),
        Err(libc::EEXIST)
    );
    let rename = |from: &str, to: &str| {
        fs::rename(world.path(from), world.path(to)).map_err(|err| number(&err))
    };
    fs::create_dir(world.path("empty")).unwrap();
    assert_eq!(rename("dir/name", "empty"), Err(libc::EISDIR));
    assert_eq!(rename("empty", "dir/name"), Err(libc::ENOTDIR));
    assert_eq!(rename("empty", "dir"), Err(libc::ENOTEMPTY));
    let removed = fs::remove_dir(world.path("dir")).map_err(|err| number(&err));
    assert_eq!(removed, Err(libc::ENOTEMPTY));
    let open = nix::fcntl::openat(
        AT_FDCWD,
        &world.path("dir/name"),
        nix::fcntl::OFlag::O_DIRECTORY,
        Mode::empty(),
    );
    assert_eq!(open.unwrap_err() as i32, libc::ENOTDIR);
}

#[test]
fn opening_for_writing_what_one_may_only_read_is_eacces() {
    let policy = ADA_HAS_HERS.replace("\"read\", \"write\", \"delete\"", "\"read\"");
    let Some(world) = World::with_policy(&policy) else { return };
    world.put("mine/a", "v");
    let (path, to) = (world.path("mine/a"), world.path("mine/b"));
    let errors = Person::new(ADA).run(|| {
        let open = |options: &OpenOptions| options.open(&path).err().map(|err| number(&err));
        [
            open(OpenOptions::new().write(true)),
            open(OpenOptions::new().write(true).truncate(true)),
            open(OpenOptions::new().append(true)),
            open(OpenOptions::new().read(true).write(true)),
            open(OpenOptions::new().write(true).create(true)),
            write(&to, b"x").err(),
            fs::remove_file(&path).err().map(|err| number(&err)),
            fs::rename(&path, &to).err().map(|err| number(&err)),
        ]
    });
    assert_eq!(errors, [Some(libc::EACCES); 8]);
    assert_eq!(world.get("mine/a").unwrap(), b"v");
}

#[test]
fn every_refusal_is_recorded_with_who_it_was() {
    let Some(world) = World::with_policy(ADA_HAS_HERS) else { return };
    world.put("hidden", "canary-7f3a");
    let path = world.path("hidden");
    assert_eq!(Person::new(ADA).run(|| read(&path)), Err(libc::EACCES));
    let denied = |line: &serde_json::Value| {
        line["secret"] == "hidden" && line["outcome"] == "denied" && line["uid"] == ADA
    };
    let lines: Vec<_> = world.audit().into_iter().filter(denied).collect();
    assert!(!lines.is_empty());
    assert!(lines.iter().all(|line| line["gid"] == ADA && line["pid"].is_u64()), "{lines:?}");
}

/// A filesystem of a few MiB, so that it can be filled; unmounted when dropped.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Self {
        fs::create_dir_all(at).unwrap();
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("none"), at, Some("tmpfs"), flags, Some("size=24m")).unwrap();
        Self(at.to_path_buf())
    }

    /// Takes all room that is left.
    fn fill(&self) -> std::path::PathBuf {
        let path = self.0.join("filler");
        let mut file = File::create(&path).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

#[test]
fn nothing_is_read_once_the_audit_log_cannot_take_the_line() {
    if !common::can_mount() {
        return;
    }
    let at = tempfile::Builder::new().prefix("secretfs-test-disk-").tempdir().unwrap();
    let disk = SmallDisk::mount(at.path());
    let config = format!("state_dir = \"{}/state\"\n", at.path().display());
    let world = World::with(common::ROOT_IS_ADMIN, &config).unwrap();
    world.put("name", "canary-7f3a");
    let filler = disk.fill();
    // There may be room for some lines in what the log has already.
    let mut succeeded = 0;
    let refused = (0..200_000).find_map(|_| match world.get("name") {
        Ok(_) => {
            succeeded += 1;
            None
        }
        Err(errno) => Some(errno),
    });
    assert_eq!(refused, Some(libc::EIO), "after {succeeded}");
    fs::remove_file(filler).unwrap();
    common::eventually("reading goes on", || world.get("name").is_ok());
    assert!(world.audit_of("name", "read", "allowed", 0).len() > succeeded);
}
