//! What the mount itself gives away or can be hurt by (THREATS 1.4).
//!
//! Elsewhere: K1, K4 in `errno` and the K3 rows in `access`; a crawler that comes in and the flags of K13 in
//! `control`; K6 in `read_exact`; K8 in `fs::workers`; K9 for plaintext in `fs::quota`; K11 and K12 with
//! takeover; K2 in `benches/broker.rs`, since no test may assert a time.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use fuser::{
    BackgroundSession, Config, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEntry, ReplyOpen, Request, Session,
    SessionACL,
};
use nix::mount::{MntFlags, umount2};
use nix::sys::mman::MapFlags;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use super::common::syscall::Mapping;
use super::common::{self, Person, World, list, number, read};
use super::{APP, attack, full};

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

/// F9: a filesystem of the attacker's own. Its one file is read for ever, and mapping it waits for that
/// read, with the address space of whoever maps it locked.
#[derive(Default)]
struct Trap {
    opened: AtomicU64,
    held: Mutex<Vec<ReplyData>>,
}

impl Trap {
    const TTL: Duration = Duration::from_secs(1000);

    fn attributes(inode: INodeNo) -> FileAttr {
        let directory = inode == INodeNo::ROOT;
        let epoch = SystemTime::UNIX_EPOCH;
        FileAttr {
            ino: inode,
            size: 4096,
            blocks: 8,
            atime: epoch,
            mtime: epoch,
            ctime: epoch,
            crtime: epoch,
            kind: if directory { FileType::Directory } else { FileType::RegularFile },
            perm: if directory { 0o755 } else { 0o644 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl Filesystem for Trap {
    fn lookup(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEntry) {
        reply.entry(&Self::TTL, &Self::attributes(INodeNo(2)), Generation(0));
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&Self::TTL, &Self::attributes(inode));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // The first one reads through the page cache; who maps without it waits for that page.
        let first = self.opened.fetch_add(1, Ordering::SeqCst) == 0;
        let flags = if first { FopenFlags::empty() } else { FopenFlags::FOPEN_DIRECT_IO };
        reply.opened(FileHandle(0), flags);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.held.lock().unwrap().push(reply);
    }
}

/// Opens the secret for ever, while another thread of this process maps the trap.
fn attack_from_a_locked_address_space(trap: &Path, secret: &Path) {
    let opened = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            loop {
                // From the second time on this needs no page that is not there yet.
                drop(File::open(secret).unwrap());
                opened.store(true, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        while !opened.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let file = File::open(trap).unwrap();
        drop(Mapping::new(&file, 4096, MapFlags::MAP_PRIVATE));
    });
}

/// Returns how many threads of a process wait and cannot be killed.
fn stuck_threads(pid: u32) -> usize {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let stat = |task: fs::DirEntry| fs::read_to_string(task.path().join("stat")).ok();
    tasks.filter_map(stat).filter(|stat| stat.contains(") D ")).count()
}

/// F9, K7.
#[test]
fn callers_that_lock_their_own_address_space_hold_nobody_up() {
    const NAME: &str = "kernel::callers_that_lock_their_own_address_space_hold_nobody_up";
    if let Some(paths) = std::env::var_os("SECRETFS_TEST_TRAP") {
        let paths = paths.into_string().unwrap();
        let (trap, secret) = paths.split_once(':').unwrap();
        return attack_from_a_locked_address_space(Path::new(trap), Path::new(secret));
    }
    // A rule on the program, so that the daemon looks into /proc for every request of the attackers.
    let program = std::env::current_exe().unwrap();
    let policy =
        format!("{APP}exe = [{program:?}, \"/bin/true\"]\n").replace("[1000]", "[1000, 1001]");
    let honest = "[[binding]]\nid = \"honest\"\nrole = \"app\"\nuid = [1002]\n";
    let Some(world) = World::with_policy(&format!("{policy}{honest}")) else { return };
    world.put("app/k", "example-value");
    let point = world.outside("trap");
    fs::create_dir(&point).unwrap();
    let mut config = Config::default();
    config.acl = SessionACL::All;
    let trap = Session::new(Trap::default(), &point, &config).unwrap().spawn().unwrap();
    let mut trap = Trapped { point: point.clone(), session: Some(trap), attackers: Vec::new() };
    let bait = point.join("f");
    trap.attackers.push(Command::new("head").args(["-c1"]).arg(&bait).spawn().unwrap());
    let waits = |child: &Child| stuck_threads(child.id()) > 0;
    common::eventually("the bait is being read", || waits(&trap.attackers[0]));
    let paths = format!("{}:{}", bait.display(), world.path("app/k").display());
    for _ in 0..64 {
        let mut attacker = Person::new(1000).command(&program);
        attacker.args(["--exact", NAME, "--nocapture"]).env("SECRETFS_TEST_TRAP", &paths);
        attacker.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        trap.attackers.push(attacker.spawn().unwrap());
    }
    common::eventually("all address spaces are locked", || trap.attackers.iter().all(waits));
    let attacks = || world.audit_of("app/k", "read", "allowed", 1000).len();
    let before = attacks();
    common::eventually("they open the secret meanwhile", || attacks() > before);
    for _ in 0..50 {
        let value = Person::new(1002).run(|| read(&world.path("app/k")));
        assert_eq!(value, Ok(b"example-value".to_vec()));
    }
    common::eventually("no thread of the daemon waits", || stuck_threads(world.pid()) == 0);
    drop(trap);
}

/// The attackers with their filesystem; dropped, they are freed and ended before anything else.
struct Trapped {
    point: PathBuf,
    session: Option<BackgroundSession>,
    attackers: Vec<Child>,
}

impl Drop for Trapped {
    fn drop(&mut self) {
        for attacker in &mut self.attackers {
            drop(attacker.kill());
        }
        // Ends every request that waits there.
        let _ = umount2(&self.point, MntFlags::MNT_FORCE);
        let _ = umount2(&self.point, MntFlags::MNT_DETACH);
        for attacker in &mut self.attackers {
            drop(attacker.wait());
        }
        drop(self.session.take());
    }
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

/// K10: what outlives its maker is counted by maker.
#[test]
fn one_uid_runs_into_its_share_of_secrets_and_of_directories_and_is_told_so() {
    let policy = format!("{}\n{APP}", common::ROOT_IS_ADMIN);
    let limits = "[limits]\nsecrets_per_uid = 3\ndirectories_per_uid = 2\n";
    let Some(world) = World::with(&policy, limits) else { return };
    world.put("app/k", "example-value");
    let (secrets, directories, whoami) = Person::new(1000).run(|| {
        let count = |make: &dyn Fn(usize) -> common::Tried<()>| {
            let made = (0..10).map(make).collect::<Vec<_>>();
            (made.iter().filter(|made| made.is_ok()).count(), made.last().copied().unwrap().err())
        };
        let secrets = count(&|n| {
            let opened = File::create(world.path(&format!("app/s{n}")));
            let mut file = opened.map_err(|err| number(&err))?;
            file.write_all(b"example-value").map_err(|err| number(&err))?;
            common::close(file)
        });
        let make = |n| fs::create_dir(world.path(&format!("app/d{n}"))).map_err(|err| number(&err));
        let directories = count(&make);
        (secrets, directories, fs::read_to_string(world.path(".control/whoami")).unwrap())
    });
    assert_eq!(secrets, (3, Some(libc::EDQUOT)));
    assert_eq!(directories, (2, Some(libc::EDQUOT)));
    assert!(whoami.contains("secrets made: 3 of 3\ndirectories made: 2 of 2\n"), "{whoami}");
    world.put("app/n", "the admin goes on");
    let over = Person::new(1000).run(|| common::write(&world.path("app/s0"), b"new-version"));
    assert_eq!(over, Ok(()), "a version is no secret more");
}

/// K13.
#[test]
fn nothing_on_the_mount_can_be_run() {
    let Some(world) = World::start() else { return };
    world.put("program", "#!/bin/sh\necho ran\n");
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

/// K16.
#[test]
fn an_abort_of_the_daemon_leaves_no_core() {
    // Without a keeper, which would reap it.
    let config = "keeper = \"off\"";
    let Some(world) = World::with(crate::common::ROOT_IS_ADMIN, config) else { return };
    world.put("k", "example-value");
    let pid = Pid::from_raw(world.pid().cast_signed());
    kill(pid, Signal::SIGABRT).unwrap();
    // Left to be reaped by the world.
    let ended = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
    assert_eq!(ended, WaitStatus::Signaled(pid, Signal::SIGABRT, false));
}
