//! Callers that misbehave: killed in the middle of anything, many at a time, and crawlers (THREATS 1.1 and
//! 1.4: A5, K8, K9, K14).

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use super::APP;
use super::common::{self, Person, World, eventually, noise, read};

/// Each operation that a shell can do, one after the other, with a line before each round.
const EVERYTHING: &str = "while :; do echo round; printf v > n$$; cat k > /dev/null; printf w >> n$$; \
    mv n$$ m$$; mkdir d$$; ls -l > /dev/null; rmdir d$$; printf s > .s$$.tmp; mv .s$$.tmp m$$; rm m$$; done";

/// Says how many files it could open, and holds them until it is told to end.
const OPEN_UNTIL_REFUSED: &str =
    "n=0; while { exec {fd}< $1; } 2> /dev/null; do n=$((n + 1)); done; echo $n; read -r end";

/// FUSE INTERRUPT, and RELEASE of what nobody closes.
#[test]
fn callers_killed_in_the_middle_of_any_operation_leave_no_handle_and_no_half_version() {
    let Some(world) = World::with_policy(APP) else { return };
    world.put("app/k", "example-value");
    let rounds = noise(0xdead, if super::full() { 1000 } else { 24 });
    for chunk in rounds.chunks(6) {
        let start = |_: &u8| {
            let mut command = Person::new(1000).command("/bin/sh");
            command.args(["-c", EVERYTHING]).current_dir(world.path("app"));
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
            command.process_group(0).spawn().unwrap()
        };
        let mut callers: Vec<Child> = chunk.iter().map(start).collect();
        for (caller, rounds) in callers.iter_mut().zip(chunk) {
            let lines = BufReader::new(caller.stdout.take().unwrap()).lines();
            assert!(lines.take(usize::from(rounds % 8) + 1).all(|line| line.is_ok()));
            killpg(Pid::from_raw(caller.id().cast_signed()), Signal::SIGKILL).unwrap();
        }
        for caller in &mut callers {
            eventually("the killed caller is gone", || caller.try_wait().unwrap().is_some());
        }
    }
    setrlimit(Resource::RLIMIT_NOFILE, 8192, 8192).unwrap();
    eventually("all handles are given back", || handles(&world, 1000) == 4096);
    for entry in world.list("app") {
        let value = world.get(&format!("app/{entry}"));
        let whole = [Ok(&b"v"[..]), Ok(b"vw"), Ok(b"s"), Ok(b"example-value"), Err(libc::EISDIR)];
        assert!(whole.contains(&value.as_deref().map_err(|errno| *errno)), "{entry}: {value:?}");
    }
    let verified = common::bounded(world.secretfs().arg("verify"));
    assert!(verified.status.success(), "{verified:?}");
}

/// Returns how many handles a uid can open at one time.
fn handles(world: &World, uid: u32) -> usize {
    let path = world.path("app/k");
    Person::new(uid).run(|| {
        let opened = std::iter::repeat_with(|| File::open(&path));
        opened.map_while(Result::ok).collect::<Vec<_>>().len()
    })
}

/// K9.
#[test]
fn fifty_processes_that_open_until_they_are_refused_share_one_quota_and_hold_nobody_else_up() {
    let Some(world) = World::with_policy(APP) else { return };
    world.put("app/k", "example-value");
    let path = world.path("app/k");
    setrlimit(Resource::RLIMIT_NOFILE, 8192, 8192).unwrap();
    let greedy = || {
        let mut command = Person::new(1000).command("/bin/bash");
        command.args(["-c", OPEN_UNTIL_REFUSED, "bash"]).arg(&path);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
    };
    let mut all: Vec<Child> = (0..50).map(|_| greedy()).collect();
    let opened = |child: &mut Child| {
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        line.trim().parse::<usize>().unwrap()
    };
    let opened: Vec<usize> = all.iter_mut().map(opened).collect();
    let refused = Person::new(1000).run(|| read(&path));
    for _ in 0..100 {
        assert_eq!(world.get("app/k").as_deref(), Ok(&b"example-value"[..]));
    }
    for child in &mut all {
        drop(child.stdin.take());
        child.wait().unwrap();
    }
    assert_eq!(refused, Err(libc::EMFILE));
    assert_eq!(opened.iter().sum::<usize>(), 4096, "{opened:?}");
    assert!(Person::new(1000).run(|| read(&path)).is_ok(), "what was closed counts still");
}

