//! What the mount itself gives away or can be hurt by (THREATS 1.4).
//!
//! Elsewhere: K6 in `reads`; K8 in `fs::workers`; K9 for plaintext in `fs::quota`; K11 and K12 with
//! takeover; K2 in `benches/broker.rs`, since no test may assert a time.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::mman::MapFlags;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use super::common::syscall::Mapping;
use super::common::{self, Person, World, list, number, read};
use super::{APP, attack, full};

/// K1 and K4: every way to ask for a path, for one that exists and is hidden and for one that does not
/// exist, must have the same answer, errno and all.
#[test]
fn a_hidden_name_answers_as_one_that_does_not_exist() {
    let Some(world) = World::with_policy(APP) else { return };
    world.put("hidden/deep/k", "example-value");
    world.put("top", "example-value");
    for (hidden, absent) in [
        ("hidden", "absent"),
        ("hidden/deep/k", "absent/deep/k"),
        ("top", "pot"),
        ("top/x", "pot/x"),
    ] {
        let ask = |name: &str| {
            let path = world.path(name);
            Person::new(1000).run(move || answers(&path))
        };
        let (hidden, absent) = (ask(hidden), ask(absent));
        assert_eq!(hidden, absent);
        assert!(hidden.iter().all(|(_, answer)| answer.is_err()), "{hidden:?}");
    }
    let roots = Person::new(1000).run(|| {
        let shown = fs::metadata(world.path("")).unwrap();
        (list(&world.path("")).unwrap(), shown.nlink(), shown.size())
    });
    assert_eq!(roots.0, [".by", ".control"]);
    world.put("another/one", "example-value");
    let again = Person::new(1000).run(|| {
        let shown = fs::metadata(world.path("")).unwrap();
        (list(&world.path("")).unwrap(), shown.nlink(), shown.size())
    });
    assert_eq!(roots, again);
}

type Answers = Vec<(String, Result<u64, i32>)>;

fn answers(path: &Path) -> Answers {
    let text = path.to_str().unwrap();
    let to = format!("{text}-elsewhere");
    let open = |options: &mut OpenOptions| options.open(path).map(|_| 0);
    let mut answers: Vec<(&str, std::io::Result<u64>)> = vec![
        ("stat", fs::metadata(path).map(|found| found.len())),
        ("lstat", fs::symlink_metadata(path).map(|found| found.len())),
        ("open", File::open(path).map(|_| 0)),
        ("open write", open(OpenOptions::new().write(true))),
        ("open append", open(OpenOptions::new().append(true))),
        ("create", open(OpenOptions::new().write(true).create(true))),
        ("create new", open(OpenOptions::new().write(true).create_new(true))),
        ("truncate", open(OpenOptions::new().write(true).truncate(true))),
        ("readdir", fs::read_dir(path).map(|_| 0)),
        ("mkdir", fs::create_dir(path).map(|()| 0)),
        ("rmdir", fs::remove_dir(path).map(|()| 0)),
        ("unlink", fs::remove_file(path).map(|()| 0)),
        ("rename from", fs::rename(path, &to).map(|()| 0)),
        ("rename to", fs::rename(&to, path).map(|()| 0)),
        ("link from", fs::hard_link(path, &to).map(|()| 0)),
        ("symlink", std::os::unix::fs::symlink("x", path).map(|()| 0)),
        ("readlink", fs::read_link(path).map(|_| 0)),
        ("chmod", fs::set_permissions(path, fs::Permissions::from_mode(0o400)).map(|()| 0)),
        ("chown", std::os::unix::fs::chown(path, Some(1000), None).map(|()| 0)),
        ("getxattr", xattr::get(path, "user.secretfs.version").map(|_| 0)),
        ("listxattr", xattr::list(path).map(|_| 0)),
        ("setxattr", xattr::set(path, "user.secretfs.tags", b"x").map(|()| 0)),
        ("canonicalize", fs::canonicalize(path).map(|_| 0)),
    ];
    for view in ["meta", "previous", "1", "pending", "expect=1"] {
        answers.push((view, File::open(format!("{text}@{view}")).map(|_| 0)));
    }
    answers.push(("@json", File::open(path.join("@json")).map(|_| 0)));
    answers.push(("inotify", attack::watch(path).map_err(std::io::Error::from_raw_os_error)));
    answers
        .into_iter()
        .map(|(what, answer)| (what.to_owned(), answer.map_err(|err| number(&err))))
        .collect()
}

