//! Containers: what real runtimes start, with a shell inside that does what a test says.
//!
//! Each engine is started as it is elsewhere, with what the machines of the tests lack put in its way:
//! limits that may be set, and for crun, which takes no mix of cgroup versions, a mount namespace that
//! has version 2 alone.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "shared by test programs, each of which uses a part of it"
)]

use std::fs::{self, DirBuilder};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{DirBuilderExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::common::{DEADLINE, bounded, eventually, skip, write_file};

/// A user of whom the system has not heard, for containers without root.
pub const ROOTLESS: u32 = 61_009;

/// For `--cgroup-parent`.
pub const CGROUP_PARENT: &str = "secretfs-test-containers";

/// What starts a container.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Engine {
    Bwrap,
    Crun,
    PodmanCrun,
    PodmanRunc,
    /// Podman of an ordinary user, with crun.
    Rootless,
    Runc,
}

impl Engine {
    fn needs(self) -> &'static [&'static str] {
        match self {
            Self::Bwrap => &["bwrap"],
            Self::Crun => &["crun", "runc"],
            Self::PodmanCrun => &["podman", "crun"],
            Self::PodmanRunc => &["podman", "runc"],
            Self::Rootless => &["podman", "crun", "newuidmap"],
            Self::Runc => &["runc"],
        }
    }

    /// Returns the flag of `secretfs container-args` for it.
    pub fn flag(self) -> &'static str {
        match self {
            Self::Bwrap => "--bwrap",
            Self::Crun | Self::Runc => "--oci",
            Self::PodmanCrun | Self::PodmanRunc | Self::Rootless => "--podman",
        }
    }
}

/// A place for containers: a tree of files, and podman's storage. Dropping it ends its containers.
pub struct Yard {
    engine: Engine,
    dir: PathBuf,
}

impl Yard {
    /// Makes one in a new directory; says SKIP where the engine is not installed.
    pub fn make(engine: Engine, dir: PathBuf) -> Option<Self> {
        let lacks = engine.needs().iter().chain(["busybox"].iter()).find(|name| !is_there(name));
        if let Some(name) = lacks {
            skip(&format!("no {name} here"));
            return None;
        }
        DirBuilder::new().mode(0o711).create(&dir).unwrap();
        let yard = Self { engine, dir };
        yard.make_tree();
        // Locks and state of its own, so that no other podman of this machine is disturbed.
        let tmp = yard.dir.join("tmp");
        let conf = format!("[engine]\nlock_type = \"file\"\ntmp_dir = \"{}\"\n", tmp.display());
        write_file(&yard.dir.join("containers.conf"), conf.as_bytes());
        if engine == Engine::Rootless {
            yard.make_home();
        }
        if yard.is_podman() {
            yard.import();
        }
        Some(yard)
    }

    /// Starts a container with what `container-args --json` has said, and more arguments of the
    /// runtime.
    pub fn start(&self, said: &[Value], more: &[&str]) -> Inside {
        self.start_from(&Around::default(), said, more)
    }

    /// The same from within the cgroup of a service.
    pub fn start_in_service(&self, unit: &str, said: &[Value], more: &[&str]) -> Inside {
        let group = format!("/sys/fs/cgroup/system.slice/{unit}");
        let around = Around {
            before: format!("mkdir -p {group} && echo $$ > {group}/cgroup.procs &&"),
            after: format!(
                "echo $$ > /sys/fs/cgroup/cgroup.procs; find {group} -depth -type d -exec rmdir {{}} +; \
                 rmdir /sys/fs/cgroup/system.slice;"
            ),
        };
        self.start_from(&around, said, more)
    }

    fn start_from(&self, around: &Around, said: &[Value], more: &[&str]) -> Inside {
        let more: Vec<String> = more.iter().map(ToString::to_string).collect();
        let arguments = || {
            let all = said.iter().flat_map(|said| said["arguments"].as_array().unwrap());
            all.map(|word| word.as_str().unwrap().to_owned()).chain(more.clone())
        };
        let mut command = match self.engine {
            Engine::Bwrap => {
                let tree = self.tree();
                let mut command = Command::new("bwrap");
                command.args(["--die-with-parent", "--unshare-pid", "--unshare-net", "--bind"]);
                command.arg(tree).args(["/", "--proc", "/proc", "--dev", "/dev"]);
                command.args(arguments()).args(["/bin/sh"]);
                command
            }
            Engine::Crun | Engine::Runc => {
                self.write_bundle(said.iter().flat_map(|said| said["mounts"].as_array().unwrap()));
                self.oci_run(&more)
            }
            Engine::PodmanCrun | Engine::PodmanRunc | Engine::Rootless => {
                let mut command = self.podman("run", around);
                command.args([
                    "--rm",
                    "--interactive",
                    "--network=none",
                    "--ulimit=nofile=1024:20000",
                ]);
                command.args(["--ulimit=nproc=10000:10000"]);
                if self.engine != Engine::PodmanRunc
                    && !more.iter().any(|arg| arg.contains("--cgroups"))
                {
                    command.arg("--cgroups=disabled");
                }
                command.args(arguments()).args(["tree", "/bin/sh"]);
                command
            }
        };
        Inside::of(&mut command)
    }

