//! People and processes (THREATS 1.1): A7 to A10.
//!
//! Elsewhere: A6 as far as this release goes in `store` (a core) and `access` (root is not exempt); A1 in `access` and `policy::oracle`; A2 and A3 in `access`; A4 in `identity::tests`.

use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::common::{self, Person, World, eventually, read};
use super::{APP, attack};

/// A7.
#[test]
fn an_unmounted_mountpoint_takes_no_file_even_from_root() {
    let Some(world) = World::start() else { return };
    world.put("k", "example-value");
    common::bounded(world.secretfs().arg("umount"));
    eventually("unmounted", || !world.path(".control").exists());
    let written = fs::write(world.path("a"), "example-value");
    if fs::metadata(world.path("")).unwrap().permissions().mode() & 0o7777 != 0 {
        panic!("the mountpoint has permissions");
    }
    // Root passes mode 0000: that it fails is the immutable flag's doing, where the filesystem has it.
    let flags = common::bounded(Command::new("lsattr").arg("-d").arg(world.path("")));
    if !flags.status.success() {
        return common::skip("the filesystem of the tests has no flags");
    }
    assert_eq!(written.map_err(|err| err.raw_os_error()), Err(Some(libc::EPERM)));
}

/// A7.
#[test]
fn a_foreign_mount_over_ours_is_reported_and_not_talked_to() {
    let Some(world) = World::start() else { return };
    world.put("k", "example-value");
    let healthy = common::bounded(world.secretfs().args(["get", "k"]));
    assert_eq!(healthy.stdout, b"example-value");
    let point = world.path("");
    mount(Some("tmpfs"), &point, Some("tmpfs"), MsFlags::empty(), Some("size=64k")).unwrap();
    fs::write(world.path("k"), "foreign-value").unwrap();
    let get = common::bounded(world.secretfs().args(["get", "k"]));
    let put = common::bounded(world.secretfs().args(["put", "--generate", "k"]));
    let doctor = common::bounded(world.secretfs().arg("doctor"));
    umount2(&point, MntFlags::empty()).unwrap();
    assert!(!get.status.success() && get.stdout.is_empty(), "{get:?}");
    assert!(!put.status.success(), "{put:?}");
    assert!(!doctor.status.success(), "{doctor:?}");
    assert_eq!(world.get("k").unwrap(), b"example-value");
}

/// A8.
#[test]
fn a_setuid_program_is_on_record_with_the_uid_that_it_runs_as() {
    let Some(world) = World::with_policy(APP) else { return };
    world.put("app/k", "example-value");
    world.put("other", "example-value");
    let directory = setuid_directory();
    let program = directory.path().join("cat");
    common::copy_program(Path::new("/bin/cat"), &program);
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).unwrap();
    let output = common::bounded(Person::new(1000).command(&program).arg(world.path("other")));
    assert_eq!(output.stdout, b"example-value", "{output:?}");
    assert_eq!(world.audit_of("other", "read", "allowed", 0).len(), 1);
    assert_eq!(world.audit_of("other", "read", "allowed", 1000).len(), 0);
}

/// Makes a directory on a filesystem where setuid counts and everybody gets to.
fn setuid_directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    directory
}

/// A9, for commands; `access` has reads and writes.
#[test]
fn a_command_file_that_was_passed_on_takes_no_command_of_another_uid() {
    let Some(world) = World::start() else { return };
    let seal = File::options().read(true).write(true).open(world.path(".control/seal")).unwrap();
    let tried = Person::new(1000).run(move || {
        std::io::Write::write(&mut &seal, b"\n").map_err(|err| err.raw_os_error().unwrap())
    });
    assert_eq!(tried, Err(libc::EACCES));
    assert!(world.put("k", "still-unsealed") > 0);
}

/// A daemon of an ordinary user, whose other processes are the attackers.
struct Users {
    child: Child,
    directory: tempfile::TempDir,
}

const USER: u32 = 1000;

impl Users {
    fn start() -> Option<Self> {
        if !common::can_mount() {
            return None;
        }
        if !Path::new("/usr/bin/fusermount3").exists() {
            common::skip("no fusermount3 here");
            return None;
        }
        let directory = tempfile::tempdir_in("/var/tmp").unwrap();
        let program = directory.path().join("secretfs");
        common::copy_program(Path::new(env!("CARGO_BIN_EXE_secretfs")), &program);
        for path in [directory.path().to_owned(), program.clone()] {
            std::os::unix::fs::chown(&path, Some(USER), Some(USER)).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let mut command = Command::new(&program);
        command.args(["up", "--foreground"]).arg(directory.path().join("mount"));
        for home in
            ["HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"]
        {
            command.env(home, directory.path().join(home));
        }
        command.uid(USER).gid(USER).current_dir("/").stdin(Stdio::null()).stderr(Stdio::piped());
        let child = command.process_group(0).spawn().unwrap();
        let mut users = Self { child, directory };
        users.wait();
        Some(users)
    }

    fn wait(&mut self) {
        let health = self.directory.path().join("mount/.control/health");
        let mut said = BufReader::new(self.child.stderr.take().unwrap());
        eventually("the user's daemon serves", || {
            if let Some(status) = self.child.try_wait().unwrap() {
                let mut rest = String::new();
                said.read_to_string(&mut rest).unwrap();
                panic!("{status}: {rest}");
            }
            Person::new(USER).run(|| read(&health).is_ok_and(|word| word.starts_with(b"ok")))
        });
    }

    /// The daemon and every process that it has started.
    fn pids(&self) -> Vec<u32> {
        let mut pids = vec![self.child.id()];
        let children = format!("/proc/{0}/task/{0}/children", self.child.id());
        let text = fs::read_to_string(children).unwrap();
        pids.extend(text.split_whitespace().map(|pid| pid.parse::<u32>().unwrap()));
        pids
    }
}

impl Drop for Users {
    fn drop(&mut self) {
        let group = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
        let _ = umount2(&self.directory.path().join("mount"), MntFlags::MNT_DETACH);
        let _ = self.child.wait();
        let _ = Command::new("chattr").arg("-i").arg(self.directory.path().join("mount")).output();
    }
}

/// A10.
#[test]
fn the_daemons_own_user_gets_into_neither_the_daemon_nor_the_observer() {
    let Some(users) = Users::start() else { return };
    let pids = users.pids();
    assert!(pids.len() >= 2, "there is no observer: {pids:?}");
    let mut control = Command::new("/bin/sleep").arg("1000").uid(USER).gid(USER).spawn().unwrap();
    let victim = control.id();
    eventually("the control runs", || {
        fs::read_to_string(format!("/proc/{victim}/comm")).unwrap().starts_with("sleep")
    });
    let attacks = Person::new(USER).run(move || {
        let all = |pid| {
            attack::ALL.iter().map(|(name, attack)| (name.to_string(), attack(pid))).collect()
        };
        let control: Vec<(String, Result<(), i32>)> = all(victim);
        let tried: Vec<Vec<(String, Result<(), i32>)>> = pids.iter().map(|pid| all(*pid)).collect();
        (control, tried)
    });
    control.kill().unwrap();
    control.wait().unwrap();
    let (control, tried) = attacks;
    for (name, outcome) in &control {
        assert_eq!(outcome, &Ok(()), "{name} does not even work on a process of no interest");
    }
    for (name, outcome) in tried.iter().flatten() {
        assert!(matches!(outcome, Err(libc::EACCES | libc::EPERM)), "{name}: {outcome:?}");
    }
}
