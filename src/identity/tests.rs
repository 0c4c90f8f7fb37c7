//! Real processes, threads and namespaces; nothing here is a stand-in but the fake table entries.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getgid, getgroups, gettid, getuid};
use sha2::Digest as _;

use super::observer::{Digest, serve};
use super::table::{Entry, Guard};
use super::*;
use crate::model::{Caller, Gid, ManualClock, Needs, Uid};
use crate::system::{Channel, PidFd, procfs};

const NOTHING: Needs =
    Needs { groups: false, exe: false, exe_sha256: false, process: false, session: false };
const EXE: Needs = Needs { exe: true, ..NOTHING };
const GROUPS: Needs = Needs { groups: true, ..NOTHING };

/// A process that ends with the test.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap())
    }

    /// Starts `cat`, which waits for input that does not come.
    fn idle() -> Self {
        Self::start(&mut Command::new("cat"))
    }

    fn shell(script: &str) -> Self {
        Self::start(Command::new("sh").args(["-c", script]))
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        BufReader::new(self.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        line
    }

    fn say(&mut self, line: &str) {
        self.0.stdin.as_mut().unwrap().write_all(line.as_bytes()).unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn uid() -> Uid {
    Uid(getuid().as_raw())
}

fn callers(capacity: usize) -> Callers {
    Callers::new(
        Options { capacity, look_age: Duration::ZERO },
        None,
        Arc::new(ManualClock::at(1_800_000_000)),
    )
}

fn identify(callers: &Callers, tid: u32, needs: Needs) -> Caller {
    callers.identify(uid(), Gid(getgid().as_raw()), tid, needs)
}

/// Waits for what must come to pass, for much longer than it takes.
fn eventually<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(30) {
        match attempt() {
            Some(value) => return value,
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    }
    panic!("it did not come to pass");
}

#[expect(
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "how a test says that it cannot run here"
)]
fn skip(why: &str) {
    assert!(std::env::var("SECRETFS_REQUIRE_ALL").is_err(), "cannot run: {why}");
    eprintln!("SKIP: {why}");
}

#[test]
fn a_thread_is_known_by_its_process() {
    let callers = callers(8);
    let tid = gettid().as_raw().unsigned_abs();
    let caller = identify(&callers, tid, NOTHING);
    let process = caller.process.unwrap();
    assert_ne!(tid, process.pid, "tests run in threads beside the first");
    assert_eq!((caller.tid, process.pid), (Some(tid), std::process::id()));
    assert_eq!(process.comm, procfs::stat(process.pid).unwrap().comm);
    assert_eq!(process.exe.as_ref().unwrap().path, std::env::current_exe().unwrap());
}

#[test]
fn a_process_started_when_the_kernel_says() {
    let child = Running::idle();
    let clock = ManualClock::at(1_800_000_000);
    let started = identify(&callers(8), child.pid(), NOTHING).process.unwrap().started;
    let now = crate::model::Clock::now(&clock);
    assert!(started <= now && now.duration_since(started).as_secs() < 60, "{started}");
}

#[test]
fn without_a_thread_or_with_another_s_uid_no_process_is_told() {
    let child = Running::idle();
    let callers = callers(8);
    let outside = callers.identify(Uid(7), Gid(8), 0, EXE);
    assert_eq!((outside.uid, outside.gid, outside.tid), (Uid(7), Gid(8), None));
    assert_eq!((outside.process, outside.exe_now), (None, None));
    for _ in 0..2 {
        let other = callers.identify(Uid(uid().0 + 1), Gid(8), child.pid(), EXE);
        assert_eq!((other.process, other.exe_now), (None, None));
        assert!(identify(&callers, child.pid(), NOTHING).process.is_some());
    }
}

#[test]
fn a_dead_thread_is_not_known() {
    let child = Running::idle();
    let pid = child.pid();
    let callers = callers(8);
    assert!(identify(&callers, pid, NOTHING).process.is_some());
    drop(child);
    assert_eq!(identify(&callers, pid, NOTHING).process, None);
    assert_eq!(callers.table().len(), 0);
}