/// K8: a process that is forked while a descriptor on the own mount is open waits, at the exec, for an
/// answer that only its parent can give.
#[test]
fn no_process_of_the_daemon_has_its_own_mount_open_while_the_mount_is_in_use() {
    let Some(world) = World::with_policy(APP) else { return };
    assert!(group(&world).len() > 2, "the server and the observer run too");
    for round in 0..20 {
        world.put("app/k", format!("value-{round}"));
        assert!(Person::new(1000).run(|| read(&world.path("app/k"))).is_ok());
        assert_eq!(own_mount_open(&world), [] as [PathBuf; 0]);
    }
    let held = File::open(world.path("app/k")).unwrap();
    let mine = fs::read_to_string(format!("/proc/self/fdinfo/{}", held.as_raw_fd())).unwrap();
    assert!(mine.contains(&mount_id(&world)), "the test sees what is open: {mine}");
}

/// Returns the processes that were started for a world.
fn group(world: &World) -> Vec<Pid> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let ours = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields = stat.rsplit(") ").next().unwrap_or_default();
        let is_zombie = fields.starts_with('Z');
        let group = fields.split(' ').nth(2).and_then(|group| group.parse().ok());
        !is_zombie && group == Some(world.keeper())
    };
    pids.filter(ours).map(Pid::from_raw).collect()
}

/// Returns the descriptors of the daemon's processes that are on the mount itself: by the mount's number,
/// since the directory that it covers has the same path. Looks at links and texts of /proc alone.
fn own_mount_open(world: &World) -> Vec<PathBuf> {
    let ours = mount_id(world);
    let is_ours = |info: &PathBuf| fs::read_to_string(info).is_ok_and(|info| info.contains(&ours));
    let infos =
        |pid: Pid| fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten();
    let descriptors = group(world).into_iter().flat_map(infos).map(|entry| entry.path());
    descriptors.filter(is_ours).collect()
}

/// Returns the line by which the kernel says that a descriptor is on a world's mount.
fn mount_id(world: &World) -> String {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let point = world.path("");
    let point = point.to_str().unwrap().trim_end_matches('/');
    let ours = table.lines().find(|line| line.split(' ').nth(4) == Some(point)).unwrap();
    format!("mnt_id:\t{}\n", ours.split(' ').next().unwrap())
}

/// K14.
#[test]
fn tar_rsync_and_updatedb_that_stay_on_their_filesystem_open_no_secret() {
    let Some(world) = World::start() else { return };
    world.put("a/k", "example-value");
    let reads = || world.audit().iter().filter(|line| line["action"] == "read").count();
    let before = reads();
    let elsewhere = tempfile::tempdir().unwrap();
    let (from, to) = (world.outside(""), elsewhere.path());
    let crawl = |program: &str, script: &str| {
        let there =
            common::bounded(Command::new("sh").args(["-c", &format!("command -v {program}")]));
        if !there.status.success() {
            return common::skip(&format!("no {program} here"));
        }
        let script = format!("FROM={} TO={}; {script}", from.display(), to.display());
        let output = common::bounded(Command::new("sh").args(["-c", &script]));
        assert!(!String::from_utf8_lossy(&output.stdout).contains("example-value"), "{program}");
    };
    crawl("tar", "tar --one-file-system -cf - $FROM");
    crawl("rsync", "rsync -ax $FROM $TO; cat $TO/*/secrets/a/k");
    if Path::new("/usr/bin/updatedb").exists() {
        crawl("updatedb", "updatedb -l 0 -U $FROM -o $TO/db --prunefs fuse.secretfs; cat $TO/db");
    }
    assert_eq!(reads(), before);
}

/// A5.
#[test]
fn a_bind_of_the_mount_goes_on_when_the_server_behind_it_is_killed() {
    let Some(world) = World::start() else { return };
    world.put("a/k", "example-value");
    let bind = Bind::of(&world.path("a"), world.outside("bound"));
    for _ in 0..5 {
        let before = server(&world);
        kill(before, Signal::SIGKILL).unwrap();
        assert_eq!(read(&bind.0.join("k")).as_deref(), Ok(&b"example-value"[..]));
        assert_ne!(server(&world), before);
    }
}

fn server(world: &World) -> Pid {
    let status = String::from_utf8(world.get(".control/status").unwrap()).unwrap();
    let pid = status.lines().find_map(|line| line.strip_prefix("pid: ")).unwrap();
    Pid::from_raw(pid.parse().unwrap())
}

/// A bind mount, taken away when dropped.
struct Bind(PathBuf);

impl Bind {
    fn of(from: &Path, to: PathBuf) -> Self {
        fs::create_dir(&to).unwrap();
        mount(Some(from), &to, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        Self(to)
    }
}

impl Drop for Bind {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}