/// K1: numbers that could be counted up from one's own would tell of others.
#[test]
fn inode_numbers_of_names_made_one_after_the_other_are_not_in_a_row() {
    let Some(world) = World::start() else { return };
    let inode = |number: u32| {
        world.put(&format!("k{number}"), "example-value");
        common::inode(&world.path(&format!("k{number}")))
    };
    let inodes: Vec<u64> = (0..20).map(inode).collect();
    let near = inodes.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) < 1 << 32).count();
    assert!(near <= 1, "{inodes:?}");
}

/// K3 and F6: what one caller was told must not be what the next is told.
#[test]
fn what_one_caller_looked_up_is_not_cached_for_another() {
    let Some(world) = World::with_policy(APP) else { return };
    world.put("top", "example-value");
    world.put("app/k", "example-value");
    for _ in 0..if full() { 10_000 } else { 200 } {
        assert_eq!(world.get("top").unwrap(), b"example-value");
        let told = Person::new(1000).run(|| {
            let stat = fs::metadata(world.path("top")).map(|_| ()).map_err(|err| number(&err));
            (stat, read(&world.path("app/k")).is_ok())
        });
        assert_eq!(told, (Err(libc::EACCES), true));
    }
    // A refusal that went into the cache would be root's too.
    assert_eq!(world.get("top").unwrap(), b"example-value");
}

/// K3 and F5, as the default mode has it: below a directory that a caller cannot look up it watches nothing.
#[test]
fn nobody_watches_a_directory_that_they_cannot_look_up() {
    let Some(world) = World::with_policy(APP) else { return };
    world.put("hidden/k", "example-value");
    let watched = Person::new(1000).run(|| {
        let watch = |name| attack::watch(&world.path(name)).map(drop);
        (watch("hidden"), watch("hidden/k"))
    });
    assert_eq!(watched, (Err(libc::EACCES), Err(libc::EACCES)));
}

/// K5: bytes made for one caller are never another's page.
#[test]
fn two_callers_that_map_one_view_see_each_their_own() {
    let Some(world) = World::with_policy(APP) else { return };
    world.put("app/k", "example-value");
    world.put("app/locked", "admins-alone");
    let map = || {
        let path = world.path("app/@json");
        let file = File::open(&path).unwrap();
        let mut text = read(&path).unwrap();
        if let Ok(mapping) = Mapping::new(&file, 4096, MapFlags::MAP_PRIVATE) {
            text.extend(mapping.bytes());
        }
        String::from_utf8(text).unwrap()
    };
    for _ in 0..if full() { 10_000 } else { 50 } {
        assert!(map().contains("admins-alone"));
        let theirs = Person::new(1000).run(map);
        assert!(theirs.contains("example-value") && !theirs.contains("admins-alone"));
    }
}