/// For records alone: what a rule binds, and a caller under another uid, is looked at each time.
#[test]
fn a_look_serves_for_records_until_it_is_old_and_never_for_rules_or_another_uid() {
    let (alive, gone) = (Running::idle(), Running::idle());
    let look = |look_age, verified: Uid, needs| {
        let clock = Arc::new(ManualClock::at(1_800_000_000));
        let callers = Callers::new(Options { capacity: 8, look_age }, None, clock);
        // As if its thread had ended since, and its number belonged to `alive` now.
        let entry = Entry::new(
            identify(&callers, gone.pid(), NOTHING).process.unwrap(),
            Guard::StartTicks(1),
        );
        entry.assume_verified(verified);
        callers.table().insert(alive.pid(), Arc::new(entry));
        identify(&callers, alive.pid(), needs).process.unwrap().pid
    };
    let hour = Duration::from_secs(3600);
    assert_eq!(look(hour, uid(), NOTHING), gone.pid());
    for needs in [Needs { process: true, ..NOTHING }, GROUPS, EXE] {
        assert_eq!(look(hour, uid(), needs), alive.pid());
    }
    assert_eq!(look(hour, Uid(uid().0 + 1), NOTHING), alive.pid());
    assert_eq!(look(Duration::ZERO, uid(), NOTHING), alive.pid());
}

#[test]
fn an_entry_under_a_number_that_was_used_again_is_not_served() {
    let (alive, victim, dead) = (Running::idle(), Running::idle(), Running::idle());
    let stale = |pid: u32| {
        let mut process = (*identify(&callers(8), pid, NOTHING).process.unwrap()).clone();
        process.comm = b"stale".to_vec();
        Arc::new(process)
    };
    let pidfd = |pid: u32| {
        let fd = PidFd::of_thread(pid).unwrap();
        Guard::PidFd { cgroup: fd.info().unwrap().cgroup, fd }
    };
    let mut fakes = vec![
        Entry::new(stale(alive.pid()), pidfd(alive.pid())),
        Entry::new(stale(victim.pid()), pidfd(alive.pid())),
        Entry::new(stale(victim.pid()), Guard::StartTicks(1)),
        Entry::new(stale(dead.pid()), pidfd(dead.pid())),
    ];
    let ticks = procfs::stat(victim.pid()).unwrap().start_ticks;
    fakes.push(Entry::new(stale(alive.pid()), Guard::StartTicks(ticks)));
    drop(dead);
    for fake in fakes {
        let callers = callers(8);
        let shown = format!("{fake:?}");
        callers.table().insert(victim.pid(), Arc::new(fake));
        let process = identify(&callers, victim.pid(), NOTHING).process.unwrap();
        assert_eq!((process.pid, &*process.comm), (victim.pid(), &b"cat"[..]), "{shown}");
    }
}

#[test]
fn without_pidfds_the_start_of_the_thread_guards_it() {
    let child = Running::idle();
    let callers = callers(8);
    let process = identify(&callers, child.pid(), NOTHING).process.unwrap();
    let ticks = procfs::stat(child.pid()).unwrap().start_ticks;
    let entry = Entry::new(process, Guard::StartTicks(ticks));
    assert_eq!(entry.verify(child.pid()), Some(uid()));
    assert_eq!(entry.verify(std::process::id()), None);
}

#[test]
fn what_runs_now_follows_an_exec_and_what_ran_first_stays_on_record() {
    let mut child = Running::shell("echo ready; read go; exec cat");
    child.line();
    let callers = callers(8);
    let before = identify(&callers, child.pid(), EXE);
    let first = before.exe_now.unwrap();
    child.say("go\n");
    let after = eventually(|| {
        let caller = identify(&callers, child.pid(), EXE);
        caller.exe_now.clone().filter(|exe| exe.path != first.path).map(|exe| (exe, caller))
    });
    assert!(after.0.path.ends_with("cat") || after.0.path.ends_with("coreutils"), "{after:?}");
    assert_eq!(after.1.process.unwrap().exe.as_ref(), Some(&*first));
    assert_eq!(identify(&callers, child.pid(), NOTHING).exe_now, None, "nobody asked");
}

#[test]
fn root_of_a_user_namespace_has_the_uid_of_the_host() {
    let mut command = Command::new("unshare");
    command.args(["-Ur", "sh", "-c", "id -u; read end"]).current_dir("/");
    let outside = if uid() == Uid(0) { Uid(65534) } else { uid() };
    if uid() == Uid(0) {
        command.uid(outside.0).gid(65534);
    }
    let mut child = Running::start(command.stderr(Stdio::null()));
    if child.line() != "0\n" {
        return skip("no user namespaces for ordinary users");
    }
    let callers = callers(8);
    let found = callers.identify(outside, Gid(65534), child.pid(), NOTHING);
    assert_eq!(found.process.unwrap().pid, child.pid());
    assert_eq!(callers.identify(Uid(0), Gid(0), child.pid(), NOTHING).process, None);
}