    fn is_podman(&self) -> bool {
        matches!(self.engine, Engine::PodmanCrun | Engine::PodmanRunc | Engine::Rootless)
    }

    fn tree(&self) -> PathBuf {
        self.dir.join("bundle/rootfs")
    }

    /// Makes the files of a container: busybox, and where things are mounted.
    fn make_tree(&self) {
        let tree = self.tree();
        for directory in ["bin", "dev", "etc", "proc", "run/secrets", "run/single", "sys", "tmp"] {
            fs::create_dir_all(tree.join(directory)).unwrap();
        }
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].map(Path::new);
        let busybox = busybox.into_iter().find(|path| path.exists()).unwrap();
        fs::copy(busybox, tree.join("bin/busybox")).unwrap();
        for applet in ["cat", "echo", "id", "ls", "sh", "sleep", "touch"] {
            symlink("busybox", tree.join("bin").join(applet)).unwrap();
        }
    }

    /// Makes what an ordinary user has who may map a range of ids: a home, and names for the ids.
    fn make_home(&self) {
        for directory in ["home", "run"] {
            DirBuilder::new().mode(0o700).create(self.dir.join(directory)).unwrap();
            chown(self.dir.join(directory), Some(ROOTLESS), Some(ROOTLESS)).unwrap();
        }
        chown(&self.dir, Some(ROOTLESS), Some(ROOTLESS)).unwrap();
        let passwd = fs::read_to_string("/etc/passwd").unwrap();
        let group = fs::read_to_string("/etc/group").unwrap();
        let files = [
            ("passwd", format!("{passwd}rootless:x:{ROOTLESS}:{ROOTLESS}::/:/bin/sh\n")),
            ("group", format!("{group}rootless:x:{ROOTLESS}:\n")),
            ("subuid", "rootless:200000:65536\n".to_owned()),
            ("subgid", "rootless:200000:65536\n".to_owned()),
        ];
        for (name, text) in files {
            write_file(&self.dir.join(name), text.as_bytes());
        }
    }

    fn import(&self) {
        let tar = self.dir.join("tree.tar");
        let packed =
            Command::new("tar").arg("-C").arg(self.tree()).arg("-cf").arg(&tar).arg(".").status();
        assert!(packed.unwrap().success());
        let output = bounded(self.podman("import", &Around::default()).arg(&tar).arg("tree"));
        assert!(output.status.success(), "{output:?}");
    }

    /// Returns a command of podman with a storage of its own.
    fn podman(&self, verb: &str, around: &Around) -> Command {
        let (mut command, runtime) = if self.engine == Engine::PodmanRunc {
            (Command::new("podman"), "runc")
        } else {
            let mut command = if self.engine == Engine::Rootless {
                surrounded(&self.as_rootless())
            } else {
                surrounded(around)
            };
            command.arg("podman");
            (command, "crun")
        };
        command.arg("--root").arg(self.dir.join("storage"));
        command.arg("--runroot").arg(self.dir.join("runroot"));
        command.args(["--storage-driver=vfs", "--cgroup-manager=cgroupfs", "--runtime", runtime]);
        command.env("CONTAINERS_CONF", self.dir.join("containers.conf"));
        command.arg(verb).env_remove("XDG_RUNTIME_DIR").env_remove("XDG_CONFIG_HOME");
        command
    }

    fn oci_run(&self, more: &[String]) -> Command {
        let mut command = self.oci("run");
        command.arg("--bundle").arg(self.dir.join("bundle")).args(more).arg(self.name());
        command
    }

    /// Returns a command of runc or crun with a state of its own.
    fn oci(&self, verb: &str) -> Command {
        let mut command = if self.engine == Engine::Runc {
            Command::new("runc")
        } else {
            let mut command = surrounded(&Around::default());
            command.args(["crun", "--cgroup-manager=disabled"]);
            command
        };
        command.arg("--root").arg(self.dir.join("state")).arg(verb);
        command
    }

    /// Returns a name that no other container of this machine has.
    fn name(&self) -> String {
        format!("secretfs-test-{}", std::process::id())
    }

    fn write_bundle<'a>(&self, binds: impl Iterator<Item = &'a Value>) {
        let bundle = self.dir.join("bundle");
        drop(fs::remove_file(bundle.join("config.json")));
        let spec = bounded(Command::new("runc").arg("spec").arg("--bundle").arg(&bundle));
        assert!(spec.status.success(), "{spec:?}");
        let file = bundle.join("config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(["/bin/sh"]);
        config["process"]["rlimits"] = json!([]);
        config["mounts"].as_array_mut().unwrap().extend(binds.cloned());
        write_file(&file, config.to_string().as_bytes());
    }

    /// Returns what makes a process the ordinary user, whom the system knows there.
    fn as_rootless(&self) -> Around {
        let dir = self.dir.display();
        let binds = ["passwd", "group", "subuid", "subgid"]
            .map(|name| format!("mount --bind {dir}/{name} /etc/{name} && "));
        let before = format!(
            "{} export HOME={dir}/home XDG_RUNTIME_DIR={dir}/run && cd / && \
             set -- setpriv --reuid={ROOTLESS} --regid={ROOTLESS} --clear-groups \"$@\" &&",
            binds.concat()
        );
        Around { before, after: String::new() }
    }
}