/// K7 and F9: a caller that stands still in the middle of a request holds nobody up; here one that is
/// stopped while it has the file open, and one whose own files in /proc hang for whoever reads them.
#[test]
fn a_caller_that_is_stopped_holds_nobody_up() {
    let Some(world) = World::with_policy(APP) else { return };
    world.put("app/k", "example-value");
    let script = format!("exec 3<{}; kill -STOP $$", world.path("app/k").display());
    let mut stopped: Vec<_> = (0..16)
        .map(|_| {
            let mut command = Person::new(1000).command("/bin/sh");
            command.args(["-c", &script]).stdin(Stdio::null()).process_group(0).spawn().unwrap()
        })
        .collect();
    for child in &stopped {
        let state = || fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
        common::eventually("stopped", || state().contains(") T "));
    }
    for _ in 0..50 {
        assert_eq!(
            Person::new(1000).run(|| read(&world.path("app/k"))),
            Ok(b"example-value".to_vec())
        );
    }
    for child in &mut stopped {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// K10.
#[test]
fn a_gigabyte_written_is_too_big_at_the_limit_and_takes_no_memory() {
    let Some(world) = World::start() else { return };
    world.put("k", "example-value");
    let before = resident(world.pid());
    let mut file = File::create(world.path("k")).unwrap();
    let block = vec![b'x'; 1 << 20];
    let mut written = 0_u64;
    let refused = loop {
        match file.write(&block) {
            Ok(more) => written += more as u64,
            Err(err) => break number(&err),
        }
        assert!(written <= 1 << 30);
    };
    let sparse = OpenOptions::new().write(true).open(world.path("k")).unwrap();
    let far = std::os::unix::fs::FileExt::write_at(&sparse, b"x", 1 << 30);
    assert_eq!(refused, libc::EFBIG);
    assert_eq!(far.map_err(|err| number(&err)), Err(libc::EFBIG));
    assert!(written <= 1 << 20, "{written}");
    let grown = resident(world.pid()).saturating_sub(before);
    assert!(grown < 16 << 20, "the daemon grew by {grown} bytes");
    drop((file, sparse));
}

/// Returns the resident memory of a process in bytes.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// K9 and K10.
#[test]
fn one_uid_runs_into_its_quotas_and_another_does_not_notice() {
    let Some(world) = World::with_policy(APP) else { return };
    world.put("app/k", "example-value");
    let greedy = Person::new(1000).run(|| {
        let scratch = (0..100)
            .map(|number| File::create(world.path(&format!("app/.scratch-{number}"))).map(drop))
            .find_map(|made| made.err().map(|err| number_of(&err)));
        (scratch, 0)
    });
    assert_eq!(greedy.0, Some(libc::EDQUOT));
    setrlimit(Resource::RLIMIT_NOFILE, 8192, 8192).unwrap();
    let refused = Person::new(1000).run(|| {
        let path = world.path("app/k");
        let mut held = Vec::new();
        let refused = loop {
            match File::open(&path) {
                Ok(file) => held.push(file),
                Err(err) => break number_of(&err),
            }
        };
        // Everybody else goes on meanwhile.
        (refused, held.len())
    });
    assert_eq!(refused, (libc::EMFILE, 4096));
    assert_eq!(world.get("app/k").unwrap(), b"example-value");
    assert!(
        Person::new(1000).run(|| read(&world.path("app/k"))).is_ok(),
        "what was closed counts still"
    );
}

fn number_of(err: &std::io::Error) -> i32 {
    number(err)
}

/// K13.
#[test]
fn nothing_on_the_mount_can_be_run_and_no_setuid_or_device_counts() {
    let Some(world) = World::start() else { return };
    world.put("program", "#!/bin/sh\necho ran\n");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = mounts.lines().find(|line| line.contains(world.mountpoint())).unwrap();
    for flag in ["nosuid", "nodev", "noexec", "fuse.secretfs"] {
        assert!(line.contains(flag), "{flag} is not in {line}");
    }
    let run = Command::new(world.path("program")).output();
    assert_eq!(run.map(|_| ()).map_err(|err| number(&err)), Err(libc::EACCES));
}

/// K14.
#[test]
fn a_crawler_that_stays_on_its_filesystem_opens_no_secret() {
    let Some(world) = World::start() else { return };
    world.put("a/k", "example-value");
    let reads = || world.audit().iter().filter(|line| line["action"] == "read").count();
    let before = reads();
    let crawl = format!("find {} -xdev -type f -exec cat {{}} +", world.outside("").display());
    let output = common::bounded(Command::new("sh").args(["-c", &crawl]));
    assert!(!String::from_utf8_lossy(&output.stdout).contains("example-value"));
    assert_eq!(reads(), before);
    let there = fs::metadata(world.path("")).unwrap().dev();
    assert_ne!(there, fs::metadata(world.outside("")).unwrap().dev());
}

/// K14: views are not listed, so that a crawler which does come in meets each secret once.
#[test]
fn a_crawler_that_comes_in_meets_each_secret_once() {
    let Some(world) = World::start() else { return };
    world.put("a/k", "example-value");
    world.put("a/k", "example-value-2");
    world.put("b", "example-value-3");
    let found = world.sh_ok("find . -path ./.control -prune -o -type f -print | sort");
    assert_eq!(found, "./a/k\n./b\n");
}

/// K16.
#[test]
fn an_abort_of_the_daemon_leaves_no_core() {
    let Some(world) = World::start() else { return };
    world.put("k", "example-value");
    let pid = Pid::from_raw(world.pid().cast_signed());
    kill(pid, Signal::SIGABRT).unwrap();
    // Left to be reaped by the world.
    let ended = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
    assert_eq!(ended, WaitStatus::Signaled(pid, Signal::SIGABRT, false));
}