#[test]
fn supplementary_groups_are_told_when_asked_for() {
    let callers = callers(8);
    let child = Running::idle();
    let told = identify(&callers, child.pid(), GROUPS).groups.unwrap();
    let ours: Vec<Gid> = getgroups().unwrap().iter().map(|gid| Gid(gid.as_raw())).collect();
    assert_eq!(*told, *ours);
    assert_eq!(identify(&callers, child.pid(), NOTHING).groups, None);
    if uid() != Uid(0) {
        return skip("only root may choose groups");
    }
    let args = ["--reuid=65534", "--regid=65534", "--groups=7,8", "sh", "-c", "echo; read end"];
    let mut other = Running::start(Command::new("setpriv").args(args));
    assert_eq!(other.line(), "\n");
    let told = callers.identify(Uid(65534), Gid(65534), other.pid(), GROUPS);
    assert_eq!(*told.groups.unwrap(), [Gid(7), Gid(8)]);
}

#[expect(clippy::disallowed_methods, reason = "the size of a campaign is no configuration")]
fn short_processes() -> usize {
    let is_full = std::env::var("SECRETFS_CAMPAIGN").is_ok_and(|campaign| campaign == "full");
    if is_full { 10_000 } else { 60 }
}

#[test]
fn a_stream_of_short_processes_neither_grows_the_table_nor_drives_out_a_caller_that_stays() {
    let callers = callers(16);
    let stays = Running::idle();
    let first = identify(&callers, stays.pid(), NOTHING).process.unwrap();
    for _ in 0..short_processes() {
        let short = Running::idle();
        assert!(identify(&callers, short.pid(), NOTHING).process.is_some());
        let again = identify(&callers, stays.pid(), NOTHING).process.unwrap();
        assert!(Arc::ptr_eq(&first, &again), "it was driven out");
        assert!(callers.table().len() <= 16);
    }
    assert_eq!(callers.table().len(), 16);
}

/// A program that serves as the observer: this test binary, told to run one test.
struct Program {
    dir: tempfile::TempDir,
}

impl Program {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let program = Self { dir };
        let us = std::env::current_exe().unwrap();
        let mut file = File::create(program.path()).unwrap();
        let test = "identity::tests::the_process_that_is_the_observer";
        write!(
            file,
            "#!/bin/sh\necho $$ > {pid}.new && mv {pid}.new {pid}\n\
             exec {us:?} --ignored --exact {test} --test-threads=1\n",
            pid = program.pid_file().display()
        )
        .unwrap();
        file.set_permissions(PermissionsExt::from_mode(0o700)).unwrap();
        program
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("observer")
    }

    fn pid_file(&self) -> PathBuf {
        self.dir.path().join("pid")
    }

    fn pid(&self) -> Pid {
        let text = eventually(|| std::fs::read_to_string(self.pid_file()).ok());
        Pid::from_raw(text.trim().parse().unwrap())
    }

    fn spawn(&self) -> Observer {
        // Another test's fork may hold the script open for writing until its exec.
        eventually(|| Observer::spawn(&self.path()).ok())
    }
}

#[test]
#[ignore = "started by the other tests as a process of its own"]
fn the_process_that_is_the_observer() {
    if let Ok(channel) = Channel::inherited() {
        serve(channel).unwrap();
    }
}

fn sha256(path: &std::path::Path) -> [u8; 32] {
    sha2::Sha256::digest(std::fs::read(path).unwrap()).into()
}

#[test]
fn the_observer_tells_the_program_and_its_digest() {
    let program = Program::new();
    let observer = program.spawn();
    let child = Running::idle();
    let path = procfs::exe(child.pid()).unwrap();
    let told = eventually(|| observer.exe(uid(), child.pid(), Digest::Unwanted));
    assert_eq!((&told.path, told.sha256), (&path, None));
    for _ in 0..2 {
        let digest = eventually(|| observer.exe(uid(), child.pid(), Digest::Wanted)?.sha256);
        assert_eq!(digest, sha256(&path));
    }
    assert_eq!(observer.exe(uid(), 0, Digest::Wanted), None);
}