impl Yard {
    /// Returns the processes that were told of this place, dead ones left out.
    fn processes(&self) -> Vec<Pid> {
        let dir = self.dir.to_str().unwrap().as_bytes();
        let is_ours = |pid: &Pid| {
            let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            arguments.windows(dir.len()).any(|part| part == dir)
        };
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.map(Pid::from_raw).filter(is_ours).collect()
    }
}

/// What a shell does around a command, before it with `&&` and after it with `;` at the end.
#[derive(Debug, Default)]
struct Around {
    before: String,
    after: String,
}

/// Returns a command that runs what is added to it in a mount namespace with version 2 of cgroups alone.
fn surrounded(Around { before, after }: &Around) -> Command {
    let script = format!(
        "mount --make-rprivate / && \
         if [ ! -e /sys/fs/cgroup/cgroup.controllers ]; then \
           umount -R /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup; fi && \
         {before} \"$@\"; code=$?; {after} exit $code"
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation=unchanged", "sh", "-c", &script, "sh"]);
    command
}

impl Drop for Yard {
    fn drop(&mut self) {
        match self.engine {
            Engine::Bwrap => {}
            // Of a container that has ended in order there is nothing left.
            Engine::Crun | Engine::Runc => {
                drop(bounded(self.oci("delete").arg("--force").arg(self.name())));
            }
            Engine::PodmanCrun | Engine::PodmanRunc | Engine::Rootless => {
                let mut remove = self.podman("rm", &Around::default());
                drop(bounded(remove.args(["--all", "--force", "--time=0"])));
            }
        }
        // What watched a container cleans up behind it, and would make anew what is removed too early.
        // Podman without root leaves a process that holds its namespaces.
        let start = Instant::now();
        loop {
            let left = self.processes();
            let pause = fs::read_to_string(self.dir.join("tmp/pause.pid")).unwrap_or_default();
            let pause = pause.trim().parse().ok().map(Pid::from_raw);
            let late = left.iter().filter(|_| start.elapsed() > DEADLINE / 2);
            for pid in pause.iter().chain(late) {
                let _ = kill(*pid, Signal::SIGKILL);
            }
            if left.is_empty() || start.elapsed() > DEADLINE {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        // Podman leaves the cgroups above its containers' behind; those of others are not empty.
        for version in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            for name in ["libpod_parent", CGROUP_PARENT] {
                let group = version.path().join(name);
                drop(fs::remove_dir(group.join("conmon")));
                drop(fs::remove_dir(group));
            }
        }
    }
}

/// A shell in a container.
pub struct Inside {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Inside {
    fn of(command: &mut Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdin, stdout }
    }

    /// Runs a script there and returns what it prints, errors too.
    pub fn sh(&mut self, script: &str) -> String {
        writeln!(self.stdin.as_mut().unwrap(), "{{ {script}\n}} 2>&1; echo; echo =end=").unwrap();
        let mut said = String::new();
        loop {
            let mut line = String::new();
            let read = self.stdout.read_line(&mut line).unwrap();
            assert!(read > 0, "the container has ended: {said}");
            if line == "=end=\n" {
                said.pop();
                return said;
            }
            said.push_str(&line);
        }
    }

    /// Returns what a file there holds, or the error.
    pub fn cat(&mut self, path: &str) -> String {
        self.sh(&format!("cat {path}"))
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        // The shell ends with its input, and the container with the shell.
        drop(self.stdin.take());
        if !std::thread::panicking() {
            let child = &mut self.child;
            eventually("the container ends", || child.try_wait().unwrap().is_some());
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    places.any(|place| place.join(program).exists())
}