#[test]
fn a_caller_has_the_digest_of_its_program_through_the_observer() {
    let program = Program::new();
    let clock = Arc::new(ManualClock::at(1_800_000_000));
    let callers = Callers::new(Options::default(), Some(Arc::new(program.spawn())), clock);
    let child = Running::idle();
    let needs = Needs { exe: true, exe_sha256: true, ..NOTHING };
    let digest = eventually(|| identify(&callers, child.pid(), needs).exe_now?.sha256);
    assert_eq!(digest, sha256(&procfs::exe(child.pid()).unwrap()));
}

#[test]
fn many_threads_get_the_answer_to_their_own_question() {
    let program = Program::new();
    let observer = program.spawn();
    let children = [
        Running::idle(),
        Running::shell("read end"),
        Running::start(Command::new("tail").args(["-f", "/dev/null"])),
    ];
    eventually(|| observer.exe(uid(), children[0].pid(), Digest::Wanted));
    std::thread::scope(|scope| {
        for n in 0..6_u32 {
            let (observer, child) = (&observer, &children[n as usize % 3]);
            let digest = if n < 3 { Digest::Wanted } else { Digest::Unwanted };
            scope.spawn(move || {
                let path = procfs::exe(child.pid()).unwrap();
                for _ in 0..50 {
                    if let Some(exe) = observer.exe(Uid(n), child.pid(), digest) {
                        assert_eq!(exe.path, path);
                    }
                }
            });
        }
    });
}

#[test]
fn a_killed_observer_means_an_unknown_program_and_comes_back() {
    let program = Program::new();
    let observer = program.spawn();
    let child = Running::idle();
    eventually(|| observer.exe(uid(), child.pid(), Digest::Unwanted));
    let first = program.pid();
    std::fs::remove_file(program.pid_file()).unwrap();
    kill(first, Signal::SIGKILL).unwrap();
    // It may still answer what it read before it died, then no more.
    eventually(|| observer.exe(uid(), child.pid(), Digest::Unwanted).is_none().then_some(()));
    eventually(|| observer.exe(uid(), child.pid(), Digest::Unwanted));
    assert_ne!(program.pid(), first);
}

#[test]
fn an_observer_that_hangs_is_not_waited_for() {
    let program = Program::new();
    let observer = program.spawn();
    let child = Running::idle();
    eventually(|| observer.exe(uid(), child.pid(), Digest::Unwanted));
    kill(program.pid(), Signal::SIGSTOP).unwrap();
    // The signal is on its way when kill(2) returns; a thread may still answer before it stops.
    eventually(|| is_stopped(program.pid()).then_some(()));
    assert_eq!(observer.exe(uid(), child.pid(), Digest::Unwanted), None);
    kill(program.pid(), Signal::SIGCONT).unwrap();
    eventually(|| observer.exe(uid(), child.pid(), Digest::Unwanted));
}

/// Tells whether every thread of a process is stopped: state T in proc_pid_stat(5).
fn is_stopped(pid: Pid) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks.into_iter().all(|task| {
        let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    })
}

#[test]
fn the_observer_ends_with_the_server_and_has_one_capability_at_most() {
    let program = Program::new();
    let observer = program.spawn();
    let child = Running::idle();
    eventually(|| observer.exe(uid(), child.pid(), Digest::Unwanted));
    let pid = program.pid();
    // The thread that serves; the test harness around it is no part of the observer.
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let capabilities = tasks.map(|task| {
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("CapPrm:\t")).unwrap();
        u64::from_str_radix(line, 16).unwrap()
    });
    assert_eq!(capabilities.min().unwrap() & !(1 << 19), 0);
    drop(observer);
    eventually(|| kill(pid, None).is_err().then_some(()));
}

#[test]
fn a_container_s_name_counts_only_where_root_alone_could_give_it() {
    let dir = tempfile::tempdir().unwrap();
    let parents = [dir.path().join("missing"), dir.path().to_owned()];
    let parents = parents.map(|path| path.to_str().unwrap().to_owned());
    let is_root_s = || super::callers::is_root_s(&parents);
    assert_eq!(is_root_s(), uid() == Uid(0));
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).unwrap();
    assert!(!is_root_s());
    drop(dir);
    assert!(!is_root_s());
}

#[test]
fn the_observer_sees_what_other_users_run() {
    if uid() != Uid(0) {
        return skip("only root has processes of another user");
    }
    let program = Program::new();
    let observer = program.spawn();
    let child = Running::start(Command::new("cat").uid(65534).gid(65534).current_dir("/"));
    let exe = eventually(|| observer.exe(Uid(65534), child.pid(), Digest::Unwanted));
    assert_eq!(exe.path, procfs::exe(child.pid()).unwrap());
}
